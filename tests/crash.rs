//! What survives: kill -9, restarts, damaged records, leftovers, a full store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use certlet_kubelet::Pod;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Node, assert_whole, eventually, get_from, key_in, mounts_below, pod, pod_with, serial};
use tokio::task::JoinSet;
use tonic::Code;

/// A name, and a function that damages a record.
type Damage = (&'static str, fn(&str) -> String);

/// How often the driver is killed.
const KILLS: u64 = 200;

node_test! {
    /// Each round kills the driver at another time. The message of a failure names the round, which determines the
    /// time.
    async fn a_kill_at_any_point_leaves_every_volume_whole_or_cleanly_absent() {
        let mut node = Node::new();
        let pods: Vec<Pod> = (0..6).map(|number| pod(&format!("web-{number}"))).collect();
        for round in 0..KILLS {
            let kubelet = node.started().await;
            let mut calls = JoinSet::new();
            for (number, pod) in pods.iter().enumerate() {
                let (kubelet, pod) = (kubelet.clone(), pod.clone());
                let keeps = (round + number as u64).is_multiple_of(3);
                calls.spawn(async move {
                    let _cut_off = kubelet.publish(&pod).await;
                    if !keeps {
                        let _cut_off = kubelet.unpublish(&pod).await;
                        let _cut_off = kubelet.publish(&pod).await;
                    }
                });
            }
            // The multiplier has no common factor with the period, so the times cover every tenth of a millisecond up
            // to 12 ms.
            tokio::time::sleep(Duration::from_micros(round * 7919 % 120 * 100)).await;
            node.kill();
            calls.shutdown().await;
            for target in pods.iter().map(|pod| kubelet.target(pod)).filter(|target| is_mounted(target)) {
                assert_whole_in_process(&target, round);
            }
        }
        let kubelet = node.started().await;
        for pod in &pods {
            assert_whole(&kubelet.publish(pod).await.unwrap());
            assert_eq!(mounts_below(&kubelet.target(pod)).len(), 1, "mounts are stacked");
            kubelet.unpublish(pod).await.unwrap();
        }
        assert_eq!(node.stored(), Vec::<PathBuf>::new());
        assert!(!mounts_below(&node.root).iter().any(|mount| mount.starts_with(node.root.join("pods"))));
    }
}

fn is_mounted(target: &Path) -> bool {
    mounts_below(target).iter().any(|mount| mount == target)
}

/// Checks that key and certificate belong together. Unlike [`assert_whole`] it starts no processes, because it runs for
/// 200 rounds with six volumes.
fn assert_whole_in_process(volume: &Path, round: u64) {
    let read = |name: &str| {
        fs::read(volume.join(name))
            .unwrap_or_else(|error| panic!("round {round}: {}: {error}", volume.join(name).display()))
    };
    let key = certlet::x509::PrivateKey::from_pem(&read("tls.key")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&read("tls.crt")).unwrap();
    let leaf = pem.parse_x509().unwrap();
    assert_eq!(
        leaf.public_key().raw,
        key.spki_der(),
        "round {round}: key and certificate do not belong together"
    );
    assert!(!read("ca.crt").is_empty(), "round {round}");
}

node_test! {
    async fn a_restart_adopts_what_is_mounted_and_renews_it() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let (long, short) = (pod("long"), pod_with("short", &[("duration", "6s")]));
        let volumes = [kubelet.publish(&long).await.unwrap(), kubelet.publish(&short).await.unwrap()];
        let before = volumes.each_ref().map(|volume| serial(volume));
        node.kill();
        let kubelet = node.started().await;
        assert_eq!(serial(&volumes[0]), before[0]);
        kubelet.publish(&long).await.unwrap();
        assert_eq!(serial(&volumes[0]), before[0], "an adopted volume is not issued again");
        eventually("the adopted volume is renewed", async || serial(&volumes[1]) != before[1]).await;
        let again = serial(&volumes[1]);
        eventually("and renewed again", async || serial(&volumes[1]) != again).await;
        assert_eq!(mounts_below(&volumes[1]).len(), 1);
    }
}

