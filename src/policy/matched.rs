//! The attributes that rules can check: one table.

use super::decide::Question;
use crate::model::PatternKind as Kind;
use crate::model::{
    KeyEncoding, KeystorePassword, PcaCaller, Pkcs12, Subject, SubjectFields, short_go_duration,
};

/// An attribute that a rule can check.
pub(super) struct Matched {
    /// Its name, without the prefix.
    pub(super) name: &'static str,
    /// What an asterisk in its patterns matches.
    pub(super) kind: Kind,
    /// Whether `allow.subject` may name it too.
    pub(super) in_subject: bool,
    /// Its values, after defaults and variables; empty if it is not set.
    pub(super) values: fn(&Question<'_>) -> Vec<String>,
}

/// Every attribute that a volume with `signer: acm-pca` may have, except the keystore's password.
pub(super) static MATCHED: [Matched; 49] = [
    of("class", Kind::Text, |q| q.spec.class.iter().map(|class| class.name.clone()).collect()),
    of("certificate-authority-arn", Kind::Path, |q| text(Some(q.pca.certificate_authority_arn.as_str()))),
    // The template in use, whether requested or chosen.
    of("template-arn", Kind::Path, |q| vec![q.template.to_owned()]),
    of("signing-algorithm", Kind::Text, |q| text(q.pca.signing_algorithm.as_deref())),
    of("role-arn", Kind::Path, |q| text(q.pca.caller.role())),
    of("use-pod-identity", Kind::Text, |q| vec![(q.pca.caller == PcaCaller::PodIdentity).to_string()]),
    of("spiffe", Kind::Text, |q| vec![q.spec.is_spiffe.to_string()]),
    of("common-name", Kind::Dns, |q| field(q, |fields| fields.common_name.as_slice())),
    of("dns-names", Kind::Dns, |q| q.spec.sans.dns_names.clone()),
    of("services", Kind::Dns, |q| q.spec.services.clone()),
    of("ip-sans", Kind::Text, |q| q.spec.sans.ip_addresses.iter().map(ToString::to_string).collect()),
    of("uri-sans", Kind::Uri, |q| q.spec.sans.uris.clone()),
    of("email-sans", Kind::Text, |q| q.spec.sans.emails.clone()),
    Matched {
        kind: Kind::DistinguishedName,
        ..subject("literal-subject", |q| match &q.spec.subject {
            Subject::Literal(name) => vec![name.to_string()],
            Subject::Fields(_) => Vec::new(),
        })
    },
    subject("organizations", |q| field(q, |fields| &fields.organizations)),
    subject("organizationalunits", |q| field(q, |fields| &fields.organizational_units)),
    subject("countries", |q| field(q, |fields| &fields.countries)),
    subject("provinces", |q| field(q, |fields| &fields.provinces)),
    subject("localities", |q| field(q, |fields| &fields.localities)),
    subject("streetaddresses", |q| field(q, |fields| &fields.street_addresses)),
    subject("postalcodes", |q| field(q, |fields| &fields.postal_codes)),
    subject("serialnumber", |q| field(q, |fields| fields.serial_number.as_slice())),
    of("duration", Kind::Text, |q| vec![short_go_duration(q.spec.duration)]),
    of("renew-before", Kind::Text, |q| q.spec.renew_before.map(short_go_duration).into_iter().collect()),
    of("is-ca", Kind::Text, |q| vec![q.spec.is_ca.to_string()]),
    of("key-usages", Kind::Text, |q| q.spec.usages.iter().map(|usage| usage.as_str().to_owned()).collect()),
    of("key-algorithm", Kind::Text, |q| vec![q.spec.key.algorithm.family_and_bits().0.to_owned()]),
    of("key-size", Kind::Text, |q| {
        q.spec.key.algorithm.family_and_bits().1.iter().map(ToString::to_string).collect()
    }),
    of("key-encoding", Kind::Text, |q| {
        let encoding = match q.spec.key.encoding {
            KeyEncoding::Pkcs1 => "PKCS1",
            KeyEncoding::Pkcs8 => "PKCS8",
        };
        vec![encoding.to_owned()]
    }),
    of("reuse-private-key", Kind::Text, |q| vec![q.spec.key.reuse.to_string()]),
    of("layout", Kind::Text, |q| vec![q.spec.files.layout.kind().to_string()]),
    of("certificate-file", Kind::Text, |q| text(Some(q.spec.files.layout.certificate_file()))),
    of("privatekey-file", Kind::Text, |q| text(Some(q.spec.files.layout.private_key_file()))),
    of("ca-file", Kind::Text, |q| text(q.spec.files.layout.ca_file())),
    of("ca-source", Kind::Text, |q| q.spec.trust_sources.iter().map(ToString::to_string).collect()),
    of("combined-file", Kind::Text, |q| text(q.spec.files.combined.as_deref())),
    of("socket-file", Kind::Text, |q| text(q.spec.files.socket.as_deref())),
    of("files", Kind::Text, |q| vec![(!q.spec.files.is_socket_only).to_string()]),
    of("pkcs12-enable", Kind::Text, |q| vec![q.spec.files.pkcs12.is_some().to_string()]),
    of("pkcs12-filename", Kind::Text, |q| {
        q.spec.files.pkcs12.iter().map(|Pkcs12 { file, .. }| file.clone()).collect()
    }),
    of("pkcs12-password-key", Kind::Text, |q| match &q.spec.files.password {
        Some(KeystorePassword::Secret(key)) => vec![key.clone()],
        _ => Vec::new(),
    }),
    of("pkcs12-password-file", Kind::Text, |q| match &q.spec.files.password {
        Some(KeystorePassword::File(name)) => vec![name.clone()],
        _ => Vec::new(),
    }),
    of("pkcs12-alias", Kind::Text, |q| {
        q.spec.files.pkcs12.iter().filter_map(|keystore| keystore.alias.clone()).collect()
    }),
    of("pkcs12-profile", Kind::Text, |q| {
        let profiles = q.spec.files.pkcs12.iter().map(|keystore| keystore.profile);
        profiles
            .chain(q.spec.files.truststore.iter().map(|store| store.profile))
            .map(|it| it.to_string())
            .collect()
    }),
    of("truststore-file", Kind::Text, |q| {
        q.spec.files.truststore.iter().map(|truststore| truststore.file.clone()).collect()
    }),
    of("federated-bundles", Kind::Text, |q| {
        q.spec.federated.iter().flatten().map(|(domain, _)| domain.to_string()).collect()
    }),
    of("crl-file", Kind::Text, |q| text(q.spec.files.crl.as_deref())),
    of("owner", Kind::Text, |q| q.spec.owner.iter().map(ToString::to_string).collect()),
    of("fs-group", Kind::Text, |q| q.spec.fs_group.iter().map(ToString::to_string).collect()),
];

const fn of(name: &'static str, kind: Kind, values: fn(&Question<'_>) -> Vec<String>) -> Matched {
    Matched { name, kind, in_subject: false, values }
}

