//! From the author's attributes to the certificate spec.

use super::classes::{self, Last};
use super::defaults::OperatorDefaults;
use super::errors::AttributeErrors;
use super::federation::federated;
use super::fields::{Fields, POD_IP};
use super::rows::{Key, TABLE};
use super::svid;
use super::values::{arn, distinguished_name, list, names};
use crate::model::{
    CertificateFacts, CertificateSpec, Dialect, IssuerRef, KeyAlgorithm, KeyEncoding, KeySpec, PcaCaller,
    PcaRequest, RawAttributes, SignerKind, SignerSpec, Subject, SubjectAltNames, SubjectFields, Usage,
    VolumeClass, WorkloadIdentity, parse_duration,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The highest id of a user or group. `chown(2)` takes the number above it as "no change".
const MAX_ID: u32 = u32::MAX - 1;

/// Limit on the Services of a volume: each gives four names.
const MAX_SERVICES: usize = 32;

/// Reads the author's attributes, with those of the volume's class, with the defaults of their prefix and with the pod's variables
/// replaced. The error lists all faults.
pub fn parse(
    raw: &RawAttributes,
    pod: &WorkloadIdentity,
    defaults: &OperatorDefaults,
) -> Result<CertificateSpec, AttributeErrors> {
    match classes::resolve(raw, pod, defaults, None)? {
        Some(class) => parse_class(&Arc::new(class), pod, defaults).map_err(|faults| faults.beside(raw)),
        None => read(Fields::new(raw, pod, defaults)?),
    }
}

/// Reads the attributes of a volume that is running and is of a class, as the operator's class is now. None if the class gives what it
/// gave before.
pub(crate) fn parse_again(
    raw: &RawAttributes,
    pod: &WorkloadIdentity,
    defaults: &OperatorDefaults,
    last: &VolumeClass,
    is_mounted: bool,
) -> Result<Option<CertificateSpec>, AttributeErrors> {
    let class = classes::resolve(raw, pod, defaults, Some(Last { class: last, is_mounted }))?;
    let Some(class) = class.filter(|class| class != last) else { return Ok(None) };
    parse_class(&Arc::new(class), pod, defaults).map(Some).map_err(|faults| faults.beside(raw))
}

/// Reads the attributes of pod and class together.
pub(super) fn parse_class(
    class: &Arc<VolumeClass>,
    pod: &WorkloadIdentity,
    defaults: &OperatorDefaults,
) -> Result<CertificateSpec, AttributeErrors> {
    let ids = classes::spiffe_ids(class, defaults);
    let spec = read(Fields::new(&class.attributes, pod, defaults)?.with_ids(ids.as_ref()));
    spec.map(|spec| CertificateSpec { class: Some(Arc::clone(class)), ..spec })
}

/// Reads the attributes of a volume that an earlier process has published. What was accepted then, and would be refused now, is
/// served: the pod is running, and its certificate must be renewed. The operator's defaults are those of today. `in_use` is the
/// certificate of the volume.
pub(crate) fn parse_stored(
    raw: &RawAttributes,
    pod: &WorkloadIdentity,
    defaults: &OperatorDefaults,
    in_use: Option<&CertificateFacts>,
) -> Result<CertificateSpec, AttributeErrors> {
    read(Fields::new(raw, pod, defaults)?.of_stored(in_use))
}

/// The same, of a volume of a class: what the class gave when the files in use were made.
pub(crate) fn parse_stored_class(
    class: &Arc<VolumeClass>,
    pod: &WorkloadIdentity,
    defaults: &OperatorDefaults,
    in_use: Option<&CertificateFacts>,
) -> Result<CertificateSpec, AttributeErrors> {
    let ids = classes::spiffe_ids(class, defaults);
    let fields = Fields::new(&class.attributes, pod, defaults)?.with_ids(ids.as_ref()).of_stored(in_use);
    read(fields).map(|spec| CertificateSpec { class: Some(Arc::clone(class)), ..spec })
}

fn read(mut fields: Fields<'_>) -> Result<CertificateSpec, AttributeErrors> {
    match spec(&mut fields) {
        Some(spec) if fields.faults.is_empty() => Ok(spec),
        _ => Err(AttributeErrors::new(fields.faults)),
    }
}

/// Reads every attribute before it gives up, so that all faults are collected.
fn spec(fields: &mut Fields<'_>) -> Option<CertificateSpec> {
    let signer = signer(fields);
    let Identity { is_spiffe, subject, names, is_ca, usages, usage_words } = identity(fields);
    let Names { sans, services, wants_pod_ip } = names;
    let duration = match fields.given(Key::Duration) {
        None if is_spiffe => Some(fields.defaults.svid.duration),
        _ => fields.duration(Key::Duration),
    };
    let renew_before =
        fields.checked_or(Key::RenewBefore, |text| parse_duration(text).map(Some), no_renew_before);
    let key = key(fields);
    let spiffe_id = sans.uris.iter().find(|uri| uri.starts_with("spiffe://")).map(String::as_str);
    let files = super::files::files(fields, spiffe_id.is_some());
    let federated = federated(fields, spiffe_id);
    let fs_group = match fields.dialect {
        Dialect::CsiDriverSpiffe => {
            fields.checked_or(Key::FsGroup, |text| positive(group(text)?).map(Some), any_positive_group)
        }
        Dialect::CertManager | Dialect::Certlet => {
            fields.checked_or(Key::FsGroup, |text| group(text).map(Some), any_group)
        }
    };
    let owner = owner_of_files(fields);
    let trust_sources = super::trust::sources(fields);
    let mut signer = signer?;
    if let SignerSpec::CertManager { usage_words: words, .. } = &mut signer {
        *words = usage_words;
    }
    Some(CertificateSpec {
        dialect: fields.dialect,
        signer,
        is_spiffe,
        subject: subject?,
        sans,
        services,
        wants_pod_ip,
        duration: duration?,
        is_ca: is_ca?,
        usages,
        key: key?,
        files: files?,
        fs_group: fs_group.flatten(),
        owner,
        renew_before: renew_before.flatten(),
        trust_sources,
        federated,
        class: None,
        doubts: std::mem::take(&mut fields.doubts),
    })
}

/// The user that owns the files.
fn owner_of_files(fields: &mut Fields<'_>) -> Option<u32> {
    let named = fields.checked(Key::Owner, owner);
    let Some(only) = fields.defaults.owner else { return named };
    if let Some(named) = named.filter(|named| *named != only) {
        let problem = format!("{named} is another user than the sidecar's, which cannot give files away");
        let accepted = format!("{only}, or leave it out");
        fields.refuse(&[Key::Owner], &problem, &accepted);
    }
    Some(only)
}

/// Who the certificate is for, and what for.
struct Identity {
    is_spiffe: bool,
    subject: Option<Subject>,
    names: Names,
    is_ca: Option<bool>,
    usages: Vec<Usage>,
    usage_words: Vec<String>,
}

/// The alternative names.
#[derive(Default)]
struct Names {
    sans: SubjectAltNames,
    services: Vec<String>,
    wants_pod_ip: bool,
}

fn identity(fields: &mut Fields<'_>) -> Identity {
    if svid::is_asked_for(fields) {
        let dns_names = if fields.dialect.is_peers() { dns_names(fields) } else { Vec::new() };
        let (subject, sans) = svid::names(fields, dns_names);
        let usages = svid::USAGES.to_vec();
        let usage_words = usages.iter().map(ToString::to_string).collect();
        return Identity {
            is_spiffe: true,
            subject: Some(subject),
            names: Names { sans, ..Names::default() },
            is_ca: Some(false),
            usages,
            usage_words,
        };
    }
    let subject = subject(fields);
    let names = alternative_names(fields);
    let is_ca = fields.switch(Key::IsCa);
    let (usages, usage_words) = usages(fields);
    svid::check(fields, &names.sans.uris, is_ca == Some(true), &usages);
    Identity { is_spiffe: false, subject, names, is_ca, usages, usage_words }
}

fn alternative_names(fields: &mut Fields<'_>) -> Names {
    let mut dns_names = dns_names(fields);
    let services = services(fields);
    let (domain, namespace) = (&fields.defaults.cluster_domain, &fields.pod.namespace);
    for name in services.iter().flat_map(|service| domain.names_of(service, namespace)) {
        if !dns_names.contains(&name) {
            dns_names.push(name);
        }
    }
    let (ip_addresses, wants_pod_ip) = ip_addresses(fields);
    let sans = SubjectAltNames {
        dns_names,
        uris: match fields.dialect {
            Dialect::Certlet => plain_uris(fields),
            Dialect::CertManager | Dialect::CsiDriverSpiffe => {
                fields.list_or(Key::UriSans, list::split_at_commas, names::uri_as_go, names::any_uri)
            }
        },
        ip_addresses,
        emails: fields.list(Key::EmailSans, names::email_address),
    };
    Names { sans, services, wants_pod_ip }
}

/// The names of the Services, each once.
fn services(fields: &mut Fields<'_>) -> Vec<String> {
    let given = fields.list(Key::Services, names::service_name);
    if given.len() > MAX_SERVICES {
        let value = fields.given(Key::Services).unwrap_or_default();
        fields.invalid(Key::Services, value, &format!("names {} Services", given.len()));
        return Vec::new();
    }
    let mut services = Vec::new();
    for service in given {
        if !services.contains(&service) {
            services.push(service);
        }
    }
    services
}

/// The addresses, and whether the pod's own is to be among them.
fn ip_addresses(fields: &mut Fields<'_>) -> (Vec<IpAddr>, bool) {
    let has_variables = Key::IpSans.row().has_variables(fields.dialect);
    let elements = fields.list(Key::IpSans, |text| match text {
        POD_IP if has_variables => Ok(None),
        _ => names::ip_address(text).map(Some),
    });
    let wants_pod_ip = elements.contains(&None);
    (elements.into_iter().flatten().collect(), wants_pod_ip)
}

/// The signer with its own attributes. Attributes of the other signers are refused.
fn signer(fields: &mut Fields<'_>) -> Option<SignerSpec> {
    let kind = match fields.dialect {
        Dialect::CertManager | Dialect::CsiDriverSpiffe => SignerKind::CertManager,
        Dialect::Certlet => fields.checked(Key::Signer, |text| {
            SignerKind::from_name(text).ok_or_else(|| "is not a signer".into())
        })?,
    };
    let problem = format!("is not supported with the signer {kind}");
    for row in TABLE {
        if let Some(other) = row.options.signer.filter(|signer| *signer != kind) {
            fields.refuse(&[row.key], &problem, &format!("remove it, or set the signer {other}"));
        }
    }
    match kind {
        SignerKind::CertManager => {
            let issuer = if is_operators_issuer(fields) { None } else { Some(issuer(fields)?) };
            let annotations = match fields.dialect {
                Dialect::CsiDriverSpiffe => fields.defaults.svid.annotations.clone(),
                Dialect::CertManager | Dialect::Certlet => std::mem::take(&mut fields.annotations),
            };
            Some(SignerSpec::CertManager { issuer, usage_words: Vec::new(), annotations })
        }
        SignerKind::AcmPca => private_ca(fields).map(SignerSpec::AcmPca),
        SignerKind::Local => Some(SignerSpec::Local),
    }
}

/// Whether the operator's issuer signs: the volume names nothing of an issuer.
fn is_operators_issuer(fields: &Fields<'_>) -> bool {
    let names_none = |key: &Key| fields.given(*key).is_none();
    match fields.dialect {
        Dialect::CertManager => false,
        Dialect::CsiDriverSpiffe => true,
        Dialect::Certlet => {
            fields.defaults.issuer.is_configured()
                && [Key::IssuerName, Key::IssuerKind, Key::IssuerGroup].iter().all(names_none)
        }
    }
}

/// The issuer that the volume names.
fn issuer(fields: &mut Fields<'_>) -> Option<IssuerRef> {
    let accepted = match fields.dialect {
        Dialect::CertManager | Dialect::CsiDriverSpiffe => "the name of a cert-manager issuer",
        Dialect::Certlet => "the name of a cert-manager issuer; or another signer in csi.certlet.io/signer",
    };
    // csi-driver takes any text, and the API server judges it.
    let name = fields.required(Key::IssuerName, accepted, names::resource_name, names::subject_text);
    let kind = fields.checked_or(Key::IssuerKind, names::kind, names::subject_text);
    let group = fields.checked_or(Key::IssuerGroup, names::resource_name, names::subject_text);
    Some(IssuerRef { name: name?, kind: kind?, group: group? })
}

fn private_ca(fields: &mut Fields<'_>) -> Option<PcaRequest> {
    let key = Key::CertificateAuthorityArn;
    let authority =
        fields.required(key, key.row().rule, arn::certificate_authority, arn::certificate_authority);
    // The values that `IssueCertificate` accepts for an RSA or ECDSA CA.
    let signing_algorithm = fields.checked(Key::SigningAlgorithm, |text| match text.split_once("WITH") {
        Some(("SHA256" | "SHA384" | "SHA512", "ECDSA" | "RSA")) => Ok(text.to_owned()),
        _ => Err("is not a signing algorithm".into()),
    });
    let template_arn = fields.checked(Key::TemplateArn, arn::template);
    let caller = private_ca_caller(fields);
    Some(PcaRequest {
        certificate_authority_arn: authority?,
        signing_algorithm,
        template_arn,
        caller: caller?,
    })
}

fn private_ca_caller(fields: &mut Fields<'_>) -> Option<PcaCaller> {
    if !fields.switch(Key::UsePodIdentity)? {
        return Some(fields.checked(Key::RoleArn, arn::role).map_or(PcaCaller::Driver, PcaCaller::Role));
    }
    let problem =
        "cannot be combined with use-pod-identity: \"true\", which uses the role of the pod's association";
    fields.refuse(&[Key::RoleArn], problem, "only one of the two");
    Some(PcaCaller::PodIdentity)
}

fn subject(fields: &mut Fields<'_>) -> Option<Subject> {
    if fields.given(Key::LiteralSubject).is_some() {
        let excluded: Vec<_> =
            TABLE.iter().filter(|row| row.options.part_of_subject).map(|row| row.key).collect();
        match fields.dialect {
            Dialect::Certlet => {
                let problem = "cannot be combined with literal-subject, which is the whole subject";
                fields.refuse(&excluded, problem, "only one of the two");
            }
            Dialect::CertManager | Dialect::CsiDriverSpiffe => {
                fields.ignore(&excluded, "is ignored, because literal-subject is the whole subject");
            }
        }
        let literal = fields.checked_or(Key::LiteralSubject, str::parse, distinguished_name::as_go);
        return literal.map(Subject::Literal);
    }
    Some(Subject::Fields(SubjectFields {
        common_name: fields.checked_or(Key::CommonName, names::common_name, names::any_text),
        organizations: texts(fields, Key::Organizations, names::common_name),
        organizational_units: texts(fields, Key::OrganizationalUnits, names::common_name),
        countries: texts(fields, Key::Countries, names::country),
        provinces: texts(fields, Key::Provinces, names::locality),
        localities: texts(fields, Key::Localities, names::locality),
        street_addresses: texts(fields, Key::StreetAddresses, names::locality),
        postal_codes: texts(fields, Key::PostalCodes, names::postal_code),
        serial_number: fields.checked_or(Key::SerialNumber, names::serial_number, names::any_text),
    }))
}

/// The elements of a list in the subject. Under a peer's prefix spaces stay, and empty elements are left out: no certificate may
/// hold an empty value (RFC 5280 appendix A.1), and some programs refuse to read one.
fn texts(fields: &mut Fields<'_>, key: Key, check: impl Fn(&str) -> Result<String, String>) -> Vec<String> {
    // In our own dialect it was quoted, and is meant.
    let is_peers = fields.dialect.is_peers();
    let check = |text: &str| match text {
        "" => Err(EMPTY.to_owned()),
        _ if is_peers && text != text.trim() => {
            Err("begins or ends with white space, which stays".to_owned())
        }
        _ => check(text).map(Some),
    };
    let any = |text: &str| names::any_text(text).map(|text| Some(text).filter(|text| !text.is_empty()));
    fields.list_or(key, list::split_as_csv, check, any).into_iter().flatten().collect()
}

/// DNS names. Under a peer's prefix any ASCII text is one, and empty elements are left out: Java cannot read a certificate with an
/// empty name.
fn dns_names(fields: &mut Fields<'_>) -> Vec<String> {
    let check =
        |name: &str| if name.is_empty() { Err(EMPTY.to_owned()) } else { names::dns_name(name).map(Some) };
    let any = |name: &str| if name.is_empty() { Ok(None) } else { names::any_dns_name(name).map(Some) };
    fields.list_or(Key::DnsNames, list::split_at_commas, check, any).into_iter().flatten().collect()
}

/// A certificate with a SPIFFE ID has no other URI (the X.509-SVID standard, section 2).
fn plain_uris(fields: &mut Fields<'_>) -> Vec<String> {
    let uris = fields.list_or(Key::UriSans, list::split_at_commas, names::plain_uri, names::uri);
    if !fields.is_stored
        && let [_, _, ..] = *uris
        && let Some(id) = uris.iter().find(|uri| uri.starts_with("spiffe:"))
    {
        fields.invalid(Key::UriSans, id, "is a SPIFFE ID, and must be the only URI");
    }
    uris
}

/// What is said of an element that is left out.
const EMPTY: &str = "is an empty element of the list, and is left out";

/// The usages in the order given, and their words. A usage that is named twice, or also by its alias, counts once.
fn usages(fields: &mut Fields<'_>) -> (Vec<Usage>, Vec<String>) {
    let given = fields.list(Key::KeyUsages, |word| Ok((Usage::parse(word)?, word.to_owned())));
    let mut usages = Vec::new();
    for (usage, _) in &given {
        if !usages.contains(usage) {
            usages.push(*usage);
        }
    }
    let words = match fields.dialect {
        Dialect::CertManager | Dialect::CsiDriverSpiffe => given.into_iter().map(|(_, word)| word).collect(),
        Dialect::Certlet => usages.iter().map(|usage| usage.as_str().to_owned()).collect(),
    };
    (usages, words)
}

fn owner(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|user| *user <= MAX_ID).ok_or_else(|| "is not a user id".into())
}

