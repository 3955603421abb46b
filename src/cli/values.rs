//! Values of flags: what is accepted, and what is said of the rest.

use http::Uri;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `unix:///path`, `unix:/path` or a plain path.
pub(super) fn endpoint(value: &str) -> Result<PathBuf, String> {
    let path = value.strip_prefix("unix://").or_else(|| value.strip_prefix("unix:")).unwrap_or(value);
    if path.is_empty() || path.contains("://") {
        return Err("accepted: a Unix socket, as unix:///path/csi.sock or /path/csi.sock".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// A path, or nothing at all, which clap's own parser refuses.
#[expect(clippy::unnecessary_wraps, reason = "clap's value parsers return a Result")]
pub(super) fn maybe_path(value: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(PathBuf::from(value))
}

/// A Go duration, positive.
pub(super) fn duration(value: &str) -> Result<Duration, String> {
    crate::attributes::parse_duration(value)
        .map_err(|fault| format!("{fault}; accepted: a Go duration above zero, such as 90s or 1h30m"))
}

/// A Go duration, or none at all.
pub(super) fn duration_or_zero(value: &str) -> Result<Duration, String> {
    if matches!(value, "0" | "0s") { Ok(Duration::ZERO) } else { duration(value) }
}

/// A rate.
pub(super) fn above_zero(value: &str) -> Result<f64, String> {
    number(value, |number| number > 0.0, "a number above 0")
}

/// A factor that does not shrink.
pub(super) fn at_least_one(value: &str) -> Result<f64, String> {
    number(value, |number| number >= 1.0, "a number of 1 or more")
}

/// A share.
pub(super) fn share(value: &str) -> Result<f64, String> {
    number(value, |number| (0.0..=1.0).contains(&number), "a number from 0 to 1")
}

fn number(value: &str, fits: impl Fn(f64) -> bool, accepted: &str) -> Result<f64, String> {
    let number = value.parse().ok().filter(|number: &f64| number.is_finite() && fits(*number));
    number.ok_or_else(|| format!("accepted: {accepted}"))
}

/// Long enough for a rotation that a person can watch.
pub(super) fn demo_duration(value: &str) -> Result<Duration, String> {
    let duration = duration(value)?;
    if duration < Duration::from_secs(5) {
        return Err("accepted: 5s or more".to_owned());
    }
    Ok(duration)
}

/// Bytes, or a number with a binary (Ki, Mi, Gi) or decimal (k, M, G) suffix, as Kubernetes quantities have them.
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
    let accepted = || "accepted: bytes, or a number with Ki, Mi, Gi, k, M or G, such as 64Mi".to_owned();
    let (suffix, unit) = SUFFIXES.iter().find(|(suffix, _)| value.ends_with(suffix)).ok_or_else(accepted)?;
    let count: u64 = value.strip_suffix(suffix).unwrap_or(value).parse().map_err(|_| accepted())?;
    count.checked_mul(*unit).filter(|bytes| *bytes > 0).ok_or_else(accepted)
}

/// Calls a second: more than none, and no more than any quota.
pub(super) fn rate(value: &str) -> Result<f64, String> {
    let rate: Option<f64> = value.parse().ok();
    rate.filter(|rate| (0.01..=10_000.0).contains(rate))
        .ok_or_else(|| "accepted: calls a second, from 0.01 to 10000, such as 20 or 2.5".to_owned())
}

/// `host:port`, `:port` for every address, or nothing for no admin server.
pub(super) fn bind_address(value: &str) -> Result<Bind, String> {
    let accepted = "accepted: address:port, :port for every address, or 0 for no admin server";
    if value == "0" {
        return Ok(Bind(None));
    }
    match value.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().map_err(|_| accepted.to_owned())?;
            Ok(Bind(Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))))
        }
        None => value.parse().map(|address| Bind(Some(address))).map_err(|_| accepted.to_owned()),
    }
}

/// A URL without encryption: what is on the node itself has none.
pub(super) fn http_url(value: &str) -> Result<Uri, String> {
    let url: Option<Uri> = value.parse().ok();
    let fits =
        |url: &Uri| url.scheme_str() == Some("http") && url.host().is_some_and(|host| !host.is_empty());
    url.filter(fits).ok_or_else(|| {
        "accepted: a URL that begins with http://, such as http://169.254.170.23/v1/credentials".to_owned()
    })
}

/// Where the admin server listens, if at all.
#[derive(Clone, Copy, Debug)]
pub struct Bind(pub Option<SocketAddr>);

/// A CSI driver name: what a CSIDriver object may be called (a DNS subdomain of at most 63 bytes).
pub(super) fn driver_name(value: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if value.len() <= 63 && value.split('.').all(label) {
        Ok(value.to_owned())
    } else {
        Err("accepted: a DNS subdomain of at most 63 characters, such as csi.certlet.io".to_owned())
    }
}

/// An SELinux context: user, role, type and, where the policy has them, a level. It goes into a mount option in quotes.
pub(super) fn selinux_context(value: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.,:-".contains(&byte);
    if value.bytes().all(known) && value.split(':').take(3).filter(|part| !part.is_empty()).count() == 3 {
        Ok(value.to_owned())
    } else {
        Err("accepted: user:role:type or user:role:type:level, such as system_u:object_r:container_file_t:s0"
            .to_owned())
    }
}

/// Something that is not empty: a node id, say.
pub(super) fn not_empty(value: &str) -> Result<String, String> {
    if value.trim().is_empty() {
        Err("accepted: any text that is not empty".to_owned())
    } else {
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_http_and_whole() {
        assert_eq!(http_url("http://[fd00:ec2::23]/v1/credentials").unwrap().host(), Some("[fd00:ec2::23]"));
        assert_eq!(http_url("http://127.0.0.1:8080").unwrap().path(), "/");
        for odd in
            ["", "169.254.170.23", "https://169.254.170.23/v1/credentials", "http://", "/v1/credentials"]
        {
            assert!(http_url(odd).is_err(), "{odd:?}");
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
        for good in ["unix:///run/csi.sock", "unix:/run/csi.sock", "/run/csi.sock"] {
            assert_eq!(endpoint(good), Ok(PathBuf::from("/run/csi.sock")), "{good}");
        }
        for odd in ["", "unix://", "tcp://127.0.0.1:1"] {
            assert!(endpoint(odd).is_err(), "{odd:?}");
        }
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
