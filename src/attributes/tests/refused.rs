//! The error messages for invalid volumes.

#[path = "../../../tests/support/rejected.rs"]
#[allow(unreachable_pub, reason = "the integration tests include the file as well")]
mod rejected;

use super::*;
use std::collections::{BTreeSet, HashMap};

#[test]
fn a_password_is_never_in_a_message() {
    for attributes in [
        &[("pkcs12-password", "hunter2")][..],
        &[("pkcs12-pasword", "hunter2")],
        &[("pkcs12-enable", "maybe"), ("pkcs12-password", "hunter2")],
        &[("pkcs12-enable", "true"), ("pkcs12-filename", "/"), ("pkcs12-password", "hunter2")],
    ] {
        let errors = certlet(attributes).unwrap_err();
        assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors}");
    }
}

#[test]
fn a_volume_without_attributes_is_asked_for_issuer_or_signer() {
    assert_eq!(
        parse(&[]).unwrap_err().to_string(),
        "csi.certlet.io/issuer-name: is required; accepted: the name of a cert-manager issuer; or another signer in \
         csi.certlet.io/signer"
    );
}

#[test]
fn an_encoded_separator_in_a_uri_is_refused_under_our_prefix() {
    let uri = "spiffe://example.org/ns/a%2Fb";
    assert_eq!(
        certlet(&[("uri-sans", uri)]).unwrap_err().to_string().split("; accepted").next(),
        Some(
            format!("csi.certlet.io/uri-sans: {uri:?} has the encoded separator %2F (use a name without it)")
                .as_str()
        )
    );
    cert_manager(&[("uri-sans", uri)]).unwrap();
}

#[test]
fn mixing_the_prefixes_is_an_error() {
    let mixed = [("csi.cert-manager.io/issuer-name", "ca"), ("csi.certlet.io/duration", "1h")];
    assert_eq!(
        parse(&mixed).unwrap_err().to_string(),
        "csi.certlet.io/duration: is in the same volume as csi.cert-manager.io/issuer-name; accepted: one prefix for \
         the whole volume, csi.certlet.io/ or csi.cert-manager.io/"
    );
}

#[test]
fn an_unknown_attribute_names_the_nearest_known_one() {
    assert_eq!(
        certlet(&[("dns-name", "a")]).unwrap_err().to_string(),
        "csi.certlet.io/dns-name: is not a known attribute; the nearest known one is csi.certlet.io/dns-names"
    );
}

#[test]
fn several_faults_are_listed_together_in_a_stable_order() {
    let attributes = [
        ("key-size", "1"),
        ("duration", "1d"),
        ("dns-names", "-a,b,c-"),
        ("is-ca", "yes"),
        ("dnsnames", "x"),
    ];
    let mut reversed = attributes;
    reversed.reverse();
    let errors = certlet(&attributes).unwrap_err();
    assert_eq!(errors, certlet(&reversed).unwrap_err());
    let names: Vec<_> =
        errors.first().iter().map(|fault| fault.attribute().trim_start_matches("csi.certlet.io/")).collect();
    assert_eq!(names, ["dns-names", "dns-names", "dnsnames", "duration", "is-ca", "key-size"]);
    let message = errors.to_string();
    assert!(message.starts_with("6 faults: (1) csi.certlet.io/dns-names: \"-a\" has a label"), "{message}");
    assert!(message.contains(
        "(4) csi.certlet.io/duration: \"1d\" has the unknown unit \"d\"; accepted: a Go duration above zero, such as \
         `24h` or `1h30m` (5) "
    ));
}

#[test]
fn two_files_of_one_name_are_refused_by_an_attribute_the_author_wrote() {
    let errors = certlet(&[("certificate-file", "tls.key")]).unwrap_err();
    assert!(errors.to_string().starts_with(
        "csi.certlet.io/certificate-file: \"tls.key\" is also the name of csi.certlet.io/privatekey-file; accepted: "
    ));
}

#[test]
fn every_rejected_input_is_refused_and_its_fault_is_named() {
    let inputs = rejected::rejected_inputs();
    assert!(inputs.len() >= 300, "{}", inputs.len());
    let names: BTreeSet<_> = inputs.iter().map(|input| &input.name).collect();
    assert_eq!(names.len(), inputs.len());
    for input in &inputs {
        let context: HashMap<_, _> = input.attributes.iter().cloned().collect();
        assert_eq!(context.len(), input.attributes.len(), "{}", input.name);
        let result = VolumeContext::parse(context, HashMap::new(), Dialect::Certlet).and_then(|context| {
            crate::attributes::parse(&context.raw, &context.pod, &OperatorDefaults::default())
        });
        let errors = result.map(drop).expect_err(&input.name);
        let at_fault: Vec<_> = errors.first().iter().map(AttributeError::attribute).collect();
        assert!(at_fault.iter().all(|name| *name == input.attribute), "{}: {errors}", input.name);
        assert!(!errors.to_string().contains("secret"), "{}: {errors}", input.name);
        assert!(
            errors.to_string().contains("accepted: ") || errors.to_string().contains("nearest"),
            "{errors}"
        );
    }
}

#[test]
fn a_password_under_an_unknown_name_is_refused_under_our_prefix_without_its_value() {
    for key in [
        "csi.certlet.io/keystore-password",
        "csi.certlet.io/PKCS12-Password",
        "example.com/password",
        "password",
    ] {
        let errors = parse(&[("csi.certlet.io/issuer-name", "ca"), (key, "hunter2")]).unwrap_err();
        assert!(errors.to_string().starts_with(&format!("{key}: ")), "{errors}");
        assert!(!format!("{errors} {errors:?}").contains("hunter"), "{errors}");
    }
}
