use super::*;
use crate::model::{
    Arn, CertificateSpec, PcaCaller, PcaRequest, SignerSpec, Subject, SubjectFields, Usage, WorkloadIdentity,
    short_go_duration,
};
use crate::x509::testing::attributes;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

const CA: &str =
    "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";
const TEMPLATE: &str = "arn:aws:acm-pca:::template/EndEntityCertificate/V1";

const POLICY: &str = r#"
version: 2
rules:
  - name: bank
    match: {namespaces: [bank]}
    allow:
      certificateAuthorities: ["**"]
      maxDuration: 1h
  - name: shops
    match:
      namespaces: ["shop", "shop-*"]
      serviceAccounts: [web]
      attributes: {key-algorithm: [ECDSA]}
    allow:
      certificateAuthorities: ["arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/*"]
      callers: [driver, "arn:aws:iam::123456789012:role/{namespace}/*"]
      usages: [digital signature, key encipherment, server auth, client auth]
      maxDuration: 24h
      commonNames: ["{serviceAccount}"]
      dnsNames: ["*.{namespace}.svc"]
      uris: ["spiffe://example.org/ns/{namespace}/sa/{serviceAccount}"]
      ipRanges: ["10.0.0.0/8", "2001:db8::/32"]
      subject: {organizations: [Acme]}
"#;

fn pod(namespace: &str) -> WorkloadIdentity {
    WorkloadIdentity { namespace: namespace.into(), ..crate::x509::testing::pod() }
}

fn question<'a>(pod: &'a WorkloadIdentity, spec: &'a CertificateSpec, template: &'a str) -> Question<'a> {
    let pca = spec.signer.acm_pca().unwrap();
    Question { pod, spec, pca, template, usages: Some(&spec.usages), lifetime: spec.duration }
}

fn pca(spec: &mut CertificateSpec) -> &mut PcaRequest {
    let SignerSpec::AcmPca(pca) = &mut spec.signer else { panic!("another signer") };
    pca
}

fn request() -> CertificateSpec {
    let mut spec = attributes();
    spec.signer = SignerSpec::AcmPca(PcaRequest {
        certificate_authority_arn: Arn::parse(CA).unwrap(),
        signing_algorithm: None,
        template_arn: None,
        caller: PcaCaller::Driver,
    });
    spec
}

fn denial(namespace: &str, spec: &CertificateSpec, template: &str) -> Option<String> {
    let pod = pod(namespace);
    Policy::parse(POLICY).unwrap().decide(&question(&pod, spec, template)).denial()
}

#[test]
fn a_request_that_fits_a_rule_is_allowed() {
    assert_eq!(denial("shop", &request(), TEMPLATE), None);
}

#[test]
fn a_denial_shows_the_nearest_rule_and_what_does_not_fit() {
    let mut other = request();
    other.sans.dns_names = vec!["db.bank.svc".into()];
    assert_eq!(
        denial("shop", &other, TEMPLATE).unwrap(),
        "denied by the policy of this cluster; rule \"shops\" comes nearest: dns-names: \"db.bank.svc\" fits none of \
         [*.{namespace}.svc]"
    );
    // Other tenants' rules are theirs.
    assert_eq!(
        denial("elsewhere", &request(), TEMPLATE).unwrap(),
        "denied by the policy of this cluster: it has no rule for this pod"
    );
}

