//! `cert-manager.io/v1` CertificateRequest: the fields that this signer reads.
//! <https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateRequest>

pub(super) use crate::kube::RequestKey as Key;
use crate::kube::{ListDigest, TextDigest, certificate_request, message, read_text};
use crate::model::{MAX_MESSAGE_BYTES, clipped};
use crate::x509;
use base64ct::{Base64, Encoding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The label that the watch of a node selects.
pub(super) const NODE_LABEL: &str = "certlet.io/node";
/// The label by which people select the requests of a volume.
pub(super) const VOLUME_LABEL: &str = "certlet.io/volume";
/// The request id in full: a label value can be too short for it.
pub(super) const VOLUME_ANNOTATION: &str = "certlet.io/volume-id";

/// A CertificateRequest as it is read. However large the object is, this takes at most 200 KiB.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct CertificateRequest {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Spec,
    #[serde(default)]
    status: Status,
}

/// Longest id in [`VOLUME_ANNOTATION`], in bytes: CSI's limit on a `volume_id`. An object with a longer one is not ours.
const MAX_ID_BYTES: usize = 128;

/// Reads the metadata that the signer needs: without `managedFields`, which are most of an object's bytes, and without
/// annotations of others, which can be 256 KiB.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        #[serde(default, deserialize_with = "id")]
        annotations: Option<String>,
    }
    let read = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        annotations: read.annotations.map(|id| BTreeMap::from([(VOLUME_ANNOTATION.to_owned(), id)])),
        ..ObjectMeta::default()
    })
}

/// Reads the id among the annotations.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Id;

    impl<'de> Visitor<'de> for Id {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<Option<String>, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut annotations: A) -> Result<Option<String>, A::Error> {
            let mut id = None;
            while let Some(key) = annotations.next_key::<Cow<'_, str>>()? {
                if key == VOLUME_ANNOTATION {
                    id = Some(annotations.next_value::<String>()?).filter(|id| id.len() <= MAX_ID_BYTES);
                } else {
                    annotations.next_value::<IgnoredAny>()?;
                }
            }
            Ok(id)
        }
    }

    deserializer.deserialize_any(Id)
}

/// What was requested, as digests: it is only compared. The creator is set by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    /// Base64 of the PEM of the PKCS#10 request.
    request: TextDigest,
    issuer_ref: IssuerRef,
    duration: TextDigest,
    usages: ListDigest,
    #[serde(rename = "isCA")]
    is_ca: bool,
    /// Who has created the object; cert-manager's webhook sets it.
    pub(super) username: TextDigest,
}

/// The issuer of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct IssuerRef {
    name: TextDigest,
    kind: TextDigest,
    group: TextDigest,
}

/// What a signing has asked for. Another object with its name is not its request.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The creator is empty as long as it is not known.
    pub(super) spec: Spec,
    /// The object's uid, once it is known.
    pub(super) uid: Option<String>,
}

impl Expected {
    /// Whether the object is that request. What one side does not know is not compared.
    pub(super) fn is(&self, object: &CertificateRequest) -> bool {
        let (expected, found) = (&self.spec, &object.spec);
        let is_known = !expected.username.is_empty() && !found.username.is_empty();
        let username = if is_known { expected.username } else { found.username };
        let is_same_object =
            self.uid.is_none() || object.metadata.uid.is_none() || self.uid == object.metadata.uid;
        is_same_object && Spec { username, ..expected.clone() } == *found
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "conditions")]
    conditions: Vec<Condition>,
    /// Base64 of PEM.
    #[serde(deserialize_with = "base64")]
    certificate: String,
    /// Base64 of PEM.
    #[serde(deserialize_with = "base64")]
    ca: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type", deserialize_with = "message")]
    kind: String,
    #[serde(deserialize_with = "message")]
    status: String,
    #[serde(deserialize_with = "message")]
    reason: String,
    #[serde(deserialize_with = "message")]
    message: String,
}

/// The types of the conditions that decide about a request.
const CONDITIONS: [&str; 4] = ["Approved", "Denied", "InvalidRequest", "Ready"];

