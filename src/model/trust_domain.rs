//! Names of SPIFFE trust domains.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// The SPIFFE ID standard, section 2.3.
const MAX_BYTES: usize = 255;

/// The name of a SPIFFE trust domain, such as `example.org` (the SPIFFE ID standard, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain, such as `spiffe://example.org`.
    pub fn id(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = String;

    /// The error continues what holds the name.
    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(c) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
            return Err(format!(
                "has the character {c:?} in its trust domain, which holds a-z, 0-9, '.', '-' and '_' only"
            ));
        }
        match name.len() {
            0 => Err("has no trust domain".into()),
            1..=MAX_BYTES => Ok(Self(name.to_owned())),
            length => Err(format!("has a trust domain of {length} bytes (at most {MAX_BYTES})")),
        }
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
