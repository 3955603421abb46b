//! `certlet policy check`: explains the decision of a policy file on one request.

use super::classes::ClassArgs;
use super::shared::{ClusterDomainArgs, VariableArgs};
use super::sidecar::{Attribute, AttributeList, attributes as from_lists};
use super::spiffe::SpiffeArgs;
use super::values;
use crate::attributes::{self, AttributeErrors, OperatorDefaults};
use crate::model::{Dialect, RawAttributes, WorkloadIdentity};
use crate::policy::{Policy, PolicyError, Question, upgrade};
use crate::run::ClassesError;
use crate::signer::template_of;
use clap::{Args, Subcommand};
use std::fmt::Display;
use std::path::PathBuf;
use thiserror::Error;

/// Actions on a policy file.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyAction {
    /// Explain the decision of the rules on one request; exit code 1 if they deny it.
    #[command(after_help = super::examples::POLICY_CHECK)]
    Check(CheckArgs),
}

/// `certlet policy check`
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Policy file, as for `certlet node --pca-policy`.
    pub file: PathBuf,

    /// Pod of the request: NAMESPACE/NAME. Without it, only the file is checked.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = values::pod_name)]
    pub pod: Option<(String, String)>,

    /// Service account of the pod.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub service_account: String,

    /// Print what a file of version 1 needs to be one of version 2, and check nothing else.
    #[arg(long, conflicts_with = "pod")]
    pub upgrade: bool,

    /// Attributes of the volume, separated by commas or in repeated flags. The prefix csi.certlet.io/ and "signer=acm-pca" are added if
    /// missing, the second one not to a volume that names its class.
    #[arg(long, alias = "attribute", value_name = "NAME=VALUE,...", value_parser = values::attribute_list)]
    pub attributes: Vec<AttributeList>,

    /// What variables stand for.
    #[command(flatten)]
    pub variables: VariableArgs,

    /// The cluster's DNS domain.
    #[command(flatten)]
    pub cluster_domain: ClusterDomainArgs,

    /// SPIFFE IDs, as for `certlet node`.
    #[command(flatten)]
    pub spiffe: SpiffeArgs,

    /// Classes of identity, as for `certlet node`.
    #[command(flatten)]
    pub classes: ClassArgs,
}

