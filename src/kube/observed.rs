//! What sits around every call: counting, and the client-side rate where the operator wants one.

use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::Body;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower::{Layer, Service};

/// Who counts.
pub trait ApiObserver: Send + Sync + 'static {
    /// A call has been answered; code 0: it has not.
    fn api_call(&self, verb: &'static str, code: u16);

    /// A watch had to start anew.
    fn watch_restarted(&self);
}

/// A client-side rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Calls a second, in the long run.
    pub qps: f64,
    /// Calls that may come at once.
    pub burst: u32,
}

/// A token bucket that lets callers wait in the order they came.
#[derive(Debug)]
struct Bucket {
    limit: RateLimit,
    level: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(limit: RateLimit) -> Self {
        Self { limit, level: Mutex::new((f64::from(limit.burst), Instant::now())) }
    }

    /// Returns when it is the caller's turn. Whoever goes away before gives its turn back.
    async fn wait(&self) {
        let pause = self.take();
        if pause.is_zero() {
            return;
        }
        let mut turn = Turn { bucket: self, is_used: false };
        tokio::time::sleep(pause).await;
        turn.is_used = true;
    }

    /// Takes one, and says how long to wait for it.
    fn take(&self) -> Duration {
        let now = Instant::now();
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = level.0 + now.duration_since(level.1).as_secs_f64() * self.limit.qps;
        let left = refilled.min(f64::from(self.limit.burst)) - 1.0;
        *level = (left, now);
        if left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-left / self.limit.qps) }
    }
}

/// What a caller has taken of a bucket.
struct Turn<'a> {
    bucket: &'a Bucket,
    is_used: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            self.bucket.level.lock().unwrap_or_else(PoisonError::into_inner).0 += 1.0;
        }
    }
}

/// Puts [`Observed`] around a service.
#[derive(Clone)]
pub(super) struct ObservedLayer {
    observer: Arc<dyn ApiObserver>,
    bucket: Option<Arc<Bucket>>,
}

impl ObservedLayer {
    pub(super) fn new(observer: Arc<dyn ApiObserver>, limit: Option<RateLimit>) -> Self {
        Self { observer, bucket: limit.map(|limit| Arc::new(Bucket::new(limit))) }
    }
}

impl<S> Layer<S> for ObservedLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, around: self.clone() }
    }
}

/// A service whose calls are counted.
pub(super) struct Observed<S> {
    inner: S,
    around: ObservedLayer,
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = verb(&request);
        let ObservedLayer { observer, bucket } = self.around.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            if let Some(bucket) = bucket {
                bucket.wait().await;
            }
            let mut outcome = Outcome { observer, verb, code: 0 };
            let answer = answer.await;
            outcome.code = answer.as_ref().map_or(0, |response| response.status().as_u16());
            answer
        })
    }
}

/// Counts when it goes: a call that is given up never says so itself.
struct Outcome {
    observer: Arc<dyn ApiObserver>,
    verb: &'static str,
    code: u16,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.observer.api_call(self.verb, self.code);
    }
}

/// The verb as Kubernetes' own metrics and RBAC rules name it.
fn verb(request: &Request<Body>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        Method::GET if query.split('&').any(|pair| pair == "watch=true") => "watch",
        // Single objects are never asked for with a selector or a page size.
        Method::GET if query.contains("labelSelector=") || query.contains("limit=") => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::DELETE => "delete",
        Method::PATCH => "patch",
        Method::PUT => "update",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_comes_at_the_rate() {
        let bucket = Bucket::new(RateLimit { qps: 10.0, burst: 2 });
        assert_eq!(bucket.take(), Duration::ZERO);
        assert_eq!(bucket.take(), Duration::ZERO);
        assert_eq!(bucket.take(), Duration::from_millis(100));
        assert_eq!(bucket.take(), Duration::from_millis(200));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(bucket.take(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_go_away_cost_the_others_nothing() {
        let bucket = Bucket::new(RateLimit { qps: 1.0, burst: 1 });
        bucket.wait().await;
        for _ in 0..20 {
            let gave_up = tokio::time::timeout(Duration::from_millis(1), bucket.wait()).await;
            assert!(gave_up.is_err());
        }
        assert!(bucket.take() <= Duration::from_secs(1));
    }

    #[derive(Default)]
    struct Counted(Mutex<Vec<(&'static str, u16)>>);

    impl ApiObserver for Counted {
        fn api_call(&self, verb: &'static str, code: u16) {
            self.0.lock().unwrap().push((verb, code));
        }

        fn watch_restarted(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn calls_come_at_the_rate_that_was_asked_for() {
        let limit = RateLimit { qps: 1.0, burst: 1 };
        let layer = ObservedLayer::new(Arc::new(Counted::default()), Some(limit));
        let answers = |_: Request<Body>| std::future::ready(Ok::<_, ()>(Response::new(())));
        let mut service = layer.layer(tower::service_fn(answers));
        let begun = Instant::now();
        for _ in 0..3 {
            service.call(Request::post("/").body(Body::empty()).unwrap()).await.unwrap();
        }
        assert_eq!(begun.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_answers_is_counted_as_such() {
        let counted = Arc::new(Counted::default());
        let layer = ObservedLayer::new(Arc::clone(&counted) as Arc<dyn ApiObserver>, None);
        let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<()>, ()>>());
        let call = layer.layer(silent).call(Request::post("/").body(Body::empty()).unwrap());
        assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
        assert_eq!(*counted.0.lock().unwrap(), [("create", 0)]);
    }
}