#[test]
fn every_attribute_of_a_request_is_checked() {
    type Change = fn(&mut CertificateSpec);
    let cases: [(Change, &str); 12] = [
        (|a| a.duration = Duration::from_hours(25), "duration: 25h is more than 24h"),
        (|a| a.duration = Duration::from_secs(2), "duration: 2s is less than 1h"),
        (|a| a.is_ca = true, "is-ca: true is not allowed"),
        (|a| a.sans.uris = vec!["spiffe://example.org/ns/bank/sa/web".into()], "uri-sans: "),
        (
            |a| a.sans.ip_addresses = vec!["192.168.0.1".parse().unwrap()],
            "ip-sans: 192.168.0.1 is in none of",
        ),
        (|a| a.sans.dns_names = vec!["*.shop.svc".into()], "dns-names: \"*.shop.svc\" fits none of"),
        (|a| caller(a, PcaCaller::Role("arn:aws:iam::123456789012:role/admin".into())), "role-arn: "),
        (
            |a| caller(a, PcaCaller::PodIdentity),
            "use-pod-identity: \"pod-identity\" is none of the callers [driver, arn:aws:iam::123456789012:role/{namespace}/*]",
        ),
        (
            |a| {
                let other = CA.replace("123456789012", "999999999999");
                pca(a).certificate_authority_arn = Arn::parse(&other).unwrap();
            },
            "certificate-authority-arn: ",
        ),
        (
            |a| a.subject = Subject::Literal("CN=admin".parse().unwrap()),
            "literal-subject: \"CN=admin\" fits none of []",
        ),
        (|a| set(a, |s| s.common_name = Some("admin".into())), "common-name: \"admin\""),
        (
            |a| set(a, |s| s.organizations = vec!["system:masters".into()]),
            "organizations: \"system:masters\"",
        ),
    ];
    for (change, fault) in cases {
        let mut other = request();
        change(&mut other);
        let text = denial("shop", &other, TEMPLATE).unwrap_or_else(|| panic!("{fault}: allowed"));
        assert!(text.contains(fault), "{fault}: {text}");
    }
    let template = "arn:aws:acm-pca:::template/BlankEndEntityCertificate_CSRPassthrough/V1";
    assert!(denial("shop", &request(), template).unwrap().contains("template-arn: "));
}

#[test]
fn what_is_not_listed_is_not_allowed() {
    type Change = fn(&mut CertificateSpec);
    let cases: [(&str, &str, Change, &str); 5] = [
        (
            "[driver, ",
            "[",
            |_| {},
            "role-arn, use-pod-identity: not set: \"driver\" is none of the callers [",
        ),
        (
            "server auth, client auth]",
            "client auth]",
            |a| a.usages.push(Usage::ServerAuth),
            "key-usages: \"server auth\", which the certificate would have, is none of [digital signature, key encipherment, client auth]",
        ),
        (
            "maxDuration: 24h",
            "maxDuration: 24h",
            |a| {
                a.duration = Duration::from_hours(24);
                a.renew_before = Some(Duration::from_hours(23));
            },
            "renew-before: the renewal comes after 1h; at least 12h is required",
        ),
        (
            "      commonNames: [\"{serviceAccount}\"]\n      dnsNames: [\"*.{namespace}.svc\"]\n",
            "      dnsNames: [\"**\"]\n",
            |a| set(a, |s| s.common_name = Some("system:admin".into())),
            "common-name: \"system:admin\" is not a host name",
        ),
        (
            "      maxDuration: 24h\n",
            "      maxDuration: 24h\n      templates: [\"**\"]\n",
            |_| {},
            "makes a CA certificate",
        ),
    ];
    for (written, other, change, fault) in cases {
        let text = POLICY.replace(written, other);
        assert!(POLICY.contains(written), "{written}");
        let mut spec = request();
        change(&mut spec);
        let pod = pod("shop");
        let template = if fault.contains("CA certificate") {
            "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen1/V1"
        } else {
            TEMPLATE
        };
        let decision = Policy::parse(&text).unwrap().decide(&question(&pod, &spec, template));
        assert!(decision.denial().unwrap_or_default().contains(fault), "{fault}: {decision}");
    }
    let mut short = request();
    short.duration = Duration::from_hours(24);
    short.renew_before = Some(Duration::from_hours(23));
    let lenient = POLICY.replace("maxDuration: 24h", "maxDuration: 24h\n      minRenewalInterval: 1h");
    let pod = pod("shop");
    let decision = Policy::parse(&lenient).unwrap().decide(&question(&pod, &short, TEMPLATE));
    assert_eq!(decision.allowed_by(), Some("shops"), "{decision}");
}

