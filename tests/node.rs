//! The driver through its gRPC socket: what the kubelet and a pod's author see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use certlet::demo::{Kubelet, Pod};
use certlet::proto::csi::volume_capability::{AccessType, BlockVolume};
use certlet::proto::csi::volume_usage::Unit;
use certlet::proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeExpandVolumeRequest, NodeGetCapabilitiesRequest,
    NodeGetInfoRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, ProbeRequest,
};
use nix::sys::statvfs::FsFlags;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use support::{Node, assert_whole, mounts_below, openssl, pod, pod_with, serial};
use tokio::task::JoinSet;
use tonic::Code;

node_test! {
    async fn the_driver_says_who_it_is_and_what_it_offers() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let info = kubelet.identity().get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.name, support::DRIVER);
        assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
        let probe = kubelet.identity().probe(ProbeRequest {}).await.unwrap().into_inner();
        assert_eq!(probe.ready, Some(true));
        let plugin = kubelet.identity().get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap();
        assert!(plugin.into_inner().capabilities.is_empty());
        let node_info = kubelet.node().node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
        assert_eq!(node_info.node_id, "node-1");
        let offered = kubelet.node().node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap().into_inner();
        let offered: BTreeSet<String> = offered.capabilities.iter().map(|offer| format!("{offer:?}")).collect();
        for expected in ["VolumeMountGroup", "GetVolumeStats", "VolumeCondition"] {
            assert!(offered.iter().any(|offer| offer.contains(expected)), "{expected} is not in {offered:?}");
        }
        assert_eq!(offered.len(), 3);
    }
}

node_test! {
    async fn a_published_volume_is_whole_read_only_and_private() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        assert_whole(&volume);
        let mode = |name: &str| fs::metadata(volume.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("tls.key"), mode("tls.crt"), mode("ca.crt")), (0o400, 0o444, 0o444));
        assert_eq!(fs::read_link(volume.join("tls.key")).unwrap().to_str(), Some("..data/tls.key"));
        let error = fs::write(volume.join("intruder"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let flags = nix::sys::statvfs::statvfs(&volume).unwrap().flags();
        assert!(flags.contains(FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC), "{flags:?}");
    }
}

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
    async fn an_unpublish_is_fine_whatever_is_left_to_undo() {
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
        kubelet.unpublish(&pod).await.expect("a target that somebody took away");
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn an_unpublish_cuts_a_publish_short() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        for round in 0..10 {
            let pod = pod_with(&format!("web-{round}"), &[("key-algorithm", "RSA"), ("key-size", "4096")]);
            let publish = { let (kubelet, pod) = (kubelet.clone(), pod.clone()); tokio::spawn(async move { kubelet.publish(&pod).await }) };
            tokio::time::sleep(std::time::Duration::from_millis(5 * round)).await;
            kubelet.unpublish(&pod).await.unwrap();
            if let Err(status) = publish.await.unwrap() {
                // Aborted, where it came while the unpublish was under way.
                assert!(matches!(status.code(), Code::Cancelled | Code::Aborted), "{status:?}");
            }
            // The publish may have begun after the unpublish had ended.
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
            // The kubelet's retry either finds the volume done or does it; the lock may still be held for a moment.
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
    async fn a_signer_that_is_not_there_is_named_in_the_refusal() {
        let mut node = Node::with_flags(&[]);
        let kubelet = node.started().await;
        let refused = kubelet.publish(&pod("web-0")).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("local") && refused.message().contains("--allow-local-signer"), "{refused:?}");
        let pca = Pod::new("shop", "web-1", [
            ("csi.certlet.io/signer", "acm-pca"),
            ("csi.certlet.io/common-name", "web"),
            ("csi.certlet.io/certificate-authority-arn",
             "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/12345678-1234-1234-1234-123456789012"),
        ]);
        let refused = kubelet.publish(&pca).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("acm-pca"), "{refused:?}");
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn missing_and_wrong_fields_are_invalid_arguments_that_name_the_field() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let good = kubelet.publish_request(&pod("web-0"));
        let broken: [Breakage; 11] = [
            ("volume_id", |request| request.volume_id.clear()),
            ("volume_id", |request| request.volume_id = "x".repeat(129)),
            ("target_path", |request| request.target_path.clear()),
            ("target_path", |request| request.target_path = "relative".to_owned()),
            ("target_path", |request| request.target_path = "/tmp/../etc".to_owned()),
            ("volume_capability", |request| request.volume_capability = None),
            ("access_mode", |request| request.volume_capability.as_mut().unwrap().access_mode = None),
            ("access_type", |request| request.volume_capability.as_mut().unwrap().access_type = None),
            ("block", |request| request.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Block(BlockVolume {}))),
            ("mount_flags", |request| mount(request).mount_flags.push("rw".to_owned())),
            ("volume_mount_group", |request| mount(request).volume_mount_group = "staff".to_owned()),
        ];
        for (field, break_it) in broken {
            let mut request = good.clone();
            break_it(&mut request);
            let refused = kubelet.publish_with(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused:?}");
            assert!(refused.message().contains(field), "{field}: {refused:?}");
        }
        let mut writable = good.clone();
        writable.readonly = false;
        let refused = kubelet.publish_with(writable).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("readOnly: true"), "{refused:?}");
        for (volume_id, target_path, field) in [("", "/x", "volume_id"), ("csi-1", "", "target_path")] {
            let request = NodeUnpublishVolumeRequest { volume_id: volume_id.to_owned(), target_path: target_path.to_owned() };
            let refused = kubelet.node().node_unpublish_volume(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(field), "{refused:?}");
        }
    }
}

