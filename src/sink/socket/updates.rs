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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::socket::testing::caller;
    use tokio_stream::StreamExt;
    use tonic::Code;

    fn numbers(count: u32) -> Updates<u32> {
        let (caller, _) = caller();
        let permit = caller.stream().unwrap();
        updates(caller, permit, move |outlet| async move {
            for number in 0..count {
                if let Err(status) = outlet.send(number).await {
                    return status;
                }
            }
            Status::ok("the end")
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_gets_every_message_and_the_status() {
        let mut stream = numbers(3);
        for number in 0..3 {
            tokio::time::sleep(MAX_LAG / 2).await;
            assert_eq!(stream.next().await.unwrap().unwrap(), number);
        }
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Ok);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_too_slowly_gets_one_more_message_and_a_status() {
        let mut stream = numbers(3);
        tokio::time::sleep(MAX_LAG * 2).await;
        assert_eq!(stream.next().await.unwrap().unwrap(), 0);
        let end = stream.next().await.unwrap().unwrap_err();
        assert_eq!(end.code(), Code::ResourceExhausted);
        assert!(end.message().contains("not read within 30 seconds"), "{end}");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_socket_is_the_end_of_its_streams() {
        let (caller, ended) = caller();
        let permit = caller.stream().unwrap();
        let mut stream: Updates<u32> = updates(caller, permit, |_outlet| std::future::pending());
        ended.cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}
