//! The one watch of this node.

use super::api::{CertificateRequest, NODE_LABEL};
use super::deletion::Deletions;
use super::tracker::RequestTracker;
use crate::kube::{ApiObserver, Cluster, WatchError, follow};
use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::runtime::watcher::{self, Event};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
    let config = watcher::Config::default().labels(&format!("{NODE_LABEL}={node_label}"));
    let watching = async {
        loop {
            let events = follow(api.clone(), config.clone());
            let started = Instant::now();
            track(events, &tracker, &deletions, &*observer).await;
            tokio::time::sleep_until(started + MIN_INTERVAL).await;
        }
    };
    shutdown.run_until_cancelled(watching).await;
}

/// Returns if a new watch is better than a resumed one: the resource version has expired, or the server has just answered
/// a create while the watch waits in its backoff.
async fn track(
    events: impl Stream<Item = Result<Event<CertificateRequest>, WatchError>>,
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
                let WatchError { cause, is_expired, .. } = error;
                let error = format!("the watch on CertificateRequests does not work: {cause}");
                tracing::warn!(error, "the watch on CertificateRequests is interrupted");
                tracker.set_watch_error(Some(error));
                tracker.list_may_begin();
                if is_expired {
                    return;
                }
            }
        }
        let (in_memory, ignored) = tracker.counts();
        observer.requests_tracked(in_memory, ignored);
    }
}
