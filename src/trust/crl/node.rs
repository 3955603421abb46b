//! The CRLs of one node: which sources are followed, and who waits for a change.

use super::CrlOptions;
use super::fetch::{self, Fetcher};
use super::followed::{CrlReader, FollowedCrl};
use super::metrics::CrlMetrics;
use super::source::{CrlSource, CrlUrl};
use super::volume::VolumeCrls;
use crate::model::TrustSource;
use crate::platform::Clock;
use crate::store::Store;
#[cfg(feature = "kubernetes")]
use crate::trust::config_map;
use crate::trust::file;
use crate::x509::{Crl, CrlSigner};
use aws_lc_rs::rand;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Distribution points that are followed on one node. What the operator names comes on top.
const MAX_POINTS: usize = 256;
/// Those of the certificates of one namespace.
const MAX_POINTS_OF_NAMESPACE: usize = 64;

/// The CRLs of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Crls(pub(super) Arc<Node>);

pub(super) struct Node {
    pub(super) options: CrlOptions,
    fetcher: Arc<Fetcher>,
    followed: Mutex<HashMap<CrlSource, Weak<FollowedCrl>>>,
    signers: Mutex<HashMap<[u8; 32], Weak<CrlSigner>>>,
    /// The distribution points of each namespace.
    points: Mutex<HashMap<String, Vec<Weak<FollowedCrl>>>>,
    /// The lists in use whose end has passed, so that each is logged once.
    stale: Mutex<HashSet<[u8; 32]>>,
    pub(super) changed: Notify,
    /// When what is in use has been counted anew.
    counted: Notify,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: CrlMetrics,
    /// Random, so that nodes do not fetch at the same time.
    pub(super) seed: [u8; 8],
    #[cfg(feature = "kubernetes")]
    cluster: std::sync::OnceLock<crate::kube::Cluster>,
}

impl Crls {
    /// Nothing is followed yet. Without a cluster, ConfigMaps cannot be read.
    pub(crate) fn new(
        options: CrlOptions,
        clock: Arc<dyn Clock>,
        store: Arc<Store>,
        metrics: CrlMetrics,
    ) -> Self {
        let mut seed = [0; 8];
        // Without random numbers, nodes fetch at the same time.
        let _random = rand::fill(&mut seed);
        Self(Arc::new(Node {
            fetcher: Arc::new(Fetcher::new(&options)),
            options,
            followed: Mutex::default(),
            signers: Mutex::default(),
            points: Mutex::default(),
            stale: Mutex::default(),
            changed: Notify::new(),
            counted: Notify::new(),
            clock,
            store,
            metrics,
            seed,
            #[cfg(feature = "kubernetes")]
            cluster: std::sync::OnceLock::new(),
        }))
    }

