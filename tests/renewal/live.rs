//! The live credential: what its followers see, and a new trust bundle without an issuance.

use crate::in_process::{Behaviour, InProcess, started};
use crate::node_test;
use crate::support::{Node, eventually, pod, serial};
use certlet::credential::{Follower, Published};
use certlet::model::{Failure, VolumeId};
use certlet::signer::LocalCa;
use certlet::trust::TrustBundle;
use certlet_kubelet::{Pod, Swaps};
use jiff::SignedDuration;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

fn id(pod: &Pod) -> VolumeId {
    VolumeId::new(pod.volume_id())
}

/// The certificates of a PEM file, DER.
fn ders(file: &Path) -> Vec<Vec<u8>> {
    let pem = fs::read(file).unwrap();
    x509_parser::pem::Pem::iter_from_buffer(&pem).map(|block| block.unwrap().contents).collect()
}

/// A trust bundle with the anchor of another CA.
fn another_anchor(driver: &InProcess) -> TrustBundle {
    let ca = LocalCa::ephemeral(Arc::clone(&driver.clock) as _).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(ca.anchor_pem()).unwrap();
    TrustBundle { anchors: vec![block.contents], ..TrustBundle::default() }
}

/// Checks that the published key belongs to the leaf, and that the files in the volume have the same contents.
fn assert_whole(published: &Published, volume: &Path) {
    let current = published.current.as_ref().expect("a credential for its follower");
    let (_, leaf) = x509_parser::parse_x509_certificate(&current.credential.leaf).unwrap();
    assert_eq!(leaf.public_key().raw, current.credential.key.spki_der());
    assert_eq!(published.facts.as_ref().unwrap().serial, current.credential.facts.serial);
    assert_eq!(serial(volume), current.credential.facts.serial);
    assert_eq!(ders(&volume.join("tls.crt"))[0], current.credential.leaf);
    assert_eq!(ders(&volume.join("ca.crt")), current.trust.anchors);
}

/// Advances the clock in steps until something is published. Work that failed is tried again five seconds later by this
/// clock.
async fn next(driver: &InProcess, follower: &mut Follower, step: SignedDuration) -> Published {
    for _ in 0..100 {
        driver.clock.advance(step);
        if let Ok(is_there) = tokio::time::timeout(Duration::from_millis(300), follower.changed()).await {
            assert!(is_there, "the volume is gone");
            return follower.published();
        }
    }
    panic!("nothing is published");
}

node_test! {
    async fn a_new_anchor_set_becomes_a_new_generation_without_an_issuance() {
        let (node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let volume = kubelet.publish(&pod).await.unwrap();
        let (before, key) = (serial(&volume), fs::read(volume.join("tls.key")).unwrap());
        let mut swaps = Swaps::watch(&volume).unwrap();
        let trust = another_anchor(&driver);
        driver.volumes.set_trust(&id(&pod), trust.clone()).unwrap();
        swaps.next().await.unwrap();
        assert_eq!(ders(&volume.join("ca.crt")), trust.anchors);
        assert_eq!((serial(&volume), fs::read(volume.join("tls.key")).unwrap()), (before.clone(), key));
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), Path::new("..2"), "one swap");
        assert_eq!(driver.signer.calls(), 1, "the signer was not called");
        // The record has the new generation, so that a restart does not renew.
        eventually("the record", async || {
            let record = fs::read_to_string(node.stored_at(&pod).join("record.json")).unwrap();
            record.contains("\"generation\":2") && record.contains(&before)
        }).await;
        // The trust bundle of the other source stays after a renewal, although the signer names its own.
        eventually("the renewal", async || {
            driver.clock.advance(SignedDuration::from_hours(1));
            serial(&volume) != before
        }).await;
        assert_eq!(ders(&volume.join("ca.crt")), trust.anchors);
        driver.stop().await;
    }
}

