//! The server. It bounds time, size and number of requests, though only root can send any.

use super::{Check, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, OK};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Limit on requests at the same time. The next one waits in the backlog.
const MAX_REQUESTS: usize = 8;

/// Time for a whole connection. A check takes at most three seconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Answers each request with the result of `check`, until `shutdown`.
pub(crate) async fn serve<C, F>(listener: UnixListener, check: C, shutdown: CancellationToken)
where
    C: Fn(Check) -> F,
    F: Future<Output = Result<(), String>> + Send + 'static,
    C: Clone + Send + 'static,
{
    let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
    let accept = async {
        // The semaphore is never closed.
        while let Ok(slot) = Arc::clone(&requests).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let check = check.clone();
                    tokio::spawn(async move {
                        let _slot = slot;
                        // A client that has gone away is not an error of the server.
                        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answer(stream, check)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept connections; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let _shut_down = shutdown.run_until_cancelled(accept).await;
}

async fn answer<C, F>(stream: UnixStream, check: C) -> std::io::Result<()>
where
    C: Fn(Check) -> F,
    F: Future<Output = Result<(), String>>,
{
    let (reading, mut writing) = stream.into_split();
    let mut request = String::new();
    reading.take(MAX_REQUEST_BYTES).read_to_string(&mut request).await?;
    let result = match Check::from_name(request.trim_end()) {
        Some(asked) => check(asked).await,
        None => Err("not a request of the control socket; accepted: liveness, readiness".to_owned()),
    };
    let mut answer = result.err().unwrap_or_else(|| OK.to_owned()).into_bytes();
    answer.truncate(usize::try_from(MAX_ANSWER_BYTES - 1).unwrap_or(usize::MAX));
    answer.push(b'\n');
    writing.write_all(&answer).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ControlError, ask, socket_in};
    use crate::platform::listen;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    fn served(directory: &Path, failure: Option<&'static str>) -> (PathBuf, CancellationToken) {
        let (socket, shutdown) = (socket_in(directory), CancellationToken::new());
        let listener = listen(&socket).unwrap();
        let check = move |check| async move {
            match (check, failure) {
                (Check::Readiness, Some(reason)) => Err(reason.to_owned()),
                _ => Ok(()),
            }
        };
        tokio::spawn(serve(listener, check, shutdown.clone()));
        (socket, shutdown)
    }

    async fn asked(socket: &Path, check: Check) -> Result<(), ControlError> {
        let socket = socket.to_owned();
        tokio::task::spawn_blocking(move || ask(&socket, check)).await.unwrap()
    }

    #[tokio::test]
    async fn a_check_is_answered_with_ok_or_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, _shutdown) = served(directory.path(), Some("not\nregistered"));
        asked(&socket, Check::Liveness).await.unwrap();
        let error = asked(&socket, Check::Readiness).await.unwrap_err();
        assert_eq!(error.to_string(), "not registered");
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn without_a_driver_the_error_names_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let socket = socket_in(directory.path());
        let error = asked(&socket, Check::Liveness).await.unwrap_err().to_string();
        assert!(error.contains("control.sock: No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_request_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, _shutdown) = served(directory.path(), None);
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all("x".repeat(100).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // The rest of the request may reset the connection.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(OK.as_bytes()));
    }
}
