//! The files that a volume asks for.

use super::fields::Fields;
use super::rows::Key;
use super::values::names::{any_file_name, file_name, subject_text};
use crate::model::{Dialect, Files, Pkcs12, Pkcs12Profile, Truststore};
use secrecy::SecretString;

/// The password of Java's own truststore. It protects nothing: the anchors are in a file of the same volume.
const DEFAULT_TRUSTSTORE_PASSWORD: &str = "changeit";

/// Reads the names of the files, which must all be different.
pub(super) fn files(fields: &mut Fields<'_>) -> Option<Files> {
    let certificate = fields.checked_or(Key::CertificateFile, file_name, any_file_name);
    let private_key = fields.checked_or(Key::PrivateKeyFile, file_name, any_file_name);
    let ca = fields.checked_or(Key::CaFile, file_name, any_file_name);
    let combined = fields.checked_or(Key::CombinedFile, file_name, any_file_name);
    let pkcs12 = pkcs12(fields);
    let truststore = truststore(fields);
    let names = [
        (Key::CertificateFile, certificate.as_deref()),
        (Key::PrivateKeyFile, private_key.as_deref()),
        (Key::CaFile, ca.as_deref()),
        (Key::CombinedFile, combined.as_deref()),
        (Key::Pkcs12Filename, pkcs12.as_ref().map(|pkcs12| pkcs12.file.as_str())),
        (Key::TruststoreFile, truststore.as_ref().map(|truststore| truststore.file.as_str())),
    ];
    refuse_duplicates(fields, &names);
    Some(Files {
        certificate: certificate?,
        private_key: private_key?,
        ca: ca?,
        combined,
        pkcs12,
        truststore,
    })
}

/// Without `pkcs12-enable`, the keystore's other attributes are refused: an author who sets a password expects a keystore.
/// With `pkcs12-enable: "false"` they are ignored.
fn pkcs12(fields: &mut Fields<'_>) -> Option<Pkcs12> {
    let has_truststore = fields.given(Key::TruststoreFile).is_some();
    if fields.given(Key::Pkcs12Enable).is_none() {
        let accepted = format!("remove it, or set {}", Key::Pkcs12Enable.full(fields.dialect));
        fields.refuse(&[Key::Pkcs12Filename, Key::Pkcs12Alias], "is given without pkcs12-enable", &accepted);
        if !has_truststore {
            let of_both = [Key::Pkcs12Password, Key::Pkcs12Profile];
            fields.refuse(&of_both, "is given without pkcs12-enable", &accepted);
        }
        return None;
    }
    let enabled = fields.switch(Key::Pkcs12Enable);
    let file = fields.checked_or(Key::Pkcs12Filename, file_name, any_file_name);
    let alias = fields.checked(Key::Pkcs12Alias, alias);
    if enabled != Some(true) {
        return None;
    }
    let key = Key::Pkcs12Password;
    let password = fields.required(key, key.row().rule, password, any_password);
    let is_ours = fields.dialect == Dialect::Certlet;
    let profile = profile(fields);
    Some(Pkcs12 {
        file: file?,
        password: password?,
        profile: if is_ours { profile? } else { Pkcs12Profile::Legacy },
        alias: if is_ours { Some(alias?) } else { None },
        has_anchors: is_ours,
    })
}

/// The keystore of the trust anchors, if there is to be one.
fn truststore(fields: &mut Fields<'_>) -> Option<Truststore> {
    let file = fields.checked(Key::TruststoreFile, file_name)?;
    let given = fields.given(Key::Pkcs12Password).is_some();
    let password = if given {
        fields.checked(Key::Pkcs12Password, password)?
    } else {
        SecretString::from(DEFAULT_TRUSTSTORE_PASSWORD)
    };
    Some(Truststore { file, password, profile: profile(fields)? })
}

fn profile(fields: &mut Fields<'_>) -> Option<Pkcs12Profile> {
    fields.checked(Key::Pkcs12Profile, |name| {
        Pkcs12Profile::from_name(name).ok_or_else(|| "is not a profile".into())
    })
}

/// Java cannot open a keystore whose password is not ASCII, and a line break at its end is YAML's.
fn password(text: &str) -> Result<SecretString, String> {
    match text.chars().find(|c| !matches!(c, ' '..='~')) {
        Some(c) if c.is_control() => {
            Err("has a control character (YAML's | adds a line break; write the password in quotes)".into())
        }
        Some(_) => Err("is not ASCII, so Java cannot open the keystore".into()),
        None => Ok(SecretString::from(text.to_owned())),
    }
}

/// cert-manager's csi-driver takes what the keystore's encoding can hold: UTF-16 without surrogates.
fn any_password(text: &str) -> Result<SecretString, String> {
    if text.chars().any(|c| u32::from(c) > 0xffff) {
        return Err(
            "has a character outside Unicode's basic plane, which a keystore's password cannot have".into()
        );
    }
    Ok(SecretString::from(text.to_owned()))
}

fn alias(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=64 => subject_text(text),
        length => Err(format!("is {length} characters long")),
    }
}

fn refuse_duplicates(fields: &mut Fields<'_>, names: &[(Key, Option<&str>)]) {
    for (index, (key, name)) in names.iter().enumerate() {
        for (other, _) in names[..index].iter().filter(|(_, other)| name.is_some() && name == other) {
            // The message names an attribute that the author wrote, not a default.
            let (wrong, same) = if fields.given(*key).is_some() { (*key, *other) } else { (*other, *key) };
            let problem = format!("is also the name of {}", same.full(fields.dialect));
            fields.invalid(wrong, name.unwrap_or_default(), &problem);
        }
    }
}
