//! What a spec asks for, in words and as JSON.

use crate::attributes::{OperatorDefaults, VolumeContext};
use crate::model::{
    CertificateSpec, Dialect, KeystorePassword, Layout, PcaCaller, RawAttributes, SignerSpec, Subject,
    SubjectFields, VolumeClass, short_go_duration,
};
use crate::x509::name;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a volume asks for.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    /// NAMESPACE/NAME
    pod: String,
    service_account: String,
    /// The prefix of its attributes.
    prefix: &'static str,
    /// None: it is of no class.
    class: Option<Class>,
    signer: String,
    /// Empty: none.
    subject: String,
    dns_names: Vec<String>,
    ip_addresses: Vec<String>,
    /// Whether the pod's address follows, once it has one.
    wants_pod_ip: bool,
    uris: Vec<String>,
    emails: Vec<String>,
    duration: String,
    /// None: a third of the lifetime.
    renew_before: Option<String>,
    is_ca: bool,
    usages: Vec<String>,
    key: Key,
    files: Vec<File>,
    /// Who may read the private key.
    readers: String,
    trust_sources: Vec<String>,
    warnings: Vec<String>,
    /// PEM
    certificate_request: String,
}

/// The operator's class of a volume.
#[derive(Debug, Serialize)]
struct Class {
    name: String,
    /// Whether the volume names none.
    is_default: bool,
    /// What the class gives, by name without prefix. What the pod sets itself is not in it.
    gives: BTreeMap<String, String>,
    /// In place of the driver's.
    trust_domain: Option<String>,
    /// In place of the driver's.
    spiffe_id_template: Option<String>,
    /// What a pod may set.
    allows: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Key {
    algorithm: &'static str,
    bits: Option<u32>,
    encoding: &'static str,
    is_reused: bool,
}

#[derive(Debug, Serialize)]
struct File {
    name: String,
    holds: &'static str,
}

impl Explanation {
    /// Of a spec without a password in it. `request` is the signing request, PEM.
    pub(super) fn new(
        context: &VolumeContext,
        spec: &CertificateSpec,
        defaults: &OperatorDefaults,
        request: String,
    ) -> Self {
        let (algorithm, bits) = spec.key.algorithm.family_and_bits();
        let usages = match &spec.signer {
            SignerSpec::CertManager { usage_words, .. } => usage_words.clone(),
            SignerSpec::AcmPca(_) | SignerSpec::Local => {
                spec.usages.iter().map(ToString::to_string).collect()
            }
        };
        let addresses = spec.sans.ip_addresses.iter();
        Self {
            pod: format!("{}/{}", context.pod.namespace, context.pod.name),
            service_account: context.pod.service_account.clone(),
            prefix: spec.dialect.prefix(),
            class: spec.class.as_deref().map(|class| Class::new(class, &context.raw, defaults)),
            signer: signer(spec, &context.pod.namespace, defaults),
            subject: subject(spec),
            dns_names: spec.sans.dns_names.clone(),
            ip_addresses: addresses.map(ToString::to_string).collect(),
            wants_pod_ip: spec.wants_pod_ip,
            uris: spec.sans.uris.clone(),
            emails: spec.sans.emails.clone(),
            duration: short_go_duration(spec.duration),
            renew_before: spec.renew_before.map(short_go_duration),
            is_ca: spec.is_ca,
            usages,
            key: Key { algorithm, bits, encoding: spec.key.encoding.as_str(), is_reused: spec.key.reuse },
            files: files(spec),
            readers: readers(spec),
            trust_sources: spec.trust_sources.iter().map(ToString::to_string).collect(),
            warnings: warnings(context, spec),
            certificate_request: request,
        }
    }

