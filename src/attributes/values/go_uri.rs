//! URIs as Go's `net/url` (1.26) reads and writes them: `url.ParseRequestURI` and `URL.String`, with which cert-manager's
//! csi-driver makes the URI names of a request. It knows no fragments, takes paths without a scheme, and percent-encodes what it
//! finds.

use std::fmt::Write;

/// The URI in the form that Go writes.
pub(super) fn rewritten(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if let Some(c) = text.chars().find(char::is_ascii_control) {
        return Err(format!("has the control character {c:?}"));
    }
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (scheme, rest) = scheme(text)?;
    let mut written = scheme.map(|scheme| scheme.to_ascii_lowercase() + ":").unwrap_or_default();
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let path = match rest.strip_prefix("//") {
        _ if !rest.starts_with('/') => {
            if scheme.is_none() {
                return Err("has no scheme and does not begin with a slash".into());
            }
            written.push_str(rest);
            ""
        }
        Some(after) if scheme.is_some() => {
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            let authority = rewritten_authority(authority, is_web(scheme))?;
            if !authority.is_empty() || !path.is_empty() {
                written.push_str("//");
            }
            written.push_str(&authority);
            path
        }
        _ => rest,
    };
    written.push_str(&rewritten_path(path)?);
    if let Some(query) = query {
        written.push('?');
        written.push_str(query);
    }
    if written.is_ascii() {
        Ok(written)
    } else {
        Err("has a character outside ASCII (percent-encode it)".into())
    }
}

/// Whether Go reads the host of this scheme strictly.
fn is_web(scheme: Option<&str>) -> bool {
    scheme.is_some_and(|scheme| ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)))
}

/// The scheme, if there is one, and the text after its colon.
fn scheme(text: &str) -> Result<(Option<&str>, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    match end.and_then(|end| text.split_at_checked(end)) {
        Some(("", rest)) if rest.starts_with(':') => Err("has nothing before its colon".into()),
        Some((scheme, rest))
            if rest.starts_with(':') && scheme.starts_with(|c: char| c.is_ascii_alphabetic()) =>
        {
            Ok((Some(scheme), &rest[1..]))
        }
        _ => Ok((None, text)),
    }
}

fn rewritten_authority(authority: &str, is_web: bool) -> Result<String, String> {
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let mut written = String::new();
    if let Some(user) = user {
        if user.chars().any(|c| !(c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c))) {
            return Err("has a user name that is not one".into());
        }
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,;=".contains(&b);
        for (number, part) in user.splitn(2, ':').enumerate() {
            if number > 0 {
                written.push(':');
            }
            written.push_str(&encoded(&decoded(part)?, is_plain));
        }
        written.push('@');
    }
    written.push_str(&rewritten_host(host, is_web)?);
    Ok(written)
}

fn rewritten_host(host: &str, is_web: bool) -> Result<String, String> {
    let (name, port) = match host.rfind('[') {
        Some(1..) => return Err("has a host with a bracket inside".into()),
        Some(_) => {
            let (literal, port) = host.rsplit_once(']').ok_or("has a host without its closing bracket")?;
            let address = literal[1..].split("%25").next().unwrap_or_default();
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has a host in brackets that is not an IPv6 address".into());
            }
            (literal, port)
        }
        None => {
            let colon = if is_web { host.find(':') } else { host.rfind(':') };
            host.split_at(colon.unwrap_or(host.len()))
        }
    };
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if !is_port {
        return Err("has a port that is not a number".into());
    }
    // A zone keeps its percent sign.
    if name.starts_with('[') {
        return Ok(host.to_owned());
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&b);
    let is_allowed = |b: u8| !b.is_ascii() || is_plain(b) || b == b'%';
    // Only what is not ASCII, and the percent sign, may be percent-encoded here.
    let is_encoded_ascii =
        |tail: &str| tail.starts_with(|c: char| ('0'..'8').contains(&c)) && !tail.starts_with("25");
    if !name.bytes().all(is_allowed) || name.split('%').skip(1).any(is_encoded_ascii) {
        return Err("has a character in its host that no host has".into());
    }
    let bytes = decoded(name)?;
    Ok(encoded(&bytes, is_plain) + port)
}

/// As it is, if it is percent-encoded where it must be; else decoded and encoded anew.
fn rewritten_path(path: &str) -> Result<String, String> {
    let bytes = decoded(path)?;
    let is_kept = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b);
    if path.bytes().all(is_kept) {
        return Ok(path.to_owned());
    }
    Ok(encoded(&bytes, |b| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b)))
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let value = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = value.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.ok_or("has a % without two hexadecimal digits after it")?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Ok(bytes)
}

