//! Volumes of csi-driver-spiffe.

use super::*;
use crate::attributes::{OptionalAttribute, SPIFFE_ID_TEMPLATE, SpiffeIds, SvidDefaults};
use crate::model::{KeyEncoding, OperatorIssuer, RawAttributes, SignerSpec, SubjectAltNames};
use std::time::Duration;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn defaults(allowed: &[OptionalAttribute]) -> OperatorDefaults {
    let issuer =
        IssuerRef { name: "spiffe".into(), kind: "ClusterIssuer".into(), group: "cert-manager.io".into() };
    OperatorDefaults {
        dialect: Dialect::CsiDriverSpiffe,
        spiffe_ids: Some(SpiffeIds::new("cluster.local", SPIFFE_ID_TEMPLATE).unwrap()),
        issuer: OperatorIssuer::new(Some(issuer), None),
        svid: SvidDefaults {
            duration: Duration::from_mins(90),
            annotations: [("example.org/team".to_owned(), "shop".to_owned())].into(),
            attributes: allowed.iter().copied().collect(),
            ..SvidDefaults::default()
        },
        ..OperatorDefaults::default()
    }
}

fn raw(attributes: &[(&str, &str)]) -> RawAttributes {
    attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A volume under the driver's name, with keys as written.
fn volume(attributes: &[(&str, &str)], allowed: &[OptionalAttribute]) -> Result<CertificateSpec, String> {
    crate::attributes::parse(&raw(attributes), &pod(), &defaults(allowed))
        .map_err(|faults| faults.to_string())
}

#[test]
fn a_volume_without_attributes_has_the_pods_id_and_what_the_flags_say() {
    let spec = volume(&[], &[]).unwrap();
    assert_eq!(spec.dialect, Dialect::CsiDriverSpiffe);
    assert!(spec.is_spiffe && !spec.is_ca && spec.doubts.is_empty());
    assert_eq!(spec.subject, Subject::Fields(SubjectFields::default()));
    assert_eq!(spec.sans, SubjectAltNames { uris: vec![ID.into()], ..SubjectAltNames::default() });
    assert_eq!((spec.duration, spec.renew_before, spec.fs_group), (Duration::from_mins(90), None, None));
    let key = KeySpec { algorithm: KeyAlgorithm::EcdsaP256, encoding: KeyEncoding::Pkcs8, reuse: false };
    assert_eq!(spec.key, key);
    assert_eq!(spec.files.layout.ca_file(), None);
    let words = ["digital signature", "key encipherment", "server auth", "client auth"].map(str::to_owned);
    let annotations = [("example.org/team".to_owned(), "shop".to_owned())].into();
    assert_eq!(spec.signer, SignerSpec::CertManager { issuer: None, usage_words: words.into(), annotations });
}

#[test]
fn fs_group_is_from_one_to_the_highest_number_of_32_bits() {
    let group = |value: &str| volume(&[("spiffe.csi.cert-manager.io/fs-group", value)], &[]);
    assert_eq!(group("1").unwrap().fs_group, Some(1));
    assert_eq!(group("4294967294").unwrap().fs_group, Some(u32::MAX - 1));
    // chown(2) takes it as "no change".
    let highest = group("4294967295").unwrap();
    assert!(highest.fs_group.is_none() && !highest.doubts.is_empty());
    assert_eq!(group("").unwrap().fs_group, None);
    for odd in ["0", "-1", "4294967296", "staff", "1 "] {
        let refused = group(odd).unwrap_err();
        assert!(refused.starts_with("spiffe.csi.cert-manager.io/fs-group: "), "{refused}");
    }
}

#[test]
fn what_that_driver_ignores_is_ignored_with_a_warning() {
    for (key, warning) in [
        ("frobnicate", "has no prefix, and is ignored"),
        ("example.org/team", "this driver has no attributes of that prefix"),
        ("csi.cert-manager.io/issuer-name", "this driver has no attributes of that prefix"),
        ("not a key/at all", "this driver has no attributes of that prefix"),
        ("spiffe.csi.cert-manager.io/issuer-name", "is not a known attribute, and is ignored"),
        (
            "spiffe.csi.cert-manager.io/duration",
            "is ignored unless the operator allows it: --spiffe-attributes=duration",
        ),
        ("spiffe.csi.cert-manager.io/renew-before", "--spiffe-attributes=renew-before"),
        ("spiffe.csi.cert-manager.io/dns-names", "--spiffe-attributes=dns-names"),
    ] {
        let spec = volume(&[(key, "2h")], &[]).unwrap();
        let doubts = spec.doubts.to_string();
        assert!(doubts.contains(warning), "{key}: {doubts}");
        let plain = volume(&[], &[]).unwrap();
        assert_eq!((spec.signer, spec.sans, spec.duration), (plain.signer, plain.sans, plain.duration));
    }
}

#[test]
fn attributes_that_the_operator_allows_are_read() {
    let asked = [
        ("spiffe.csi.cert-manager.io/duration", "6h"),
        ("spiffe.csi.cert-manager.io/renew-before", "1h"),
        ("spiffe.csi.cert-manager.io/dns-names", "web.${POD_NAMESPACE}.svc, web.shop"),
    ];
    let spec = volume(&asked, OptionalAttribute::ALL).unwrap();
    assert!(spec.doubts.is_empty(), "{}", spec.doubts);
    assert_eq!((spec.duration, spec.renew_before), (Duration::from_hours(6), Some(Duration::from_hours(1))));
    assert_eq!(spec.sans.dns_names, ["web.shop.svc", "web.shop"]);
    assert_eq!(spec.sans.uris, [ID]);
    let refused =
        volume(&[("spiffe.csi.cert-manager.io/duration", "1d")], OptionalAttribute::ALL).unwrap_err();
    assert!(refused.starts_with("spiffe.csi.cert-manager.io/duration: \"1d\""), "{refused}");
}

#[test]
fn certlets_own_attributes_are_served_under_that_name_too_but_not_in_the_same_volume() {
    let own = [("csi.certlet.io/spiffe", "true"), ("csi.certlet.io/socket-file", "socket")];
    assert_eq!(volume(&own, &[]).unwrap().dialect, Dialect::Certlet);
    let both = [("csi.certlet.io/spiffe", "true"), ("spiffe.csi.cert-manager.io/fs-group", "1")];
    let refused = volume(&both, &[]).unwrap_err();
    assert!(refused.contains("csi.certlet.io/ or spiffe.csi.cert-manager.io/"), "{refused}");
}

#[test]
fn under_the_name_of_csi_driver_its_prefix_wins() {
    let attributes =
        [("csi.cert-manager.io/issuer-name", "ca"), ("spiffe.csi.cert-manager.io/identity", "x")];
    let spec = parse(&attributes).unwrap();
    assert_eq!(spec.dialect, Dialect::CertManager);
    let SignerSpec::CertManager { annotations, .. } = spec.signer else { panic!("an issuer") };
    assert_eq!(annotations["spiffe.csi.cert-manager.io/identity"], "x");
}

#[test]
fn under_certlets_name_the_prefix_needs_a_trust_domain() {
    let refused = parse(&[("spiffe.csi.cert-manager.io/fs-group", "1")]).unwrap_err().to_string();
    assert!(refused.contains("needs a trust domain") && refused.contains("--trust-domain"), "{refused}");
}

#[test]
fn a_password_under_a_mistyped_name_is_taken_out_of_a_volume_without_known_attributes() {
    let mut attributes = raw(&[("example.org/db-password", "hunter2"), ("example.org/team", "shop")]);
    let taken = crate::attributes::take_mistyped(&mut attributes, Dialect::CsiDriverSpiffe);
    assert_eq!(taken, ["example.org/db-password"]);
    assert_eq!(attributes.map().len(), 1);
}

#[test]
fn a_stored_volume_keeps_what_its_operator_no_longer_allows_out() {
    let attributes = raw(&[("spiffe.csi.cert-manager.io/duration", "6h")]);
    let spec = crate::attributes::parse_stored(&attributes, &pod(), &defaults(&[]), None).unwrap();
    assert_eq!(spec.duration, Duration::from_mins(90));
}
