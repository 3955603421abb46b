//! The decision on a request: the first rule that fits allows it. Otherwise it is denied, and the denial explains the rule that
//! comes nearest.

use super::file::{Allow, DRIVER, Match, POD_IDENTITY, Policy, Rule};
use super::matched::{MATCHED, Matched};
use super::pattern::{Kind, Pattern};
use crate::model::{
    CertificateSpec, PcaCaller, PcaRequest, Subject, SubjectFields, Usage, WorkloadIdentity, shown,
    shown_list,
};
use std::fmt;
use std::time::Duration;

/// The templates that a rule allows if it names none: those for client and server authentication.
const DEFAULT_TEMPLATES: [&str; 3] =
    ["EndEntityCertificate/V1", "EndEntityClientAuthCertificate/V1", "EndEntityServerAuthCertificate/V1"];
/// The template that such a rule allows too if it allows CAs. Its CAs cannot issue further CAs.
const DEFAULT_CA_TEMPLATE: &str = "SubordinateCACertificate_PathLen0/V1";

/// A request to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The pod.
    pub pod: &'a WorkloadIdentity,
    /// The requested certificate.
    pub spec: &'a CertificateSpec,
    /// The request to AWS Private CA.
    pub pca: &'a PcaRequest,
    /// The ARN of the template, requested or chosen.
    pub template: &'a str,
    /// The usages that the certificate can carry: those that the template sets, and those requested. None if it is not known what
    /// the template sets. Then a rule must name the template.
    pub usages: Option<&'a [Usage]>,
    /// The lifetime of the certificate: the requested one, or a shorter one that the private CA cuts it to.
    pub lifetime: Duration,
}

/// The decision and its explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rules that were checked. The last one allows the request if it has no faults.
    pub findings: Vec<Finding>,
}

/// The result for one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// Whether the rule's `match` selects this pod.
    pub is_for_pod: bool,
    /// What does not fit; empty: the rule allows the request.
    pub faults: Vec<String>,
}

impl Decision {
    /// The rule that allows the request.
    pub fn allowed_by(&self) -> Option<&str> {
        self.findings.last().filter(|last| last.faults.is_empty()).map(|last| last.rule.as_str())
    }

    /// The denial for the pod's author: of the rules for this pod the one that comes nearest, and why it does not allow the
    /// request. It shows nothing of rules for others.
    pub fn denial(&self) -> Option<String> {
        if self.allowed_by().is_some() {
            return None;
        }
        let for_pod = self.findings.iter().filter(|finding| finding.is_for_pod);
        let Some(Finding { rule, faults, .. }) = for_pod.min_by_key(|finding| finding.faults.len()) else {
            return Some("denied by the policy of this cluster: it has no rule for this pod".to_owned());
        };
        let faults = shown_list(faults, "; ");
        Some(format!("denied by the policy of this cluster; rule {rule:?} comes nearest: {faults}"))
    }
}

/// The explanation that `certlet policy check` prints.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { rule, is_for_pod, faults } in &self.findings {
            let state = match (faults.is_empty(), is_for_pod) {
                (true, _) => "fits",
                (false, true) => "is for this pod, but does not allow the request",
                (false, false) => "is not for this pod",
            };
            writeln!(f, "rule {rule:?} {state}")?;
            for fault in faults {
                writeln!(f, "  {fault}")?;
            }
        }
        match self.allowed_by() {
            Some(rule) => writeln!(f, "allowed by rule {rule:?}"),
            None => writeln!(f, "{}", self.denial().unwrap_or_default()),
        }
    }
}

impl Policy {
    /// Decides on a request.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let mut findings = Vec::new();
        for rule in &self.rules {
            findings.push(check(rule, question));
            if findings.last().is_some_and(|finding| finding.faults.is_empty()) {
                break;
            }
        }
        Decision { findings }
    }
}

