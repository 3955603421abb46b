//! Who waits for which request, and which requests this node has: all that is kept of what the watch tells.

use super::api::{CertificateRequest, Key, State};
use crate::attributes::VolumeId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The board. Every clone is the same.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    answered: Notify,
    issued_unheard: Notify,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<Key, watch::Sender<State>>,
    requests: HashMap<Key, Known>,
    by_volume: HashMap<VolumeId, Vec<Key>>,
    /// What a list in progress has named so far.
    listing: Option<HashSet<Key>>,
    /// Volumes that went lately: a request of theirs that turns up late goes too.
    gone: HashMap<VolumeId, Instant>,
    /// Volumes whose requests were seen issued while nobody waited.
    unheard: VecDeque<VolumeId>,
    trouble: Option<String>,
}

/// One request of this node.
struct Known {
    volume: VolumeId,
    /// Seconds since the epoch, as the API server has it.
    created: i64,
    /// What it waits for, in words; empty once it is decided.
    waits_for: String,
    /// It is signed.
    is_issued: bool,
    /// Its certificate is the one that was delivered last.
    in_use: bool,
}

/// How long a request that was on its way when its volume went may take to turn up. Also covers the first list after a
/// start, before which nothing is known.
const REMEMBER_GONE: Duration = Duration::from_mins(15);
/// Words of others that are kept are cut here.
const WORDS: usize = 300;

/// A place on the board; leaving it is dropping it.
pub(super) struct Waiter {
    board: Board,
    key: Key,
    state: watch::Receiver<State>,
}

impl Waiter {
    /// The first state that is not open.
    pub(super) async fn decided(&mut self) -> State {
        match self.state.wait_for(|state| !matches!(state, State::Open(_))).await {
            Ok(state) => state.clone(),
            // The board holds the sender for as long as this waiter lives.
            Err(_) => State::Gone,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.board.lock().waiting.remove(&self.key);
    }
}

impl Board {
    /// Takes a place for a request, which need not exist yet.
    pub(super) fn wait_for(&self, key: Key) -> Waiter {
        let (sender, state) = watch::channel(State::Open(String::new()));
        self.lock().waiting.insert(key.clone(), sender);
        Waiter { board: self.clone(), key, state }
    }

    /// A request as the API server has it now. Gives its key back if its volume is gone, and so should it be.
    pub(super) fn saw(&self, request: &CertificateRequest) -> Option<Key> {
        let (key, volume) = (request.key()?, VolumeId::new(request.volume()?));
        let state = request.state();
        let created = request.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let mut inner = self.lock();
        let unwanted = inner.gone.get(&volume).is_some_and(|at| at.elapsed() < REMEMBER_GONE);
        if let Some(listing) = &mut inner.listing {
            listing.insert(key.clone());
        }
        let waits_for =
            if let State::Open(words) = &state { words.chars().take(WORDS).collect() } else { String::new() };
        let before = inner.requests.get(&key);
        let was_known = before.is_some();
        let was_open = before.is_some_and(|before| !before.waits_for.is_empty());
        let in_use = before.is_some_and(|before| before.in_use);
        let is_issued = matches!(state, State::Issued { .. });
        let known = Known { volume: volume.clone(), created, waits_for, is_issued, in_use };
        inner.requests.insert(key.clone(), known);
        if was_open && is_issued && !inner.waiting.contains_key(&key) {
            inner.unheard.push_back(volume.clone());
            self.0.issued_unheard.notify_one();
        }
        if !was_known {
            inner.by_volume.entry(volume).or_default().push(key.clone());
        }
        if let Some(waiter) = inner.waiting.get(&key) {
            // The answer to the create may come in after the watch has told the end of it: what is decided stays so.
            waiter.send_if_modified(|known| {
                let open = matches!(known, State::Open(_));
                if open {
                    *known = state;
                }
                open
            });
        }
        unwanted.then_some(key)
    }

    /// Whether the request has been seen to exist.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.lock().requests.contains_key(key)
    }

    /// A request is no more.
    pub(super) fn lost(&self, key: &Key) {
        self.lock().lose(key);
    }

    /// A full list may come next. From here on, and not only from its first object on: what is created meanwhile may not
    /// be in it and exists all the same.
    pub(super) fn list_may_come(&self) {
        self.lock().listing.get_or_insert_default();
    }