node_test! {
    async fn a_reused_key_outlives_renewals_and_restarts() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let reuse = pod_with("reuse", &[("duration", "6s"), ("reuse-private-key", "true")]);
        let fresh = pod_with("fresh", &[("duration", "6s")]);
        let (reused, renewed) = (kubelet.publish(&reuse).await.unwrap(), kubelet.publish(&fresh).await.unwrap());
        let (key, other) = (key_in(&reused), key_in(&renewed));
        for restart in [false, true] {
            if restart {
                node.kill();
                node.started().await;
            }
            let before = [serial(&reused), serial(&renewed)];
            eventually("both are renewed", async || serial(&reused) != before[0] && serial(&renewed) != before[1]).await;
            assert_eq!(key_in(&reused), key);
            assert_ne!(key_in(&renewed), other);
            assert_whole(&reused);
        }
    }
}

node_test! {
    async fn a_damaged_record_leads_to_a_new_issuance_for_that_volume_only() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--metrics-bind-address=127.0.0.1:19404"]);
        let unreadable = async |count: usize| {
            let (_, metrics) = get_from("127.0.0.1:19404", "/metrics").await.unwrap();
            assert!(metrics.contains(&format!("certlet_volumes{{state=\"unreadable\"}} {count}\n")), "{metrics}");
        };
        let kubelet = node.started().await;
        let damages: [Damage; 5] = [
            ("corrupt", |_| "not json".to_owned()),
            ("truncated", |record| record[..record.len() / 2].to_owned()),
            ("empty", |_| String::new()),
            ("future", |record| record.replace("\"version\":1", "\"version\":99")),
            ("wrong-type", |record| record.replace("\"pod\":{", "\"pod\":7,\"x\":{")),
        ];
        let sound = kubelet.publish(&pod("sound")).await.unwrap();
        let before = serial(&sound);
        for (name, _) in damages {
            kubelet.publish(&pod(name)).await.unwrap();
        }
        node.kill();
        for (name, damage) in damages {
            let path = node.stored_at(&pod(name)).join("record.json");
            let record = fs::read_to_string(&path).unwrap();
            let spoilt = damage(&record);
            assert_ne!(spoilt, record, "{name}");
            fs::write(&path, spoilt).unwrap();
        }
        let kubelet = node.started().await;
        assert_eq!(serial(&sound), before);
        unreadable(damages.len()).await;
        for (name, _) in damages {
            let pod = pod(name);
            let volume = kubelet.target(&pod);
            assert_whole(&volume);
            let old = serial(&volume);
            kubelet.publish(&pod).await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
            eventually(&format!("{name} is issued anew"), async || serial(&volume) != old).await;
            assert_whole(&volume);
            assert_eq!(mounts_below(&volume).len(), 1, "{name}");
            kubelet.unpublish(&pod).await.unwrap();
            assert!(!volume.exists());
        }
        assert_eq!(node.stored().len(), 1);
        unreadable(0).await;
    }
}

node_test! {
    async fn attributes_that_this_build_does_not_accept_leave_a_live_volume_alone_and_no_orphan() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--metrics-bind-address=127.0.0.1:19405"]);
        let kubelet = node.started().await;
        let (lives, gone) = (pod("lives"), pod("gone"));
        for pod in [&lives, &gone] {
            kubelet.publish(pod).await.unwrap();
        }
        let before = serial(&kubelet.target(&lives));
        node.kill();
        for pod in [&lives, &gone] {
            let path = node.stored_at(pod).join("record.json");
            let record = fs::read_to_string(&path).unwrap();
            let older = record.replace("csi.certlet.io/dns-names", "csi.certlet.io/was-known-once");
            assert_ne!(older, record);
            fs::write(&path, older).unwrap();
        }
        nix::mount::umount(&kubelet.target(&gone)).unwrap();
        fs::remove_dir_all(kubelet.target(&gone).parent().unwrap()).unwrap();
        let kubelet = node.started().await;
        assert!(!node.stored_at(&gone).exists(), "its pod is gone");
        let (_, metrics) = get_from("127.0.0.1:19405", "/metrics").await.unwrap();
        assert!(metrics.contains("certlet_volumes{state=\"unreadable\"} 1\n"), "{metrics}");
        let mut again = kubelet.publish_request(&lives);
        again.volume_context.insert("csi.certlet.io/was-known-once".to_owned(), "x".to_owned());
        kubelet.publish_with(again).await.unwrap();
        assert_eq!(serial(&kubelet.target(&lives)), before);
        kubelet.unpublish(&lives).await.unwrap();
        assert_eq!(node.stored(), Vec::<PathBuf>::new());
        let (_, metrics) = get_from("127.0.0.1:19405", "/metrics").await.unwrap();
        assert!(metrics.contains("certlet_volumes{state=\"unreadable\"} 0\n"), "{metrics}");
    }
}

