//! `cert-manager.io/v1` CertificateRequest: the fields that this signer reads.
//! <https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateRequest>

use base64ct::{Base64, Encoding};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::core::{ObjectMeta, Request};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The label that the watch of a node selects.
pub(super) const NODE_LABEL: &str = "certlet.io/node";
/// The label by which people select the requests of a volume.
pub(super) const VOLUME_LABEL: &str = "certlet.io/volume";
/// The request id in full: a label value can be too short for it.
pub(super) const VOLUME_ANNOTATION: &str = "certlet.io/volume-id";

/// A CertificateRequest as it is read.
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

/// What was requested. The creator is set by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    /// Base64 of the PEM of the PKCS#10 request.
    pub(super) request: String,
    pub(super) issuer_ref: IssuerRef,
    duration: Option<String>,
    usages: Vec<String>,
    #[serde(rename = "isCA")]
    is_ca: bool,
    /// Who has created the object; cert-manager's webhook sets it.
    pub(super) username: String,
}

/// The issuer of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IssuerRef {
    name: String,
    kind: String,
    group: String,
}

impl Spec {
    /// Whether both ask for the same. Creators differ if both are known and not the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_known = !self.username.is_empty() && !other.username.is_empty();
        let username = if is_known { other.username.clone() } else { self.username.clone() };
        *self == Self { username, ..other.clone() } && (!is_known || self.username == other.username)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
    /// Base64 of PEM.
    certificate: String,
    /// Base64 of PEM.
    ca: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// Identifies one CertificateRequest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    /// Builds calls for the CertificateRequests in the key's namespace.
    pub(super) fn collection(&self) -> Request {
        Request::new(CertificateRequest::url_path(&(), Some(&self.namespace)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
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
    /// Its key; none for an object without a name, which the API server never sends.
    pub(super) fn key(&self) -> Option<Key> {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        Some(Key { namespace: namespace.clone()?, name: name.clone()? })
    }

    /// The text of the request id that it was made for.
    pub(super) fn id(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(VOLUME_ANNOTATION).map(String::as_str)
    }

    /// Its state. A refusal comes first, because cert-manager sets `Ready` too.
    pub(super) fn state(&self) -> State {
        let condition = |kind: &str| self.status.conditions.iter().find(|condition| condition.kind == kind);
        let holds = |kind: &str| condition(kind).filter(|condition| condition.status == "True");
        if let Some(denied) = holds("Denied") {
            return State::Refused(format!("was denied by {}", denied.detail()));
        }
        if let Some(invalid) = holds("InvalidRequest") {
            return State::Refused(format!("is invalid to its issuer: {}", invalid.detail()));
        }
        let approved = holds("Approved").is_some();
        match condition("Ready") {
            Some(ready) if ready.status == "True" => self.issued(),
            Some(ready) if ready.reason == "Failed" => State::Failed(format!("failed: {}", ready.message)),
            Some(ready) if ready.reason == "Denied" => {
                State::Refused(format!("was denied: {}", ready.message))
            }
            Some(ready) if approved => State::Open(format!("approved, not signed yet: {}", ready.message)),
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

impl k8s_openapi::Resource for CertificateRequest {
    const API_VERSION: &'static str = "cert-manager.io/v1";
    const GROUP: &'static str = "cert-manager.io";
    const KIND: &'static str = "CertificateRequest";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "certificaterequests";
    type Scope = NamespaceResourceScope;
}

impl k8s_openapi::Metadata for CertificateRequest {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
