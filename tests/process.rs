//! The process: command line, registration, probes, signals, status.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/raw_http2.rs"]
mod raw_http2;
mod support;

use certlet_kubelet::Kubelet;
use certlet_kubelet::proto::csi::{ProbeRequest, ProbeResponse};
use certlet_kubelet::proto::registration::registration_client::RegistrationClient;
use certlet_kubelet::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use nix::sys::signal::Signal;
use raw_http2::RawClient;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;
use support::{CERTLET, Node, eventually, get_from, pod, pod_with, serial};
use tonic::transport::Endpoint;

#[test]
fn a_wrong_value_ends_with_code_2_and_one_line_that_names_the_flag() {
    let wrong: [(&str, &[&str]); 17] = [
        ("--node-id", &["--driver-name=csi.certlet.io"]),
        ("--node-id", &["--node-id="]),
        ("--endpoint", &["--node-id=n", "--endpoint=tcp://127.0.0.1:1"]),
        ("--driver-name", &["--node-id=n", "--driver-name=no/slashes"]),
        ("--store-size", &["--node-id=n", "--store-size=lots"]),
        ("--store-inodes", &["--node-id=n", "--store-inodes=1"]),
        ("--max-volumes-in-flight", &["--node-id=n", "--max-volumes-in-flight=0"]),
        ("--shutdown-grace", &["--node-id=n", "--shutdown-grace=-1s"]),
        ("--metrics-bind-address", &["--node-id=n", "--metrics-bind-address=nowhere"]),
        ("--log-format", &["--node-id=n", "--log-format=xml"]),
        ("--log-level", &["--node-id=n", "--log-level=certlet=loud"]),
        ("--log-level", &["--node-id=n", "--log-level=warning"]),
        ("--log-level", &["--node-id=n", "--log-level="]),
        ("--local-ca-key", &["--node-id=n", "--allow-local-signer", "--local-ca-cert=/tmp/ca.pem"]),
        ("--local-ca-cert", &["--node-id=n", "--local-ca-cert=/tmp/ca.pem", "--local-ca-key=/tmp/ca.key"]),
        ("--startup-taint", &["--node-id=n", "--registration-dir=", "--startup-taint=certlet.io/not-ready"]),
        ("--no-such-flag", &["--node-id=n", "--no-such-flag"]),
    ];
    for (flag, args) in wrong {
        let output = Command::new(CERTLET).arg("node").args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.contains(flag), "{args:?}: {said}");
    }
}

#[test]
fn a_mistyped_name_gets_a_tip_and_is_still_one_line() {
    for (args, tip) in
        [(&["statu"][..], "a similar subcommand exists: 'status'"), (&["node", "--node-i=n"], "'--node-id'")]
    {
        let output = Command::new(CERTLET).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.lines().count() == 1 && said.contains("; tip: ") && said.contains(tip), "{said}");
    }
    let alone = Command::new(CERTLET).output().unwrap();
    assert_eq!(alone.status.code(), Some(2));
    assert!(String::from_utf8(alone.stderr).unwrap().contains("Usage: certlet"));
}