#[test]
fn the_renewal_interval_is_that_of_the_lifetime_that_the_private_ca_gives() {
    let text = POLICY.replace("maxDuration: 24h", "maxDuration: 720h");
    let (pod, mut spec) = (pod("shop"), request());
    spec.duration = Duration::from_hours(720);
    let lifetime = Duration::from_mins(10_075);
    let denial = |spec: &CertificateSpec, lifetime| {
        let question = Question { lifetime, ..question(&pod, spec, TEMPLATE) };
        Policy::parse(&text).unwrap().decide(&question).denial()
    };
    // The longer ones are ignored at the renewal.
    for renew_before in
        [None, Some(Duration::from_hours(80)), Some(lifetime), Some(Duration::from_hours(240))]
    {
        spec.renew_before = renew_before;
        assert_eq!(denial(&spec, lifetime), None, "{renew_before:?}");
    }
    spec.renew_before = Some(Duration::from_mins(10_070));
    assert_eq!(denial(&spec, spec.duration), None);
    let denial = denial(&spec, lifetime).unwrap();
    let fault = "renew-before: the private CA cuts the lifetime to 167h55m, and so the renewal comes after 5m; at least \
                 83h57m30s is required";
    assert!(denial.ends_with(fault), "{denial}");
}

#[test]
fn a_finding_describes_few_faults_and_counts_the_others() {
    let (pod, mut spec) = (pod("shop"), request());
    spec.sans.dns_names = (0..500).map(|number| format!("db-{number}.bank.svc")).collect();
    let policy = Policy::parse(POLICY).unwrap();
    let question = question(&pod, &spec, TEMPLATE);
    let decision = policy.decide(&question);
    let finding = decision.findings.last().unwrap();
    assert_eq!((finding.faults.len(), finding.more_faults), (20, 480));
    let denial = policy.denial(&question).unwrap();
    assert!(denial.ends_with("; and 480 more"), "{denial}");
    assert_eq!(decision.denial(), Some(denial));
    assert!(decision.to_string().contains("\n  and 480 more\n"), "{decision}");
}

#[test]
fn a_rule_that_is_not_for_a_pod_is_checked_up_to_the_first_fault() {
    let (pod, mut spec) = (pod("elsewhere"), request());
    spec.usages = vec![Usage::ServerAuth, Usage::ClientAuth, Usage::CodeSigning];
    let selection = "attributes: {key-algorithm: [ECDSA]";
    for (text, fault) in [
        (POLICY.to_owned(), "namespace: "),
        (
            POLICY
                .replace("\"shop-*\"]", "\"**\"]")
                .replace(selection, "attributes: {duration: [1s], key-usages: ['x'], key-algorithm: ['RSA']"),
            "duration: ",
        ),
        (
            POLICY.replace("\"shop-*\"]", "\"**\"]").replace(selection, "attributes: {key-usages: ['x']"),
            "key-usages: \"server auth\"",
        ),
    ] {
        let decision = Policy::parse(&text).unwrap().decide(&question(&pod, &spec, TEMPLATE));
        let finding = decision.findings.last().unwrap();
        assert_eq!(
            (finding.is_for_pod, finding.faults.len(), finding.more_faults),
            (false, 1, 0),
            "{decision}"
        );
        assert!(finding.faults[0].starts_with(fault), "{decision}");
    }
}

#[test]
fn an_asterisk_for_the_region_is_warned_of() {
    let arn = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/*";
    let warnings = |arn: &str| {
        let text = format!(
            "{{version: 2, rules: [{{name: r, allow: {{certificateAuthorities: ['{arn}'], maxDuration: 24h}}}}]}}"
        );
        Policy::parse(&text).unwrap().warnings()
    };
    assert_eq!(warnings(arn), [""; 0]);
    let arn = arn.replace("eu-central-1", "*");
    let [warning] = warnings(&arn).try_into().unwrap();
    assert!(warning.starts_with(&format!("rule \"r\": {arn}: an asterisk for the Region")), "{warning}");
}

#[test]
fn a_template_whose_usages_are_not_known_must_be_named() {
    let (pod, spec) = (pod("shop"), request());
    for (templates, allowed) in [
        ("'**'", false),
        ("'New*/V1'", false),
        ("'NewCertificate/*'", false),
        ("NewCertificate/V2", false),
        ("NewCertificate/V1", true),
        ("'**', NewCertificate/V1", true),
    ] {
        let text =
            POLICY.replace("maxDuration: 24h", &format!("maxDuration: 24h\n      templates: [{templates}]"));
        let template = "arn:aws:acm-pca:::template/NewCertificate/V1";
        let question = Question { usages: None, ..question(&pod, &spec, template) };
        let denial = Policy::parse(&text).unwrap().decide(&question).denial();
        assert_eq!(denial.is_none(), allowed, "{templates}: {denial:?}");
        if let Some(denial) = denial {
            let fault = "template-arn: certlet does not know which usages \"NewCertificate/V1\" sets";
            assert!(denial.contains(fault), "{denial}");
        }
    }
    // The requested usages are checked all the same.
    let mut other = request();
    other.usages.push(Usage::OcspSigning);
    let text = POLICY.replace("maxDuration: 24h", "maxDuration: 24h\n      templates: [NewCertificate/V1]");
    let template = "arn:aws:acm-pca:::template/NewCertificate/V1";
    let question = Question { usages: None, ..question(&pod, &other, template) };
    assert!(Policy::parse(&text).unwrap().decide(&question).denial().unwrap().contains("ocsp signing"));
}

