//! The spec of a valid volume.

use super::*;
use crate::model::{Layout, PemFiles, SignerSpec};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

fn fields(attributes: &CertificateSpec) -> &SubjectFields {
    match &attributes.subject {
        Subject::Fields(fields) => fields,
        Subject::Literal(literal) => panic!("literal subject {literal}"),
    }
}

#[test]
fn the_certlet_prefix_defaults_to_ecdsa_pkcs8_and_a_day() {
    let attributes = certlet(&[]).unwrap();
    assert_eq!(attributes.dialect, Dialect::Certlet);
    assert_eq!(attributes.duration, Duration::from_hours(24));
    let expected = KeySpec { algorithm: KeyAlgorithm::EcdsaP256, encoding: KeyEncoding::Pkcs8, reuse: false };
    assert_eq!(attributes.key, expected);
}

#[test]
fn the_cert_manager_prefix_defaults_to_rsa_pkcs1_and_ninety_days() {
    let attributes = cert_manager(&[]).unwrap();
    assert_eq!(attributes.dialect, Dialect::CertManager);
    assert_eq!(attributes.duration, Duration::from_hours(2160));
    let expected = KeySpec { algorithm: KeyAlgorithm::Rsa(2048), encoding: KeyEncoding::Pkcs1, reuse: false };
    assert_eq!(attributes.key, expected);
}

#[test]
fn both_prefixes_share_the_other_defaults() {
    for attributes in [certlet(&[]).unwrap(), cert_manager(&[]).unwrap()] {
        let issuer = IssuerRef { name: "ca".into(), kind: "Issuer".into(), group: "cert-manager.io".into() };
        let usage_words = vec!["digital signature".to_owned(), "key encipherment".to_owned()];
        let signer =
            SignerSpec::CertManager { issuer: Some(issuer), usage_words, annotations: BTreeMap::new() };
        assert_eq!(attributes.signer, signer);
        assert_eq!(attributes.subject, Subject::Fields(SubjectFields::default()));
        assert!(attributes.sans.is_empty());
        assert!(!attributes.is_ca);
        assert_eq!(attributes.usages, [Usage::DigitalSignature, Usage::KeyEncipherment]);
        let files = PemFiles {
            certificate: "tls.crt".into(),
            private_key: "tls.key".into(),
            ca: Some("ca.crt".into()),
        };
        assert_eq!(attributes.files.layout, Layout::Default(files));
        assert!(attributes.files.combined.is_none() && attributes.files.pkcs12.is_none());
        assert_eq!((attributes.fs_group, attributes.renew_before), (None, None));
    }
}

#[test]
fn an_empty_value_is_the_same_as_none() {
    let empty: Vec<_> = rows::TABLE
        .iter()
        .filter(|row| row.belongs_to(Dialect::CertManager) && row.name != "issuer-name")
        .map(|row| (row.name, ""))
        .collect();
    for prefix in ["csi.cert-manager.io", "csi.certlet.io"] {
        let mut attributes = vec![("issuer-name", "ca")];
        attributes.extend(&empty);
        let parsed = with_prefix(prefix, &attributes).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", with_prefix(prefix, &[]).unwrap()));
    }
}

