//! The files that a volume asks for.

use super::context::VolumeContext;
use super::errors::{AttributeError, AttributeErrors};
use super::fields::Fields;
use super::rows::Key;
use super::values::names::{any_file_name, file_name, subject_text};
use crate::model::{
    CertificateSpec, Dialect, Files, KeyEncoding, KeystorePassword, Layout, LayoutKind, PemFiles, Pkcs12,
    Pkcs12Profile, Truststore,
};
use secrecy::{ExposeSecret, SecretString};

/// Reads the names of the files, which must all be different.
pub(super) fn files(fields: &mut Fields<'_>, has_spiffe_id: bool) -> Option<Files> {
    let layout = layout(fields, has_spiffe_id);
    let combined = fields.checked_or(Key::CombinedFile, file_name, any_file_name);
    let pkcs12 = pkcs12(fields);
    let truststore = truststore(fields);
    let crl = fields.checked(Key::CrlFile, file_name);
    let has_keystore = pkcs12.is_some() || truststore.is_some();
    let password = if has_keystore { password_source(fields, pkcs12.is_some()) } else { None };
    let socket = fields.checked(Key::SocketFile, file_name);
    let is_socket_only = is_socket_only(fields, socket.is_some());
    let mut names = layout.as_ref().map(names_of).unwrap_or_default();
    if fields.given(Key::FederatedBundles).is_some() {
        let of_domains = match layout {
            // It has the same names itself.
            Some(Layout::Spiffe) => None,
            _ => Some(Layout::TRUST_BUNDLE_SUFFIX),
        };
        let of_all = matches!(layout, Some(Layout::Envoy(_))).then_some(Layout::ENVOY_ALL_TRUST_BUNDLES);
        names.splice(0..0, [of_domains, of_all].map(|name| (Key::FederatedBundles, name)));
    }
    names.extend([
        (Key::CombinedFile, combined.as_deref()),
        (Key::Pkcs12Filename, pkcs12.as_ref().map(|pkcs12| pkcs12.file.as_str())),
        (
            Key::Pkcs12PasswordFile,
            match &password {
                Some(KeystorePassword::File(name)) => Some(name.as_str()),
                _ => None,
            },
        ),
        (Key::TruststoreFile, truststore.as_ref().map(|truststore| truststore.file.as_str())),
        (Key::CrlFile, crl.as_deref()),
        (Key::SocketFile, socket.as_deref()),
    ]);
    refuse_duplicates(fields, &names);
    Some(Files { layout: layout?, combined, pkcs12, truststore, crl, socket, is_socket_only, password })
}

/// The files with the key, the chain and the trust anchors.
fn layout(fields: &mut Fields<'_>, has_spiffe_id: bool) -> Option<Layout> {
    let kind = fields.checked(Key::Layout, |name| {
        LayoutKind::from_name(name).ok_or_else(|| "is not a layout".to_owned())
    })?;
    let layout = match kind {
        LayoutKind::Default if fields.dialect == Dialect::CsiDriverSpiffe => {
            return Some(Layout::Default(fields.defaults.svid.files.clone()));
        }
        LayoutKind::Default => return pem_files(fields).map(Layout::Default),
        LayoutKind::Istio => Layout::Istio,
        LayoutKind::Spiffe => Layout::Spiffe,
        LayoutKind::Envoy => Layout::Envoy(fields.defaults.secret_names.clone()),
    };
    let problem = format!("cannot be combined with layout: {kind}, which names the files");
    let named = [Key::CertificateFile, Key::PrivateKeyFile, Key::CaFile];
    fields.refuse(&named, &problem, "remove it, or set layout to default");
    if layout == Layout::Spiffe {
        if !has_spiffe_id {
            let problem = "needs a SPIFFE ID: set spiffe to true, or uri-sans to a SPIFFE ID";
            fields.invalid(Key::Layout, kind.as_str(), problem);
        }
        if let Some(encoding) = fields.given(Key::KeyEncoding)
            && !encoding.eq_ignore_ascii_case(KeyEncoding::Pkcs8.as_str())
        {
            fields.invalid(Key::KeyEncoding, encoding, "does not fit the layout spiffe, whose key is PKCS8");
        }
    }
    Some(layout)
}