    /// A full list has ended: what it did not name is no more.
    pub(super) fn list_ended(&self) {
        let mut inner = self.lock();
        inner.trouble = None;
        let named = inner.listing.take().unwrap_or_default();
        let lost: Vec<Key> = inner.requests.keys().filter(|key| !named.contains(key)).cloned().collect();
        for key in &lost {
            inner.lose(key);
        }
    }

    /// Says why the watch does not work.
    pub(super) fn trouble(&self, trouble: String) {
        self.lock().trouble = Some(trouble);
    }

    /// The watch works.
    pub(super) fn works(&self) {
        self.lock().trouble = None;
    }

    /// The API server has answered a create: a watch that waits before its next try need not wait.
    pub(super) fn note_answer(&self) {
        // Whoever waits now, and not whoever will wait some day: an answer from before the trouble says nothing of it.
        self.0.answered.notify_waiters();
    }

    /// Returns with the next answer.
    pub(super) async fn answered(&self) {
        self.0.answered.notified().await;
    }

    /// The next volume whose request was seen issued while nobody waited.
    pub(super) async fn unheard(&self) -> VolumeId {
        loop {
            let next = self.lock().unheard.pop_front();
            match next {
                Some(volume) => return volume,
                None => self.0.issued_unheard.notified().await,
            }
        }
    }

    /// What a request waits for, in words.
    pub(super) fn words(&self, key: &Key) -> String {
        let inner = self.lock();
        let waits_for = inner.requests.get(key).map_or("", |known| known.waits_for.as_str());
        match (&inner.trouble, waits_for) {
            (Some(trouble), _) => trouble.clone(),
            (None, "") => "not seen yet".to_owned(),
            (None, words) => words.to_owned(),
        }
    }

    /// The certificate of the volume's newest request has been delivered.
    pub(super) fn delivered(&self, volume: &VolumeId) {
        let mut inner = self.lock();
        let keys = inner.by_age(volume);
        for (n, key) in keys.iter().enumerate() {
            if let Some(known) = inner.requests.get_mut(key) {
                known.in_use = n + 1 == keys.len();
            }
        }
    }

    /// A volume's requests but for the newest so many, and but for the one whose certificate is in use: those made since
    /// may all have led to nothing. After a start nobody knows which that is, and it is taken to be the newest signed one.
    pub(super) fn older(&self, volume: &VolumeId, keep: usize) -> Vec<Key> {
        let inner = self.lock();
        let mut keys = inner.by_age(volume);
        let last = |is: fn(&Known) -> bool| keys.iter().rfind(|key| inner.requests.get(key).is_some_and(is));
        let in_use = last(|known| known.in_use).or_else(|| last(|known| known.is_issued)).cloned();
        keys.truncate(keys.len().saturating_sub(keep));
        keys.retain(|key| Some(key) != in_use.as_ref());
        keys
    }

    /// The volume is gone: its requests, to be deleted. Those that turn up later come out of [`Self::saw`].
    pub(super) fn forget(&self, volume: &VolumeId) -> Vec<Key> {
        let mut inner = self.lock();
        inner.gone.retain(|_, at| at.elapsed() < REMEMBER_GONE);
        inner.gone.insert(volume.clone(), Instant::now());
        inner.by_volume.get(volume).cloned().unwrap_or_default()
    }

    /// The volume is there, again perhaps.
    pub(super) fn expect(&self, volume: &VolumeId) {
        self.lock().gone.remove(volume);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The volume's requests, the oldest first.
    fn by_age(&self, volume: &VolumeId) -> Vec<Key> {
        let mut keys: Vec<Key> = self.by_volume.get(volume).into_iter().flatten().cloned().collect();
        // Stable: of two made in one second the one seen later is the newer.
        keys.sort_by_key(|key| self.requests.get(key).map_or(0, |known| known.created));
        keys
    }

    fn lose(&mut self, key: &Key) {
        if let Some(listing) = &mut self.listing {
            listing.remove(key);
        }
        if let Some(known) = self.requests.remove(key)
            && let Some(keys) = self.by_volume.get_mut(&known.volume)
        {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_volume.remove(&known.volume);
            }
        }
        if let Some(waiter) = self.waiting.get(key) {
            waiter.send_replace(State::Gone);
        }
    }
}