node_test! {
    async fn a_follower_sees_every_renewal_and_every_anchor_set_whole() {
        let (mut node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let volume = kubelet.publish(&pod).await.unwrap();
        let mut follower = driver.volumes.follow(&id(&pod)).await.unwrap();
        assert_whole(&follower.published(), &volume);
        for _ in 0..3 {
            assert_whole(&next(&driver, &mut follower, SignedDuration::from_hours(16)).await, &volume);
        }
        driver.volumes.set_trust(&id(&pod), another_anchor(&driver)).unwrap();
        assert_whole(&next(&driver, &mut follower, SignedDuration::from_secs(5)).await, &volume);
        // After a restart the credential is read back from the store, and no signer is called.
        let calls = driver.signer.calls();
        let (driver, kubelet) = driver.restarted(&mut node).await;
        let mut follower = driver.volumes.follow(&id(&pod)).await.unwrap();
        assert_whole(&follower.published(), &volume);
        assert_eq!(driver.signer.calls(), calls);
        kubelet.unpublish(&pod).await.unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(30), follower.changed()).await;
        assert_eq!(changed, Ok(false), "the volume is gone");
        assert!(driver.volumes.follow(&id(&pod)).await.is_err());
        driver.stop().await;
    }
}

node_test! {
    async fn a_request_that_its_signer_refused_stands_for_ten_minutes() {
        let (_node, driver, kubelet) = started(true).await;
        let pod = pod("web-0");
        driver.signer.set(Behaviour::Fails(Failure::refused("was denied by a policy")));
        for _ in 0..3 {
            let refused = kubelet.publish(&pod).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("was denied by a policy"), "{refused}");
        }
        let refused = kubelet.publish(&pod).await.unwrap_err();
        assert!(refused.message().contains("; certlet asks again after "), "{refused}");
        assert_eq!(driver.signer.calls(), 1, "nobody is asked while the refusal stands");
        driver.clock.advance(SignedDuration::from_mins(11));
        driver.signer.set(Behaviour::Signs);
        // The check whether the pod is gone is due by now too, and may hold the lock. The kubelet tries again.
        eventually("it is published", async || kubelet.publish(&pod).await.is_ok()).await;
        let requests = driver.signer.requests.lock().unwrap().clone();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0], requests[1], "the key is kept");
        driver.stop().await;
    }
}

/// Records as version 0.1.0 wrote them, and the placeholder for the kubelet's root in them.
const RECORDS: [&str; 2] =
    [include_str!("../fixtures/record-0.1.0.json"), include_str!("../fixtures/record-failed-0.1.0.json")];
const ROOT: &str = "@ROOT@";

/// Writes a volume as version 0.1.0 did, and mounts it at its target.
fn laid_out(node: &Node, record: &str) -> (VolumeId, std::path::PathBuf) {
    // Issued a month before the day in the fixture.
    let record = record.replace(ROOT, node.root.to_str().unwrap()).replace("2026-11-26", "2026-10-26");
    let json: serde_json::Value = serde_json::from_str(&record).unwrap();
    let id = json["record"]["volume_id"].as_str().unwrap();
    let generation = json["record"]["issued"]["generation"].as_u64().unwrap();
    let volume = node.data_root().join("volumes").join(id);
    let mounted = volume.join("mount");
    let files = mounted.join(format!("..{generation}"));
    fs::create_dir_all(&files).unwrap();
    fs::write(volume.join("record.json"), record).unwrap();
    symlink(format!("..{generation}"), mounted.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        fs::write(files.join(name), name).unwrap();
        symlink(Path::new("..data").join(name), mounted.join(name)).unwrap();
    }
    let target = std::path::PathBuf::from(json["record"]["target"].as_str().unwrap());
    fs::create_dir_all(&target).unwrap();
    mount(Some(&mounted), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    (VolumeId::new(id), target)
}

node_test! {
    async fn a_record_of_the_version_before_is_adopted() {
        let mut node = Node::new();
        fs::create_dir_all(node.data_root()).unwrap();
        mount(Some("certlet"), &node.data_root(), Some("tmpfs"), MsFlags::empty(), Some("mode=0700")).unwrap();
        let volumes = RECORDS.map(|record| laid_out(&node, record));
        let kubelet = node.started().await;
        let status = node.status(&["--json"]);
        let rows: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 2, "{status}");
        assert!(node.log().contains("\"adopted\":2"), "{}", node.log());
        // Both renewals fell due long ago.
        for (_, target) in &volumes {
            eventually("the renewal", async || certlet_kubelet::leaf(target).is_ok()).await;
        }
        drop(kubelet);
        node.stop();
    }
}
