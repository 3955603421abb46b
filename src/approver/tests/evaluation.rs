//! Every check has a request that it alone denies.

use super::super::evaluate::{AllowedDuration, DenialReason, Requester, Rules, evaluate, evaluate_other};
use super::super::request::{IssuerRef, Spec};
use super::{DRIVER, Parts, SPIFFE_ID, dns, signing_request, spec, uri, usage_extensions};
use crate::model::Usage;
use crate::x509::extensions;
use der::asn1::{Any, Ia5String, OctetString, SetOfVec, Utf8StringRef};
use serde_json::{Value, json};
use std::time::Duration;
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;

const HOUR: Duration = Duration::from_hours(1);

fn rules() -> Rules {
    Rules {
        trust_domain: "cluster.local".into(),
        duration: AllowedDuration::Exactly(HOUR),
        requester: Requester::Pod,
        service_names_under: None,
    }
}

fn of_driver() -> Rules {
    Rules { requester: Requester::Driver(DRIVER.parse().unwrap()), ..rules() }
}

fn read(spec: Value) -> Spec {
    serde_json::from_value(spec).unwrap()
}

fn denied(rules: &Rules, spec: Value) -> DenialReason {
    let denial = evaluate(rules, "shop", &read(spec)).unwrap_err();
    assert!(denial.message.starts_with("spec.") || denial.message.starts_with("metadata."), "{denial:?}");
    denial.reason
}

/// Why a request is denied whose signing request is another.
fn denied_with(change: impl FnOnce(&mut Parts)) -> DenialReason {
    denied(&rules(), spec(&signing_request(change)))
}

/// Why a request is denied whose spec has another value.
fn denied_if(rules: &Rules, pointer: &str, value: Value) -> DenialReason {
    let mut spec = spec(&signing_request(|_| {}));
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[field] = value;
    denied(rules, spec)
}

#[test]
fn the_request_of_a_driver_is_granted() {
    let usual = [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth];
    for usages in [&[] as &[Usage], &usual[..1], &usual[3..], &usual] {
        let request = signing_request(|parts| parts.extensions = usage_extensions(usages));
        let granted = evaluate(&rules(), "shop", &read(spec(&request))).unwrap();
        assert_eq!(granted.account.to_string(), "system:serviceaccount:shop:web");
        assert_eq!((granted.node, granted.services.len()), (None, 0));
    }
}

#[test]
fn what_is_no_signing_request_is_denied() {
    assert_eq!(denied(&rules(), spec("LS0t")), DenialReason::Unreadable);
    assert_eq!(denied(&rules(), spec("?")), DenialReason::Unreadable);
}

#[test]
fn another_duration_is_denied() {
    for duration in [json!("1h0m1s"), json!("59m59s"), json!("0s"), json!("-1h"), json!("soon"), Value::Null]
    {
        assert_eq!(denied_if(&rules(), "/duration", duration), DenialReason::Duration);
    }
}

#[test]
fn a_wrong_signature_is_denied() {
    use base64ct::{Base64, Encoding};
    let pem = Base64::decode_vec(&signing_request(|_| {})).unwrap();
    let mut der = crate::x509::pem::blocks(&pem).unwrap().remove(0).der.to_vec();
    let at = der.windows(3).position(|bytes| bytes == b"web").unwrap();
    der[at..at + 3].copy_from_slice(b"api");
    let forged = Base64::encode_string(&crate::x509::pem::certificate_request(&der));
    assert_eq!(denied(&rules(), spec(&forged)), DenialReason::Signature);
}

#[test]
fn other_names_and_a_subject_are_denied() {
    let email = GeneralName::Rfc822Name(Ia5String::new("a@example.org").unwrap());
    let others = [
        dns("web.shop.svc"),
        email,
        GeneralName::from("10.1.2.3".parse::<std::net::IpAddr>().unwrap()),
        GeneralName::RegisteredId("1.2.3".parse().unwrap()),
        GeneralName::DirectoryName("CN=web".parse().unwrap()),
    ];
    for other in others {
        let reason = denied_with(|parts| parts.names.push(other.clone()));
        assert_eq!(reason, DenialReason::Names, "{other:?}");
    }
    for subject in ["CN=web", "O=system:masters"] {
        let reason = denied_with(|parts| parts.subject = subject.parse().unwrap());
        assert_eq!(reason, DenialReason::Names, "{subject}");
    }
}

