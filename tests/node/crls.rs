//! CRLs: from a web server that can be down, slow or hostile, to the file in a volume.

use crate::crl::{Answer, Ca, List, Server};
use crate::node_test;
use crate::support::{Node, eventually, get_from, openssl, pod, pod_with, serial};
use certlet_kubelet::Pod;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tonic::Code;

/// A CA, its web server, and a driver that signs with it and asks the server every half second.
struct Setup {
    ca: Ca,
    server: Server,
    node: Node,
    _files: TempDir,
}

impl Setup {
    /// With these flags and one for the server's URL `/crl`.
    fn new(flags: &[&str]) -> Self {
        let (ca, server) = (Ca::root("root"), Server::start());
        let url = format!("--crl={}", server.url("/crl"));
        Self::with(ca, &[], server, &[flags, &[&url]].concat())
    }

    fn with(ca: Ca, above: &[&Ca], server: Server, flags: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut node = Node::with_flags(&["--allow-local-signer", "--crl-refresh-interval=500ms"]);
        for flag in ca.flags(files.path(), above).iter().map(String::as_str).chain(flags.iter().copied()) {
            node.flag(flag);
        }
        Self { ca, server, node, _files: files }
    }

    /// Lets the server have this list, and returns its text in a volume.
    fn serve(&self, list: &List) -> String {
        let der = self.ca.list(list);
        self.server.serve("/crl", der.clone());
        pem(&der)
    }

    async fn says(&self, text: &str) {
        eventually(text, async || self.node.status(&[]).contains(text)).await;
    }
}

/// Waits until the driver's metrics have these lines.
async fn measures(lines: &[&str]) {
    eventually("the metrics", async || {
        let page = get_from("127.0.0.1:19406", "/metrics").await.map(|(_, page)| page).unwrap_or_default();
        lines.iter().all(|line| page.lines().any(|found| found == *line))
    })
    .await;
}

pub(crate) fn pem(der: &[u8]) -> String {
    let block = pem_block(der);
    format!("-----BEGIN X509 CRL-----\n{block}-----END X509 CRL-----\n")
}

/// Base64 in lines of 64 characters, by openssl.
fn pem_block(der: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), der).unwrap();
    let encoded = openssl(&["base64", "-in", &file.path().display().to_string()]);
    String::from_utf8(encoded.stdout).unwrap()
}

fn with_crl(name: &str) -> Pod {
    pod_with(name, &[("crl-file", "ca.crl")])
}

fn crl(volume: &Path) -> String {
    fs::read_to_string(volume.join("ca.crl")).unwrap_or_default()
}

async fn has(volume: &Path, list: &str) {
    eventually("the CRL", async || crl(volume) == list).await;
}

node_test! {
    async fn a_newer_crl_reaches_every_volume_without_a_new_certificate_and_is_fetched_once_for_all() {
        let mut setup = Setup::new(&[]);
        let first = setup.serve(&List::number(1));
        let kubelet = setup.node.started().await;
        let (one, other) = (kubelet.publish(&with_crl("web-0")).await.unwrap(), kubelet.publish(&with_crl("web-1")).await.unwrap());
        let without = kubelet.publish(&pod("web-2")).await.unwrap();
        assert_eq!((crl(&one), crl(&other)), (first.clone(), first));
        assert!(!without.join("ca.crl").exists());
        let [of_one, of_other] = [&one, &other].map(|volume| fs::metadata(volume.join("ca.crl")).unwrap());
        assert_eq!((of_one.ino(), of_one.mode() & 0o777), (of_other.ino(), 0o444), "the volumes share the file");
        let before = (serial(&one), serial(&other));
        let asked = setup.server.requests().len();
        let revoked = List { revoked: vec![vec![7]], ..List::number(2) };
        let second = setup.serve(&revoked);
        has(&one, &second).await;
        has(&other, &second).await;
        assert_eq!((serial(&one), serial(&other)), before);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let asked = setup.server.requests().len() - asked;
        assert!((3..=9).contains(&asked), "asked {asked} times in a little more than 2 s for two volumes");
        let shown = openssl(&["crl", "-in", &one.join("ca.crl").display().to_string(), "-noout", "-text"]);
        assert!(String::from_utf8_lossy(&shown.stdout).contains("Serial Number: 07"));
        setup.node.stop();
    }
}

