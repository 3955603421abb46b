//! One source of CRLs, followed for the whole node: which list is the newest that the key of each CA has signed.

use super::super::reader::SourceReader;
use super::node::Node;
use super::source::CrlSource;
use crate::model::{fingerprint, jitter};
use crate::platform::until;
use crate::x509::{Crl, CrlError, CrlSigner};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Lists of one CA in one source: one for all its certificates, or one for each distribution point.
const MAX_SCOPES: usize = 8;

/// SHA-256 of what a list or a CA is.
type Digest = [u8; 32];

/// A source that is followed until the last volume that uses it is dropped.
pub(crate) struct FollowedCrl {
    pub(super) source: CrlSource,
    pub(super) node: Weak<Node>,
    state: Mutex<State>,
    /// Whether it was read once, with or without success.
    is_read: watch::Sender<bool>,
    pub(super) task: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct State {
    /// What the source held when it was read last.
    lists: Vec<Arc<Crl>>,
    /// The CAs of the volumes that use the source.
    signers: Vec<Weak<CrlSigner>>,
    /// The newest lists of each CA, of different scopes.
    kept: HashMap<Digest, Vec<Arc<Crl>>>,
    /// Lists of the source whose signature by a CA was refused, so that each is verified once.
    refused: HashMap<(Digest, Digest), CrlError>,
    /// Why the source cannot be read.
    read_fault: Option<String>,
    /// Why what it holds cannot be used.
    fault: Option<String>,
}

impl FollowedCrl {
    pub(super) fn new(source: CrlSource, node: Weak<Node>) -> Arc<Self> {
        Arc::new(Self {
            source,
            node,
            state: Mutex::default(),
            is_read: watch::Sender::new(false),
            task: Mutex::default(),
        })
    }

    /// Resolves when the source was read once.
    pub(super) async fn read(&self) {
        let mut is_read = self.is_read.subscribe();
        // The sender lives as long as the source.
        let _read = is_read.wait_for(|is_read| *is_read).await;
    }

    /// Whether it holds a list, whoever has signed it, or a list of it is kept in memory.
    pub(super) fn holds_any(&self) -> bool {
        let state = self.state.lock();
        !state.lists.is_empty() || state.kept.values().any(|kept| !kept.is_empty())
    }

    /// Adds a CA of a volume, whose list of an earlier process is read back. Blocks this thread.
    pub(super) fn add(&self, signer: &Arc<CrlSigner>) {
        let Some(node) = self.node.upgrade() else { return };
        let mut state = self.state.lock();
        if state.signers.iter().any(|known| known.as_ptr() == Arc::as_ptr(signer)) {
            return;
        }
        state.signers.push(Arc::downgrade(signer));
        let kept = self.kept_by_an_earlier_process(&node, signer);
        if !kept.is_empty() {
            state.kept.entry(*signer.id()).or_insert(kept);
        }
        self.evaluate(&node, state);
    }

    fn kept_by_an_earlier_process(&self, node: &Node, signer: &CrlSigner) -> Vec<Arc<Crl>> {
        let text = node.store.kept_crl(&self.kept_name(signer.id())).unwrap_or_else(|error| {
            tracing::warn!(%error, "a kept CRL cannot be read back");
            None
        });
        // Verified again, so that nothing rests on the file.
        let lists = text.and_then(|text| Crl::read_all(&text).ok()).unwrap_or_default();
        let is_its = |list: &Crl| signer.is_named_by(list) && signer.check(list).is_ok();
        lists.into_iter().filter(is_its).take(MAX_SCOPES).map(Arc::new).collect()
    }

    /// The name of the file with the lists of a CA from this source.
    fn kept_name(&self, signer: &Digest) -> String {
        fingerprint(&[self.source.to_string().as_bytes(), signer])
    }

    /// The names of all files of this source.
    pub(super) fn kept_names(&self) -> Vec<String> {
        self.state.lock().kept.keys().map(|signer| self.kept_name(signer)).collect()
    }

    /// Takes what was read. Returns whether it can be used. Blocks this thread.
    fn take(&self, text: Result<Vec<u8>, String>) -> bool {
        let Some(node) = self.node.upgrade() else { return false };
        let lists = text.and_then(|text| self.lists(&node, &text));
        let mut state = self.state.lock();
        match lists {
            Ok(lists) => {
                state.refused.clear();
                (state.lists, state.read_fault) = (lists, None);
            }
            Err(fault) => state.read_fault = Some(fault),
        }
        let is_usable = self.evaluate(&node, state);
        node.metrics.fetched(is_usable);
        self.is_read.send_replace(true);
        is_usable
    }