node_test! {
    async fn orphans_are_removed_at_start_and_others_are_not_touched() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let (stays, unmounted, gone) = (pod("stays"), pod("unmounted"), pod("gone"));
        for pod in [&stays, &unmounted, &gone] {
            kubelet.publish(pod).await.unwrap();
        }
        let before = serial(&kubelet.target(&stays));
        node.kill();
        for pod in [&unmounted, &gone] {
            nix::mount::umount(&kubelet.target(pod)).unwrap();
            fs::remove_dir(kubelet.target(pod)).unwrap();
        }
        fs::remove_dir_all(kubelet.target(&gone).parent().unwrap()).unwrap();
        let kubelet = node.started().await;
        assert!(node.stored_at(&stays).exists());
        assert!(!node.stored_at(&gone).exists(), "the pod is gone, and its volume with it");
        assert!(node.stored_at(&unmounted).exists(), "the kubelet may still publish it");
        assert_eq!(serial(&kubelet.target(&stays)), before);
        assert_whole(&kubelet.publish(&unmounted).await.unwrap());
    }
}

node_test! {
    async fn leftovers_of_a_crash_do_not_block_a_renewal() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[("duration", "6s")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        node.kill();
        let stored = node.stored_at(&pod);
        std::os::unix::fs::symlink("..nowhere", stored.join("mount/..data_tmp")).unwrap();
        fs::create_dir(stored.join("mount/..999999")).unwrap();
        fs::write(stored.join("mount/..999999/tls.key"), "half").unwrap();
        fs::write(stored.join("record.json.tmp"), "half").unwrap();
        fs::create_dir_all(node.data_root().join("volumes/.trash-csi-dead/mount")).unwrap();
        fs::create_dir_all(node.data_root().join("volumes/csi-without-record/mount")).unwrap();
        let before = serial(&volume);
        node.started().await;
        eventually("the renewal gets through", async || serial(&volume) != before).await;
        assert_whole(&volume);
        assert_eq!(node.stored(), std::slice::from_ref(&stored));
        let mut left: Vec<String> = fs::read_dir(stored.join("mount")).unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.retain(|name| name.starts_with(".."));
        assert_eq!(left.len(), 2, "one generation and its link: {left:?}");
    }
}

node_test! {
    async fn a_full_store_refuses_new_volumes_and_keeps_the_live_ones() {
        // The reserved part of this small store is enough for two renewals at once.
        let mut node = Node::with_flags(&[
            "--allow-local-signer",
            "--store-size=256Ki",
            "--max-renewals-in-flight=2",
            "--max-store-share-per-namespace=100",
        ]);
        let kubelet = node.started().await;
        let mut published = Vec::new();
        let refused = loop {
            let pod = pod_with(&format!("web-{}", published.len()), &[("duration", "8s")]);
            match kubelet.publish(&pod).await {
                Ok(_) => published.push(pod),
                Err(status) => break status,
            }
            assert!(published.len() < 100, "the store never fills up");
        };
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("kept for renewals: raise --store-size"), "{refused:?}");
        assert!(!published.is_empty());
        assert_eq!(node.stored().len(), published.len(), "nothing is left of the volume that did not fit");
        for pod in &published {
            assert_whole(&kubelet.target(pod));
        }
        let volumes = published.iter().map(|pod| kubelet.target(pod));
        for (volume, before) in volumes.map(|volume| (volume.clone(), serial(&volume))).collect::<Vec<_>>() {
            eventually("it is renewed", async || serial(&volume) != before).await;
            assert_whole(&volume);
        }
    }
}