node_test! {
    async fn what_is_stale_forged_huge_older_or_of_another_partition_is_refused_and_told() {
        let mut setup = Setup::new(&["--max-crl-size=1Mi"]);
        let first = setup.serve(&List::number(300));
        let kubelet = setup.node.started().await;
        let volume = kubelet.publish(&with_crl("web-0")).await.unwrap();
        let (ca, other) = (&setup.ca, Ca::root("other"));
        let point = Some("http://crl.example.org/2".to_owned());
        for (answer, said) in [
            (Answer::Body(ca.list(&List { ends: -1, begins: -9, ..List::number(301) })), "has expired at"),
            (Answer::Body(ca.list(&List { begins: 600, ..List::number(301) })), "is valid only from"),
            (Answer::Body(Ca::root("root").list(&List::number(301))), "the signature does not verify"),
            (Answer::Body(other.list(&List::number(301))), "holds no CRL of a CA that its volumes know"),
            (Answer::Body(ca.list(&List::number(299))), "is older than the one in use"),
            (Answer::Body(ca.list(&List { point, ..List::number(301) })), "is for another distribution point"),
            (Answer::Body(vec![b'x'; (1 << 20) + 1]), "is too long; accepted are at most 1048576 bytes"),
            (Answer::Announced(u64::MAX / 2), "is too long"),
            (Answer::Endless, "is too long"),
            (Answer::Body(b"<html>captive portal</html>".to_vec()), "holds no CRL in PEM or DER"),
            (Answer::Body(Vec::new()), "holds no CRL in PEM or DER"),
            (Answer::Status(503), "answers 503"),
            (Answer::Redirect(setup.server.url("/crl")), "redirects more than 3 times"),
            (Answer::Redirect("https://127.0.0.1/crl".into()), "is no URL of a CRL"),
        ] {
            setup.server.set("/crl", answer);
            setup.says(said).await;
            setup.says("its last CRL stays in use").await;
            assert_eq!(crl(&volume), first, "{said}");
        }
        let last = setup.serve(&List::number(301));
        has(&volume, &last).await;
        eventually("no fault", async || !setup.node.status(&[]).contains("CRL")).await;
        setup.node.stop();
    }
}

node_test! {
    async fn a_redirect_is_followed_to_an_allowed_host_only() {
        let elsewhere = Server::start();
        let mut setup = Setup::new(&[]);
        setup.server.set("/crl", Answer::Redirect("/moved".into()));
        setup.server.serve("/moved", setup.ca.list(&List::number(1)));
        let kubelet = setup.node.started().await;
        let volume = kubelet.publish(&with_crl("web-0")).await.unwrap();
        assert!(!crl(&volume).is_empty(), "a redirect within the host");
        let newer = setup.ca.list(&List::number(2));
        elsewhere.serve("/crl", newer.clone());
        setup.server.set("/crl", Answer::Redirect(elsewhere.url("/crl")));
        setup.says("which --crl-allowed-hosts does not name").await;
        assert_eq!(elsewhere.requests(), [""; 0], "nobody may be asked by a redirect");
        setup.node.stop();
        setup.node.flag(&format!("--crl-allowed-hosts={}", elsewhere.host()));
        setup.node.started().await;
        has(&volume, &pem(&newer)).await;
        setup.node.stop();
    }
}

node_test! {
    async fn a_distribution_point_of_a_certificate_is_followed_at_an_allowed_host_only() {
        let (server, root) = (Server::start(), Ca::root("root"));
        let point = server.url("/root.crl");
        let issuer = Ca::below(&root, "issuer", &point);
        // A list for that partition only.
        let list = root.list(&List { point: Some(point), ..List::number(1) });
        server.serve("/root.crl", list.clone());
        let mut setup = Setup::with(issuer, &[&root], server, &[]);
        let kubelet = setup.node.started().await;
        let refused = kubelet.publish(&with_crl("web-0")).await.unwrap_err();
        assert!(refused.message().contains("crl-file: the driver has no CRLs"), "{refused:?}");
        setup.node.stop();
        setup.node.flag("--crl-allowed-hosts=crl.example.org");
        let kubelet = setup.node.started().await;
        let refused = kubelet.publish(&with_crl("web-0")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains("no certificate of the chain has a distribution point"), "{refused:?}");
        assert_eq!(setup.server.requests(), [""; 0], "a certificate may not make the driver ask anybody");
        setup.node.stop();
        setup.node.replace_flag("--crl-allowed-hosts=crl.example.org", &format!("--crl-allowed-hosts={}", setup.server.host()));
        let volume = setup.node.started().await.publish(&with_crl("web-0")).await.unwrap();
        assert_eq!(crl(&volume), pem(&list));
        setup.node.stop();
    }
}

