//! A word with the EKS Pod Identity agent: one GET over plain HTTP, bounded in time and size.
//!
//! On a connection of its own: an agent is asked once in hours.

use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use std::fmt::Display;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The agent is on this node: where it is at all, it takes a connection at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// The agent asks the EKS Auth API where it does not have the credentials yet.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// More than any answer has.
const LONGEST_ANSWER: usize = 64 << 10;

/// A connection to an agent, or why there is none.
pub(super) async fn connect(endpoint: &Uri) -> Result<TcpStream, String> {
    let host = endpoint.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let connected = TcpStream::connect((host, endpoint.port_u16().unwrap_or(80)));
    match timeout(CONNECT_WITHIN, connected).await {
        Ok(connected) => connected.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no connection within {} s", CONNECT_WITHIN.as_secs())),
    }
}

/// The agent's answer to a token, or why there is none; the token is in neither.
pub(super) async fn ask(
    stream: TcpStream,
    endpoint: &Uri,
    token: &SecretString,
) -> Result<(StatusCode, SecretString), String> {
    timeout(ANSWER_WITHIN, exchange(stream, endpoint, token)).await.unwrap_or_else(|_| {
        Err(format!("the EKS Pod Identity agent has not answered within {} s", ANSWER_WITHIN.as_secs()))
    })
}

async fn exchange(
    stream: TcpStream,
    endpoint: &Uri,
    token: &SecretString,
) -> Result<(StatusCode, SecretString), String> {
    let broken = |error: &dyn Display| format!("the EKS Pod Identity agent has broken off: {error}");
    let mut authorization = HeaderValue::from_str(token.expose_secret())
        .map_err(|_| "the pod's token is none that an HTTP header takes".to_owned())?;
    authorization.set_sensitive(true);
    let request = Request::get(endpoint.path())
        // The agent refuses what is not meant for its own address.
        .header(HOST, endpoint.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, authorization)
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(&error))?;
    let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| broken(&error))?;
    let exchanged = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| broken(&error))?.to_bytes();
        Ok((status, SecretString::from(String::from_utf8_lossy(&body).into_owned())))
    };
    tokio::pin!(exchanged);
    tokio::select! {
        answer = &mut exchanged => answer,
        // What the connection ends with, the exchange tells better.
        _ = connection => exchanged.await,
    }
}
