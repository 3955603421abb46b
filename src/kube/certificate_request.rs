//! cert-manager's CertificateRequests: what all who read them share. Each reader has a type of its own with the fields that it needs.
//! <https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateRequest>

use crate::model::is_object_name;
use kube::core::{ObjectMeta, Request};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The annotation of the requests that an approver of SPIFFE IDs decides: csi-driver-spiffe and certlet write the SPIFFE ID into it.
pub(crate) const IDENTITY_ANNOTATION: &str = "spiffe.csi.cert-manager.io/identity";

/// Identifies one CertificateRequest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RequestKey {
    /// `metadata.namespace`
    pub(crate) namespace: String,
    /// `metadata.name`
    pub(crate) name: String,
}

impl RequestKey {
    /// That of an object; none for an object without a name, which the API server never sends.
    pub(crate) fn of(ObjectMeta { namespace, name, .. }: &ObjectMeta) -> Option<Self> {
        Some(Self { namespace: namespace.clone()?, name: name.clone()? })
    }

    /// Reads the text of one: `NAMESPACE/NAME`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let are_names = is_object_name(namespace) && is_object_name(name);
        are_names.then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Builds calls for the CertificateRequests in the key's namespace.
    pub(crate) fn collection(&self) -> Request {
        Request::new(format!("/apis/cert-manager.io/v1/namespaces/{}/certificaterequests", self.namespace))
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Makes a type with the field `metadata` one of `cert-manager.io/v1` CertificateRequest.
macro_rules! certificate_request {
    ($name:ty) => {
        impl k8s_openapi::Resource for $name {
            const API_VERSION: &'static str = "cert-manager.io/v1";
            const GROUP: &'static str = "cert-manager.io";
            const KIND: &'static str = "CertificateRequest";
            const VERSION: &'static str = "v1";
            const URL_PATH_SEGMENT: &'static str = "certificaterequests";
            type Scope = k8s_openapi::NamespaceResourceScope;
        }

        impl k8s_openapi::Metadata for $name {
            type Ty = kube::core::ObjectMeta;

            fn metadata(&self) -> &kube::core::ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use certificate_request;
