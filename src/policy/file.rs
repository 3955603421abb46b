//! The policy file: YAML, strict. A field that is not known is an error: a mistyped limit must not become no limit.

use super::matched::MATCHED;
use super::pattern::Pattern;
use crate::model::nearest_name;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The shortest duration where a rule names none: every certificate is paid for and counts against the account's quotas,
/// and a pod's author must not spend them by the second.
const USUAL_MIN_DURATION: Duration = Duration::from_hours(1);

/// What stands among `allow.roles` for the role that EKS Pod Identity associates with the pod's service account.
pub(super) const POD_IDENTITY: &str = "pod-identity";

/// The rules for who may ask AWS Private CA for what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    /// The version of the format: 1.
    pub(super) version: u32,
    /// In order; the first that fits decides.
    pub(super) rules: Vec<Rule>,
}

/// One rule: for whom, and what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) name: String,
    #[serde(rename = "match", default)]
    pub(super) matches: Match,
    pub(super) allow: Allow,
}

/// Whom a rule is for. A list that is left out matches all; one that is empty, nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Match {
    pub(super) namespaces: Option<Vec<Pattern>>,
    pub(super) service_accounts: Option<Vec<Pattern>>,
    /// By attribute: each value of it must fit one of the patterns.
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Vec<Pattern>>,
}

/// What a rule allows. What is left out is not allowed, but for templates and the shortest duration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Allow {
    /// ARNs.
    pub(super) certificate_authorities: Vec<Pattern>,
    /// Names such as `EndEntityCertificate/V1`; left out: those for end entities with client and server authentication.
    pub(super) templates: Option<Vec<Pattern>>,
    /// ARNs for `role-arn`; [`POD_IDENTITY`] for `use-pod-identity`.
    #[serde(default)]
    pub(super) roles: Vec<Pattern>,
    pub(super) max_duration: Lifetime,
    /// Left out: [`USUAL_MIN_DURATION`], or `maxDuration` where that is less.
    min_duration: Option<Lifetime>,
    /// For `common-name`; left out: as `dnsNames`.
    pub(super) common_names: Option<Vec<Pattern>>,
    #[serde(default)]
    pub(super) dns_names: Vec<Pattern>,
    #[serde(default)]
    pub(super) uris: Vec<Pattern>,
    #[serde(default)]
    pub(super) ip_ranges: Vec<IpRange>,
    /// For the other subject attributes, by their names: `organizations`, `literal-subject` and so on.
    #[serde(default)]
    pub(super) subject: BTreeMap<String, Vec<Pattern>>,
    /// Whether `is-ca` may be true.
    #[serde(default)]
    pub(super) is_ca: bool,
}

impl Allow {
    /// The shortest duration it allows.
    pub(super) fn min_duration(&self) -> Duration {
        self.min_duration.map_or(USUAL_MIN_DURATION.min(self.max_duration.0), |given| given.0)
    }
}

/// A Go duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Lifetime(pub(super) Duration);

impl TryFrom<String> for Lifetime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        crate::model::parse_duration(&text).map(Self).map_err(|fault| {
            format!("maxDuration or minDuration: {text:?}: {fault}; accepted: a Go duration such as 24h")
        })
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct IpRange {
    address: IpAddr,
    prefix: u32,
}

impl TryFrom<String> for IpRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("ipRanges: {text:?}; accepted: an address, or a range such as 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| fault())?;
        let range = Self { address, prefix };
        // Bits behind the prefix are most often a slip.
        if prefix > bits || range.masked(address) != Some(number(address)) {
            return Err(fault());
        }
        Ok(range)
    }
}

impl IpRange {
    /// Whether an address lies in it; an IPv4 address written as IPv6 counts as IPv4.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.masked(self.address)
    }

    fn masked(self, address: IpAddr) -> Option<u128> {
        let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
        let behind = bits.checked_sub(self.prefix)?;
        let number = number(address);
        Some(number.checked_shr(behind).and_then(|head| head.checked_shl(behind)).unwrap_or_default())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl std::fmt::Display for IpRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why a policy file is not used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("policy file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not a policy.
    #[error("policy file {}: {problem}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
}

impl Policy {
    /// Reads a policy file.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PolicyError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problem| PolicyError::Invalid { path: path.to_owned(), problem })
    }

    /// Reads a policy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if policy.version != 1 {
            return Err(format!("version: {}; accepted: 1", policy.version));
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            if rule.name.trim().is_empty() {
                return Err(format!("rules[{at}].name: empty; accepted: a name, which denials show"));
            }
            if policy.rules.iter().take(at).any(|earlier| earlier.name == rule.name) {
                return Err(format!("rules[{at}].name: {:?} is the name of two rules", rule.name));
            }
            known_keys(rule)?;
            durations_in_order(rule)?;
        }
        Ok(policy)
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }
}

/// A rule that no duration fits allows nothing: most likely the two are mixed up.
fn durations_in_order(rule: &Rule) -> Result<(), String> {
    let (least, most) = (rule.allow.min_duration(), rule.allow.max_duration.0);
    if least <= most {
        return Ok(());
    }
    Err(format!(
        "rule {:?}: allow.minDuration: {} s is more than maxDuration, {} s; accepted: at most maxDuration",
        rule.name,
        least.as_secs(),
        most.as_secs()
    ))
}

fn known_keys(rule: &Rule) -> Result<(), String> {
    let check = |field: &str, keys: &BTreeMap<String, Vec<Pattern>>, known: Vec<&str>| {
        keys.keys().find(|key| !known.contains(&key.as_str())).map_or(Ok(()), |unknown| {
            let nearest = nearest_name(unknown, known.iter().copied()).unwrap_or_default();
            Err(format!(
                "rule {:?}: {field}: {unknown:?} is none of those it may name; the nearest is {nearest:?}; accepted: {}",
                rule.name,
                known.join(", ")
            ))
        })
    };
    let all = MATCHED.iter().map(|row| row.name).collect();
    let in_subject = MATCHED.iter().filter(|row| row.in_subject).map(|row| row.name).collect();
    check("match.attributes", &rule.matches.attributes, all)?;
    check("allow.subject", &rule.allow.subject, in_subject)
}
