//! This node's CertificateRequests as the watch shows them, and the signings that wait for them.

use super::api::{CertificateRequest, Expected, Key, State};
use crate::model::SignerKind;
use crate::platform::Tally;
use crate::signer::{LiveRequests, Liveness, RequestId};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// Tracks all requests of this node.
pub(super) struct RequestTracker {
    live: Arc<dyn LiveRequests>,
    inner: Mutex<Inner>,
    server_answered: Notify,
    completed: Notify,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<Key, Awaited>,
    requests: HashMap<Key, Tracked>,
    /// How many of them each namespace has.
    by_namespace: Tally<String>,
    /// Number of requests seen so far.
    seen: u64,
    /// Number of times that a request was seen and not tracked.
    ignored: u64,
    /// The keys that the list in progress has named so far.
    listed: Option<HashSet<Key>>,
    /// Ids whose requests were issued while no `sign` was waiting.
    completed_unawaited: VecDeque<RequestId>,
    /// Why the watch does not work, or why the last poll has failed.
    watch_error: Option<String>,
}

/// A request that a signing waits for.
struct Awaited {
    expected: Expected,
    decided: oneshot::Sender<State>,
}

/// One request.
struct Tracked {
    id: RequestId,
    /// The object's uid: an object that is made again has another one.
    uid: String,
    /// Seconds since the epoch by the API server's clock, and among requests of one second the order in which they were
    /// first seen.
    age: (i64, u64),
    /// What it waits for; none once it is decided.
    waits_for: Option<String>,
    is_issued: bool,
    /// Its certificate is the one in use.
    in_use: bool,
}

/// Limit on the requests that are tracked. One takes at most 2 KiB, a node of 250 volumes has 250 to 500. Beyond it only those
/// are tracked that a signing waits for, so that objects with this node's label, which anybody may have made, cannot fill the
/// memory.
const MAX_REQUESTS: usize = 8192;
/// Limit on the requests of one namespace that are tracked, so that it cannot take the places of the others.
const MAX_PER_NAMESPACE: usize = MAX_REQUESTS / 4;
/// Limit on the requests of one id that are tracked. `--keep-requests` is at most 100.
const MAX_PER_ID: usize = 128;
/// Characters that are kept of an issuer's message.
const MAX_MESSAGE: usize = 300;

/// A signing that waits for one request, until it is dropped.
pub(super) struct Waiter {
    tracker: Arc<RequestTracker>,
    key: Key,
    decided: oneshot::Receiver<State>,
}

impl Waiter {
    /// Resolves to the first state that is not open.
    pub(super) async fn decided(mut self) -> State {
        (&mut self.decided).await.unwrap_or(State::Gone)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.tracker.inner.lock().waiting.remove(&self.key);
    }
}

/// What has come of a request that was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// It is to be deleted, because its id was removed: it was being created meanwhile, or a list names it after a restart.
    pub(super) unwanted: Option<Key>,
    /// It is another object than the one that was seen before, or that a signing waits for.
    pub(super) is_other: bool,
}

impl RequestTracker {
    /// A tracker without requests; `live` says which ids this node has.
    pub(super) fn new(live: Arc<dyn LiveRequests>) -> Arc<Self> {
        let (inner, server_answered, completed) = Default::default();
        Arc::new(Self { live, inner, server_answered, completed })
    }

    /// Waits for a request, which need not exist yet. A key has at most one waiter.
    pub(super) fn wait_for(self: &Arc<Self>, key: Key, expected: Expected) -> Waiter {
        let (sender, decided) = oneshot::channel();
        self.inner.lock().waiting.insert(key.clone(), Awaited { expected, decided: sender });
        Waiter { tracker: Arc::clone(self), key, decided }
    }