    /// The lists of a text, as far as they can be judged without a CA.
    fn lists(&self, node: &Node, text: &[u8]) -> Result<Vec<Arc<Crl>>, String> {
        if text.len() > node.options.max_bytes {
            let limit = node.options.max_bytes;
            return Err(format!("is too long; accepted are at most {limit} bytes (--max-crl-size)"));
        }
        let url = match &self.source {
            CrlSource::Url(url) => Some(url.as_str()),
            CrlSource::Object(_) => None,
        };
        let lists = Crl::read_all(text).map_err(|error| error.to_string())?;
        for list in &lists {
            list.check_point(url).map_err(|error| error.to_string())?;
        }
        Ok(lists.into_iter().map(Arc::new).collect())
    }

    /// Compares what the source holds with what is kept. Returns whether the source can be used.
    fn evaluate(&self, node: &Node, mut state: parking_lot::MutexGuard<'_, State>) -> bool {
        let before = state.any_fault();
        let changed = state.evaluate(node.clock.now());
        let fault = state.any_fault();
        let kept: Vec<(String, Vec<u8>)> =
            changed.iter().map(|signer| self.encoded(&state, signer)).collect();
        let told = fault.as_ref().filter(|_| fault != before).map(|fault| self.describe(fault, &state));
        drop(state);
        if let Some(told) = told {
            tracing::error!("{told}");
        } else if before.is_some() && fault.is_none() {
            tracing::info!(source = %self.source, "the source of CRLs can be used again");
        }
        for (name, der) in kept {
            node.keep(&name, &der);
        }
        if !changed.is_empty() {
            tracing::info!(source = %self.source, "the source has another CRL");
            node.metrics.changed();
            node.changed.notify_one();
        }
        node.count();
        fault.is_none()
    }

    fn encoded(&self, state: &State, signer: &Digest) -> (String, Vec<u8>) {
        let lists = state.kept.get(signer).into_iter().flatten();
        (self.kept_name(signer), lists.flat_map(|list| list.der()).copied().collect())
    }

    /// The newest lists of a CA.
    pub(super) fn lists_of(&self, signer: &CrlSigner) -> Vec<Arc<Crl>> {
        self.state.lock().kept.get(signer.id()).cloned().unwrap_or_default()
    }

    /// All lists in use.
    pub(super) fn all_lists(&self) -> Vec<Arc<Crl>> {
        self.state.lock().kept.values().flatten().cloned().collect()
    }

    /// What is wrong with it, for people.
    pub(super) fn fault(&self) -> Option<String> {
        let state = self.state.lock();
        state.any_fault().map(|fault| self.describe(&fault, &state))
    }

    fn describe(&self, fault: &str, state: &State) -> String {
        let first_end = state.kept.values().flatten().map(|list| list.next_update()).min();
        let kept =
            first_end.map(|end| format!("; its last CRL stays in use, until {end:.0}")).unwrap_or_default();
        format!("the CRL source {} {fault}{kept}", self.source)
    }
}

impl State {
    fn any_fault(&self) -> Option<String> {
        self.read_fault.clone().or_else(|| self.fault.clone())
    }

    /// Takes over what is newer than what is kept. Returns the CAs that have another list than before.
    fn evaluate(&mut self, now: Timestamp) -> Vec<Digest> {
        self.signers.retain(|signer| signer.strong_count() > 0);
        let signers: Vec<Arc<CrlSigner>> = self.signers.iter().filter_map(Weak::upgrade).collect();
        self.kept.retain(|id, _| signers.iter().any(|signer| signer.id() == id));
        let (mut changed, mut faults, mut is_any_used) = (Vec::new(), Vec::new(), false);
        for list in self.lists.clone() {
            let named: Vec<_> = signers.iter().filter(|signer| signer.is_named_by(&list)).collect();
            let results: Vec<_> =
                named.iter().map(|signer| (signer.id(), self.offer(signer, &list, now))).collect();
            let is_used = results.iter().any(|(_, result)| result.is_ok());
            is_any_used |= is_used;
            for (id, result) in results {
                match result {
                    Ok(true) => changed.push(*id),
                    Ok(false) => {}
                    // A stranger's CA of the same name is no fault of the list.
                    Err(_) if is_used => {}
                    Err(error) => faults.push(error.to_string()),
                }
            }
        }
        if !is_any_used && faults.is_empty() && !signers.is_empty() && !self.lists.is_empty() {
            let found = self.lists.iter().map(|list| list.describe()).take(3).collect::<Vec<_>>().join("; ");
            faults.push(format!("holds no CRL of a CA that its volumes know, but those of {found}"));
        }
        faults.truncate(3);
        self.fault = (!faults.is_empty()).then(|| faults.join("; "));
        changed
    }

