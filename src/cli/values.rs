//! Parsers of flag values. Each error says what is accepted.

use super::reload::CommandLine;
use super::shared::GivenAddress;
use super::sidecar::{Attribute, AttributeList};
use crate::attributes::{self, ClusterDomain, OptionalAttribute};
use crate::model::shown;
use http::Uri;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn accept<T>(value: Option<T>, accepted: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("accepted: {accepted}"))
}

fn accept_text(value: &str, is_valid: bool, accepted: &str) -> Result<String, String> {
    accept(is_valid.then(|| value.to_owned()), accepted)
}

/// `unix:///path`, `unix:/path` or a plain path. The drivers of cert-manager take what follows `unix://` as absolute.
pub(super) fn endpoint(value: &str) -> Result<PathBuf, String> {
    let path = match value.strip_prefix("unix://") {
        Some(path) if !path.is_empty() => Path::new("/").join(path),
        Some(_) => PathBuf::new(),
        None => value.strip_prefix("unix:").unwrap_or(value).into(),
    };
    let is_path = !path.as_os_str().is_empty() && !value.trim_start_matches("unix://").contains("://");
    accept(is_path.then_some(path), "a Unix socket, as unix:///path/csi.sock or /path/csi.sock")
}

/// A Go duration above zero.
pub(super) fn duration(value: &str) -> Result<Duration, String> {
    crate::model::parse_duration(value)
        .map_err(|fault| format!("{fault}; accepted: a Go duration above zero, such as 90s or 1h30m"))
}

/// A Go duration, which may be zero.
pub(super) fn duration_or_zero(value: &str) -> Result<Duration, String> {
    if matches!(value, "0" | "0s") { Ok(Duration::ZERO) } else { duration(value) }
}

/// A Go duration of 5 s or more, so that a person can watch a rotation.
pub(super) fn demo_duration(value: &str) -> Result<Duration, String> {
    accept(Some(duration(value)?).filter(|duration| *duration >= Duration::from_secs(5)), "5s or more")
}

/// The parser of a finite number in a range.
pub(super) fn number<R>(range: R, accepted: &'static str) -> impl Fn(&str) -> Result<f64, String> + Clone
where
    R: RangeBounds<f64> + Clone,
{
    move |value| {
        accept(
            value.parse().ok().filter(|number: &f64| number.is_finite() && range.contains(number)),
            accepted,
        )
    }
}

/// Bytes, or a number with a binary (Ki, Mi, Gi) or decimal (k, M, G) suffix, as in Kubernetes quantities.
pub(super) fn size(value: &str) -> Result<u64, String> {
    const SUFFIXES: [(&str, u64); 7] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("", 1),
    ];
    let parsed = SUFFIXES.iter().find_map(|(suffix, unit)| Some((value.strip_suffix(suffix)?, unit)));
    let bytes = parsed
        .and_then(|(count, unit)| count.parse::<u64>().ok()?.checked_mul(*unit).filter(|bytes| *bytes > 0));
    accept(bytes, "bytes, or a number with Ki, Mi, Gi, k, M or G, such as 64Mi")
}

/// The address of the admin server, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Bind(pub(super) Option<SocketAddr>);

/// `host:port`, `:port` for every address, or `0` for no admin server.
pub(super) fn bind_address(value: &str) -> Result<Bind, String> {
    let address = match value.strip_prefix(':') {
        _ if value == "0" => return Ok(Bind(None)),
        Some(port) => port.parse().ok().map(|port| (Ipv6Addr::UNSPECIFIED, port).into()),
        None => value.parse().ok(),
    };
    accept(
        address.map(|address| Bind(Some(address))),
        "address:port, :port for every address, or 0 for no admin server",
    )
}

/// A URL without encryption: the server is on the same node.
pub(super) fn http_url(value: &str) -> Result<Uri, String> {
    let is_http =
        |url: &Uri| url.scheme_str() == Some("http") && url.host().is_some_and(|host| !host.is_empty());
    let url = value.parse().ok().filter(is_http);
    accept(url, "a URL that begins with http://, such as http://169.254.170.23/v1/credentials")
}

