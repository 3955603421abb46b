//! Fetches CRLs by HTTP: from hosts that the operator has allowed, with limits on size, time, redirects and concurrency.
//!
//! A list is signed, so HTTPS would add nothing but a circle: the certificate of the server would need a list itself (RFC 5280 section
//! 8).

use super::CrlOptions;
use super::followed::CrlReader;
use super::source::{CrlUrl, Host};
use crate::platform::Backoff;
use http::header::{
    ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Time to connect to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole fetch, with its redirects.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Redirects of one fetch.
const MAX_REDIRECTS: usize = 3;
/// Texts that are received and read at a time: each can take several times `--max-crl-size` in memory. Servers that do not answer hold
/// none of these slots.
const MAX_TEXTS: usize = 2;
/// Bytes of an `ETag` that is kept.
const MAX_VALIDATOR: usize = 256;
/// The pauses after failures. The interval of refreshes is a limit too.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(10));
/// The shortest pause after a success, for lists that end soon; less if the operator's interval is less.
const MIN_PAUSE: Duration = Duration::from_secs(10);

/// Fetches for the whole node.
pub(super) struct Fetcher {
    client: Client<HttpConnector, Empty<Bytes>>,
    allowed: Vec<Host>,
    max_bytes: usize,
    refresh: Duration,
    slots: Arc<Semaphore>,
}

/// What the server said of the last version, to be asked whether there is another (RFC 9110 section 13).
#[derive(Clone, Debug, Default)]
struct Validators(Vec<(HeaderName, HeaderValue)>);

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let pairs = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
        let pair = |(from, to)| headers.get(from).cloned().map(|value| (to, value));
        let is_short = |(_, value): &(HeaderName, HeaderValue)| value.len() <= MAX_VALIDATOR;
        Self(pairs.into_iter().filter_map(pair).filter(is_short).collect())
    }
}

/// An answer.
enum Fetched {
    Unchanged,
    /// With the slot, which is held until the text is read.
    Text(Vec<u8>, Validators, OwnedSemaphorePermit),
}

impl Fetcher {
    pub(super) fn new(options: &CrlOptions) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Connections are not kept: the next fetch comes much later.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self {
            client,
            allowed: options.allowed_hosts.clone(),
            max_bytes: options.max_bytes,
            refresh: options.refresh,
            slots: Arc::new(Semaphore::new(MAX_TEXTS)),
        }
    }

    /// Whether a certificate or a redirect may lead there.
    pub(super) fn allows(&self, url: &CrlUrl) -> bool {
        self.allowed.contains(url.host())
    }

    async fn fetch(&self, url: &CrlUrl, known: &Validators) -> Result<Fetched, String> {
        let late = |_| format!("has not been answered within {} s", TIMEOUT.as_secs());
        tokio::time::timeout(TIMEOUT, self.follow_redirects(url, known)).await.map_err(late)?
    }

    async fn follow_redirects(&self, url: &CrlUrl, known: &Validators) -> Result<Fetched, String> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request(&at, known).await?;
            match response.status() {
                StatusCode::OK => return self.text(response).await,
                StatusCode::NOT_MODIFIED if !known.0.is_empty() => return Ok(Fetched::Unchanged),
                status if status.is_redirection() => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let to = location.ok_or_else(|| format!("answers {status} without a location"))?;
                    let to = at.redirected(to).map_err(|error| format!("redirects: {error}"))?;
                    // The operator has named the first host.
                    if to.host() != url.host() && !self.allows(&to) {
                        return Err(format!(
                            "redirects to {}, which --crl-allowed-hosts does not name",
                            to.host()
                        ));
                    }
                    at = to;
                }
                status => return Err(format!("answers {status}")),
            }
        }
        Err(format!("redirects more than {MAX_REDIRECTS} times"))
    }

    async fn request(&self, url: &CrlUrl, known: &Validators) -> Result<Response<Incoming>, String> {
        let mut request = Request::get(url.as_str());
        for (name, value) in &known.0 {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new()).map_err(|error| format!("cannot be asked for: {error}"))?;
        self.client
            .request(request)
            .await
            .map_err(|error| format!("cannot be reached: {}", root_cause(&error)))
    }

    async fn text(&self, response: Response<Incoming>) -> Result<Fetched, String> {
        let too_long =
            || format!("is too long; accepted are at most {} bytes (--max-crl-size)", self.max_bytes);
        let validators = Validators::of(response.headers());
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|error| error.to_string())?;
        if response.body().size_hint().lower() > self.max_bytes as u64 {
            return Err(too_long());
        }
        let (mut body, mut text) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("was cut off: {}", root_cause(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            if text.len() + data.len() > self.max_bytes {
                return Err(too_long());
            }
            text.extend_from_slice(&data);
        }
        Ok(Fetched::Text(text, validators, slot))
    }
}

/// The innermost error: the outer ones of an HTTP client say little.
fn root_cause(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Fetches a URL again and again: before its lists end, at least once an interval, and after a failure sooner.
pub(super) async fn follow(url: CrlUrl, fetcher: Arc<Fetcher>, reader: CrlReader) {
    let (mut known, mut failures, mut count) = (Validators::default(), 0, 0_u64);
    loop {
        let is_usable = match fetcher.fetch(&url, &known).await {
            Ok(Fetched::Unchanged) => reader.unchanged().await,
            Ok(Fetched::Text(text, validators, slot)) => {
                known = validators;
                let is_usable = reader.take(Ok(text)).await;
                drop(slot);
                is_usable
            }
            Err(fault) => reader.take(Err(fault)).await,
        };
        let pause = if is_usable {
            failures = 0;
            refresh_pause(fetcher.refresh, reader.time_left())
        } else {
            failures += 1;
            // A text that was refused is fetched whole again.
            known = Validators::default();
            RETRIES.full_pause(failures - 1).min(fetcher.refresh)
        };
        count += 1;
        // Up to a fifth earlier, so that nodes do not ask all at once.
        tokio::time::sleep(pause.mul_f64(1.0 - 0.2 * reader.jitter(count))).await;
    }
}

/// The pause after a success: half of the time until the first list ends, and not more than the interval.
fn refresh_pause(interval: Duration, left: Option<Duration>) -> Duration {
    let by_end = left.map_or(interval, |left| left / 2);
    by_end.clamp(MIN_PAUSE.min(interval), interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_fetched_again_before_it_ends_and_once_an_interval() {
        let (hour, minute) = (Duration::from_hours(1), Duration::from_mins(1));
        assert_eq!(refresh_pause(hour, None), hour);
        assert_eq!(refresh_pause(hour, Some(48 * hour)), hour);
        assert_eq!(refresh_pause(hour, Some(10 * minute)), 5 * minute);
        assert_eq!(refresh_pause(hour, Some(Duration::ZERO)), MIN_PAUSE);
        assert_eq!(refresh_pause(Duration::from_secs(1), Some(Duration::ZERO)), Duration::from_secs(1));
    }
}
