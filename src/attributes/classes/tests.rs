use super::*;
use crate::attributes::{SPIFFE_ID_TEMPLATE, TrustDefaults, parse, parse_again};
use crate::model::{CertificateSpec, SignerSpec};
use std::sync::Arc;

fn pod() -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u".into(),
        service_account: "web".into(),
    }
}

fn raw(attributes: &[(&str, &str)]) -> RawAttributes {
    attributes.iter().map(|(key, value)| (format!("csi.certlet.io/{key}"), (*value).to_owned())).collect()
}

fn flags() -> OperatorDefaults {
    OperatorDefaults {
        spiffe_ids: Some(SpiffeIds::new("example.org", SPIFFE_ID_TEMPLATE).unwrap()),
        trust: TrustDefaults::default(),
        ..OperatorDefaults::default()
    }
}

fn with_classes(text: &str) -> OperatorDefaults {
    let (file, _) = ClassFile::parse(text, &flags()).unwrap();
    OperatorDefaults { classes: OperatorClasses::new(file, false), ..flags() }
}

fn fault(text: &str) -> String {
    ClassFile::parse(text, &flags()).unwrap_err()
}

const MESH: &str = "
version: 1
default: mesh
classes:
  mesh:
    attributes: { issuer-name: internal-ca, issuer-kind: ClusterIssuer, spiffe: \"true\", duration: 1h, socket-file: s }
    trustDomain: mesh.example
    spiffeIdTemplate: spiffe://{trustDomain}/sa/{serviceAccount}
    allow: [renew-before, duration]
";

fn spec(attributes: &[(&str, &str)], text: &str) -> Result<CertificateSpec, String> {
    parse(&raw(attributes), &pod(), &with_classes(text)).map_err(|faults| faults.to_string())
}

#[test]
fn a_class_gives_attributes_trust_domain_and_ids() {
    for attributes in
        [&[][..], &[("class", "mesh")], &[("class", "")], &[("class", "mesh"), ("issuer-name", "")]]
    {
        let spec = spec(attributes, MESH).unwrap();
        assert_eq!(spec.class.as_ref().unwrap().name, "mesh");
        assert_eq!(spec.sans.uris, ["spiffe://mesh.example/sa/web"]);
        let SignerSpec::CertManager { issuer: Some(issuer), .. } = &spec.signer else { panic!() };
        assert_eq!((issuer.name.as_str(), issuer.kind.as_str()), ("internal-ca", "ClusterIssuer"));
        assert_eq!(spec.duration, std::time::Duration::from_hours(1));
    }
    let own = spec(&[("class", "mesh"), ("duration", "2h"), ("renew-before", "1h")], MESH).unwrap();
    assert_eq!(own.duration, std::time::Duration::from_hours(2));
}

#[test]
fn a_pod_cannot_set_what_its_class_does_not_allow() {
    let message = spec(&[("class", "mesh"), ("issuer-name", "other"), ("fs-group", "1")], MESH).unwrap_err();
    for part in [
        "csi.certlet.io/issuer-name: is decided by the class \"mesh\", and a pod cannot change it",
        "csi.certlet.io/fs-group: cannot be set by a pod of the class \"mesh\"",
        "pods of this class may set: duration, renew-before",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let message = spec(&[("class", "mesh"), ("fs-grup", "1")], MESH).unwrap_err();
    assert!(message.contains("the nearest known one is csi.certlet.io/fs-group"), "{message}");
}

#[test]
fn a_fault_that_only_the_operator_can_fix_says_so() {
    let text =
        "{version: 1, classes: {a: {attributes: {signer: local, files: \"false\"}, allow: [socket-file]}}}";
    let message = spec(&[("class", "a")], text).unwrap_err();
    assert!(
        message.contains("csi.certlet.io/files: ") && message.ends_with("(the volume's class decides it)"),
        "{message}"
    );
    let message = spec(&[("class", "a"), ("socket-file", "a/b")], text).unwrap_err();
    assert!(
        message.contains("csi.certlet.io/socket-file: \"a/b\"")
            && !message.ends_with("(the volume's class decides it)"),
        "{message}"
    );
    spec(&[("class", "a"), ("socket-file", "s")], text).unwrap();
}

#[test]
fn without_a_file_a_class_is_refused_and_nothing_else_changes() {
    let refused = parse(&raw(&[("class", "mesh")]), &pod(), &flags()).unwrap_err().to_string();
    assert!(refused.contains("\"mesh\" is not a class: the driver runs without --classes"), "{refused}");
    let spec = parse(&raw(&[("signer", "local")]), &pod(), &flags()).unwrap();
    assert!(spec.class.is_none());
}

#[test]
fn volumes_of_other_prefixes_have_no_class() {
    let theirs: RawAttributes =
        [("csi.cert-manager.io/issuer-name".to_owned(), "ca".to_owned())].into_iter().collect();
    let mut defaults = with_classes(MESH);
    assert!(parse(&theirs, &pod(), &defaults).unwrap().class.is_none());
    defaults.dialect = Dialect::CsiDriverSpiffe;
    assert!(parse(&raw(&[]), &pod(), &defaults).unwrap().class.is_none());
    assert_eq!(
        parse(&raw(&[("class", "mesh")]), &pod(), &defaults).unwrap().class.as_ref().unwrap().name,
        "mesh"
    );
    let Origin::File { is_required, .. } = &mut defaults.classes.0 else { panic!() };
    *is_required = true;
    let refused = parse(&theirs, &pod(), &defaults).unwrap_err().to_string();
    assert_eq!(refused, "csi.certlet.io/class: is required (--require-class); accepted: mesh");
}

#[test]
fn a_changed_class_is_read_again_and_a_mounted_volume_keeps_its_socket() {
    let before = spec(&[], MESH).unwrap().class.unwrap();
    let again = |text: &str, is_mounted| {
        parse_again(&raw(&[]), &pod(), &with_classes(text), &before, is_mounted)
            .map_err(|faults| faults.to_string())
    };
    assert!(again(MESH, true).unwrap().is_none());
    let other = MESH.replace("socket-file: s", "combined-file: c");
    let mounted = again(&other, true).unwrap().unwrap().files;
    assert_eq!((mounted.socket.as_deref(), mounted.combined.as_deref()), (Some("s"), Some("c")));
    assert_eq!(again(&other, false).unwrap().unwrap().files.socket, None);
    let clash = again(&MESH.replace("socket-file: s", "combined-file: s"), true).unwrap_err();
    assert!(clash.contains("\"s\""), "{clash}");
    let gone = again("{version: 1, classes: {}}", true).unwrap_err();
    assert!(
        gone.contains("was the default class \"mesh\", and there is no default class any more"),
        "{gone}"
    );
    assert_ne!(again(&other, true).unwrap().unwrap().class.unwrap().digest(), before.digest());
}

#[test]
fn a_mounted_volume_keeps_a_socket_that_pods_may_not_ask_for_any_more() {
    let text = MESH.replace(", socket-file: s", "").replace("allow: [", "allow: [socket-file, ");
    let attributes = [("class", "mesh"), ("socket-file", "mine")];
    let before = spec(&attributes, &text).unwrap().class.unwrap();
    let stricter = text.replace("socket-file, ", "").replace("duration: 1h", "duration: 2h");
    let again = |is_mounted| {
        parse_again(&raw(&attributes), &pod(), &with_classes(&stricter), &before, is_mounted)
            .map_err(|faults| faults.to_string())
    };
    assert_eq!(again(true).unwrap().unwrap().files.socket.as_deref(), Some("mine"));
    assert!(again(false).unwrap_err().contains("csi.certlet.io/socket-file: cannot be set"));
}

#[test]
fn the_class_that_applied_before_reads_the_files_of_today() {
    let before: Arc<VolumeClass> = spec(&[], MESH).unwrap().class.unwrap();
    let spec = crate::attributes::parse_stored_class(&before, &pod(), &flags(), None).unwrap();
    assert_eq!(spec.sans.uris, ["spiffe://mesh.example/sa/web"]);
    assert_eq!(spec.files.socket.as_deref(), Some("s"));
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_line_or_its_class() {
    for (text, said) in [
        ("version: 2\nclasses: {}", "version: 2; accepted: 1"),
        (
            "version: 1\nclasses: {a: {attributes: {durations: 1h}}}",
            "class \"a\": attributes: \"durations\" is not an attribute",
        ),
        ("version: 1\nclasses: {a: {allow: [class]}}", "class \"a\": allow: \"class\" is not an attribute"),
        (
            "version: 1\nclasses: {a: {attributes: {pkcs12-password: x}}}",
            "\"pkcs12-password\" belongs to a pod",
        ),
        ("version: 1\nclasses: {A: {}}", "classes: \"A\"; accepted: names of at most 63"),
        (
            "version: 1\ndefault: b\nclasses: {a: {attributes: {signer: local}}}",
            "default: \"b\" is not one of the classes",
        ),
        (
            "version: 1\nclasses: {a: {attributes: {signer: local}, trustDomain: Example.org}}",
            "trustDomain: \"Example.org\"",
        ),
        (
            "version: 1\nclasses: {a: {attributes: {signer: local}, spiffeIdTemplate: x}}",
            "spiffeIdTemplate: \"x\"",
        ),
        (
            "version: 1\nclasses: {a: {attributes: {signer: local, duration: 1d}}}",
            "class \"a\": csi.certlet.io/duration: \"1d\"",
        ),
        (
            "version: 1\nclasses: {a: {attributes: {signer: local, duration: 1d}, allow: [duration, layout]}}",
            "class \"a\": csi.certlet.io/duration: \"1d\"",
        ),
        ("version: 1\nclasses: {a: {}}", "class \"a\": csi.certlet.io/issuer-name: is required"),
        (
            "version: 1\nclasses: {a: {use: {namespaces: [\"{ns}\"]}, attributes: {signer: local}}}",
            "a brace without a known variable",
        ),
        ("version: 1\nclasses: {a: {using: {}}}", "using"),
    ] {
        let fault = fault(text);
        assert!(fault.contains(said), "{text}: {fault}");
    }
    let long = format!("version: 1\nclasses: {{}} # {}", "x".repeat(1 << 20));
    assert!(fault(&long).contains("is longer than"));
    let template = "version: 1\nclasses: {a: {attributes: {signer: local}, spiffeIdTemplate: \"spiffe://{trustDomain}/a\"}}";
    let without = ClassFile::parse(template, &OperatorDefaults::default()).unwrap_err();
    assert!(without.contains("given without a trust domain"), "{without}");
}

#[test]
fn a_class_that_needs_something_of_its_pods_is_a_warning() {
    let text = "{version: 1, classes: {a: {allow: [issuer-name]}}}";
    let (file, warnings) = ClassFile::parse(text, &flags()).unwrap();
    assert_eq!(file.len(), 1);
    assert!(warnings[0].contains("class \"a\": refused unless the pod sets more"), "{warnings:?}");
}

#[test]
fn a_class_that_is_for_nobody_is_for_nobody() {
    let class = |users: &str| {
        let text = format!("{{version: 1, classes: {{a: {{use: {users}, attributes: {{signer: local}}}}}}}}");
        spec(&[("class", "a")], &text).is_ok()
    };
    for (users, is_for_pod) in [
        ("{}", true),
        ("{namespaces: [shop]}", true),
        ("{namespaces: [\"sh*\"], serviceAccounts: [\"*/web\"]}", true),
        ("{serviceAccounts: [\"shop/*\"]}", true),
        ("{serviceAccounts: [\"**\"]}", true),
        ("{serviceAccounts: [web]}", false),
        ("{namespaces: []}", false),
        ("{namespaces: [bank], serviceAccounts: [\"*/web\"]}", false),
        ("{namespaces: [shop], serviceAccounts: [\"*/other\"]}", false),
    ] {
        assert_eq!(class(users), is_for_pod, "{users}");
    }
}
