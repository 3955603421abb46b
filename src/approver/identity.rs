//! Service accounts, and the SPIFFE IDs made of them.

use std::fmt;
use std::str::FromStr;

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for ServiceAccount {
    type Err = String;

    /// Reads the user name that Kubernetes gives to a service account.
    fn from_str(username: &str) -> Result<Self, String> {
        let parsed = username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        match parsed {
            Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("accepted: system:serviceaccount:NAMESPACE:NAME".to_owned()),
        }
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// The SPIFFE ID of a service account: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpiffeId(pub(super) ServiceAccount);

impl SpiffeId {
    /// Reads a URI. There is one spelling only.
    pub(super) fn parse(uri: &str, trust_domain: &str) -> Option<Self> {
        let path = uri.strip_prefix("spiffe://")?.strip_prefix(trust_domain)?.strip_prefix("/ns/")?;
        let (namespace, name) = path.split_once("/sa/")?;
        let is_account = is_label(namespace) && is_subdomain(name);
        is_account.then(|| Self(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }))
    }

    /// The URI.
    pub(super) fn uri(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.0.namespace, self.0.name)
    }
}

/// Whether a text is a DNS label in lower case (RFC 1123), as the names of namespaces and Services are.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Whether a text is a DNS subdomain in lower case, as the names of service accounts and nodes are.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_allowed) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_has_one_spelling() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web.front", "cluster.local").unwrap();
        assert_eq!(id.uri("cluster.local"), "spiffe://cluster.local/ns/shop/sa/web.front");
        assert_eq!(id.0.to_string(), "system:serviceaccount:shop:web.front");
        for odd in [
            "SPIFFE://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local.evil/ns/shop/sa/web",
            "spiffe://cluster.locale/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web/",
            "spiffe://cluster.local/ns/shop/sa/web/sa/x",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns//sa/web",
            "spiffe://cluster.local/ns/a/b/sa/web",
            "spiffe://cluster.local/ns/shop/sa/we%62",
            "spiffe://cluster.local/ns/shop/sa/web?x",
            "spiffe://cluster.local/ns/shop/sa/web,metadata.name=x",
            "spiffe://me@cluster.local/ns/shop/sa/web",
            "https://cluster.local/ns/shop/sa/web",
        ] {
            assert_eq!(SpiffeId::parse(odd, "cluster.local"), None, "{odd}");
        }
    }

    #[test]
    fn only_service_accounts_are_read_as_such() {
        for odd in [
            "",
            "system:serviceaccount:shop",
            "system:serviceaccount:shop:",
            "system:serviceaccount:shop:a:b",
            "me",
            "x:serviceaccount:shop:a",
        ] {
            assert!(odd.parse::<ServiceAccount>().is_err(), "{odd}");
        }
    }
}
