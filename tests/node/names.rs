//! Names that come from the cluster: Services, the node, the pod's address.

use crate::node_test;
use crate::support::{Node, assert_whole, eventually, openssl, pod_of};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tonic::Code;

/// The alternative names of a volume's certificate, as openssl writes them.
fn names(volume: &Path) -> String {
    let leaf = volume.join("tls.crt");
    let output = openssl(&["x509", "-in", leaf.to_str().unwrap(), "-noout", "-ext", "subjectAltName"]);
    String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::trim).collect()
}

/// An API server with one pod, which a test can change. Everything else is missing.
async fn pod_server() -> (Arc<Mutex<Value>>, std::net::SocketAddr) {
    let pod = Arc::new(Mutex::new(json!({ "metadata": { "uid": "" }, "status": {} })));
    let answer = async |State(pod): State<Arc<Mutex<Value>>>, request: Request| {
        if request.uri().path() == "/api/v1/namespaces/shop/pods/web-0" {
            (StatusCode::OK, pod.lock().unwrap().to_string())
        } else {
            (StatusCode::NOT_FOUND, json!({ "kind": "Status", "code": 404 }).to_string())
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer).with_state(Arc::clone(&pod));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (pod, address)
}

node_test! {
    async fn services_and_the_node_give_names() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--cluster-domain=k8s.example"]);
        let kubelet = node.started().await;
        let pod = pod_of(&[("signer", "local")], "web-0", &[("services", "web"), ("dns-names", "${NODE_NAME}")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        assert_whole(&volume);
        assert_eq!(
            names(&volume),
            "DNS:node-1, DNS:web, DNS:web.shop, DNS:web.shop.svc, DNS:web.shop.svc.k8s.example"
        );
    }
}

node_test! {
    async fn the_pods_address_is_in_the_certificate_once_the_pod_has_it() {
        let (api, address) = pod_server().await;
        let mut node = Node::with_flags(&[
            "--allow-local-signer",
            "--pod-readiness-gate=pod-ip:any",
            "--continue-on-not-ready",
            "--gate-backoff-duration=20ms",
            "--gate-backoff-cap=50ms",
        ]);
        node.api_server(address);
        let kubelet = node.started().await;
        let pod = pod_of(&[("signer", "local")], "web-0", &[("ip-sans", "127.0.0.1,${POD_IP}")]);
        api.lock().unwrap()["metadata"]["uid"] = json!("another");
        let refused = kubelet.publish(&pod).await.unwrap_err();
        assert!(refused.message().contains("the pod shop/web-0 is another one now"), "{refused:?}");

        api.lock().unwrap()["metadata"]["uid"] = json!(pod.uid);
        let volume = kubelet.publish(&pod).await.unwrap();
        assert!(!volume.join("tls.crt").exists(), "a pod without an address has a volume without files");
        api.lock().unwrap()["status"] = json!({ "podIPs": [{ "ip": "10.1.2.3" }, { "ip": "fd00::7" }] });
        eventually("the files are there", async || volume.join("tls.crt").exists()).await;
        assert_whole(&volume);
        assert_eq!(names(&volume), "IP Address:127.0.0.1, IP Address:10.1.2.3");
    }
}

node_test! {
    async fn a_renewal_asks_for_the_address_that_the_pod_has_then_and_an_old_gate_is_not_needed() {
        let (api, address) = pod_server().await;
        let mut node = Node::with_flags(&[
            "--allow-local-signer",
            "--min-renewal-interval=0",
            "--pod-readiness-gate=pod-ip:any",
            "--continue-on-not-ready",
        ]);
        node.api_server(address);
        let kubelet = node.started().await;
        let attributes = [("ip-sans", "${POD_IP}"), ("duration", "10m"), ("renew-before", "9m58s")];
        let pod = pod_of(&[("signer", "local")], "web-0", &attributes);
        *api.lock().unwrap() = json!({ "metadata": { "uid": pod.uid }, "status": { "podIPs": [{ "ip": "10.1.2.3" }] } });
        let volume = kubelet.publish(&pod).await.unwrap();
        assert_eq!(names(&volume), "IP Address:10.1.2.3");
        node.stop();
        api.lock().unwrap()["status"]["podIPs"][0]["ip"] = json!("10.9.9.9");
        node.replace_flag("--pod-readiness-gate=pod-ip:any", "--log-level=debug");
        node.started().await;
        eventually("it is renewed", async || names(&volume) == "IP Address:10.9.9.9").await;
    }
}

node_test! {
    async fn the_pods_address_is_refused_by_a_driver_that_does_not_wait_for_it() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_of(&[("signer", "local")], "web-0", &[("ip-sans", "${POD_IP}")]);
        let refused = kubelet.publish(&pod).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("it needs --pod-readiness-gate=pod-ip:any"), "{refused:?}");
    }
}
