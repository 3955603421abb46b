//! Publishes and unpublishes: one after the other, at the same time, and interrupted.

use crate::node_test;
use crate::support::{self, Node, assert_whole, mounts_below, pod, pod_with, serial};
use std::fs;
use tokio::task::JoinSet;
use tonic::Code;

node_test! {
    async fn a_second_publish_changes_nothing_and_stacks_nothing() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod("web-0");
        let volume = kubelet.publish(&pod).await.unwrap();
        let (first, mounts) = (serial(&volume), mounts_below(&node.root));
        for _ in 0..5 {
            kubelet.publish(&pod).await.unwrap();
        }
        assert_eq!(serial(&volume), first);
        assert_eq!(mounts_below(&node.root), mounts);
    }
}

node_test! {
    async fn publishes_of_one_volume_at_once_end_in_one_whole_volume() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[("key-algorithm", "RSA"), ("key-size", "3072")]);
        fs::create_dir_all(kubelet.target(&pod).parent().unwrap()).unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let (kubelet, request) = (kubelet.clone(), kubelet.publish_request(&pod));
            calls.spawn(async move { kubelet.publish_with(request).await });
        }
        let results = calls.join_all().await;
        assert!(results.iter().any(Result::is_ok), "{results:?}");
        for refused in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
            assert!(refused.message().contains("a publish is under way"), "{refused:?}");
        }
        assert_whole(&kubelet.target(&pod));
        assert_eq!(mounts_below(&kubelet.target(&pod)).len(), 1);
        kubelet.unpublish(&pod).await.unwrap();
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn many_volumes_come_and_go_at_once() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let mut calls = JoinSet::new();
        for number in 0..60 {
            let (kubelet, pod) = (kubelet.clone(), pod(&format!("web-{number}")));
            calls.spawn(async move {
                for _ in 0..3 {
                    assert_whole(&kubelet.publish(&pod).await.unwrap());
                    kubelet.unpublish(&pod).await.unwrap();
                    assert!(!kubelet.target(&pod).exists());
                }
            });
        }
        calls.join_all().await;
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
        assert!(!mounts_below(&node.root).iter().any(|mount| mount.starts_with(node.root.join("pods"))));
    }
}

node_test! {
    async fn an_unpublish_succeeds_whatever_is_left_to_undo() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod("web-0");
        kubelet.unpublish(&pod).await.expect("a volume that never was");
        let volume = kubelet.publish(&pod).await.unwrap();
        kubelet.unpublish(&pod).await.unwrap();
        assert!(!volume.exists());
        kubelet.unpublish(&pod).await.expect("a volume that is gone");
        kubelet.publish(&pod).await.unwrap();
        nix::mount::umount(&volume).unwrap();
        fs::remove_dir(&volume).unwrap();
        kubelet.unpublish(&pod).await.expect("a target that was removed");
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn an_unpublish_ends_a_publish_in_flight() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        for round in 0..10 {
            let pod = pod_with(&format!("web-{round}"), &[("key-algorithm", "RSA"), ("key-size", "4096")]);
            let publish = { let (kubelet, pod) = (kubelet.clone(), pod.clone()); tokio::spawn(async move { kubelet.publish(&pod).await }) };
            tokio::time::sleep(std::time::Duration::from_millis(5 * round)).await;
            // The directory stays: the publish may be on its way to the driver.
            kubelet.call_unpublish(&pod).await.unwrap();
            if let Err(status) = publish.await.unwrap() {
                // Aborted if it came during the unpublish.
                assert!(matches!(status.code(), Code::Cancelled | Code::Aborted), "{status:?}");
            }
            // The publish may have started after the unpublish had ended.
            kubelet.unpublish(&pod).await.unwrap();
            assert!(!kubelet.target(&pod).exists());
        }
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn a_caller_that_goes_away_leaves_nothing_half_done() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        for round in 0..30_u64 {
            let pod = pod_with(&format!("web-{round}"), &[("key-algorithm", "RSA"), ("key-size", "2048")]);
            let cut = std::time::Duration::from_millis(round);
            let _cut_off = tokio::time::timeout(cut, kubelet.publish(&pod)).await;
            // The kubelet's retry finds the volume or makes it. The interrupted call may still hold the lock for a
            // moment.
            support::eventually("the retry succeeds", async || match kubelet.publish(&pod).await {
                Ok(_) => true,
                Err(status) => { assert_eq!(status.code(), Code::Aborted, "{status:?}"); false }
            }).await;
            assert_whole(&kubelet.target(&pod));
            kubelet.unpublish(&pod).await.unwrap();
        }
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn a_renew_before_of_nearly_the_whole_life_has_a_certificate_used_for_a_minute() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[("duration", "24h"), ("renew-before", "23h59m57s")]);
        kubelet.publish(&pod).await.unwrap();
        let record = fs::read(node.stored_at(&pod).join("record.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let [issued_at, renew_at] = ["issued_at", "renew_at"]
            .map(|field| record["record"]["issued"][field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
        let used = renew_at.duration_since(issued_at).as_secs();
        assert!((60..67).contains(&used), "{used} s");
    }
}