    pub(super) fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")) + "\n"
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("pod {}, service account {}\n\n", self.pod, self.service_account);
        let mut line = |label: &str, values: &[String]| {
            for (number, value) in values.iter().enumerate() {
                let label = if number == 0 { format!("{label}:") } else { String::new() };
                let _infallible = writeln!(text, "{label:<14} {value}");
            }
        };
        if let Some(class) = &self.class {
            line("class", &[class.title()]);
            line("class gives", &class.given());
            line("pod may set", &[class.allowed()]);
        }
        line("signed by", std::slice::from_ref(&self.signer));
        line("subject", &[if self.subject.is_empty() { "none".to_owned() } else { self.subject.clone() }]);
        line("DNS names", &self.dns_names);
        let mut addresses = self.ip_addresses.clone();
        if self.wants_pod_ip {
            addresses.push("${POD_IP}: the address of the pod, once it has one".to_owned());
        }
        line("IP addresses", &addresses);
        line("URIs", &self.uris);
        line("e-mail", &self.emails);
        line("lifetime", &[self.lifetime()]);
        line("usages", &[self.usages.join(", ")]);
        if self.is_ca {
            line("CA", &["yes: with this certificate other certificates can be signed".to_owned()]);
        }
        line("private key", &[self.key.to_string()]);
        let files: Vec<_> = self.files.iter().map(|file| format!("{}: {}", file.name, file.holds)).collect();
        line("files", &files);
        line("key read by", std::slice::from_ref(&self.readers));
        let trusted = if self.trust_sources.is_empty() {
            "the CA that the signer names".to_owned()
        } else {
            self.trust_sources.join(", ")
        };
        line("trusts", &[trusted]);
        for warning in &self.warnings {
            let _infallible = writeln!(text, "\nwarning: {warning}");
        }
        let request = &self.certificate_request;
        let _infallible = write!(
            text,
            "\nThe signing request, with a key that was made for this output alone:\n\n{request}"
        );
        text
    }

    fn lifetime(&self) -> String {
        let renewed = match &self.renew_before {
            None => "when a third of it is left".to_owned(),
            Some(before) => format!("{before} before its end"),
        };
        format!("{}, as far as the signer allows; renewed {renewed}", self.duration)
    }
}

impl Class {
    fn new(class: &VolumeClass, raw: &RawAttributes, defaults: &OperatorDefaults) -> Self {
        let key = format!("{}/class", Dialect::Certlet.prefix());
        let of_class = class
            .attributes
            .map()
            .iter()
            .filter(|(name, _)| **name != key && raw.value(name).is_none_or(str::is_empty));
        let without_prefix = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            name: class.name.clone(),
            is_default: raw.value(&key).is_none_or(str::is_empty),
            gives: of_class.map(|(name, value)| (without_prefix(name), value.clone())).collect(),
            trust_domain: class.trust_domain.clone(),
            spiffe_id_template: class.spiffe_id_template.clone(),
            allows: defaults.classes.allowed(&class.name).unwrap_or_default(),
        }
    }

    fn title(&self) -> String {
        let default = if self.is_default { ", the default of volumes without attributes" } else { "" };
        format!("{}{default}", self.name)
    }

    /// What it gives, as in the file.
    fn given(&self) -> Vec<String> {
        let attributes = self.gives.iter().map(|(name, value)| format!("{name}: {value}"));
        let domain = self.trust_domain.iter().map(|domain| format!("trustDomain: {domain}"));
        let template = self.spiffe_id_template.iter().map(|template| format!("spiffeIdTemplate: {template}"));
        attributes.chain(domain).chain(template).collect()
    }

    fn allowed(&self) -> String {
        if self.allows.is_empty() { "nothing".to_owned() } else { self.allows.join(", ") }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = self.bits.map(|bits| format!(", {bits} bits")).unwrap_or_default();
        let life = if self.is_reused { "kept by renewals" } else { "a new one for each certificate" };
        write!(f, "{}{bits}, {}, {life}", self.algorithm, self.encoding)
    }
}

/// Who signs, and with what.
fn signer(spec: &CertificateSpec, namespace: &str, defaults: &OperatorDefaults) -> String {
    match &spec.signer {
        SignerSpec::CertManager { issuer: Some(issuer), .. } => {
            let within = if issuer.kind.starts_with("Cluster") {
                String::new()
            } else {
                format!(" in the namespace {namespace}")
            };
            format!("cert-manager, {} {} ({}){within}", issuer.kind, issuer.name, issuer.group)
        }
        SignerSpec::CertManager { issuer: None, .. } => {
            let issuer = defaults.issuer.of_flags();
            let named = issuer.map(|issuer| format!(", {} {} ({})", issuer.kind, issuer.name, issuer.group));
            format!("cert-manager, the operator's issuer{}", named.unwrap_or_default())
        }
        SignerSpec::AcmPca(request) => {
            let caller = match &request.caller {
                PcaCaller::Driver => "the driver's own credentials".to_owned(),
                PcaCaller::Role(role) => format!("the role {role}"),
                PcaCaller::PodIdentity => "the role of the pod's EKS Pod Identity association".to_owned(),
            };
            format!("AWS Private CA, {}, with {caller}", request.certificate_authority_arn.as_str())
        }
        SignerSpec::Local => "the local signer, for development alone".to_owned(),
    }
}

