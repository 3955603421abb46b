//! `spiffe`, X.509-SVIDs, and what the operator's flags give.

use super::*;
use crate::attributes::{SPIFFE_ID_TEMPLATE, SpiffeIds};
use crate::model::{
    CertificateFacts, Layout, LayoutKind, OperatorIssuer, RawAttributes, SecretNames, SignerSpec,
    SubjectAltNames,
};
use jiff::Timestamp;
use std::time::Duration;

const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

fn defaults() -> OperatorDefaults {
    let issuer =
        IssuerRef { name: "platform".into(), kind: "ClusterIssuer".into(), group: "cert-manager.io".into() };
    OperatorDefaults {
        spiffe_ids: Some(SpiffeIds::new("example.org", SPIFFE_ID_TEMPLATE).unwrap()),
        issuer: OperatorIssuer::new(Some(issuer), None),
        secret_names: SecretNames { certificate: "svid".into(), ..SecretNames::default() },
        ..OperatorDefaults::default()
    }
}

fn raw(attributes: &[(&str, &str)]) -> RawAttributes {
    attributes.iter().map(|(name, value)| (format!("csi.certlet.io/{name}"), (*value).to_owned())).collect()
}

fn with_defaults(attributes: &[(&str, &str)]) -> Result<CertificateSpec, AttributeErrors> {
    crate::attributes::parse(&raw(attributes), &pod(), &defaults())
}

#[test]
fn spiffe_asks_for_the_pods_id_as_every_mesh_has_it() {
    let spec = with_defaults(&[("spiffe", "true")]).unwrap();
    assert!(spec.is_spiffe && !spec.is_ca);
    assert_eq!(spec.subject, Subject::Fields(SubjectFields::default()));
    assert_eq!(spec.sans, SubjectAltNames { uris: vec![ID.into()], ..SubjectAltNames::default() });
    let usages = [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth];
    assert_eq!(spec.usages, usages);
    let SignerSpec::CertManager { issuer, usage_words, .. } = &spec.signer else {
        panic!("{:?}", spec.signer)
    };
    assert_eq!(usage_words, &["digital signature", "key encipherment", "server auth", "client auth"]);
    assert_eq!(*issuer, None, "the operator's");
    assert_eq!((spec.key.algorithm, spec.duration), (KeyAlgorithm::EcdsaP256, Duration::from_hours(1)));
}

#[test]
fn key_duration_and_renewal_of_a_spiffe_volume_are_the_authors() {
    let attributes = [
        ("spiffe", "true"),
        ("key-algorithm", "RSA"),
        ("key-size", "3072"),
        ("duration", "6h"),
        ("renew-before", "1h"),
    ];
    let spec = with_defaults(&attributes).unwrap();
    assert_eq!((spec.key.algorithm, spec.duration), (KeyAlgorithm::Rsa(3072), Duration::from_hours(6)));
    assert_eq!(spec.renew_before, Some(Duration::from_hours(1)));
}

#[test]
fn spiffe_excludes_everything_that_it_decides() {
    let others = [
        ("common-name", "web"),
        ("organizations", "a"),
        ("organizationalunits", "a"),
        ("countries", "DE"),
        ("provinces", "a"),
        ("localities", "a"),
        ("streetaddresses", "a"),
        ("postalcodes", "1"),
        ("serialnumber", "1"),
        ("literal-subject", "CN=a"),
        ("dns-names", "a"),
        ("ip-sans", "10.0.0.1"),
        ("uri-sans", ID),
        ("email-sans", "a@b"),
        ("is-ca", "false"),
        ("key-usages", "digital signature"),
    ];
    for other in others {
        let message = with_defaults(&[("spiffe", "true"), other]).unwrap_err().to_string();
        let beginning = format!("csi.certlet.io/{}: cannot be combined with spiffe: \"true\", ", other.0);
        assert!(
            message.starts_with(&beginning) && message.ends_with("; accepted: only one of the two"),
            "{message}"
        );
        let without = with_defaults(&[("spiffe", "false"), other]);
        assert!(without.is_ok(), "{other:?}: {without:?}");
    }
}