#[test]
fn other_extensions_and_attributes_are_denied() {
    let extension = |oid: &str, value: &[u8]| Extension {
        extn_id: oid.parse().unwrap(),
        critical: false,
        extn_value: OctetString::new(value).unwrap(),
    };
    let mut all = vec![
        vec![extensions::basic_constraints(true).unwrap()],
        vec![extensions::basic_constraints(false).unwrap()],
        vec![extension("1.2.3.4", &[5, 0])],
        // Not in DER, and a key usage of nine bits.
        vec![extension("2.5.29.15", &[3, 1])],
        vec![extension("2.5.29.15", &[3, 3, 7, 0x80, 0x80])],
        vec![extension("2.5.29.37", b"x")],
        [usage_extensions(&[Usage::ServerAuth]), usage_extensions(&[Usage::ServerAuth])].concat(),
    ];
    let refused = [
        Usage::CertSign,
        Usage::CrlSign,
        Usage::ContentCommitment,
        Usage::DataEncipherment,
        Usage::KeyAgreement,
        Usage::CodeSigning,
        Usage::Any,
    ];
    all.extend(refused.map(|usage| usage_extensions(&[usage, Usage::DigitalSignature, Usage::ServerAuth])));
    for extensions in all {
        let reason = denied_with(|parts| parts.extensions.clone_from(&extensions));
        assert_eq!(reason, DenialReason::Extensions, "{extensions:?}");
    }
    let mut values = SetOfVec::new();
    values.insert(Any::encode_from(&Utf8StringRef::new("secret").unwrap()).unwrap()).unwrap();
    let password = Attribute { oid: "1.2.840.113549.1.9.7".parse().unwrap(), values };
    assert_eq!(denied_with(|parts| parts.attributes.push(password)), DenialReason::Extensions);
}

#[test]
fn a_ca_and_other_usages_are_denied() {
    assert_eq!(denied_if(&rules(), "/isCA", json!(true)), DenialReason::IsCa);
    for usages in [
        json!([]),
        json!(["digital signature", "key encipherment", "server auth"]),
        json!(["digital signature", "key encipherment", "server auth", "server auth"]),
        json!(["signing", "key encipherment", "server auth", "client auth"]),
        json!(["digital signature", "key encipherment", "server auth", "client auth", "cert sign"]),
    ] {
        assert_eq!(denied_if(&rules(), "/usages", usages), DenialReason::Usages);
    }
}

#[test]
fn the_order_of_the_usages_does_not_matter() {
    let mut spec = spec(&signing_request(|_| {}));
    spec["usages"].as_array_mut().unwrap().reverse();
    evaluate(&rules(), "shop", &read(spec)).unwrap();
}

#[test]
fn only_the_requesters_own_identity_is_granted() {
    let driver = json!(DRIVER);
    for username in
        [driver, json!("system:serviceaccount:shop:api"), json!("system:serviceaccount:other:web")]
    {
        assert_eq!(denied_if(&rules(), "/username", username), DenialReason::Identity);
    }
    for username in ["", "admin", "system:serviceaccount:shop", "system:node:shop:web"] {
        assert_eq!(denied_if(&rules(), "/username", json!(username)), DenialReason::Requester);
    }
    for names in [
        vec![],
        vec![uri(SPIFFE_ID), uri(SPIFFE_ID)],
        vec![uri("spiffe://cluster.local/ns/shop/sa/web/")],
        vec![uri("spiffe://other/ns/shop/sa/web")],
        vec![uri("https://cluster.local/ns/shop/sa/web")],
    ] {
        assert_eq!(denied_with(|parts| parts.names.clone_from(&names)), DenialReason::Identity, "{names:?}");
    }
}

#[test]
fn a_request_in_another_namespace_than_its_identity_is_denied() {
    let spec = read(spec(&signing_request(|_| {})));
    assert_eq!(evaluate(&rules(), "other", &spec).unwrap_err().reason, DenialReason::Namespace);
    let of_driver = of_driver();
    let spec = Spec { username: DRIVER.into(), ..spec };
    assert_eq!(evaluate(&of_driver, "other", &spec).unwrap_err().reason, DenialReason::Namespace);
}

#[test]
fn the_driver_speaks_for_the_pods_of_the_node_in_its_claims() {
    let mut spec = spec(&signing_request(|_| {}));
    spec["username"] = DRIVER.into();
    let granted = evaluate(&of_driver(), "shop", &read(spec.clone())).unwrap();
    assert_eq!(granted.account.to_string(), "system:serviceaccount:shop:web");
    assert_eq!(granted.node.as_deref(), Some("node-1"));

    // Nobody else does, not even the pod itself.
    assert_eq!(
        denied_if(&of_driver(), "/username", json!("system:serviceaccount:shop:web")),
        DenialReason::Requester
    );
    for extra in [
        json!({}),
        json!({ "authentication.kubernetes.io/node-name": [] }),
        json!({ "authentication.kubernetes.io/node-name": ["node-1", "node-2"] }),
        json!({ "authentication.kubernetes.io/node-name": ["node-1,metadata.name=x"] }),
        json!({ "authentication.kubernetes.io/node-name": [""] }),
        json!({ "certlet.io/node": ["node-1"] }),
    ] {
        spec["extra"] = extra;
        assert_eq!(denied(&of_driver(), spec.clone()), DenialReason::Node);
    }
    let request = signing_request(|parts| parts.names = vec![uri("spiffe://other/ns/shop/sa/web")]);
    spec["request"] = request.into();
    assert_eq!(denied(&of_driver(), spec), DenialReason::Identity);
}

