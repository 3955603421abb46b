//! What the operator's flags give to volumes.

use super::classes::OperatorClasses;
use super::values::{list, names};
use crate::model::{
    Dialect, OperatorIssuer, PemFiles, SecretNames, TrustDomain, TrustSource, WorkloadIdentity, named_enum,
    shown,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// What the operator's flags give to volumes.
#[derive(Clone, Debug, Default)]
pub struct OperatorDefaults {
    /// The prefix of volumes without attributes: that of the driver whose name certlet has.
    pub dialect: Dialect,
    /// `--trust-domain` and `--spiffe-id-template`; none: `spiffe: "true"` is refused.
    pub spiffe_ids: Option<SpiffeIds>,
    /// `--classes` and `--require-class`.
    pub classes: OperatorClasses,
    /// `--default-issuer-name`, `--default-issuer-kind` and `--default-issuer-group`: for volumes that name no issuer.
    pub issuer: OperatorIssuer,
    /// Of volumes with a SPIFFE ID.
    pub svid: SvidDefaults,
    /// `--sds-default-svid-name` and the like.
    pub secret_names: SecretNames,
    /// Where trust bundles come from.
    pub trust: TrustDefaults,
    /// The user that owns all files; none: the one that a volume names. A sidecar cannot give files away.
    pub owner: Option<u32>,
    /// `--node-id` or `--node-name`: `${NODE_NAME}`; none: not known.
    pub node_name: Option<String>,
    /// Where `${POD_IP}` comes from.
    pub pod_ip: PodIp,
    /// `--cluster-domain`: the end of the names of Services.
    pub cluster_domain: ClusterDomain,
}

/// Where the address of a pod comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodIp {
    /// It cannot be known: `${POD_IP}` is refused.
    #[default]
    Unknown,
    /// `--pod-ip`: this is the address of the only pod.
    Known(IpAddr),
    /// `--pod-readiness-gate=pod-ip:...`: the pod is read before a certificate is requested.
    Read,
}

/// The DNS domain of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDomain(String);

impl Default for ClusterDomain {
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}

impl FromStr for ClusterDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        names::cluster_domain(text).map(Self)
    }
}

impl ClusterDomain {
    /// The names of a Service in a namespace, from the shortest to the whole name.
    pub(super) fn names_of(&self, service: &str, namespace: &str) -> [String; 4] {
        [
            service.to_owned(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.{}", self.0),
        ]
    }
}

/// Where trust bundles come from.
#[derive(Clone, Debug, Default)]
pub struct TrustDefaults {
    /// `--ca-source`: for volumes that name no source; empty: what the signers name.
    pub sources: Vec<TrustSource>,
    /// `--trust-source`: what volumes may name, by name.
    pub named: BTreeMap<String, Vec<TrustSource>>,
    /// `--trust-configmap-names`: the ConfigMaps that pods may name in their own namespace.
    pub config_map_names: BTreeSet<String>,
    /// Whether pods may name all ConfigMaps of their own namespace: a sidecar reads them with the pod's own account.
    pub are_all_config_maps_allowed: bool,
    /// `--federated-bundle`: other trust domains, and where their trust bundles come from.
    pub federated: BTreeMap<TrustDomain, Vec<TrustSource>>,
    /// Whether the flags are not known, as for `certlet status`. Then no volume is said to name what is not listed.
    pub are_unknown: bool,
    /// `--trust-overlap`: how long an anchor that a source no longer has stays trusted.
    pub overlap: Duration,
}

/// What flags of csi-driver-spiffe give to volumes with a SPIFFE ID.
#[derive(Clone, Debug)]
pub struct SvidDefaults {
    /// `--certificate-request-duration`: for volumes that name no duration.
    pub duration: Duration,
    /// `--extra-certificate-request-annotations`: for volumes of `spiffe.csi.cert-manager.io/`.
    pub annotations: BTreeMap<String, String>,
    /// `--file-name-certificate` and the like: for volumes of `spiffe.csi.cert-manager.io/`.
    pub files: PemFiles,
    /// `--spiffe-attributes`: what volumes of `spiffe.csi.cert-manager.io/` may have besides `fs-group`.
    pub attributes: BTreeSet<OptionalAttribute>,
}

impl Default for SvidDefaults {
    fn default() -> Self {
        let files = PemFiles { certificate: "tls.crt".into(), private_key: "tls.key".into(), ca: None };
        // As with SPIRE.
        Self {
            duration: Duration::from_hours(1),
            annotations: BTreeMap::new(),
            files,
            attributes: BTreeSet::new(),
        }
    }
}

named_enum! {
    /// An attribute that csi-driver-spiffe lacks, and that an operator can allow to its volumes.
    pub enum OptionalAttribute {
        /// `duration`
        Duration = "duration",
        /// `renew-before`
        RenewBefore = "renew-before",
        /// `dns-names`
        DnsNames = "dns-names",
    }
}

/// The default of `--spiffe-id-template`: what Istio and csi-driver-spiffe have.
pub(crate) const SPIFFE_ID_TEMPLATE: &str = "spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}";

/// The beginning of every template, so that `--trust-domain` is the trust domain of every ID.
const PREFIX: &str = "spiffe://{trustDomain}/";

/// The placeholders of a template's path: what a kubelet says of a pod.
const PLACEHOLDERS: &str = "{namespace}, {serviceAccount}, {podName} and {podUID}";

/// The SPIFFE IDs of pods: a trust domain and a path for each pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeIds {
    trust_domain: String,
    template: String,
    path: Vec<Part>,
}

