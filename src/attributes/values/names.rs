//! Names of files, hosts and Kubernetes resources, and the strings of a subject.

use super::go_uri;
use crate::model::{TrustDomain, encoded_separator};
use std::net::IpAddr;

/// Linux's limit on a file name (`NAME_MAX`).
const MAX_FILE_NAME_BYTES: usize = 255;
/// RFC 1035 section 2.3.4, without the root's dot.
const MAX_DNS_NAME_BYTES: usize = 253;
const MAX_DNS_LABEL_BYTES: usize = 63;
/// Several times the upper bounds of RFC 5280 appendix A.1, such as 64 for an organization and 128 for a locality: cert-manager's
/// csi-driver has no limit, and no real value is longer.
const MAX_SUBJECT_VALUE_BYTES: usize = 1024;
/// The SPIFFE ID standard, section 2.3.
const MAX_URI_BYTES: usize = 2048;

/// A plain file name, as cert-manager's csi-driver accepts it. It stays in the volume's directory. Names that begin with two
/// dots belong to the atomic writer.
pub(in crate::attributes) fn file_name(name: &str) -> Result<String, String> {
    match name {
        "" => Err("is empty".into()),
        "." => Err("is the directory itself".into()),
        _ if name.contains('/') => Err("has a slash".into()),
        _ if name.starts_with("..") => Err("begins with two dots".into()),
        _ if name.len() > MAX_FILE_NAME_BYTES => Err(format!("is {} bytes long", name.len())),
        _ if name != name.trim() => Err("begins or ends with white space".into()),
        _ => subject_text(name),
    }
}

/// A host name (RFC 1123 section 2.1); its first label may be the wildcard. Underscores are accepted, as by the verifiers of
/// Go and OpenSSL.
pub(in crate::attributes) fn dns_name(name: &str) -> Result<String, String> {
    if !name.is_ascii() {
        return Err("is not ASCII (write an internationalized name in its xn-- form)".into());
    }
    if name.len() > MAX_DNS_NAME_BYTES {
        return Err(format!("is {} characters long", name.len()));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err("is an IP address (write it in ip-sans)".into());
    }
    name.strip_prefix("*.").unwrap_or(name).split('.').try_for_each(dns_label)?;
    Ok(name.to_owned())
}

fn dns_label(label: &str) -> Result<(), String> {
    match label.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_')) {
        _ if label.is_empty() => {
            Err("has an empty label (two dots in a row, or a dot at the start or end)".into())
        }
        _ if label.len() > MAX_DNS_LABEL_BYTES => Err(format!("has a label of {} characters", label.len())),
        _ if label.starts_with('-') || label.ends_with('-') => {
            Err("has a label that begins or ends with a hyphen".into())
        }
        Some('*') => Err("has a wildcard that is not the whole first label".into()),
        Some(c) => Err(format!("has the character {c:?}")),
        None => Ok(()),
    }
}

/// An absolute URI (RFC 3986). RFC 5280 section 4.2.1.6 forbids relative ones.
///
/// Signers written in Go parse it with `net/url`, which writes the scheme in lower case (the canonical form, RFC 3986 section
/// 3.1) and drops an empty fragment. The certificate's URI is compared byte by byte, so the request has that form too.
pub(in crate::attributes) fn uri(text: &str) -> Result<String, String> {
    if text.len() > MAX_URI_BYTES {
        return Err(format!("is {} bytes long (at most {MAX_URI_BYTES} are accepted)", text.len()));
    }
    if let Some(c) = text.chars().find(|c| !is_uri_character(*c)) {
        return Err(format!("has the character {c:?} (percent-encode it)"));
    }
    let percent_encoded = |tail: &str| tail.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(percent_encoded) {
        return Err("has a % without two hexadecimal digits after it".into());
    }
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    let scheme_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(scheme_character) {
        return Err("has no scheme".into());
    }
    if rest.is_empty() || rest == "//" {
        return Err("has nothing after its scheme".into());
    }
    if rest.ends_with('#') {
        return Err("has an empty fragment (remove the # at its end)".into());
    }
    if let Some(segment) = uri_path(rest).split('/').find(|segment| is_dot_segment(segment)) {
        return Err(format!("has the path segment {segment:?} (write the resulting path)"));
    }
    Ok(format!("{}:{rest}", scheme.to_ascii_lowercase()))
}

/// As cert-manager's csi-driver writes it, if both read it alike.
pub(in crate::attributes) fn uri_as_go(text: &str) -> Result<String, String> {
    let (ours, theirs) = (uri(text)?, any_uri(text)?);
    if ours == theirs { Ok(ours) } else { Err(format!("is written {theirs:?}")) }
}

