//! Who gets what: the decision on one CertificateRequest, as far as the request itself tells. Pure.
//!
//! The checks and their order are those of csi-driver-spiffe's approver (`internal/approver/evaluator` in its source). These
//! are stricter than its own: the subject must be empty as a whole, the signing request has no attribute but its extensions, and
//! the request is in the namespace of its identity.

use super::identity::{ServiceAccount, SpiffeId};
use super::request::{IssuerRef, Spec};
use super::service_names;
use crate::model::{go_duration, parse_duration, shown, shown_list};
use crate::x509::received::ReceivedRequest;
use base64ct::{Base64, Encoding};
use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::Decode;
use der::flagset::FlagSet;
use std::collections::BTreeSet;
use std::time::Duration;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName};

/// The usages of a SPIFFE request, sorted.
const USAGES: [&str; 4] = ["client auth", "digital signature", "key encipherment", "server auth"];
/// Where the API server names the node that the creator's token is bound to.
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";
/// Limit on the DNS names of one request. Each of them costs a call of the API server.
const MAX_DNS_NAMES: usize = 32;

/// What a request must be like.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The trust domain of every identity.
    pub trust_domain: String,
    /// The duration of every request.
    pub duration: AllowedDuration,
    /// Who makes the requests.
    pub requester: Requester,
    /// The cluster's DNS domain, if names of Services are allowed.
    pub service_names_under: Option<String>,
}

/// The durations that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedDuration {
    /// This one.
    Exactly(Duration),
    /// Every one up to this.
    AtMost(Duration),
}

/// Who makes the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requester {
    /// The pod's own service account.
    Pod,
    /// The driver, with its own account.
    Driver(ServiceAccount),
}

/// Which check a request has not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DenialReason {
    /// It cannot be read.
    Unreadable,
    /// It has another duration.
    Duration,
    /// The holder of the key has not signed it.
    Signature,
    /// It has a subject, or a name that is not allowed.
    Names,
    /// It asks for an extension that is not allowed.
    Extensions,
    /// It asks for a CA.
    IsCa,
    /// It has other usages.
    Usages,
    /// Its creator is not who may make it.
    Requester,
    /// It asks for another identity than its creator's, or for none.
    Identity,
    /// It is in another namespace than its identity.
    Namespace,
    /// Its creator's token names no node.
    Node,
    /// The node has no pod of that service account.
    Pod,
    /// It names a Service that does not exist.
    Service,
    /// It is no SPIFFE request, and asks for a SPIFFE ID or uses the SPIFFE issuer.
    NonSpiffe,
}

impl DenialReason {
    /// The label of the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Duration => "duration",
            Self::Signature => "signature",
            Self::Names => "names",
            Self::Extensions => "extensions",
            Self::IsCa => "is-ca",
            Self::Usages => "usages",
            Self::Requester => "requester",
            Self::Identity => "identity",
            Self::Namespace => "namespace",
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::NonSpiffe => "non-spiffe",
        }
    }
}

/// Why a request is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) reason: DenialReason,
    /// For the requester.
    pub(super) message: String,
}

impl Denial {
    pub(super) fn new(reason: DenialReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a request may have, if the cluster shows what is still to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) account: ServiceAccount,
    /// The node that must have a pod of the account.
    pub(super) node: Option<String>,
    /// The Services that must exist in the account's namespace.
    pub(super) services: BTreeSet<String>,
}

/// Evaluates a request of this namespace that is annotated as one of the driver's.
pub(super) fn evaluate(rules: &Rules, namespace: &str, spec: &Spec) -> Result<Granted, Denial> {
    let request = read(spec)?;
    check_duration(rules.duration, spec.duration.as_deref())?;
    request
        .verify_signature()
        .map_err(|error| Denial::new(DenialReason::Signature, format!("spec.request: {error}")))?;
    let services = check_names(rules, namespace, &request)?;
    check_extensions(&request)?;
    if spec.is_ca {
        return Err(Denial::new(DenialReason::IsCa, "spec.isCA: is true; accepted: false"));
    }
    check_usages(&spec.usages)?;
    let account = check_identity(rules, spec, &request)?;
    if account.namespace != namespace {
        let message = format!(
            "metadata.namespace: the identity is of the namespace {}; accepted: a request in that namespace",
            account.namespace
        );
        return Err(Denial::new(DenialReason::Namespace, message));
    }
    let node = match rules.requester {
        Requester::Pod => None,
        Requester::Driver(_) => Some(node_of(spec)?),
    };
    Ok(Granted { account, node, services })
}