    /// Records a request as the API server has it now, and tells the signing that waits for it if it is decided.
    ///
    /// A request that no signing waits for is ignored if this node does not have its id for a pod of its namespace, or if too
    /// many requests are tracked.
    pub(super) fn saw(&self, request: &CertificateRequest) -> Seen {
        let (Some(key), Some(id)) = (request.key(), request.id().map(RequestId::new)) else {
            return Seen::default();
        };
        let liveness = self.live.liveness(SignerKind::CertManager, &id, &key.namespace);
        let unwanted = (liveness == Liveness::Removed).then(|| key.clone());
        let created = request.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let mut inner = self.inner.lock();
        let Inner { waiting, requests, by_namespace, seen, ignored, listed, completed_unawaited, .. } =
            &mut *inner;
        let uid = request.metadata.uid.clone().unwrap_or_default();
        let is_other = |awaited: &Awaited| !awaited.expected.is(request);
        if waiting.get(&key).is_some_and(is_other) || requests.get(&key).is_some_and(|old| old.uid != uid) {
            if requests.remove(&key).is_some() {
                by_namespace.remove(&key.namespace);
            }
            if let Some(awaited) = waiting.remove(&key) {
                let _abandoned = awaited.decided.send(State::Replaced);
            }
            return Seen { unwanted, is_other: true };
        }
        let is_new = !requests.contains_key(&key);
        let is_beyond_limits = || {
            liveness == Liveness::Unknown
                || requests.len() >= MAX_REQUESTS
                || by_namespace.of(&key.namespace) >= MAX_PER_NAMESPACE
                || of_id(requests, &id).count() >= MAX_PER_ID
        };
        if is_new && !waiting.contains_key(&key) && is_beyond_limits() {
            *ignored += 1;
            return Seen::default();
        }
        if let Some(listed) = listed {
            listed.insert(key.clone());
        }
        let tracked = requests.entry(key.clone()).or_insert_with(|| {
            *seen += 1;
            by_namespace.add(key.namespace.clone());
            Tracked { id, uid, age: (created, *seen), waits_for: None, is_issued: false, in_use: false }
        });
        let was_open = tracked.waits_for.is_some();
        match request.state() {
            State::Open(reason) if is_new || was_open => {
                tracked.waits_for = Some(reason.chars().take(MAX_MESSAGE).collect());
            }
            // The answer to a create can arrive after the watch has shown the decision, which is final.
            State::Open(_) => {}
            decided => {
                tracked.waits_for = None;
                tracked.is_issued = matches!(decided, State::Issued { .. });
                if let Some(awaited) = waiting.remove(&key) {
                    let _abandoned = awaited.decided.send(decided);
                } else if tracked.is_issued && was_open {
                    completed_unawaited.push_back(tracked.id.clone());
                    self.completed.notify_one();
                }
            }
        }
        Seen { unwanted, is_other: false }
    }

    /// How many requests are tracked, and how often one was ignored.
    pub(super) fn counts(&self) -> (usize, u64) {
        let inner = self.inner.lock();
        (inner.requests.len(), inner.ignored)
    }

