//! Names: of files, of hosts, of resources in Kubernetes, and the strings a subject can hold.

use std::net::IpAddr;

/// The longest file name Linux takes, in bytes (`NAME_MAX`).
const FILE_NAME_BYTES: usize = 255;
/// RFC 1035 section 2.3.4, without the root's dot.
const DNS_NAME_BYTES: usize = 253;
const DNS_LABEL_BYTES: usize = 63;
/// `ub-common-name` in RFC 5280 appendix A.1.
const COMMON_NAME_CHARACTERS: usize = 64;
/// The SPIFFE ID standard, section 2.3.
const URI_BYTES: usize = 2048;

/// A plain file name, as cert-manager's csi-driver wants them: it stays in the volume's directory, and out of the names that
/// begin with two dots, which are the atomic writer's.
pub(in crate::attributes) fn file_name(name: &str) -> Result<String, String> {
    if name.contains('/') {
        return Err("has a slash".into());
    }
    if name.starts_with("..") {
        return Err("begins with two dots".into());
    }
    if name == "." {
        return Err("is the directory itself".into());
    }
    if name.len() > FILE_NAME_BYTES {
        return Err(format!("is {} bytes long", name.len()));
    }
    if name != name.trim() {
        return Err("begins or ends with white space".into());
    }
    if name.is_empty() {
        return Err("is empty".into());
    }
    no_control_characters(name)?;
    Ok(name.to_owned())
}

/// A host name (RFC 1123 section 2.1), its first label optionally the wildcard. Underscores pass, as they do in the verifiers of
/// Go and OpenSSL.
pub(in crate::attributes) fn dns_name(name: &str) -> Result<String, String> {
    if !name.is_ascii() {
        return Err("is not ASCII (write an internationalized name in its xn-- form)".into());
    }
    if name.len() > DNS_NAME_BYTES {
        return Err(format!("is {} characters long", name.len()));
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    for label in host.split('.') {
        dns_label(label)?;
    }
    Ok(name.to_owned())
}

fn dns_label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("has an empty label (two dots in a row, or a dot at the start or end)".into());
    }
    if label.len() > DNS_LABEL_BYTES {
        return Err(format!("has a label of {} characters", label.len()));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("has a label that begins or ends with a hyphen".into());
    }
    match label.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_')) {
        Some('*') => Err("has a wildcard that is not the whole first label".into()),
        Some(c) => Err(format!("has the character {c:?}")),
        None => Ok(()),
    }
}

/// An absolute URI (RFC 3986): a scheme, then something. RFC 5280 section 4.2.1.6 forbids relative ones.
///
/// Signers written in Go take it through `net/url`, which writes the scheme in lower case (its canonical form, RFC 3986 section
/// 3.1) and drops an empty fragment. The certificate's URI is compared byte by byte, so it is asked for in that form.
pub(in crate::attributes) fn uri(text: &str) -> Result<String, String> {
    if text.len() > URI_BYTES {
        return Err(format!("is {} bytes long (at most {URI_BYTES} are accepted)", text.len()));
    }
    if let Some(c) = text.chars().find(|c| !is_uri_character(*c)) {
        return Err(format!("has the character {c:?} (percent-encode it)"));
    }
    let percent_encoded = |tail: &str| tail.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(percent_encoded) {
        return Err("has a % that two hexadecimal digits do not follow".into());
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err("has no scheme".into());
    };
    let scheme_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(scheme_character) {
        return Err("has no scheme".into());
    }
    if rest.is_empty() || rest == "//" {
        return Err("has nothing after its scheme".into());
    }
    if rest.ends_with('#') {
        return Err("has an empty fragment (leave out the # at its end)".into());
    }
    if let Some(segment) = uri_path(rest).split('/').find(|segment| is_dot_segment(segment)) {
        return Err(format!("has the path segment {segment:?} (write the path that it leads to)"));
    }
    Ok(format!("{}:{rest}", scheme.to_ascii_lowercase()))
}

/// The path (RFC 3986 section 3.3) in what follows a scheme, without the slash after an authority.
fn uri_path(rest: &str) -> &str {
    let (hierarchy, _) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
    match hierarchy.strip_prefix("//") {
        Some(authority_and_path) => authority_and_path.split_once('/').map_or("", |(_, path)| path),
        None => hierarchy,
    }
}

/// `.` or `..`, with dots percent-encoded or not: a verifier that normalises (RFC 3986 section 6.2.2) would read another identity
/// than the one that was asked for and allowed.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

fn is_uri_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c)
}

/// An IP address; an IPv4 address mapped into IPv6 counts as the IPv4 address, as in Go.
pub(in crate::attributes) fn ip_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) if text.contains('$') => Err("holds a variable, which is not replaced here".into()),
        Err(_) if text.contains('/') => Err("is a network, not an address".into()),
        Err(_) => Err("is not an IP address".into()),
    }
}

/// A string that a subject can hold.
pub(in crate::attributes) fn subject_text(text: &str) -> Result<String, String> {
    no_control_characters(text)?;
    Ok(text.to_owned())
}

/// A subject's common name.
pub(in crate::attributes) fn common_name(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if length > COMMON_NAME_CHARACTERS {
        return Err(format!("is {length} characters long"));
    }
    subject_text(text)
}

/// A subject field that is a `PrintableString` and nothing else: country and serial number (RFC 5280 appendix A.1).
pub(in crate::attributes) fn printable(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(*c))) {
        Some(c) => Err(format!("has the character {c:?}, which a PrintableString cannot hold")),
        None => Ok(text.to_owned()),
    }
}

/// A name of a Kubernetes resource or of an API group: an RFC 1123 subdomain in lower case.
pub(in crate::attributes) fn resource_name(text: &str) -> Result<String, String> {
    if text.contains('$') {
        return Err("holds a variable, which is not replaced here".into());
    }
    if let Some(c) = text.chars().find(|c| c.is_ascii_uppercase() || *c == '_' || *c == '*') {
        return Err(format!("has the character {c:?}"));
    }
    dns_name(text)
}

/// The kind of a Kubernetes resource.
pub(in crate::attributes) fn kind(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !c.is_ascii_alphanumeric()) {
        Some(c) => Err(format!("has the character {c:?}")),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => Err("begins with a digit".into()),
        None if text.len() > DNS_LABEL_BYTES => Err(format!("is {} characters long", text.len())),
        None => Ok(text.to_owned()),
    }
}

/// Whether the API server takes `group/name` as the key of an annotation; it does not look at case.
pub(in crate::attributes) fn is_annotation_key(group: &str, name: &str) -> bool {
    let name_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| c.is_ascii_alphanumeric();
    resource_name(&group.to_ascii_lowercase()).is_ok()
        && name.len() <= DNS_LABEL_BYTES
        && name.chars().all(name_character)
        && name.starts_with(edge)
        && name.ends_with(edge)
}

fn no_control_characters(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("has the control character {c:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
