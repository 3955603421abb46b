//! The one watch of this node.

use super::api::{CertificateRequest, NODE_LABEL};
use super::deletion::Deletions;
use super::tracker::RequestTracker;
use crate::kube::{ApiObserver, Cluster};
use crate::model::{MAX_MESSAGE_BYTES, clipped};
use futures_util::{Stream, StreamExt, TryStreamExt};
use kube::Api;
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Error, Event, watcher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Seconds after which the API server ends the watch, so that a dead connection is noticed. The watch is then resumed.
const TIMEOUT: u32 = 120;
/// Objects per page of a list. An object has at most 1.5 MiB (etcd's limit on a request), and a page takes about four times its
/// size while it is read.
const PAGE_SIZE: u32 = 10;
/// The shortest time from one start of a watch to the next.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Watches this node's requests until shutdown.
pub(super) async fn watch(
    cluster: Cluster,
    node_label: String,
    tracker: Arc<RequestTracker>,
    deletions: Arc<Deletions>,
    observer: Arc<dyn ApiObserver>,
    shutdown: CancellationToken,
) {
    let api: Api<CertificateRequest> = Api::all(cluster.own);
    let config = watcher::Config::default()
        .labels(&format!("{NODE_LABEL}={node_label}"))
        .timeout(TIMEOUT)
        .page_size(PAGE_SIZE);
    let watching = async {
        loop {
            // The backoff grows to 30 s, with jitter. `Init` is passed over, because it only says that a list begins, and
            // would reset the backoff.
            let events = watcher(api.clone(), config.clone())
                .try_filter(|event| std::future::ready(!matches!(event, Event::Init)))
                .default_backoff();
            let started = Instant::now();
            follow(events, &tracker, &deletions, &*observer).await;
            tokio::time::sleep_until(started + MIN_INTERVAL).await;
        }
    };
    shutdown.run_until_cancelled(watching).await;
}

/// Returns if a new watch is better than a resumed one: the resource version has expired, or the server has just answered
/// a create while the watch waits in its backoff.
async fn follow(
    events: impl Stream<Item = Result<Event<CertificateRequest>, Error>>,
    tracker: &RequestTracker,
    deletions: &Arc<Deletions>,
    observer: &dyn ApiObserver,
) {
    let mut events = pin!(events);
    let mut failing = false;
    tracker.list_may_begin();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = tracker.next_answer(), if failing => return,
        };
        let Some(event) = event else { return };
        if failing && event.is_ok() {
            tracing::info!("the watch on CertificateRequests works again");
        }
        failing = event.is_err();
        if let Ok(Event::Apply(_) | Event::Delete(_)) = &event {
            tracker.set_watch_error(None);
        }
        match event {
            Ok(Event::Init) => {}
            Ok(Event::InitApply(request) | Event::Apply(request)) => {
                deletions.delete_all(tracker.saw(&request).unwanted);
                if request.is_approved_unchecked() && request.key().is_some_and(|key| tracker.knows(&key)) {
                    observer.approved_unchecked();
                }
            }
            Ok(Event::InitDone) => tracker.list_ended(),
            Ok(Event::Delete(request)) => {
                if let Some(key) = request.key() {
                    tracker.lost(&key);
                }
            }
            Err(error) => {
                observer.watch_restarted();
                let status = status(&error);
                let cause = status.map_or_else(|| error.to_string(), |status| status.message.clone());
                let cause = clipped(&cause, MAX_MESSAGE_BYTES);
                let error = format!("the watch on CertificateRequests does not work: {cause}");
                tracing::warn!(error, "the watch on CertificateRequests is interrupted");
                tracker.set_watch_error(Some(error));
                tracker.list_may_begin();
                if status.is_some_and(|status| status.code == 410) {
                    return;
                }
            }
        }
        let (in_memory, ignored) = tracker.counts();
        observer.requests_tracked(in_memory, ignored);
    }
}

/// The server's own answer in an error.
fn status(error: &Error) -> Option<&Status> {
    match error {
        Error::WatchError(status)
        | Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}
