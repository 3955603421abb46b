//! The watch, the look-ups and the decision that is written.

use super::super::evaluate::{AllowedDuration, Requester, Rules};
use super::super::{
    Approver, ApproverMetrics, ApproverOptions, IssuerRef, OtherRequests, RuntimeConfigMap, State,
};
use super::server::Server;
use super::{DRIVER, dns, signing_request, spec, uri};
use axum::http::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ANNOTATION: &str = "spiffe.csi.cert-manager.io/identity";

fn path(name: &str) -> String {
    format!("/apis/cert-manager.io/v1/namespaces/shop/certificaterequests/{name}")
}

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/shop/pods/{name}")
}

/// An approver, and the API server that it uses.
struct Running {
    server: Server,
    metrics: Arc<ApproverMetrics>,
    state: tokio::sync::watch::Receiver<State>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(requester: Requester, others: Option<OtherRequests>) -> Self {
        Self::on(Server::start().await, requester, others)
    }

    fn on(server: Server, requester: Requester, others: Option<OtherRequests>) -> Self {
        let options = ApproverOptions {
            rules: Rules {
                trust_domain: "cluster.local".into(),
                duration: AllowedDuration::Exactly(Duration::from_hours(1)),
                requester,
                service_names_under: Some("cluster.local".into()),
            },
            others,
            lease_namespace: "cert-manager".into(),
            lease_name: "spiffe.csi.cert-manager.io".into(),
        };
        let metrics = Arc::<ApproverMetrics>::default();
        let approver = Approver::new(server.cluster(), options, Arc::clone(&metrics));
        let (state, shutdown) = (approver.state(), CancellationToken::new());
        let task = tokio::spawn(approver.run(shutdown.clone()));
        Self { server, metrics, state, shutdown, task }
    }

    fn create(&self, name: &str, annotated: bool, spec: &Value) {
        let annotations =
            if annotated { json!({ ANNOTATION: "x", "other": "y" }) } else { json!({ "other": "y" }) };
        let object = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
            "metadata": { "namespace": "shop", "name": name, "annotations": annotations, "managedFields": [{ "manager": "x" }] },
            "spec": spec,
        });
        self.server.put(&path(name), object);
    }

    fn conditions(&self, name: &str) -> Vec<(String, String)> {
        let conditions = self.server.object(&path(name))["status"]["conditions"].clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        conditions.iter().map(|one| (text(&one["type"]), text(&one["message"]))).collect()
    }

    /// The decision on a request, once there is one.
    async fn decision(&self, name: &str) -> (String, String) {
        let decided = |kind: &str| ["Approved", "Denied"].contains(&kind);
        self.server.until(name, |_| self.conditions(name).iter().any(|(kind, _)| decided(kind))).await;
        let mut conditions = self.conditions(name).into_iter().filter(|(kind, _)| decided(kind));
        let decision = conditions.next().unwrap();
        assert_eq!(conditions.next(), None);
        decision
    }

    /// Makes such requests until one is denied: the watch of the ConfigMap needs a moment.
    async fn becomes_denied(&self, spec: &Value, name: &str) {
        for attempt in 0..1000 {
            let name = format!("{name}-{attempt}");
            self.create(&name, false, spec);
            if self.decision(&name).await.0 == "Denied" {
                return;
            }
        }
        panic!("{name} is always approved");
    }

    fn has_metric(&self, line: &str) -> bool {
        self.metrics.encode().unwrap().lines().any(|found| found == line)
    }
}