/// A CSI driver name, which is the name of a CSIDriver object (a DNS subdomain of at most 63 bytes).
pub(super) fn driver_name(value: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = value.len() <= 63 && value.split('.').all(is_label);
    accept_text(value, is_name, "a DNS subdomain of at most 63 characters, such as csi.certlet.io")
}

/// An SELinux context: user, role, type and, if the policy has levels, a level. It is quoted in a mount option.
pub(super) fn selinux_context(value: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.,:-".contains(&byte);
    let is_context = value.bytes().all(is_allowed)
        && value.split(':').take(3).filter(|part| !part.is_empty()).count() == 3;
    accept_text(
        value,
        is_context,
        "user:role:type or user:role:type:level, such as system_u:object_r:container_file_t:s0",
    )
}

/// `true` or `false`, as Go's flags spell them.
#[cfg(feature = "kubernetes")]
pub(super) fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("accepted: true or false".to_owned()),
    }
}

/// A log level, or the number that the drivers of cert-manager have instead: 1 and 2 are info, 3 and 4 are debug, higher ones trace.
pub(super) fn log_level(value: &str) -> Result<String, String> {
    match value.parse::<u8>() {
        Ok(..=2) => Ok("info".to_owned()),
        Ok(3 | 4) => Ok("debug".to_owned()),
        Ok(5..=10) => Ok("trace".to_owned()),
        Ok(_) => Err("accepted: a number from 0 to 10, or a level such as info".to_owned()),
        Err(_) => Ok(value.to_owned()),
    }
}

/// Annotations as `KEY=VALUE,KEY=VALUE`, as the drivers of cert-manager take them: with more than one `=`, a pair can be in quotes.
pub(super) fn annotations(value: &str) -> Result<BTreeMap<String, String>, String> {
    let pairs = match value.matches('=').count() {
        0 if value.is_empty() => Vec::new(),
        1 => vec![value.trim_matches('"').to_owned()],
        _ => attributes::annotations(value).unwrap_or_default(),
    };
    let split = |pair: &String| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let annotations = pairs.iter().map(split).collect::<Option<_>>();
    let is_read = value.is_empty() || !pairs.is_empty();
    accept(annotations.filter(|_| is_read), "KEY=VALUE, or several of them with commas in between")
}

/// An attribute that `--spiffe-attributes` allows.
pub(super) fn optional_attribute(value: &str) -> Result<OptionalAttribute, String> {
    let all = OptionalAttribute::ALL.iter().map(|attribute| attribute.as_str()).collect::<Vec<_>>();
    accept(OptionalAttribute::from_name(value), &all.join(", "))
}

/// The trust domain of a SPIFFE ID (SPIFFE-ID section 2.1).
#[cfg(feature = "kubernetes")]
pub(super) fn trust_domain(value: &str) -> Result<String, String> {
    accept_text(
        value,
        attributes::is_trust_domain(value),
        "lower-case letters, digits, dots, hyphens and underscores, such as cluster.local",
    )
}

/// A name that may be a part of an API path.
pub(super) fn object_name(value: &str) -> Result<String, String> {
    accept_text(
        value,
        crate::model::is_object_name(value),
        "the name of an object in Kubernetes, such as cert-manager",
    )
}

/// The name of a cert-manager issuer; empty for none.
#[cfg(feature = "kubernetes")]
pub(super) fn issuer_name(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Ok(String::new());
    }
    accept(attributes::issuer_name(value).ok(), "the name of an issuer, such as internal-ca")
}

/// The kind of an issuer.
#[cfg(feature = "kubernetes")]
pub(super) fn issuer_kind(value: &str) -> Result<String, String> {
    accept(attributes::issuer_kind(value).ok(), "a kind such as Issuer or ClusterIssuer")
}

/// The API group of an issuer.
#[cfg(feature = "kubernetes")]
pub(super) fn issuer_group(value: &str) -> Result<String, String> {
    accept(attributes::issuer_name(value).ok(), "an API group such as cert-manager.io")
}

/// `NAME=VALUE`
pub(super) fn attribute(value: &str) -> Result<Attribute, String> {
    let attribute = value.split_once('=').filter(|(name, _)| !name.trim().is_empty());
    let attribute = attribute.map(|(name, value)| Attribute(name.trim().to_owned(), value.to_owned()));
    accept(attribute, "NAME=VALUE, such as dns-names=web.shop.svc")
}