/// The subject as RFC 4514 writes it; empty if it has no part.
fn subject(spec: &CertificateSpec) -> String {
    match &spec.subject {
        Subject::Literal(name) => name.to_string(),
        subject @ Subject::Fields(_) => {
            name::encode(subject, spec.dialect).map(|name| name.to_string()).unwrap_or_default()
        }
    }
}

/// The files of the volume, and what each holds.
fn files(spec: &CertificateSpec) -> Vec<File> {
    const TRUST_ANCHORS: &str = "the trust anchors";
    let of = |name: &str, holds| File { name: name.to_owned(), holds };
    let layout = &spec.files.layout;
    let mut files = match layout {
        Layout::Default(_) | Layout::Istio => {
            let mut pem = vec![
                of(layout.certificate_file(), "the certificate and its intermediates"),
                of(layout.private_key_file(), "the private key"),
            ];
            pem.extend(layout.ca_file().map(|name| of(name, TRUST_ANCHORS)));
            pem
        }
        Layout::Spiffe => {
            let id = spec.sans.uris.iter().find_map(|uri| uri.strip_prefix("spiffe://"));
            let domain = id.and_then(|id| id.split('/').next()).unwrap_or_default();
            vec![
                of(Layout::CREDENTIAL_BUNDLE, "the private key and the certificate"),
                of(&format!("{domain}{}", Layout::TRUST_BUNDLE_SUFFIX), TRUST_ANCHORS),
                of(Layout::HINTS, "the list of credentials"),
            ]
        }
        Layout::Envoy(_) => vec![
            of(Layout::ENVOY_CERTIFICATE, "the private key and the certificate, as an SDS secret"),
            of(Layout::ENVOY_TRUST_BUNDLE, "the trust anchors, as an SDS secret"),
        ],
    };
    let more = [
        (&spec.files.combined, "the private key, the certificate and its intermediates"),
        (&spec.files.crl, "CRLs"),
    ];
    files.extend(more.into_iter().filter_map(|(name, holds)| Some(of(name.as_ref()?, holds))));
    files.extend(spec.files.pkcs12.iter().map(|store| of(&store.file, "a PKCS#12 keystore")));
    files.extend(
        spec.files.truststore.iter().map(|store| of(&store.file, "a PKCS#12 keystore of the trust anchors")),
    );
    if let Some(KeystorePassword::File(name)) = &spec.files.password {
        files.push(of(name, "the password of the keystore"));
    }
    let federated = spec.federated.iter().flatten();
    files.extend(federated.map(|(domain, _)| {
        of(&format!("{domain}{}", Layout::TRUST_BUNDLE_SUFFIX), "the trust anchors of that trust domain")
    }));
    if spec.files.is_socket_only {
        files.clear();
    }
    files.extend(
        spec.files
            .socket
            .iter()
            .map(|name| of(name, "the socket of the SPIFFE Workload API and of Envoy's SDS")),
    );
    files
}

/// Who may read the private key on a node.
fn readers(spec: &CertificateSpec) -> String {
    match (spec.owner, spec.fs_group, spec.dialect) {
        (Some(owner), Some(group), _) => format!("user {owner}, group {group}"),
        (Some(owner), None, _) => format!("user {owner}, and the pod's fsGroup if it has one"),
        (None, Some(group), _) => format!("group {group}, and root"),
        (None, None, Dialect::Certlet) => "root alone, unless the pod has an fsGroup".to_owned(),
        (None, None, Dialect::CertManager | Dialect::CsiDriverSpiffe) => {
            "root and its group, unless the pod has an fsGroup".to_owned()
        }
    }
}

/// What the author should know.
fn warnings(context: &VolumeContext, spec: &CertificateSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    if !spec.doubts.is_empty() {
        warnings.push(spec.doubts.to_string());
    }
    warnings.extend(
        context
            .mistyped_passwords
            .iter()
            .map(|key| format!("{key}: may hold a password under a mistyped name, and is left out")),
    );
    let has_subject = spec.subject != Subject::Fields(SubjectFields::default());
    if spec.sans.is_empty() && !spec.wants_pod_ip {
        let subject = if has_subject { "but its subject" } else { "at all" };
        warnings.push(format!("the certificate has no name {subject}; few programs accept one"));
    }
    if spec.wants_pod_ip {
        warnings.push(
            "${POD_IP}: the signing request below lacks the address (--pod-ip gives one). On a node the driver needs \
             --pod-readiness-gate=pod-ip:any, and the files come after the pod's start"
                .to_owned(),
        );
    }
    warnings
}