#[test]
fn a_reader_that_ends_early_causes_no_panic() {
    let mut child = Command::new(CERTLET)
        .args(["reference", "cli"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn every_flag_of_the_services_is_also_an_environment_variable() {
    for (service, one) in [
        ("node", "--data-root"),
        ("sidecar", "--directory"),
        ("approver", "--trust-domain"),
        ("reload", "--watch"),
    ] {
        let help = Command::new(CERTLET).args([service, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        // Descriptions are indented more than flags, and can begin a line with the name of a flag.
        let lines = help.lines().filter(|line| !line.starts_with(&" ".repeat(10)));
        let lines = lines.map(|line| line.trim().trim_start_matches("-v, "));
        let flags = lines.filter_map(|line| line.strip_prefix("--"));
        for flag in flags.map(|line| line.split([' ', '=', '[']).next().unwrap()) {
            let variable = format!("CERTLET_{}", flag.to_uppercase().replace('-', "_"));
            assert!(help.contains(&format!("[env: {variable}=")), "--{flag} has no {variable}\n{help}");
        }
        assert!(help.contains(one), "{help}");
    }
}

/// Runs the approver, which ends at once for want of a cluster.
fn approver(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(CERTLET);
    let output = command.arg("approver").args(args).env_remove("KUBERNETES_SERVICE_HOST").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_flags_of_csi_driver_spiffes_approver_are_accepted_as_they_are() {
    // As its chart gives them.
    let (code, said) = approver(&[
        "--log-level=1",
        "--csi-driver-name=spiffe.csi.cert-manager.io",
        "--certificate-request-duration=1h",
        "--issuer-name=my-spiffe-ca",
        "--issuer-kind=ClusterIssuer",
        "--issuer-group=cert-manager.io",
        "--trust-domain=cluster.local",
        "--runtime-issuance-config-map-name=",
        "--runtime-issuance-config-map-namespace=cert-manager",
        "--auto-approve-non-spiffe",
        "--leader-election-namespace=cert-manager",
        "--metrics-bind-address=:9402",
        "--readiness-probe-bind-address=:6060",
        "--use-own-service-account=true",
        "--driver-service-account=system:serviceaccount:cert-manager:cert-manager-csi-driver-spiffe",
    ]);
    assert!(said.contains("this process is not in a pod"), "{said}");
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn a_wrong_value_for_the_approver_ends_with_code_2_and_names_the_flag() {
    let wrong: [(&str, &[&str]); 7] = [
        ("--driver-service-account", &["--use-own-service-account"]),
        ("--driver-service-account", &["--use-own-service-account", "--driver-service-account=driver"]),
        ("--use-own-service-account", &["--use-own-service-account=perhaps"]),
        ("--max-duration", &["--max-duration=30m"]),
        ("--trust-domain", &["--trust-domain=spiffe://example.org"]),
        ("--runtime-issuance-config-map-namespace", &["--runtime-issuance-config-map-name=issuer"]),
        ("--leader-election-namespace", &["--leader-election-namespace=../x"]),
    ];
    for (flag, args) in wrong {
        let (code, said) = approver(args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.lines().count() == 1 && said.contains(flag), "{args:?}: {said}");
    }
}

node_test! {
    async fn the_data_root_may_be_relative() {
        let mut node = Node::new();
        fs::create_dir_all(&node.root).unwrap();
        std::env::set_current_dir(&node.root).unwrap();
        let mut command = Command::new(CERTLET);
        command.args(["node", "--node-id=n", "--data-root=here/data", "--metrics-bind-address=0", "--allow-local-signer"])
            .arg("--endpoint").arg(node.endpoint())
            .arg("--registration-dir").arg(node.root.join("plugins_registry"));
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let kubelet = node.kubelet().await;
        support::assert_whole(&kubelet.publish(&pod("web-0")).await.unwrap());
        assert!(node.root.join("here/data/volumes").is_dir());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

node_test! {
    async fn a_refused_registration_shows_and_is_offered_again() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--metrics-bind-address=127.0.0.1:19402"]);
        node.start();
        eventually("the socket is there", async || node.registration_socket().exists()).await;
        eventually("the probe answers", async || get("/readyz").await.is_some()).await;
        assert_eq!(get("/readyz").await.unwrap().0, 503);
        let channel = Endpoint::from_shared(format!("unix://{}", node.registration_socket().display())).unwrap();
        let mut registration = RegistrationClient::new(channel.connect().await.unwrap());
        let info = registration.get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", support::DRIVER));
        assert_eq!(info.endpoint, node.endpoint().display().to_string());
        let refusal = RegistrationStatus { plugin_registered: false, error: "not today".to_owned() };
        registration.notify_registration_status(refusal).await.unwrap();
        eventually("the refusal shows", async || {
            get("/readyz").await.is_some_and(|(code, body)| code == 503 && body.contains("not today"))
        }).await;
        assert!(get("/metrics").await.unwrap().1.contains("certlet_registrations_total{result=\"refused\"} 1"));

        node.kubelet().await;
        assert_eq!(get("/readyz").await.unwrap().0, 200);
        assert!(get("/metrics").await.unwrap().1.contains("certlet_registered 1"));
        fs::remove_file(node.registration_socket()).unwrap();
        eventually("the loss shows", async || get("/readyz").await.is_some_and(|(code, _)| code == 503)).await;
        node.kubelet().await;
        assert_eq!(get("/readyz").await.unwrap().0, 200);
        assert_eq!(get("/healthz").await.unwrap().0, 200);
    }
}

node_test! {
    async fn probes_are_answered_without_an_admin_port_over_a_socket_that_only_root_reaches() {
        let mut node = Node::new();
        let (code, said) = node.health("--liveness");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("control.sock: No such file") && said.lines().count() == 1, "{said}");

        node.start();
        eventually("it is alive", async || node.health("--liveness").0 == Some(0)).await;
        assert_eq!(node.health("--liveness").1, "ok\n");
        let (code, said) = node.health("--readiness");
        assert_eq!((code, said.as_str()), (Some(1), "certlet: the kubelet has not asked for the driver yet\n"));
        let socket = node.data_root().join("control.sock");
        for (path, mode) in [(&socket, 0o600), (&node.data_root(), 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }

        let kubelet = node.kubelet().await;
        assert_eq!(node.health("--readiness"), (Some(0), "ok\n".to_owned()));
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        let seen = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!seen.into_iter().any(|name| name == "control.sock"), "a pod sees the socket");
        fs::remove_file(node.registration_socket()).unwrap();
        eventually("the loss shows", async || node.health("--readiness").1.contains("registration socket was removed")).await;
        assert_eq!(node.health("--liveness").0, Some(0));
        node.stop();
        assert!(!socket.exists());
        assert_eq!(node.health("--liveness").0, Some(1));
    }
}

node_test! {
    async fn a_call_whose_caller_goes_away_is_counted() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--metrics-bind-address=127.0.0.1:19403"]);
        let kubelet = node.started().await;
        let cancelled = "certlet_csi_calls_total{method=\"NodePublishVolume\",code=\"CANCELLED\"}";
        eventually("it is counted", async || {
            // Generating this key takes a while.
            let pod = pod_with("web-0", &[("key-algorithm", "RSA"), ("key-size", "4096")]);
            let _cut_off = tokio::time::timeout(Duration::from_millis(50), kubelet.publish(&pod)).await;
            get_from("127.0.0.1:19403", "/metrics").await.is_some_and(|(_, metrics)| metrics.contains(cancelled))
        }).await;
    }
}

node_test! {
    async fn the_kubelet_is_answered_whatever_authority_it_sends() {
        let mut node = Node::new();
        node.started().await;
        // grpc-go makes the authority from the registration socket's path, and uses Huffman code if that is shorter.
        let path = b"%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fcsi.certlet.io-reg.sock";
        let plain = [b"\x41\x43", &path[..]].concat();
        let huffman = b"\x41\xb0\x54\x58\x7b\x8e\xc5\x45\x86\x83\x46\xa8\xb0\xf5\xb6\x32\xd0\x54\xaa\x2c\x35\xd1\x6c\xc6\xa9\x11\
            \x59\x59\x8c\x84\xd9\xe9\x51\x61\x22\x0c\xb9\x0b\x62\x68\x2a\x57\x31\xd6\xb0\xb3\x2e\x83\x93\xaf";
        for authority in [plain.as_slice(), huffman] {
            let mut kubelet = RawClient::connect(&node.registration_socket()).await;
            let info: PluginInfo =
                kubelet.call("/pluginregistration.Registration/GetInfo", authority, &InfoRequest {}).await.unwrap();
            assert_eq!(info.name, support::DRIVER);
            // From the second call on, the authority is the newest entry of the dynamic table.
            let status = RegistrationStatus { plugin_registered: true, error: String::new() };
            let notify = "/pluginregistration.Registration/NotifyRegistrationStatus";
            let _taken: RegistrationStatusResponse = kubelet.call(notify, b"\xbe", &status).await.unwrap();
        }
        // For the CSI socket, the kubelet sends localhost.
        let mut kubelet = RawClient::connect(&node.endpoint()).await;
        let probe: ProbeResponse =
            kubelet.call("/csi.v1.Identity/Probe", b"\x41\x09localhost", &ProbeRequest {}).await.unwrap();
        assert_eq!(probe.ready, Some(true));
    }
}

/// One GET from the admin server of the registration test.
async fn get(path: &str) -> Option<(u16, String)> {
    get_from("127.0.0.1:19402", path).await
}

node_test! {
    async fn sockets_are_private() {
        let mut node = Node::new();
        node.started().await;
        for socket in [node.endpoint(), node.registration_socket()] {
            assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600, "{}", socket.display());
        }
    }
}

node_test! {
    async fn a_sigterm_in_mid_publish_ends_cleanly_and_the_next_start_goes_on() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let settled = kubelet.publish(&pod("settled")).await.unwrap();
        let slow = pod_with("slow", &[("key-algorithm", "RSA"), ("key-size", "4096")]);
        let publish = { let (kubelet, slow) = (kubelet.clone(), slow.clone()); tokio::spawn(async move { kubelet.publish(&slow).await }) };
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        node.stop();
        assert!(!node.endpoint().exists() && !node.registration_socket().exists(), "the sockets are removed");
        support::assert_whole(&settled);
        let cut_off = publish.await.unwrap();
        let kubelet = node.started().await;
        support::assert_whole(&kubelet.publish(&slow).await.unwrap_or_else(|status| panic!("{status:?} after {cut_off:?}")));
        support::assert_whole(&settled);
        kubelet.unpublish(&slow).await.unwrap();
        kubelet.unpublish(&pod("settled")).await.unwrap();
        assert!(node.stored().is_empty());
    }
}

node_test! {
    async fn a_sigint_ends_cleanly_and_a_second_signal_at_once() {
        let mut node = Node::new();
        node.started().await;
        node.signal(Signal::SIGINT);
        assert!(node.wait().success());

        let kubelet = node.started().await;
        let publishes: Vec<_> = (0..8).map(|number| {
            let (kubelet, pod) = (kubelet.clone(), pod_with(&format!("slow-{number}"), &[("key-algorithm", "RSA"), ("key-size", "4096")]));
            tokio::spawn(async move { kubelet.publish(&pod).await })
        }).collect();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        node.signal(Signal::SIGTERM);
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        node.signal(Signal::SIGTERM);
        let status = node.wait();
        assert!(status.code() == Some(143) || status.success(), "{status:?} {:?}", status.signal());
        for publish in publishes {
            let _cut_off = publish.await;
        }
    }
}

node_test! {
    async fn status_shows_every_volume_and_no_secret() {
        let mut node = Node::new();
        let absent = Command::new(CERTLET).args(["status", "--data-root"]).arg(node.data_root()).output().unwrap();
        let said = String::from_utf8(absent.stderr).unwrap();
        assert_eq!(absent.status.code(), Some(1), "{said}");
        assert!(said.contains("there is no store in ") && said.lines().count() == 1, "{said}");
        let kubelet: Kubelet = node.started().await;
        assert_eq!(node.status(&[]), "no volumes on this node\n");
        kubelet.publish(&pod_with("web-0", &[("pkcs12-enable", "true"), ("pkcs12-password", "hunter2")])).await.unwrap();
        kubelet.publish(&pod("web-1")).await.unwrap();
        let table = node.status(&[]);
        let (volumes, roots) = table.split_once("\n\n").unwrap();
        assert_eq!(volumes.lines().count(), 3, "{table}");
        assert!(roots.starts_with("ROOT ") && roots.contains("not before"), "{table}");
        for expected in ["NAMESPACE", "shop", "web-0", "web-1", "local", "DNS:web-0.shop.svc.cluster.local"] {
            assert!(table.contains(expected), "{expected} is not in\n{table}");
        }
        let json = node.status(&["--json"]);
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 2);
        assert_eq!(rows[0]["pod"], "web-0");
        assert!(rows[0]["expires_at"].is_string() && rows[0]["renews_at"].is_string(), "{json}");
        assert!(!table.contains("hunter2") && !json.contains("hunter2"));
    }
}

node_test! {
    async fn a_renewal_that_is_asked_for_comes_at_once_and_of_that_pod_alone() {
        let mut node = Node::new();
        let (code, said) = node.renew(&["shop/web-0"]);
        assert!(code == Some(1) && said.contains("there is no store in "), "{said}");
        let kubelet = node.started().await;
        assert_eq!(node.renew(&["--all"]), (Some(0), "no certificate to renew\n".to_owned()));
        let first = kubelet.publish(&pod("web-0")).await.unwrap();
        let second = kubelet.publish(&pod("web-1")).await.unwrap();
        let before = [serial(&first), serial(&second)];
        let (code, said) = node.renew(&["shop/web-0"]);
        assert_eq!((code, said.lines().count()), (Some(0), 1), "{said}");
        assert!(said.starts_with("shop/web-0: renewed, expires 2"), "{said}");
        assert_ne!(serial(&first), before[0]);
        assert_eq!(serial(&second), before[1]);
        support::assert_whole(&first);

        let rows: serde_json::Value = serde_json::from_str(&node.status(&["--json"])).unwrap();
        let id = rows[1]["volume"].as_str().unwrap();
        let (code, said) = node.renew(&[id, "shop/nobody"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("shop/nobody: not renewed: shop/nobody has no certificate of this driver"), "{said}");
        assert!(said.contains("shop/web-1: renewed"), "{said}");
        assert_ne!(serial(&second), before[1]);
        assert_eq!(node.renew(&["--all", "--timeout=0"]), (Some(0), "renewals started: 2\n".to_owned()));
    }
}

#[test]
fn a_renewal_needs_a_target_and_one_that_can_be_a_pod() {
    for args in [&[][..], &["web 0"], &["--all", "shop/web-0"], &["shop/web-0/tls"]] {
        let output = Command::new(CERTLET).arg("renew").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
}

node_test! {
    async fn a_renewal_that_the_signer_refuses_is_told_and_the_old_certificate_stays() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        let before = serial(&volume);
        node.stop();
        // Without its signer, the driver has the volume all the same.
        node.replace_flag("--allow-local-signer", "--log-level=info");
        node.started().await;
        let (code, said) = node.renew(&["shop/web-0"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("shop/web-0: not renewed, the old certificate stays: "), "{said}");
        assert_eq!(serial(&volume), before);
        let rows: serde_json::Value = serde_json::from_str(&node.status(&["--json"])).unwrap();
        assert!(rows[0]["last_error"].is_string() && rows[0]["retries_at"].is_string(), "{rows}");
    }
}

node_test! {
    async fn the_report_for_kubectl_has_version_driver_and_volumes() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        kubelet.publish(&pod("web-0")).await.unwrap();
        let report: serde_json::Value = serde_json::from_str(&node.status(&["--report"])).unwrap();
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(report["driver"], support::DRIVER);
        assert!(report["notice"].is_null(), "{report}");
        let volume = &report["volumes"][0];
        assert_eq!((&volume["namespace"], &volume["pod"]), (&"shop".into(), &"web-0".into()));
        assert!(volume["pod_volume"].is_string() && volume["ends_at"].is_string(), "{volume}");
        node.stop();
        let report: serde_json::Value = serde_json::from_str(&node.status(&["--report"])).unwrap();
        assert!(report["notice"].as_str().unwrap().contains("does not listen"), "{report}");
    }
}