/// `NAME=VALUE,...`. Lists contain commas too, so a comma begins another attribute only before what can be a name and an equals sign.
/// Names are in lower case, unlike the types in `CN=a,O=b`.
pub(super) fn attribute_list(value: &str) -> Result<AttributeList, String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-./".contains(c);
    let begins = |part: &str| {
        part.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.chars().all(is_name))
    };
    let mut attributes: Vec<Attribute> = Vec::new();
    for part in value.split(',') {
        match attributes.last_mut() {
            Some(Attribute(_, value)) if !begins(part) => {
                value.push(',');
                value.push_str(part);
            }
            _ => attributes.push(attribute(part)?),
        }
    }
    Ok(AttributeList(attributes))
}

/// A cluster's DNS domain.
pub(super) fn cluster_domain(value: &str) -> Result<ClusterDomain, String> {
    value.parse().map_err(|problem| {
        format!("{} {problem}; accepted: a DNS domain in lower case, of at most 121 characters, such as cluster.local", shown(value))
    })
}

/// An IP address, or nothing.
pub(super) fn ip_address(value: &str) -> Result<GivenAddress, String> {
    if value.is_empty() {
        return Ok(GivenAddress(None));
    }
    accept(value.parse().ok().map(|address| GivenAddress(Some(address))), "an IPv4 or IPv6 address")
}

/// `NAMESPACE/NAME`
pub(super) fn pod_name(value: &str) -> Result<(String, String), String> {
    match value.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("accepted: NAMESPACE/NAME".to_owned()),
    }
}

/// `exit=CODE`, with a code that certlet does not use itself.
pub(super) fn exit_code(value: &str) -> Result<u8, String> {
    let code = value.strip_prefix("exit=").and_then(|code| code.parse().ok());
    // A process that is killed ends with 128 and the signal.
    accept(code.filter(|code| (3..=127).contains(code)), "exit=CODE, with a code from 3 to 127")
}

/// `HUP` or `SIGHUP`, in any case.
pub(super) fn signal(value: &str) -> Result<Signal, String> {
    let name = value.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    accept(format!("SIG{name}").parse().ok(), "the name of a signal, such as HUP, USR1 or TERM")
}

/// The name of a process. A path is the likely mistake.
pub(super) fn process_name(value: &str) -> Result<String, String> {
    let is_name = !value.trim().is_empty() && !value.contains('/');
    accept_text(value, is_name, "the name of a process without its directory, such as nginx")
}

/// A program and its arguments: words with the quotes and backslashes of a shell (POSIX Shell Command Language, section 2.2).
pub(super) fn command_line(value: &str) -> Result<CommandLine, String> {
    let words = words(value).filter(|words| !words.is_empty());
    let accepted = "a program and its arguments, with quotes in pairs, such as 'nginx -s reload'";
    let words: Option<Vec<_>> = words.map(|words| words.into_iter().map(OsString::from).collect());
    accept(words.map(CommandLine), accepted)
}