    /// Whether the request has been seen to exist.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.inner.lock().requests.contains_key(key)
    }

    /// The request does not exist any more.
    pub(super) fn lost(&self, key: &Key) {
        self.inner.lock().lose(key);
    }

    /// A full list may begin. Requests that are recorded from now on stay at its end, because a list may not name
    /// requests that were created meanwhile.
    pub(super) fn list_may_begin(&self) {
        self.inner.lock().listed.get_or_insert_default();
    }

    /// A full list has ended: requests that it did not name do not exist any more.
    pub(super) fn list_ended(&self) {
        let mut inner = self.inner.lock();
        inner.watch_error = None;
        let listed = inner.listed.take().unwrap_or_default();
        let lost: Vec<Key> = inner.requests.keys().filter(|key| !listed.contains(key)).cloned().collect();
        for key in &lost {
            inner.lose(key);
        }
    }

    /// The watch or a poll has failed, or works again.
    pub(super) fn set_watch_error(&self, error: Option<String>) {
        self.inner.lock().watch_error = error;
    }

    /// The API server has answered a create: a watch that waits before its next attempt need not wait longer.
    pub(super) fn server_answered(&self) {
        // notify_waiters, not notify_one: a reply from before the failure must not wake a later waiter.
        self.server_answered.notify_waiters();
    }

    /// Resolves with the server's next answer.
    pub(super) async fn next_answer(&self) {
        self.server_answered.notified().await;
    }

    /// Resolves to an id whose request was issued while no `sign` was waiting. Cancel-safe.
    pub(super) async fn next_completed(&self) -> RequestId {
        loop {
            let next = self.inner.lock().completed_unawaited.pop_front();
            match next {
                Some(id) => return id,
                None => self.completed.notified().await,
            }
        }
    }

    /// What a request waits for, or why that is not known.
    pub(super) fn describe(&self, key: &Key) -> String {
        let inner = self.inner.lock();
        let waits_for = || inner.requests.get(key)?.waits_for.clone();
        inner.watch_error.clone().or_else(waits_for).unwrap_or_else(|| "not seen yet".to_owned())
    }

    /// The certificate of the id's newest request is in use.
    pub(super) fn mark_in_use(&self, id: &RequestId) {
        let mut inner = self.inner.lock();
        let newest = inner.by_age(id).pop().map(|(key, _)| key.clone());
        for (key, request) in inner.requests.iter_mut().filter(|(_, request)| request.id == *id) {
            request.in_use = Some(key) == newest.as_ref();
        }
    }

    /// The id's requests, without the newest `keep` and without the one whose certificate is in use: later requests may
    /// all have failed. After a restart that one is not known. Then the newest issued request counts as the one in use.
    pub(super) fn superseded(&self, id: &RequestId, keep: usize) -> Vec<Key> {
        let inner = self.inner.lock();
        let mut requests = inner.by_age(id);
        let newest = |is: fn(&Tracked) -> bool| requests.iter().rfind(|(_, request)| is(request)).copied();
        let in_use = newest(|request| request.in_use).or_else(|| newest(|request| request.is_issued));
        requests.truncate(requests.len().saturating_sub(keep));
        let is_superseded = |key: &&Key| in_use.is_none_or(|(in_use, _)| in_use != *key);
        requests.into_iter().map(|(key, _)| key).filter(is_superseded).cloned().collect()
    }

    /// All requests of the id.
    pub(super) fn requests_of(&self, id: &RequestId) -> Vec<Key> {
        self.inner.lock().by_age(id).into_iter().map(|(key, _)| key.clone()).collect()
    }
}

impl Inner {
    /// The id's requests, the oldest first. Scans all requests: a node has a few hundred.
    fn by_age(&self, id: &RequestId) -> Vec<(&Key, &Tracked)> {
        let mut requests: Vec<_> = of_id(&self.requests, id).collect();
        requests.sort_by_key(|(_, request)| request.age);
        requests
    }

    fn lose(&mut self, key: &Key) {
        if self.requests.remove(key).is_some() {
            self.by_namespace.remove(&key.namespace);
        }
        if let Some(listed) = &mut self.listed {
            listed.remove(key);
        }
        if let Some(awaited) = self.waiting.remove(key) {
            let _abandoned = awaited.decided.send(State::Gone);
        }
    }
}

/// The requests of one id.
fn of_id<'a>(
    requests: &'a HashMap<Key, Tracked>,
    id: &RequestId,
) -> impl Iterator<Item = (&'a Key, &'a Tracked)> {
    requests.iter().filter(move |(_, request)| request.id == *id)
}

