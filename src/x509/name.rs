//! Distinguished names (RFC 5280 section 4.1.2.4): encoded, and shown to people.

use crate::model::{Dialect, Escape, KEYWORDS, NameValue, Subject, rfc4514};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc3280::EMAIL_ADDRESS;
use const_oid::db::rfc4519::{C, CN, DC, L, O, OU, POSTAL_CODE, SERIAL_NUMBER, ST, STREET};
use der::asn1::{Any, PrintableStringRef};
use der::{Decode, Encode, Tag};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_parser::asn1_rs::ToDer;
use x509_parser::x509::X509Name;

/// Names of other attribute types that are common in the certificates of CAs.
const MORE_NAMES: [(&str, ObjectIdentifier); 2] =
    [("POSTALCODE", POSTAL_CODE), ("EMAILADDRESS", EMAIL_ADDRESS)];

/// The subject as a `Name`. Under the peer's prefix it has the same bytes as cert-manager's csi-driver's.
pub(crate) fn encode(subject: &Subject, dialect: Dialect) -> der::Result<Name> {
    let mut sequence = RdnSequence::default();
    for attributes in relative_names(subject, dialect) {
        // Sorted once. `insert` sorts all again each time, and a part can have thousands of attributes.
        let attributes = attributes.into_iter().collect::<der::Result<Vec<_>>>()?;
        sequence.push(RelativeDistinguishedName::try_from(attributes)?);
    }
    Name::from_der(&sequence.to_der()?)
}

/// The attributes of each relative distinguished name, in the order of a `Name`.
fn relative_names(subject: &Subject, dialect: Dialect) -> Vec<Vec<der::Result<AttributeTypeAndValue>>> {
    let attribute = |oid, value: &NameValue| attribute(oid, value, dialect);
    let fields = match subject {
        Subject::Fields(fields) => fields,
        // In RFC 4514 the most specific part is the first, in a `Name` the last.
        Subject::Literal(name) => {
            let parts = name.parts.iter().rev();
            return parts.map(|part| part.iter().map(|it| attribute(it.oid, &it.value)).collect()).collect();
        }
    };
    // In the order of Go's `pkix.Name.ToRDNSequence`, like cert-manager's csi-driver.
    let types: [(ObjectIdentifier, &[String]); 9] = [
        (C, &fields.countries),
        (ST, &fields.provinces),
        (L, &fields.localities),
        (STREET, &fields.street_addresses),
        (POSTAL_CODE, &fields.postal_codes),
        (O, &fields.organizations),
        (OU, &fields.organizational_units),
        (CN, fields.common_name.as_slice()),
        (SERIAL_NUMBER, fields.serial_number.as_slice()),
    ];
    let used = types.into_iter().filter(|(_, values)| !values.is_empty());
    let parts = used.map(|(oid, values)| {
        values.iter().map(|value| attribute(oid, &NameValue::Text(value.clone()))).collect()
    });
    match dialect {
        // One part for each type, as in Go.
        Dialect::CertManager | Dialect::CsiDriverSpiffe => parts.collect(),
        // One part for each value, in the order written.
        Dialect::Certlet => parts.flat_map(|part: Vec<_>| part).map(|attribute| vec![attribute]).collect(),
    }
}

fn attribute(
    oid: ObjectIdentifier,
    value: &NameValue,
    dialect: Dialect,
) -> der::Result<AttributeTypeAndValue> {
    let value = match value {
        NameValue::Text(text) => {
            // RFC 5280 appendix A.1: the values of these two types are IA5String, not DirectoryString.
            let is_ia5 = [DC, EMAIL_ADDRESS].contains(&oid) && dialect == Dialect::Certlet;
            let tag = if is_ia5 && text.is_ascii() {
                Tag::Ia5String
            } else if PrintableStringRef::new(text).is_ok() {
                Tag::PrintableString
            } else {
                Tag::Utf8String
            };
            Any::new(tag, text.as_bytes())?
        }
        NameValue::Der(der) => Any::from_der(der)?,
    };
    Ok(AttributeTypeAndValue { oid, value })
}

/// A parsed name as an RFC 4514 string. Control characters are escaped, because the string may go to a log.
pub(crate) fn to_rfc4514(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let parts = rdns.into_iter().rev().map(|rdn| {
        rdn.iter().map(|attribute| {
            let dotted = attribute.attr_type().to_id_string();
            let known = KEYWORDS.iter().chain(&MORE_NAMES).find(|(_, oid)| oid.to_string() == dotted);
            match (known, attribute.as_str()) {
                (Some((short, _)), Ok(value)) => ((*short).to_owned(), NameValue::Text(value.to_owned())),
                _ => (dotted, NameValue::Der(attribute.attr_value().to_der_vec().unwrap_or_default())),
            }
        })
    });
    rfc4514(parts, Escape::Readable)
}

/// The attributes of one relative distinguished name, in a fixed order: dotted type, value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<(String, Vec<u8>)>);

/// A parsed name by its values: the types of strings do not count, nor does the order within one part.
pub(crate) fn attributes(name: &X509Name<'_>) -> Vec<Attributes> {
    let parts = name.iter_rdn().map(|rdn| {
        let values = rdn.iter().map(|attribute| {
            let value = attribute.as_str().map(|text| text.as_bytes().to_vec());
            let der = || attribute.attr_value().to_der_vec().unwrap_or_default();
            (attribute.attr_type().to_id_string(), value.unwrap_or_else(|_| der()))
        });
        let mut values: Vec<_> = values.collect();
        values.sort();
        Attributes(values)
    });
    parts.collect()
}

/// The common name, if the part holds nothing else.
pub(crate) fn common_name(part: &Attributes) -> Option<&str> {
    match part.0.as_slice() {
        [(oid, value)] if *oid == CN.to_string() => std::str::from_utf8(value).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
