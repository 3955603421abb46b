//! Entry points of the fuzz targets, which see only what is public. Compiled for them alone (`--cfg fuzzing`).

/// A policy, a line `---`, and the attributes of a volume, one a line. Reads the policy, and decides on the volume.
#[cfg(feature = "aws")]
pub fn policy(text: &str) {
    use crate::policy::{Policy, Question};
    let (rules, volume) = text.split_once("\n---\n").unwrap_or((text, ""));
    let _lines = crate::policy::upgrade(rules);
    let policy = match Policy::parse(rules) {
        Ok(policy) => policy,
        Err(error) => return assert!(!error.is_empty()),
    };
    let _warnings = policy.warnings();
    let attributes = volume.lines().filter_map(|line| line.split_once('='));
    let attributes = attributes.map(|(name, value)| (format!("csi.certlet.io/{name}"), value.to_owned()));
    let pod = crate::model::WorkloadIdentity {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "uid-1".into(),
        service_account: "web".into(),
    };
    let defaults = crate::attributes::OperatorDefaults::default();
    let Ok(spec) = crate::attributes::parse(&attributes.collect(), &pod, &defaults) else { return };
    let Some(pca) = spec.signer.acm_pca() else { return };
    let template = pca.template_arn.clone().unwrap_or_default();
    let question = Question {
        pod: &pod,
        spec: &spec,
        pca,
        template: &template,
        usages: Some(&spec.usages),
        lifetime: spec.duration,
    };
    let decision = policy.decide(&question);
    assert_ne!(
        decision.allowed_by().is_some(),
        decision.denial().is_some(),
        "allowed and denied, or neither"
    );
    assert_eq!(decision.denial(), policy.denial(&question));
    assert!(!decision.to_string().is_empty());
}

/// A CertificateRequest as the API server may send it. Reads it, and gives it to the tracker of requests.
#[cfg(feature = "kubernetes")]
pub fn certificate_request(json: &[u8]) {
    crate::signer::fuzz_certificate_request(json);
}