/// Reads a request of any shape, and tracks it.
#[cfg(fuzzing)]
pub(crate) fn fuzz_certificate_request(json: &[u8]) {
    use crate::signer::RequestId;

    struct All;

    impl LiveRequests for All {
        fn liveness(&self, _signer: SignerKind, _id: &RequestId, _namespace: &str) -> Liveness {
            Liveness::Present
        }
    }

    let Ok(request) = serde_json::from_slice::<CertificateRequest>(json) else { return };
    let tracker = RequestTracker::new(Arc::new(All));
    assert_eq!(tracker.saw(&request), Seen::default());
    let (_state, _approval) = (request.state(), request.is_approved_unchecked());
    if let (Some(key), Some(id)) = (request.key(), request.id()) {
        assert!(id.len() <= 128 && tracker.knows(&key));
        assert_eq!(tracker.requests_of(&RequestId::new(id)), [key.clone()]);
        tracker.lost(&key);
    }
    assert_eq!(tracker.counts().0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use serde_json::json;

    /// Has all ids that begin with `csi-`, for pods of all namespaces but `elsewhere`.
    struct Ids;

    impl LiveRequests for Ids {
        fn liveness(&self, _signer: SignerKind, id: &RequestId, namespace: &str) -> Liveness {
            let is_here = namespace != "elsewhere" && id.as_str().starts_with("csi-");
            if is_here { Liveness::Present } else { Liveness::Unknown }
        }
    }

    fn request(name: &str, status: &serde_json::Value) -> CertificateRequest {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": name, "creationTimestamp": "2026-05-01T12:00:00Z",
                "annotations": { "certlet.io/volume-id": "csi-1" },
            },
            "spec": { "request": "" },
            "status": status,
        }))
        .unwrap()
    }

    fn expected(request: &CertificateRequest) -> Expected {
        Expected { spec: request.spec.clone(), uid: request.metadata.uid.clone() }
    }

    fn with_uid(mut request: CertificateRequest, uid: &str) -> CertificateRequest {
        request.metadata.uid = Some(uid.to_owned());
        request
    }

    fn issued() -> serde_json::Value {
        json!({ "conditions": [{ "type": "Ready", "status": "True" }], "certificate": "bGVhZg==" })
    }

    #[test]
    fn the_late_answer_to_a_create_does_not_reopen_an_issued_request() {
        let tracker = RequestTracker::new(Arc::new(Ids));
        let open = request("a", &json!({}));
        let waiter = tracker.wait_for(open.key().unwrap(), expected(&open));
        tracker.saw(&request("a", &issued()));
        tracker.saw(&open);
        assert!(matches!(waiter.decided().now_or_never(), Some(State::Issued { .. })));
        tracker.saw(&request("a", &issued()));
        assert!(tracker.next_completed().now_or_never().is_none(), "the waiter has got the certificate");
    }

    #[test]
    fn of_two_requests_of_one_second_the_one_seen_later_is_the_newer() {
        let tracker = RequestTracker::new(Arc::new(Ids));
        for name in ["b", "a", "b"] {
            tracker.saw(&request(name, &json!({})));
        }
        let id = RequestId::new("csi-1");
        let names = |keys: Vec<Key>| keys.into_iter().map(|key| key.name).collect::<Vec<_>>();
        assert_eq!(names(tracker.superseded(&id, 1)), ["b"]);
        tracker.mark_in_use(&id);
        tracker.saw(&request("c", &json!({})));
        tracker.saw(&request("d", &json!({})));
        assert_eq!(names(tracker.superseded(&id, 1)), ["b", "c"], "the request in use stays");
    }

    #[test]
    fn requests_that_this_node_has_no_use_for_are_ignored_unless_a_signing_waits_for_them() {
        let tracker = RequestTracker::new(Arc::new(Ids));
        let object = |namespace: &str, name: &str, id: &str| {
            let mut request = request(name, &issued());
            request.metadata.namespace = Some(namespace.to_owned());
            request.metadata.annotations = Some([("certlet.io/volume-id".to_owned(), id.to_owned())].into());
            request
        };
        for (namespace, id) in [("shop", "other"), ("elsewhere", "csi-1")] {
            tracker.saw(&object(namespace, "a", id));
        }
        assert_eq!(tracker.counts(), (0, 2), "ids that this node does not have, in that namespace");
        for n in 0..=MAX_PER_ID {
            tracker.saw(&object("shop", &format!("one-{n}"), "csi-1"));
        }
        assert_eq!(tracker.counts(), (MAX_PER_ID, 3), "many of one id");
        let many = |namespace: &str, count: usize| {
            for n in 0..count {
                let id = format!("csi-{namespace}-{}", n / MAX_PER_ID);
                tracker.saw(&object(namespace, &format!("many-{n}"), &id));
            }
        };
        many("shop", MAX_PER_NAMESPACE - MAX_PER_ID + 1);
        assert_eq!(tracker.counts(), (MAX_PER_NAMESPACE, 4), "many of one namespace");
        for namespace in ["cart", "blog"] {
            many(namespace, MAX_PER_NAMESPACE);
        }
        many("rest", MAX_PER_NAMESPACE / 2);
        tracker.lost(&object("rest", "many-0", "csi-rest-0").key().unwrap());
        many("rest", MAX_PER_NAMESPACE);
        assert_eq!(tracker.counts(), (MAX_REQUESTS, 4), "many of many namespaces");
        many("last", 1);
        assert_eq!(tracker.counts(), (MAX_REQUESTS, 5), "one more");
        for (namespace, id) in [("shop", "csi-1"), ("shop", "other")] {
            let ours = object(namespace, "ours", id);
            let waiter = tracker.wait_for(ours.key().unwrap(), expected(&ours));
            tracker.saw(&ours);
            assert!(matches!(waiter.decided().now_or_never(), Some(State::Issued { .. })));
            tracker.lost(&ours.key().unwrap());
        }
    }

    #[test]
    fn a_request_that_was_made_again_is_not_adopted() {
        let tracker = RequestTracker::new(Arc::new(Ids));
        let open = request("a", &json!({}));
        let waiter = tracker.wait_for(open.key().unwrap(), expected(&open));
        tracker.saw(&open);
        assert!(tracker.saw(&with_uid(request("a", &issued()), "another")).is_other);
        assert_eq!(waiter.decided().now_or_never(), Some(State::Replaced));
        assert!(!tracker.knows(&open.key().unwrap()));
    }

    #[test]
    fn a_request_with_another_uid_than_the_checkpoints_is_not_adopted() {
        let tracker = RequestTracker::new(Arc::new(Ids));
        let other = request("a", &issued());
        let expected = Expected { uid: Some("ours".into()), ..expected(&other) };
        let waiter = tracker.wait_for(other.key().unwrap(), expected);
        let other = with_uid(other, "another");
        tracker.saw(&other);
        assert_eq!(waiter.decided().now_or_never(), Some(State::Replaced));
    }

    #[test]
    fn annotations_of_others_and_long_ids_are_not_kept() {
        let object = |annotation: &str, value: &str| -> CertificateRequest {
            serde_json::from_value(json!({
                "metadata": { "namespace": "shop", "name": "a", "annotations": { annotation: value } },
                "spec": { "request": "" },
            }))
            .unwrap()
        };
        assert_eq!(object("certlet.io/volume-id", &"x".repeat(128)).id(), Some(&*"x".repeat(128)));
        assert_eq!(object("certlet.io/volume-id", &"x".repeat(129)).id(), None);
        assert_eq!(object("other", &"x".repeat(250_000)).metadata.annotations, None);
    }

    #[test]
    fn a_list_ends_requests_that_it_does_not_name() {
        let tracker = RequestTracker::new(Arc::new(Ids));
        let old = request("a", &json!({}));
        tracker.saw(&old);
        let waiter = tracker.wait_for(old.key().unwrap(), expected(&old));
        tracker.list_may_begin();
        tracker.saw(&request("created-meanwhile", &json!({})));
        tracker.list_ended();
        assert_eq!(waiter.decided().now_or_never(), Some(State::Gone));
        assert_eq!(tracker.requests_of(&RequestId::new("csi-1")).len(), 1);
    }
}
