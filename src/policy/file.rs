//! The policy file, in YAML. An unknown field is an error, because a mistyped limit must not become no limit.

use super::matched::MATCHED;
use super::placeholder::{authority_fault, caller_fault};
use super::upgrade::upgrade;
use crate::model::{Pattern, Usage, nearest_name, short_go_duration};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The shortest duration if a rule names none. Certificates cost money and quota, so a pod's author must not request one every
/// second.
const DEFAULT_MIN_DURATION: Duration = Duration::from_hours(1);

/// The entry of `allow.callers` for the role that EKS Pod Identity associates with the pod's service account.
pub(super) const POD_IDENTITY: &str = "pod-identity";
/// The entry of `allow.callers` for the driver's own role.
pub(super) const DRIVER: &str = "driver";

/// The rules: which pods may have which certificates from AWS Private CA.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    /// The version of the format: 2.
    pub(super) version: u32,
    /// In order; the first one that fits allows the request.
    pub(super) rules: Vec<Rule>,
    /// Certificates an hour for the pods of one namespace on one node, whatever rule allows them; 0 for no limit.
    #[serde(default = "default_issuances")]
    max_issuances_per_hour: u32,
}

/// The default of `maxIssuancesPerHour`: more than two hundred pods of one node need that renew every twenty minutes.
const fn default_issuances() -> u32 {
    600
}

/// One rule: it selects pods and says what they may have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) name: String,
    #[serde(rename = "match", default)]
    pub(super) matches: Match,
    pub(super) allow: Allow,
}

/// The pods that a rule is for. A missing list selects all pods, an empty list selects none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Match {
    pub(super) namespaces: Option<Vec<Pattern>>,
    pub(super) service_accounts: Option<Vec<Pattern>>,
    /// By attribute: each of its values must fit one of the patterns.
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Vec<Pattern>>,
}

/// What a rule allows. A missing field allows nothing, except for templates and the shortest duration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Allow {
    /// ARNs.
    pub(super) certificate_authorities: Vec<Pattern>,
    /// Names such as `EndEntityCertificate/V1`; default: the templates for client and server authentication.
    pub(super) templates: Option<Vec<Pattern>>,
    /// With whose role AWS is called: [`DRIVER`], [`POD_IDENTITY`] for `use-pod-identity`, ARNs for `role-arn`.
    #[serde(default)]
    pub(super) callers: Vec<Pattern>,
    /// For `key-usages`.
    #[serde(default)]
    pub(super) usages: Vec<Usage>,
    pub(super) max_duration: Lifetime,
    /// Default: [`DEFAULT_MIN_DURATION`], or `maxDuration` if that is less.
    min_duration: Option<Lifetime>,
    /// The shortest time from an issuance to its renewal; default: half of the duration.
    min_renewal_interval: Option<Lifetime>,
    /// For `common-name`; default: `dnsNames`.
    pub(super) common_names: Option<Vec<Pattern>>,
    #[serde(default)]
    pub(super) dns_names: Vec<Pattern>,
    #[serde(default)]
    pub(super) uris: Vec<Pattern>,
    #[serde(default)]
    pub(super) emails: Vec<Pattern>,
    #[serde(default)]
    pub(super) ip_ranges: Vec<IpRange>,
    /// For the other subject attributes, by name: `organizations`, `literal-subject` and so on.
    #[serde(default)]
    pub(super) subject: BTreeMap<String, Vec<Pattern>>,
    /// Whether `is-ca` may be true.
    #[serde(default)]
    pub(super) is_ca: bool,
}

impl Allow {
    /// The shortest allowed duration.
    pub(super) fn min_duration(&self) -> Duration {
        self.min_duration.map_or(DEFAULT_MIN_DURATION.min(self.max_duration.0), |given| given.0)
    }

    /// The shortest allowed time from the issuance of a certificate with that duration to its renewal.
    pub(super) fn min_renewal_interval(&self, duration: Duration) -> Duration {
        self.min_renewal_interval.map_or(duration / 2, |given| given.0)
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
            format!("maxDuration, minDuration or minRenewalInterval: {text:?}: {fault}; accepted: a Go duration such as 24h")
        })
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct IpRange(pub(super) IpNet);

impl TryFrom<String> for IpRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let range = text.parse().or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address)));
        // Bits after the prefix are most likely a mistake.
        let range = range.ok().filter(|range| range.trunc() == *range);
        range
            .map(Self)
            .ok_or_else(|| format!("ipRanges: {text:?}; accepted: an address, or a range such as 10.0.0.0/8"))
    }
}

/// Limit on the text, that of a ConfigMap.
const MAX_BYTES: usize = 1 << 20;

/// Why a policy file is not used.
#[derive(Debug, Error)]
#[error("policy file {}: {problem}", .path.display())]
pub struct PolicyError {
    path: PathBuf,
    problem: String,
}

