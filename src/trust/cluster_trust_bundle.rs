//! ClusterTrustBundles as trust sources: one by its name, or those of a signer.

use super::reader::SourceReader;
use super::sources::{MIN_INTERVAL, SourceFollower};
use crate::kube::{Cluster, WatchError};
use crate::model::TrustSource;
use crate::platform::Backoff;
use crate::x509::MAX_ANCHORS_BYTES;
use futures_util::stream::iter;
use futures_util::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::certificates::v1::ClusterTrustBundleSpec;
use kube::core::{ApiResource, NotUsed, Object};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "clustertrustbundles";
/// The versions that servers have, the newest first. Their specs are the same.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// The pauses while the server has no ClusterTrustBundles, or cannot be asked.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));

type ClusterTrustBundle = Object<ClusterTrustBundleSpec, NotUsed>;

/// Follows the ClusterTrustBundles of a source for ever.
pub(super) async fn follow_source(cluster: Option<Cluster>, source: TrustSource, follower: SourceFollower) {
    let Some(cluster) = cluster else {
        return follower.publish(Err("cannot be read: certlet has no connection to a cluster".to_owned()));
    };
    let resource = resource(&cluster.own, &follower).await;
    let api: Api<ClusterTrustBundle> = Api::all_with(cluster.own.clone(), &resource);
    match &source {
        TrustSource::ClusterTrustBundle { name } => {
            let events = cluster.follow_object(api, name).flat_map(|object| iter(as_list(object)));
            read_all(pin!(events), "does not exist", &follower).await;
        }
        TrustSource::ClusterTrustBundles { signer_name, labels } => {
            let selector: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
            let config = Config::default().fields(&format!("spec.signerName={signer_name}"));
            let events = cluster.follow(api, config.labels(&selector.join(",")));
            read_all(pin!(events), "selects no ClusterTrustBundle", &follower).await;
        }
        _ => {}
    }
}

