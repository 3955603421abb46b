//! The trust domains of a credential with a SPIFFE ID, each with its own anchors. Pure.

use crate::credential::Current;
use crate::model::TrustDomain;

/// The SPIFFE ID of the trust domain of a SPIFFE ID.
pub(super) fn trust_domain_id(id: &str) -> &str {
    let name = id.strip_prefix("spiffe://").unwrap_or_default();
    let end = name.find('/').map_or(id.len(), |slash| slash + "spiffe://".len());
    &id[..end]
}

/// The name of the trust domain of a SPIFFE ID.
pub(super) fn trust_domain_name(id: &str) -> &str {
    trust_domain_id(id).trim_start_matches("spiffe://")
}

/// The federated trust domains with their anchors, in order. Without a SPIFFE ID there are none. The credential's own trust domain is
/// never among them: nobody but its own anchors speaks for it.
pub(super) fn federated(current: &Current) -> impl Iterator<Item = (&TrustDomain, &[Vec<u8>])> {
    let own = current.credential.facts.spiffe_id().map(trust_domain_name);
    let all = own.map(|own| current.trust.federated.iter().filter(move |(domain, _)| domain.as_str() != own));
    let with_anchors = all.into_iter().flatten().filter(|(_, anchors)| !anchors.is_empty());
    with_anchors.map(|(domain, anchors)| (domain, anchors.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trust_domain_is_a_spiffe_id_without_path() {
        assert_eq!(trust_domain_id("spiffe://example.org/ns/shop/sa/web"), "spiffe://example.org");
        assert_eq!(trust_domain_id("spiffe://example.org"), "spiffe://example.org");
        assert_eq!(trust_domain_name("spiffe://example.org/ns/shop/sa/web"), "example.org");
    }
}
