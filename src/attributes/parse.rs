//! From the author's attributes to the typed ones.

use super::errors::AttributeErrors;
use super::fields::Fields;
use super::sorted::Sorted;
use super::table::Key;
use super::values::{arn, distinguished_name, names};
use super::{
    Attributes, Dialect, IssuerRef, KeyAlgorithm, KeyEncoding, KeySpec, PcaCaller, PcaRequest, PodIdentity,
    RawAttributes, SignerKind, Subject, SubjectAltNames, SubjectFields, Usage,
};

/// The largest group id; the one above it is `chown(2)`'s "leave it as it is".
const LARGEST_GROUP: u32 = u32::MAX - 1;

/// What `IssueCertificate` takes for an RSA or ECDSA CA.
const SIGNING_ALGORITHMS: [&str; 6] = [
    "SHA256WITHECDSA",
    "SHA384WITHECDSA",
    "SHA512WITHECDSA",
    "SHA256WITHRSA",
    "SHA384WITHRSA",
    "SHA512WITHRSA",
];

impl Attributes {
    /// Reads the author's attributes, with the defaults of their dialect and the pod's variables in them. All faults are reported
    /// together.
    pub fn parse(raw: &RawAttributes, pod: &PodIdentity) -> Result<Self, AttributeErrors> {
        let sorted = Sorted::new(raw).map_err(AttributeErrors::new)?;
        let (mut fields, annotations) = Fields::new(sorted, pod);
        let signer = signer(&mut fields);
        let issuer = signer.and_then(|signer| issuer(&mut fields, signer));
        let pca = signer.and_then(|signer| private_ca(&mut fields, signer));
        let subject = subject(&mut fields);
        let sans = SubjectAltNames {
            dns_names: fields.list(Key::DnsNames, names::dns_name),
            uris: fields.list(Key::UriSans, names::uri),
            ip_addresses: fields.list(Key::IpSans, names::ip_address),
        };
        let duration = fields.duration(Key::Duration);
        let renew_before = fields.duration(Key::RenewBefore);
        let is_ca = fields.switch(Key::IsCa);
        let usages = usages(&mut fields);
        let key = key(&mut fields);
        let files = super::files::files(&mut fields);
        let fs_group = fields.checked(Key::FsGroup, |text| match text.parse() {
            Ok(group @ 1..=LARGEST_GROUP) => Ok(group),
            _ => Err("is not a group id".into()),
        });
        let dialect = fields.dialect;
        match (signer, subject, duration, is_ca, key, files) {
            (Some(signer), Some(subject), Some(duration), Some(is_ca), Some(key), Some(files))
                if fields.faults.is_empty() =>
            {
                Ok(Self {
                    dialect,
                    signer,
                    issuer,
                    subject,
                    sans,
                    duration,
                    is_ca,
                    usages,
                    key,
                    files,
                    fs_group,
                    renew_before,
                    annotations,
                    pca,
                })
            }
            _ => Err(AttributeErrors::new(fields.faults)),
        }
    }
}

fn signer(fields: &mut Fields<'_>) -> Option<SignerKind> {
    if fields.dialect == Dialect::CertManager {
        return Some(SignerKind::CertManager);
    }
    fields.checked(Key::Signer, |text| {
        SignerKind::ALL
            .into_iter()
            .find(|signer| signer.as_str() == text)
            .ok_or_else(|| "is not a signer".into())
    })
}

fn issuer(fields: &mut Fields<'_>, signer: SignerKind) -> Option<IssuerRef> {
    if signer != SignerKind::CertManager {
        let problem = format!("has no meaning with the signer {signer}");
        let keys = [Key::IssuerName, Key::IssuerKind, Key::IssuerGroup];
        fields.refuse(&keys, &problem, "leave it out, or set the signer cert-manager");
        return None;
    }
    if fields.given(Key::IssuerName).is_none() {
        let other = match fields.dialect {
            Dialect::CertManager => String::new(),
            Dialect::Certlet => format!("; or another signer in {}", Key::Signer.full(Dialect::Certlet)),
        };
        fields.missing(Key::IssuerName, format!("the name of a cert-manager issuer{other}"));
    }
    let name = fields.checked(Key::IssuerName, names::resource_name);
    let kind = fields.checked(Key::IssuerKind, names::kind);
    let group = fields.checked(Key::IssuerGroup, names::resource_name);
    Some(IssuerRef { name: name?, kind: kind?, group: group? })
}

