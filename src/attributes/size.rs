//! Foresees that a certificate with a volume's names would be longer than a signer's answer may be.

use super::errors::{AttributeError, AttributeErrors};
use super::rows::Key;
use crate::model::{CertificateSpec, Subject, SubjectAltNames, SubjectFields};

/// An error if the names of a volume take more than `limit` bytes in its certificate. `measure` gives the bytes of a subject and of
/// alternative names, as a signing request encodes them. It is not for a volume that was published before.
pub(crate) fn check_names(
    spec: &CertificateSpec,
    limit: usize,
    measure: impl Fn(&Subject, &SubjectAltNames) -> usize,
) -> Result<(), AttributeErrors> {
    let bytes = measure(&spec.subject, &spec.sans);
    if bytes <= limit {
        return Ok(());
    }
    let mut parts: Vec<_> = subject_parts(&spec.subject)
        .into_iter()
        .map(|(key, subject)| (measure(&subject, &SubjectAltNames::default()), key))
        .chain(alternative_parts(spec).map(|(key, sans)| (measure(&no_subject(), &sans), key)))
        .filter(|(bytes, _)| *bytes > measure(&no_subject(), &SubjectAltNames::default()))
        .collect();
    parts.sort_by(|(one, _), (other, _)| other.cmp(one));
    let shares: Vec<_> = parts.iter().map(|(bytes, key)| format!("{} {bytes}", key.row().name)).collect();
    let problem = format!("the names take {bytes} bytes in the certificate ({})", shares.join(", "));
    let largest = parts.first().map_or(Key::DnsNames, |(_, key)| *key);
    let accepted = format!("at most {limit} bytes (DER) for all names of a certificate together");
    Err(AttributeErrors::new(vec![AttributeError::new(largest.full(spec.dialect), problem, accepted)]))
}

fn no_subject() -> Subject {
    Subject::Fields(SubjectFields::default())
}

/// The subject of each attribute alone.
fn subject_parts(subject: &Subject) -> Vec<(Key, Subject)> {
    let fields = match subject {
        Subject::Literal(_) => return vec![(Key::LiteralSubject, subject.clone())],
        Subject::Fields(fields) => fields.clone(),
    };
    let SubjectFields {
        common_name,
        organizations,
        organizational_units,
        countries,
        provinces,
        localities,
        street_addresses,
        postal_codes,
        serial_number,
    } = fields;
    let parts = [
        (Key::CommonName, SubjectFields { common_name, ..Default::default() }),
        (Key::Organizations, SubjectFields { organizations, ..Default::default() }),
        (Key::OrganizationalUnits, SubjectFields { organizational_units, ..Default::default() }),
        (Key::Countries, SubjectFields { countries, ..Default::default() }),
        (Key::Provinces, SubjectFields { provinces, ..Default::default() }),
        (Key::Localities, SubjectFields { localities, ..Default::default() }),
        (Key::StreetAddresses, SubjectFields { street_addresses, ..Default::default() }),
        (Key::PostalCodes, SubjectFields { postal_codes, ..Default::default() }),
        (Key::SerialNumber, SubjectFields { serial_number, ..Default::default() }),
    ];
    parts.into_iter().map(|(key, fields)| (key, Subject::Fields(fields))).collect()
}

/// The alternative names of each attribute alone.
fn alternative_parts(spec: &CertificateSpec) -> impl Iterator<Item = (Key, SubjectAltNames)> {
    let SubjectAltNames { dns_names, uris, ip_addresses, emails } = spec.sans.clone();
    let is_of_service = |name: &String| {
        let first = name.split('.').next().unwrap_or_default();
        spec.services.iter().any(|service| service == first)
    };
    let (of_services, dns_names) = dns_names.into_iter().partition(is_of_service);
    [
        (Key::Services, SubjectAltNames { dns_names: of_services, ..Default::default() }),
        (Key::DnsNames, SubjectAltNames { dns_names, ..Default::default() }),
        (Key::UriSans, SubjectAltNames { uris, ..Default::default() }),
        (Key::IpSans, SubjectAltNames { ip_addresses, ..Default::default() }),
        (Key::EmailSans, SubjectAltNames { emails, ..Default::default() }),
    ]
    .into_iter()
}
