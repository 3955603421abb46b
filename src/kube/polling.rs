//! Objects that are read every so often, for a process that may not watch.

use super::WatchError;
use crate::model::jitter;
use crate::platform::Backoff;
use aws_lc_rs::rand;
use futures_util::{Stream, StreamExt, stream};
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher::{Config, Event};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// The pause after the first reading has failed.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Reads lists, page by page. Each list gives the events of a watch's first list; an error ends it, and a new one begins.
pub(super) fn lists<K>(
    api: Api<K>,
    config: &Config,
    interval: Duration,
) -> impl Stream<Item = Result<Event<K>, WatchError>> + Send + use<K>
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    let parameters = ListParams {
        label_selector: config.label_selector.clone(),
        field_selector: config.field_selector.clone(),
        limit: config.page_size,
        ..ListParams::default()
    };
    let lists = Lists { api, parameters, has_objects: false, pauses: Pauses::new(interval) };
    stream::unfold(lists, |mut lists| async move { Some((stream::iter(lists.next_page().await), lists)) })
        .flatten()
}

/// Reads one object; `None` while it does not exist.
pub(super) fn object<K>(
    api: Api<K>,
    name: String,
    interval: Duration,
) -> impl Stream<Item = Result<Option<K>, WatchError>> + Send + use<K>
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    stream::unfold((api, name, Pauses::new(interval)), |(api, name, mut pauses)| async move {
        tokio::time::sleep(pauses.next()).await;
        let object = api.get_opt(&name).await.map_err(WatchError::from);
        pauses.was_read |= matches!(object, Ok(Some(_)));
        Some((object, (api, name, pauses)))
    })
}

/// The lists of one selection.
struct Lists<K> {
    api: Api<K>,
    /// With the token of the next page, while a list is being read.
    parameters: ListParams,
    /// Whether the list that has begun has an object.
    has_objects: bool,
    pauses: Pauses,
}

impl<K: Clone + DeserializeOwned + Debug> Lists<K> {
    async fn next_page(&mut self) -> Vec<Result<Event<K>, WatchError>> {
        if self.parameters.continue_token.is_none() {
            self.has_objects = false;
            tokio::time::sleep(self.pauses.next()).await;
        }
        let page = match self.api.list(&self.parameters).await {
            Ok(page) => page,
            Err(error) => {
                self.parameters.continue_token = None;
                return vec![Err(error.into())];
            }
        };
        let mut events: Vec<_> = page.items.into_iter().map(|object| Ok(Event::InitApply(object))).collect();
        self.has_objects |= !events.is_empty();
        self.parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if self.parameters.continue_token.is_none() {
            self.pauses.was_read |= self.has_objects;
            events.push(Ok(Event::InitDone));
        }
        events
    }
}

/// The pauses before readings.
struct Pauses {
    interval: Duration,
    /// Random, so that pods that start together do not read together for ever.
    seed: [u8; 8],
    /// Number of readings so far.
    readings: u32,
    /// Whether one of them has found an object.
    was_read: bool,
}

impl Pauses {
    fn new(interval: Duration) -> Self {
        let mut seed = [0; 8];
        // Without random numbers, pods read at the same time.
        let _random = rand::fill(&mut seed);
        Self { interval, seed, readings: 0, was_read: false }
    }