    /// Takes over a list of a CA, if it is newer. Returns whether it is another one than before.
    fn offer(&mut self, signer: &CrlSigner, list: &Arc<Crl>, now: Timestamp) -> Result<bool, CrlError> {
        let kept = self.kept.get(signer.id()).into_iter().flatten();
        let current = kept.clone().find(|kept| kept.has_same_scope(list));
        if current == Some(list) {
            return list.check_time(now).map(|()| false);
        }
        let key = (*signer.id(), *list.digest());
        if let Some(error) = self.refused.get(&key) {
            return Err(error.clone());
        }
        list.check_time(now)?;
        if let Some(current) = current.filter(|current| list.is_older_than(current)) {
            return Err(CrlError::Older(current.describe()));
        }
        if current.is_none() && kept.count() >= MAX_SCOPES {
            return Err(CrlError::TooMany);
        }
        if let Err(error) = signer.check(list) {
            self.refused.insert(key, error.clone());
            return Err(error);
        }
        let kept = self.kept.entry(*signer.id()).or_default();
        kept.retain(|kept| !kept.has_same_scope(list));
        kept.push(Arc::clone(list));
        Ok(true)
    }
}

impl Drop for FollowedCrl {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
        if let Some(node) = self.node.upgrade() {
            node.dropped();
        }
    }
}

/// What reads a source tells here what it has read.
pub(super) struct CrlReader {
    pub(super) source: Weak<FollowedCrl>,
    pub(super) node: Weak<Node>,
}

impl CrlReader {
    /// Takes a text, off the async threads: hashing and verifying some megabytes takes a while. Returns whether it can be used.
    pub(super) async fn take(&self, text: Result<Vec<u8>, String>) -> bool {
        self.run(|source| source.take(text)).await
    }

    /// The source is as it was. Returns whether it can be used still.
    pub(super) async fn unchanged(&self) -> bool {
        self.run(|source| {
            let Some(node) = source.node.upgrade() else { return false };
            let mut state = source.state.lock();
            state.read_fault = None;
            let is_usable = source.evaluate(&node, state);
            node.metrics.fetched(is_usable);
            is_usable
        })
        .await
    }

    async fn run(&self, work: impl FnOnce(&FollowedCrl) -> bool + Send + 'static) -> bool {
        let Some(source) = self.source.upgrade() else { return false };
        tokio::task::spawn_blocking(move || work(&source)).await.unwrap_or(false)
    }

    /// The time until the first list in use ends.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let (source, node) = (self.source.upgrade()?, self.node.upgrade()?);
        let ends = source.all_lists().into_iter().map(|list| list.next_update());
        ends.min().map(|end| until(node.clock.now(), end))
    }

    /// A number in [0, 1), another one in each process.
    pub(super) fn jitter(&self, count: u64) -> f64 {
        let Some((source, node)) = self.source.upgrade().zip(self.node.upgrade()) else { return 0.0 };
        let seed = [node.seed.as_slice(), &count.to_be_bytes()].concat();
        jitter(&source.source.to_string(), &seed)
    }
}

impl SourceReader for CrlReader {
    const DEFAULT_KEY: &'static str = "ca.crl";

    fn max_bytes(&self) -> usize {
        self.node.upgrade().map_or(0, |node| node.options.max_bytes)
    }

    async fn read(&self, text: Result<Vec<u8>, String>) {
        self.take(text).await;
    }