#[test]
fn a_longest_duration_relaxes_the_duration_and_nothing_else() {
    let relaxed = Rules { duration: AllowedDuration::AtMost(24 * HOUR), ..rules() };
    for duration in ["1m", "1h", "24h"] {
        let mut spec = spec(&signing_request(|_| {}));
        spec["duration"] = duration.into();
        evaluate(&relaxed, "shop", &read(spec)).unwrap();
    }
    for duration in [json!("24h0m1s"), json!("0s"), json!("-1m"), Value::Null] {
        assert_eq!(denied_if(&relaxed, "/duration", duration), DenialReason::Duration);
    }
    assert_eq!(
        denied(&relaxed, spec(&signing_request(|parts| parts.names.push(dns("web.shop"))))),
        DenialReason::Names
    );
}

#[test]
fn names_of_services_relax_the_names_and_nothing_else() {
    let relaxed = Rules { service_names_under: Some("cluster.local".into()), ..rules() };
    let names = ["web.shop", "web.shop.svc", "api.shop.svc.cluster.local"];
    let request = signing_request(|parts| parts.names.extend(names.map(dns)));
    let granted = evaluate(&relaxed, "shop", &read(spec(&request))).unwrap();
    assert_eq!(granted.services.iter().collect::<Vec<_>>(), ["api", "web"]);
    for name in ["web.other.svc", "example.org", "*.shop.svc"] {
        let request = signing_request(|parts| parts.names.push(dns(name)));
        assert_eq!(denied(&relaxed, spec(&request)), DenialReason::Names, "{name}");
    }
    let many = signing_request(|parts| parts.names.extend((0..33).map(|n| dns(&format!("s{n}.shop")))));
    assert_eq!(denied(&relaxed, spec(&many)), DenialReason::Names);
    let subject = signing_request(|parts| parts.subject = "CN=web.shop".parse().unwrap());
    assert_eq!(denied(&relaxed, spec(&subject)), DenialReason::Names);
    assert_eq!(denied_if(&relaxed, "/duration", json!("2h")), DenialReason::Duration);
}

#[test]
fn a_message_does_not_repeat_megabytes() {
    let long = "x".repeat(100_000);
    let denial = |spec: Value| evaluate(&rules(), "shop", &read(spec)).unwrap_err().message.len();
    let request = signing_request(|parts| parts.names = vec![uri(&long)]);
    let usages = json!(vec![long.clone(); 100]);
    for (field, value) in [
        ("request", json!(request)),
        ("duration", json!(long)),
        ("username", json!(long)),
        ("usages", usages),
    ] {
        let mut spec = spec(&signing_request(|_| {}));
        spec[field] = value;
        assert!(denial(spec) < 4096, "{field}");
    }
}

#[test]
fn of_other_requests_only_those_that_concern_spiffe_are_denied() {
    let ours = |kind: &str, group: &str| IssuerRef {
        name: "my-spiffe-ca".into(),
        kind: kind.into(),
        group: group.into(),
    };
    let issuer = ours("ClusterIssuer", "cert-manager.io");
    let plain = signing_request(|parts| {
        parts.names = vec![dns("example.org"), uri("https://example.org/spiffe:")];
        parts.subject = "CN=web".parse().unwrap();
    });
    let other = IssuerRef { name: "another".into(), ..issuer.clone() };
    let judge = |issuer: &IssuerRef, request: &str, of: &IssuerRef| {
        let spec = Spec { issuer_ref: of.clone(), ..read(spec(request)) };
        evaluate_other(issuer, &spec).map_err(|denial| denial.reason)
    };
    assert_eq!(judge(&issuer, &plain, &other), Ok(()));
    assert_eq!(judge(&issuer, &plain, &issuer), Err(DenialReason::NonSpiffe));
    for id in [SPIFFE_ID, "SPIFFE://cluster.local/ns/shop/sa/web", "spiffe:x"] {
        let request = signing_request(|parts| parts.names = vec![dns("example.org"), uri(id)]);
        assert_eq!(judge(&issuer, &request, &other), Err(DenialReason::NonSpiffe), "{id}");
    }
    assert_eq!(judge(&issuer, "LS0t", &other), Err(DenialReason::Unreadable));
    // An issuer that is named by cert-manager's defaults is the same issuer.
    let namespaced = ours("Issuer", "cert-manager.io");
    assert_eq!(judge(&namespaced, &plain, &ours("", "")), Err(DenialReason::NonSpiffe));
}
