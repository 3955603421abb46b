//! Two Envoys that talk mutual TLS, with secrets from the sockets or the files of their volumes.

use crate::documented::{self, Documented, assert_renewed_without_failure};
use crate::federated::{FEDERATED, Mesh, is_of_next_root};
use crate::node_test;
use crate::page::Page;
use crate::program::{Running, built, command, directory, output};
use crate::revoking::{self, Revoking};
use crate::rotating::{RotatingNode, SOCKET, spiffe_pod};
use crate::support::{eventually, get_from};
use certlet_kubelet::Pod;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use x509_parser::pem::Pem;

const CLIENT: &str = revoking::CLIENT;
const SERVER: &str = "spiffe://example.org/ns/shop/sa/orders";
/// A file in each volume, from which the test knows what the certificate is.
const COMBINED: &str = "combined.pem";
/// Requests at a time.
const CALLERS: usize = 2;
/// The pause of a caller after each request. Every request is a TLS handshake.
const PAUSE: Duration = Duration::from_millis(10);

/// Where an Envoy has its secrets from.
#[derive(Clone, Copy)]
enum Secrets {
    /// SDS over the socket, by this variant of the protocol.
    Socket(&'static str),
    /// The files of `layout: envoy`.
    Files,
}

impl Secrets {
    fn pod(self, name: &str, id: &str) -> Pod {
        self.pod_with(name, id, &[])
    }

    fn pod_with(self, name: &str, id: &str, attributes: &[(&str, &str)]) -> Pod {
        let kind = match self {
            Self::Socket(_) => ("socket-file", SOCKET),
            Self::Files => ("layout", "envoy"),
        };
        spiffe_pod(name, id, &[&[kind, ("combined-file", COMBINED)], attributes].concat())
    }

    fn source(self, volume: &Path, secret: &str) -> Value {
        let source = match self {
            Self::Socket(api_type) => json!({ "api_config_source": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "certlet" } }],
            }, "resource_api_version": "V3" }),
            Self::Files => json!({ "path_config_source": {
                "path": volume.join(format!("{secret}.yaml")),
                "watched_directory": { "path": volume },
            }, "resource_api_version": "V3" }),
        };
        json!({ "name": secret, "sds_config": source })
    }

    /// The TLS context of an Envoy that accepts one peer, by the trust bundle in a secret.
    fn tls(self, volume: &Path, peer: &str, trust: &str) -> Value {
        json!({
            "tls_certificate_sds_secret_configs": [self.source(volume, "default")],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
                },
                "validation_context_sds_secret_config": self.source(volume, trust),
            },
        })
    }
}

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

fn transport(context: &str, mut fields: Value, tls: Value) -> Value {
    fields["@type"] = format!("{TLS}.{context}").into();
    fields["common_tls_context"] = tls;
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": fields })
}

/// A listener on loopback with one route.
fn listener(mut route: Value) -> Value {
    let filter = "type.googleapis.com/envoy.extensions.filters";
    route["match"] = json!({ "prefix": "/" });
    json!({
        "name": "listener",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": format!("{filter}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "http",
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": format!("{filter}.http.router.v3.Router") },
                }],
            },
        }] }],
    })
}

/// The peer that an Envoy accepts, and the secret with the trust bundle.
type Accepted<'a> = (&'a str, &'a str);

/// Answers a client that has a certificate with its SPIFFE ID.
fn server(secrets: Secrets, volume: &Path, (peer, trust): Accepted<'_>) -> Value {
    let answer = json!({ "direct_response": { "status": 200, "body": { "inline_string": "hello" } } });
    let mut listener = listener(answer);
    let fields = json!({ "require_client_certificate": true });
    listener["filter_chains"][0]["transport_socket"] =
        transport("DownstreamTlsContext", fields, secrets.tls(volume, peer, trust));
    json!({ "listeners": [listener], "clusters": [certlet(volume)] })
}

/// Passes requests on to the server, each on a connection of its own.
fn client(secrets: Secrets, volume: &Path, server_port: u64, (peer, trust): Accepted<'_>) -> Value {
    let to_server = json!({
        "name": "server",
        "type": "STATIC",
        "load_assignment": endpoint("server", &json!({
            "socket_address": { "address": "127.0.0.1", "port_value": server_port },
        })),
        "transport_socket": transport("UpstreamTlsContext", json!({ "max_session_keys": 0 }), secrets.tls(volume, peer, trust)),
        "typed_extension_protocol_options": http("http_protocol_options", &json!({ "max_requests_per_connection": 1 })),
    });
    let listener = listener(json!({ "route": { "cluster": "server" } }));
    json!({ "listeners": [listener], "clusters": [to_server, certlet(volume)] })
}

