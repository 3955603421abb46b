//! The files a volume asks for.

use super::fields::Fields;
use super::table::Key;
use super::values::names::file_name;
use super::{Files, Pkcs12};
use secrecy::SecretString;

/// Reads the names of the files, no two of them alike.
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
    refuse_twins(fields, &names);
    Some(Files { certificate: certificate?, private_key: private_key?, ca: ca?, combined, pkcs12 })
}

/// The keystore's other attributes make sense beside `pkcs12-enable` only, whatever it says; without it they are refused, for an
/// author who sets a password expects a keystore.
fn pkcs12(fields: &mut Fields<'_>) -> Option<Pkcs12> {
    if fields.given(Key::Pkcs12Enable).is_none() {
        let accepted = format!("leave it out, or set {}", Key::Pkcs12Enable.full(fields.dialect));
        let keys = [Key::Pkcs12Filename, Key::Pkcs12Password];
        fields.refuse(&keys, "is given without pkcs12-enable", &accepted);
        return None;
    }
    let enabled = fields.switch(Key::Pkcs12Enable);
    let file = fields.checked(Key::Pkcs12Filename, file_name);
    if enabled != Some(true) {
        return None;
    }
    let password = fields.given(Key::Pkcs12Password).map(|password| SecretString::from(password.to_owned()));
    if password.is_none() {
        fields.missing(Key::Pkcs12Password, Key::Pkcs12Password.row().rule.into());
    }
    Some(Pkcs12 { file: file?, password: password? })
}

fn refuse_twins(fields: &mut Fields<'_>, names: &[(Key, Option<&str>)]) {
    for (place, (key, name)) in names.iter().enumerate() {
        for (other, other_name) in &names[..place] {
            if name.is_some() && name == other_name {
                // The author changes what the author wrote: of the two, tell one that is not a default.
                let (told, twin) = if fields.given(*key).is_some() { (*key, *other) } else { (*other, *key) };
                let problem = format!("is also the name of {}", twin.full(fields.dialect));
                fields.invalid(told, name.unwrap_or_default(), problem);
            }
        }
    }
}