fn encoded(bytes: &[u8], is_plain: impl Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if is_plain(*byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `url.ParseRequestURI(text)` and `String` give in Go 1.26; none where it fails.
    #[rustfmt::skip]
    const BY_GO: &[(&str, Option<&str>)] = &[
        ("spiffe://td/ns/shop", Some("spiffe://td/ns/shop")),
        ("SPIFFE://TD/a", Some("spiffe://TD/a")),
        ("spiffe:", Some("spiffe:")),
        ("spiffe://", Some("spiffe:")),
        ("/a/b", Some("/a/b")),
        ("*", Some("*")),
        ("a", None),
        ("1a:b", None),
        (":a", None),
        ("a:b c", Some("a:b c")),
        ("https://a/b#c", Some("https://a/b%23c")),
        ("https://a/b?x#c", Some("https://a/b?x#c")),
        ("https://a b", None),
        ("https://a/b c", Some("https://a/b%20c")),
        ("https://a/\u{fc}", Some("https://a/%C3%BC")),
        ("https://\u{fc}/", Some("https://%C3%BC/")),
        ("https://a/a%2fb c", Some("https://a/a/b%20c")),
        ("https://a/a%2fb", Some("https://a/a%2fb")),
        ("https://a/%zz", None),
        ("https://a/%2", None),
        ("https://a/..", Some("https://a/..")),
        ("https://a/b/../c", Some("https://a/b/../c")),
        ("https://u:p@h/x", Some("https://u:p@h/x")),
        ("https://u@h", Some("https://u@h")),
        ("https://u@@h", Some("https://u%40@h")),
        ("https://u:@h", Some("https://u:@h")),
        ("https://u!x:p'@h", Some("https://u%21x:p%27@h")),
        ("https://[::1]:80/a", Some("https://[::1]:80/a")),
        ("https://[::1", None),
        ("https://a[::1]", None),
        ("https://[fe80::1%25en0]/", Some("https://[fe80::1%25en0]/")),
        ("https://a:80:90/", None),
        ("spiffe://a:80:90/", Some("spiffe://a:80:90/")),
        ("https://a:x/", None),
        ("https://a:/", Some("https://a:/")),
        ("spiffe:/a", Some("spiffe:/a")),
        ("spiffe:///a", Some("spiffe:///a")),
        ("https://a?", Some("https://a?")),
        ("https://a??", Some("https://a??")),
        ("//a/b", Some("//a/b")),
        ("/a?b=c d", Some("/a?b=c d")),
        ("https://a/\"<>^{}|`\\", Some("https://a/%22%3C%3E%5E%7B%7D%7C%60%5C")),
        ("https://a/!$&'()*+,;=:@[]", Some("https://a/!$&'()*+,;=:@[]")),
        ("https://%41/", None),
        ("https://%C3%BC/x", Some("https://%C3%BC/x")),
        ("https://%25/", Some("https://%25/")),
        ("https://a#b", None),
        ("urn:uuid:1#2", Some("urn:uuid:1#2")),
        ("mailto:a@b c", Some("mailto:a@b c")),
        ("https://<a>", Some("https://<a>")),
        ("a\nb", None),
        ("https://a/\x7f", None),
        ("https://a/!x y", Some("https://a/%21x%20y")),
        ("https://u/x@h", Some("https://u/x@h")),
        ("https://a%20b/", None),
        ("x+y://a", Some("x+y://a")),
        ("https://a,b:80/", Some("https://a,b:80/")),
        ("https://a/b:c", Some("https://a/b:c")),
        ("/b:c", Some("/b:c")),
        ("https://u%2f@h/", Some("https://u%2F@h/")),
        ("https://\u{fc}@h/", None),
        ("https://[1.2.3.4]/", None),
        ("https://[zz]/", None),
        ("https://[::1]x/", None),
        ("?", None),
        ("https://", Some("https:")),
        ("https:///", Some("https:///")),
        ("https://?x", Some("https:?x")),
    ];

    #[test]
    fn a_uri_is_written_as_go_writes_it() {
        for (text, expected) in BY_GO {
            assert_eq!(rewritten(text).ok().as_deref(), *expected, "{text:?}: {:?}", rewritten(text));
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_written_the_same_again(text in "[a-z/:?#@%\\[\\]2fF. \u{fc}]{0,16}") {
            if let Ok(once) = rewritten(&text) {
                prop_assert_eq!(rewritten(&once), Ok(once));
            }
        }
    }
}
