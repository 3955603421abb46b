//! Holding a request against the rules: the first that fits allows it; otherwise it is denied, and told how near it came.

use super::file::{Allow, Match, POD_IDENTITY, Policy, Rule};
use super::matched::{MATCHED, matched};
use super::pattern::{Kind, Pattern};
use crate::model::{CertificateSpec, PcaCaller, PcaRequest, Subject, SubjectFields, WorkloadIdentity};
use std::fmt;

/// Where a rule names no templates: what those for client and server authentication can do any pod may have.
const USUAL_TEMPLATES: [&str; 3] =
    ["EndEntityCertificate/V1", "EndEntityClientAuthCertificate/V1", "EndEntityServerAuthCertificate/V1"];
/// And where it allows CAs: one that cannot make further CAs.
const USUAL_CA_TEMPLATE: &str = "SubordinateCACertificate_PathLen0/V1";

/// What is to be decided on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub pod: &'a WorkloadIdentity,
    /// For what.
    pub spec: &'a CertificateSpec,
    /// What of AWS Private CA.
    pub pca: &'a PcaRequest,
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
            let finding = examine(rule, question);
            let fits = finding.faults.is_empty();
            looked_at.push(finding);
            if fits {
                return Decision { allowed_by: Some(rule.name.clone()), looked_at };
            }
        }
        Decision { allowed_by: None, looked_at }
    }
}

fn examine(rule: &Rule, question: &Question<'_>) -> Finding {
    let mut faults = Faults { pod: question.pod, list: Vec::new() };
    faults.whom(&rule.matches, question);
    let is_for_pod = faults.list.is_empty();
    faults.what(&rule.allow, question);
    faults.names(&rule.allow, question);
    Finding { rule: rule.name.clone(), is_for_pod, faults: faults.list }
}

struct Faults<'a> {
    pod: &'a WorkloadIdentity,
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
            let Some(row) = matched(attribute) else { continue };
            let mut values = (row.values)(question);
            if values.is_empty() {
                // Not set: a rule for certain values is not for volumes without any.
                values.push(String::new());
            }
            for value in values {
                self.one(attribute, &value, row.kind, patterns);
            }
        }
    }

    fn what(&mut self, allow: &Allow, question: &Question<'_>) {
        let attributes = question.spec;
        let authority = &question.pca.certificate_authority_arn;
        self.one("certificate-authority-arn", authority, Kind::Path, &allow.certificate_authorities);
        match &question.pca.caller {
            PcaCaller::Role(role) => self.one("role-arn", role, Kind::Path, &allow.roles),
            // Named exactly: a pattern for roles was not written with this in mind.
            PcaCaller::PodIdentity if !allow.roles.iter().any(|role| role.as_str() == POD_IDENTITY) => {
                let roles = listed(&allow.roles);
                self.list.push(format!("use-pod-identity: {POD_IDENTITY:?} is none of the roles [{roles}]"));
            }
            PcaCaller::PodIdentity | PcaCaller::Driver => {}
        }
        let template = question.template.split_once(":template/").map_or(question.template, |(_, name)| name);
        match &allow.templates {
            Some(patterns) => self.one("template-arn", template, Kind::Path, patterns),
            None if USUAL_TEMPLATES.contains(&template) => {}
            None if allow.is_ca && attributes.is_ca && template == USUAL_CA_TEMPLATE => {}
            None if allow.is_ca && attributes.is_ca => self.list.push(format!(
                "template-arn: {template:?} is not {USUAL_CA_TEMPLATE}; a rule without templates allows no other CA"
            )),
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
        if attributes.duration < allow.min_duration() {
            self.list.push(format!(
                "duration: {} s is less than {} s",
                attributes.duration.as_secs(),
                allow.min_duration().as_secs()
            ));
        }
        if attributes.is_ca && !allow.is_ca {
            self.list.push("is-ca: true is not allowed".to_owned());
        }
    }

    fn names(&mut self, allow: &Allow, question: &Question<'_>) {
        let attributes = question.spec;
        for name in &attributes.sans.dns_names {
            self.one("dns-names", name, Kind::Dns, &allow.dns_names);
        }
        for uri in &attributes.sans.uris {
            self.one("uri-sans", uri, Kind::Uri, &allow.uris);
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
        for row in MATCHED.iter().filter(|row| row.in_subject) {
            let patterns = allow.subject.get(row.name).map(Vec::as_slice).unwrap_or_default();
            for value in (row.values)(question) {
                self.one(row.name, &value, row.kind, patterns);
            }
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
