//! From the author's attributes to the certificate spec.

use super::errors::AttributeErrors;
use super::fields::Fields;
use super::rows::{Key, TABLE};
use super::values::{arn, names};
use crate::model::{
    CertificateSpec, Dialect, IssuerRef, KeyAlgorithm, KeyEncoding, KeySpec, PcaCaller, PcaRequest,
    RawAttributes, SignerKind, SignerSpec, Subject, SubjectAltNames, SubjectFields, Usage, WorkloadIdentity,
};

/// The highest group id. `chown(2)` takes the number above it as "no change".
const MAX_GROUP: u32 = u32::MAX - 1;

/// Reads the author's attributes, with the defaults of their prefix and with the pod's variables replaced. The error lists
/// all faults.
pub fn parse(raw: &RawAttributes, pod: &WorkloadIdentity) -> Result<CertificateSpec, AttributeErrors> {
    let mut fields = Fields::new(raw, pod)?;
    match spec(&mut fields) {
        Some(spec) if fields.faults.is_empty() => Ok(spec),
        _ => Err(AttributeErrors::new(fields.faults)),
    }
}

/// Reads every attribute before it gives up, so that all faults are collected.
fn spec(fields: &mut Fields<'_>) -> Option<CertificateSpec> {
    let signer = signer(fields);
    let subject = subject(fields);
    let sans = SubjectAltNames {
        dns_names: fields.list(Key::DnsNames, names::dns_name),
        uris: fields.list(
            Key::UriSans,
            if fields.dialect == Dialect::Certlet { names::plain_uri } else { names::uri },
        ),
        ip_addresses: fields.list(Key::IpSans, names::ip_address),
    };
    let duration = fields.duration(Key::Duration);
    let renew_before = fields.duration(Key::RenewBefore);
    let is_ca = fields.switch(Key::IsCa);
    let usages = usages(fields);
    let key = key(fields);
    let files = super::files::files(fields);
    let fs_group = fields.checked(Key::FsGroup, |text| match text.parse() {
        Ok(group @ 1..=MAX_GROUP) => Ok(group),
        _ => Err("is not a group id".into()),
    });
    Some(CertificateSpec {
        dialect: fields.dialect,
        signer: signer?,
        subject: subject?,
        sans,
        duration: duration?,
        is_ca: is_ca?,
        usages,
        key: key?,
        files: files?,
        fs_group,
        renew_before,
    })
}

/// The signer with its own attributes. Attributes of the other signers are refused.
fn signer(fields: &mut Fields<'_>) -> Option<SignerSpec> {
    let kind = match fields.dialect {
        Dialect::CertManager => SignerKind::CertManager,
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
            let issuer = issuer(fields);
            let annotations = std::mem::take(&mut fields.annotations);
            Some(SignerSpec::CertManager { issuer: issuer?, annotations })
        }
        SignerKind::AcmPca => private_ca(fields).map(SignerSpec::AcmPca),
        SignerKind::Local => Some(SignerSpec::Local),
    }
}

fn issuer(fields: &mut Fields<'_>) -> Option<IssuerRef> {
    let accepted = match fields.dialect {
        Dialect::CertManager => "the name of a cert-manager issuer",
        Dialect::Certlet => "the name of a cert-manager issuer; or another signer in csi.certlet.io/signer",
    };
    let name = fields.required(Key::IssuerName, accepted, names::resource_name);
    let kind = fields.checked(Key::IssuerKind, names::kind);
    let group = fields.checked(Key::IssuerGroup, names::resource_name);
    Some(IssuerRef { name: name?, kind: kind?, group: group? })
}

fn private_ca(fields: &mut Fields<'_>) -> Option<PcaRequest> {
    let key = Key::CertificateAuthorityArn;
    let authority = fields.required(key, key.row().rule, arn::certificate_authority);
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
        let problem = "cannot be combined with literal-subject, which is the whole subject";
        let excluded: Vec<_> =
            TABLE.iter().filter(|row| row.options.part_of_subject).map(|row| row.key).collect();
        fields.refuse(&excluded, problem, "only one of the two");
        return fields.checked(Key::LiteralSubject, str::parse).map(Subject::Literal);
    }
    Some(Subject::Fields(SubjectFields {
        common_name: fields.checked(Key::CommonName, names::common_name),
        organizations: fields.list(Key::Organizations, names::subject_text),
        organizational_units: fields.list(Key::OrganizationalUnits, names::subject_text),
        countries: fields.list(Key::Countries, names::printable),
        provinces: fields.list(Key::Provinces, names::subject_text),
        localities: fields.list(Key::Localities, names::subject_text),
        street_addresses: fields.list(Key::StreetAddresses, names::subject_text),
        postal_codes: fields.list(Key::PostalCodes, names::subject_text),
        serial_number: fields.checked(Key::SerialNumber, names::printable),
    }))
}

/// The usages in the order given. A usage that is named twice, or also by its alias, counts once.
fn usages(fields: &mut Fields<'_>) -> Vec<Usage> {
    let mut usages = Vec::new();
    for usage in fields.list(Key::KeyUsages, Usage::parse) {
        if !usages.contains(&usage) {
            usages.push(usage);
        }
    }
    usages
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
        Some(_) => fields.checked(Key::KeySize, |size| sized(default, size)),
        None => Some(default),
    };
    let is_rsa = default == KeyAlgorithm::Rsa2048;
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

/// The algorithm of the same family with another size.
fn sized(default: KeyAlgorithm, size: &str) -> Result<KeyAlgorithm, String> {
    let bits: u32 = size.parse().map_err(|_| "is not a number")?;
    let (family, default_bits) = default.family_and_bits();
    if default_bits.is_none() {
        return Err(format!("is set, but an {family} key has only one size"));
    }
    KeyAlgorithm::sized(family, bits).ok_or_else(|| format!("is not a supported size of an {family} key"))
}