fn pem_files(fields: &mut Fields<'_>) -> Option<PemFiles> {
    let certificate = fields.checked_or(Key::CertificateFile, file_name, any_file_name);
    let private_key = fields.checked_or(Key::PrivateKeyFile, file_name, any_file_name);
    let ca = fields.checked_or(Key::CaFile, file_name, any_file_name);
    Some(PemFiles { certificate: certificate?, private_key: private_key?, ca: Some(ca?) })
}

/// The names that a layout gives to files, with the attributes that decide them. In the layout `spiffe` the name of the trust bundle
/// depends on the certificate; [`refuse_duplicates`] knows its end.
fn names_of(layout: &Layout) -> Vec<(Key, Option<&str>)> {
    let [certificate, private_key, ca] = match layout {
        Layout::Default(_) => [Key::CertificateFile, Key::PrivateKeyFile, Key::CaFile],
        Layout::Istio | Layout::Spiffe | Layout::Envoy(_) => [Key::Layout; 3],
    };
    let mut names = vec![(certificate, Some(layout.certificate_file())), (ca, layout.ca_file())];
    if layout.private_key_file() != layout.certificate_file() || private_key != certificate {
        names.insert(1, (private_key, Some(layout.private_key_file())));
    }
    if *layout == Layout::Spiffe {
        names.extend([(Key::Layout, Some(Layout::HINTS)), (Key::Layout, Some(Layout::TRUST_BUNDLE_SUFFIX))]);
    }
    names
}

/// Whether the volume is handed over by its socket only. Then it has no files, so that no attribute can name one.
fn is_socket_only(fields: &mut Fields<'_>, has_socket: bool) -> bool {
    if fields.switch(Key::Files) != Some(false) {
        return false;
    }
    let accepted = format!("remove it, or set {} to true", Key::Files.full(fields.dialect));
    let of_files = [
        Key::Layout,
        Key::CertificateFile,
        Key::PrivateKeyFile,
        Key::CaFile,
        Key::CombinedFile,
        Key::Pkcs12Enable,
        Key::TruststoreFile,
        Key::KeyEncoding,
    ];
    fields.refuse(&of_files, "names a file, but the attribute files is false", &accepted);
    if !has_socket {
        let accepted = format!("true, or false together with {}", Key::SocketFile.full(fields.dialect));
        fields.refuse(&[Key::Files], "leaves nothing to hand over", &accepted);
    }
    true
}

