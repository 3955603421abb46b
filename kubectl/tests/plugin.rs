//! The plugin with a kubectl that answers from files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-certlet");

/// Prints the file that is named after the arguments. Without one, this user may not do it.
const KUBECTL: &str = r#"#!/bin/sh
dir=$(dirname "$0")/answers
echo "$*" >>"$dir/calls"
name=$(printf %s "$*" | tr -c 'A-Za-z0-9.-' _)
if [ -f "$dir/$name.refused" ]; then cat "$dir/$name.refused" >&2; exit 1; fi
if [ -f "$dir/$name" ]; then exec cat "$dir/$name"; fi
echo "Error from server (Forbidden): User \"tenant\" cannot do this: $*" >&2
exit 1
"#;

const DRIVERS: &str = "get pods --all-namespaces --selector=app.kubernetes.io/name=certlet --output=json";
const ON_NODE_1: &str = "get pods --all-namespaces --selector=app.kubernetes.io/name=certlet --field-selector=spec.nodeName=node-1 --output=json";
const NAMESPACE: &str = "config view --minify --output=jsonpath={..namespace}";

/// A cluster of answers.
struct Fake(TempDir);

/// What the plugin prints.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("answers")).unwrap();
        let kubectl = dir.path().join("kubectl");
        fs::write(&kubectl, KUBECTL).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        let fake = Self(dir);
        fake.answer(NAMESPACE, "shop");
        fake
    }

    fn file(&self, args: &str, ending: &str) -> std::path::PathBuf {
        let kept = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let name: String = args.chars().map(|c| if kept(c) { c } else { '_' }).collect();
        self.0.path().join("answers").join(name + ending)
    }

    fn answer(&self, args: &str, text: &str) {
        fs::write(self.file(args, ""), text).unwrap();
    }

    fn list(&self, args: &str, items: &[Value]) {
        self.answer(args, &json!({ "items": items }).to_string());
    }

    fn refuse(&self, args: &str, text: &str) {
        fs::write(self.file(args, ".refused"), text).unwrap();
    }

    /// A driver on each of these nodes, with what it reports.
    fn drivers(&self, reports: &[(&str, Value)]) {
        let pods: Vec<Value> = reports.iter().map(|(node, _)| driver(node)).collect();
        self.list(DRIVERS, &pods);
        if let Some(first) = pods.first() {
            self.list(ON_NODE_1, std::slice::from_ref(first));
        }
        for (node, report) in reports {
            self.answer(&exec(node, "status --report"), &report.to_string());
        }
    }

    /// A namespace `shop` with these pods, Events and requests.
    fn objects(&self, pods: &[Value], events: &[Value], requests: &[Value]) {
        self.list("get pods --namespace=shop --output=json", pods);
        self.list("get events --namespace=shop --output=json", events);
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            self.answer(&format!("get pod {name} --namespace=shop --output=json"), &pod.to_string());
            let on_pod = format!(
                "get events --namespace=shop --field-selector=involvedObject.kind=Pod,involvedObject.name={name} --output=json"
            );
            self.list(&on_pod, events);
        }
        self.list("get certificaterequests.cert-manager.io --namespace=shop --output=json", requests);
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_as(Path::new(PLUGIN), args)
    }

    fn run_as(&self, program: &Path, args: &[&str]) -> Said {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        let output = Command::new(program).args(args).env("PATH", path).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.0.path().join("answers/calls")).unwrap_or_default()
    }
}

/// The call that runs a command in the driver's pod of a node.
fn exec(node: &str, command: &str) -> String {
    format!("exec --namespace=certlet certlet-{node} --container=certlet -- certlet {command}")
}

fn driver(node: &str) -> Value {
    json!({
        "metadata": { "name": format!("certlet-{node}"), "namespace": "certlet" },
        "spec": { "nodeName": node, "containers": [{
            "name": "certlet",
            "env": [{ "name": "CERTLET_DRIVER_NAME", "value": "csi.certlet.io" }],
            "securityContext": { "privileged": true },
        }] },
        "status": { "phase": "Running" },
    })
}