/// Reads the conditions of these types, the first of each.
fn conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    struct Conditions;

    impl<'de> Visitor<'de> for Conditions {
        type Value = Vec<Condition>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("conditions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut conditions: A) -> Result<Vec<Condition>, A::Error> {
            let mut kept = Vec::<Condition>::new();
            while let Some(condition) = conditions.next_element::<Condition>()? {
                let is_new = kept.iter().all(|other| other.kind != condition.kind);
                if is_new && CONDITIONS.contains(&condition.kind.as_str()) {
                    kept.push(condition);
                }
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_seq(Conditions)
}

/// Reads base64 of PEM. A longer text than the verification accepts is cut just beyond its limit, so that it refuses it.
fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    /// Four characters for three bytes, and at least one byte beyond the limit.
    const MAX_CHARACTERS: usize = (x509::MAX_CHAIN_BYTES / 3 + 1) * 4;
    read_text(deserializer, |text| text[..text.floor_char_boundary(MAX_CHARACTERS)].to_owned())
}

/// The state of a CertificateRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not decided. The text says what the request waits for.
    Open(String),
    /// Signed.
    Issued {
        /// PEM.
        chain: Vec<u8>,
        /// PEM; not every issuer sets it.
        ca: Option<Vec<u8>>,
    },
    /// The issuer has failed. This request is final, but another one may succeed.
    Failed(String),
    /// Denied, or invalid: an identical request would be refused too.
    Refused(String),
    /// Deleted.
    Gone,
    /// Deleted, and made again by somebody else, with another issuer for example.
    Replaced,
}

impl CertificateRequest {
    /// Its key.
    pub(super) fn key(&self) -> Option<Key> {
        Key::of(&self.metadata)
    }

    /// The text of the request id that it was made for.
    pub(super) fn id(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(VOLUME_ANNOTATION).map(String::as_str)
    }

    /// Its state. A refusal comes first, because cert-manager sets `Ready` too. The issuer's own words are cut: they go to
    /// the log, to records and to Events.
    pub(super) fn state(&self) -> State {
        let condition = |kind: &str| self.status.conditions.iter().find(|condition| condition.kind == kind);
        let holds = |kind: &str| condition(kind).filter(|condition| condition.status == "True");
        let said = |what: &str, words: &str| clipped(&format!("{what}{words}"), MAX_MESSAGE_BYTES);
        if let Some(denied) = holds("Denied") {
            return State::Refused(said("was denied by ", &denied.detail()));
        }
        if let Some(invalid) = holds("InvalidRequest") {
            return State::Refused(said("is invalid to its issuer: ", &invalid.detail()));
        }
        let approved = holds("Approved").is_some();
        match condition("Ready") {
            Some(ready) if ready.status == "True" => self.issued(),
            Some(ready) if ready.reason == "Failed" => State::Failed(said("failed: ", &ready.message)),
            Some(ready) if ready.reason == "Denied" => State::Refused(said("was denied: ", &ready.message)),
            Some(ready) if approved => State::Open(said("approved, not signed yet: ", &ready.message)),
            None if approved => State::Open("approved, not signed yet".to_owned()),
            _ => State::Open("not approved yet".to_owned()),
        }
    }

    /// Whether cert-manager's own approver has approved it, which approves every request. It gives this reason; other
    /// approvers give their own (`pkg/controller/certificaterequests/approver` in cert-manager's source).
    pub(super) fn is_approved_unchecked(&self) -> bool {
        self.status.conditions.iter().any(|condition| {
            condition.kind == "Approved"
                && condition.status == "True"
                && condition.reason == "cert-manager.io"
        })
    }

    fn issued(&self) -> State {
        let Status { certificate, ca, .. } = &self.status;
        if certificate.is_empty() {
            // Some issuers set the condition first; the certificate comes with a later event.
            return State::Open("ready, but without a certificate".to_owned());
        }
        match (Base64::decode_vec(certificate), Base64::decode_vec(ca)) {
            (Ok(chain), Ok(ca)) => State::Issued { chain, ca: (!ca.is_empty()).then_some(ca) },
            _ => State::Failed("has a certificate that is not base64".to_owned()),
        }
    }
}

