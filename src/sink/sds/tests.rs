use super::secrets::TYPE_URL;
use super::subscription::{Delta, StateOfTheWorld, Subscription};
use crate::credential::{Credential, Current};
use crate::model::SecretNames;
use crate::model::{CertificateFacts, KeyAlgorithm};
use crate::proto::xds::envoy::extensions::transport_sockets::tls::v3::{
    DataSource, Secret, SpiffeCertValidatorConfig, data_source, secret,
};
use crate::proto::xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use crate::proto::xds::google::rpc;
use crate::trust::TrustBundle;
use crate::x509::{PrivateKey, pem};
use jiff::Timestamp;
use prost::Message;
use std::sync::Arc;
use tonic::Code;

const ID: &str = "spiffe://example.org/ns/shop/sa/web";

fn current(leaf: u8, anchor: u8) -> Current {
    let facts = CertificateFacts {
        serial: "01".into(),
        subject: String::new(),
        sans: vec![format!("URI:{ID}")],
        not_before: Timestamp::UNIX_EPOCH,
        not_after: Timestamp::UNIX_EPOCH,
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    Current {
        credential: Arc::new(Credential {
            key,
            leaf: vec![leaf],
            intermediates: Vec::new(),
            facts: Arc::new(facts),
        }),
        trust: Arc::new(TrustBundle { anchors: vec![vec![anchor]], ..TrustBundle::default() }),
    }
}

fn request(names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: TYPE_URL.to_owned(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn delta(subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
        type_url: TYPE_URL.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// Names and kinds of what the secrets of these names are.
fn secrets(names: &[&str]) -> Vec<(String, &'static str)> {
    kinds_of(names, &current(1, 2))
}

fn kinds_of(names: &[&str], current: &Current) -> Vec<(String, &'static str)> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let found = SecretNames::default().secrets(&names, current).unwrap();
    let encoded = found.into_iter().map(|secret| secret.encoded(current).unwrap());
    let decoded = encoded.map(|resource| Secret::decode(resource.value.as_slice()).unwrap());
    let kind = |secret: Secret| match secret.r#type.unwrap() {
        secret::Type::TlsCertificate(_) => (secret.name, "certificate"),
        secret::Type::ValidationContext(context) if context.custom_validator_config.is_some() => {
            (secret.name, "validator")
        }
        secret::Type::ValidationContext(_) => (secret.name, "bundle"),
    };
    decoded.map(kind).collect()
}

#[test]
fn a_secret_has_the_name_that_was_asked_for() {
    let named = |name: &str, kind| (name.to_owned(), kind);
    for (name, kind) in [
        ("default", "certificate"),
        (ID, "certificate"),
        ("ROOTCA", "bundle"),
        ("ALL", "bundle"),
        ("spiffe://example.org", "bundle"),
    ] {
        assert_eq!(secrets(&[name]), [named(name, kind)]);
    }
    assert_eq!(secrets(&[]), [named(ID, "certificate"), named("spiffe://example.org", "bundle")]);
}

#[test]
fn an_unknown_name_is_refused_with_those_that_are_known() {
    let error = SecretNames::default().secrets(&["other".to_owned()], &current(1, 2)).err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
    for named in ["\"other\"", "default", "ROOTCA", "ALL", ID] {
        assert!(error.message().contains(named), "{error}");
    }
}

#[test]
fn only_the_first_request_other_names_and_new_secrets_are_answered() {
    let (names, now) = (SecretNames::default(), current(1, 2));
    let mut stream = StateOfTheWorld::default();
    assert!(stream.next(&names, &now).unwrap().is_none(), "nobody has asked");
    stream.receive(request(&["default"], "")).unwrap();
    let first = stream.next(&names, &now).unwrap().unwrap();
    assert_eq!((first.resources.len(), first.type_url.as_str()), (1, TYPE_URL));
    // ACK.
    stream.receive(request(&["default"], &first.nonce)).unwrap();
    assert!(stream.next(&names, &now).unwrap().is_none());
    // Another trust bundle does not concern it.
    assert!(stream.next(&names, &Current { trust: current(1, 9).trust, ..now.clone() }).unwrap().is_none());
    let renewed = current(7, 2);
    let second = stream.next(&names, &renewed).unwrap().unwrap();
    assert!(second.nonce != first.nonce && second.version_info != first.version_info);
    // The answer to the first response comes late, and its names are those of a subscription that has changed.
    stream.receive(request(&["ROOTCA"], &first.nonce)).unwrap();
    assert!(stream.next(&names, &renewed).unwrap().is_none());
    stream.receive(request(&["ROOTCA"], &second.nonce)).unwrap();
    let third = stream.next(&names, &renewed).unwrap().unwrap();
    assert_eq!(Secret::decode(third.resources[0].value.as_slice()).unwrap().name, "ROOTCA");
}

#[test]
fn a_version_is_that_of_the_secrets_whoever_serves_them() {
    let (names, now) = (SecretNames::default(), current(1, 2));
    let version = || {
        let mut stream = StateOfTheWorld::default();
        stream.receive(request(&["default", "ROOTCA"], "")).unwrap();
        stream.next(&names, &now).unwrap().unwrap().version_info
    };
    assert_eq!(version(), version());
}

#[test]
fn a_rejected_secret_is_told_and_not_sent_again() {
    let (names, now) = (SecretNames::default(), current(1, 2));
    let mut stream = StateOfTheWorld::default();
    stream.receive(request(&["default"], "")).unwrap();
    let first = stream.next(&names, &now).unwrap().unwrap();
    let mut rejected = request(&["default"], &first.nonce);
    let message = format!("no {}", "x".repeat(10_000));
    rejected.error_detail = Some(rpc::Status { code: 3, message });
    let told = stream.receive(rejected).unwrap().unwrap();
    assert!(told.starts_with("no xx") && told.len() <= 512, "{told}");
    assert!(stream.next(&names, &now).unwrap().is_none());
    assert!(stream.next(&names, &current(7, 2)).unwrap().is_some());
}

#[test]
fn other_types_and_too_many_names_are_refused() {
    let mut stream = StateOfTheWorld::default();
    let other = DiscoveryRequest { type_url: "type.googleapis.com/other".into(), ..request(&[], "") };
    assert_eq!(stream.receive(other).unwrap_err().code(), Code::InvalidArgument);
    let many = request(&["default"; 17], "");
    assert_eq!(stream.receive(many).unwrap_err().code(), Code::InvalidArgument);
    let mut stream = Delta::default();
    for first in 0..2 {
        let names: Vec<String> = (0..12).map(|name| format!("{first}-{name}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let taken = stream.receive(delta(&names));
        assert_eq!(taken.is_ok(), first == 0, "{taken:?}");
    }
}

#[test]
fn a_delta_has_only_what_the_client_does_not_have() {
    let (names, now) = (SecretNames::default(), current(1, 2));
    let mut stream = Delta::default();
    stream.receive(delta(&["default", "ROOTCA"])).unwrap();
    let sent = |stream: &mut Delta, current: &Current| {
        let message = stream.next(&names, current).unwrap();
        message.map(|message| {
            message.resources.into_iter().map(|secret| (secret.name, secret.version)).collect::<Vec<_>>()
        })
    };
    let first = sent(&mut stream, &now).unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(sent(&mut stream, &now), None);
    let renewed = sent(&mut stream, &current(7, 2)).unwrap();
    assert_eq!(renewed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["default"]);
    // Asked for again, it is sent again. Not asked for any more, it is not.
    stream.receive(delta(&["ROOTCA"])).unwrap();
    assert_eq!(sent(&mut stream, &current(7, 2)).unwrap()[0].0, "ROOTCA");
    let mut end = delta(&[]);
    end.resource_names_unsubscribe = vec!["ROOTCA".into()];
    stream.receive(end).unwrap();
    assert_eq!(sent(&mut stream, &current(7, 9)), None);
    // A client that connects again says what it has.
    let mut again = Delta::default();
    let mut hello = delta(&["default", "ROOTCA"]);
    hello.initial_resource_versions = first.into_iter().collect();
    again.receive(hello).unwrap();
    let fresh = sent(&mut again, &current(7, 2)).unwrap();
    assert_eq!(fresh.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["default"]);
}

/// With the federated trust domains `partner.org` and, which cannot be, the workload's own.
fn federated(anchor: u8) -> Current {
    let current = current(1, 2);
    let of = |domain: &str, anchor| (domain.parse().unwrap(), vec![vec![anchor]]);
    let federated = [of("partner.org", anchor), of("example.org", 99)].into_iter().collect();
    Current { trust: Arc::new(TrustBundle { federated, ..TrustBundle::clone(&current.trust) }), ..current }
}

/// The trust domains of the validator in a secret, with the PEM of their anchors.
fn validated(name: &str, current: &Current) -> Vec<(String, String)> {
    let secrets = SecretNames::default().secrets(&[name.to_owned()], current).unwrap();
    let encoded = secrets[0].encoded(current).unwrap();
    let secret = Secret::decode(encoded.value.as_slice()).unwrap();
    let Some(secret::Type::ValidationContext(context)) = secret.r#type else { panic!("no trust bundle") };
    assert!(context.trusted_ca.is_none(), "trusted for every trust domain");
    let config = context.custom_validator_config.unwrap();
    assert_eq!(config.name, "envoy.tls.cert_validator.spiffe");
    let config = config.typed_config.unwrap();
    assert!(config.type_url.ends_with("tls.v3.SPIFFECertValidatorConfig"), "{}", config.type_url);
    let domains = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap().trust_domains;
    let pem = |source: Option<DataSource>| match source.unwrap().specifier.unwrap() {
        data_source::Specifier::InlineBytes(bytes) => String::from_utf8(bytes).unwrap(),
    };
    domains.into_iter().map(|domain| (domain.name, pem(domain.trust_bundle))).collect()
}

#[test]
fn a_federated_trust_bundle_speaks_for_its_own_trust_domain_alone() {
    let current = federated(3);
    let pem = |anchor: u8| String::from_utf8(pem::certificates([&[anchor][..]])).unwrap();
    let [own, partner] = [("example.org".to_owned(), pem(2)), ("partner.org".to_owned(), pem(3))];
    assert_eq!(validated("ALL", &current), [own, partner.clone()]);
    assert_eq!(validated("spiffe://partner.org", &current), [partner]);
    for name in ["ROOTCA", "spiffe://example.org"] {
        assert_eq!(kinds_of(&[name], &current), [(name.to_owned(), "bundle")]);
    }
    let all: Vec<_> = kinds_of(&[], &current);
    assert_eq!(all.last().unwrap(), &("spiffe://partner.org".to_owned(), "validator"));
    assert_eq!(all.len(), 3);
    let names = SecretNames::default();
    let error = names.secrets(&["spiffe://other.org".to_owned()], &current).err().unwrap();
    assert!(error.message().contains("spiffe://partner.org"), "{error}");
    // Without a SPIFFE ID there is no own trust domain, and so no other one.
    let mut facts = CertificateFacts::clone(&current.credential.facts);
    facts.sans.clear();
    let credential =
        Credential { facts: Arc::new(facts), ..Arc::into_inner(self::current(1, 2).credential).unwrap() };
    let without = Current { credential: Arc::new(credential), ..current };
    assert_eq!(kinds_of(&["ALL"], &without), [("ALL".to_owned(), "bundle")]);
}

#[test]
fn a_federated_change_is_sent_to_whom_it_concerns_and_a_removed_trust_domain_is_told() {
    let names = SecretNames::default();
    let mut own = StateOfTheWorld::default();
    own.receive(request(&["ROOTCA"], "")).unwrap();
    assert!(own.next(&names, &federated(3)).unwrap().is_some());
    assert!(own.next(&names, &federated(4)).unwrap().is_none());
    let mut all = StateOfTheWorld::default();
    all.receive(request(&["ALL"], "")).unwrap();
    let versions = [federated(3), federated(4), current(1, 2)]
        .map(|current| all.next(&names, &current).unwrap().unwrap().version_info);
    assert!(versions[0] != versions[1] && versions[1] != versions[2], "{versions:?}");
    let mut wildcard = Delta::default();
    wildcard.receive(delta(&[])).unwrap();
    let first = wildcard.next(&names, &federated(3)).unwrap().unwrap();
    assert_eq!((first.resources.len(), first.removed_resources.len()), (3, 0));
    let second = wildcard.next(&names, &current(1, 2)).unwrap().unwrap();
    assert_eq!(
        (second.resources.len(), second.removed_resources),
        (0, vec!["spiffe://partner.org".to_owned()])
    );
    assert!(wildcard.next(&names, &current(1, 2)).unwrap().is_none());
}
