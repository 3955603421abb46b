//! Holding a request against the rules: the first that fits allows it; otherwise it is denied, and told how near it came.

use super::file::{Allow, Match, Policy, Rule};
use super::pattern::{Kind, Pattern};
use crate::attributes::{Attributes, KeyAlgorithm, PodIdentity, Subject, SubjectFields};
use std::fmt;

/// What `match.attributes` may name.
pub(super) const MATCHED_ATTRIBUTES: [&str; 6] =
    ["certificate-authority-arn", "is-ca", "key-algorithm", "key-usages", "role-arn", "template-arn"];

/// What `allow.subject` may name.
pub(super) const SUBJECT_ATTRIBUTES: [&str; 9] = [
    "literal-subject",
    "organizations",
    "organizationalunits",
    "countries",
    "provinces",
    "localities",
    "streetaddresses",
    "postalcodes",
    "serialnumber",
];

/// Where a rule names no templates: what those for client and server authentication can do any pod may have.
const USUAL_TEMPLATES: [&str; 3] =
    ["EndEntityCertificate/V1", "EndEntityClientAuthCertificate/V1", "EndEntityServerAuthCertificate/V1"];

/// What is to be decided on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub pod: &'a PodIdentity,
    /// For what.
    pub attributes: &'a Attributes,
    /// The ARN of the template that would be used.
    pub template: &'a str,
}

/// The answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule that allows it.
    pub allowed_by: Option<String>,
    /// Each rule that was looked at, and what does not fit.
    pub looked_at: Vec<Finding>,
}

/// One rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// Whether it is for this pod at all.
    pub is_for_pod: bool,
    /// What does not fit; empty: it allows.
    pub faults: Vec<String>,
}

impl Decision {
    /// The denial for the pod's author: the rule that came nearest, and why it does not allow it.
    pub fn denial(&self) -> Option<String> {
        if self.allowed_by.is_some() {
            return None;
        }
        let nearest = self.looked_at.iter().min_by_key(|finding| (!finding.is_for_pod, finding.faults.len()));
        Some(nearest.map_or_else(
            || "denied by the policy of this cluster: it has no rules".to_owned(),
            |nearest| {
                format!(
                    "denied by the policy of this cluster; rule {:?} comes nearest: {}",
                    nearest.rule,
                    nearest.faults.join("; ")
                )
            },
        ))
    }
}

/// The explanation that `certlet policy check` prints.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { rule, is_for_pod, faults } in &self.looked_at {
            let state = match (faults.is_empty(), is_for_pod) {
                (true, _) => "fits",
                (false, true) => "is for this pod, and does not allow it",
                (false, false) => "is for others",
            };
            writeln!(f, "rule {rule:?} {state}")?;
            for fault in faults {
                writeln!(f, "  {fault}")?;
            }
        }
        match &self.allowed_by {
            Some(rule) => writeln!(f, "allowed by rule {rule:?}"),
            None => writeln!(f, "{}", self.denial().unwrap_or_default()),
        }
    }
}

impl Policy {
    /// Decides.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let mut looked_at = Vec::new();
        for rule in &self.rules {
            let finding = look_at(rule, question);
            let fits = finding.faults.is_empty();
            looked_at.push(finding);
            if fits {
                return Decision { allowed_by: Some(rule.name.clone()), looked_at };
            }
        }
        Decision { allowed_by: None, looked_at }
    }
}

fn look_at(rule: &Rule, question: &Question<'_>) -> Finding {
    let mut faults = Faults { pod: question.pod, list: Vec::new() };
    faults.whom(&rule.matches, question);
    let is_for_pod = faults.list.is_empty();
    faults.what(&rule.allow, question);
    faults.names(&rule.allow, question.attributes);
    Finding { rule: rule.name.clone(), is_for_pod, faults: faults.list }
}

struct Faults<'a> {
    pod: &'a PodIdentity,
    list: Vec<String>,
}