node_test! {
    async fn while_the_server_is_down_the_crl_is_kept_over_a_restart_and_told_when_it_ends() {
        let mut setup = Setup::new(&["--metrics-bind-address=127.0.0.1:19406"]);
        let first = setup.serve(&List { ends: 12, ..List::number(1) });
        let kubelet = setup.node.started().await;
        let volume = kubelet.publish(&with_crl("web-0")).await.unwrap();
        setup.server.stop();
        setup.says("cannot be reached").await;
        setup.node.kill();
        let kubelet = setup.node.started().await;
        setup.says("its last CRL stays in use, until").await;
        let generation = fs::read_link(volume.join("..data")).unwrap();
        // A new pod gets the kept list too.
        let other = kubelet.publish(&with_crl("web-1")).await.unwrap();
        assert_eq!((crl(&volume), crl(&other)), (first.clone(), first.clone()));
        setup.says("has ended and stays in use, so that consumers refuse every peer").await;
        assert!(setup.node.log().contains("has ended and stays in use"));
        // What the alerts watch.
        measures(&["certlet_crls{state=\"stale\"} 1", "certlet_crl_sources{state=\"failed\"} 1"]).await;
        assert_eq!(crl(&volume), first);
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), generation, "nothing was written");
        setup.server.listen();
        let second = setup.serve(&List::number(2));
        has(&volume, &second).await;
        has(&other, &second).await;
        eventually("no fault", async || !setup.node.status(&[]).contains("CRL")).await;
        measures(&["certlet_crls{state=\"stale\"} 0", "certlet_crls{state=\"valid\"} 1", "certlet_crl_sources{state=\"failed\"} 0"]).await;
        // After a restart an older list is still refused.
        setup.serve(&List::number(1));
        setup.node.kill();
        setup.node.started().await;
        setup.says("is older than the one in use").await;
        assert_eq!(crl(&volume), second);
        setup.node.stop();
    }
}

node_test! {
    async fn without_any_crl_a_volume_is_refused_before_a_signer_is_asked() {
        let mut setup = Setup::new(&[]);
        setup.server.set("/crl", Answer::Silent);
        let kubelet = setup.node.started().await;
        let refused = kubelet.publish(&with_crl("web-0")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().starts_with("crl-file: "), "{refused:?}");
        assert!(!setup.node.log().contains("the chain is verified"), "a certificate was issued");
        assert!(setup.node.stored().is_empty());
        kubelet.publish(&pod("web-1")).await.unwrap();
        setup.node.stop();
        setup.serve(&List::number(1));
        let kubelet = setup.node.started().await;
        kubelet.publish(&with_crl("web-0")).await.unwrap();
        setup.node.stop();
    }
}

