//! Passwords under mistyped names. Under a peer's prefix, certlet copies other keys to the CertificateRequest as annotations,
//! which everybody who may read requests can see. So a key that looks like a password's is never copied and never kept.

use super::fields::dialect;
use super::rows::TABLE;
use crate::model::{Dialect, RawAttributes};
use zeroize::Zeroize;

/// A name with more wrong letters than this is not a mistyped name of an attribute that holds a password.
const MAX_DISTANCE: usize = 2;

/// Longer names are not near any attribute's.
const MAX_NAME_BYTES: usize = 64;

/// Whether a key that is no attribute of `dialect` may hold a password: "password" is in it, or it is nearly
/// the name of an attribute that holds one.
pub(super) fn may_hold_password(key: &str, dialect: Dialect) -> bool {
    let (prefix, name) = key.split_once('/').unwrap_or(("", key));
    let is_attribute = || TABLE.iter().any(|row| row.name == name && row.belongs_to(dialect));
    // With our own prefix it is an attribute, or is refused.
    if prefix == dialect.prefix() && (dialect == Dialect::Certlet || is_attribute()) {
        return false;
    }
    let name = name.to_ascii_lowercase();
    let mut secrets = TABLE.iter().filter(|row| row.options.secret);
    key.to_ascii_lowercase().contains("password")
        || name.len() <= MAX_NAME_BYTES
            && secrets.any(|row| strsim::levenshtein(&name, row.name) <= MAX_DISTANCE)
}

/// Takes such attributes out of a volume with a peer's prefix, and returns their keys. With certlet's own prefix they stay:
/// [`parse`](super::parse()) refuses them. `usual` is the prefix of volumes without attributes.
pub(crate) fn take_mistyped(raw: &mut RawAttributes, usual: Dialect) -> Vec<String> {
    let Some(dialect) = dialect(raw, usual).ok().filter(|dialect| dialect.is_peers()) else {
        return Vec::new();
    };
    let taken = raw.map_mut().extract_if(.., |key, _| may_hold_password(key, dialect));
    taken
        .map(|(key, mut value)| {
            value.zeroize();
            key
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(attributes: &[(&str, &str)]) -> RawAttributes {
        attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_password_under_a_mistyped_name_is_taken_out() {
        for key in [
            "csi.cert-manger.io/pkcs12-password",
            "csi.certlet.oi/PKCS12-PASSWORD",
            "example.com/db_password_hash",
            "password.example.com/x",
            "csi.cert-manger.io/pkcs12-passwrod",
            "csi.cert-manger.io/pkcs12-pasword",
            "csi.cert-manager.io/pkcs12-pasword",
            "csi.cert-manager.io/keystore-password",
            "pkcs12-password",
        ] {
            let mut attributes = raw(&[
                ("csi.cert-manager.io/issuer-name", "ca"),
                (key, "hunter2"),
                ("example.com/team", "shop"),
            ]);
            assert_eq!(take_mistyped(&mut attributes, Dialect::Certlet), [key]);
            assert!(!serde_json::to_string(&attributes).unwrap().contains("hunter2"), "{key}");
            assert_eq!(attributes.map().len(), 2, "{key}");
        }
    }

    #[test]
    fn known_attributes_and_other_annotations_stay() {
        let mut attributes = raw(&[
            ("csi.cert-manager.io/pkcs12-password", "hunter2"),
            ("csi.cert-manager.io/pkcs12-filename", "x"),
            ("example.com/passed", "yes"),
        ]);
        assert_eq!(take_mistyped(&mut attributes, Dialect::Certlet), [""; 0]);
        assert_eq!(attributes.map().len(), 3);
    }
}
