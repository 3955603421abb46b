//! Names: of files, of hosts, of resources in Kubernetes, and the strings a subject can hold.

use std::net::IpAddr;

/// The longest file name Linux takes, in bytes (`NAME_MAX`).
const FILE_NAME_BYTES: usize = 255;
/// RFC 1035 section 2.3.4, without the root's dot.
const DNS_NAME_BYTES: usize = 253;
const DNS_LABEL_BYTES: usize = 63;
/// `ub-common-name` in RFC 5280 appendix A.1.
const COMMON_NAME_CHARACTERS: usize = 64;

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
pub(in crate::attributes) fn uri(text: &str) -> Result<String, String> {
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
    Ok(text.to_owned())
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_file_names_pass() {
        for name in ["tls.crt", "a", ".hidden", "a..b", "with space.pem", "\u{fc}ber.pem", &"x".repeat(255)] {
            assert_eq!(file_name(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn file_names_that_leave_the_directory_or_hurt_are_refused() {
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "..data",
            "..x",
            "/etc/passwd",
            "a/b",
            "a/",
            " a",
            "a ",
            "a\n",
            "a\0b",
            "a\u{7f}b",
            &long,
        ] {
            assert!(file_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn host_names_pass_and_others_do_not() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        for name in [
            "localhost",
            "a.b",
            "*.a.b",
            "*.local",
            "xn--bcher-kva.example",
            "A.b",
            "my_svc",
            "1.2",
            &longest,
        ] {
            assert_eq!(dns_name(name).as_deref(), Ok(name));
        }
        let too_long = format!("{longest}a");
        for name in [
            "",
            "*",
            "*.",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a.-b",
            "a.*.b",
            "*a.b",
            "**.a",
            "a b",
            "a/b",
            "b\u{fc}cher",
            "a:1",
            "https://a",
            &format!("{label}a.b"),
            &too_long,
        ] {
            assert!(dns_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn absolute_uris_pass_and_others_do_not() {
        for text in [
            "spiffe://td/ns/a/sa/b",
            "urn:uuid:f81d4fae",
            "https://[::1]:8443/a?b=c#d",
            "x-a.b+c:%20",
            "file:///a",
        ] {
            assert_eq!(uri(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "/a/b",
            "a/b",
            "spiffe:",
            "spiffe://",
            ":a",
            "1a:b",
            "a b:c",
            "a:b c",
            "a:%",
            "a:%2",
            "a:%zz",
            "a:\u{fc}",
            "a:\n",
        ] {
            assert!(uri(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_pass_and_networks_zones_and_ports_do_not() {
        assert_eq!(ip_address("::ffff:10.0.0.1"), Ok(IpAddr::from([10, 0, 0, 1])));
        assert!(ip_address("fd00::1").is_ok());
        for text in [
            "",
            "10.0.0.0/8",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0",
            "fe80::1%eth0",
            "[::1]",
            "1.2.3.4:80",
            "${POD_IP}",
        ] {
            assert!(ip_address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_common_name_has_at_most_64_characters_not_bytes() {
        assert!(common_name(&"\u{fc}".repeat(64)).is_ok());
        assert!(common_name(&"a".repeat(65)).is_err());
        assert!(common_name("a\nb").is_err());
    }

    #[test]
    fn annotation_keys_are_what_the_api_server_takes() {
        assert!(is_annotation_key("Example.com", "a_B.c"));
        for (group, name) in
            [("", "a"), ("a b", "c"), ("a", ""), ("a", "b/c"), ("a", "-b"), ("a", "b."), ("a_b", "c")]
        {
            assert!(!is_annotation_key(group, name), "{group}/{name}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_file_name_is_one_path_component(name in "(?s)[./ab\0 ]{0,6}|.{0,300}") {
            if file_name(&name).is_ok() {
                let path = std::path::Path::new("/volume").join(&name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/volume")));
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
                prop_assert!(!name.starts_with("..") && name.len() <= 255 && !name.contains('\0'));
            }
        }

        #[test]
        fn an_ordinary_file_name_is_accepted(name in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,40}") {
            prop_assert!(file_name(&name).is_ok());
        }

        #[test]
        fn a_host_name_of_good_labels_is_accepted(labels in proptest::collection::vec("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", 1..6)) {
            prop_assert!(dns_name(&labels.join(".")).is_ok());
            let wildcard = format!("*.{}", labels.join("."));
            prop_assert!(dns_name(&wildcard).is_ok());
        }

        #[test]
        fn no_text_makes_a_check_panic(text in any::<String>()) {
            let _ = (dns_name(&text), uri(&text), ip_address(&text), printable(&text), kind(&text), resource_name(&text));
        }
    }
}