    /// Reads ConfigMaps from this cluster.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn connect(&self, cluster: crate::kube::Cluster) {
        let _first = self.0.cluster.set(cluster);
    }

    /// The CRLs of a volume, if it asks for them.
    pub(crate) fn of_volume(&self, is_asked_for: bool, namespace: &str) -> VolumeCrls {
        VolumeCrls::new(is_asked_for.then(|| self.clone()), namespace)
    }

    /// Resolves after a source has another list; several changes can count as one. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Logs lists and counts them when they end. Never returns.
    pub(crate) async fn watch_ends(&self) {
        loop {
            let now = self.0.clock.now();
            let ends = self.0.lists().into_iter().map(|list| list.next_update());
            let next = ends.filter(|end| *end > now).min();
            tokio::select! {
                () = self.0.clock.wait_until(next) => self.0.count(),
                () = self.0.counted.notified() => {}
            }
        }
    }

    /// What is wrong with the sources in use, for `certlet status`.
    pub(crate) fn faults(&self) -> Vec<String> {
        let now = self.0.clock.now();
        let mut faults: Vec<String> = self.0.in_use().iter().filter_map(|source| source.fault()).collect();
        let stale = self.0.lists().into_iter().filter(|list| list.next_update() <= now);
        faults.extend(stale.map(|list| stale_message(&list)));
        faults.sort();
        faults.dedup();
        faults
    }

    /// Follows a source that the operator names.
    pub(super) fn follow_operators(&self) -> Vec<Arc<FollowedCrl>> {
        self.0.options.sources.iter().map(|source| self.follow(source.clone())).collect()
    }

    /// Follows the URL of a distribution point. None if the operator does not allow its host, or if the certificates of the node or of
    /// the namespace name too many.
    pub(super) fn follow_point(&self, url: &str, namespace: &str) -> Option<Arc<FollowedCrl>> {
        let url: CrlUrl = url.parse().ok()?;
        if !self.0.fetcher.allows(&url) {
            return None;
        }
        let source = CrlSource::Url(url);
        let mut points = self.0.points.lock();
        points.retain(|_, of_namespace| {
            of_namespace.retain(|point| point.strong_count() > 0);
            !of_namespace.is_empty()
        });
        let of_namespace = points.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let is_known = of_namespace.iter().any(|point| point.upgrade().is_some_and(|it| it.source == source));
        let in_all: usize = points.values().map(Vec::len).sum();
        if !is_known && (of_namespace.len() >= MAX_POINTS_OF_NAMESPACE || in_all >= MAX_POINTS) {
            tracing::warn!(
                %source,
                namespace,
                "not followed: the certificates of this node or namespace name too many distribution points"
            );
            return None;
        }
        let followed = self.follow(source);
        if !is_known {
            points.entry(namespace.to_owned()).or_default().push(Arc::downgrade(&followed));
        }
        Some(followed)
    }

    fn follow(&self, source: CrlSource) -> Arc<FollowedCrl> {
        let mut followed = self.0.followed.lock();
        if let Some(known) = followed.get(&source).and_then(Weak::upgrade) {
            return known;
        }
        let node = Arc::downgrade(&self.0);
        let new = FollowedCrl::new(source.clone(), Weak::clone(&node));
        let reader = CrlReader { source: Arc::downgrade(&new), node };
        let task = match source.clone() {
            CrlSource::Url(url) => tokio::spawn(fetch::follow(url, Arc::clone(&self.0.fetcher), reader)),
            CrlSource::Object(TrustSource::File(path)) => tokio::spawn(file::follow(path, reader)),
            #[cfg(feature = "kubernetes")]
            CrlSource::Object(TrustSource::ConfigMap { namespace, name, key }) => {
                let cluster = self.0.cluster.get().cloned();
                tokio::spawn(config_map::follow(cluster, namespace, name, key, reader))
            }
            CrlSource::Object(_) => tokio::spawn(async move {
                let fault = "this build of certlet reads no such objects".to_owned();
                reader.take(Err(fault)).await;
            }),
        };
        *new.task.lock() = Some(task.abort_handle());
        followed.insert(source, Arc::downgrade(&new));
        new
    }

    /// A CA of a volume, once for the node; none if its key may not sign lists.
    pub(super) fn signer(&self, certificate: &[u8]) -> Option<Arc<CrlSigner>> {
        let new = CrlSigner::new(certificate)?;
        let mut signers = self.0.signers.lock();
        if let Some(known) = signers.get(new.id()).and_then(Weak::upgrade) {
            return Some(known);
        }
        signers.retain(|_, signer| signer.strong_count() > 0);
        let new = Arc::new(new);
        signers.insert(*new.id(), Arc::downgrade(&new));
        Some(new)
    }
}

impl Node {
    /// The sources in use. Not under the lock, which the drop of a source takes.
    fn in_use(&self) -> Vec<Arc<FollowedCrl>> {
        let followed = self.followed.lock();
        let in_use: Vec<_> = followed.values().filter_map(Weak::upgrade).collect();
        drop(followed);
        in_use
    }