/// The field at fault, and what breaks it.
type Breakage = (&'static str, fn(&mut NodePublishVolumeRequest));

fn mount(request: &mut NodePublishVolumeRequest) -> &mut certlet::proto::csi::volume_capability::MountVolume {
    match &mut request.volume_capability.as_mut().unwrap().access_type {
        Some(AccessType::Mount(mount)) => mount,
        other => panic!("not a mount: {other:?}"),
    }
}

node_test! {
    async fn what_is_not_offered_is_unimplemented() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let codes = [
            kubelet.node().node_stage_volume(NodeStageVolumeRequest::default()).await.map(drop),
            kubelet.node().node_unstage_volume(NodeUnstageVolumeRequest::default()).await.map(drop),
            kubelet.node().node_expand_volume(NodeExpandVolumeRequest::default()).await.map(drop),
        ];
        for result in codes {
            assert_eq!(result.unwrap_err().code(), Code::Unimplemented);
        }
    }
}

node_test! {
    async fn stats_tell_usage_and_condition() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod("web-0");
        assert_eq!(kubelet.stats(&pod).await.unwrap_err().code(), Code::NotFound);
        kubelet.publish(&pod).await.unwrap();
        let stats = kubelet.stats(&pod).await.unwrap();
        for unit in [Unit::Bytes, Unit::Inodes] {
            let usage = stats.usage.iter().find(|usage| usage.unit() == unit).unwrap();
            assert!(usage.used > 0 && usage.available > 0 && usage.total >= usage.used, "{usage:?}");
        }
        let condition = stats.volume_condition.unwrap();
        assert!(!condition.abnormal && condition.message.contains("valid until"), "{condition:?}");
        kubelet.unpublish(&pod).await.unwrap();
        assert_eq!(kubelet.stats(&pod).await.unwrap_err().code(), Code::NotFound);
    }
}

