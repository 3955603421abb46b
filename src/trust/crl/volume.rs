//! The CRLs of one volume: of the CAs in its chain and in its trust bundle.

use super::followed::FollowedCrl;
use super::node::Crls;
use crate::model::Failure;
use crate::trust::TrustBundle;
use crate::x509::{Crl, CrlSigner, distribution_points};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Distribution points that are followed for one volume. Its certificates may name any number.
const MAX_POINTS: usize = 8;
/// Lists of one volume.
const MAX_LISTS: usize = 64;

/// The CRLs of one volume. By default it asks for none.
#[derive(Default)]
pub(crate) struct VolumeCrls {
    /// None if the volume asks for no CRLs.
    node: Option<Crls>,
    /// Whose volume it is.
    namespace: String,
    followed: Mutex<Followed>,
}

#[derive(Default)]
struct Followed {
    sources: Vec<Arc<FollowedCrl>>,
    signers: Vec<Arc<CrlSigner>>,
    /// The lists of the last generation that was written or compared.
    handed: Vec<Arc<Crl>>,
}

impl VolumeCrls {
    pub(super) fn new(node: Option<Crls>, namespace: &str) -> Self {
        Self { node, namespace: namespace.to_owned(), followed: Mutex::default() }
    }

    /// Whether the volume asks for CRLs.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.node.is_some()
    }

    /// Before a signer is asked for a first certificate: fails if there can be no list.
    pub(crate) async fn check_before_first(&self, timeout: Duration) -> Result<(), Failure> {
        let Some(node) = &self.node else { return Ok(()) };
        let options = &node.0.options;
        if options.sources.is_empty() && options.allowed_hosts.is_empty() {
            return Err(Failure::permanent(
                "crl-file: the driver has no CRLs; accepted: remove the attribute, or have the operator set --crl or \
                 --crl-allowed-hosts",
            ));
        }
        let operators = node.follow_operators();
        self.followed.lock().sources.clone_from(&operators);
        self.read_within(timeout).await;
        let may_have_any = !options.allowed_hosts.is_empty()
            || operators.iter().any(|source| source.holds_any())
            || node.0.store.has_kept_crls();
        if may_have_any { Ok(()) } else { Err(Failure::transient(self.fault())) }
    }

    /// Follows what belongs to a chain (leaf first) and the anchors of a trust bundle. Blocks this thread, in a tokio runtime.
    pub(crate) fn follow<'a>(&self, chain: impl Iterator<Item = &'a [u8]>, anchors: &'a [Vec<u8>]) {
        let Some(node) = &self.node else { return };
        let chain: Vec<&[u8]> = chain.collect();
        let mut signers: Vec<Arc<CrlSigner>> = Vec::new();
        for certificate in chain.iter().skip(1).copied().chain(anchors.iter().map(Vec::as_slice)) {
            let signer = node.signer(certificate);
            signers.extend(signer.filter(|new| !signers.iter().any(|known| Arc::ptr_eq(known, new))));
        }
        let mut sources = node.follow_operators();
        let mut points: Vec<String> = Vec::new();
        for point in chain.into_iter().flat_map(distribution_points) {
            if points.len() < MAX_POINTS && !points.contains(&point) {
                points.push(point);
            }
        }
        for source in points.iter().filter_map(|point| node.follow_point(point, &self.namespace)) {
            if !sources.iter().any(|known| Arc::ptr_eq(known, &source)) {
                sources.push(source);
            }
        }
        for source in &sources {
            for signer in &signers {
                source.add(signer);
            }
        }
        let mut followed = self.followed.lock();
        let before = (
            std::mem::replace(&mut followed.sources, sources),
            std::mem::replace(&mut followed.signers, signers),
        );
        // Dropped without the lock: the drop of a source counts those that are left.
        drop(followed);
        drop(before);
    }

    /// Waits until each source was read once.
    pub(crate) async fn read_within(&self, timeout: Duration) {
        let sources = self.followed.lock().sources.clone();
        let are_read = async {
            for source in &sources {
                source.read().await;
            }
        };
        let _late = tokio::time::timeout(timeout, are_read).await;
    }

    /// The newest lists of the volume's CAs.
    fn current(&self) -> Vec<Arc<Crl>> {
        let (sources, signers) = {
            let followed = self.followed.lock();
            (followed.sources.clone(), followed.signers.clone())
        };
        let mut current: Vec<Arc<Crl>> = Vec::new();
        for signer in &signers {
            // A CA's own lists only: another CA may have the same name.
            let mut of_signer: Vec<Arc<Crl>> = Vec::new();
            for list in sources.iter().flat_map(|source| source.lists_of(signer)) {
                match of_signer.iter_mut().find(|known| known.has_same_scope(&list)) {
                    Some(known) if known.is_older_than(&list) => *known = list,
                    Some(_) => {}
                    None => of_signer.push(list),
                }
            }
            current.extend(of_signer);
        }
        current.truncate(MAX_LISTS);
        current
    }

    /// The trust bundle with the volume's lists. Without any, those in use stay; it is an error if there are none either.
    pub(crate) fn add_to(
        &self,
        trust: &Arc<TrustBundle>,
        in_use: impl FnOnce() -> Result<Vec<Arc<Crl>>, Failure>,
    ) -> Result<Arc<TrustBundle>, Failure> {
        if !self.is_asked_for() {
            return Ok(Arc::clone(trust));
        }
        let mut crls = self.current();
        if crls.is_empty() {
            crls = in_use()?;
        }
        if crls.is_empty() {
            return Err(Failure::transient(self.fault()));
        }
        self.followed.lock().handed.clone_from(&crls);
        Ok(Arc::new(TrustBundle { crls, ..(**trust).clone() }))
    }

    /// Whether the lists are others than those of the last generation.
    pub(crate) fn has_changed(&self) -> bool {
        let current = self.current();
        !current.is_empty() && current != self.followed.lock().handed
    }

    /// What its files can hold: the lists that were handed over last, or the newest ones.
    pub(crate) fn known(&self) -> Vec<Vec<Arc<Crl>>> {
        let handed = self.followed.lock().handed.clone();
        [handed, self.current()].into_iter().filter(|lists| !lists.is_empty()).collect()
    }

    /// Why there is no list.
    fn fault(&self) -> String {
        let sources = self.followed.lock().sources.clone();
        let faults: Vec<String> = sources.iter().filter_map(|source| source.fault()).take(3).collect();
        if !faults.is_empty() {
            return format!("crl-file: {}", faults.join("; "));
        }
        if sources.is_empty() {
            return "crl-file: no certificate of the chain has a distribution point at a host that --crl-allowed-hosts names"
                .to_owned();
        }
        "crl-file: no CRL of a CA of the certificate has been read yet".to_owned()
    }
}
