//! The CAs that each signer has issued with, to notice a new one.

use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};

/// Maximum number of signers. For one more, all are forgotten: then a CA may be taken for new once more.
const MAX_SIGNERS: usize = 1024;
/// Maximum number of CAs of one signer. Such a signer changes between many, and none of them is new.
const MAX_CAS: usize = 16;

/// The CAs that were seen, by signer.
#[derive(Debug, Default)]
pub(super) struct IssuingCas(Mutex<HashMap<String, BTreeSet<String>>>);

impl IssuingCas {
    /// Whether it is known of the signer that it has issued with `ca`.
    pub(super) fn has_seen(&self, signer: &str, ca: &str) -> bool {
        self.0.lock().get(signer).is_some_and(|seen| seen.contains(ca))
    }

    /// Whether `ca` is the first certificate's of its signer on this node, while there are certificates of another one. `known` are
    /// the CAs of the signer's certificates in use. A signer that changes between CAs has a new one only once.
    pub(super) fn is_new<'c>(&self, signer: &str, ca: &str, known: impl Iterator<Item = &'c str>) -> bool {
        let mut signers = self.0.lock();
        if signers.len() >= MAX_SIGNERS && !signers.contains_key(signer) {
            signers.clear();
        }
        let seen = signers.entry(signer.to_owned()).or_default();
        for known in known {
            if seen.len() < MAX_CAS && !seen.contains(known) {
                seen.insert(known.to_owned());
            }
        }
        let has_others = !seen.is_empty();
        let is_new = seen.len() < MAX_CAS && seen.insert(ca.to_owned());
        is_new && has_others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_is_new_once_and_only_beside_another_one() {
        let cas = IssuingCas::default();
        assert!(!cas.has_seen("issuer", "a"));
        assert!(!cas.is_new("issuer", "a", std::iter::empty()), "the first of all");
        assert!(cas.has_seen("issuer", "a") && !cas.has_seen("issuer", "b") && !cas.has_seen("other", "a"));
        assert!(!cas.is_new("issuer", "a", ["a"].into_iter()));
        assert!(cas.is_new("issuer", "b", ["a"].into_iter()));
        assert!(!cas.is_new("issuer", "a", ["b"].into_iter()), "back again");
        assert!(!cas.is_new("issuer", "b", ["a"].into_iter()));
        assert!(!cas.is_new("other", "b", std::iter::empty()));
        // After a restart the certificates in use say what was seen.
        assert!(!IssuingCas::default().is_new("issuer", "b", ["a", "b"].into_iter()));
    }

    #[test]
    fn a_signer_with_many_cas_and_many_signers_are_bounded() {
        let cas = IssuingCas::default();
        for number in 0..100 {
            let _is_new = cas.is_new("issuer", &number.to_string(), std::iter::empty());
        }
        assert_eq!(cas.0.lock()["issuer"].len(), MAX_CAS);
        assert!(!cas.is_new("issuer", "one more", std::iter::empty()));
        for number in 0..2 * MAX_SIGNERS {
            let _is_new = cas.is_new(&number.to_string(), "a", std::iter::empty());
        }
        assert!(cas.0.lock().len() <= MAX_SIGNERS);
    }
}
