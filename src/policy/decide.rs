//! The decision on a request: the first rule that fits allows it. Otherwise it is denied, and the denial explains the rule that
//! comes nearest.

use super::file::{Allow, DRIVER, Match, POD_IDENTITY, Policy, Rule};
use super::matched::{MATCHED, Matched};
use crate::model::{
    CertificateSpec, PcaCaller, PcaRequest, Subject, SubjectFields, Usage, WorkloadIdentity,
    short_go_duration, shown, shown_list,
};
use crate::model::{Pattern, PatternKind as Kind};
use std::fmt;
use std::time::Duration;

/// The templates that a rule allows if it names none: those for client and server authentication.
const DEFAULT_TEMPLATES: [&str; 3] =
    ["EndEntityCertificate/V1", "EndEntityClientAuthCertificate/V1", "EndEntityServerAuthCertificate/V1"];
/// The template that such a rule allows too if it allows CAs. Its CAs cannot issue further CAs.
const DEFAULT_CA_TEMPLATE: &str = "SubordinateCACertificate_PathLen0/V1";

/// Of a rule that does not fit, a finding describes so many faults, and counts the others: a request can have hundreds of names.
const MAX_DESCRIBED_FAULTS: usize = 20;

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
    /// What does not fit, at most [`MAX_DESCRIBED_FAULTS`]; empty: the rule allows the request.
    pub faults: Vec<String>,
    /// How many more faults there are.
    pub more_faults: usize,
}

impl Finding {
    fn fault_count(&self) -> usize {
        self.faults.len() + self.more_faults
    }

    /// What does not fit, for the pod's author.
    fn denial(&self) -> String {
        let (rule, faults) = (&self.rule, self.faults.join("; "));
        let more = match self.more_faults {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("denied by the policy of this cluster; rule {rule:?} comes nearest: {faults}{more}")
    }
}

/// The denial of a request that no rule is for.
const NO_RULE: &str = "denied by the policy of this cluster: it has no rule for this pod";

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
        let nearest = for_pod.min_by_key(|finding| finding.fault_count());
        Some(nearest.map_or_else(|| NO_RULE.to_owned(), Finding::denial))
    }
}

/// The explanation that `certlet policy check` prints.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { rule, is_for_pod, faults, more_faults } in &self.findings {
            let state = match (faults.is_empty(), is_for_pod) {
                (true, _) => "fits",
                (false, true) => "is for this pod, but does not allow the request",
                (false, false) => "is not for this pod",
            };
            writeln!(f, "rule {rule:?} {state}")?;
            for fault in faults {
                writeln!(f, "  {fault}")?;
            }
            if *more_faults > 0 {
                writeln!(f, "  and {more_faults} more")?;
            }
        }
        match self.allowed_by() {
            Some(rule) => writeln!(f, "allowed by rule {rule:?}"),
            None => writeln!(f, "{}", self.denial().unwrap_or_default()),
        }
    }
}

impl Policy {
    /// Why a request is denied, if it is. The same as [`Decision::denial`], and keeps one finding at a time in memory.
    pub fn denial(&self, question: &Question<'_>) -> Option<String> {
        let mut nearest: Option<Finding> = None;
        for rule in &self.rules {
            let finding = check(rule, question);
            if finding.fault_count() == 0 {
                return None;
            }
            let is_nearer =
                nearest.as_ref().is_none_or(|nearest| finding.fault_count() < nearest.fault_count());
            if finding.is_for_pod && is_nearer {
                nearest = Some(finding);
            }
        }
        Some(nearest.as_ref().map_or_else(|| NO_RULE.to_owned(), Finding::denial))
    }

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
    let mut check = Check { question, faults: Vec::new(), more_faults: 0 };
    check.selection(&rule.matches);
    let is_for_pod = check.faults.is_empty();
    if is_for_pod {
        check.permission(&rule.allow);
        check.names(&rule.allow);
    }
    let Check { faults, more_faults, .. } = check;
    Finding { rule: rule.name.clone(), is_for_pod, faults, more_faults }
}

/// Collects what does not fit.
struct Check<'a> {
    question: &'a Question<'a>,
    faults: Vec<String>,
    more_faults: usize,
}

