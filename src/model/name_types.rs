//! The attribute types of distinguished names (RFC 4519), and the keywords of their string form.

use const_oid::ObjectIdentifier;

pub(crate) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
pub(crate) const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");
pub(crate) const COUNTRY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.6");
pub(crate) const LOCALITY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.7");
pub(crate) const PROVINCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.8");
pub(crate) const STREET: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.9");
pub(crate) const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
pub(crate) const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
pub(crate) const POSTAL_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.17");
pub(crate) const DOMAIN_COMPONENT: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25");
pub(crate) const USER_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");

/// The keywords that cert-manager supports: those of RFC 4514 section 3 and `SERIALNUMBER`. Other types are written as
/// dotted object identifiers.
pub(crate) const KEYWORDS: [(&str, ObjectIdentifier); 10] = [
    ("CN", COMMON_NAME),
    ("C", COUNTRY),
    ("L", LOCALITY),
    ("ST", PROVINCE),
    ("STREET", STREET),
    ("O", ORGANIZATION),
    ("OU", ORGANIZATIONAL_UNIT),
    ("DC", DOMAIN_COMPONENT),
    ("UID", USER_ID),
    ("SERIALNUMBER", SERIAL_NUMBER),
];
