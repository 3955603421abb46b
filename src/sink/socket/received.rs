//! How much of requests may be in memory before they are handled: for a volume, for a namespace, and for the node.
//!
//! The limits on connections, streams and messages bound each of them, and not their product: a namespace with many volumes could begin
//! thousands of requests, and end none.

use super::caller::Caller;
use crate::model::VolumeId;
use crate::platform::Tally;
use crate::telemetry::Metrics;
use futures_util::future::BoxFuture;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// So much of each volume is received however much there is of others: an Envoy's request with its headers.
const ALWAYS: usize = 16 * 1024;
/// The most of one volume.
const MAX_OF_VOLUME: usize = 512 * 1024;
/// What all volumes have together beyond [`ALWAYS`]. One namespace may have three quarters.
const SHARED: usize = 4 * 1024 * 1024;
/// The bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: u8 = 5;
/// What a header costs beside its name and value (RFC 9113 section 6.5.2).
const HEADER: usize = 32;

/// The bytes of requests that are being received, on all sockets.
pub(super) struct ReceivedBytes {
    counts: Mutex<Counts>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Counts {
    of_volumes: Tally<VolumeId>,
    /// Beyond [`ALWAYS`].
    of_namespaces: Tally<String>,
    shared: usize,
}

impl Counts {
    /// Counts so many bytes more for a volume, if there may be.
    fn admit(&mut self, volume: &VolumeId, namespace: &str, bytes: usize) -> bool {
        let before = self.of_volumes.of(volume);
        let after = before + bytes;
        let shared = shared(after) - shared(before);
        let is_free = shared == 0
            || after <= MAX_OF_VOLUME
                && self.shared + shared <= SHARED
                && self.of_namespaces.of(namespace) + shared <= SHARED / 4 * 3;
        if is_free {
            self.of_volumes.add_many(volume.clone(), bytes);
            self.of_namespaces.add_many(namespace.to_owned(), shared);
            self.shared += shared;
        }
        is_free
    }

    fn release(&mut self, volume: &VolumeId, namespace: &str, bytes: usize) {
        let before = self.of_volumes.of(volume);
        let shared = shared(before) - shared(before - bytes);
        self.of_volumes.remove_many(volume, bytes);
        self.of_namespaces.remove_many(namespace, shared);
        self.shared -= shared;
    }
}

/// The part of a volume's bytes that counts for all volumes.
fn shared(of_volume: usize) -> usize {
    of_volume.saturating_sub(ALWAYS)
}

impl ReceivedBytes {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { counts: Mutex::default(), metrics }
    }
}

/// A part of a request in memory, counted until this is dropped.
struct Held {
    bytes: usize,
    caller: Caller,
    received: Arc<ReceivedBytes>,
}

impl Held {
    /// Counts another number of bytes in place of the present one.
    fn resize(&mut self, bytes: usize) -> Result<(), Status> {
        let (volume, namespace) = (self.caller.volume(), self.caller.namespace());
        let mut counts = self.received.counts.lock();
        if bytes <= self.bytes {
            counts.release(volume, namespace, self.bytes - bytes);
        } else if !counts.admit(volume, namespace, bytes - self.bytes) {
            drop(counts);
            self.received.metrics.socket_refused("request-bytes");
            return Err(Status::resource_exhausted(
                "too much of this volume's requests is being received: end one first, or send a smaller one",
            ));
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.received.counts.lock().release(self.caller.volume(), self.caller.namespace(), self.bytes);
    }
}

/// Bounds what is received of requests.
#[derive(Clone)]
pub(super) struct BoundRequests(pub(super) Arc<ReceivedBytes>);

/// A service whose requests are bounded.
#[derive(Clone)]
pub(super) struct Bounded<S> {
    inner: S,
    received: Arc<ReceivedBytes>,
}

impl<S> Layer<S> for BoundRequests {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, received: Arc::clone(&self.0) }
    }
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Box::pin(std::future::ready(Ok(
                Status::internal("the connection is of no volume").into_http()
            )));
        };
        let hold = || Held { bytes: 0, caller: caller.clone(), received: Arc::clone(&self.received) };
        let mut headers = hold();
        let fields = request.headers().iter();
        let size = fields.map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum();
        if let Err(status) = headers.resize(size) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let body = hold();
        let request =
            request.map(|inner| Body::new(BoundedBody { inner, message: Message::default(), held: body }));
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await;
            // The methods have read the headers when they answer.
            drop(headers);
            answer
        })
    }
}