impl Faults<'_> {
    fn whom(&mut self, matches: &Match, question: &Question<'_>) {
        let pod = question.pod;
        for (what, value, patterns) in [
            ("namespace", &pod.namespace, &matches.namespaces),
            ("service account", &pod.service_account, &matches.service_accounts),
        ] {
            if let Some(patterns) = patterns {
                self.one(what, value, Kind::Dns, patterns);
            }
        }
        for (attribute, patterns) in &matches.attributes {
            for value in values(question, attribute) {
                self.one(attribute, &value, Kind::Text, patterns);
            }
        }
    }

    fn what(&mut self, allow: &Allow, question: &Question<'_>) {
        let attributes = question.attributes;
        if let Some(pca) = &attributes.pca {
            let authority = &pca.certificate_authority_arn;
            self.one("certificate-authority-arn", authority, Kind::Path, &allow.certificate_authorities);
            if let Some(role) = &pca.role_arn {
                self.one("role-arn", role, Kind::Path, &allow.roles);
            }
        }
        let template = question.template.split_once(":template/").map_or(question.template, |(_, name)| name);
        match &allow.templates {
            Some(patterns) => self.one("template-arn", template, Kind::Path, patterns),
            None if USUAL_TEMPLATES.contains(&template) || (allow.is_ca && attributes.is_ca) => {}
            None => self.list.push(format!(
                "template-arn: {template:?} is none of {}; the usages asked for need it",
                USUAL_TEMPLATES.join(", ")
            )),
        }
        if attributes.duration > allow.max_duration.0 {
            self.list.push(format!(
                "duration: {} s is more than {} s",
                attributes.duration.as_secs(),
                allow.max_duration.0.as_secs()
            ));
        }
        if attributes.is_ca && !allow.is_ca {
            self.list.push("is-ca: true is not allowed".to_owned());
        }
    }

    fn names(&mut self, allow: &Allow, attributes: &Attributes) {
        for name in &attributes.sans.dns_names {
            self.one("dns-names", name, Kind::Dns, &allow.dns_names);
        }
        for uri in &attributes.sans.uris {
            self.one("uri-sans", uri, Kind::Path, &allow.uris);
        }
        for address in &attributes.sans.ip_addresses {
            if !allow.ip_ranges.iter().any(|range| range.contains(*address)) {
                self.list.push(format!("ip-sans: {address} lies in none of [{}]", listed(&allow.ip_ranges)));
            }
        }
        if let Subject::Fields(SubjectFields { common_name: Some(name), .. }) = &attributes.subject {
            let patterns = allow.common_names.as_ref().unwrap_or(&allow.dns_names);
            self.one("common-name", name, Kind::Dns, patterns);
        }
        for (attribute, value) in subject_values(&attributes.subject) {
            let patterns = allow.subject.get(attribute).map(Vec::as_slice).unwrap_or_default();
            self.one(attribute, &value, Kind::Text, patterns);
        }
    }

    fn one(&mut self, what: &str, value: &str, kind: Kind, patterns: &[Pattern]) {
        if !patterns.iter().any(|pattern| pattern.fits(value, kind, self.pod)) {
            self.list.push(format!("{what}: {value:?} fits none of [{}]", listed(patterns)));
        }
    }
}

fn listed(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The values of an attribute that `match.attributes` names; one that is not set has the empty value.
fn values(question: &Question<'_>, attribute: &str) -> Vec<String> {
    let attributes = question.attributes;
    let pca = attributes.pca.as_ref();
    let one = |value: Option<String>| vec![value.unwrap_or_default()];
    match attribute {
        "certificate-authority-arn" => one(pca.map(|pca| pca.certificate_authority_arn.clone())),
        "role-arn" => one(pca.and_then(|pca| pca.role_arn.clone())),
        "template-arn" => one(Some(question.template.to_owned())),
        "is-ca" => one(Some(attributes.is_ca.to_string())),
        "key-algorithm" => one(Some(algorithm(attributes.key.algorithm).to_owned())),
        _ => attributes.usages.iter().map(|usage| usage.as_str().to_owned()).collect(),
    }
}

fn algorithm(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => "RSA",
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::EcdsaP521 => "ECDSA",
        KeyAlgorithm::Ed25519 => "Ed25519",
    }
}

/// What the subject holds besides the common name.
fn subject_values(subject: &Subject) -> Vec<(&'static str, String)> {
    let fields = match subject {
        Subject::Literal(name) => return vec![("literal-subject", name.to_string())],
        Subject::Fields(fields) => fields,
    };
    let lists: [(&'static str, &[String]); 8] = [
        ("organizations", &fields.organizations),
        ("organizationalunits", &fields.organizational_units),
        ("countries", &fields.countries),
        ("provinces", &fields.provinces),
        ("localities", &fields.localities),
        ("streetaddresses", &fields.street_addresses),
        ("postalcodes", &fields.postal_codes),
        ("serialnumber", fields.serial_number.as_slice()),
    ];
    lists.into_iter().flat_map(|(name, list)| list.iter().map(move |value| (name, value.clone()))).collect()
}