fn private_ca(fields: &mut Fields<'_>, signer: SignerKind) -> Option<PcaRequest> {
    if signer != SignerKind::AcmPca {
        let problem = format!("has no meaning with the signer {signer}");
        let keys = [
            Key::CertificateAuthorityArn,
            Key::SigningAlgorithm,
            Key::TemplateArn,
            Key::RoleArn,
            Key::UsePodIdentity,
        ];
        fields.refuse(&keys, &problem, "leave it out, or set the signer acm-pca");
        return None;
    }
    if fields.given(Key::CertificateAuthorityArn).is_none() {
        fields.missing(Key::CertificateAuthorityArn, Key::CertificateAuthorityArn.row().rule.into());
    }
    let authority = fields.checked(Key::CertificateAuthorityArn, arn::certificate_authority);
    let signing_algorithm = fields.checked(Key::SigningAlgorithm, |text| {
        let known = SIGNING_ALGORITHMS.contains(&text);
        known.then(|| text.to_owned()).ok_or_else(|| "is not a signing algorithm".into())
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
    let problem = "stands beside use-pod-identity: \"true\", which takes the role from the pod's association";
    fields.refuse(&[Key::RoleArn], problem, "one or the other");
    Some(PcaCaller::PodIdentity)
}

fn subject(fields: &mut Fields<'_>) -> Option<Subject> {
    if fields.given(Key::LiteralSubject).is_some() {
        let others = [
            Key::CommonName,
            Key::Organizations,
            Key::OrganizationalUnits,
            Key::Countries,
            Key::Provinces,
            Key::Localities,
            Key::StreetAddresses,
            Key::PostalCodes,
            Key::SerialNumber,
        ];
        fields.refuse(
            &others,
            "stands beside literal-subject, which is the whole subject",
            "one or the other",
        );
        return fields.checked(Key::LiteralSubject, distinguished_name::parse).map(Subject::Literal);
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

/// The usages in the order given; one that is named twice, or under its alias as well, counts once.
fn usages(fields: &mut Fields<'_>) -> Vec<Usage> {
    let mut usages = Vec::new();
    for usage in fields.list(Key::KeyUsages, Usage::parse) {
        if !usages.contains(&usage) {
            usages.push(usage);
        }
    }
    usages
}

/// The families of private keys; sizes and encodings depend on them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Rsa,
    Ecdsa,
    Ed25519,
}

impl Family {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Rsa, "RSA"), (Self::Ecdsa, "ECDSA"), (Self::Ed25519, "Ed25519")];

    fn parse(text: &str) -> Result<Self, String> {
        let family = Self::ALL.into_iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        family.map(|(family, _)| family).ok_or_else(|| "is not a key algorithm".into())
    }

    /// The algorithm with a given size, or with the default size.
    fn sized(self, size: Option<&str>) -> Result<KeyAlgorithm, String> {
        let bits = match size {
            Some(text) => Some(text.parse::<u32>().map_err(|_| "is not a number")?),
            None => None,
        };
        match (self, bits) {
            (Self::Rsa, None | Some(2048)) => Ok(KeyAlgorithm::Rsa2048),
            (Self::Rsa, Some(3072)) => Ok(KeyAlgorithm::Rsa3072),
            (Self::Rsa, Some(4096)) => Ok(KeyAlgorithm::Rsa4096),
            (Self::Rsa, Some(_)) => Err("is no size of an RSA key here".into()),
            (Self::Ecdsa, None | Some(256)) => Ok(KeyAlgorithm::EcdsaP256),
            (Self::Ecdsa, Some(384)) => Ok(KeyAlgorithm::EcdsaP384),
            (Self::Ecdsa, Some(521)) => Ok(KeyAlgorithm::EcdsaP521),
            (Self::Ecdsa, Some(_)) => Err("is no size of an ECDSA key".into()),
            (Self::Ed25519, None) => Ok(KeyAlgorithm::Ed25519),
            (Self::Ed25519, Some(_)) => Err("is given though an Ed25519 key has only one size".into()),
        }
    }
}

fn key(fields: &mut Fields<'_>) -> Option<KeySpec> {
    let reuse = fields.switch(Key::ReusePrivateKey);
    let given_encoding = fields.checked(Key::KeyEncoding, |text| match text.to_ascii_uppercase().as_str() {
        "PKCS1" => Ok(KeyEncoding::Pkcs1),
        "PKCS8" => Ok(KeyEncoding::Pkcs8),
        _ => Err("is not an encoding".into()),
    });
    let family = fields.checked(Key::KeyAlgorithm, Family::parse)?;
    let size = fields.given(Key::KeySize);
    let algorithm = family
        .sized(size)
        .map_err(|problem| fields.invalid(Key::KeySize, size.unwrap_or_default(), problem))
        .ok();
    let encoding = match (given_encoding, fields.dialect) {
        (Some(encoding), _) => encoding,
        (None, Dialect::CertManager) if family == Family::Rsa => KeyEncoding::Pkcs1,
        (None, _) => KeyEncoding::Pkcs8,
    };
    if encoding == KeyEncoding::Pkcs1 && family != Family::Rsa {
        let value = fields.given(Key::KeyEncoding).unwrap_or_default();
        fields.invalid(Key::KeyEncoding, value, "is for RSA keys only".into());
    }
    Some(KeySpec { algorithm: algorithm?, encoding, reuse: reuse? })
}