/// The volume's socket.
fn certlet(volume: &Path) -> Value {
    json!({
        "name": "certlet",
        "type": "STATIC",
        "load_assignment": endpoint("certlet", &json!({ "pipe": { "path": volume.join(SOCKET) } })),
        "typed_extension_protocol_options": http("http2_protocol_options", &json!({})),
    })
}

fn endpoint(cluster: &str, address: &Value) -> Value {
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] })
}

fn http(version: &str, common: &Value) -> Value {
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({ name: {
        "@type": format!("type.googleapis.com/{name}"),
        "explicit_http_config": { version: {} },
        "common_http_protocol_options": common,
    } })
}

/// An Envoy that runs.
struct Envoy {
    volume: PathBuf,
    admin: String,
    port: u64,
    _running: Running,
}

impl Envoy {
    async fn start(program: &Path, work: &Path, volume: &Path, resources: Value) -> Self {
        let config = json!({
            // Without these two, Envoy takes no secrets from anywhere.
            "node": { "id": "test", "cluster": "test" },
            "static_resources": resources,
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        });
        Self::start_with(program, work, volume, &config.to_string()).await
    }

    /// Starts it with this configuration (YAML, and so JSON too).
    async fn start_with(program: &Path, work: &Path, volume: &Path, config: &str) -> Self {
        directory(work);
        let (config_file, admin_file) = (work.join("envoy.yaml"), work.join("admin"));
        fs::write(&config_file, config).unwrap();
        let mut command = command(program);
        command.arg("--config-path").arg(config_file).arg("--admin-address-path").arg(&admin_file);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        let running = Running::start(&mut command);
        let mut envoy = Self { volume: volume.to_owned(), admin: String::new(), port: 0, _running: running };
        eventually("Envoy listens", async || {
            envoy.admin = fs::read_to_string(&admin_file).unwrap_or_default();
            let status = envoy.admin("/listeners?format=json").await;
            let port =
                status["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64();
            envoy.port = port.unwrap_or_default();
            envoy.port != 0
        })
        .await;
        envoy
    }

    /// The admin server's answer, or null.
    async fn admin(&self, path: &str) -> Value {
        let answer = get_from(&self.admin, path).await;
        answer.and_then(|(_, body)| serde_json::from_str(&unchunked(&body)).ok()).unwrap_or_default()
    }

    /// The serial numbers of the certificate and the trust anchor that it uses.
    async fn in_use(&self) -> [String; 2] {
        let certificates = self.admin("/certs").await["certificates"].take();
        let serial = |field: &str| {
            let found =
                certificates.as_array()?.iter().find_map(|entry| entry[field][0]["serial_number"].as_str());
            found.map(|serial| serial.trim_start_matches('0').to_owned())
        };
        ["cert_chain", "ca_cert"].map(|field| serial(field).unwrap_or_default())
    }

    /// Waits until it uses another certificate, the one in the volume, and this trust anchor.
    async fn renewed(&self, root: &str) {
        let [before, _] = self.in_use().await;
        eventually("the renewed certificate in Envoy", async || {
            let [leaf, anchor] = self.in_use().await;
            leaf != before && anchor == root && Some(leaf) == serial_in(&self.volume.join(COMBINED))
        })
        .await;
    }

    /// How many certificates of clients it has refused.
    async fn refusals(&self) -> u64 {
        let stats = self.admin("/stats?format=json&filter=ssl.fail_verify_error").await;
        let values = stats["stats"].as_array().into_iter().flatten();
        values.filter_map(|value| value["value"].as_u64()).sum()
    }

    /// Whether it answers a request as it should.
    async fn answers(&self) -> bool {
        answers(self.port).await
    }
}

/// A body in HTTP's chunked encoding, decoded.
fn unchunked(mut body: &str) -> String {
    let mut decoded = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let chunk = usize::from_str_radix(size, 16).ok().and_then(|size| rest.split_at_checked(size));
        let Some((chunk, rest)) = chunk else { break };
        decoded.push_str(chunk);
        body = rest.trim_start_matches("\r\n");
    }
    decoded
}

/// Whether an Envoy answers a request as it should.
async fn answers(port: u64) -> bool {
    get_from(&format!("127.0.0.1:{port}"), "/")
        .await
        .is_some_and(|(status, body)| status == 200 && body == "hello")
}

