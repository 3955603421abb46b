//! The certificate templates of AWS Private CA: what each makes of a request, and which one a request needs.
//!
//! The table is that of the user guide, "AWS Private CA template definitions"; docs/aws.md shows it.

use super::arn::AuthorityArn;
use crate::model::{CertificateSpec, Subject, SubjectFields, Usage};

/// What a template lets through of the usages in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usages {
    /// It sets its own.
    Own(&'static [Usage]),
    /// It takes those of the request.
    FromRequest,
}

/// One template of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// The part of the ARN after `template/`.
    pub(crate) name: &'static str,
    pub(crate) usages: Usages,
    /// Whether it makes a CA certificate.
    pub(crate) is_ca: bool,
    /// Whether a CA shared with the default permissions of AWS RAM issues with it for another account.
    pub(crate) across_accounts: bool,
}

const fn end_entity(name: &'static str, usages: &'static [Usage], across_accounts: bool) -> Template {
    Template { name, usages: Usages::Own(usages), is_ca: false, across_accounts }
}

/// Those that certlet chooses from. Subject and alternative names pass through all of them.
pub(crate) const TEMPLATES: [Template; 7] = [
    end_entity(
        "EndEntityCertificate/V1",
        &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth],
        true,
    ),
    end_entity(
        "EndEntityClientAuthCertificate/V1",
        &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ClientAuth],
        true,
    ),
    end_entity(
        "EndEntityServerAuthCertificate/V1",
        &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth],
        true,
    ),
    end_entity("CodeSigningCertificate/V1", &[Usage::DigitalSignature, Usage::CodeSigning], false),
    Template {
        name: "BlankEndEntityCertificate_CSRPassthrough/V1",
        usages: Usages::FromRequest,
        is_ca: false,
        across_accounts: false,
    },
    Template {
        name: "BlankEndEntityCertificate_APICSRPassthrough/V1",
        usages: Usages::FromRequest,
        is_ca: false,
        across_accounts: false,
    },
    Template {
        name: "SubordinateCACertificate_PathLen0/V1",
        usages: Usages::Own(&[Usage::DigitalSignature, Usage::CertSign, Usage::CrlSign]),
        is_ca: true,
        across_accounts: false,
    },
];

/// What a volume asks for when its author says nothing about usages.
const UNSAID: [Usage; 2] = [Usage::DigitalSignature, Usage::KeyEncipherment];

/// The ARN of the template that a volume's certificate is issued with: the one it names, or the narrowest that gives
/// every usage it asks for. What a template would silently drop is an error.
pub(crate) fn choose(attributes: &CertificateSpec, authority: &AuthorityArn) -> Result<String, String> {
    if attributes.sans.is_empty() && attributes.subject == Subject::Fields(SubjectFields::default()) {
        return Err("common-name, dns-names, uri-sans, ip-sans: none is set; AWS Private CA refuses a request without \
                    a subject and without alternative names: set one of them"
            .to_owned());
    }
    let named = attributes.signer.acm_pca().and_then(|pca| pca.template_arn.as_deref());
    let Some(arn) = named else {
        return by_usages(attributes).map(|template| authority.template(template.name));
    };
    // A template that the table does not have is AWS's to judge; the certificate is compared with the request afterwards.
    if let Some(template) = known(arn) {
        accepts(template, attributes)?;
    }
    Ok(arn.to_owned())
}

fn known(arn: &str) -> Option<&'static Template> {
    let (_, name) = arn.split_once(":template/")?;
    TEMPLATES.iter().find(|template| template.name == name)
}

fn by_usages(attributes: &CertificateSpec) -> Result<&'static Template, String> {
    let candidates = TEMPLATES.iter().filter(|template| template.is_ca == attributes.is_ca);
    let mut fault = String::new();
    let mut best: Option<&'static Template> = None;
    for template in candidates {
        match accepts(template, attributes) {
            Ok(()) if best.is_none_or(|best| is_narrower(template, best, attributes)) => {
                best = Some(template);
            }
            Ok(()) => {}
            Err(why) => fault = why,
        }
    }
    best.ok_or(fault)
}

/// Fewer usages than were asked for is never accepted, so fewer is closer. Where no purpose is asked for, client and
/// server authentication are both wanted: a mesh sidecar is both.
fn is_narrower(one: &Template, other: &Template, attributes: &CertificateSpec) -> bool {
    let purposes = [Usage::ServerAuth, Usage::ClientAuth, Usage::CodeSigning];
    let undecided = !attributes.usages.iter().any(|usage| purposes.contains(usage));
    match (one.usages, other.usages) {
        (Usages::Own(one), Usages::Own(other)) => !undecided && one.len() < other.len(),
        (Usages::Own(_), Usages::FromRequest) => true,
        (Usages::FromRequest, _) => false,
    }
}

/// Whether the template gives all that is asked for.
fn accepts(template: &Template, attributes: &CertificateSpec) -> Result<(), String> {
    let name = template.name;
    if template.is_ca != attributes.is_ca {
        let (makes, asked) = if template.is_ca { ("a CA", "is-ca: true") } else { ("no CA", "is-ca: false") };
        return Err(format!(
            "template-arn: {name} makes {makes} certificate; accepted: one that fits {asked}"
        ));
    }
    let Usages::Own(given) = template.usages else { return Ok(()) };
    // A CA's key is for signing: the usages that stand in for "nothing said" ask for nothing of a CA.
    let unsaid = attributes.is_ca && attributes.usages == UNSAID;
    let dropped = attributes.usages.iter().filter(|usage| !given.contains(usage) && !unsaid);
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
    use crate::model::{PcaCaller, PcaRequest, SignerSpec, SubjectAltNames};
    use crate::x509::testing::attributes;

    const CA: &str = "arn:aws-us-gov:acm-pca:us-gov-west-1:123456789012:certificate-authority/1";

    fn chosen(usages: &[Usage], is_ca: bool, named: Option<&str>) -> Result<String, String> {
        let mut attributes = attributes();
        attributes.usages = usages.to_vec();
        attributes.is_ca = is_ca;
        attributes.signer = SignerSpec::AcmPca(PcaRequest {
            certificate_authority_arn: CA.into(),
            signing_algorithm: None,
            template_arn: named.map(|name| format!("arn:aws-us-gov:acm-pca:::template/{name}")),
            caller: PcaCaller::Driver,
        });
        let arn = choose(&attributes, &AuthorityArn::parse(CA).unwrap())?;
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
    fn a_ca_gets_the_subordinate_template() {
        assert_eq!(chosen(&UNSAID, true, None).unwrap(), "SubordinateCACertificate_PathLen0/V1");
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
        let mut nameless = attributes();
        nameless.subject = Subject::Fields(SubjectFields::default());
        nameless.sans = SubjectAltNames::default();
        let refused = choose(&nameless, &AuthorityArn::parse(CA).unwrap()).unwrap_err();
        assert!(refused.starts_with("common-name, dns-names"), "{refused}");
    }

    #[test]
    fn three_templates_work_across_accounts_by_default() {
        let shared = TEMPLATES.iter().filter(|template| template.across_accounts).count();
        assert_eq!(shared, 3);
    }
}
