//! `cert-manager.io/v1` CertificateRequest, as the approver reads and decides it.
//! <https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateRequest>

use super::evaluate::Denial;
use crate::kube::{IDENTITY_ANNOTATION, RequestKey, certificate_request, message};
use crate::model::{self, MAX_MESSAGE_BYTES, clipped};
use jiff::Timestamp;
use kube::core::ObjectMeta;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The reason of the approver's conditions.
const REASON: &str = "approver.certlet.io";

/// A CertificateRequest in a list or a watch: only what tells whether it is to be decided, however large it is.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SeenRequest {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

impl SeenRequest {
    /// Its key.
    pub(super) fn key(&self) -> Option<RequestKey> {
        RequestKey::of(&self.metadata)
    }

    /// Whether it is one of the driver's.
    pub(super) fn is_annotated(&self) -> bool {
        self.metadata.annotations.is_some()
    }

    /// Whether it is approved or denied.
    pub(super) fn is_decided(&self) -> bool {
        self.status.is_decided
    }
}

/// Reads the names, and of the annotations whether that of the driver is there.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        resource_version: Option<String>,
        #[serde(default, deserialize_with = "has_identity")]
        annotations: bool,
    }
    let read = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        resource_version: read.resource_version,
        annotations: read.annotations.then(BTreeMap::new),
        ..ObjectMeta::default()
    })
}

fn has_identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Annotations;

    impl<'de> Visitor<'de> for Annotations {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(false)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut annotations: A) -> Result<bool, A::Error> {
            let mut found = false;
            while let Some(key) = annotations.next_key::<Cow<'_, str>>()? {
                found |= key == IDENTITY_ANNOTATION;
                annotations.next_value::<IgnoredAny>()?;
            }
            Ok(found)
        }
    }

    deserializer.deserialize_any(Annotations)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "is_decided", rename = "conditions")]
    is_decided: bool,
}

fn is_decided<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    struct Condition {
        #[serde(rename = "type", default, deserialize_with = "message")]
        kind: String,
        #[serde(default, deserialize_with = "message")]
        status: String,
    }

    struct Conditions;

    impl<'de> Visitor<'de> for Conditions {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("conditions")
        }

        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(false)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut conditions: A) -> Result<bool, A::Error> {
            let mut is_decided = false;
            while let Some(Condition { kind, status }) = conditions.next_element()? {
                is_decided |= status == "True" && ["Approved", "Denied"].contains(&kind.as_str());
            }
            Ok(is_decided)
        }
    }

    deserializer.deserialize_any(Conditions)
}

certificate_request!(SeenRequest);

/// A CertificateRequest as one call returns it, which limits its size. It is written back with a decision.
pub(super) struct OpenRequest {
    object: Value,
    pub(super) is_annotated: bool,
    pub(super) spec: Spec,
}

/// What is asked for, and by whom. cert-manager's webhook sets the creator, and nobody can change the spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    /// Base64 of PEM.
    pub(super) request: String,
    pub(super) issuer_ref: IssuerRef,
    pub(super) duration: Option<String>,
    pub(super) usages: Vec<String>,
    #[serde(rename = "isCA")]
    pub(super) is_ca: bool,
    pub(super) username: String,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// The issuer of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IssuerRef {
    /// `metadata.name`
    pub name: String,
    /// `kind`
    pub kind: String,
    /// The API group.
    pub group: String,
}

impl From<model::IssuerRef> for IssuerRef {
    fn from(model::IssuerRef { name, kind, group }: model::IssuerRef) -> Self {
        Self { name, kind, group }
    }
}

impl IssuerRef {
    /// What cert-manager takes it for.
    pub(super) fn with_defaults(&self) -> [&str; 3] {
        let kind = if self.kind.is_empty() { "Issuer" } else { &self.kind };
        let group = if self.group.is_empty() { "cert-manager.io" } else { &self.group };
        [&self.name, kind, group]
    }
}

impl OpenRequest {
    /// Reads an object; none if it is decided already.
    pub(super) fn read(object: Value) -> serde_json::Result<Option<Self>> {
        let seen = SeenRequest::deserialize(&object)?;
        if seen.is_decided() {
            return Ok(None);
        }
        let spec = object.get("spec").map_or_else(|| Ok(Spec::default()), Spec::deserialize)?;
        Ok(Some(Self { is_annotated: seen.is_annotated(), spec, object }))
    }

    /// The object with a decision as its condition. It has the version that was read: if somebody else has changed the object since,
    /// writing it is a conflict.
    pub(super) fn decided(mut self, decision: &Result<String, Denial>, now: Timestamp) -> Vec<u8> {
        let (kind, message) = match decision {
            Ok(message) => ("Approved", message),
            Err(denial) => ("Denied", &denial.message),
        };
        let condition = json!({
            "type": kind,
            "status": "True",
            "reason": REASON,
            "message": clipped(message, MAX_MESSAGE_BYTES),
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let status = &mut self.object["status"];
        if !status.is_object() {
            *status = json!({});
        }
        match status["conditions"].as_array_mut() {
            Some(conditions) => {
                // A condition of each type exists once. One that does not hold is replaced.
                conditions.retain(|other| other["type"] != kind);
                conditions.push(condition);
            }
            None => status["conditions"] = json!([condition]),
        }
        self.object.to_string().into_bytes()
    }
}