fn check(rule: &Rule, question: &Question<'_>) -> Finding {
    let mut check = Check { question, faults: Vec::new() };
    check.selection(&rule.matches);
    let is_for_pod = check.faults.is_empty();
    if is_for_pod {
        check.permission(&rule.allow);
        check.names(&rule.allow);
    }
    Finding { rule: rule.name.clone(), is_for_pod, faults: check.faults }
}

/// Collects what does not fit.
struct Check<'a> {
    question: &'a Question<'a>,
    faults: Vec<String>,
}

impl Check<'_> {
    /// Checks whether the rule is for this pod.
    fn selection(&mut self, matches: &Match) {
        let pod = self.question.pod;
        for (what, value, patterns) in [
            ("namespace", &pod.namespace, &matches.namespaces),
            ("service account", &pod.service_account, &matches.service_accounts),
        ] {
            if let Some(patterns) = patterns {
                self.value(what, value, Kind::Dns, patterns);
            }
        }
        for (name, patterns) in &matches.attributes {
            // An attribute that is not set counts as empty, and fits few patterns.
            self.attribute(name, patterns, true);
        }
    }

    /// Checks CA, caller, usages, template, duration, renewal and `is-ca`.
    fn permission(&mut self, allow: &Allow) {
        let Question { spec, pca, usages, .. } = *self.question;
        self.attribute("certificate-authority-arn", &allow.certificate_authorities, false);
        let by_name = |name: &str| allow.callers.iter().any(|caller| caller.text == name);
        match &pca.caller {
            PcaCaller::Role(role) => self.value("role-arn", role, Kind::Path, &allow.callers),
            // Only the exact entry allows these two, because patterns for role ARNs are not meant for them.
            PcaCaller::PodIdentity if !by_name(POD_IDENTITY) => {
                self.caller("use-pod-identity", POD_IDENTITY, allow);
            }
            PcaCaller::Driver if !by_name(DRIVER) => {
                self.caller("role-arn, use-pod-identity: not set", DRIVER, allow);
            }
            PcaCaller::PodIdentity | PcaCaller::Driver => {}
        }
        for usage in usages.unwrap_or(&spec.usages).iter().filter(|usage| !allow.usages.contains(usage)) {
            let usages: Vec<_> = allow.usages.iter().map(|usage| usage.as_str()).collect();
            self.faults.push(format!(
                "key-usages: {:?}, which the certificate would have, is none of [{}]",
                usage.as_str(),
                listed(&usages)
            ));
        }
        self.template(allow);
        let (duration, most, least) = (spec.duration, allow.max_duration.0, allow.min_duration());
        for (is_fault, than, limit) in [(duration > most, "more", most), (duration < least, "less", least)] {
            if is_fault {
                let (seconds, limit) = (duration.as_secs(), limit.as_secs());
                self.faults.push(format!("duration: {seconds} s is {than} than {limit} s"));
            }
        }
        self.renewal(allow);
        if spec.is_ca && !allow.is_ca {
            self.faults.push("is-ca: true is not allowed".to_owned());
        }
    }

    /// Checks how long the certificate is used before it is renewed.
    fn renewal(&mut self, allow: &Allow) {
        let Question { spec, lifetime, .. } = *self.question;
        let interval = spec.renew_before.and_then(|before| lifetime.checked_sub(before));
        let interval = interval.filter(|interval| !interval.is_zero()).unwrap_or(lifetime * 2 / 3);
        let least = allow.min_renewal_interval(lifetime);
        if interval < least {
            let cut = if lifetime < spec.duration {
                format!("the private CA cuts the lifetime to {} s, and so ", lifetime.as_secs())
            } else {
                String::new()
            };
            let (seconds, least) = (interval.as_secs(), least.as_secs());
            self.faults.push(format!(
                "renew-before: {cut}the renewal comes after {seconds} s; at least {least} s are required"
            ));
        }
    }

    fn template(&mut self, allow: &Allow) {
        let Question { spec, template, usages, .. } = *self.question;
        let template = template.split_once(":template/").map_or(template, |(_, name)| name);
        // Whatever the patterns say, a template for CAs is allowed only where CAs are.
        let makes_ca = template.contains("CACertificate");
        match &allow.templates {
            _ if makes_ca && !(allow.is_ca && spec.is_ca) => self.faults.push(format!(
                "template-arn: {template:?} makes a CA certificate; is-ca: true, and a rule with isCa: true, are needed"
            )),
            // Its usages cannot be compared with the rule's, so a pattern must not allow it by accident.
            Some(patterns) if usages.is_none() && !patterns.iter().any(|pattern| pattern.text == template) => {
                self.faults.push(format!(
                    "template-arn: certlet does not know which usages {} sets; a rule whose templates name it without an \
                     asterisk is needed",
                    shown(template)
                ));
            }
            Some(patterns) => self.value("template-arn", template, Kind::Path, patterns),
            None if DEFAULT_TEMPLATES.contains(&template) => {}
            None if allow.is_ca && spec.is_ca && template == DEFAULT_CA_TEMPLATE => {}
            None if allow.is_ca && spec.is_ca => self.faults.push(format!(
                "template-arn: {template:?} is not {DEFAULT_CA_TEMPLATE}; a rule without templates allows no other CA"
            )),
            None => self.faults.push(format!(
                "template-arn: {template:?} is none of {}; the requested usages need it",
                DEFAULT_TEMPLATES.join(", ")
            )),
        }
    }

    fn caller(&mut self, what: &str, caller: &str, allow: &Allow) {
        self.faults.push(format!("{what}: {caller:?} is none of the callers [{}]", listed(&allow.callers)));
    }

    /// Checks the alternative names and the subject.
    fn names(&mut self, allow: &Allow) {
        self.attribute("dns-names", &allow.dns_names, false);
        self.attribute("uri-sans", &allow.uris, false);
        for address in &self.question.spec.sans.ip_addresses {
            // An IPv4 address in an IPv6 address counts as IPv4.
            if !allow.ip_ranges.iter().any(|range| range.0.contains(&address.to_canonical())) {
                let ranges: Vec<_> = allow.ip_ranges.iter().map(|range| range.0).collect();
                let ranges = listed(&ranges);
                self.faults.push(format!("ip-sans: {address} is in none of [{ranges}]"));
            }
        }
        self.attribute("common-name", allow.common_names.as_ref().unwrap_or(&allow.dns_names), false);
        if allow.common_names.is_none()
            && let Subject::Fields(SubjectFields { common_name: Some(name), .. }) =
                &self.question.spec.subject
            && !is_host_name(name)
        {
            self.faults.push(format!(
                "common-name: {} is not a host name; a rule without commonNames allows host names only",
                shown(name)
            ));
        }
        for row in MATCHED.iter().filter(|row| row.in_subject) {
            self.attribute(row.name, allow.subject.get(row.name).map_or(&[], Vec::as_slice), false);
        }
    }

    /// Checks every value of an attribute.
    fn attribute(&mut self, name: &str, patterns: &[Pattern], must_be_set: bool) {
        let Some(Matched { values, kind, .. }) = MATCHED.iter().find(|row| row.name == name) else {
            self.faults.push(format!("{name}: not an attribute"));
            return;
        };
        let mut values = values(self.question);
        if values.is_empty() && must_be_set {
            values.push(String::new());
        }
        for value in values {
            self.value(name, &value, *kind, patterns);
        }
    }

    fn value(&mut self, what: &str, value: &str, kind: Kind, patterns: &[Pattern]) {
        if !patterns.iter().any(|pattern| pattern.fits(value, kind, self.question.pod)) {
            self.faults.push(format!("{what}: {} fits none of [{}]", shown(value), listed(patterns)));
        }
    }
}

/// Whether a text has the form of a host name (RFC 1123 section 2.1), with an asterisk as its first label perhaps.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.strip_prefix("*.").unwrap_or(text).split('.').all(is_label)
}

fn listed(items: &[impl ToString]) -> String {
    shown_list(items, ", ")
}