#[test]
fn every_attribute_gets_into_the_spec() {
    let attributes = certlet(&[
        ("issuer-name", "ca.internal"),
        ("issuer-kind", "ClusterIssuer"),
        ("issuer-group", "example.com"),
        ("common-name", "${SERVICE_ACCOUNT_NAME}.${POD_NAMESPACE}"),
        ("dns-names", "$POD_NAME.cart, \n*.shop"),
        ("uri-sans", "https://td/ns/${POD_NAMESPACE}, \"https://a/b,c\""),
        ("ip-sans", "10.0.0.1,::ffff:10.0.0.2"),
        ("organizations", r#""Fruit, Sons", Other"#),
        ("organizationalunits", "a,b"),
        ("countries", "DE"),
        ("provinces", "HE"),
        ("localities", "Fulda"),
        ("streetaddresses", "Weg 1"),
        ("postalcodes", "36037"),
        ("serialnumber", "${POD_UID}"),
        ("duration", "1h30m"),
        ("renew-before", "2h"),
        ("is-ca", "true"),
        ("key-usages", "signing, digital signature, s/mime, any"),
        ("reuse-private-key", "true"),
        ("fs-group", "2000"),
        ("owner", "1000"),
        ("email-sans", "${POD_NAME}@example.org"),
    ])
    .unwrap();
    let SignerSpec::CertManager { issuer: Some(issuer), .. } = &attributes.signer else {
        panic!("another signer")
    };
    assert_eq!(
        (&*issuer.name, &*issuer.kind, &*issuer.group),
        ("ca.internal", "ClusterIssuer", "example.com")
    );
    let expected = SubjectFields {
        common_name: Some("cart.shop".into()),
        organizations: vec!["Fruit, Sons".into(), "Other".into()],
        organizational_units: vec!["a".into(), "b".into()],
        countries: vec!["DE".into()],
        provinces: vec!["HE".into()],
        localities: vec!["Fulda".into()],
        street_addresses: vec!["Weg 1".into()],
        postal_codes: vec!["36037".into()],
        serial_number: Some("b8f1".into()),
    };
    assert_eq!(*fields(&attributes), expected);
    assert_eq!(attributes.sans.dns_names, ["cart-0.cart", "*.shop"]);
    assert_eq!(attributes.sans.uris, ["https://td/ns/shop", "https://a/b,c"]);
    assert_eq!(attributes.sans.ip_addresses, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
    assert_eq!(attributes.duration, Duration::from_mins(90));
    assert_eq!(attributes.renew_before, Some(Duration::from_hours(2)), "kept though it is over the lifetime");
    assert_eq!(attributes.usages, [Usage::DigitalSignature, Usage::EmailProtection, Usage::Any]);
    assert!(attributes.is_ca && attributes.key.reuse);
    assert_eq!((attributes.owner, attributes.fs_group), (Some(1000), Some(2000)));
    assert_eq!(attributes.sans.emails, ["cart-0@example.org"]);
}

#[test]
fn every_key_algorithm_size_and_encoding_is_understood_in_any_case() {
    use KeyAlgorithm as A;
    use KeyEncoding::{Pkcs1, Pkcs8};
    for (algorithm, size, encoding, expected) in [
        ("rsa", "", "", (A::Rsa(2048), Pkcs1)),
        ("RSA", "3072", "pkcs8", (A::Rsa(3072), Pkcs8)),
        ("Rsa", "4096", "PKCS1", (A::Rsa(4096), Pkcs1)),
        ("ECDSA", "", "", (A::EcdsaP256, Pkcs8)),
        ("ecdsa", "384", "Pkcs8", (A::EcdsaP384, Pkcs8)),
        ("ecdsa", "521", "", (A::EcdsaP521, Pkcs8)),
        ("ed25519", "", "", (A::Ed25519, Pkcs8)),
    ] {
        let asked = [("key-algorithm", algorithm), ("key-size", size), ("key-encoding", encoding)];
        let key = cert_manager(&asked).unwrap().key;
        assert_eq!((key.algorithm, key.encoding), expected, "{algorithm} {size} {encoding}");
    }
    let rsa = certlet(&[("key-algorithm", "RSA")]).unwrap().key;
    assert_eq!(
        (rsa.algorithm, rsa.encoding),
        (A::Rsa(2048), Pkcs8),
        "certlet's own prefix never defaults to PKCS#1"
    );
}

#[test]
fn a_volume_that_an_earlier_build_accepted_is_served_after_an_upgrade() {
    let long = "a".repeat(200);
    let attributes = [
        ("issuer-name", "ca"),
        ("dns-names", "10.1.2.3,web"),
        ("uri-sans", "spiffe://Example.org/a,https://b/c"),
        ("organizations", long.as_str()),
        ("countries", "Germany"),
        ("pkcs12-enable", "true"),
        ("pkcs12-password", "p\u{e4}ss\n"),
    ];
    let raw = attributes
        .iter()
        .map(|(name, value)| (format!("csi.certlet.io/{name}"), (*value).to_owned()))
        .collect();
    assert_eq!(
        crate::attributes::parse(&raw, &pod(), &OperatorDefaults::default()).unwrap_err().first().len(),
        5
    );
    let spec = crate::attributes::parse_stored(&raw, &pod(), &OperatorDefaults::default(), None).unwrap();
    assert_eq!(spec.sans.dns_names, ["10.1.2.3", "web"]);
    assert_eq!(spec.sans.uris, ["spiffe://Example.org/a", "https://b/c"]);
    assert!(!spec.doubts.is_empty() && !format!("{spec:?}").contains("p\u{e4}"));
}

#[test]
fn a_stored_list_of_a_peers_volume_is_read_as_it_was_published() {
    let stored = |attributes: &[(&str, &str)]| {
        let mut raw: Vec<_> = attributes
            .iter()
            .map(|(name, value)| (format!("csi.cert-manager.io/{name}"), (*value).to_owned()))
            .collect();
        raw.push(("csi.cert-manager.io/issuer-name".into(), "ca".into()));
        crate::attributes::parse_stored(
            &raw.into_iter().collect(),
            &pod(),
            &OperatorDefaults::default(),
            None,
        )
    };
    let of_an_earlier_build = [
        ("dns-names", "\"cart\",\n\"cart.shop\"\n"),
        ("ip-sans", "\"10.0.0.1\", 10.0.0.2"),
        ("uri-sans", "\"https://a/b,c\",\nhttps://d\n"),
        ("organizations", "Acme,\n \"Fruit, Sons\" "),
        ("key-usages", "\"server auth\",client auth"),
    ];
    let refused = cert_manager(&of_an_earlier_build).unwrap_err();
    let refused: std::collections::BTreeSet<_> = refused
        .first()
        .iter()
        .map(|fault| fault.attribute().trim_start_matches("csi.cert-manager.io/"))
        .collect();
    // Quotes in DNS names are served, as parts of the names.
    assert_eq!(
        refused.into_iter().collect::<Vec<_>>(),
        ["ip-sans", "key-usages", "organizations", "uri-sans"]
    );
    let spec = stored(&of_an_earlier_build).unwrap();
    assert_eq!(spec.sans.dns_names, ["cart", "cart.shop"]);
    assert_eq!(spec.sans.ip_addresses, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
    assert_eq!(spec.sans.uris, ["https://a/b,c", "https://d"]);
    assert_eq!(fields(&spec).organizations, ["Acme", "Fruit, Sons"]);
    assert_eq!(spec.usages, [Usage::ServerAuth, Usage::ClientAuth]);

    let of_this_build =
        [("dns-names", "a,,b\"c"), ("organizations", "\"Acme, Inc.\", Foo,"), ("localities", " x ")];
    let (published, stored) = (cert_manager(&of_this_build).unwrap(), stored(&of_this_build).unwrap());
    assert_eq!((&stored.subject, &stored.sans), (&published.subject, &published.sans));
    assert_eq!(fields(&stored).organizations, ["Acme, Inc.", " Foo"]);
}

#[test]
fn the_keystore_needs_a_password_and_has_a_default_name() {
    let attributes = certlet(&[("pkcs12-enable", "true"), ("pkcs12-password", " p w ")]).unwrap();
    let keystore = attributes.files.pkcs12.clone().unwrap();
    assert_eq!(keystore.file, "keystore.p12");
    let Some(KeystorePassword::Given(password)) = &attributes.files.password else { panic!("a password") };
    assert_eq!(password.expose_secret(), " p w ");
    assert!(!format!("{attributes:?}").contains("p w"));
    assert!(certlet(&[("pkcs12-enable", "false")]).unwrap().files.pkcs12.is_none());
    assert!(certlet(&[("pkcs12-enable", "false"), ("pkcs12-password", "x")]).unwrap().files.pkcs12.is_none());
    assert!(
        certlet(&[("pkcs12-enable", "false"), ("pkcs12-filename", "tls.crt")]).is_ok(),
        "it is not written"
    );
}

#[test]
fn a_literal_subject_is_expanded_checked_and_kept_in_order() {
    let attributes = cert_manager(&[("literal-subject", "cn=${POD_NAME}, OU=b, O=c")]).unwrap();
    assert_eq!(attributes.subject, Subject::Literal("CN=cart-0,OU=b,O=c".parse().unwrap()));
}

#[test]
fn other_groups_become_annotations_with_the_cert_manager_prefix_only() {
    let theirs = [("csi.cert-manager.io/issuer-name", "ca"), ("example.com/team", "${shop}")];
    let attributes = parse(&theirs).unwrap();
    let SignerSpec::CertManager { annotations, .. } = &attributes.signer else { panic!("another signer") };
    assert_eq!(annotations.get("example.com/team").map(String::as_str), Some("${shop}"));
    let errors = parse(&[("csi.certlet.io/issuer-name", "ca"), ("example.com/team", "shop")]).unwrap_err();
    assert!(errors.to_string().starts_with("example.com/team: "), "{errors}");
}

#[test]
fn the_local_signer_needs_no_issuer_and_private_ca_needs_its_arn() {
    let local = certlet(&[("signer", "local")]).unwrap();
    assert_eq!(local.signer, SignerSpec::Local);
    let authority = "arn:aws-us-gov:acm-pca:us-gov-west-1:123456789012:certificate-authority/\
                     11111111-2222-3333-4444-555555555555";
    let attributes = certlet(&[
        ("signer", "acm-pca"),
        ("certificate-authority-arn", authority),
        ("signing-algorithm", "SHA384WITHECDSA"),
        ("template-arn", "arn:aws-us-gov:acm-pca:::template/EndEntityServerAuthCertificate/V1"),
        ("role-arn", "arn:aws-us-gov:iam::123456789012:role/pca"),
    ])
    .unwrap();
    let pca = attributes.signer.acm_pca().unwrap();
    assert_eq!(pca.certificate_authority_arn.as_str(), authority);
    assert_eq!(pca.signing_algorithm.as_deref(), Some("SHA384WITHECDSA"));
    assert!(pca.template_arn.is_some() && pca.caller.role().is_some());
}

#[test]
fn a_combined_file_is_written_on_request() {
    assert_eq!(certlet(&[("combined-file", "all.pem")]).unwrap().files.combined.as_deref(), Some("all.pem"));
    assert_eq!(certlet(&[("crl-file", "ca.crl")]).unwrap().files.crl.as_deref(), Some("ca.crl"));
}

#[test]
fn a_password_under_a_mistyped_name_is_no_annotation_and_is_not_kept() {
    let key = "csi.cert-manger.io/pkcs12-password";
    let spec = parse(&[("csi.cert-manager.io/issuer-name", "ca"), (key, "hunter2")]).unwrap();
    let SignerSpec::CertManager { annotations, .. } = &spec.signer else { panic!("another signer") };
    assert!(annotations.is_empty(), "{:?}", annotations.keys());

    let kubelet = [
        ("csi.storage.k8s.io/pod.name", "cart-0"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "b8f1"),
        ("csi.storage.k8s.io/serviceAccount.name", "cart"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ];
    let given = [("csi.cert-manager.io/issuer-name", "ca"), (key, "hunter2")];
    let context = kubelet.iter().chain(&given).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let context =
        VolumeContext::parse(context.collect(), std::collections::HashMap::new(), Dialect::Certlet).unwrap();
    assert_eq!(context.mistyped_passwords, [key]);
    // What a record is made of.
    assert!(!serde_json::to_string(&context.raw).unwrap().contains("hunter2"));
}
