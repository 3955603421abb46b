//! The federated trust bundles of one volume: those of other trust domains, each apart from the others and from the volume's own.
//!
//! They are never a reason for a volume to wait: another trust domain must not decide whether a pod starts. A trust domain whose
//! sources fail keeps the anchors that the pod has of it.

use super::applied::AppliedSpec;
use super::context::Context;
use super::volume::Volume;
use crate::credential::Current;
use crate::model::{CertificateSpec, Failure, TrustDomain, VolumeId};
use crate::store::TrustRecord;
use crate::trust::{FollowedSource, TrustBundle, TrustSources, joined, read_within};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The part of a volume's size (`--max-volume-size`) that all federated anchors may take, DER. As files they take up to three times
/// as much. Each trust domain has an equal share of it, so that none can displace another or the volume's own certificate.
const PART_OF_VOLUME: u64 = 4;

/// The federated trust domains of a volume.
pub(super) struct Federation {
    domains: BTreeMap<TrustDomain, Vec<Arc<FollowedSource>>>,
    /// Bytes of the anchors of one trust domain, DER.
    max_bytes: usize,
    /// What the sources held when they were last compared.
    compared: Mutex<BTreeMap<TrustDomain, Arc<TrustBundle>>>,
}

impl Federation {
    /// Follows the sources of the trust domains that the spec names. Runs inside of a tokio runtime.
    pub(super) fn follow(spec: &CertificateSpec, sources: &TrustSources, volume_bytes: u64) -> Self {
        let follow =
            |(domain, of_domain): (&TrustDomain, &Vec<_>)| (domain.clone(), sources.follow(of_domain));
        let domains: BTreeMap<_, _> = spec.federated.iter().flatten().map(follow).collect();
        Self::new(domains, volume_bytes)
    }

    fn new(domains: BTreeMap<TrustDomain, Vec<Arc<FollowedSource>>>, volume_bytes: u64) -> Self {
        let count = u64::try_from(domains.len()).unwrap_or(u64::MAX).max(1);
        let max_bytes = usize::try_from(volume_bytes / PART_OF_VOLUME / count).unwrap_or(usize::MAX);
        Self { domains, max_bytes, compared: Mutex::default() }
    }

    /// Without other trust domains.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self::new(BTreeMap::new(), 0)
    }

    /// Waits until each source has been read or has failed, at most so long.
    pub(super) async fn read_within(&self, timeout: Duration) {
        let sources: Vec<_> = self.sources().map(Arc::clone).collect();
        read_within(&sources, timeout).await;
    }

    /// Whether a source holds other anchors than at the last call.
    pub(super) fn has_changed(&self, id: &VolumeId) -> bool {
        let held = |(domain, sources): (&TrustDomain, &Vec<_>)| Some((domain.clone(), joined(sources).ok()?));
        let now: BTreeMap<_, _> = self.domains.iter().filter_map(held).collect();
        let mut compared = self.compared.lock();
        for (domain, trust) in now.iter().filter(|(domain, trust)| compared.get(*domain) != Some(*trust)) {
            if let Err(fault) = self.check_size(trust) {
                // A source that fails is told by whoever reads it. This one can be read.
                tracing::warn!(volume = %id, %domain, fault, "a federated trust bundle is too large; its last anchors stay in use");
            }
        }
        let has_changed = *compared != now;
        *compared = now;
        has_changed
    }

    /// The trust bundle with the federated ones. A trust domain whose sources cannot be used keeps what `in_use` gives: the
    /// federated trust bundles that the pod has. Also returns what is wrong with trust domains that have no anchors at all.
    pub(super) fn added_to(
        &self,
        trust: Arc<TrustBundle>,
        in_use: impl FnOnce() -> BTreeMap<TrustDomain, Vec<Vec<u8>>>,
    ) -> (Arc<TrustBundle>, Vec<String>) {
        let (mut federated, mut failed) = (BTreeMap::new(), BTreeMap::new());
        for (domain, sources) in &self.domains {
            match joined(sources).and_then(|found| self.check_size(&found).map(|()| found)) {
                Ok(found) => drop(federated.insert(domain.clone(), found.anchors.clone())),
                Err(fault) => drop(failed.insert(domain.clone(), fault)),
            }
        }
        if !failed.is_empty() {
            let kept = in_use().into_iter();
            federated.extend(kept.filter(|(domain, _)| failed.remove(domain).is_some()));
        }
        let missing = failed.iter().map(|(domain, fault)| format!("the trust bundle of {domain}: {fault}"));
        let missing = missing.collect();
        if trust.federated == federated {
            return (trust, missing);
        }
        (Arc::new(TrustBundle { federated, ..TrustBundle::clone(&trust) }), missing)
    }

    /// The trust bundle with the federated ones, where `in_use` is what the pod has.
    pub(super) fn refreshed(&self, trust: Arc<TrustBundle>, in_use: &TrustBundle) -> Arc<TrustBundle> {
        self.added_to(trust, || in_use.federated.clone()).0
    }

    /// All sources.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Arc<FollowedSource>> {
        self.domains.values().flatten()
    }

    /// An error if the anchors of one trust domain take more than its share.
    fn check_size(&self, trust: &TrustBundle) -> Result<(), String> {
        let bytes: usize = trust.anchors.iter().map(Vec::len).sum();
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let (count, limit) = (trust.anchors.len(), self.max_bytes);
        Err(format!(
            "its {count} anchors have {bytes} bytes; accepted are at most {limit}, by --max-volume-size and the number of trust domains"
        ))
    }
}

impl Context {
    /// The trust bundle of a new generation with the federated ones. A trust domain that has no usable source keeps what the pod has
    /// of it, and is missing where the pod has nothing: the pod's author is told.
    pub(super) fn with_federated(
        &self,
        volume: &Volume,
        applied: &AppliedSpec,
        trust: Arc<TrustBundle>,
    ) -> Arc<TrustBundle> {
        let in_use = || self.trust_in_use(volume).map(|trust| trust.federated.clone()).unwrap_or_default();
        let (trust, missing) = applied.federation.added_to(trust, in_use);
        self.reporter.federated_missing(volume, &missing);
        trust
    }

    /// Hands over federated trust bundles and CRLs that have changed, while the volume's own stays as it is.
    pub(super) fn refresh_federated(
        &self,
        volume: &Volume,
        current: Current,
        record: TrustRecord,
    ) -> Result<(), Failure> {
        let applied = volume.applied();
        let trust = applied.federation.refreshed(Arc::clone(&current.trust), &current.trust);
        let trust = self.files.with_crls(volume, &applied, &current.credential, &trust)?;
        if trust == current.trust {
            return Ok(());
        }
        self.files.write_trust(volume, Current { trust, ..current }, record)
    }
}