/// The body of a request. Its reader has the last frame and the message that has begun in memory when it asks for another frame.
struct BoundedBody {
    inner: Body,
    message: Message,
    held: Held,
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let begun = self.message.size();
        self.held.resize(begun)?;
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            let size = data.len();
            self.message.receive(data);
            let begun = self.message.size();
            self.held.resize(begun.saturating_add(size))?;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// The message of gRPC that has begun and not ended.
#[derive(Default)]
struct Message {
    /// How much of its prefix has been received.
    prefix: u8,
    /// Its length as announced, without the prefix.
    length: u32,
    /// What is missing after the prefix.
    missing: u32,
}

impl Message {
    fn receive(&mut self, mut data: &[u8]) {
        while let Some((byte, rest)) = data.split_first() {
            if self.prefix < PREFIX {
                // The first byte says whether the message is compressed, and is shifted out.
                self.length = self.length << 8 | u32::from(*byte);
                self.prefix += 1;
                self.missing = self.length;
                data = rest;
            } else {
                let taken = data.len().min(self.missing as usize);
                self.missing -= u32::try_from(taken).unwrap_or(self.missing);
                data = &data[taken..];
            }
            if self.prefix == PREFIX && self.missing == 0 {
                *self = Self::default();
            }
        }
    }

    /// What its reader has reserved for it: the whole message from its prefix on, but no more than is ever accepted.
    fn size(&self) -> usize {
        if self.prefix < PREFIX {
            self.prefix.into()
        } else {
            (self.length as usize).min(super::MAX_SDS_REQUEST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(length).unwrap().to_be_bytes());
        message.resize(message.len() + length, 7);
        message
    }

    #[test]
    fn a_message_counts_whole_from_its_prefix_to_its_end_however_it_is_cut() {
        let text = [message(3), message(0), message(700)].concat();
        for cut in 1..20 {
            let mut received = Message::default();
            let mut seen = 0;
            for part in text.chunks(cut) {
                received.receive(part);
                seen += part.len();
                let expected = match seen {
                    1..5 => seen,
                    5..=7 => 3,
                    8 => 0,
                    9..=12 => seen - 8,
                    13..=17 => seen - 13,
                    _ if seen < 718 => 700,
                    _ => 0,
                };
                assert_eq!(received.size(), expected, "{seen} in parts of {cut}");
            }
        }
        let mut received = Message::default();
        received.receive(&[0, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(received.size(), super::super::MAX_SDS_REQUEST);
    }

    #[test]
    fn one_namespace_leaves_a_quarter_to_the_others_and_every_volume_has_a_part_of_its_own() {
        let mut counts = Counts::default();
        let volumes: Vec<_> = (0..64).map(|number| VolumeId::new(format!("v{number}"))).collect();
        let greedy =
            volumes.iter().map(|volume| (0..1024).filter(|_| counts.admit(volume, "greedy", 1024)).count());
        let of_volumes: Vec<usize> = greedy.collect();
        assert_eq!(of_volumes[0], MAX_OF_VOLUME / 1024);
        assert_eq!(of_volumes[63], ALWAYS / 1024);
        assert_eq!(counts.of_namespaces.of("greedy"), SHARED / 4 * 3);
        let other = VolumeId::new("other");
        assert!(counts.admit(&other, "other", MAX_OF_VOLUME) && !counts.admit(&other, "other", 1));
        for (volume, count) in volumes.iter().zip(of_volumes) {
            counts.release(volume, "greedy", count * 1024);
        }
        counts.release(&other, "other", MAX_OF_VOLUME);
        assert!(counts.shared == 0 && counts.of_namespaces.is_empty() && counts.of_volumes.is_empty());
    }
}