/// What cert-manager's csi-driver takes as a URI, as it writes it.
pub(in crate::attributes) fn any_uri(text: &str) -> Result<String, String> {
    go_uri::rewritten(text)
}

/// What cert-manager's csi-driver takes as a DNS name: any ASCII text.
pub(in crate::attributes) fn any_dns_name(text: &str) -> Result<String, String> {
    if text.is_ascii() { Ok(text.to_owned()) } else { dns_name(text) }
}

/// A URI that every program reads alike. One with the scheme `spiffe` is a SPIFFE ID.
pub(in crate::attributes) fn plain_uri(text: &str) -> Result<String, String> {
    if let Some(escape) = encoded_separator(text) {
        return Err(format!("has the encoded separator {escape} (use a name without it)"));
    }
    let uri = uri(text)?;
    match uri.strip_prefix("spiffe:") {
        Some(rest) => {
            spiffe_id(rest).map(|()| uri.clone()).map_err(|problem| format!("is no SPIFFE ID: it {problem}"))
        }
        None => Ok(uri),
    }
}

/// Checks what follows the scheme of a SPIFFE ID (the SPIFFE ID standard, section 2).
fn spiffe_id(rest: &str) -> Result<(), String> {
    let rest = rest.strip_prefix("//").ok_or("has no // after its scheme")?;
    let (trust_domain, path) =
        rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    self::trust_domain(trust_domain)?;
    for segment in path.into_iter().flat_map(|path| path.split('/')) {
        let is_allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if segment.is_empty() {
            return Err("has an empty path segment, or a slash at its end".into());
        }
        if let Some(c) = segment.chars().find(|c| !is_allowed(c)) {
            return Err(format!(
                "has the character {c:?} in its path, which holds letters, digits, '.', '-' and '_' only"
            ));
        }
    }
    Ok(())
}

/// Checks the name of a trust domain. The error continues what holds the name.
pub(in crate::attributes) fn trust_domain(name: &str) -> Result<(), String> {
    name.parse::<TrustDomain>().map(drop)
}

/// The path (RFC 3986 section 3.3) in what follows a scheme, without the slash after an authority.
fn uri_path(rest: &str) -> &str {
    let (hierarchy, _) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
    match hierarchy.strip_prefix("//") {
        Some(authority_and_path) => authority_and_path.split_once('/').map_or("", |(_, path)| path),
        None => hierarchy,
    }
}

/// Whether a segment is `.` or `..`, percent-encoded or not. A verifier that normalizes (RFC 3986 section 6.2.2) would read
/// another identity than the one that the policy allowed.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

fn is_uri_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c)
}

/// An e-mail address: the `Mailbox` of RFC 5321 section 4.1.2, without quoted names and address literals.
pub(in crate::attributes) fn email_address(text: &str) -> Result<String, String> {
    let (local, host) = text.rsplit_once('@').ok_or("has no @")?;
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    if local.is_empty()
        || local.len() > 64
        || !local.split('.').all(|part| !part.is_empty() && part.chars().all(is_atom))
    {
        return Err("has no local part of at most 64 letters, digits and other atoms before its @".into());
    }
    if host.starts_with('*') {
        return Err("has a wildcard".into());
    }
    dns_name(host)?;
    Ok(text.to_owned())
}

/// An IP address. An IPv4 address mapped into IPv6 counts as the IPv4 address, as in Go.
pub(in crate::attributes) fn ip_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) if text.contains('$') => Err("holds a variable, which is not replaced here".into()),
        Err(_) if text.contains('/') => Err("is a network, not an address".into()),
        Err(_) => Err("is not an IP address".into()),
    }
}

/// What cert-manager's csi-driver takes as a part of a subject: any text, here of a limited length.
pub(in crate::attributes) fn any_text(text: &str) -> Result<String, String> {
    subject_length(text.len()).map(|()| text.to_owned())
}

/// What cert-manager's csi-driver takes as a file name.
pub(in crate::attributes) fn any_file_name(name: &str) -> Result<String, String> {
    let without_controls: String =
        name.chars().map(|c| if c.is_control() && c != '\0' { '_' } else { c }).collect();
    file_name(&without_controls)?;
    if name == name.trim() { Ok(name.to_owned()) } else { file_name(name) }
}

/// A string that a subject can hold: not too long, and no control characters.
pub(in crate::attributes) fn subject_text(text: &str) -> Result<String, String> {
    subject_length(text.len())?;
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("has the control character {c:?}")),
        None => Ok(text.to_owned()),
    }
}