/// Callers that call an Envoy without end.
struct Load {
    callers: Vec<JoinHandle<()>>,
    succeeded: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl Load {
    fn start(envoy: &Envoy) -> Self {
        let (succeeded, failed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let call = |port| {
            let (succeeded, failed) = (Arc::clone(&succeeded), Arc::clone(&failed));
            async move {
                loop {
                    let counter = if answers(port).await { &succeeded } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let callers = (0..CALLERS).map(|_| tokio::spawn(call(envoy.port))).collect();
        Self { callers, succeeded, failed }
    }

    /// Ends it, and returns how many requests succeeded. None may have failed.
    fn end(self) -> usize {
        self.callers.iter().for_each(JoinHandle::abort);
        let [succeeded, failed] =
            [self.succeeded, self.failed].map(|counter| counter.load(Ordering::Relaxed));
        assert_eq!(failed, 0, "{failed} requests failed, {succeeded} succeeded");
        succeeded
    }
}

/// The serial number of the first certificate in a file. None while the file is replaced.
fn serial_in(file: &Path) -> Option<String> {
    let content = fs::read(file).ok()?;
    let mut blocks = Pem::iter_from_buffer(&content).map_while(Result::ok);
    let certificate = blocks.find(|block| block.label == "CERTIFICATE")?;
    Some(format!("{:x}", certificate.parse_x509().ok()?.serial))
}

/// Checks that no request fails while both Envoys rotate, and when the driver is killed; and that both get a new root.
async fn assert_rotates(secrets: Secrets, rotations: usize) {
    let mut cluster = RotatingNode::start().await;
    let (root, program) = (cluster.node.root.clone(), built("envoy", &cluster.node.root).join("envoy"));
    let client_volume = cluster.publish(&secrets.pod("cart-0", CLIENT)).await;
    let server_volume = cluster.publish(&secrets.pod("orders-0", SERVER)).await;
    let resources = server(secrets, &server_volume, (CLIENT, "ROOTCA"));
    let server = Envoy::start(&program, &root.join("server"), &server_volume, resources).await;
    let resources = client(secrets, &client_volume, server.port, (SERVER, "ROOTCA"));
    let client = Envoy::start(&program, &root.join("client"), &client_volume, resources).await;
    eventually("an answer", async || client.answers().await).await;
    let anchor = serial_in(&cluster.root()).unwrap();
    let load = Load::start(&client);
    for _ in 0..rotations {
        client.renewed(&anchor).await;
        server.renewed(&anchor).await;
    }
    cluster.kill(|| {}).await;
    client.renewed(&anchor).await;
    server.renewed(&anchor).await;
    let requests = load.end();
    assert!(requests > rotations, "{requests} requests");
    println!("{requests} requests");

    // The two get the new root at different times. In between they refuse each other.
    cluster.replace_root().await;
    let anchor = serial_in(&cluster.root()).unwrap();
    for envoy in [&client, &server] {
        eventually("certificate and anchor of the new root", async || {
            let [leaf, in_use] = envoy.in_use().await;
            in_use == anchor && Some(leaf) == serial_in(&envoy.volume.join(COMBINED))
        })
        .await;
    }
    eventually("an answer with the new root", async || client.answers().await).await;
}

/// Checks that an Envoy refuses a client that is revoked.
async fn assert_refuses(secrets: Secrets, attributes: &[(&str, &str)]) {
    let revoking = Revoking::start().await;
    let (root, program) = (revoking.node.root.clone(), built("envoy", &revoking.node.root).join("envoy"));
    let volume = revoking.server("orders-0", attributes).await;
    let (revoked, other) = (revoking.client("cart-0").await, revoking.client("cart-1").await);
    let resources = server(secrets, &volume, (CLIENT, "ROOTCA"));
    let envoy = Envoy::start(&program, &root.join("server"), &volume, resources).await;
    revoking.assert_refused(&revoked, &other, |client| revoking::is_answered(envoy.port, client)).await;
}

/// Checks that the Envoy of the page serves renewed certificates, with the attributes of this block. `others` is what differs in its
/// configuration, and `more` comes after it.
async fn assert_renews(attributes: &str, others: &[(&str, &str)], more: &str) {
    let documented = Documented::start("envoy", &[]).await;
    let program = built("envoy", &documented.node.root).join("envoy");
    println!("{}", output(command(&program).arg("--version")).trim());
    let volume = documented.volume("web", attributes).await;
    let client = documented.client(&[("uri-sans", CLIENT)]).await;
    let addresses = [("0.0.0.0", "127.0.0.1"), ("8443", "0"), ("9901", "0")];
    let config = documented.page.block("envoy.yaml", &[others, &addresses].concat()) + more;
    let config = config.replace("/tls/", &format!("{}/", volume.display()));
    let config = config.replace("path: /tls ", &format!("path: {} ", volume.display()));
    let envoy = Envoy::start_with(&program, &documented.node.root.join("envoy-0"), &volume, &config).await;
    assert_renewed_without_failure(|| {
        let served = || documented::served(&envoy.port.to_string(), "web.shop.svc", &client, &[]);
        revoking::is_answered(envoy.port, &client).then(served)?
    })
    .await;
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn an_envoy_serves_renewed_certificates_from_the_files_of_its_page() {
        assert_renews("pod.yaml", &[], "").await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn an_envoy_serves_renewed_certificates_from_the_socket_of_its_page() {
        let page = Page::of("envoy");
        let config = page.block("envoy.yaml", &[]);
        let sources: Vec<_> = config.lines().map(str::trim).filter(|line| line.starts_with("sds_config:")).collect();
        let sds = page.block("sds.yaml", &[]);
        let others: Vec<_> = sources.iter().map(|source| (*source, sds.trim())).collect();
        assert_renews("socket.yaml", &others, &page.block("clusters.yaml", &[])).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn an_envoy_with_a_socket_refuses_a_revoked_client_within_one_refresh() {
        assert_refuses(Secrets::Socket("GRPC"), &[("socket-file", SOCKET)]).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn an_envoy_with_files_refuses_a_revoked_client_within_one_refresh() {
        assert_refuses(Secrets::Files, &[("layout", "envoy")]).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn two_envoys_rotate_by_state_of_the_world() {
        assert_rotates(Secrets::Socket("GRPC"), 10).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn two_envoys_rotate_by_deltas() {
        assert_rotates(Secrets::Socket("DELTA_GRPC"), 10).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn two_envoys_rotate_by_files() {
        assert_rotates(Secrets::Files, 3).await;
    }
}

/// Checks that Envoys of two trust domains that federate talk both ways, through a new root of one of them, and that a third trust
/// domain, which trusts them, is refused.
async fn assert_federates(secrets: Secrets) {
    const ALL: &str = "ALL";
    let mut mesh = Mesh::start().await;
    let scratch = mesh.ours.node.root.clone();
    let program = built("envoy", &scratch).join("envoy");
    let pod = |name: &str, id: &str| secrets.pod_with(name, id, &[FEDERATED]);
    let [ours, partner, third] =
        ["example.org", "partner.org", "third.org"].map(|domain| format!("spiffe://{domain}/ns/shop/sa/web"));
    let our_volume = mesh.ours.publish(&pod("web-0", &ours)).await;
    let partner_volume = mesh.partner.publish(&pod("web-1", &partner)).await;
    let third_volume = mesh.third.publish(&pod("web-2", &third)).await;
    let start = async |name: &str, volume: &Path, resources: Value| {
        Envoy::start(&program, &scratch.join(name), volume, resources).await
    };
    let resources = server(secrets, &our_volume, (&partner, ALL));
    let our_server = start("our-server", &our_volume, resources).await;
    let resources = server(secrets, &partner_volume, (&ours, ALL));
    let partner_server = start("partner-server", &partner_volume, resources).await;
    let resources = client(secrets, &our_volume, partner_server.port, (&partner, ALL));
    let our_client = start("our-client", &our_volume, resources).await;
    let resources = client(secrets, &partner_volume, our_server.port, (&ours, ALL));
    let partner_client = start("partner-client", &partner_volume, resources).await;
    for client in [&our_client, &partner_client] {
        eventually("an answer from the other trust domain", async || client.answers().await).await;
    }
    mesh.replace_root_of_partner().await;
    for client in [&our_client, &partner_client] {
        eventually("an answer with the new root", async || {
            is_of_next_root(&partner_volume.join(COMBINED)) && client.answers().await
        })
        .await;
    }
    // The third one trusts the server, and has an ID that the server would accept. Only its root is missing there.
    let resources = server(secrets, &our_volume, (&third, ALL));
    let for_third = start("for-third", &our_volume, resources).await;
    let resources = client(secrets, &third_volume, for_third.port, (&ours, ALL));
    let third_client = start("third-client", &third_volume, resources).await;
    eventually("a handshake that the server refuses", async || {
        let _refused = third_client.answers().await;
        for_third.refusals().await > 0
    })
    .await;
    assert!(!third_client.answers().await);
    assert!(our_client.answers().await && partner_client.answers().await);
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn envoys_of_two_trust_domains_talk_by_their_sockets_and_a_third_one_is_refused() {
        assert_federates(Secrets::Socket("DELTA_GRPC")).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn envoys_of_two_trust_domains_talk_by_their_files_and_a_third_one_is_refused() {
        assert_federates(Secrets::Files).await;
    }
}
