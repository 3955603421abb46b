//! The certificate templates of AWS Private CA, and which one a request needs.
//!
//! The table follows the user guide, "AWS Private CA template definitions".

use crate::model::{CertificateSpec, PcaRequest, Subject, SubjectFields, Usage};

/// A template of AWS. All of them take the subject and the alternative names from the request.
#[derive(Debug)]
struct Template {
    /// The part of the ARN after `template/`.
    name: &'static str,
    /// The usages that it sets; none: it takes those of the request.
    usages: Option<&'static [Usage]>,
    is_ca: bool,
}

const fn end_entity(name: &'static str, usages: Option<&'static [Usage]>) -> Template {
    Template { name, usages, is_ca: false }
}

const TEMPLATES: [Template; 7] = [
    end_entity("EndEntityCertificate/V1", Some(SERVER_AND_CLIENT)),
    end_entity("EndEntityClientAuthCertificate/V1", Some(CLIENT)),
    end_entity("EndEntityServerAuthCertificate/V1", Some(SERVER)),
    end_entity("CodeSigningCertificate/V1", Some(CODE_SIGNING)),
    end_entity("BlankEndEntityCertificate_CSRPassthrough/V1", None),
    end_entity("BlankEndEntityCertificate_APICSRPassthrough/V1", None),
    Template { name: "SubordinateCACertificate_PathLen0/V1", usages: Some(SUBORDINATE_CA), is_ca: true },
];

const SERVER_AND_CLIENT: &[Usage] =
    &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth];
const CLIENT: &[Usage] = &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ClientAuth];
const SERVER: &[Usage] = &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth];
const CODE_SIGNING: &[Usage] = &[Usage::DigitalSignature, Usage::CodeSigning];
const OCSP_SIGNING: &[Usage] = &[Usage::DigitalSignature, Usage::OcspSigning];
const SUBORDINATE_CA: &[Usage] = &[Usage::DigitalSignature, Usage::CertSign, Usage::CrlSign];

/// The usages that a family of templates sets. The passthrough templates of a family set the same ones. A blank family sets none.
const FAMILIES: [(&str, &[Usage]); 8] = [
    ("BlankEndEntityCertificate", &[]),
    ("BlankSubordinateCACertificate", &[]),
    ("EndEntityCertificate", SERVER_AND_CLIENT),
    ("EndEntityClientAuthCertificate", CLIENT),
    ("EndEntityServerAuthCertificate", SERVER),
    ("CodeSigningCertificate", CODE_SIGNING),
    ("OCSPSigningCertificate", OCSP_SIGNING),
    ("SubordinateCACertificate", SUBORDINATE_CA),
];

/// What can follow a family in a template's name. None of these changes the usages that the template sets.
const VARIANTS: [&str; 8] = [
    "CSRPassthrough",
    "APIPassthrough",
    "APICSRPassthrough",
    "CriticalBasicConstraints",
    "PathLen0",
    "PathLen1",
    "PathLen2",
    "PathLen3",
];

/// The usages that the template with this ARN sets, whatever is requested. None for a template that takes those of the
/// request, and for one that is not known.
pub(super) fn usages(arn: &str) -> &'static [Usage] {
    family_usages(arn).unwrap_or_default()
}

/// The same; none for a template that is not known.
fn family_usages(arn: &str) -> Option<&'static [Usage]> {
    let (_, name) = arn.split_once(":template/")?;
    let mut parts = name.strip_suffix("/V1")?.split('_');
    let family = parts.next()?;
    let (_, usages) = FAMILIES.iter().find(|(name, _)| *name == family)?;
    parts.all(|part| VARIANTS.contains(&part)).then_some(usages)
}

/// The usages of a volume without the attribute `key-usages`.
const DEFAULT_USAGES: [Usage; 2] = [Usage::DigitalSignature, Usage::KeyEncipherment];

/// Returns the ARN of the template for a certificate: the requested one, or the narrowest one with all requested usages. It
/// is an error if AWS would silently drop a usage.
pub(crate) fn choose(spec: &CertificateSpec, pca: &PcaRequest) -> Result<String, String> {
    if spec.sans.is_empty() && spec.subject == Subject::Fields(SubjectFields::default()) {
        return Err("common-name, dns-names, uri-sans, ip-sans: none is set; AWS Private CA refuses a request without \
                    a subject and without alternative names: set one of them"
            .to_owned());
    }
    let Some(arn) = &pca.template_arn else {
        let partition = pca.certificate_authority_arn.partition();
        return Ok(format!("arn:{partition}:acm-pca:::template/{}", narrowest(spec)?.name));
    };
    // A template that is not in the table is not checked here. After the issuance the certificate is compared with the spec.
    let name = arn.split_once(":template/").map(|(_, name)| name);
    if let Some(template) = TEMPLATES.iter().find(|template| Some(template.name) == name) {
        check(template, spec)?;
    }
    Ok(arn.clone())
}