/// Why the request is not allowed.
#[derive(Debug, Error)]
pub enum PolicyCheckError {
    /// The file is invalid.
    #[error(transparent)]
    File(#[from] PolicyError),
    /// The file still has the names of an example.
    #[error("{0}")]
    Placeholders(String),
    /// The file of classes is invalid.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// The attributes are invalid.
    #[error("--attributes: {0}")]
    Attributes(String),
    /// The rules deny it; the text explains why.
    #[error("{0}")]
    Denied(String),
}

impl CheckArgs {
    /// The explanation.
    pub fn render(&self) -> Result<String, PolicyCheckError> {
        if self.upgrade
            && let Some(lines) = std::fs::read_to_string(&self.file).ok().and_then(|text| upgrade(&text))
        {
            return Ok(lines);
        }
        let policy = Policy::read(&self.file)?;
        let warnings: String =
            policy.warnings().iter().map(|warning| "warning: ".to_owned() + warning + "\n").collect();
        let placeholders = policy.placeholders();
        if !placeholders.is_empty() {
            return Err(PolicyCheckError::Placeholders(placeholders.join("; ")));
        }
        let Some((namespace, name)) = &self.pod else {
            let budget = budget(policy.max_issuances_per_hour());
            let file = self.file.display();
            let rules = match policy.rules() {
                0 => "no rules, so that nothing is allowed".to_owned(),
                1 => "1 rule, valid".to_owned(),
                rules => format!("{rules} rules, all valid"),
            };
            return Ok(format!("{warnings}{file}: {rules}\n{budget}"));
        };
        let pod = WorkloadIdentity {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: "00000000-0000-0000-0000-000000000000".to_owned(),
            service_account: self.service_account.clone(),
        };
        let refused = |error: &dyn Display| PolicyCheckError::Attributes(error.to_string());
        let raw = raw(&self.attributes).map_err(|error| refused(&error))?;
        let spiffe_ids = self.spiffe.ids(Dialect::Certlet).map_err(|error| refused(&error))?;
        let mut defaults = OperatorDefaults {
            spiffe_ids,
            node_name: self.variables.node_name.clone(),
            pod_ip: self.variables.pod_ip(),
            cluster_domain: self.cluster_domain.cluster_domain.clone(),
            ..OperatorDefaults::default()
        };
        if let Some(classes) = self.classes.config() {
            classes.load(&mut defaults)?;
        }
        let spec = attributes::parse(&raw, &pod, &defaults).map_err(|error| refused(&error))?;
        let pca = spec.signer.acm_pca().ok_or_else(|| {
            let fault = "signer: a policy is for acm-pca only; accepted: signer=acm-pca";
            PolicyCheckError::Attributes(fault.to_owned())
        })?;
        let (template, usages) = template_of(&spec, &pod).map_err(PolicyCheckError::Attributes)?;
        let usages = usages.as_deref();
        let (template, lifetime) = (template.as_str(), spec.duration);
        let decision = policy.decide(&Question { pod: &pod, spec: &spec, pca, template, usages, lifetime });
        let budget = budget(policy.max_issuances_per_hour());
        let text = format!("{warnings}template {template}\n{budget}{decision}");
        if decision.allowed_by().is_some() { Ok(text) } else { Err(PolicyCheckError::Denied(text)) }
    }
}

/// The line that says how many certificates a namespace gets.
fn budget(per_hour: u32) -> String {
    match per_hour {
        0 => "budget: no limit on the certificates of a namespace\n".to_owned(),
        1 => "budget: 1 certificate an hour for the pods of one namespace on one node\n".to_owned(),
        limit => format!("budget: {limit} certificates an hour for the pods of one namespace on one node\n"),
    }
}

/// The attributes of a volume that asks AWS Private CA.
fn raw(lists: &[AttributeList]) -> Result<RawAttributes, AttributeErrors> {
    let given = lists.iter().flat_map(|AttributeList(list)| list);
    let is_of = |name: &str| given.clone().any(|Attribute(key, _)| key.rsplit('/').next() == Some(name));
    let mut lists = lists.to_vec();
    if !is_of("signer") && !is_of("class") {
        lists.push(AttributeList(vec![Attribute("signer".to_owned(), "acm-pca".to_owned())]));
    }
    from_lists(&lists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const CA: &str = "certificate-authority-arn=arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";

    fn only_the_file(file: &tempfile::NamedTempFile) -> CheckArgs {
        CheckArgs {
            file: file.path().to_owned(),
            pod: None,
            service_account: "default".to_owned(),
            upgrade: false,
            attributes: Vec::new(),
            variables: VariableArgs { node_name: None, pod_ip: None },
            cluster_domain: ClusterDomainArgs { cluster_domain: attributes::ClusterDomain::default() },
            spiffe: SpiffeArgs { trust_domain: None, spiffe_id_template: String::new() },
            classes: ClassArgs::default(),
        }
    }

    fn check(attributes: &str) -> Result<String, PolicyCheckError> {
        check_with(&[CA, attributes], ClassArgs::default())
    }

    fn check_with(attributes: &[&str], classes: ClassArgs) -> Result<String, PolicyCheckError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(
            b"{version: 2, rules: [{name: shop, match: {namespaces: [shop]}, allow: {certificateAuthorities: ['**'],
              callers: [driver], usages: ['digital signature', 'key encipherment', 'client auth', 'server auth'],
              maxDuration: 24h, dnsNames: ['*.{namespace}.svc']}}]}",
        )
        .unwrap();
        let args = CheckArgs {
            pod: Some(("shop".into(), "web-0".into())),
            service_account: "web".into(),
            attributes: attributes.iter().map(|list| values::attribute_list(list).unwrap()).collect(),
            classes,
            ..only_the_file(&file)
        };
        args.render()
    }

    #[test]
    fn a_decision_is_explained() {
        let allowed = check("dns-names=a.shop.svc,b.shop.svc,duration=1h").unwrap();
        assert!(allowed.ends_with("rule \"shop\" fits\nallowed by rule \"shop\"\n"), "{allowed}");
        let denied = check("dns-names=a.shop.svc,b.bank.svc").unwrap_err().to_string();
        assert!(denied.contains("  dns-names: \"b.bank.svc\" fits none of [*.{namespace}.svc]"), "{denied}");
        let denied = check("dns-names=a.shop.svc,use-pod-identity=true").unwrap_err().to_string();
        assert!(
            denied.contains("  use-pod-identity: \"pod-identity\" is none of the callers [driver]"),
            "{denied}"
        );
        let odd = check("dns-nam=a.shop.svc").unwrap_err().to_string();
        assert!(odd.contains("dns-names"), "{odd}");
    }

    fn check_file(text: &str) -> Result<String, PolicyCheckError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        only_the_file(&file).render()
    }

    #[test]
    fn one_is_counted_in_the_singular() {
        let rule = |name: &str| {
            format!("{{name: {name}, allow: {{certificateAuthorities: ['**'], maxDuration: 24h}}}}")
        };
        let with = |rules: &[String], budget| {
            let text =
                format!("{{version: 2, maxIssuancesPerHour: {budget}, rules: [{}]}}", rules.join(", "));
            let said = check_file(&text).unwrap();
            said.lines().filter(|line| !line.starts_with("warning: ")).collect::<Vec<_>>().join("\n")
        };
        let one = with(&[rule("a")], 1);
        assert!(one.contains(": 1 rule, valid\nbudget: 1 certificate an hour"), "{one}");
        let two = with(&[rule("a"), rule("b")], 2);
        assert!(two.contains(": 2 rules, all valid\nbudget: 2 certificates an hour"), "{two}");
        assert!(with(&[], 0).contains("no rules"));
    }

    #[test]
    fn placeholders_of_an_example_are_refused_with_a_hint() {
        let text = "{version: 2, rules: [{name: shop, allow: {certificateAuthorities: [CA-ARN], callers: [driver], maxDuration: 24h}}]}";
        let said = check_file(text).unwrap_err().to_string();
        assert!(said.contains("rule \"shop\": certificateAuthorities: \"CA-ARN\""), "{said}");
        assert!(said.contains("aws acm-pca list-certificate-authorities"), "{said}");
    }

    #[test]
    fn a_volume_of_a_class_is_decided_with_what_the_class_gives() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (key, authority) = CA.split_once('=').unwrap();
        let text = format!(
            "{{version: 1, classes: {{mesh: {{attributes: {{signer: acm-pca, {key}: '{authority}', dns-names: a.shop.svc}}}}}}}}"
        );
        file.write_all(text.as_bytes()).unwrap();
        let classes = ClassArgs { classes: Some(file.path().to_owned()), require_class: true };
        let allowed = check_with(&["class=mesh"], classes.clone()).unwrap();
        assert!(allowed.ends_with("allowed by rule \"shop\"\n"), "{allowed}");
        let refused = check_with(&[CA, "dns-names=a.shop.svc"], classes).unwrap_err().to_string();
        assert_eq!(
            refused,
            "--attributes: csi.certlet.io/class: is required (--require-class); accepted: mesh"
        );
    }

    #[test]
    fn a_comma_within_a_value_is_part_of_it() {
        let list = values::attribute_list("dns-names=a,b,uri-sans=spiffe://x/y?z=1,spiffe://w,duration=1h");
        let raw = raw(&[list.unwrap()]).unwrap();
        assert_eq!(raw.value("csi.certlet.io/dns-names"), Some("a,b"));
        assert_eq!(raw.value("csi.certlet.io/uri-sans"), Some("spiffe://x/y?z=1,spiffe://w"));
        assert_eq!(raw.value("csi.certlet.io/duration"), Some("1h"));
        assert_eq!(raw.value("csi.certlet.io/signer"), Some("acm-pca"));
    }
}