/// None: a quote or a backslash at the end is open.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            // Between double quotes a backslash stands for itself, except before these.
            (Some('"'), '\\') if !matches!(characters.peek(), Some('"' | '\\' | '$' | '`')) => {
                word.get_or_insert_default().push('\\');
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(characters.next()?),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// A text that is not empty.
pub(super) fn not_empty(value: &str) -> Result<String, String> {
    accept_text(value, !value.trim().is_empty(), "any text that is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_begins_an_attribute_only_before_a_name() {
        let list = |value: &str| {
            let AttributeList(list) = attribute_list(value).unwrap();
            list.into_iter().map(|Attribute(name, value)| (name, value)).collect::<Vec<_>>()
        };
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<Vec<_>>()
        };
        let expected = pairs(&[("dns-names", "a,b"), ("csi.certlet.io/duration", "1h")]);
        assert_eq!(list("dns-names=a,b,csi.certlet.io/duration=1h"), expected);
        assert_eq!(list("literal-subject=CN=a,O=b"), pairs(&[("literal-subject", "CN=a,O=b")]));
        assert_eq!(list("dns-names=a,,b="), pairs(&[("dns-names", "a,"), ("b", "")]));
        for odd in ["", "a", ",a=b", "=a"] {
            assert!(attribute_list(odd).unwrap_err().contains("NAME=VALUE"), "{odd}");
        }
    }

    #[test]
    fn a_url_is_http_and_complete() {
        assert_eq!(http_url("http://[fd00:ec2::23]/v1/credentials").unwrap().host(), Some("[fd00:ec2::23]"));
        assert_eq!(http_url("http://127.0.0.1:8080").unwrap().path(), "/");
        for odd in
            ["", "169.254.170.23", "https://169.254.170.23/v1/credentials", "http://", "/v1/credentials"]
        {
            assert!(http_url(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_command_line_is_split_as_a_shell_splits_it() {
        for (text, expected) in [
            ("nginx -s reload", &["nginx", "-s", "reload"][..]),
            ("  a \t b\n", &["a", "b"]),
            ("sh -c 'kill -HUP \"$(cat pid)\"'", &["sh", "-c", "kill -HUP \"$(cat pid)\""]),
            (r#"a "b \"c\" \d" e\ f ''"#, &["a", r#"b "c" \d"#, "e f", ""]),
            ("a'b'\"c\"", &["abc"]),
        ] {
            let expected: Vec<OsString> = expected.iter().map(OsString::from).collect();
            assert_eq!(command_line(text).unwrap().0, expected, "{text}");
        }
        for odd in ["", "  ", "'a", "a \"b", "a\\"] {
            assert!(command_line(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn signals_have_their_names() {
        for name in ["HUP", "SIGHUP", "hup"] {
            assert_eq!(signal(name), Ok(Signal::SIGHUP));
        }
        for odd in ["", "1", "SIG", "RELOAD"] {
            assert!(signal(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn sizes_take_kubernetes_suffixes() {
        assert_eq!(size("64Mi"), Ok(64 << 20));
        assert_eq!(size("1G"), Ok(1_000_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for odd in ["", "0", "-1", "1.5Mi", "Mi", "99999999999Gi", "64 Mi", "64MB"] {
            assert!(size(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn endpoints_are_unix_sockets() {
        for good in ["unix:///run/csi.sock", "unix:/run/csi.sock", "unix://run/csi.sock", "/run/csi.sock"] {
            assert_eq!(endpoint(good), Ok(PathBuf::from("/run/csi.sock")), "{good}");
        }
        for odd in ["", "unix://", "tcp://127.0.0.1:1"] {
            assert!(endpoint(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn annotations_are_read_as_gos_flags_read_them() {
        let read = |text: &str| {
            annotations(text)
                .map(|read| read.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("hello=world,test=annotation", &["hello=world", "test=annotation"][..]),
            ("a=b,c", &["a=b,c"]),
            (r#""a=b""#, &["a=b"]),
            (r#"a=b,"c=d,e","f=""g""""#, &["a=b", "c=d,e", "f=\"g\""]),
            ("example.org/a=b=c", &["example.org/a=b=c"]),
            ("", &[]),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for odd in ["a", "a=b,c=d,e", r#"a=b,"c=d"#] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn the_log_levels_of_cert_managers_drivers_are_numbers() {
        let levels = ["0", "1", "2", "3", "4", "5", "10", "warn"].map(|level| log_level(level).unwrap());
        assert_eq!(levels, ["info", "info", "info", "debug", "debug", "trace", "trace", "warn"]);
        assert!(log_level("11").is_err());
    }

    #[test]
    fn a_port_alone_means_every_address() {
        assert_eq!(bind_address(":9402").unwrap().0.unwrap().to_string(), "[::]:9402");
        assert!(bind_address("0").unwrap().0.is_none());
        assert!(bind_address("localhost").is_err());
    }

    #[test]
    fn driver_names_are_dns_subdomains() {
        assert!(driver_name("csi.cert-manager.io").is_ok());
        for odd in ["", "a..b", "-a", "a/b", "csi_certlet"] {
            assert!(driver_name(odd).is_err(), "{odd:?}");
        }
    }
}