/// The usages that the certificate can carry: those that the template sets, and those requested, which a passthrough template
/// adds. None if it is not known what the template sets.
pub(super) fn carried(template_arn: &str, spec: &CertificateSpec) -> Option<Vec<Usage>> {
    let set = family_usages(template_arn)?;
    let mut usages = set.to_vec();
    if set.is_empty() || !is_default_for_ca(spec) {
        usages.extend(spec.usages.iter().filter(|usage| !set.contains(usage)));
    }
    Some(usages)
}

/// Whether the request is for a CA and has the default usages, which are for end entities: such a request does not ask for them.
fn is_default_for_ca(spec: &CertificateSpec) -> bool {
    spec.is_ca && spec.usages == DEFAULT_USAGES
}

/// The template with the fewest usages besides the requested ones. If no purpose is requested, it is the one for servers and
/// clients, because a sidecar of a service mesh is both.
fn narrowest(spec: &CertificateSpec) -> Result<&'static Template, String> {
    let purposes = [Usage::ServerAuth, Usage::ClientAuth, Usage::CodeSigning];
    let has_purpose = spec.usages.iter().any(|usage| purposes.contains(usage));
    let mut fault = String::new();
    let candidates = TEMPLATES.iter().filter(|template| template.is_ca == spec.is_ca);
    let accepted = candidates.filter(|template| check(template, spec).map_err(|why| fault = why).is_ok());
    let narrowest = accepted.min_by_key(|template| match template.usages {
        Some(usages) if has_purpose => usages.len(),
        Some(_) => 0,
        None => usize::MAX,
    });
    narrowest.ok_or(fault)
}