fn group(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(group @ 0..=MAX_ID) => Ok(group),
        _ => Err("is not a group id".into()),
    }
}

/// With the highest number, the `chown(2)` of cert-manager's csi-driver changes nothing.
fn any_group(text: &str) -> Result<Option<u32>, String> {
    match text.parse() {
        Ok(u32::MAX) => Ok(None),
        _ => group(text).map(Some),
    }
}

/// csi-driver-spiffe takes no group of root.
fn positive(group: u32) -> Result<u32, String> {
    if group == 0 { Err("is the group of root".into()) } else { Ok(group) }
}

fn any_positive_group(text: &str) -> Result<Option<u32>, String> {
    any_group(text)?.map(positive).transpose()
}

/// cert-manager's csi-driver takes zero and less, and then renews at the end or later.
fn no_renew_before(text: &str) -> Result<Option<Duration>, String> {
    let unsigned = text.trim_start_matches('-');
    match (parse_duration(text), parse_duration(unsigned)) {
        (Ok(duration), _) => Ok(Some(duration)),
        (Err(_), Ok(_)) => Ok(None),
        (Err(_), Err(problem)) if problem == "is zero" => Ok(None),
        (Err(problem), _) => Err(problem),
    }
}

fn key(fields: &mut Fields<'_>) -> Option<KeySpec> {
    let reuse = fields.switch(Key::ReusePrivateKey);
    let given_encoding = fields.checked(Key::KeyEncoding, |text| {
        KeyEncoding::from_name(&text.to_ascii_uppercase()).ok_or_else(|| "is not an encoding".into())
    });
    let default = fields.checked(Key::KeyAlgorithm, |name| {
        let mut all = KeyAlgorithm::ALL.into_iter();
        let first = all.find(|algorithm| algorithm.family_and_bits().0.eq_ignore_ascii_case(name));
        first.ok_or_else(|| "is not a key algorithm".into())
    })?;
    let algorithm = match fields.given(Key::KeySize) {
        Some(_) => {
            fields.checked_or(Key::KeySize, |size| sized(default, size), |size| any_size(default, size))
        }
        None => Some(default),
    };
    let is_rsa = default == KeyAlgorithm::Rsa(2048);
    let encoding = match (given_encoding, fields.dialect) {
        (Some(encoding), _) => encoding,
        (None, Dialect::CertManager) if is_rsa => KeyEncoding::Pkcs1,
        (None, _) => KeyEncoding::Pkcs8,
    };
    if encoding == KeyEncoding::Pkcs1 && !is_rsa {
        let value = fields.given(Key::KeyEncoding).unwrap_or_default();
        fields.invalid(Key::KeyEncoding, value, "is for RSA keys only");
    }
    Some(KeySpec { algorithm: algorithm?, encoding, reuse: reuse? })
}

/// cert-manager's csi-driver makes RSA keys of every size within the range. Here they have the next smaller multiple of 128 bits.
fn any_size(default: KeyAlgorithm, size: &str) -> Result<KeyAlgorithm, String> {
    match (default, size.parse()) {
        (KeyAlgorithm::Rsa(_), Ok(bits)) if KeyAlgorithm::RSA_BITS.contains(&bits) => {
            Ok(KeyAlgorithm::Rsa(bits / 128 * 128))
        }
        _ => sized(default, size),
    }
}

/// The algorithm of the same family with another size.
fn sized(default: KeyAlgorithm, size: &str) -> Result<KeyAlgorithm, String> {
    let bits: u32 = size.parse().map_err(|_| "is not a number")?;
    let (family, default_bits) = default.family_and_bits();
    if default_bits.is_none() {
        return Err(format!("is set, but an {family} key has only one size"));
    }
    KeyAlgorithm::sized(family, bits).ok_or_else(|| format!("is not a supported size of an {family} key"))
}