#[test]
fn without_a_trust_domain_the_error_names_the_flag() {
    assert_eq!(
        certlet(&[("spiffe", "true")]).unwrap_err().to_string(),
        "csi.certlet.io/spiffe: \"true\" needs a trust domain, and the driver runs without --trust-domain; accepted: `true` or \
         `false`; `true` only if the driver has a `--trust-domain`"
    );
}

#[test]
fn a_stored_volume_follows_the_operators_trust_domain_and_keeps_its_id_without_one() {
    let facts = CertificateFacts {
        serial: "1".into(),
        subject: String::new(),
        sans: vec!["URI:spiffe://old.example/ns/shop/sa/cart".into()],
        not_before: Timestamp::UNIX_EPOCH,
        not_after: Timestamp::UNIX_EPOCH,
    };
    let stored = |defaults: &OperatorDefaults, in_use| {
        let raw = raw(&[("signer", "local"), ("spiffe", "true")]);
        crate::attributes::parse_stored(&raw, &pod(), defaults, in_use).map(|spec| spec.sans.uris)
    };
    assert_eq!(stored(&defaults(), Some(&facts)).unwrap(), [ID]);
    let none = OperatorDefaults::default();
    assert_eq!(stored(&none, Some(&facts)).unwrap(), ["spiffe://old.example/ns/shop/sa/cart"]);
    assert!(stored(&none, None).unwrap_err().to_string().contains("--trust-domain"));
}

#[test]
fn the_default_issuer_is_for_volumes_that_name_nothing_of_one() {
    let issuer = |attributes: &[(&str, &str)]| match with_defaults(attributes).unwrap().signer {
        SignerSpec::CertManager { issuer, .. } => issuer,
        other => panic!("{other:?}"),
    };
    assert_eq!(issuer(&[("dns-names", "a")]), None);
    let own = IssuerRef { name: "ca".into(), kind: "Issuer".into(), group: "cert-manager.io".into() };
    assert_eq!(issuer(&[("issuer-name", "ca")]), Some(own));
    for part in [("issuer-kind", "Issuer"), ("issuer-group", "example.com")] {
        let message = with_defaults(&[part]).unwrap_err().to_string();
        assert!(message.starts_with("csi.certlet.io/issuer-name: is required"), "{message}");
    }
    assert_eq!(with_defaults(&[("signer", "local")]).unwrap().signer, SignerSpec::Local);
    let theirs = [("csi.cert-manager.io/dns-names".to_owned(), "a".to_owned())].into_iter().collect();
    let message = crate::attributes::parse(&theirs, &pod(), &defaults()).unwrap_err().to_string();
    assert!(message.starts_with("csi.cert-manager.io/issuer-name: is required"), "{message}");
}

#[test]
fn a_spiffe_id_has_a_path_unless_it_is_a_cas() {
    for id in spiffe_ids::workloads() {
        let quoted = format!("\"{id}\"");
        assert_eq!(certlet(&[("uri-sans", &quoted)]).unwrap().sans.uris, [id.as_str()]);
        let message = certlet(&[("uri-sans", &quoted), ("is-ca", "true")]).unwrap_err().to_string();
        assert!(
            message.starts_with("csi.certlet.io/uri-sans: \"spiffe://")
                && message.contains("has a path, but is-ca is true"),
            "{message}"
        );
    }
    for id in spiffe_ids::trust_domains() {
        certlet(&[("uri-sans", &id), ("is-ca", "true")]).unwrap();
        let message = certlet(&[("uri-sans", &id)]).unwrap_err().to_string();
        assert!(message.starts_with(&format!("csi.certlet.io/uri-sans: {id:?} has no path")), "{message}");
        assert!(message.contains("; accepted: "), "{message}");
    }
    // Other URIs and the peer's prefix are free.
    certlet(&[("uri-sans", "https://example.org, urn:a:b")]).unwrap();
    cert_manager(&[("uri-sans", "spiffe://example.org"), ("key-usages", "crl sign")]).unwrap();
}