    fn was_usable(&self) -> bool {
        self.source.upgrade().is_some_and(|source| source.holds_any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
        CrlIssuingDistributionPoint, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, SerialNumber,
    };
    use time::OffsetDateTime;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    /// A CA that has lists.
    struct Ca(Issuer<'static, KeyPair>, Arc<CrlSigner>);

    impl Ca {
        fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap();
            let signer = CrlSigner::new(certificate.der()).unwrap();
            Self(Issuer::new(params, key), Arc::new(signer))
        }

        fn list(&self, number: u64, point: Option<usize>) -> Arc<Crl> {
            let at = |seconds| OffsetDateTime::from_unix_timestamp(NOW.as_second() + seconds).unwrap();
            let point = point.map(|point| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![format!("http://a/{point}")] },
                scope: None,
            });
            let params = CertificateRevocationListParams {
                this_update: at(-60),
                next_update: at(3600),
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: point,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = params.signed_by(&self.0).unwrap();
            Arc::new(Crl::read_all(list.der()).unwrap().remove(0))
        }
    }

    /// A source that holds these lists, for these CAs.
    fn state(cas: &[&Ca], lists: &[&Arc<Crl>]) -> State {
        State {
            signers: cas.iter().map(|ca| Arc::downgrade(&ca.1)).collect(),
            lists: lists.iter().map(|list| Arc::clone(list)).collect(),
            ..State::default()
        }
    }

    fn kept(state: &State, ca: &Ca) -> Vec<Arc<Crl>> {
        state.kept.get(ca.1.id()).cloned().unwrap_or_default()
    }

    #[test]
    fn a_list_counts_for_the_ca_whose_key_has_signed_it_and_a_stranger_of_the_same_name_does_not_matter() {
        let (ca, stranger) = (Ca::new("root"), Ca::new("root"));
        let (ours, theirs) = (ca.list(1, None), stranger.list(9, None));
        let mut both = state(&[&ca, &stranger], &[&ours]);
        assert_eq!(both.evaluate(NOW), [*ca.1.id()]);
        assert_eq!((kept(&both, &ca), kept(&both, &stranger)), (vec![Arc::clone(&ours)], Vec::new()));
        assert_eq!(both.fault, None, "a stranger could raise an alarm");
        // The stranger cannot supersede the CA's list with a higher number of its own.
        both.lists = vec![Arc::clone(&theirs)];
        assert_eq!(both.evaluate(NOW), [*stranger.1.id()]);
        assert_eq!((kept(&both, &ca), kept(&both, &stranger)), (vec![ours], vec![theirs]));
    }

    #[test]
    fn a_list_is_replaced_by_a_newer_one_of_the_same_scope_only() {
        let ca = Ca::new("root");
        let [whole, older, newer] = [5, 4, 6].map(|number| ca.list(number, None));
        let part = ca.list(1, Some(1));
        let mut state = state(&[&ca], &[&whole, &part]);
        assert_eq!(state.evaluate(NOW).len(), 2);
        assert_eq!(state.evaluate(NOW), [[0; 32]; 0], "nothing is new");
        state.lists = vec![older, Arc::clone(&part)];
        assert!(state.evaluate(NOW).is_empty());
        assert!(state.fault.take().unwrap().starts_with("is older than the one in use (CN=root, number 05"));
        state.lists = vec![Arc::clone(&newer)];
        assert_eq!(state.evaluate(NOW).len(), 1);
        assert_eq!((kept(&state, &ca), &state.fault), (vec![part, newer], &None));
        // After its end it stays, and is a fault.
        assert!(state.evaluate(NOW + 2.hours()).is_empty());
        assert!(state.fault.as_ref().unwrap().starts_with("has expired at"));
        assert_eq!(kept(&state, &ca).len(), 2);
    }

    #[test]
    fn what_is_kept_has_a_limit_and_goes_with_the_last_volume_of_its_ca() {
        let ca = Ca::new("root");
        let lists: Vec<_> = (0..=MAX_SCOPES).map(|point| ca.list(1, Some(point))).collect();
        let mut state = state(&[&ca], &lists.iter().collect::<Vec<_>>());
        assert_eq!(state.evaluate(NOW).len(), MAX_SCOPES);
        assert!(state.fault.is_some());
        drop(ca);
        assert!(state.evaluate(NOW).is_empty());
        assert!(state.kept.is_empty() && state.signers.is_empty() && state.fault.is_none());
    }

    #[test]
    fn each_signature_is_verified_once() {
        let (ca, stranger) = (Ca::new("root"), Ca::new("root"));
        let mut state = state(&[&ca], &[&stranger.list(1, None)]);
        state.evaluate(NOW);
        assert!(state.fault.as_ref().unwrap().contains("the signature does not verify"));
        assert_eq!(state.refused.len(), 1);
        state.evaluate(NOW);
        assert_eq!(state.refused.len(), 1);
    }
}