#[test]
fn a_file_of_version_1_is_refused_with_the_lines_to_change() {
    let old = "{version: 1, rules: [{name: shop, allow: {certificateAuthorities: ['**'], roles: [pod-identity], maxDuration: 24h}}]}";
    let error = Policy::parse(old).unwrap_err();
    for line in [
        "version: 2",
        "rule \"shop\", under allow, in place of roles:",
        "callers: [driver, \"pod-identity\"]",
        "usages: [digital signature, key encipherment, server auth, client auth]",
    ] {
        assert!(error.contains(line), "{line}: {error}");
    }
    assert_eq!(upgrade(POLICY), None);
}

#[test]
fn a_long_name_costs_no_time_in_a_pattern_with_many_asterisks() {
    let text = POLICY.replace("*.{namespace}.svc", &"*-*".repeat(100));
    let mut other = request();
    other.sans.uris = vec![format!("spiffe://example.org/{}", "team-".repeat(12_000))];
    other.sans.dns_names = vec!["a-".repeat(30_000)];
    let pod = pod("shop");
    let denial = Policy::parse(&text).unwrap().decide(&question(&pod, &other, TEMPLATE)).denial().unwrap();
    assert!(denial.len() < 2000, "{}: {denial}", denial.len());
}

#[test]
fn an_asterisk_in_a_distinguished_name_matches_one_value() {
    let policy = POLICY.replace("{organizations: [Acme]}", "{literal-subject: [\"CN=*,O=Acme\"]}");
    assert_ne!(policy, POLICY);
    let pod = pod("shop");
    for (subject, allowed) in [
        ("CN=web,O=Acme", true),
        ("CN=a\\+b,O=Acme", true),
        ("CN=web+O=system:masters,O=Acme", false),
        ("CN=web,O=system:masters,O=Acme", false),
    ] {
        let mut other = request();
        other.subject = Subject::Literal(subject.parse().unwrap());
        let question = question(&pod, &other, TEMPLATE);
        assert_eq!(
            Policy::parse(&policy).unwrap().decide(&question).denial().is_none(),
            allowed,
            "{subject}"
        );
    }
}

#[test]
fn a_rule_that_allows_cas_allows_none_that_can_issue_cas() {
    let policy = POLICY.replace("maxDuration: 24h", "maxDuration: 24h\n      isCa: true");
    assert_ne!(policy, POLICY);
    let pod = pod("shop");
    let mut ca = request();
    ca.is_ca = true;
    for (template, allowed) in [("PathLen0", true), ("PathLen1", false), ("PathLen3", false)] {
        let template = format!("arn:aws:acm-pca:::template/SubordinateCACertificate_{template}/V1");
        let question = question(&pod, &ca, &template);
        let denial = Policy::parse(&policy).unwrap().decide(&question).denial();
        assert_eq!(denial.is_none(), allowed, "{template}: {denial:?}");
    }
}

/// The second rule, with other durations.
fn with_durations(durations: &str) -> String {
    let policy = POLICY.replace("maxDuration: 24h", &durations.replace(", ", "\n      "));
    assert_ne!(policy, POLICY);
    policy
}

