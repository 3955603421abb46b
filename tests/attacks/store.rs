//! Attacks on the store: what all volumes of a node share.

use crate::in_process::{InProcess, ManualClock, ScriptedSigner};
use crate::support::{Node, assert_whole, eventually, serial};
use crate::{node_test, pod};
use certlet::run::Config;
use certlet_kubelet::{Kubelet, Pod};
use jiff::SignedDuration;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};
use tonic::Code;

/// Volumes that the store holds while they are small, and does not hold once they are large.
const HOSTILE: usize = 120;
/// Volumes of somebody else.
const INNOCENT: usize = 10;

/// A driver with a store of 6 MiB, and its signer.
async fn node(configure: impl FnOnce(&mut Config)) -> (Node, InProcess, Kubelet) {
    let mut node = Node::new();
    let clock = ManualClock::new();
    let signer = ScriptedSigner::new(&clock, true);
    let (driver, kubelet) = InProcess::start_with(&mut node, &clock, &signer, |config| {
        config.store.size_bytes = 6 << 20;
        config.store.inodes = 65_536;
        configure(config);
    })
    .await;
    (node, driver, kubelet)
}

async fn published(kubelet: &Kubelet, namespace: &str, count: usize) -> Vec<(PathBuf, String)> {
    let mut volumes = Vec::new();
    for number in 0..count {
        let volume = kubelet.publish(&pod(namespace, number)).await.unwrap();
        volumes.push((volume.clone(), serial(&volume)));
    }
    volumes
}

/// About so many bytes of CA certificates, all different.
fn anchors(bytes: usize) -> Vec<u8> {
    let mut pem = String::new();
    while pem.len() < bytes {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        pem.push_str(&params.self_signed(&key).unwrap().pem());
    }
    pem.into_bytes()
}

