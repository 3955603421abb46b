//! The files that a volume asks for.

use super::fields::Fields;
use super::rows::Key;
use super::values::names::file_name;
use crate::model::{Files, Pkcs12};
use secrecy::SecretString;

/// Reads the names of the files, which must all be different.
pub(super) fn files(fields: &mut Fields<'_>) -> Option<Files> {
    let certificate = fields.checked(Key::CertificateFile, file_name);
    let private_key = fields.checked(Key::PrivateKeyFile, file_name);
    let ca = fields.checked(Key::CaFile, file_name);
    let combined = fields.checked(Key::CombinedFile, file_name);
    let pkcs12 = pkcs12(fields);
    let names = [
        (Key::CertificateFile, certificate.as_deref()),
        (Key::PrivateKeyFile, private_key.as_deref()),
        (Key::CaFile, ca.as_deref()),
        (Key::CombinedFile, combined.as_deref()),
        (Key::Pkcs12Filename, pkcs12.as_ref().map(|pkcs12| pkcs12.file.as_str())),
    ];
    refuse_duplicates(fields, &names);
    Some(Files { certificate: certificate?, private_key: private_key?, ca: ca?, combined, pkcs12 })
}

/// Without `pkcs12-enable`, the keystore's other attributes are refused: an author who sets a password expects a keystore.
/// With `pkcs12-enable: "false"` they are ignored.
fn pkcs12(fields: &mut Fields<'_>) -> Option<Pkcs12> {
    if fields.given(Key::Pkcs12Enable).is_none() {
        let accepted = format!("remove it, or set {}", Key::Pkcs12Enable.full(fields.dialect));
        let keys = [Key::Pkcs12Filename, Key::Pkcs12Password];
        fields.refuse(&keys, "is given without pkcs12-enable", &accepted);
        return None;
    }
    let enabled = fields.switch(Key::Pkcs12Enable);
    let file = fields.checked(Key::Pkcs12Filename, file_name);
    if enabled != Some(true) {
        return None;
    }
    let key = Key::Pkcs12Password;
    let password =
        fields.required(key, key.row().rule, |password| Ok(SecretString::from(password.to_owned())));
    Some(Pkcs12 { file: file?, password: password? })
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