#[test]
fn the_shortest_duration_is_an_hour_unless_the_rule_sets_another() {
    let pod = pod("shop");
    for (durations, shortest) in [
        ("maxDuration: 25h", 3600),
        ("maxDuration: 25h, minDuration: 90s", 90),
        ("maxDuration: 25h, minDuration: 25h", 25 * 3600),
        ("maxDuration: 10m", 600),
        ("minDuration: 5m, maxDuration: 10m", 300),
    ] {
        let policy = Policy::parse(&with_durations(durations)).unwrap();
        let denial = |seconds: u64| {
            let mut spec = request();
            spec.duration = Duration::from_secs(seconds);
            policy.decide(&question(&pod, &spec, TEMPLATE)).denial()
        };
        assert_eq!(denial(shortest), None, "{durations}");
        let text = denial(shortest - 1).unwrap_or_else(|| panic!("{durations}: a second less is allowed"));
        let [given, least] =
            [shortest - 1, shortest].map(|seconds| short_go_duration(Duration::from_secs(seconds)));
        let fault = format!("duration: {given} is less than {least}");
        assert!(text.ends_with(&fault), "{durations}: {text}");
    }
}

#[test]
fn a_shortest_duration_above_the_longest_makes_the_file_invalid() {
    let refused = Policy::parse(&with_durations("maxDuration: 24h, minDuration: 25h")).unwrap_err();
    assert_eq!(
        refused,
        "rule \"shops\": allow.minDuration: 25h is more than maxDuration, 24h; accepted: at most maxDuration"
    );
}

fn caller(attributes: &mut CertificateSpec, caller: PcaCaller) {
    pca(attributes).caller = caller;
}

fn set(attributes: &mut CertificateSpec, change: impl Fn(&mut SubjectFields)) {
    if let Subject::Fields(fields) = &mut attributes.subject {
        change(fields);
    }
}

#[test]
fn the_role_of_eks_pod_identity_is_allowed_by_its_exact_name_only() {
    let mut spec = request();
    caller(&mut spec, PcaCaller::PodIdentity);
    for (callers, allowed) in [("[pod-identity]", true), ("['**', '*', 'pod-*', driver]", false)] {
        let policy = POLICY.replace("[driver, \"arn:aws:iam::123456789012:role/{namespace}/*\"]", callers);
        assert_ne!(policy, POLICY);
        let pod = pod("shop");
        let question = question(&pod, &spec, TEMPLATE);
        let decision = Policy::parse(&policy).unwrap().decide(&question);
        assert_eq!(decision.allowed_by().is_some(), allowed, "{callers}: {decision}");
    }
}

#[test]
fn an_unknown_attribute_in_a_rule_is_refused_with_the_nearest_one() {
    let known = "attributes: {key-algorithm: [ECDSA]}";
    for (name, nearest) in
        [("dns-name", "dns-names"), ("use-pod-idendity", "use-pod-identity"), ("Key_Size", "key-size")]
    {
        let refused =
            Policy::parse(&POLICY.replace(known, &format!("attributes: {{{name}: [x]}}"))).unwrap_err();
        assert!(refused.contains(&format!("rule \"shops\": match.attributes: {name:?}")), "{refused}");
        assert!(refused.contains(&format!("the nearest is {nearest:?}")), "{refused}");
    }
    let refused = Policy::parse(&POLICY.replace("{organizations: [Acme]}", "{dns-names: [x]}")).unwrap_err();
    assert!(refused.contains("allow.subject: \"dns-names\""), "{refused}");
}

#[test]
fn an_email_address_is_allowed_only_where_a_rule_lists_it() {
    let mut spec = request();
    let pod = pod("shop-a");
    spec.sans.dns_names = vec!["x.shop-a.svc".into()];
    spec.sans.uris.clear();
    spec.sans.emails = vec!["web@example.org".into()];
    let with = |emails: &str| {
        let policy = Policy::parse(&POLICY.replacen("uris:", &format!("{emails}\n      uris:"), 1)).unwrap();
        policy.denial(&question(&pod, &spec, TEMPLATE))
    };
    assert!(with("").unwrap().contains("email-sans: \"web@example.org\""));
    assert!(with("emails: [\"*@example.com\"]").unwrap().contains("email-sans: \"web@example.org\""));
}