/// The generation in a volume's record.
fn recorded_generation(node: &Node, pod: &Pod) -> String {
    let record = std::fs::read(node.stored_at(pod).join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    format!("..{}", record["record"]["issued"]["generation"])
}

/// The generation that a volume's files are of.
fn live_generation(node: &Node, pod: &Pod) -> String {
    std::fs::read_link(node.stored_at(pod).join("mount/..data")).unwrap().display().to_string()
}

fn free_percent(path: &Path) -> u64 {
    let found = statvfs(path).unwrap();
    100 * found.blocks_available() / found.blocks()
}

/// A namespace whose certificates suddenly have a large CA, and its neighbours.
async fn grow(percent: u8, said: &str) {
    let (node, driver, kubelet) = node(|config| config.limits.namespace_store_percent = percent).await;
    let innocent = published(&kubelet, "innocent", INNOCENT).await;
    let hostile = published(&kubelet, "hostile", HOSTILE).await;
    *driver.signer.more_anchors.lock().unwrap() = Some(("hostile".to_owned(), anchors(56 << 10)));
    driver.clock.advance(SignedDuration::from_hours(17));
    eventually("the innocent are renewed", async || {
        innocent.iter().all(|(volume, before)| serial(volume) != *before)
    })
    .await;
    let tried = |number: usize| node.last_error(&pod("hostile", number)).is_some();
    let renewed =
        |number: usize| hostile.get(number).is_some_and(|(volume, before)| serial(volume) != *before);
    eventually("each of the hostile is renewed or has its failure on record", async || {
        (0..HOSTILE).all(|number| tried(number) || renewed(number))
    })
    .await;
    let failed = (0..HOSTILE).find(|number| tried(*number)).expect("the store does not hold them all");
    let error = node.last_error(&pod("hostile", failed)).unwrap();
    assert!(error.contains(said) && error.contains("namespace hostile"), "{error}");
    assert_whole(&hostile.get(failed).unwrap().0);
    assert!(
        free_percent(&node.data_root()) >= 4,
        "the reserve is left: {} %",
        free_percent(&node.data_root())
    );
    driver.stop().await;
}

node_test! {
    async fn certificates_that_grow_leave_the_neighbours_what_they_need_to_renew() {
        grow(50, "--max-store-share-per-namespace").await;
    }
}

node_test! {
    async fn the_same_where_one_namespace_may_use_the_whole_store() {
        grow(100, "--store-size").await;
    }
}

node_test! {
    async fn an_answer_that_is_too_large_is_refused_and_the_old_certificate_stays() {
        let (node, driver, kubelet) = node(|config| config.limits.volume_bytes = 32 << 10).await;
        let (volume, before) = published(&kubelet, "shop", 1).await.pop().unwrap();
        *driver.signer.more_anchors.lock().unwrap() = Some(("shop".to_owned(), anchors(40 << 10)));
        driver.clock.advance(SignedDuration::from_hours(17));
        let pod = pod("shop", 0);
        eventually("the failure is on record", async || node.last_error(&pod).is_some()).await;
        let error = node.last_error(&pod).unwrap();
        assert!(error.contains("--max-volume-size") && error.contains("at most 32768"), "{error}");
        assert_eq!(serial(&volume), before);
        assert_whole(&volume);
        *driver.signer.more_anchors.lock().unwrap() = None;
        driver.clock.advance(SignedDuration::from_hours(3));
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_eq!(node.last_error(&pod), None);
        driver.stop().await;
    }
}

node_test! {
    async fn files_of_old_generations_that_a_pod_keeps_open_count_for_its_namespace() {
        let (node, driver, kubelet) = node(|_| {}).await;
        let innocent = published(&kubelet, "innocent", INNOCENT).await;
        *driver.signer.more_anchors.lock().unwrap() = Some(("hostile".to_owned(), anchors(56 << 10)));
        let hostile = published(&kubelet, "hostile", 8).await;
        let mut kept_open = Vec::new();
        let refused = || {
            let errors = (0..8).filter_map(|number| node.last_error(&pod("hostile", number)));
            errors.filter(|error| error.contains("namespace hostile")).count()
        };
        // Each round takes about half a MiB. The store has six.
        for round in 0..20 {
            for (volume, _) in &hostile {
                // The second one is no open file, as the kernel counts them.
                kept_open.push(open(&volume.join("tls.crt"), OFlag::O_RDONLY, Mode::empty()).unwrap());
                kept_open.push(open(&volume.join("ca.crt"), OFlag::O_PATH, Mode::empty()).unwrap());
            }
            let serials = |volumes: &[(PathBuf, String)]| -> Vec<String> {
                volumes.iter().map(|(volume, _)| serial(volume)).collect()
            };
            let before = (serials(&innocent), serials(&hostile));
            driver.clock.advance(SignedDuration::from_hours(17));
            eventually(&format!("all innocent are renewed in round {round}"), async || {
                serials(&innocent).iter().zip(&before.0).all(|(now, before)| now != before)
            })
            .await;
            eventually("the hostile are renewed or refused", async || {
                let now = serials(&hostile);
                let renewed = now.iter().zip(&before.1).filter(|(now, before)| now != before).count();
                renewed + refused() >= 8
            })
            .await;
            // Not before: the time of issue is read after the swap.
            let volumes = (0..8).map(|number| pod("hostile", number));
            let volumes: Vec<_> = volumes.chain((0..INNOCENT).map(|number| pod("innocent", number))).collect();
            eventually("every record is of the files", async || {
                volumes.iter().all(|pod| recorded_generation(&node, pod) == live_generation(&node, pod))
            })
            .await;
        }
        assert_eq!(refused(), 8);
        drop(kept_open);
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("nothing is held against them", async || refused() == 0).await;
        driver.stop().await;
    }
}

node_test! {
    async fn a_pod_and_a_namespace_have_so_many_volumes_and_no_more() {
        let (node, driver, kubelet) = node(|config| config.limits.volumes_per_namespace = 2).await;
        published(&kubelet, "shop", 2).await;
        let refused = kubelet.publish(&pod("shop", 2)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("--max-volumes-per-namespace"), "{refused:?}");
        // A republish is none more, and one that is gone makes space.
        kubelet.publish(&pod("shop", 1)).await.unwrap();
        kubelet.unpublish(&pod("shop", 0)).await.unwrap();
        kubelet.publish(&pod("shop", 2)).await.unwrap();
        assert_eq!(node.stored().len(), 2);
        driver.stop().await;
    }
}
