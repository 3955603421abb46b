//! The driver through its gRPC socket: what the kubelet and a pod's author see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/cert_manager.rs"]
#[allow(dead_code, reason = "only its issuers are needed here")]
mod cert_manager;
#[path = "../support/certificate_requests.rs"]
mod certificate_requests;
mod class_changes;
mod classes;
#[path = "../support/crl.rs"]
mod crl;
mod crls;
#[path = "../support/fake_pca/mod.rs"]
#[allow(dead_code, reason = "only its CA is needed here")]
mod fake_pca;
mod files;
mod life;
mod names;
mod refused;
mod root_rotation;
mod spiffe;
#[path = "../support/mod.rs"]
mod support;
mod trust;

use certlet_kubelet::proto::csi::volume_usage::Unit;
use certlet_kubelet::proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest,
    ProbeRequest,
};
use std::collections::BTreeSet;
use support::{Node, pod};
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