const fn subject(name: &'static str, values: fn(&Question<'_>) -> Vec<String>) -> Matched {
    Matched { name, kind: Kind::Text, in_subject: true, values }
}

fn text(value: Option<&str>) -> Vec<String> {
    value.map(str::to_owned).into_iter().collect()
}

fn field(question: &Question<'_>, of: impl Fn(&SubjectFields) -> &[String]) -> Vec<String> {
    match &question.spec.subject {
        Subject::Fields(fields) => of(fields).to_vec(),
        Subject::Literal(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::OperatorDefaults;
    use crate::policy::Policy;

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";
    const TEMPLATE: &str = "arn:aws:acm-pca:::template/EndEntityCertificate/V1";

    #[test]
    fn every_attribute_of_a_volume_for_private_ca_can_select_a_rule() {
        let table: Vec<&str> = MATCHED.iter().map(|row| row.name).collect();
        // The signer is always the same, and no rule may see a password.
        let excluded = ["signer", "pkcs12-password"];
        let mut expected: Vec<&str> =
            crate::attributes::names_with_private_ca().filter(|name| !excluded.contains(name)).collect();
        let mut sorted = table.clone();
        expected.sort_unstable();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/aws.md");
        let page = std::fs::read_to_string(page).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let listed = table.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        assert!(page.contains(&listed), "docs/aws.md should list: {listed}");
    }

    /// Attributes as a pod's author writes them.
    const WRITTEN: [(&str, &str); 13] = [
        ("signer", "acm-pca"),
        ("certificate-authority-arn", CA),
        ("common-name", "${POD_NAME}.shop.svc"),
        ("dns-names", "WEB.shop.svc,api.shop.svc"),
        ("ip-sans", "10.1.2.3"),
        ("uri-sans", "spiffe://example.org/ns/${POD_NAMESPACE}"),
        ("organizations", "Acme"),
        ("duration", "90m"),
        ("key-algorithm", "ecdsa"),
        ("key-size", "384"),
        ("signing-algorithm", "SHA256WITHECDSA"),
        ("use-pod-identity", "true"),
        ("fs-group", "1000"),
    ];

    /// An attribute, a pattern that fits its value, and one that does not.
    const PATTERNS: [(&str, &str, &str); 24] = [
        (
            "certificate-authority-arn",
            "arn:aws:acm-pca:*:123456789012:certificate-authority/*",
            "arn:aws:acm-pca:*",
        ),
        ("template-arn", "**/EndEntityCertificate/V1", "EndEntityCertificate/V1"),
        ("signing-algorithm", "*ECDSA", "*RSA"),
        ("role-arn", "**", "arn:**"),
        ("use-pod-identity", "true", "false"),
        ("common-name", "{pod}.*.svc", "*.svc"),
        ("dns-names", "*.{namespace}.svc", "web.shop.svc"),
        ("ip-sans", "10.*", "192.*"),
        ("uri-sans", "spiffe://example.org/ns/*", "spiffe://*"),
        ("literal-subject", "**", "*"),
        ("organizations", "Acme", "acme"),
        ("organizationalunits", "**", "*"),
        ("duration", "1h30m", "90m"),
        ("renew-before", "**", "*"),
        ("is-ca", "false", "true"),
        ("key-usages", "*", "server auth"),
        ("key-algorithm", "ECDSA", "RSA"),
        ("key-size", "384", "256"),
        ("key-encoding", "PKCS8", "PKCS1"),
        ("reuse-private-key", "false", "true"),
        ("privatekey-file", "tls.key", "key.pem"),
        ("combined-file", "**", "*"),
        ("pkcs12-enable", "false", "true"),
        ("fs-group", "1000", "0"),
    ];

    #[test]
    fn a_rule_checks_an_attribute_after_defaults_and_variables() {
        let raw = WRITTEN.iter().map(|(name, value)| (format!("csi.certlet.io/{name}"), (*value).to_owned()));
        let pod = crate::x509::testing::pod();
        let spec = crate::attributes::parse(&raw.collect(), &pod, &OperatorDefaults::default()).unwrap();
        let question = Question {
            pod: &pod,
            spec: &spec,
            pca: spec.signer.acm_pca().unwrap(),
            template: TEMPLATE,
            usages: Some(&[]),
            lifetime: spec.duration,
        };
        let is_selected = |attribute: &str, pattern: &str| {
            let rule = format!(
                "{{version: 2, rules: [{{name: r, match: {{attributes: {{{attribute}: ['{pattern}']}}}}, \
                 allow: {{certificateAuthorities: [], maxDuration: 24h}}}}]}}"
            );
            Policy::parse(&rule).unwrap().decide(&question).findings[0].is_for_pod
        };
        for (attribute, fits, not) in PATTERNS {
            assert!(is_selected(attribute, fits), "{attribute}: {fits}");
            assert!(!is_selected(attribute, not), "{attribute}: {not}");
        }
    }
}
