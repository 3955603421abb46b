//! Where chains lead.

use super::*;
use crate::x509::{lead, subject_of};

/// The anchor's index, the root's name and the hours until the first CA certificate ends.
fn led(hierarchy: &Hierarchy, anchors: &[&[u8]]) -> (Option<usize>, String, Option<i64>) {
    let leaf = hierarchy.leaf(&hierarchy.lower, |_| {});
    let intermediates = [&hierarchy.lower, &hierarchy.upper].map(|authority| authority.der.clone());
    let anchors: Vec<Vec<u8>> = anchors.iter().map(|anchor| anchor.to_vec()).collect();
    let found = lead(&leaf, &intermediates, &anchors).unwrap();
    (found.anchor, found.root, found.not_after.map(|end| end.duration_since(now()).as_hours()))
}

/// Another certificate of a CA.
fn reissued(authority: &Authority, issuer: &Authority, hours: i64) -> Vec<u8> {
    let template = Template {
        serial: &[9],
        issuer: &issuer.name,
        not_before: now(),
        not_after: now() + SignedDuration::from_hours(hours),
        subject: &authority.name,
        spki: authority.key.spki_der(),
        extensions: &[basic_constraints(true).unwrap()],
    };
    template.sign(&issuer.key).unwrap()
}

#[test]
fn a_chain_leads_to_the_highest_anchor_and_of_those_to_the_one_that_lasts_longest() {
    let hierarchy = hierarchy();
    let Hierarchy { root, upper, lower, other_root, .. } = &hierarchy;
    let at = |index, name: &str, hours| (Some(index), name.to_owned(), Some(hours));
    assert_eq!(led(&hierarchy, &[&other_root.der, &root.der]), at(1, "CN=root", 1000));
    assert_eq!(led(&hierarchy, &[&lower.der, &upper.der, &root.der]), at(2, "CN=root", 1000));
    assert_eq!(led(&hierarchy, &[&lower.der, &upper.der]), at(1, "CN=upper", 1000));
    assert_eq!(led(&hierarchy, &[&lower.der]), at(0, "CN=lower", 1000));
    let [ending, lasting] = [5, 2000].map(|hours| reissued(root, root, hours));
    assert_eq!(led(&hierarchy, &[&ending]), at(0, "CN=root", 5));
    assert_eq!(led(&hierarchy, &[&ending, &lasting]), at(1, "CN=root", 1000));
}

#[test]
fn without_an_anchor_the_root_is_the_issuer_that_the_chain_names() {
    let hierarchy = hierarchy();
    // The same name, another key.
    let impostor = authority("CN=root", KeyAlgorithm::EcdsaP384, None);
    for anchors in [&[][..], &[&hierarchy.other_root.der], &[&impostor.der]] {
        let anchors: Vec<&[u8]> = anchors.iter().map(|anchor| anchor.as_slice()).collect();
        assert_eq!(led(&hierarchy, &anchors), (None, "CN=root".to_owned(), Some(1000)));
    }
}

#[test]
fn issuing_cas_differ_by_name_and_the_same_ca_does_not() {
    let hierarchy = hierarchy();
    let ca = |issuer: &Authority| lead(&hierarchy.leaf(issuer, |_| {}), &[], &[]).unwrap().issuing_ca;
    assert_eq!(ca(&hierarchy.lower), ca(&hierarchy.lower));
    assert_ne!(ca(&hierarchy.lower), ca(&hierarchy.upper));
}

#[test]
fn what_is_no_certificate_has_no_subject() {
    assert_eq!(subject_of(&hierarchy().root.der), "CN=root");
    assert_eq!(subject_of(b"not one"), "");
}