impl Policy {
    /// Reads a policy file.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        text.and_then(|text| Self::parse(&text))
            .map_err(|problem| PolicyError { path: path.to_owned(), problem })
    }

    /// Parses a policy.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("is {} bytes long; accepted: at most {MAX_BYTES}", text.len()));
        }
        if let Some(lines) = upgrade(text) {
            return Err(format!(
                "version: 1; accepted: 2, which allows only what is listed. Change these lines:\n{lines}"
            ));
        }
        let policy: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if policy.version != 2 {
            return Err(format!("version: {}; accepted: 2", policy.version));
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            if rule.name.trim().is_empty() {
                return Err(format!("rules[{at}].name: empty; accepted: a name, which denials show"));
            }
            if policy.rules.iter().take(at).any(|earlier| earlier.name == rule.name) {
                return Err(format!("rules[{at}].name: {:?} is the name of two rules", rule.name));
            }
            check_keys(rule)?;
            // With these durations the rule would allow nothing. Most likely they are swapped.
            let (least, most) = (rule.allow.min_duration(), rule.allow.max_duration.0);
            if least > most {
                return Err(format!(
                    "rule {:?}: allow.minDuration: {} is more than maxDuration, {}; accepted: at most maxDuration",
                    rule.name,
                    short_go_duration(least),
                    short_go_duration(most)
                ));
            }
        }
        Ok(policy)
    }

    /// Patterns that most likely allow more than was meant.
    pub fn warnings(&self) -> Vec<String> {
        let of_rule = |rule: &Rule| {
            let Rule { name, matches, allow } = rule;
            let lists =
                [&matches.namespaces, &matches.service_accounts, &allow.templates, &allow.common_names];
            let lists = lists.into_iter().flatten();
            let lists =
                lists.chain([&allow.certificate_authorities, &allow.callers, &allow.dns_names, &allow.uris]);
            let lists =
                lists.chain([&allow.emails]).chain(matches.attributes.values()).chain(allow.subject.values());
            let ambiguous = lists.flatten().filter(|pattern| pattern.is_ambiguous()).map(move |pattern| {
                format!(
                    "rule {name:?}: {pattern}: a variable beside an asterisk, so that {{namespace}}-* of the namespace \
                     shop matches names of the namespace shop-a; put a dot or a slash between them"
                )
            });
            let open = allow.certificate_authorities.iter().filter(|pattern| pattern.leaves_region_open());
            let open = open.map(move |pattern| {
                format!(
                    "rule {name:?}: {pattern}: an asterisk for the Region, so that a pod can make the driver call any \
                     Region; write the Regions, one pattern for each"
                )
            });
            ambiguous.chain(open).collect::<Vec<_>>()
        };
        self.rules.iter().flat_map(of_rule).collect()
    }

    /// Patterns that no ARN can fit, such as the placeholders of an example, and what is accepted in their stead.
    pub fn placeholders(&self) -> Vec<String> {
        let of_rule = |Rule { name, allow, .. }: &Rule| {
            let authorities = allow.certificate_authorities.iter().filter_map(|pattern| {
                let fault = authority_fault(&pattern.text)?;
                Some(format!("rule {name:?}: certificateAuthorities: {:?} {fault}", pattern.text))
            });
            let callers = allow.callers.iter().filter_map(|pattern| {
                let fault = caller_fault(&pattern.text)?;
                Some(format!("rule {name:?}: callers: {:?} {fault}", pattern.text))
            });
            authorities.chain(callers).collect::<Vec<_>>()
        };
        self.rules.iter().flat_map(of_rule).collect()
    }

    /// Certificates an hour for the pods of one namespace on one node; 0 for no limit.
    pub fn max_issuances_per_hour(&self) -> u32 {
        self.max_issuances_per_hour
    }

    /// The number of rules.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }
}

/// Refuses names that are not attributes.
fn check_keys(rule: &Rule) -> Result<(), String> {
    let in_match: Vec<&str> = MATCHED.iter().map(|row| row.name).collect();
    let in_subject = MATCHED.iter().filter(|row| row.in_subject).map(|row| row.name).collect();
    for (field, patterns, known) in [
        ("match.attributes", &rule.matches.attributes, in_match),
        ("allow.subject", &rule.allow.subject, in_subject),
    ] {
        if let Some(unknown) = patterns.keys().find(|key| !known.contains(&key.as_str())) {
            let nearest = nearest_name(unknown, known.iter().copied()).unwrap_or_default();
            return Err(format!(
                "rule {:?}: {field}: {unknown:?} is not one of its attributes; the nearest is {nearest:?}; accepted: {}",
                rule.name,
                known.join(", ")
            ));
        }
    }
    Ok(())
}