    /// The lists in use.
    fn lists(&self) -> Vec<Arc<Crl>> {
        self.in_use().iter().flat_map(|source| source.all_lists()).collect()
    }

    /// Keeps the lists of a CA for the next process.
    pub(super) fn keep(&self, name: &str, der: &[u8]) {
        let names: HashSet<String> = self.in_use().iter().flat_map(|source| source.kept_names()).collect();
        if let Err(error) = self.store.keep_crl(name, der, |name| names.contains(name)) {
            tracing::error!(%error, "a CRL could not be kept for the next start of the driver");
        }
    }

    /// Counts sources and lists for the metrics, and logs lists that have ended.
    pub(super) fn count(&self) {
        let sources = self.in_use();
        let failed = sources.iter().filter(|source| source.fault().is_some()).count();
        let lists: Vec<_> = sources.iter().flat_map(|source| source.all_lists()).collect();
        let now = self.clock.now();
        let stale: Vec<_> = lists.iter().filter(|list| list.next_update() <= now).collect();
        let first_end = lists.iter().map(|list| list.next_update()).min();
        self.metrics.in_use(
            (sources.len() - failed, failed),
            (lists.len() - stale.len(), stale.len()),
            first_end,
        );
        let digests: HashSet<[u8; 32]> = stale.iter().map(|list| *list.digest()).collect();
        let before = std::mem::replace(&mut *self.stale.lock(), digests);
        for list in stale.iter().filter(|list| !before.contains(list.digest())) {
            tracing::error!("{}", stale_message(list));
        }
        self.counted.notify_one();
    }

    /// A source is not used any more. Another volume can have begun to follow it again.
    pub(super) fn dropped(&self) {
        self.followed.lock().retain(|_, followed| followed.strong_count() > 0);
        self.count();
    }
}

fn stale_message(list: &Crl) -> String {
    format!("the CRL of {} has ended and stays in use, so that consumers refuse every peer", list.describe())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::testing::StoppedClock;

    #[tokio::test]
    async fn certificates_make_the_driver_follow_allowed_hosts_only_and_not_too_many_urls() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let store = Arc::new(Store::open(root.path()).unwrap().0);
        // Nobody listens there.
        let allowed_hosts = vec!["127.0.0.1:1".parse().unwrap()];
        let options = CrlOptions { allowed_hosts, ..CrlOptions::default() };
        let clock = Arc::new(StoppedClock(jiff::Timestamp::UNIX_EPOCH));
        let crls = Crls::new(options, clock, store, CrlMetrics::default());
        let follow = |namespace: &str, path: usize| {
            crls.follow_point(&format!("http://127.0.0.1:1/{namespace}/{path}"), namespace)
        };
        for url in [
            "http://169.254.169.254/latest",
            "http://127.0.0.1/",
            "http://127.0.0.1:1@internal/",
            "file:///etc/passwd",
            "ldap://127.0.0.1:1/cn=ca",
        ] {
            assert!(crls.follow_point(url, "shop").is_none(), "{url}");
        }
        let mut of_shop: Vec<_> =
            (0..MAX_POINTS_OF_NAMESPACE).map(|path| follow("shop", path).unwrap()).collect();
        assert!(follow("shop", MAX_POINTS_OF_NAMESPACE).is_none());
        assert!(follow("shop", 0).is_some(), "it is followed already");
        let of_others: Vec<_> = ["a", "b", "c"]
            .iter()
            .flat_map(|namespace| (0..MAX_POINTS_OF_NAMESPACE).filter_map(|path| follow(namespace, path)))
            .collect();
        assert_eq!(of_shop.len() + of_others.len(), MAX_POINTS);
        assert!(follow("d", 0).is_none());
        of_shop.pop();
        assert!(follow("d", 0).is_some(), "another one has gone");
        drop((of_shop, of_others));
        assert!(crls.0.in_use().is_empty());
    }
}