/// A part of a template's path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Namespace,
    ServiceAccount,
    PodName,
    PodUid,
}

/// Why flags make no SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpiffeIdsError {
    /// `--trust-domain`
    #[error(
        "--trust-domain: {value} {problem}; accepted: a trust domain such as example.org, of a-z, 0-9, '.', '-' and '_', without spiffe://",
        value = shown(.0), problem = .1
    )]
    TrustDomain(String, String),
    /// `--spiffe-id-template`
    #[error(
        "--spiffe-id-template: {value} {problem}; accepted: {PREFIX} and a path with the placeholders {PLACEHOLDERS}, such as \
         {SPIFFE_ID_TEMPLATE}",
        value = shown(.0), problem = .1
    )]
    Template(String, String),
}

impl SpiffeIds {
    /// Reads both flags. The ID of every pod that Kubernetes accepts must be a SPIFFE ID.
    pub fn new(trust_domain: &str, template: &str) -> Result<Self, SpiffeIdsError> {
        let of_domain = |problem: String| SpiffeIdsError::TrustDomain(trust_domain.to_owned(), problem);
        if trust_domain.contains('/') {
            return Err(of_domain("has a slash".into()));
        }
        names::trust_domain(trust_domain).map_err(|_| of_domain("is no trust domain".into()))?;
        let of_template = |problem: String| SpiffeIdsError::Template(template.to_owned(), problem);
        let path = template
            .strip_prefix(PREFIX)
            .ok_or_else(|| of_template(format!("does not begin with {PREFIX}")))?;
        let ids = Self {
            trust_domain: trust_domain.to_owned(),
            template: template.to_owned(),
            path: parts(path).map_err(of_template)?,
        };
        let longest = |length| "a".repeat(length);
        let pod = WorkloadIdentity {
            namespace: longest(63),
            name: longest(253),
            uid: longest(36),
            service_account: longest(253),
        };
        ids.of(&pod)
            .map_err(|problem| of_template(format!("gives pods with long names an ID that {problem}")))?;
        Ok(ids)
    }

    /// The IDs of a class: what it says, else what the flags say, else the usual template. None: nobody names a trust domain.
    pub(super) fn of_class(
        trust_domain: Option<&str>,
        template: Option<&str>,
        flags: Option<&Self>,
    ) -> Option<Result<Self, SpiffeIdsError>> {
        let trust_domain = trust_domain.or(flags.map(Self::trust_domain))?;
        let template = template.or(flags.map(|flags| flags.template.as_str())).unwrap_or(SPIFFE_ID_TEMPLATE);
        Some(Self::new(trust_domain, template))
    }

    /// `--trust-domain`
    pub(crate) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The SPIFFE ID of a pod.
    pub(super) fn of(&self, pod: &WorkloadIdentity) -> Result<String, String> {
        let mut path = String::new();
        for part in &self.path {
            path.push_str(match part {
                Part::Text(text) => text,
                Part::Namespace => &pod.namespace,
                Part::ServiceAccount => &pod.service_account,
                Part::PodName => &pod.name,
                Part::PodUid => &pod.uid,
            });
        }
        names::plain_uri(&format!("spiffe://{}/{path}", self.trust_domain))
    }
}