/// Evaluates a request without the annotation, where the approver takes the part of cert-manager's own: no SPIFFE ID leaves the
/// cluster's CAs past [`evaluate`].
pub(super) fn evaluate_other(spiffe_issuer: &IssuerRef, spec: &Spec) -> Result<(), Denial> {
    let is_spiffe = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => {
            uri.as_str().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
        }
        _ => false,
    };
    let message = if read(spec)?.names().iter().any(is_spiffe) {
        "spec.request: asks for a SPIFFE ID; accepted: no URI with the scheme spiffe in a request that is not of the driver"
    } else if spec.issuer_ref.with_defaults() == spiffe_issuer.with_defaults() {
        "spec.issuerRef: is the issuer of SPIFFE IDs; accepted: another issuer for a request that is not of the driver"
    } else {
        return Ok(());
    };
    Err(Denial::new(DenialReason::NonSpiffe, message))
}

fn read(spec: &Spec) -> Result<ReceivedRequest, Denial> {
    let unreadable = |fault: String| Denial::new(DenialReason::Unreadable, format!("spec.request: {fault}"));
    let pem = Base64::decode_vec(&spec.request).map_err(|_| unreadable("is not base64".to_owned()))?;
    ReceivedRequest::from_pem(&pem).map_err(|error| unreadable(error.to_string()))
}

fn check_duration(allowed: AllowedDuration, asked: Option<&str>) -> Result<(), Denial> {
    let duration = asked.map(parse_duration);
    let (is_allowed, accepted) = match allowed {
        AllowedDuration::Exactly(exactly) => (duration == Some(Ok(exactly)), go_duration(exactly)),
        AllowedDuration::AtMost(most) => (
            duration.is_some_and(|duration| duration.is_ok_and(|duration| duration <= most)),
            format!("up to {}", go_duration(most)),
        ),
    };
    if is_allowed {
        return Ok(());
    }
    let asked = asked.map_or("is missing".to_owned(), |asked| format!("is {}", shown(asked)));
    Err(Denial::new(DenialReason::Duration, format!("spec.duration: {asked}; accepted: {accepted}")))
}

/// Checks everything that names somebody, but for the URIs. Returns the Services whose DNS names it asks for.
fn check_names(
    rules: &Rules,
    namespace: &str,
    request: &ReceivedRequest,
) -> Result<BTreeSet<String>, Denial> {
    let denied = |message: String| Denial::new(DenialReason::Names, format!("spec.request: {message}"));
    if request.has_subject() {
        return Err(denied("has a subject; accepted: an empty one".to_owned()));
    }
    let mut services = BTreeSet::new();
    for (count, name) in request.names().iter().enumerate() {
        match (name, &rules.service_names_under) {
            (GeneralName::UniformResourceIdentifier(_), _) => {}
            _ if count > MAX_DNS_NAMES => {
                return Err(denied(format!("has more than {MAX_DNS_NAMES} names")));
            }
            (GeneralName::DnsName(name), Some(cluster_domain)) => {
                let service = service_names::service(name.as_str(), namespace, cluster_domain);
                services.insert(service.ok_or_else(|| {
                    denied(format!(
                        "has the DNS name {}; accepted: names of Services in the namespace {namespace}, as \
                         SERVICE.{namespace}.svc",
                        shown(name.as_str())
                    ))
                })?);
            }
            (other, _) => {
                let (kind, accepted) = (
                    kind_of(other),
                    if rules.service_names_under.is_some() {
                        "one URI, and DNS names of Services"
                    } else {
                        "one URI"
                    },
                );
                return Err(denied(format!("has {kind}; accepted: {accepted}")));
            }
        }
    }
    Ok(services)
}

fn kind_of(name: &GeneralName) -> String {
    match name {
        GeneralName::DnsName(name) => format!("the DNS name {}", shown(name.as_str())),
        GeneralName::Rfc822Name(name) => format!("the e-mail address {}", shown(name.as_str())),
        GeneralName::IpAddress(_) => "an IP address".to_owned(),
        _ => "a name that is no URI".to_owned(),
    }
}