/// Checks that the certificate gets all that the spec requests.
fn check(template: &Template, spec: &CertificateSpec) -> Result<(), String> {
    let name = template.name;
    if template.is_ca != spec.is_ca {
        let (makes, requested) = if template.is_ca { ("a CA", "true") } else { ("no CA", "false") };
        return Err(format!(
            "template-arn: {name} makes {makes} certificate; accepted: one that fits is-ca: {requested}"
        ));
    }
    let Some(given) = template.usages else { return Ok(()) };
    let is_default = is_default_for_ca(spec);
    let dropped = spec.usages.iter().filter(|usage| !given.contains(usage) && !is_default);
    let dropped: Vec<_> = dropped.map(|usage| usage.as_str()).collect();
    if dropped.is_empty() {
        return Ok(());
    }
    let given: Vec<_> = given.iter().map(|usage| usage.as_str()).collect();
    Err(format!(
        "key-usages: the template {name} would drop {}; accepted with it: {}",
        dropped.join(", "),
        given.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Arn, PcaCaller, SubjectAltNames};
    use crate::x509::testing::attributes;

    const CA: &str = "arn:aws-us-gov:acm-pca:us-gov-west-1:123456789012:certificate-authority/1";

    fn pca(template: Option<&str>) -> PcaRequest {
        PcaRequest {
            certificate_authority_arn: Arn::parse(CA).unwrap(),
            signing_algorithm: None,
            template_arn: template.map(|name| format!("arn:aws-us-gov:acm-pca:::template/{name}")),
            caller: PcaCaller::Driver,
        }
    }

    fn chosen(usages: &[Usage], is_ca: bool, template: Option<&str>) -> Result<String, String> {
        let mut spec = attributes();
        spec.usages = usages.to_vec();
        spec.is_ca = is_ca;
        let arn = choose(&spec, &pca(template))?;
        Ok(arn.strip_prefix("arn:aws-us-gov:acm-pca:::template/").unwrap().to_owned())
    }

    #[test]
    fn usages_choose_the_narrowest_template_that_drops_none() {
        use Usage::{
            ClientAuth, CodeSigning, DigitalSignature, EmailProtection, KeyEncipherment, ServerAuth,
        };
        let cases: [(&[Usage], &str); 8] = [
            (&[], "EndEntityCertificate/V1"),
            (&[DigitalSignature, KeyEncipherment], "EndEntityCertificate/V1"),
            (&[ServerAuth, ClientAuth], "EndEntityCertificate/V1"),
            (&[DigitalSignature, ClientAuth], "EndEntityClientAuthCertificate/V1"),
            (&[KeyEncipherment, ServerAuth], "EndEntityServerAuthCertificate/V1"),
            (&[CodeSigning], "CodeSigningCertificate/V1"),
            (&[EmailProtection], "BlankEndEntityCertificate_CSRPassthrough/V1"),
            (&[CodeSigning, ServerAuth], "BlankEndEntityCertificate_CSRPassthrough/V1"),
        ];
        for (usages, template) in cases {
            assert_eq!(chosen(usages, false, None).unwrap(), template, "{usages:?}");
        }
    }

    #[test]
    fn a_template_sets_the_usages_of_its_family() {
        let usages = |name: &str| super::usages(&format!("arn:aws:acm-pca:::template/{name}"));
        assert_eq!(usages("EndEntityClientAuthCertificate/V1"), CLIENT);
        assert_eq!(usages("EndEntityCertificate_APIPassthrough/V1"), SERVER_AND_CLIENT);
        for open in ["BlankEndEntityCertificate_CSRPassthrough/V1", "Unknown/V1", ""] {
            assert!(usages(open).is_empty(), "{open}");
        }
        for template in TEMPLATES {
            assert_eq!(usages(template.name), template.usages.unwrap_or_default(), "{}", template.name);
        }
    }

    #[test]
    fn a_certificate_carries_the_usages_of_its_family_and_those_requested() {
        use Usage::{ClientAuth, CodeSigning, DigitalSignature, KeyEncipherment, OcspSigning, ServerAuth};
        let carried = |name: &str, requested: &[Usage], is_ca: bool| {
            let spec = CertificateSpec { usages: requested.to_vec(), is_ca, ..attributes() };
            super::carried(&format!("arn:aws:acm-pca:::template/{name}"), &spec)
        };
        let signature = [DigitalSignature];
        for (name, expected) in [
            ("OCSPSigningCertificate/V1", vec![DigitalSignature, OcspSigning]),
            ("CodeSigningCertificate_APICSRPassthrough/V1", vec![DigitalSignature, CodeSigning]),
            (
                "EndEntityCertificate_CSRPassthrough/V1",
                vec![DigitalSignature, KeyEncipherment, ServerAuth, ClientAuth],
            ),
            ("BlankEndEntityCertificate_CriticalBasicConstraints_CSRPassthrough/V1", signature.to_vec()),
        ] {
            assert_eq!(carried(name, &signature, false), Some(expected), "{name}");
        }
        let both = carried("CodeSigningCertificate_CSRPassthrough/V1", &[OcspSigning], false);
        assert_eq!(both.unwrap(), [DigitalSignature, CodeSigning, OcspSigning]);
        let default_ca = carried("SubordinateCACertificate_PathLen0/V1", &DEFAULT_USAGES, true);
        assert_eq!(default_ca.as_deref(), Some(SUBORDINATE_CA));
        for unknown in [
            "Unknown/V1",
            "EndEntityCertificate/V2",
            "EndEntityCertificate_Other/V1",
            "OCSPSigningCertificateX/V1",
            "RootCACertificate/V1",
        ] {
            assert_eq!(carried(unknown, &signature, false), None, "{unknown}");
        }
    }

    #[test]
    fn a_ca_gets_the_subordinate_template() {
        assert_eq!(chosen(&DEFAULT_USAGES, true, None).unwrap(), "SubordinateCACertificate_PathLen0/V1");
        assert_eq!(chosen(&[Usage::CertSign], true, None).unwrap(), "SubordinateCACertificate_PathLen0/V1");
        let refused = chosen(&[Usage::ServerAuth], true, None).unwrap_err();
        assert!(
            refused.contains("would drop server auth; accepted with it: digital signature, cert sign"),
            "{refused}"
        );
    }

    #[test]
    fn a_named_template_that_would_drop_something_is_refused() {
        let refused =
            chosen(&[Usage::ServerAuth], false, Some("EndEntityClientAuthCertificate/V1")).unwrap_err();
        assert!(refused.starts_with("key-usages: the template EndEntityClientAuth"), "{refused}");
        let refused = chosen(&[], false, Some("SubordinateCACertificate_PathLen0/V1")).unwrap_err();
        assert!(refused.starts_with("template-arn: "), "{refused}");
        let unknown = "EndEntityCertificate_APIPassthrough/V1";
        assert_eq!(chosen(&[Usage::EmailProtection], false, Some(unknown)).unwrap(), unknown);
        let blank = "BlankEndEntityCertificate_APICSRPassthrough/V1";
        assert_eq!(chosen(&[Usage::EmailProtection], false, Some(blank)).unwrap(), blank);
    }

    #[test]
    fn a_request_without_any_name_is_refused_before_the_call() {
        let pca = pca(None);
        let mut nameless = attributes();
        nameless.subject = Subject::Fields(SubjectFields::default());
        nameless.sans = SubjectAltNames::default();
        let refused = choose(&nameless, &pca).unwrap_err();
        assert!(refused.starts_with("common-name, dns-names"), "{refused}");
    }
}