impl Check<'_> {
    /// Records a fault. It is described only if few are described already.
    fn fault(&mut self, describe: impl FnOnce() -> String) {
        if self.faults.len() < MAX_DESCRIBED_FAULTS {
            self.faults.push(describe());
        } else {
            self.more_faults += 1;
        }
    }

    /// Checks whether the rule is for this pod, up to the first fault.
    fn selection(&mut self, matches: &Match) {
        let pod = self.question.pod;
        for (what, value, patterns) in [
            ("namespace", &pod.namespace, &matches.namespaces),
            ("service account", &pod.service_account, &matches.service_accounts),
        ] {
            if let Some(patterns) = patterns {
                self.value(what, value, Kind::Dns, patterns);
            }
            if !self.faults.is_empty() {
                return;
            }
        }
        for (name, patterns) in &matches.attributes {
            if !self.faults.is_empty() {
                return;
            }
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
            self.fault(|| {
                let usages: Vec<_> = allow.usages.iter().map(|usage| usage.as_str()).collect();
                format!(
                    "key-usages: {:?}, which the certificate would have, is none of [{}]",
                    usage.as_str(),
                    listed(&usages)
                )
            });
        }
        self.template(allow);
        let (duration, most, least) = (spec.duration, allow.max_duration.0, allow.min_duration());
        for (is_fault, than, limit) in [(duration > most, "more", most), (duration < least, "less", least)] {
            if is_fault {
                let (duration, limit) = (in_words(duration), in_words(limit));
                self.fault(|| format!("duration: {duration} is {than} than {limit}"));
            }
        }
        self.renewal(allow);
        if spec.is_ca && !allow.is_ca {
            self.fault(|| "is-ca: true is not allowed".to_owned());
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
                format!("the private CA cuts the lifetime to {}, and so ", in_words(lifetime))
            } else {
                String::new()
            };
            let (after, least) = (in_words(interval), in_words(least));
            self.fault(|| {
                format!("renew-before: {cut}the renewal comes after {after}; at least {least} is required")
            });
        }
    }

    fn template(&mut self, allow: &Allow) {
        let Question { spec, template, usages, .. } = *self.question;
        let template = template.split_once(":template/").map_or(template, |(_, name)| name);
        // Whatever the patterns say, a template for CAs is allowed only where CAs are.
        let makes_ca = template.contains("CACertificate");
        match &allow.templates {
            _ if makes_ca && !(allow.is_ca && spec.is_ca) => self.fault(|| format!(
                "template-arn: {template:?} makes a CA certificate; is-ca: true, and a rule with isCa: true, are needed"
            )),
            // Its usages cannot be compared with the rule's, so a pattern must not allow it by accident.
            Some(patterns) if usages.is_none() && !patterns.iter().any(|pattern| pattern.text == template) => {
                self.fault(|| format!(
                    "template-arn: certlet does not know which usages {} sets; a rule whose templates name it without an \
                     asterisk is needed",
                    shown(template)
                ));
            }
            Some(patterns) => self.value("template-arn", template, Kind::Path, patterns),
            None if DEFAULT_TEMPLATES.contains(&template) => {}
            None if allow.is_ca && spec.is_ca && template == DEFAULT_CA_TEMPLATE => {}
            None if allow.is_ca && spec.is_ca => self.fault(|| format!(
                "template-arn: {template:?} is not {DEFAULT_CA_TEMPLATE}; a rule without templates allows no other CA"
            )),
            None => self.fault(|| format!(
                "template-arn: {template:?} is none of {}; the requested usages need it",
                DEFAULT_TEMPLATES.join(", ")
            )),
        }
    }

    fn caller(&mut self, what: &str, caller: &str, allow: &Allow) {
        self.fault(|| format!("{what}: {caller:?} is none of the callers [{}]", listed(&allow.callers)));
    }

    /// Checks the alternative names and the subject.
    fn names(&mut self, allow: &Allow) {
        self.attribute("dns-names", &allow.dns_names, false);
        self.attribute("uri-sans", &allow.uris, false);
        self.attribute("email-sans", &allow.emails, false);
        for address in &self.question.spec.sans.ip_addresses {
            // An IPv4 address in an IPv6 address counts as IPv4.
            if !allow.ip_ranges.iter().any(|range| range.0.contains(&address.to_canonical())) {
                self.fault(|| {
                    let ranges: Vec<_> = allow.ip_ranges.iter().map(|range| range.0).collect();
                    format!("ip-sans: {address} is in none of [{}]", listed(&ranges))
                });
            }
        }
        self.attribute("common-name", allow.common_names.as_ref().unwrap_or(&allow.dns_names), false);
        if allow.common_names.is_none()
            && let Subject::Fields(SubjectFields { common_name: Some(name), .. }) =
                &self.question.spec.subject
            && !is_host_name(name)
        {
            self.fault(|| {
                format!(
                    "common-name: {} is not a host name; a rule without commonNames allows host names only",
                    shown(name)
                )
            });
        }
        for row in MATCHED.iter().filter(|row| row.in_subject) {
            self.attribute(row.name, allow.subject.get(row.name).map_or(&[], Vec::as_slice), false);
        }
    }

    /// Checks every value of an attribute. For a selection an attribute that is not set counts as empty, and fits few patterns, and
    /// one value that does not fit is enough.
    fn attribute(&mut self, name: &str, patterns: &[Pattern], is_selection: bool) {
        let Some(Matched { values, kind, .. }) = MATCHED.iter().find(|row| row.name == name) else {
            self.fault(|| format!("{name}: not an attribute"));
            return;
        };
        let mut values = values(self.question);
        if values.is_empty() && is_selection {
            values.push(String::new());
        }
        for value in values {
            self.value(name, &value, *kind, patterns);
            if is_selection && !self.faults.is_empty() {
                return;
            }
        }
    }

    fn value(&mut self, what: &str, value: &str, kind: Kind, patterns: &[Pattern]) {
        if !patterns.iter().any(|pattern| pattern.fits(value, kind, self.question.pod)) {
            self.fault(|| format!("{what}: {} fits none of [{}]", shown(value), listed(patterns)));
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

/// A duration as people write it, in whole seconds.
fn in_words(duration: Duration) -> String {
    let whole = Duration::from_secs(duration.as_secs());
    short_go_duration(if whole.is_zero() { duration } else { whole })
}

fn listed(items: &[impl ToString]) -> String {
    shown_list(items, ", ")
}