fn check_extensions(request: &ReceivedRequest) -> Result<(), Denial> {
    let denied = |message: String| Denial::new(DenialReason::Extensions, format!("spec.request: {message}"));
    if let Some(oid) = request.other_attributes().next() {
        return Err(denied(format!("has the attribute {oid}; accepted: requested extensions only")));
    }
    let mut seen = BTreeSet::new();
    for extension in request.extensions() {
        let oid = extension.extn_id;
        if !seen.insert(oid) {
            return Err(denied(format!("has the extension {oid} more than once")));
        }
        if !is_allowed(extension) {
            return Err(denied(format!(
                "asks for the extension {oid} with a value that is not allowed; accepted: subject alternative name, key usage \
                 (digital signature, key encipherment), extended key usage (server auth, client auth)"
            )));
        }
    }
    Ok(())
}

fn is_allowed(extension: &Extension) -> bool {
    let value = extension.extn_value.as_bytes();
    match extension.extn_id {
        // The names themselves are checked elsewhere.
        SubjectAltName::OID => true,
        KeyUsage::OID => {
            let allowed: FlagSet<KeyUsages> = KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment;
            KeyUsage::from_der(value).is_ok_and(|KeyUsage(asked)| allowed.contains(asked))
        }
        ExtendedKeyUsage::OID => ExtendedKeyUsage::from_der(value).is_ok_and(|ExtendedKeyUsage(asked)| {
            asked.iter().all(|purpose| [ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH].contains(purpose))
        }),
        _ => false,
    }
}

fn check_usages(usages: &[String]) -> Result<(), Denial> {
    let mut sorted: Vec<&str> = usages.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if sorted == USAGES {
        return Ok(());
    }
    let asked: Vec<String> = usages.iter().map(|usage| shown(usage)).collect();
    let message = format!("spec.usages: are {}; accepted: {}", shown_list(&asked, ", "), USAGES.join(", "));
    Err(Denial::new(DenialReason::Usages, message))
}

/// Checks that the request has one URI, which is the identity of an account that the creator may speak for. Returns the account.
fn check_identity(rules: &Rules, spec: &Spec, request: &ReceivedRequest) -> Result<ServiceAccount, Denial> {
    let denied = |message: String| Denial::new(DenialReason::Identity, format!("spec.request: {message}"));
    let creator: Option<ServiceAccount> = spec.username.parse().ok();
    let creator = match (&rules.requester, creator) {
        (Requester::Driver(driver), Some(creator)) if creator == *driver => None,
        (Requester::Pod, Some(creator)) => Some(creator),
        (requester, _) => {
            let accepted = match requester {
                Requester::Pod => "a service account".to_owned(),
                Requester::Driver(driver) => driver.to_string(),
            };
            let message = format!("spec.username: is {}; accepted: {accepted}", shown(&spec.username));
            return Err(Denial::new(DenialReason::Requester, message));
        }
    };
    let uris: Vec<&str> = request
        .names()
        .iter()
        .filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        })
        .collect();
    let [uri] = uris.as_slice() else {
        return Err(denied(format!("has {} URIs; accepted: one, the SPIFFE ID", uris.len())));
    };
    let domain = &rules.trust_domain;
    let Some(creator) = creator else {
        // The driver speaks for its pods. Which pods those are, the node decides.
        return SpiffeId::parse(uri, domain).map(|SpiffeId(account)| account).ok_or_else(|| {
            denied(format!(
                "has the URI {}; accepted: spiffe://{domain}/ns/NAMESPACE/sa/SERVICE-ACCOUNT",
                shown(uri)
            ))
        });
    };
    let own = SpiffeId(creator);
    let expected = own.uri(domain);
    if *uri != expected {
        return Err(denied(format!("has the URI {}; accepted: {expected}", shown(uri))));
    }
    Ok(own.0)
}

/// The node in the claims of the creator's token. Labels and annotations prove nothing, because the creator chooses them.
fn node_of(spec: &Spec) -> Result<String, Denial> {
    match spec.extra.get(NODE_CLAIM).map(Vec::as_slice) {
        Some([node]) if super::identity::is_subdomain(node) => Ok(node.clone()),
        _ => Err(Denial::new(
            DenialReason::Node,
            format!(
                "spec.extra: has no {NODE_CLAIM}; accepted: a request with a token that is bound to a pod on a node"
            ),
        )),
    }
}