fn report(volumes: &[Value]) -> Value {
    json!({ "version": env!("CARGO_PKG_VERSION"), "driver": "csi.certlet.io", "notice": null, "volumes": volumes })
}

fn volume(pod: &str, root: &str, error: Option<&str>) -> Value {
    json!({
        "namespace": "shop", "pod": pod, "signer": "ClusterIssuer/internal-ca", "subject": "",
        "sans": [format!("DNS:{pod}.shop.svc")],
        "issued_at": "2999-01-01T00:00:00Z", "expires_at": "2999-01-01T02:00:00Z",
        "renews_at": "2999-01-01T00:40:00Z", "ends_at": "2999-01-01T01:00:00Z",
        "root": format!("CN={root}"), "root_sha256": root.repeat(64), "retained": [],
        "remark": null, "last_error": error, "retries_at": error.map(|_| "2999-01-01T00:41:00Z"),
        "pod_volume": "tls", "volume": format!("csi-{pod}"),
    })
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "main" }], "volumes": [
            { "name": "config", "configMap": { "name": "x" } },
            { "name": "tls", "csi": { "driver": "csi.certlet.io", "volumeAttributes": {
                "csi.certlet.io/issuer-name": "internal-ca",
                "csi.certlet.io/pkcs12-password": "hunter2",
            } } },
        ] },
        "status": { "phase": "Pending" },
    })
}

fn request(pod: &str, name: &str, status: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": { "certlet.io/volume-id": format!("csi-{pod}") },
            "ownerReferences": [{ "kind": "Pod", "name": pod, "uid": format!("uid-{pod}") }],
        },
        "spec": { "issuerRef": { "name": "internal-ca", "kind": "ClusterIssuer", "group": "cert-manager.io" } },
        "status": status,
    })
}

fn pending() -> Value {
    json!({ "conditions": [
        { "type": "Approved", "status": "True", "reason": "cert-manager.io", "message": "approved" },
        { "type": "Ready", "status": "False", "reason": "Pending", "message": "the CA is sealed" },
    ] })
}

fn event(pod: &str, message: &str) -> Value {
    json!({
        "metadata": {}, "reason": "CertificatePending", "message": message, "type": "Warning",
        "lastTimestamp": null, "eventTime": "2026-01-01T00:00:10.000000Z", "reportingComponent": "csi.certlet.io",
        "involvedObject": { "kind": "Pod", "name": pod, "uid": format!("uid-{pod}") },
    })
}

