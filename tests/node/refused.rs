//! Refused calls and their messages.

use crate::node_test;
use crate::support::{Node, assert_whole, mounts_below, pod, pod_with, serial};
use certlet_kubelet::proto::csi::volume_capability::{AccessType, BlockVolume};
use certlet_kubelet::proto::csi::{
    NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use certlet_kubelet::{Kubelet, Pod};
use std::fs;
use tonic::Code;

node_test! {
    async fn a_signer_that_is_not_configured_is_named_in_the_refusal() {
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
        let broken: [Breakage; 12] = [
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
            ("volume_mount_group", |request| mount(request).volume_mount_group = "4294967295".to_owned()),
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

node_test! {
    async fn huge_attributes_are_refused_with_a_short_message() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let long = [
            ("dns-names", "!,".repeat(700_000)),
            ("literal-subject", "CN=a+".repeat(200_000) + "O=b"),
        ];
        for (name, value) in long {
            let refused = kubelet.publish(&pod_with("web-0", &[(name, &value)])).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
            assert!(refused.message().contains("at most 200 with 65536 bytes"), "{name}: {}", refused.message().len());
        }
        // Within the size limit, the message lists only some of the faults.
        let refused = kubelet.publish(&pod_with("web-0", &[("dns-names", &(0..500).map(|n| format!("!{n}")).collect::<Vec<_>>().join(","))])).await.unwrap_err();
        assert!(refused.message().contains("more") && refused.message().len() < 10_000, "{refused:?}");
        // These attributes are too long only after the variables are replaced with the pod's name.
        let grown = pod_with(&"x".repeat(253), &[("organizations", &"$POD_NAME".repeat(130))]);
        let refused = kubelet.publish(&grown).await.unwrap_err();
        assert!(refused.message().contains("organizations") && refused.message().contains("longer than 32768 bytes together, with variables replaced"), "{refused:?}");
        let many: Vec<(String, &str)> = (0..201).map(|n| (format!("a{n}"), "x")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let refused = kubelet.publish(&pod_with("web-0", &many)).await.unwrap_err();
        assert!(refused.message().contains("volumeAttributes: are 20"), "{refused:?}");
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn a_volume_of_another_driver_is_left_alone_even_with_attributes_that_are_not_accepted() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[("no-such-attribute", "x")]);
        assert_eq!(kubelet.publish(&pod).await.unwrap_err().code(), Code::InvalidArgument);
        let target = kubelet.target(&pod);
        fs::create_dir_all(&target).unwrap();
        nix::mount::mount(Some("tmpfs"), &target, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
        fs::write(target.join("tls.crt"), "theirs").unwrap();
        kubelet.publish(&pod).await.unwrap();
        assert_eq!(fs::read(target.join("tls.crt")).unwrap(), b"theirs");
        // The same holds for our own volume in use: its attributes may come from a build that accepted them.
        let known = crate::support::pod("web-1");
        let volume = kubelet.publish(&known).await.unwrap();
        let before = serial(&volume);
        let mut changed = kubelet.publish_request(&known);
        changed.volume_context.insert("csi.certlet.io/no-such-attribute".to_owned(), "x".to_owned());
        kubelet.publish_with(changed).await.unwrap();
        assert_eq!(serial(&volume), before);
        // Only the other driver's volume is not renewed.
        let said = |text: &str, id: &str| node.log().lines().any(|line| line.contains(text) && line.contains(id));
        assert!(said("and is not renewed", &pod.volume_id()) && !said("is not renewed", &known.volume_id()));
        assert!(said("goes on with those that it has", &known.volume_id()));
    }
}

node_test! {
    async fn a_target_in_use_by_another_volume_is_refused_and_stays_as_it_is() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let [first, second] = ["web-0", "web-1"].map(crate::support::pod);
        let volume = kubelet.publish(&first).await.unwrap();
        let before = serial(&volume);
        let mut request = kubelet.publish_request(&second);
        request.target_path = kubelet.target(&first).display().to_string();
        let refused = kubelet.publish_with(request).await.unwrap_err();
        assert!(refused.message().contains(&first.volume_id()), "{refused:?}");
        // The end of the refused volume leaves the other one alone.
        let request = NodeUnpublishVolumeRequest {
            volume_id: second.volume_id(),
            target_path: kubelet.target(&first).display().to_string(),
        };
        kubelet.node().node_unpublish_volume(request).await.unwrap();
        assert_eq!(serial(&volume), before);
        assert_eq!(node.stored().len(), 1);
        kubelet.unpublish(&first).await.unwrap();
        assert!(!volume.exists());
    }
}

/// A publish of a volume at the target of another.
fn at_target_of(kubelet: &Kubelet, pod: &Pod, other: &Pod) -> NodePublishVolumeRequest {
    let target_path = kubelet.target(other).display().to_string();
    NodePublishVolumeRequest { target_path, ..kubelet.publish_request(pod) }
}

/// Unpublishes a volume at the target of another.
async fn unpublish_at(kubelet: &Kubelet, pod: &Pod, other: &Pod) {
    let target_path = kubelet.target(other).display().to_string();
    let request = NodeUnpublishVolumeRequest { volume_id: pod.volume_id(), target_path };
    kubelet.node().node_unpublish_volume(request).await.unwrap();
}

/// Checks that no other volume can be published at this one's target, and that the end of that volume leaves this one there.
async fn assert_keeps_its_target(kubelet: &Kubelet, live: &Pod) {
    let volume = kubelet.target(live);
    let before = serial(&volume);
    let other = at_target_of(kubelet, &pod("other"), live);
    let refused = kubelet.publish_with(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains(&live.volume_id()), "{refused:?}");
    // The attributes are what is wrong, though a volume is mounted there.
    let wrong = at_target_of(kubelet, &pod_with("other", &[("no-such-attribute", "x")]), live);
    let refused = kubelet.publish_with(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("no-such-attribute"), "{refused:?}");
    unpublish_at(kubelet, &pod("other"), live).await;
    assert_eq!(serial(&volume), before);
    assert_eq!(mounts_below(&volume).len(), 1);
}

node_test! {
    async fn the_volume_that_is_mounted_at_a_target_keeps_it_and_not_one_that_was_published_there_before() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let live = pod("live");
        let volume = kubelet.target(&live);
        fs::create_dir_all(volume.parent().unwrap()).unwrap();
        let before = ["web-0", "web-1", "web-2", "web-3"].map(crate::support::pod);
        for pod in &before {
            kubelet.publish_with(at_target_of(&kubelet, pod, &live)).await.unwrap();
            nix::mount::umount(&volume).unwrap();
            fs::remove_dir(&volume).unwrap();
        }
        kubelet.publish(&live).await.unwrap();
        assert_keeps_its_target(&kubelet, &live).await;
        for pod in &before {
            let refused = kubelet.publish_with(at_target_of(&kubelet, pod, &live)).await.unwrap_err();
            assert!(refused.message().contains(volume.to_str().unwrap()), "{refused:?}");
            unpublish_at(&kubelet, pod, &live).await;
            assert_whole(&volume);
        }
        assert_eq!(node.stored(), [node.stored_at(&live)]);
    }
}

node_test! {
    async fn a_volume_whose_record_is_unreadable_keeps_its_target() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let live = pod("live");
        let volume = kubelet.publish(&live).await.unwrap();
        node.kill();
        fs::write(node.stored_at(&live).join("record.json"), "not json").unwrap();
        let kubelet = node.started().await;
        assert_keeps_its_target(&kubelet, &live).await;
        kubelet.unpublish(&live).await.unwrap();
        assert!(!volume.exists());
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn the_stats_of_an_unknown_volume_are_not_found_whatever_path_it_names() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let stats = async |volume_id: &str, volume_path: &str| {
            let request = NodeGetVolumeStatsRequest {
                volume_id: volume_id.to_owned(),
                volume_path: volume_path.to_owned(),
                staging_target_path: String::new(),
            };
            kubelet.node().node_get_volume_stats(request).await.unwrap_err()
        };
        for volume_path in ["relative", "/tmp/../etc", "/tmp"] {
            let refused = stats("csi-unknown", volume_path).await;
            assert_eq!(refused.code(), Code::NotFound, "{volume_path:?}: {refused:?}");
        }
        // Without a path or an id the request itself is wrong.
        for (volume_id, volume_path, field) in [("csi-unknown", "", "volume_path"), ("", "/tmp", "volume_id")] {
            let refused = stats(volume_id, volume_path).await;
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
            assert!(refused.message().contains(field), "{refused:?}");
        }
    }
}

/// A field, and a function that makes it invalid.
type Breakage = (&'static str, fn(&mut NodePublishVolumeRequest));

fn mount(
    request: &mut NodePublishVolumeRequest,
) -> &mut certlet_kubelet::proto::csi::volume_capability::MountVolume {
    match &mut request.volume_capability.as_mut().unwrap().access_type {
        Some(AccessType::Mount(mount)) => mount,
        other => panic!("not a mount: {other:?}"),
    }
}

node_test! {
    async fn calls_that_are_not_offered_are_unimplemented() {
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