/// The parts of a template's path.
fn parts(mut rest: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while let Some((text, tail)) = rest.split_once('{') {
        let (name, after) = tail.split_once('}').ok_or("has a { without its }")?;
        let placeholder = match name {
            "namespace" => Part::Namespace,
            "serviceAccount" => Part::ServiceAccount,
            "podName" => Part::PodName,
            "podUID" => Part::PodUid,
            _ => return Err(format!("has the unknown placeholder {}", shown(&format!("{{{name}}}")))),
        };
        parts.extend([Part::Text(text.to_owned()), placeholder]);
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

/// Whether a text is the name of a trust domain.
#[cfg(feature = "kubernetes")]
pub(crate) fn is_trust_domain(text: &str) -> bool {
    names::trust_domain(text).is_ok()
}

/// `--file-name-certificate` and the like
pub(crate) fn file_name(text: &str) -> Result<String, String> {
    names::file_name(text)
}

/// The pairs `KEY=VALUE` of `--extra-certificate-request-annotations`: separated by commas, and in quotes as Go's `encoding/csv` has
/// them.
pub(crate) fn annotations(text: &str) -> Result<Vec<String>, String> {
    list::split_as_csv(text)
}

/// Whether the API server accepts a key of an annotation, with or without a group.
pub(crate) fn is_annotation(key: &str) -> bool {
    let (group, name) = key.split_once('/').unwrap_or(("none", key));
    names::is_annotation_key(group, name)
}

/// `--default-issuer-name` and `--default-issuer-group`
pub(crate) fn issuer_name(text: &str) -> Result<String, String> {
    names::resource_name(text)
}

/// `--default-issuer-kind`
pub(crate) fn issuer_kind(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".into()) } else { names::kind(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(template: &str) -> String {
        let pod = WorkloadIdentity {
            namespace: "shop".into(),
            name: "cart-0".into(),
            uid: "b8f1".into(),
            service_account: "cart".into(),
        };
        SpiffeIds::new("example.org", template).unwrap().of(&pod).unwrap()
    }

    #[test]
    fn a_template_gives_the_id_of_a_pod() {
        assert_eq!(id(SPIFFE_ID_TEMPLATE), "spiffe://example.org/ns/shop/sa/cart");
        assert_eq!(
            id("spiffe://{trustDomain}/{namespace}.{podName}/{podUID}"),
            "spiffe://example.org/shop.cart-0/b8f1"
        );
        assert_eq!(id("spiffe://{trustDomain}/one-for-all"), "spiffe://example.org/one-for-all");
    }

    #[test]
    fn a_template_that_gives_no_spiffe_id_is_refused_with_its_flag() {
        for (path, problem) in [
            ("ns/{namespace}/", "has an empty path segment"),
            ("", "has an empty path segment"),
            ("ns//{namespace}", "has an empty path segment"),
            ("{nodeName}", "has the unknown placeholder \"{nodeName}\""),
            ("{trustDomain}", "has the unknown placeholder"),
            ("{namespace", "has a { without its }"),
            ("namespace}", "has the character '}'"),
            ("a b/{namespace}", "has the character ' '"),
            ("../{namespace}", "has the path segment \"..\""),
        ] {
            let template = format!("{PREFIX}{path}");
            let error = SpiffeIds::new("example.org", &template).unwrap_err().to_string();
            assert!(error.starts_with("--spiffe-id-template: \"spiffe://{trustDomain}/"), "{error}");
            assert!(
                error.contains(problem) && error.contains("; accepted: spiffe://{trustDomain}/ and"),
                "{error}"
            );
        }
        for template in
            ["", "spiffe://example.org/ns/{namespace}", "https://{trustDomain}/a", "spiffe://{trustDomain}"]
        {
            let error = SpiffeIds::new("example.org", template).unwrap_err().to_string();
            assert!(error.contains("does not begin with spiffe://{trustDomain}/"), "{error}");
        }
        let long = format!("{PREFIX}{}", "{podName}".repeat(9));
        let error = SpiffeIds::new("example.org", &long).unwrap_err().to_string();
        assert!(error.contains("is 2298 bytes long (at most 2048 are accepted)"), "{error}");
    }

    #[test]
    fn a_text_that_is_no_trust_domain_is_refused_with_its_flag() {
        for text in [
            "",
            "Example.org",
            "spiffe://example.org",
            "example.org/a",
            "example.org:443",
            "a b",
            &"a".repeat(256),
        ] {
            let error = SpiffeIds::new(text, SPIFFE_ID_TEMPLATE).unwrap_err().to_string();
            assert!(error.starts_with("--trust-domain: \"") && error.contains("; accepted: "), "{error}");
        }
    }
}