#[test]
fn attributes_may_select_a_rule() {
    let policy = POLICY.replace("{key-algorithm: [ECDSA]}", "{key-usages: [\"server auth\"]}");
    let policy = Policy::parse(&policy).unwrap();
    let (pod, mut spec) = (pod("shop-a"), request());
    spec.sans.dns_names = vec!["x.shop-a.svc".into()];
    spec.sans.uris.clear();
    let decide = |spec: &CertificateSpec| policy.decide(&question(&pod, spec, TEMPLATE));
    assert_eq!(decide(&spec).allowed_by(), None);
    spec.usages = vec![Usage::ServerAuth];
    assert_eq!(decide(&spec).allowed_by(), Some("shops"));
}

#[test]
fn an_invalid_file_is_refused() {
    let cases = [
        ("version: 2", "version: 3"),
        ("maxDuration: 24h", "maxDuration: 1 day"),
        ("maxDuration: 24h", "maxduration: 24h"),
        ("maxDuration: 24h", "maxDuration: 24h\n      minDuration: 1 day"),
        ("maxDuration: 24h", "maxDuration: 24h\n      minduration: 1h"),
        ("uris:", "urls:"),
        ("10.0.0.0/8", "10.0.0.1/8"),
        ("10.0.0.0/8", "10.0.0.0/33"),
        ("organizations", "organisations"),
        ("key-algorithm", "key-algorithms"),
        ("{serviceAccount}\"", "{service}\""),
        ("name: shops", "name: bank"),
    ];
    for (good, other) in cases {
        let text = POLICY.replacen(good, other, 1);
        assert_ne!(text, POLICY);
        assert!(Policy::parse(&text).is_err(), "{other}");
    }
    assert!(Policy::parse("").is_err());
}

#[test]
fn a_rule_without_match_is_for_every_pod() {
    let everybody = POLICY.replace("    match: {namespaces: [bank]}\n", "");
    let policy = Policy::parse(&everybody).unwrap();
    let (pod, spec) = (pod("elsewhere"), request());
    let question = question(&pod, &spec, TEMPLATE);
    let denial = policy.decide(&question).denial().unwrap();
    assert!(denial.contains("rule \"bank\" comes nearest") && !denial.contains("namespace"), "{denial}");
}

#[test]
fn without_rules_everything_is_denied() {
    let policy = Policy::parse("{version: 2, rules: []}").unwrap();
    let (pod, spec) = (pod("shop"), request());
    let decision = policy.decide(&question(&pod, &spec, TEMPLATE));
    assert!(decision.denial().unwrap().contains("it has no rule for this pod"));
}

#[tokio::test]
async fn a_swapped_configmap_is_loaded_and_an_invalid_file_keeps_the_old_rules() {
    let volume = tempfile::tempdir().unwrap();
    let swap = |name: &str, text: &str| {
        let data = volume.path().join(name);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("policy.yaml"), text).unwrap();
        symlink(name, volume.path().join("..data_tmp")).unwrap();
        fs::rename(volume.path().join("..data_tmp"), volume.path().join("..data")).unwrap();
    };
    swap("..1", POLICY);
    symlink("..data/policy.yaml", volume.path().join("policy.yaml")).unwrap();
    let live = LivePolicy::open(&volume.path().join("policy.yaml")).unwrap();
    let watch = crate::platform::DirectoryWatch::new(volume.path()).unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let follow = async {
        while shutdown.run_until_cancelled(watch.changed()).await.is_some() {
            live.reload();
        }
    };
    let work = async {
        let until = async |what: &str, done: &dyn Fn() -> bool| {
            for _ in 0..400 {
                if done() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{what}");
        };
        swap("..2", "{version: 2, rules: []}");
        until("the new rules", &|| live.rules().rules() == 0).await;
        swap("..3", "{version: 2, rulez: []}");
        until("the refusal", &|| live.refusals.get() == 1 && live.is_invalid.get() == 1).await;
        assert_eq!(live.rules().rules(), 0);
        swap("..4", POLICY);
        until("the next rules", &|| live.rules().rules() == 2).await;
        assert_eq!(live.is_invalid.get(), 0);
        shutdown.cancel();
    };
    tokio::join!(follow, work);
}
