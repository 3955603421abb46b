//! The messages of one stream, made by a task of its own.

use super::caller::Caller;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::Status;

/// A stream ends if its peer does not take a message for so long.
const MAX_LAG: Duration = Duration::from_secs(30);

/// The messages of one stream. At most one waits for the peer.
pub(in crate::sink) struct Updates<T> {
    messages: mpsc::Receiver<T>,
    end: Arc<OnceLock<Status>>,
    has_ended: bool,
}

/// Where a task puts the messages of its stream.
pub(in crate::sink) struct Outlet<T>(mpsc::Sender<T>);

impl<T> Outlet<T> {
    /// Sends a message, as soon as the peer has taken the one before. The error is the stream's status.
    pub(in crate::sink) async fn send(&self, message: T) -> Result<(), Status> {
        match tokio::time::timeout(MAX_LAG, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the peer has gone")),
            Err(_) => Err(Status::resource_exhausted(format!(
                "the last message was not read within {} seconds: connect again",
                MAX_LAG.as_secs()
            ))),
        }
    }
}

/// A stream whose messages `produce` sends. Its result is the stream's status. The task ends with the peer, and with the caller's
/// socket.
pub(in crate::sink) fn updates<T, F>(
    caller: Caller,
    permit: OwnedSemaphorePermit,
    produce: impl FnOnce(Outlet<T>) -> F,
) -> Updates<T>
where
    T: Send + 'static,
    F: Future<Output = Status> + Send + 'static,
{
    let (sender, messages) = mpsc::channel(1);
    let end = Arc::<OnceLock<Status>>::default();
    let (kept, closed) = (Arc::clone(&end), sender.clone());
    let producing = produce(Outlet(sender));
    tokio::spawn(async move {
        let status = tokio::select! {
            biased;
            () = closed.closed() => return,
            () = caller.ended() => caller.end_status(),
            status = producing => status,
        };
        let _is_first = kept.set(status);
        drop((closed, permit));
    });
    Updates { messages, end, has_ended: false }
}

impl<T> Stream for Updates<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match self.messages.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(message)) => Poll::Ready(Some(Ok(message))),
            Poll::Ready(None) => {
                self.has_ended = true;
                Poll::Ready(self.end.get().cloned().map(Err))
            }
        }
    }
}
