//! Where CRLs come from.

use crate::model::{TrustSource, shown};
use http::Uri;
use std::fmt;
use std::str::FromStr;

/// What a source can be in a flag.
const ACCEPTED: &str =
    "an http:// URL, the absolute path of a file, file:PATH, or configmap:NAMESPACE/NAME[/KEY]";
/// What a host can be in a flag.
const ACCEPTED_HOSTS: &str = "HOST or HOST:PORT, such as crl.example.org";
const SCHEME: &str = "http://";
/// The longest URL. It stands in a certificate, whose author may be anybody.
const MAX_URL: usize = 2048;
const HTTP_PORT: u16 = 80;

/// A source of CRLs, which can change at any time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CrlSource {
    /// Fetched by HTTP.
    Url(CrlUrl),
    /// A file or a ConfigMap.
    Object(TrustSource),
}

/// A URL of the scheme `http`, without user and fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrlUrl {
    text: String,
    host: Host,
}

/// A host with its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// In lower case.
    name: String,
    port: u16,
}

impl FromStr for CrlSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |_| format!("{} is no source of CRLs; accepted: {ACCEPTED}", shown(text));
        if let Ok(url) = text.parse() {
            return Ok(Self::Url(url));
        }
        match TrustSource::from_str(text).map_err(refused)? {
            source @ (TrustSource::ConfigMap { .. } | TrustSource::File(_)) => Ok(Self::Object(source)),
            _ => Err(refused(String::new())),
        }
    }
}

impl fmt::Display for CrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may come from a certificate, so it is shown as what pod authors write.
            Self::Url(url) => f.write_str(&url.text),
            Self::Object(source) => source.fmt(f),
        }
    }
}

impl FromStr for CrlUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{} is no URL of a CRL; accepted: http://HOST[:PORT]/PATH", shown(text));
        let is_plain =
            text.len() <= MAX_URL && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_plain || !text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
            return Err(refused());
        }
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let host = authority.parse().map_err(|_| refused())?;
        Ok(Self { text: text.to_owned(), host })
    }
}

impl CrlUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Where a redirect leads to: another URL, or a path of the same host.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, String> {
        if location.starts_with('/') && !location.starts_with("//") {
            let Host { name, port } = &self.host;
            return format!("{SCHEME}{name}:{port}{location}").parse();
        }
        location.parse()
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{} is no host; accepted: {ACCEPTED_HOSTS}", shown(text));
        let authority: http::uri::Authority = text.parse().map_err(|_| refused())?;
        let (name, port) = (authority.host(), authority.port().map(|port| port.as_u16()));
        let has_odd_port = port.is_none() && text.len() != name.len();
        if name.is_empty() || text.contains('@') || has_odd_port || port == Some(0) {
            return Err(refused());
        }
        Ok(Self { name: name.to_ascii_lowercase(), port: port.unwrap_or(HTTP_PORT) })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_url_a_file_or_a_config_map() {
        for text in [
            "http://crl.example.org/ca.crl",
            "http://crl.example.org:8080/ca.crl?part=1",
            "HTTP://[::1]:8080/",
            "configmap:pki/crls",
            "configmap:pki/crls/root.pem",
            "file:/etc/crl.pem",
        ] {
            assert_eq!(text.parse::<CrlSource>().unwrap().to_string(), text);
        }
        assert_eq!("/etc/crl.pem".parse::<CrlSource>().unwrap().to_string(), "file:/etc/crl.pem");
        for text in [
            "",
            "https://crl.example.org/ca.crl",
            "ldap://crl.example.org/cn=ca",
            "ftp://a/b",
            "http://",
            "http:///ca.crl",
            "http://user@crl.example.org/",
            "http://user:password@crl.example.org/",
            "http://crl.example.org/#part",
            "http://crl.example.org/a b",
            "http://crl.example.org:0/",
            "http://crl.example.org:99999/",
            "http://cr\u{fc}.example.org/",
            "crl.example.org",
            &format!("http://a/{}", "x".repeat(2048)),
        ] {
            let error = text.parse::<CrlSource>().unwrap_err();
            assert!(error.contains("accepted: an http:// URL"), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_is_compared_without_case_and_with_its_port() {
        let host = |text: &str| text.parse::<Host>();
        assert_eq!(host("CRL.example.org"), host("crl.example.org:80"));
        assert_ne!(host("crl.example.org:8080"), host("crl.example.org"));
        let url: CrlUrl = "http://Crl.Example.org/a".parse().unwrap();
        assert_eq!(*url.host(), host("crl.example.org").unwrap());
        for text in ["", ":80", "a:", "a:x", "a/b", "http://a", "user@a", "*"] {
            assert!(text == "*" || host(text).unwrap_err().contains("HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn a_redirect_leads_to_another_url_or_to_a_path_of_the_same_host() {
        let url: CrlUrl = "http://a.example:8080/crl".parse().unwrap();
        assert_eq!(url.redirected("/new").unwrap().as_str(), "http://a.example:8080/new");
        assert_eq!(url.redirected("http://b.example/x").unwrap().host().to_string(), "b.example:80");
        for location in ["//b.example/x", "new", "https://a.example/crl", "file:///etc/passwd", ""] {
            assert!(url.redirected(location).is_err(), "{location}");
        }
    }
}