/// Checks the number of bytes of a subject's value.
pub(in crate::attributes) fn subject_length(bytes: usize) -> Result<(), String> {
    if bytes > MAX_SUBJECT_VALUE_BYTES {
        return Err(format!("is {bytes} bytes long (at most {MAX_SUBJECT_VALUE_BYTES} are accepted)"));
    }
    Ok(())
}

/// A string of a subject with a limit on its characters (the upper bounds in RFC 5280 appendix A.1 and X.520 annex C).
fn limited(text: &str, limit: usize) -> Result<String, String> {
    let length = text.chars().count();
    if length > limit {
        return Err(format!("is {length} characters long (at most {limit} are accepted)"));
    }
    subject_text(text)
}

/// A subject's common name, organization or organizational unit.
pub(in crate::attributes) fn common_name(text: &str) -> Result<String, String> {
    limited(text, 64)
}

/// A subject's locality, state or province, or street address.
pub(in crate::attributes) fn locality(text: &str) -> Result<String, String> {
    limited(text, 128)
}

/// A subject's postal code.
pub(in crate::attributes) fn postal_code(text: &str) -> Result<String, String> {
    limited(text, 40)
}

/// A subject's country (ISO 3166): two letters.
pub(in crate::attributes) fn country(text: &str) -> Result<String, String> {
    match text.as_bytes() {
        [first, second] if first.is_ascii_alphabetic() && second.is_ascii_alphabetic() => Ok(text.to_owned()),
        _ => Err("is not a country code of two letters".into()),
    }
}

/// A subject's serial number.
pub(in crate::attributes) fn serial_number(text: &str) -> Result<String, String> {
    limited(text, 64)?;
    printable(text)
}

/// A subject field that must be a `PrintableString` (RFC 5280 appendix A.1).
fn printable(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(*c))) {
        Some(c) => Err(format!("has the character {c:?}, which a PrintableString cannot hold")),
        None => Ok(text.to_owned()),
    }
}

/// The name of a Kubernetes resource or API group: an RFC 1123 subdomain in lower case.
pub(in crate::attributes) fn resource_name(text: &str) -> Result<String, String> {
    if text.contains('$') {
        return Err("holds a variable, which is not replaced here".into());
    }
    if let Some(c) = text.chars().find(|c| c.is_ascii_uppercase() || *c == '_' || *c == '*') {
        return Err(format!("has the character {c:?}"));
    }
    dns_name(text)
}

/// The name of a Service: one label in lower case (RFC 1123, as Kubernetes accepts it from 1.34 on).
pub(in crate::attributes) fn service_name(text: &str) -> Result<String, String> {
    match text.chars().find(|c| c.is_ascii_uppercase() || matches!(c, '_' | '*' | '.')) {
        Some('.') => Err("has a dot (write the name of the Service alone, without its namespace)".into()),
        Some(c) => Err(format!("has the character {c:?}")),
        None if text == "localhost" => Err("is the name of every machine".into()),
        None => dns_name(text),
    }
}

/// A cluster's DNS domain: a host name in lower case, short enough for the longest names of Services.
pub(in crate::attributes) fn cluster_domain(text: &str) -> Result<String, String> {
    /// 253 characters without SERVICE.NAMESPACE.svc and a dot.
    const MAX_BYTES: usize = MAX_DNS_NAME_BYTES - 2 * (MAX_DNS_LABEL_BYTES + 1) - 4;
    match text.len() {
        length if length > MAX_BYTES => Err(format!("is {length} characters long")),
        _ => resource_name(text),
    }
}

/// The kind of a Kubernetes resource.
pub(in crate::attributes) fn kind(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !c.is_ascii_alphanumeric()) {
        Some(c) => Err(format!("has the character {c:?}")),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => Err("begins with a digit".into()),
        None if text.len() > MAX_DNS_LABEL_BYTES => Err(format!("is {} characters long", text.len())),
        None => Ok(text.to_owned()),
    }
}

/// Whether the API server accepts `group/name` as the key of an annotation. It ignores the case of the group.
pub(in crate::attributes) fn is_annotation_key(group: &str, name: &str) -> bool {
    let name_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| c.is_ascii_alphanumeric();
    resource_name(&group.to_ascii_lowercase()).is_ok()
        && name.len() <= MAX_DNS_LABEL_BYTES
        && name.chars().all(name_character)
        && name.starts_with(edge)
        && name.ends_with(edge)
}

#[cfg(test)]
mod tests;