/// Without `pkcs12-enable`, the keystore's other attributes are refused: an author who sets a password expects a keystore.
/// With `pkcs12-enable: "false"` they are ignored.
fn pkcs12(fields: &mut Fields<'_>) -> Option<Pkcs12> {
    let has_truststore = fields.given(Key::TruststoreFile).is_some();
    if fields.given(Key::Pkcs12Enable).is_none() {
        let accepted = format!("remove it, or set {}", Key::Pkcs12Enable.full(fields.dialect));
        fields.refuse(&[Key::Pkcs12Filename, Key::Pkcs12Alias], "is given without pkcs12-enable", &accepted);
        if !has_truststore {
            let of_both =
                [Key::Pkcs12Password, Key::Pkcs12PasswordKey, Key::Pkcs12PasswordFile, Key::Pkcs12Profile];
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
    let is_ours = !fields.dialect.is_peers();
    let profile = profile(fields);
    Some(Pkcs12 {
        file: file?,
        profile: if is_ours { profile? } else { Pkcs12Profile::Legacy },
        alias: if is_ours { Some(alias?) } else { None },
        has_anchors: is_ours,
    })
}

/// The keystore of the trust anchors, if there is to be one.
fn truststore(fields: &mut Fields<'_>) -> Option<Truststore> {
    let file = fields.checked(Key::TruststoreFile, file_name)?;
    Some(Truststore { file, profile: profile(fields)? })
}

/// Where the password comes from: a file, the manifest, or else a Secret.
fn password_source(fields: &mut Fields<'_>, is_needed: bool) -> Option<KeystorePassword> {
    let key = Key::Pkcs12Password;
    if fields.given(Key::Pkcs12PasswordFile).is_some() {
        let problem = "cannot be combined with pkcs12-password-file, which holds the password";
        fields.refuse(&[key, Key::Pkcs12PasswordKey], problem, "only one of the two");
        return fields.checked(Key::Pkcs12PasswordFile, file_name).map(KeystorePassword::File);
    }
    if fields.dialect.is_peers() || fields.given(key).is_some() {
        let problem = "cannot be combined with pkcs12-password";
        fields.refuse(&[Key::Pkcs12PasswordKey], problem, "only one of the two");
        let given = if is_needed {
            fields.required(key, key.row().rule, password, any_password)
        } else {
            fields.checked_or(key, password, any_password)
        };
        return given.map(KeystorePassword::Given);
    }
    let of_secret = fields.checked(Key::Pkcs12PasswordKey, secret_key)?;
    let is_given = fields.given(Key::Pkcs12PasswordKey).is_some();
    (is_needed || is_given).then_some(KeystorePassword::Secret(of_secret))
}

/// An error if the password of the keystore is to come from a Secret and is not there, or is none that Java can read.
pub(crate) fn check_secret(spec: &CertificateSpec, context: &VolumeContext) -> Result<(), AttributeErrors> {
    let Some(KeystorePassword::Secret(key)) = &spec.files.password else { return Ok(()) };
    let (attribute, of_secret) =
        (Key::Pkcs12Password.full(spec.dialect), Key::Pkcs12PasswordKey.full(spec.dialect));
    let fault = match &context.keystore_password {
        Some(given) => match password(given.expose_secret()) {
            Ok(_) => return Ok(()),
            Err(problem) => {
                let problem = format!("{key:?} of the Secret {problem}");
                AttributeError::new(of_secret, problem, Key::Pkcs12Password.row().rule)
            }
        },
        None => AttributeError::missing(
            attribute,
            &format!(
                "a password; or the key {key:?} in the Secret that the volume's nodePublishSecretRef names, or in \
                 a sidecar the file of --keystore-password-file; or pkcs12-password-file"
            ),
        ),
    };
    Err(AttributeErrors::new(vec![fault]))
}

/// A key of a Secret.
fn secret_key(text: &str) -> Result<String, String> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.len() <= 253 && text.chars().all(is_key) {
        Ok(text.to_owned())
    } else {
        Err("is not a key of a Secret".into())
    }
}

fn profile(fields: &mut Fields<'_>) -> Option<Pkcs12Profile> {
    fields.checked(Key::Pkcs12Profile, |name| {
        Pkcs12Profile::from_name(name).ok_or_else(|| "is not a profile".into())
    })
}

/// Java cannot open a keystore whose password is not ASCII, and a line break at its end is YAML's.
fn password(text: &str) -> Result<SecretString, String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    match text.chars().find(|c| !matches!(c, ' '..='~')) {
        Some(c) if c.is_control() => {
            Err("has a control character (YAML's | adds a line break; write the password in quotes)".into())
        }
        Some(_) => Err("is not ASCII, so Java cannot open the keystore".into()),
        None => Ok(SecretString::from(text.to_owned())),
    }
}

/// cert-manager's csi-driver takes what the keystore's encoding can hold: UTF-16 without surrogates. In a volume that was published
/// before, other characters are refused as well: a keystore cannot be written with them.
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
        let is_same = |other: &str, name: &str| {
            name == other || other == Layout::TRUST_BUNDLE_SUFFIX && name.ends_with(other)
        };
        let is_taken =
            |other: Option<&str>| other.zip(*name).is_some_and(|(other, name)| is_same(other, name));
        for (other, _) in names[..index].iter().filter(|(_, other)| is_taken(*other)) {
            // The message names an attribute that the author wrote, not a default.
            let (wrong, same) = if fields.given(*key).is_some() { (*key, *other) } else { (*other, *key) };
            let names_several = matches!(same, Key::Layout | Key::FederatedBundles);
            let of_layout = if names_several { "a file of " } else { "" };
            let problem = format!("is also the name of {of_layout}{}", same.full(fields.dialect));
            fields.invalid(wrong, name.unwrap_or_default(), &problem);
        }
    }
}