node_test! {
    async fn a_target_that_is_a_file_is_refused_and_left_alone() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod("web-0");
        let target = kubelet.target(&pod);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, "precious").unwrap();
        let refused = kubelet.publish(&pod).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal);
        assert!(refused.message().contains(target.to_str().unwrap()), "{refused:?}");
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn the_same_volume_with_other_attributes_is_refused_and_the_live_one_stays() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        let before = serial(&volume);
        let refused = kubelet.publish(&pod_with("web-0", &[("duration", "1h")])).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        let mut elsewhere = kubelet.publish_request(&pod("web-0"));
        elsewhere.target_path = node.root.join("elsewhere").display().to_string();
        let refused = kubelet.publish_with(elsewhere.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        let request = NodeUnpublishVolumeRequest { volume_id: elsewhere.volume_id, target_path: elsewhere.target_path };
        kubelet.node().node_unpublish_volume(request).await.unwrap();
        assert_eq!(serial(&volume), before);
        assert_whole(&volume);
    }
}

node_test! {
    async fn the_fs_group_may_read_the_key_and_nobody_else() {
        if !support::namespace::maps_all_groups() {
            eprintln!("not checked: an ordinary user has no second group to give a file to");
            return;
        }
        let mut node = Node::new();
        let kubelet = node.started().await;
        let mut by_pod = pod("web-0");
        by_pod.fs_group = Some(2000);
        let mut by_attribute = pod_with("web-1", &[("fs-group", "3000")]);
        by_attribute.fs_group = Some(2000);
        for (pod, group) in [(by_pod, 2000), (by_attribute, 3000)] {
            let key = fs::metadata(kubelet.publish(&pod).await.unwrap().join("tls.key")).unwrap();
            assert_eq!((key.permissions().mode() & 0o777, key.gid()), (0o440, group));
        }
    }
}

node_test! {
    async fn every_key_algorithm_is_delivered_and_fits_its_certificate() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        for (algorithm, size) in [("RSA", "2048"), ("ECDSA", "256"), ("ECDSA", "384"), ("ECDSA", "521"), ("Ed25519", "")] {
            let pod = pod_with(&format!("web-{}{size}", algorithm.to_lowercase()), &[("key-algorithm", algorithm), ("key-size", size)]);
            let volume = kubelet.publish(&pod).await.unwrap_or_else(|status| panic!("{algorithm} {size}: {status:?}"));
            assert_whole(&volume);
        }
    }
}

node_test! {
    async fn all_the_files_asked_for_are_there_under_their_names() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[
            ("certificate-file", "cert.pem"), ("privatekey-file", "key.pem"), ("ca-file", "roots.pem"),
            ("combined-file", "all.pem"), ("pkcs12-enable", "true"), ("pkcs12-password", "changeit"),
        ]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let names: BTreeSet<String> = fs::read_dir(&volume).unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("..")).collect();
        let expected = ["all.pem", "cert.pem", "key.pem", "keystore.p12", "roots.pem"].map(str::to_owned);
        assert_eq!(names, BTreeSet::from(expected));
        let keystore = volume.join("keystore.p12");
        openssl(&["pkcs12", "-in", keystore.to_str().unwrap(), "-passin", "pass:changeit", "-nodes"]);
        let combined = fs::read_to_string(volume.join("all.pem")).unwrap();
        assert!(combined.find("PRIVATE KEY").unwrap() < combined.find("BEGIN CERTIFICATE").unwrap(), "key first, then chain");
        assert_eq!(fs::metadata(volume.join("all.pem")).unwrap().permissions().mode() & 0o777, 0o400);
    }
}

node_test! {
    async fn one_publish_too_many_is_told_to_try_again() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--max-volumes-in-flight=1"]);
        let kubelet = node.started().await;
        let slow = pod_with("slow", &[("key-algorithm", "RSA"), ("key-size", "4096")]);
        let mut calls = JoinSet::new();
        for pod in [slow.clone(), pod_with("slow-2", &[("key-algorithm", "RSA"), ("key-size", "4096")])] {
            let kubelet: Kubelet = kubelet.clone();
            calls.spawn(async move { kubelet.publish(&pod).await });
        }
        let results = calls.join_all().await;
        let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].code(), Code::ResourceExhausted);
        assert!(refused[0].message().contains("--max-volumes-in-flight"), "{refused:?}");
    }
}
