//! A layer around every call: metrics, and the client-side rate limit if the operator sets one.

use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::Body;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::layer::layer_fn;
use tower::{Layer, Service};

/// Observes every call.
pub trait ApiObserver: Send + Sync + 'static {
    /// Returns when a call may be made: under a client-side rate limit, in the order of arrival.
    fn admit(&self) -> BoxFuture<'_, ()>;

    /// A call was answered with this HTTP status; 0: it was not answered.
    fn api_call(&self, verb: &'static str, code: u16);

    /// A watch was interrupted.
    fn watch_restarted(&self);

    /// So many CertificateRequests are tracked now, and so many were ignored so far.
    fn requests_tracked(&self, tracked: usize, ignored: u64);

    /// A CertificateRequest of this node was approved by an approver that approves every request.
    fn approved_unchecked(&self);
}

/// Adds the observer to a service.
pub(super) fn observed<S>(observer: Arc<dyn ApiObserver>) -> impl Layer<S, Service = Observed<S>> {
    layer_fn(move |inner| Observed { inner, observer: Arc::clone(&observer) })
}

/// A service whose calls are observed.
pub(super) struct Observed<S> {
    inner: S,
    observer: Arc<dyn ApiObserver>,
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
        let observer = Arc::clone(&self.observer);
        let answer = self.inner.call(request);
        Box::pin(async move {
            observer.admit().await;
            let mut outcome = Outcome { observer, verb, code: 0 };
            let answer = answer.await;
            outcome.code = answer.as_ref().map_or(0, |response| response.status().as_u16());
            answer
        })
    }
}

/// Counts when it is dropped, so that an abandoned call is counted too.
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

/// The verb as in Kubernetes' own metrics and RBAC rules.
fn verb(request: &Request<Body>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        Method::GET if query.split('&').any(|pair| pair == "watch=true") => "watch",
        // A get of a single object has no selector and no page size.
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
    use parking_lot::Mutex;
    use std::time::Duration;
    use tokio::time::Instant;

    #[derive(Default)]
    struct Counted(Mutex<Vec<(&'static str, u16)>>);

    impl ApiObserver for Counted {
        fn admit(&self) -> BoxFuture<'_, ()> {
            Box::pin(tokio::time::sleep(Duration::from_secs(1)))
        }

        fn api_call(&self, verb: &'static str, code: u16) {
            self.0.lock().push((verb, code));
        }

        fn watch_restarted(&self) {}

        fn requests_tracked(&self, _tracked: usize, _ignored: u64) {}

        fn approved_unchecked(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_until_it_is_admitted() {
        let layer = observed(Arc::new(Counted::default()));
        let answers = |_: Request<Body>| std::future::ready(Ok::<_, ()>(Response::new(())));
        let mut service = layer.layer(tower::service_fn(answers));
        let begun = Instant::now();
        for _ in 0..3 {
            service.call(Request::post("/").body(Body::empty()).unwrap()).await.unwrap();
        }
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_call_is_counted_with_code_0() {
        let counted = Arc::new(Counted::default());
        let layer = observed(Arc::clone(&counted) as Arc<dyn ApiObserver>);
        let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<()>, ()>>());
        let call = layer.layer(silent).call(Request::post("/").body(Body::empty()).unwrap());
        assert!(tokio::time::timeout(Duration::from_secs(2), call).await.is_err());
        assert_eq!(*counted.0.lock(), [("create", 0)]);
    }
}