/// One object, or that there is none, as the events of a list.
fn as_list<K>(object: Result<Option<K>, WatchError>) -> Vec<Result<Event<K>, WatchError>> {
    match object {
        Ok(object) => object.map(Event::InitApply).into_iter().chain([Event::InitDone]).map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// Publishes what the objects hold together, whenever one of them changes.
async fn read_all(
    mut events: impl Stream<Item = Result<Event<ClusterTrustBundle>, WatchError>> + Unpin,
    missing: &str,
    follower: &SourceFollower,
) {
    let mut selected = Selected::default();
    while let Some(first) = events.next().await {
        // All that has come: their author may change them all the time.
        let (mut event, mut is_changed, mut failure) = (Some(first), false, None);
        while let Some(next) = event {
            match next {
                Ok(next) => is_changed |= selected.apply(next),
                Err(error) => {
                    selected.listed.clear();
                    failure = Some(error);
                }
            }
            event = events.next().now_or_never().flatten();
        }
        if is_changed {
            follower.publish(selected.text(missing));
        } else if let Some(error) = failure
            && (error.is_forbidden || !follower.was_usable())
        {
            // An API server that cannot be reached says nothing of the objects.
            follower.publish(Err(format!("cannot be read: {}", error.cause)));
        }
        tokio::time::sleep(MIN_INTERVAL).await;
    }
}

/// The texts of a source's objects, by name. One that does not fit into [`MAX_ANCHORS_BYTES`] is none.
#[derive(Debug, Default)]
struct Selected {
    current: BTreeMap<String, Option<String>>,
    /// Those of the list that has begun.
    listed: BTreeMap<String, Option<String>>,
}

impl Selected {
    /// Returns whether the objects are complete and may be others than before.
    fn apply(&mut self, event: Event<ClusterTrustBundle>) -> bool {
        match event {
            Event::Init => return false,
            Event::InitApply(object) => {
                insert(&mut self.listed, object);
                return false;
            }
            Event::InitDone => self.current = std::mem::take(&mut self.listed),
            Event::Apply(object) => insert(&mut self.current, object),
            Event::Delete(object) => drop(self.current.remove(&object.name_any())),
        }
        true
    }

    /// The PEM of all objects, or why there is none.
    fn text(&self, missing: &str) -> Result<Vec<u8>, String> {
        let texts: Option<Vec<&str>> = self.current.values().map(Option::as_deref).collect();
        match texts {
            None => Err(format!("selects more than {MAX_ANCHORS_BYTES} bytes")),
            Some(texts) if texts.is_empty() => Err(missing.to_owned()),
            Some(texts) => Ok(texts.join("\n").into_bytes()),
        }
    }
}

fn insert(objects: &mut BTreeMap<String, Option<String>>, object: ClusterTrustBundle) {
    let name = object.name_any();
    objects.remove(&name);
    let held: usize = objects.values().flatten().map(String::len).sum();
    let text = Some(object.spec.trust_bundle).filter(|text| held + text.len() <= MAX_ANCHORS_BYTES);
    objects.insert(name, text);
}

/// The resource in the newest version that the server has. Without one, it says so, and asks again after a while.
async fn resource(client: &Client, follower: &SourceFollower) -> ApiResource {
    let mut failures = 0;
    loop {
        match served_version(client).await {
            Ok(Some(version)) => {
                return ApiResource {
                    group: GROUP.to_owned(),
                    version: version.to_owned(),
                    api_version: format!("{GROUP}/{version}"),
                    kind: "ClusterTrustBundle".to_owned(),
                    plural: PLURAL.to_owned(),
                };
            }
            Ok(None) => follower.publish(Err(
                "cannot be read: the API server has no ClusterTrustBundles; they are served from Kubernetes 1.37 on, and before that with \
                 the feature gate ClusterTrustBundle and the API certificates.k8s.io/v1beta1"
                    .to_owned(),
            )),
            Err(error) => follower.publish(Err(format!("cannot be read: {error}"))),
        }
        tokio::time::sleep(RETRIES.full_pause(failures)).await;
        failures += 1;
    }
}

/// The newest version in which the server has ClusterTrustBundles.
async fn served_version(client: &Client) -> Result<Option<&'static str>, kube::Error> {
    for version in VERSIONS {
        match client.list_api_group_resources(&format!("{GROUP}/{version}")).await {
            Ok(list) if list.resources.iter().any(|resource| resource.name == PLURAL) => {
                return Ok(Some(version));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::testing::{ScriptedServer, refusal};
    use crate::trust::{TrustMetrics, TrustSources, joined};
    use crate::x509::pem;
    use crate::x509::testing::{StoppedClock, root};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn object(name: &str, text: &str) -> ClusterTrustBundle {
        let resource = ApiResource {
            group: GROUP.into(),
            version: "v1".into(),
            api_version: format!("{GROUP}/v1"),
            kind: "ClusterTrustBundle".into(),
            plural: PLURAL.into(),
        };
        let spec = ClusterTrustBundleSpec { signer_name: None, trust_bundle: text.into() };
        Object::new(name, &resource, spec)
    }

    /// The number of anchors and the fault of a polled source, after each of so many changes.
    async fn published(cluster: Cluster, source: TrustSource, changes: usize) -> Vec<(usize, String)> {
        let clock = StoppedClock("2026-05-01T12:00:00Z".parse().unwrap());
        let sources = TrustSources::new(Arc::new(clock), TrustMetrics::default());
        sources.connect(cluster.polling(Duration::from_millis(20)));
        let followed = sources.follow(&[source]);
        let mut seen = Vec::new();
        while seen.len() < changes {
            sources.changed().await;
            let anchors = joined(&followed).map_or(0, |trust| trust.anchors.len());
            seen.push((anchors, followed[0].fault().unwrap_or_default()));
        }
        seen
    }

    /// The API resources of the server, and an object with that many roots.
    fn served(name: &str, roots: usize) -> [(u16, Value); 2] {
        let (begin, end) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2036-01-01T00:00:00Z".parse().unwrap());
        let all: Vec<String> = (0..roots)
            .map(|n| root(&format!("CN={name}-{n}"), begin, end))
            .map(|der| String::from_utf8(pem::certificates([der.as_slice()])).unwrap())
            .collect();
        let resources =
            json!([{ "name": PLURAL, "singularName": "", "namespaced": false, "kind": "", "verbs": [] }]);
        let served = json!({ "kind": "APIResourceList", "groupVersion": "certificates.k8s.io/v1", "resources": resources });
        [
            (200, served),
            (200, json!({ "metadata": { "name": name }, "spec": { "trustBundle": all.concat() } })),
        ]
    }

    #[tokio::test]
    async fn a_polled_cluster_trust_bundle_is_read_by_get() {
        let [resources, one] = served("mesh", 1);
        let [_, two] = served("mesh", 2);
        let answers = [resources, one, two, refusal(403, "Forbidden"), refusal(404, "NotFound")];
        let (server, cluster) = ScriptedServer::start(answers).await;
        let seen = published(cluster, TrustSource::ClusterTrustBundle { name: "mesh".into() }, 4).await;
        let expected = [(1, ""), (2, ""), (2, "cannot be read: scripted Forbidden"), (2, "does not exist")];
        for ((anchors, fault), (expected, part)) in seen.iter().zip(expected) {
            assert!(*anchors == expected && fault.contains(part), "{seen:?}");
            assert_eq!(fault.is_empty(), part.is_empty(), "{seen:?}");
        }
        let urls = server.urls_without_watch();
        let path = "/apis/certificates.k8s.io/v1/clustertrustbundles/mesh";
        assert!(urls[1..].iter().all(|url| url == path), "{urls:?}");
    }

    #[tokio::test]
    async fn the_polled_cluster_trust_bundles_of_a_signer_are_listed() {
        let [resources, (_, a)] = served("a", 1);
        let [_, (_, b)] = served("b", 1);
        let list = |items: Vec<&Value>| (200, json!({ "metadata": {}, "items": items }));
        let answers = [resources, list(vec![]), list(vec![&a]), list(vec![&a, &b]), list(vec![&b])];
        let (server, cluster) = ScriptedServer::start(answers).await;
        let source = TrustSource::ClusterTrustBundles {
            signer_name: "example.org/mesh".into(),
            labels: BTreeMap::new(),
        };
        let seen = published(cluster, source, 4).await;
        let anchors: Vec<usize> = seen.iter().map(|(anchors, _)| *anchors).collect();
        assert_eq!(anchors, [0, 1, 2, 1], "{seen:?}");
        assert!(seen[0].1.contains("selects no ClusterTrustBundle"), "{seen:?}");
        let urls = server.urls_without_watch();
        assert!(urls[1..].iter().all(|url| url.contains("spec.signerName%3Dexample.org%2Fmesh")), "{urls:?}");
    }

    #[test]
    fn all_objects_are_joined_and_those_that_a_new_list_lacks_are_gone() {
        let large = "C".repeat(MAX_ANCHORS_BYTES);
        let mut selected = Selected::default();
        for (event, is_complete, expected) in [
            (Event::InitApply(object("b", "B")), false, Err("missing")),
            (Event::InitDone, true, Ok("B")),
            (Event::Apply(object("a", "A")), true, Ok("A\nB")),
            (Event::Apply(object("b", "B2")), true, Ok("A\nB2")),
            (Event::Apply(object("c", &large)), true, Err("selects more than 1048576 bytes")),
            (Event::Apply(object("c", "C")), true, Ok("A\nB2\nC")),
            (Event::InitApply(object("b", "B3")), false, Ok("A\nB2\nC")),
            (Event::InitDone, true, Ok("B3")),
            (Event::Delete(object("b", "B3")), true, Err("missing")),
        ] {
            assert_eq!(selected.apply(event), is_complete);
            let text = selected.text("missing").map(|text| String::from_utf8(text).unwrap());
            assert_eq!(text, expected.map(str::to_owned).map_err(str::to_owned));
        }
    }
}