#[test]
fn status_shows_the_volumes_of_all_nodes_in_one_table() {
    let fake = Fake::new();
    fake.drivers(&[
        ("node-1", report(&[volume("web-0", "a", None)])),
        ("node-2", report(&[volume("web-1", "a", Some("the issuer says no"))])),
    ]);
    let said = fake.run(&["status", "-A", "-o", "wide"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!(said.out, @"
    NAMESPACE  POD    VOLUME  NODE    SIGNER                     NAME                ISSUED                EXPIRES               RENEWS                LAST ERROR
    shop       web-0  tls     node-1  ClusterIssuer/internal-ca  DNS:web-0.shop.svc  2999-01-01T00:00:00Z  2999-01-01T01:00:00Z  2999-01-01T00:40:00Z  -
    shop       web-1  tls     node-2  ClusterIssuer/internal-ca  DNS:web-1.shop.svc  2999-01-01T00:00:00Z  2999-01-01T01:00:00Z  2999-01-01T00:40:00Z  the issuer says no; next try 2999-01-01T00:41:00Z
    ");
    assert!(
        said.err.contains("source: the drivers, by exec: 2 answered, 0 did not; namespace certlet"),
        "{}",
        said.err
    );
    let other = fake.run(&["status", "-n", "other"]);
    assert_eq!(other.out, "no volumes\n");
    let one: Value = serde_json::from_str(&fake.run(&["status", "web-1", "-o", "json"]).out).unwrap();
    assert_eq!((&one["source"], &one["is_complete"]), (&"drivers".into(), &true.into()));
    assert_eq!(one["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(one["volumes"][0]["error"], "the issuer says no");
}

#[test]
fn a_node_that_does_not_answer_is_named_and_the_exit_code_says_so() {
    let fake = Fake::new();
    fake.drivers(&[("node-1", report(&[volume("web-0", "a", None)])), ("node-2", report(&[]))]);
    fake.refuse(
        &exec("node-2", "status --report"),
        "error: Internal error occurred: dial tcp: connection refused",
    );
    let said = fake.run(&["status", "-A"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("web-0"), "{}", said.out);
    assert!(said.err.contains("not asked: node-2: error: Internal error occurred"), "{}", said.err);
    let trust = fake.run(&["trust"]);
    assert_eq!(trust.code, Some(1));
    assert!(trust.out.contains("no root is known to be safe to remove"), "{}", trust.out);
}

#[test]
fn without_permission_to_exec_a_tenant_sees_what_the_namespace_shows() {
    let fake = Fake::new();
    let leaf = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/leaf.pem")).unwrap();
    let issued = json!({ "certificate": Base64::encode_string(&leaf) });
    fake.objects(
        &[pod("web-0"), pod("web-1"), pod("web-2")],
        &[event("web-2", "waits for the signer")],
        &[request("web-0", "web-0-1", &issued), request("web-1", "web-1-1", &pending())],
    );
    let said = fake.run(&["status", "-n", "shop", "-o", "wide"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!(said.out, @"
    NAMESPACE  POD    VOLUME  NODE    SIGNER                     NAME                                                                    ISSUED                EXPIRES               RENEWS  LAST ERROR
    shop       web-0  tls     node-1  ClusterIssuer/internal-ca  DNS:web-0.shop.svc,URI:spiffe://example.org/ns/shop/sa/web,IP:10.0.0.7  2026-11-28T01:57:04Z  2126-11-04T01:57:04Z  -       -
    shop       web-1  tls     node-1  ClusterIssuer/internal-ca  -                                                                       -                     -                     -       request web-1-1: Ready=False (Pending): the CA is sealed
    shop       web-2  tls     node-1  -                          -                                                                       -                     -                     -       CertificatePending: waits for the signer
    ");
    assert!(said.err.starts_with("source: Pods, Events and CertificateRequests of namespace shop, because the drivers may not be asked: Error from server (Forbidden)"), "{}", said.err);
    assert!(!fake.calls().contains("exec "), "{}", fake.calls());
    let drivers = fake.run(&["status", "--from", "drivers"]);
    assert!(drivers.code == Some(1) && drivers.err.contains("Forbidden"), "{}", drivers.err);
}

#[test]
fn who_may_list_the_drivers_but_not_exec_sees_the_namespace_too() {
    let fake = Fake::new();
    fake.list(DRIVERS, &[driver("node-1")]);
    fake.objects(&[pod("web-1")], &[], &[request("web-1", "web-1-1", &pending())]);
    let said = fake.run(&["status"]);
    assert!(
        said.out.contains("web-1") && said.err.contains("because the drivers may not be asked"),
        "{}",
        said.err
    );
}

#[test]
fn why_explains_a_pod_with_what_the_driver_knows() {
    let fake = Fake::new();
    let mut timeless = event("web-1", "still waiting\u{1b}[2J");
    timeless["eventTime"] = Value::Null;
    fake.drivers(&[(
        "node-1",
        report(&[volume("web-1", "a", Some("the CA is sealed (3 in a row)")), volume("web-2", "a", None)]),
    )]);
    fake.objects(&[pod("web-1")], &[timeless], &[request("web-1", "web-1-1", &pending())]);
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": "Sealed", "message": "unseal it" }] } });
    fake.answer(
        "get ClusterIssuer.cert-manager.io internal-ca --namespace=shop --output=json",
        &ready.to_string(),
    );
    let said = fake.run(&["why", "-n", "shop", "web-1"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let page: String = said.out.split_inclusive('\n').map(without_distance).collect();
    insta::assert_snapshot!(page, @"
    Pod shop/web-1 on node-1, Pending
    Volume tls, driver csi.certlet.io
      asked for    csi.certlet.io/issuer-name: internal-ca
                   csi.certlet.io/pkcs12-password: (not shown)
      signer       ClusterIssuer/internal-ca
      certificate  DNS:web-1.shop.svc
      issued       2999-01-01T00:00:00Z
      expires      2999-01-01T01:00:00Z
      renews       2999-01-01T00:40:00Z
      last error   the CA is sealed (3 in a row)
      next try     2999-01-01T00:41:00Z
      request      web-1-1, made 2026-01-01T00:00:00Z
                   Approved=True (cert-manager.io): approved
                   Ready=False (Pending): the CA is sealed
      issuer       ClusterIssuer internal-ca (cert-manager.io): Ready=False (Sealed): unseal it
    Events
                   CertificatePending: still waiting?[2J
    ");
    assert!(!said.out.contains("hunter2") && !said.out.contains('\u{1b}'), "{}", said.out);
}

/// Durations from now change each day.
fn without_distance(line: &str) -> String {
    let is_distance = |part: &str| part.starts_with("in ") || part.ends_with(" ago)\n");
    match line.rsplit_once(" (") {
        Some((before, part)) if is_distance(part) => format!("{before}\n"),
        _ => line.to_owned(),
    }
}

#[test]
fn why_explains_a_pod_to_a_tenant_too() {
    let fake = Fake::new();
    fake.objects(
        &[pod("web-1")],
        &[event("web-1", "still waiting")],
        &[request("web-1", "web-1-1", &pending())],
    );
    let said = fake.run(&["why", "web-1"]);
    for part in [
        "issuer-name: internal-ca",
        "web-1-1",
        "Ready=False (Pending): the CA is sealed",
        "this user may not read it",
        "still waiting",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(said.err.contains("of its namespace alone: the driver may not be asked"), "{}", said.err);
}

#[test]
fn renewals_go_to_the_driver_of_each_pods_node() {
    let fake = Fake::new();
    fake.drivers(&[("node-1", report(&[]))]);
    let mut sidecar = pod("batch-0");
    sidecar["spec"]["volumes"] = json!([]);
    sidecar["spec"]["initContainers"] = json!([{ "name": "certlet" }]);
    let mut other = pod("plain");
    other["spec"]["volumes"] = json!([]);
    fake.objects(&[pod("web-0"), pod("web-1"), sidecar, other], &[], &[]);
    fake.answer(
        &exec("node-1", "renew --timeout=5s shop/web-0 shop/web-1"),
        "shop/web-0: renewed, expires 2999\nshop/web-1: renewed, expires 2999\n",
    );
    fake.answer(
        "exec --namespace=shop batch-0 --container=certlet -- certlet renew --timeout=5s",
        "shop/batch-0: renewed, expires 2999\n",
    );
    let said = fake.run(&["renew", "--timeout", "5", "web-0", "web-1", "batch-0"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    insta::assert_snapshot!(said.out, @"
    shop/batch-0: renewed, expires 2999
    node-1: shop/web-0: renewed, expires 2999
    node-1: shop/web-1: renewed, expires 2999
    ");
    fake.refuse(
        &exec("node-1", "renew --timeout=90s shop/web-0"),
        "shop/web-0: not renewed\ncommand terminated with exit code 1\n",
    );
    let said = fake.run(&["renew", "web-0", "plain"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.out,
        "shop/plain: not renewed: it has no volume of a driver that runs on its node, and no sidecar\nnode-1: shop/web-0: not renewed\n"
    );
}

#[test]
fn renewing_all_of_a_cluster_asks_every_driver() {
    let fake = Fake::new();
    fake.drivers(&[("node-1", report(&[])), ("node-2", report(&[]))]);
    for node in ["node-1", "node-2"] {
        fake.answer(&exec(node, "renew --timeout=90s --all"), "no certificate to renew\n");
    }
    let said = fake.run(&["renew", "-A", "--all"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "node-1: no certificate to renew\nnode-2: no certificate to renew\n")
    );
}

#[test]
fn trust_joins_the_roots_of_all_nodes() {
    let fake = Fake::new();
    let mut renewed = volume("web-1", "b", None);
    renewed["retained"] =
        json!([{ "sha256": "c".repeat(64), "subject": "CN=c", "until": "2999-02-01T00:00:00Z" }]);
    let mut foreign = volume("web-3", "d", None);
    foreign["root_sha256"] = Value::Null;
    fake.drivers(&[
        ("node-1", report(&[volume("web-0", "a", None), renewed])),
        ("node-2", report(&[volume("web-2", "a", None), foreign])),
    ]);
    let said = fake.run(&["trust"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!(said.out, @"
    ROOT  SHA-256                  VOLUMES  NODES  NAMESPACES  SAFE TO REMOVE
    CN=a  aaaaaaaaaaaaaaaa         2        2      shop        not before 2999-01-01T01:00:00Z
    CN=b  bbbbbbbbbbbbbbbb         1        1      shop        not before 2999-01-01T01:00:00Z
    CN=c  cccccccccccccccc         0        0      -           yes (not named any more, still trusted until 2999-02-01T00:00:00Z)
    CN=d  not in the trust bundle  1        1      shop        -
    A root that is not in this list: no certificate of a volume leads to it. Sidecars, and peers outside the cluster, are not asked.
    ");
    let json: Value = serde_json::from_str(&fake.run(&["trust", "-o", "json"]).out).unwrap();
    assert_eq!(json["roots"][0]["nodes"], json!(["node-1", "node-2"]));
}

#[test]
fn a_pod_that_only_has_the_labels_of_a_driver_is_not_asked() {
    let fake = Fake::new();
    let mut pretender = driver("node-1");
    pretender["spec"]["containers"][0]["securityContext"] = json!({});
    fake.list(DRIVERS, &[pretender]);
    let said = fake.run(&["status", "-A"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("no privileged pod"), "{}", said.err);
    assert!(!fake.calls().contains("exec "), "{}", fake.calls());
}

#[test]
fn a_driver_of_another_version_is_named_and_an_earlier_one_is_read() {
    let fake = Fake::new();
    let mut newer = report(&[volume("web-0", "a", None)]);
    newer["version"] = "9.9.9".into();
    newer["something-new"] = true.into();
    fake.drivers(&[("node-1", newer), ("node-2", report(&[]))]);
    fake.refuse(&exec("node-2", "status --report"), "certlet: unexpected argument '--report' found; see certlet --help\ncommand terminated with exit code 2\n");
    fake.answer(&exec("node-2", "status --json"), &json!([volume("web-1", "a", None)]).to_string());
    let said = fake.run(&["status", "-A"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("web-0") && said.out.contains("web-1"), "{}", said.out);
    assert!(said.err.contains("node-1: the driver's version is 9.9.9, this plugin's is"), "{}", said.err);
    assert!(said.err.contains("node-2: the driver's version is an earlier one"), "{}", said.err);
}

#[test]
fn sidecars_are_asked_if_that_is_wanted() {
    let fake = Fake::new();
    fake.drivers(&[("node-1", report(&[]))]);
    fake.objects(&[with_sidecar("batch-0")], &[], &[]);
    fake.answer(
        &exec_sidecar("batch-0", "status --report"),
        &report(&[volume("batch-0", "a", None)]).to_string(),
    );
    assert_eq!(fake.run(&["status"]).out, "no volumes\n");
    let said = fake.run(&["status", "--sidecars", "-o", "wide"]);
    assert!(said.code == Some(0) && said.out.contains("(sidecar)"), "{}{}", said.out, said.err);
}

/// A pod of the namespace `shop` with a sidecar and no volumes.
fn with_sidecar(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["volumes"] = json!([]);
    pod["spec"]["containers"] = json!([{ "name": "main" }, { "name": "certlet" }]);
    pod["status"]["phase"] = "Running".into();
    pod
}

/// The call that runs a command in the sidecar of a pod.
fn exec_sidecar(pod: &str, command: &str) -> String {
    format!("exec --namespace=shop {pod} --container=certlet -- certlet {command}")
}

#[test]
fn a_sidecar_cannot_name_another_pod_than_its_own() {
    let fake = Fake::new();
    fake.drivers(&[("node-1", report(&[]))]);
    fake.objects(&[with_sidecar("batch-0")], &[], &[]);
    let mut forged = volume("web-0", "a", Some("forged"));
    forged["namespace"] = "kube-system".into();
    fake.answer(&exec_sidecar("batch-0", "status --report"), &report(&[forged]).to_string());
    let said = fake.run(&["status", "--sidecars", "-o", "json"]);
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["volumes"].as_array().unwrap().len(), 1);
    let row = &answer["volumes"][0];
    assert_eq!((&row["namespace"], &row["pod"]), (&"shop".into(), &"batch-0".into()));

    let renew = exec_sidecar("batch-0", "renew --timeout=90s");
    fake.answer(&renew, "shop/batch-0: renewed\nnode-1: shop/web-0: renewed\n");
    let said = fake.run(&["renew", "batch-0"]);
    assert_eq!(said.out, "shop/batch-0: renewed\nshop/batch-0: node-1: shop/web-0: renewed\n");
}

#[test]
fn a_container_that_prints_without_end_has_not_answered() {
    let fake = Fake::new();
    let padded = |mib: usize| {
        let mut report = report(&[volume("web-0", "a", None)]);
        report["padding"] = "x".repeat(mib << 20).into();
        report
    };
    // More than a sidecar may print, and not more than a driver.
    fake.drivers(&[("node-1", padded(2)), ("node-2", padded(17))]);
    fake.objects(&[with_sidecar("batch-0")], &[], &[]);
    fake.answer(&exec_sidecar("batch-0", "status --report"), &padded(2).to_string());
    fake.answer(&exec_sidecar("batch-0", "renew --timeout=90s"), &"x".repeat(2 << 20));
    let said = fake.run(&["status", "--sidecars"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("web-0") && !said.out.contains("batch-0"), "{}", said.out);
    for part in [
        "not asked: node-2: more than 16777216 bytes were printed",
        "not asked: sidecar of shop/batch-0: more than 1048576 bytes were printed",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let why = fake.run(&["why", "batch-0"]);
    assert!(why.err.contains("more than 1048576 bytes"), "{}", why.err);
    let renew = fake.run(&["renew", "batch-0"]);
    assert!(renew.code == Some(1) && renew.out.contains("more than 1048576 bytes"), "{}", renew.out);
}

#[test]
fn a_command_that_prints_a_refusal_in_a_drivers_pod_does_not_hide_the_other_nodes() {
    let fake = Fake::new();
    fake.drivers(&[("node-1", report(&[volume("web-0", "a", None)])), ("node-2", report(&[]))]);
    let refusal = "Error from server (Forbidden): pods \"x\" is forbidden: User \"jane\" cannot exec\n";
    let exec = exec("node-2", "status --report");
    fake.refuse(&exec, &format!("{refusal}command terminated with exit code 1\n"));
    let said = fake.run(&["status"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("web-0"), "{}", said.out);
    assert!(said.err.contains("by exec: 1 answered, 1 did not"), "{}", said.err);
    // The API server's own refusal: no command has run.
    fake.refuse(&exec, refusal);
    let said = fake.run(&["status", "--from", "drivers"]);
    assert!(said.code == Some(1) && said.err.starts_with("kubectl certlet: Error from"), "{}", said.err);
}

#[test]
fn errors_are_shown_without_control_characters() {
    let fake = Fake::new();
    fake.refuse(DRIVERS, "Error from server (Forbidden): \u{1b}[2Jno\u{202e}\n");
    let said = fake.run(&["status", "--from", "drivers"]);
    assert_eq!(said.err, "kubectl certlet: Error from server (Forbidden): ?[2Jno?\n");
    fake.refuse(DRIVERS, "error: \u{9b}31mno\n");
    let said = fake.run(&["trust"]);
    assert_eq!((said.code, said.err.as_str()), (Some(1), "kubectl certlet: error: ?31mno\n"));
}

#[test]
fn a_volume_without_attributes_is_known_by_the_name_that_the_operator_gave_the_driver() {
    let fake = Fake::new();
    fake.drivers(&[("node-1", report(&[volume("web-0", "a", None)]))]);
    let mut named = driver("node-1");
    named["spec"]["containers"][0]["env"][0]["value"] = "certs.example.org".into();
    fake.list(ON_NODE_1, &[named]);
    let with_volume_of = |name: &str, driver: &str| {
        let mut pod = pod(name);
        pod["spec"]["volumes"] = json!([{ "name": "tls", "csi": { "driver": driver } }]);
        pod
    };
    let foreign = with_volume_of("other", "secrets.example.org");
    fake.objects(&[with_volume_of("web-0", "certs.example.org"), foreign], &[], &[]);
    let why = fake.run(&["why", "web-0"]);
    for part in ["Volume tls, driver certs.example.org", "DNS:web-0.shop.svc"] {
        assert!(why.out.contains(part), "{part}: {}", why.out);
    }
    fake.answer(&exec("node-1", "renew --timeout=90s shop/web-0"), "shop/web-0: renewed\n");
    for args in [&["renew", "web-0"][..], &["renew", "--all"]] {
        let said = fake.run(args);
        assert_eq!((said.code, said.out.as_str()), (Some(0), "node-1: shop/web-0: renewed\n"), "{args:?}");
    }
}

#[test]
fn a_sidecar_is_renewed_by_a_user_who_may_not_list_the_drivers() {
    let fake = Fake::new();
    let mut sidecar = with_sidecar("batch-0");
    sidecar["spec"]["volumes"] = json!([{ "name": "vault", "csi": { "driver": "secrets.example.org" } }]);
    fake.objects(&[sidecar], &[], &[]);
    fake.answer(&exec_sidecar("batch-0", "renew --timeout=90s"), "shop/batch-0: renewed\n");
    let said = fake.run(&["renew", "batch-0"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "shop/batch-0: renewed\n"), "{}", said.err);
}

#[test]
fn the_clusters_flags_reach_kubectl_and_names_are_never_flags() {
    let fake = Fake::new();
    fake.run(&["status", "--context=east", "--as=jane", "--as-group=admins", "-n", "shop"]);
    assert!(
        fake.calls().lines().all(|call| call.starts_with("--context=east --as=jane --as-group=admins ")),
        "{}",
        fake.calls()
    );
    for args in
        [&["why", "--", "--kubeconfig=x"][..], &["status", "-n", "a/b"], &["renew"], &["renew", "--", "-A"]]
    {
        assert_eq!(fake.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn shells_and_kubectl_complete_the_commands() {
    let fake = Fake::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = fake.run(&["completion", shell]);
        assert!(said.code == Some(0) && said.out.contains("kubectl-certlet"), "{shell}: {}", said.err);
    }
    let link = fake.0.path().join("kubectl_complete-certlet");
    symlink(PLUGIN, &link).unwrap();
    fake.answer("get pods --output=name --namespace=shop", "pod/web-0\npod/web-1\npod/db\n");
    for (words, candidates) in [
        (&["st"][..], "status\n:4\n"),
        (&["why", "-n", "shop", "we"], "web-0\nweb-1\n:4\n"),
        (&["status", "--sid"], "--sidecars\n:4\n"),
        (&["completion", "z"], "zsh\n:4\n"),
    ] {
        assert_eq!(fake.run_as(&link, words).out, candidates, "{words:?}");
    }
}