    /// None before the first reading. Then it grows from a second, and once an object was read it is the interval.
    fn next(&mut self) -> Duration {
        let readings = self.readings;
        self.readings = readings.saturating_add(1);
        let jitter = jitter(&readings.to_string(), &self.seed);
        match readings.checked_sub(1) {
            None => Duration::ZERO,
            Some(_) if self.was_read => self.interval.mul_f64(0.9 + 0.2 * jitter),
            Some(failures) => Backoff::new(MIN_PAUSE, self.interval).pause(failures, jitter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Cluster;
    use crate::kube::testing::{ScriptedServer, refusal};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use serde_json::{Value, json};
    use std::pin::pin;
    use tokio::time::Instant;

    const INTERVAL: Duration = Duration::from_millis(20);

    fn config_map(name: &str, text: &str) -> Value {
        json!({ "metadata": { "name": name, "namespace": "pki" }, "data": { "ca.crt": text } })
    }

    fn api(cluster: &Cluster) -> Api<ConfigMap> {
        Api::namespaced(cluster.own.clone(), "pki")
    }

    #[tokio::test]
    async fn a_polled_object_is_read_by_get_when_it_changes_is_deleted_or_is_forbidden() {
        let (server, cluster) = ScriptedServer::start([
            (200, config_map("roots", "A")),
            (200, config_map("roots", "B")),
            refusal(404, "NotFound"),
            refusal(403, "Forbidden"),
            (200, config_map("roots", "C")),
        ])
        .await;
        let cluster = cluster.polling(INTERVAL);
        let objects = pin!(cluster.follow_object(api(&cluster), "roots"));
        let seen: Vec<_> = objects
            .take(6)
            .map(|object| match object {
                Ok(object) => object
                    .and_then(|object| object.data)
                    .map_or("none".to_owned(), |mut data| data.remove("ca.crt").unwrap()),
                Err(error) => format!("{} {}", error.is_forbidden, error.cause),
            })
            .collect()
            .await;
        assert_eq!(seen, ["A", "B", "none", "true scripted Forbidden", "C", "C"]);
        let urls = server.urls_without_watch();
        assert!(urls.iter().all(|url| url == "/api/v1/namespaces/pki/configmaps/roots"), "{urls:?}");
    }

    #[tokio::test]
    async fn a_polled_selection_is_listed_in_pages_and_begins_again_after_an_error() {
        let page = |names: &[&str], token: &str| {
            let items: Vec<_> = names.iter().map(|name| config_map(name, "A")).collect();
            (200, json!({ "metadata": { "continue": token }, "items": items }))
        };
        let (server, cluster) = ScriptedServer::start([
            page(&["a", "b"], "next"),
            page(&["c"], ""),
            page(&["a"], "next"),
            refusal(410, "Expired"),
            page(&["b"], ""),
        ])
        .await;
        let cluster = cluster.polling(INTERVAL);
        let config = Config::default().labels("use=mesh");
        let events = pin!(cluster.follow(api(&cluster), config));
        let seen: Vec<_> = events
            .take(8)
            .map(|event| match event {
                Ok(Event::InitApply(object)) => object.name_any(),
                Ok(Event::InitDone) => "done".to_owned(),
                Ok(_) => "an event of a watch".to_owned(),
                Err(error) => format!("expired {}", error.is_expired),
            })
            .collect()
            .await;
        assert_eq!(seen, ["a", "b", "c", "done", "a", "expired true", "b", "done"]);
        let urls = server.urls_without_watch();
        assert!(urls.iter().all(|url| url.contains("labelSelector=use%3Dmesh") && url.contains("limit=10")));
        let pages: Vec<bool> = urls.iter().map(|url| url.contains("continue=next")).collect();
        assert_eq!(pages[..5], [false, true, false, true, false]);
    }

    #[test]
    fn an_object_that_was_never_read_is_read_again_soon_and_a_known_one_after_the_interval() {
        let mut pauses = Pauses::new(Duration::from_mins(5));
        assert_eq!(pauses.next(), Duration::ZERO);
        for most in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let (pause, most) = (pauses.next(), Duration::from_secs(most));
            assert!(most / 2 <= pause && pause <= most, "{pause:?} is not about {most:?}");
        }
        pauses.was_read = true;
        let many: Vec<_> = (0..100).map(|_| pauses.next().as_secs()).collect();
        assert!(many.iter().all(|seconds| (270..=330).contains(seconds)), "{many:?}");
        assert!(many.iter().any(|seconds| *seconds < 290) && many.iter().any(|seconds| *seconds > 310));
    }

    #[tokio::test]
    async fn each_reading_waits_for_the_interval() {
        let (_server, cluster) = ScriptedServer::start([(200, config_map("roots", "A"))]).await;
        let cluster = cluster.polling(INTERVAL);
        let begun = Instant::now();
        let objects = pin!(cluster.follow_object(api(&cluster), "roots"));
        assert_eq!(objects.take(6).count().await, 6);
        assert!(begun.elapsed() >= INTERVAL.mul_f64(0.9) * 5, "{:?}", begun.elapsed());
    }
}
