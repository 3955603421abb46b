//! The one watch of this node.

use super::api::{CertificateRequest, NODE_LABEL};
use super::board::Board;
use super::deletion::Deletions;
use crate::kube::{ApiObserver, Cluster};
use futures_util::{Stream, StreamExt, TryStreamExt};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Error, Event, watcher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Seconds after which the API server ends the watch and it is resumed: a connection that died unseen is noticed then.
const TIMEOUT: u32 = 120;
/// Objects a page of the list: what bounds its memory.
const PAGE: u32 = 200;

/// Watches this node's requests until shutdown.
pub(super) async fn watch(
    cluster: Cluster,
    node_label: String,
    board: Board,
    deletions: Deletions,
    observer: Arc<dyn ApiObserver>,
    shutdown: CancellationToken,
) {
    let api: Api<CertificateRequest> = Api::all(cluster.client());
    let config = watcher::Config::default()
        .labels(&format!("{NODE_LABEL}={node_label}"))
        .timeout(TIMEOUT)
        .page_size(PAGE);
    let watching = async {
        loop {
            // Waits longer from failure to failure, up to half a minute, with jitter.
            // That a list begins is no success yet, and must not start the pauses over.
            let events = watcher(api.clone(), config.clone())
                .try_filter(|event| std::future::ready(!matches!(event, Event::Init)))
                .default_backoff();
            let begun = Instant::now();
            follow(events, &board, &deletions, &*observer).await;
            tokio::time::sleep_until(begun + SHORTEST_LIFE).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watching => {}
    }
}

/// A watch that did not last this long is not begun anew at once.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Returns where it is better to begin anew than to wait for the watch's own next try: its place in history is gone, or
/// a create has just shown that the server is back.
async fn follow(
    events: impl Stream<Item = Result<Event<CertificateRequest>, Error>>,
    board: &Board,
    deletions: &Deletions,
    observer: &dyn ApiObserver,
) {
    let mut events = pin!(events);
    let mut failing = false;
    board.list_may_come();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = board.answered(), if failing => return,
        };
        let Some(event) = event else { return };
        if failing && event.is_ok() {
            tracing::info!("the watch on CertificateRequests works again");
        }
        failing = event.is_err();
        match event {
            Ok(Event::Init) => {}
            Ok(Event::InitApply(request)) => saw(&request, board, deletions),
            Ok(Event::InitDone) => board.list_ended(),
            Ok(Event::Apply(request)) => {
                board.works();
                saw(&request, board, deletions);
            }
            Ok(Event::Delete(request)) => {
                board.works();
                if let Some(key) = request.key() {
                    board.lost(&key);
                }
            }
            Err(error) => {
                observer.watch_restarted();
                let trouble = trouble(&error);
                tracing::warn!(error = trouble, "the watch on CertificateRequests is interrupted");
                board.trouble(trouble);
                board.list_may_come();
                if is_expired(&error) {
                    return;
                }
            }
        }
    }
}

fn saw(request: &CertificateRequest, board: &Board, deletions: &Deletions) {
    if let Some(unwanted) = board.saw(request) {
        deletions.add(unwanted);
    }
}

fn is_expired(error: &Error) -> bool {
    match error {
        Error::WatchError(status) | Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

fn trouble(error: &Error) -> String {
    let cause = match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
            match error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            }
        }
        Error::WatchError(status) => status.message.clone(),
        Error::NoResourceVersion => error.to_string(),
    };
    format!("the watch on CertificateRequests does not work: {cause}")
}