node_test! {
    async fn a_source_that_no_volume_uses_is_not_asked() {
        let mut setup = Setup::new(&[]);
        setup.serve(&List::number(1));
        let kubelet = setup.node.started().await;
        kubelet.publish(&pod("web-1")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(setup.server.requests(), [""; 0]);
        kubelet.publish(&with_crl("web-0")).await.unwrap();
        kubelet.unpublish(&with_crl("web-0")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let asked = setup.server.requests().len();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(setup.server.requests().len(), asked);
        setup.node.stop();
    }
}

node_test! {
    async fn a_file_is_a_source_too_and_its_lists_are_of_several_cas() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("crls.pem");
        let root = Ca::root("root");
        let issuer = Ca::below(&root, "issuer", "http://crl.example.org/");
        let lists = |number| {
            let [of_issuer, of_root] = [&issuer, &root].map(|ca| pem(&ca.list(&List::number(number))));
            (format!("{of_issuer}{of_root}"), format!("{of_root}{of_issuer}"))
        };
        let (first, in_file) = lists(1);
        fs::write(&file, in_file).unwrap();
        let flag = format!("--crl={}", file.display());
        let (changed, in_file) = lists(2);
        let mut setup = Setup::with(issuer, &[&root], Server::start(), &[&flag]);
        let kubelet = setup.node.started().await;
        let volume = kubelet.publish(&with_crl("web-0")).await.unwrap();
        assert_eq!(crl(&volume), first, "of the CA that signed the certificate first");
        fs::write(scratch.path().join("new"), in_file).unwrap();
        fs::rename(scratch.path().join("new"), &file).unwrap();
        has(&volume, &changed).await;
        fs::remove_file(&file).unwrap();
        setup.says("cannot be read").await;
        assert_eq!(crl(&volume), changed);
        setup.node.stop();
    }
}

node_test! {
    async fn the_layout_envoy_and_a_volume_without_files_have_the_crl_too() {
        let mut setup = Setup::new(&[]);
        let list = setup.serve(&List::number(1));
        let kubelet = setup.node.started().await;
        let envoy = pod_with("web-0", &[("layout", "envoy"), ("crl-file", "ca.crl")]);
        let volume = kubelet.publish(&envoy).await.unwrap();
        let secret = fs::read_to_string(volume.join("ROOTCA.yaml")).unwrap();
        let indented = list.trim_end().replace('\n', "\n        ");
        assert!(secret.ends_with(&format!("    crl:\n      inline_string: |\n        {indented}\n")), "{secret}");
        let socket = pod_with("web-1", &[("files", "false"), ("socket-file", "s"), ("crl-file", "ca.crl")]);
        let volume = kubelet.publish(&socket).await.unwrap();
        let names: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["s"]);
        setup.node.stop();
    }
}

/// The time that the driver's process has computed.
fn cpu(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn memory(node: &Node, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

node_test! {
    #[ignore = "a measurement, for docs/trust.md: it takes a minute and prints figures"]
    async fn measure_a_crl_of_100_000_entries() {
        const VOLUMES: usize = 50;
        let mut setup = Setup::new(&["--log-level=info", "--max-volumes-per-namespace=0"]);
        // As in the chart.
        setup.node.env("MALLOC_ARENA_MAX", "2");
        let list = |number: u8| List {
            revoked: (0..100_000_u32).map(|serial| [&[number; 12][..], &serial.to_be_bytes()].concat()).collect(),
            ..List::number(number.into())
        };
        let small = setup.serve(&List::number(1));
        let kubelet = setup.node.started().await;
        let mut volumes = Vec::new();
        for index in 0..VOLUMES {
            volumes.push(kubelet.publish(&with_crl(&format!("web-{index}"))).await.unwrap());
        }
        has(&volumes[0], &small).await;
        let tell = |node: &Node, what: &str, before: Duration| {
            let (resident, peak) = (memory(node, "VmRSS"), memory(node, "VmHWM"));
            println!("{what}: {resident:.1} MiB resident, {peak:.1} MiB at most so far, {:?} of CPU", cpu(node).saturating_sub(before));
        };
        tell(&setup.node, "a list of no entries", Duration::ZERO);
        for number in 2..=6 {
            let before = cpu(&setup.node);
            let der = setup.ca.list(&list(number));
            let text = pem(&der);
            println!("DER {} bytes, PEM {} bytes", der.len(), text.len());
            setup.server.serve("/crl", der);
            for volume in &volumes {
                has(volume, &text).await;
            }
            tell(&setup.node, "100,000 entries, handed to 50 volumes", before);
        }
        let before = cpu(&setup.node);
        tokio::time::sleep(Duration::from_secs(5)).await;
        tell(&setup.node, "ten refreshes without a change", before);
        let used = std::process::Command::new("du").args(["-s", "--block-size=K"]).arg(setup.node.data_root()).output().unwrap();
        println!("the store: {}", String::from_utf8_lossy(&used.stdout));
        setup.node.stop();
    }
}
