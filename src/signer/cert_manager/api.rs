//! `cert-manager.io/v1` CertificateRequest, as much of it as is read here.
//! <https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateRequest>

use base64ct::{Base64, Encoding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::core::{NamespaceResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The label by which a node's requests are selected.
pub(super) const NODE_LABEL: &str = "certlet.io/node";
/// The label by which people select a volume's requests.
pub(super) const VOLUME_LABEL: &str = "certlet.io/volume";
/// The volume id in full.
pub(super) const VOLUME_ANNOTATION: &str = "certlet.io/volume-id";

/// What is read of a CertificateRequest.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct CertificateRequest {
    #[serde(deserialize_with = "without_managed_fields")]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Spec,
    #[serde(default)]
    pub(super) status: Status,
}

/// The API server tells the whole object four or five times in its life; most of that is `managedFields`, which are passed
/// over unread.
fn without_managed_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let read = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        resource_version: read.resource_version,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        annotations: read.annotations,
        ..ObjectMeta::default()
    })
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Spec {
    /// Base64 of the PEM of the PKCS#10 request.
    pub(super) request: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    /// Base64 of PEM.
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    ca: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has decided yet; the words say what is being waited for.
    Open(String),
    /// Signed.
    Issued {
        /// PEM.
        chain: Vec<u8>,
        /// PEM; not every issuer knows it.
        ca: Option<Vec<u8>>,
    },
    /// The issuer gave up. Final for this request, not for another.
    Failed(String),
    /// Denied, or not a request the issuer can ever sign: another one like it will fare no better.
    Refused(String),
    /// Deleted.
    Gone,
}

impl CertificateRequest {
    /// Its key; none for an object without a name, which the API server never sends.
    pub(super) fn key(&self) -> Option<Key> {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        Some(Key { namespace: namespace.clone()?, name: name.clone()? })
    }

    /// The volume it was made for.
    pub(super) fn volume(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(VOLUME_ANNOTATION).map(String::as_str)
    }

    /// How it stands. A refusal counts before everything else: cert-manager sets `Ready` beside it.
    pub(super) fn state(&self) -> State {
        let condition = |kind: &str| self.status.conditions.iter().find(|condition| condition.kind == kind);
        let holds = |kind: &str| condition(kind).filter(|condition| condition.status == "True");
        if let Some(denied) = holds("Denied") {
            return State::Refused(format!("was denied by {}", denied.words()));
        }
        if let Some(invalid) = holds("InvalidRequest") {
            return State::Refused(format!("is invalid to its issuer: {}", invalid.words()));
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

    fn issued(&self) -> State {
        let decoded =
            |field: &Option<String>| field.as_deref().filter(|text| !text.is_empty()).map(Base64::decode_vec);
        match (decoded(&self.status.certificate), decoded(&self.status.ca)) {
            (Some(Ok(chain)), None) => State::Issued { chain, ca: None },
            (Some(Ok(chain)), Some(Ok(ca))) => State::Issued { chain, ca: Some(ca) },
            // Some issuers set the condition first: the certificate comes with another event.
            (None, _) => State::Open("ready, but without a certificate".to_owned()),
            _ => State::Failed("carries a certificate that is not base64".to_owned()),
        }
    }
}

impl Condition {
    fn words(&self) -> String {
        match (self.reason.as_str(), self.message.as_str()) {
            ("", message) => message.to_owned(),
            (reason, "") => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

impl Resource for CertificateRequest {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "CertificateRequest".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "cert-manager.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "certificaterequests".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