#[test]
fn the_usages_of_an_x509_svid_are_those_that_verifiers_accept() {
    for (usages, problem) in [
        ("server auth, client auth", "lacks `digital signature`"),
        ("key encipherment", "lacks `digital signature`"),
        ("digital signature, cert sign", "has `cert sign`"),
        ("signing, crl sign", "has `crl sign`"),
    ] {
        let message = certlet(&[("uri-sans", ID), ("key-usages", usages)]).unwrap_err().to_string();
        let beginning = format!(
            "csi.certlet.io/key-usages: {usages:?} {problem}, which a certificate with a SPIFFE ID must "
        );
        assert!(message.starts_with(&beginning) && message.contains("; accepted: "), "{message}");
        certlet(&[("dns-names", "a"), ("key-usages", usages)]).unwrap();
        certlet(&[("uri-sans", "spiffe://example.org"), ("is-ca", "true"), ("key-usages", usages)]).unwrap();
    }
    certlet(&[("uri-sans", ID), ("key-usages", "signing")]).unwrap();
}

#[test]
fn a_stored_volume_that_is_no_x509_svid_is_served() {
    let raw = raw(&[("signer", "local"), ("uri-sans", "spiffe://example.org"), ("key-usages", "cert sign")]);
    crate::attributes::parse(&raw, &pod(), &OperatorDefaults::default()).unwrap_err();
    crate::attributes::parse_stored(&raw, &pod(), &OperatorDefaults::default(), None).unwrap();
}

#[test]
fn a_layout_excludes_the_names_that_it_gives() {
    for kind in LayoutKind::ALL {
        let spec = with_defaults(&[("spiffe", "true"), ("layout", kind.as_str())]).unwrap();
        assert_eq!(spec.files.layout.kind(), *kind);
        for name in ["certificate-file", "privatekey-file", "ca-file"] {
            let named = with_defaults(&[("spiffe", "true"), ("layout", kind.as_str()), (name, "a.pem")]);
            if *kind == LayoutKind::Default {
                named.unwrap();
                continue;
            }
            let message = named.unwrap_err().to_string();
            let expected = format!(
                "csi.certlet.io/{name}: cannot be combined with layout: {kind}, which names the files; accepted: "
            );
            assert!(message.starts_with(&expected), "{message}");
        }
        let socket_only =
            [("spiffe", "true"), ("socket-file", "s"), ("files", "false"), ("layout", kind.as_str())];
        assert!(
            with_defaults(&socket_only)
                .unwrap_err()
                .to_string()
                .starts_with("csi.certlet.io/layout: names a file")
        );
    }
    let envoy = with_defaults(&[("layout", "envoy")]).unwrap().files.layout;
    assert_eq!(envoy, Layout::Envoy(defaults().secret_names));
}

#[test]
fn no_other_file_has_a_name_of_the_layout() {
    for (layout, name) in [
        ("istio", "cert-chain.pem"),
        ("istio", "key.pem"),
        ("istio", "root-cert.pem"),
        ("spiffe", "credential-bundle.private-key.x509.pem"),
        ("spiffe", "hints.json"),
        ("spiffe", "other.org.spiffe-trust-bundle.x509.pem"),
        ("envoy", "default.yaml"),
        ("envoy", "ROOTCA.yaml"),
    ] {
        for attribute in ["combined-file", "socket-file", "truststore-file"] {
            let message = with_defaults(&[("spiffe", "true"), ("layout", layout), (attribute, name)])
                .unwrap_err()
                .to_string();
            let expected = format!(
                "csi.certlet.io/{attribute}: {name:?} is also the name of a file of csi.certlet.io/layout; accepted: "
            );
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}

#[test]
fn the_layout_spiffe_needs_an_id_and_a_pkcs8_key() {
    let message = certlet(&[("layout", "spiffe"), ("dns-names", "a")]).unwrap_err().to_string();
    assert!(message.starts_with("csi.certlet.io/layout: \"spiffe\" needs a SPIFFE ID"), "{message}");
    certlet(&[("layout", "spiffe"), ("uri-sans", ID), ("key-encoding", "pkcs8")]).unwrap();
    let pkcs1 = [("layout", "spiffe"), ("uri-sans", ID), ("key-algorithm", "RSA"), ("key-encoding", "pkcs1")];
    let message = certlet(&pkcs1).unwrap_err().to_string();
    assert!(
        message.starts_with("csi.certlet.io/key-encoding: \"pkcs1\" does not fit the layout spiffe"),
        "{message}"
    );
}