impl Condition {
    /// Reason and message, as far as they are set.
    fn detail(&self) -> String {
        let parts = [self.reason.as_str(), self.message.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }
}

certificate_request!(CertificateRequest);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(status: &serde_json::Value, spec: &serde_json::Value) -> CertificateRequest {
        let object =
            json!({ "metadata": { "namespace": "shop", "name": "a" }, "spec": spec, "status": status });
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[test]
    fn the_words_of_an_issuer_are_cut() {
        let long = "\u{e9}".repeat(500_000);
        let condition = |kind: &str, status: &str, reason: &str| json!({ "type": kind, "status": status, "reason": reason, "message": long });
        for (condition, begin) in [
            (condition("Ready", "False", "Failed"), "failed: \u{e9}"),
            (condition("Ready", "False", "Denied"), "was denied: \u{e9}"),
            (condition("Denied", "True", &long), "was denied by \u{e9}"),
            (condition("InvalidRequest", "True", "no"), "is invalid to its issuer: no: \u{e9}"),
        ] {
            let (State::Failed(said) | State::Refused(said)) =
                read(&json!({ "conditions": [condition] }), &json!({})).state()
            else {
                panic!("{begin}")
            };
            assert!(
                said.len() <= 1024 && said.starts_with(begin) && said.ends_with(" ..."),
                "{}",
                said.len()
            );
        }
    }

    #[test]
    fn only_the_conditions_that_decide_are_kept() {
        let many: Vec<_> =
            (0..1000).map(|n| json!({ "type": format!("T{}", n / 2), "status": "True" })).collect();
        let decisive = CONDITIONS.iter().flat_map(|kind| ["True", "False"].map(|status| (kind, status)));
        let decisive = decisive.map(|(kind, status)| json!({ "type": kind, "status": status }));
        let all: Vec<_> = many.into_iter().chain(decisive).collect();
        let kept = read(&json!({ "conditions": all }), &json!({})).status.conditions;
        let kept: Vec<_> = kept.iter().map(|condition| (&*condition.kind, &*condition.status)).collect();
        assert_eq!(kept, CONDITIONS.map(|kind| (kind, "True")));
    }

    #[test]
    fn a_certificate_that_is_too_long_is_cut_just_beyond_what_the_verification_accepts() {
        for (bytes, read_as) in [(65_536, 65_536), (65_537, 65_538), (900_000, 65_538)] {
            let text = Base64::encode_string(&vec![b'x'; bytes]);
            let ready = json!([{ "type": "Ready", "status": "True" }]);
            let status = json!({ "conditions": ready, "certificate": text, "ca": text });
            let State::Issued { chain, ca: Some(ca) } = read(&status, &json!({})).state() else {
                panic!("{bytes}")
            };
            let is_cut = |length: usize| length == read_as.min(bytes);
            assert!(is_cut(chain.len()) && is_cut(ca.len()), "{bytes}: {}", chain.len());
        }
    }

    #[test]
    fn whatever_differs_makes_another_request_and_only_what_is_unknown_is_not_compared() {
        let spec = json!({
            "request": "QUFB", "issuerRef": { "name": "ca", "kind": "Issuer", "group": "cert-manager.io" },
            "duration": "1h0m0s", "usages": ["a", "b"], "isCA": true, "username": "me",
        });
        let expected = Expected { spec: read(&json!({}), &spec).spec, uid: Some("u".into()) };
        let is_same = |spec: &serde_json::Value, uid: Option<&str>| {
            let mut object = read(&json!({}), spec);
            object.metadata.uid = uid.map(str::to_owned);
            expected.is(&object)
        };
        assert!(is_same(&spec, Some("u")) && is_same(&spec, None) && !is_same(&spec, Some("v")));
        for (field, other) in [
            ("/request", json!("QUFC")),
            ("/issuerRef/name", json!("evil")),
            ("/issuerRef/kind", json!("ClusterIssuer")),
            ("/issuerRef/group", json!("evil.example")),
            ("/duration", json!("2h0m0s")),
            ("/usages", json!(["b", "a"])),
            ("/isCA", json!(false)),
            ("/username", json!("evil")),
        ] {
            let mut changed = spec.clone();
            *changed.pointer_mut(field).unwrap() = other;
            assert!(!is_same(&changed, Some("u")), "{field}");
        }
        let mut untold = spec.clone();
        untold["username"] = "".into();
        assert!(is_same(&untold, Some("u")));
    }
}