#[tokio::test]
async fn an_annotated_request_is_approved_or_denied_and_others_are_left_alone() {
    let mut approver = Running::start(Requester::Pod, None).await;
    let request = signing_request(|_| {});
    approver.create("good", true, &spec(&request));
    let mut wrong = spec(&request);
    wrong["isCA"] = true.into();
    approver.create("wrong", true, &wrong);
    approver.create("other", false, &spec(&request));

    let (kind, message) = approver.decision("good").await;
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("Approved", "the SPIFFE ID of system:serviceaccount:shop:web")
    );
    let (kind, message) = approver.decision("wrong").await;
    assert_eq!((kind.as_str(), message.as_str()), ("Denied", "spec.isCA: is true; accepted: false"));
    let decided = approver.server.object(&path("good"));
    let condition = &decided["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("approver.certlet.io")));
    assert!(
        condition["lastTransitionTime"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
        "{condition}"
    );
    assert_eq!(decided["spec"], spec(&request));
    assert_eq!(approver.conditions("other"), []);
    assert_eq!(approver.server.calls(&format!("GET {}", path("other"))), 0);

    // While it runs, as at its start.
    approver.create("later", true, &spec(&request));
    assert_eq!(approver.decision("later").await.0, "Approved");
    approver.state.wait_for(|state| *state == State::Deciding).await.unwrap();
    assert!(approver.state.borrow().ready().is_ok());
    approver.server.until("metrics", |_| approver.has_metric("certlet_request_approvals_total 2")).await;
    assert!(approver.has_metric("certlet_request_denials_total{reason=\"is-ca\"} 1"));
    assert!(approver.has_metric("certlet_leader 1"));
}

#[tokio::test]
async fn what_others_have_written_into_the_status_stays() {
    let approver = Running::start(Requester::Pod, None).await;
    let request = spec(&signing_request(|_| {}));
    approver.server.put(
        &path("seen"),
        json!({
            "metadata": { "namespace": "shop", "name": "seen", "annotations": { ANNOTATION: "" } },
            "spec": request,
            "status": { "failureTime": "x", "conditions": [
                { "type": "Ready", "status": "False", "message": "waits" },
                { "type": "Denied", "status": "False", "message": "not yet" },
            ] },
        }),
    );
    let is_approved = |(kind, _): &(String, String)| kind == "Approved";
    approver.server.until("the approval", |_| approver.conditions("seen").iter().any(is_approved)).await;
    let status = approver.server.object(&path("seen"))["status"].clone();
    assert_eq!(status["failureTime"], "x");
    assert_eq!(status["conditions"][0]["message"], "waits");
}

#[tokio::test]
async fn the_driver_gets_the_identities_of_pods_on_its_own_node_only() {
    let approver = Running::start(Requester::Driver(DRIVER.parse().unwrap()), None).await;
    let mut request = spec(&signing_request(|_| {}));
    request["username"] = DRIVER.into();
    let pod = |node: &str, account: &str, phase: &str| {
        json!({
            "metadata": { "namespace": "shop", "name": "p" },
            "spec": { "nodeName": node, "serviceAccountName": account }, "status": { "phase": phase },
        })
    };
    approver.server.put(&pod_path("elsewhere"), pod("node-2", "web", "Running"));
    approver.server.put(&pod_path("another"), pod("node-1", "api", "Running"));
    approver.server.put(&pod_path("ended"), pod("node-1", "web", "Succeeded"));
    approver.create("stolen", true, &request);
    let (kind, message) = approver.decision("stolen").await;
    assert_eq!(kind, "Denied");
    assert!(
        message.contains("\"node-1\" of the requester's token has no pod of the service account shop/web"),
        "{message}"
    );

    approver.server.put(&pod_path("web"), pod("node-1", "web", "Pending"));
    approver.create("good", true, &request);
    assert_eq!(approver.decision("good").await.0, "Approved");
}

#[tokio::test]
async fn the_name_of_a_service_needs_the_service() {
    let approver = Running::start(Requester::Pod, None).await;
    let request = spec(&signing_request(|parts| parts.names.push(dns("web.shop.svc"))));
    approver.create("early", true, &request);
    let (kind, message) = approver.decision("early").await;
    assert_eq!(kind, "Denied");
    assert!(message.contains("Service shop/web, which does not exist"), "{message}");
    approver.server.put("/api/v1/namespaces/shop/services/web", json!({ "metadata": { "name": "web" } }));
    approver.create("good", true, &request);
    assert_eq!(approver.decision("good").await.0, "Approved");
}

#[tokio::test]
async fn a_decision_that_the_api_prevents_is_tried_again_and_denies_nobody() {
    let approver = Running::start(Requester::Driver(DRIVER.parse().unwrap()), None).await;
    for (method, part) in [(Method::GET, "/pods"), (Method::PUT, "/certificaterequests/")] {
        approver.server.refuse(method, part, 403);
    }
    let mut request = spec(&signing_request(|_| {}));
    request["username"] = DRIVER.into();
    approver.server.put(
        &pod_path("web"),
        json!({ "metadata": {}, "spec": { "nodeName": "node-1", "serviceAccountName": "web" } }),
    );
    approver.create("held-up", true, &request);
    approver.server.until("a retry", |server| server.calls("/pods?") >= 2).await;
    assert_eq!(approver.conditions("held-up"), []);
    approver.server.refuse_nothing();
    assert_eq!(approver.decision("held-up").await.0, "Approved");
    assert!(!approver.has_metric("certlet_request_decision_retries_total 0"));
}

#[tokio::test]
async fn with_auto_approval_the_spiffe_issuer_and_spiffe_ids_are_kept_from_other_requests() {
    let server = Server::start().await;
    let config_map = "/api/v1/namespaces/certlet/configmaps/issuer";
    let data = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "certlet", "name": "issuer" },
            "data": { "issuer-name": name, "issuer-kind": "ClusterIssuer", "issuer-group": "cert-manager.io" },
        })
    };
    server.put(config_map, data("runtime-ca"));
    let others = OtherRequests {
        spiffe_issuer: IssuerRef {
            name: "my-spiffe-ca".into(),
            kind: "ClusterIssuer".into(),
            group: "cert-manager.io".into(),
        },
        runtime_config_map: Some(RuntimeConfigMap { namespace: "certlet".into(), name: "issuer".into() }),
    };
    let approver = Running::on(server, Requester::Pod, Some(others));
    let plain = |issuer: &str| {
        let mut spec = spec(&signing_request(|parts| parts.names = vec![dns("example.org")]));
        spec["issuerRef"]["name"] = issuer.into();
        spec
    };
    // The first decision uses the ConfigMap already.
    approver.create("runtime", false, &plain("runtime-ca"));
    assert_eq!(approver.decision("runtime").await.0, "Denied");
    approver.create("static", false, &plain("my-spiffe-ca"));
    assert_eq!(approver.decision("static").await.0, "Approved");
    let id = spec(&signing_request(|parts| parts.names = vec![uri("spiffe://cluster.local/x")]));
    approver.create("id", false, &id);
    assert_eq!(approver.decision("id").await.0, "Denied");

    approver.server.put(config_map, data("second-ca"));
    approver.becomes_denied(&plain("second-ca"), "second").await;
    approver.server.delete(config_map);
    approver.becomes_denied(&plain("my-spiffe-ca"), "back").await;
}

#[tokio::test]
async fn an_approver_that_ends_releases_its_lease() {
    let approver = Running::start(Requester::Pod, None).await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/cert-manager/leases/spiffe.csi.cert-manager.io";
    approver
        .server
        .until("a leader", |server| server.object(lease)["spec"]["holderIdentity"].is_string())
        .await;
    approver.shutdown.cancel();
    approver.task.await.unwrap();
    assert_eq!(approver.server.object(lease)["spec"]["holderIdentity"], "");
}
