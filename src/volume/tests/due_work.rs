//! What happens when work falls due, with a real store, real mounts and a local CA.

use super::{LIMITS, names, options, pod, set, target, volume, volume_of};
use crate::attributes::VolumeContext;
use crate::credential::Work;
use crate::model::{FailureKind, PodTokens, TrustSource, WorkloadIdentity};
use crate::namespace::in_namespace;
use crate::platform::SystemClock;
use crate::signer::{ConfiguredSigner, LocalCa};
use crate::trust::{CrlMetrics, CrlOptions, Crls, Pins, TrustBundle, TrustMetrics, TrustSources};
use crate::volume::registry::{Operation, Registry};
use crate::volume::volume::Volume;
use crate::volume::{Parts, PublishRequest, VolumeFiles, VolumeService};
use crate::x509::testing::attributes;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A running service with the volume `v` published at its target.
struct Node {
    service: VolumeService,
    target: PathBuf,
}

impl Node {
    async fn start(scratch: &Path) -> Self {
        let clock = Arc::new(SystemClock);
        let signer = LocalCa::ephemeral(Arc::clone(&clock) as _).unwrap();
        let files = VolumeFiles::open(&options(scratch)).unwrap().0;
        let service = VolumeService::new(Parts {
            crls: Crls::new(
                CrlOptions::default(),
                Arc::clone(&clock) as _,
                Arc::clone(&files.store),
                CrlMetrics::default(),
            ),
            files,
            registry: Arc::default(),
            signers: vec![ConfiguredSigner::new(Arc::new(signer))],
            trust: TrustSources::new(Arc::clone(&clock) as _, TrustMetrics::default()),
            clock,
            metrics: Arc::default(),
            events: None,
            addresses: None,
            limits: LIMITS,
            pins: Pins::default(),
            continue_on_not_ready: false,
            defaults: Arc::default(),
        });
        let node = Self { service, target: target(scratch, "pod") };
        node.publish().await;
        let running = node.service.clone();
        tokio::spawn(async move { running.run().await });
        node
    }

    async fn publish(&self) {
        let request = PublishRequest {
            volume: volume("v"),
            target: self.target.clone(),
            context: VolumeContext {
                pod: pod(),
                tokens: PodTokens::default(),
                raw: [].into_iter().collect(),
                mistyped_passwords: Vec::new(),
                keystore_password: None,
            },
            spec: Arc::new(attributes()),
            mount_group: None,
            timeout: None,
        };
        self.service.publish(request).await.unwrap();
    }

    fn volume(&self) -> Arc<Volume> {
        self.service.volume(&volume("v")).unwrap()
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.service.context.registry
    }

    fn set_trust(&self) {
        self.service
            .set_trust(
                &volume("v"),
                TrustBundle { anchors: vec![b"another".to_vec()], ..TrustBundle::default() },
            )
            .unwrap();
    }

    fn generation(&self) -> Option<u64> {
        self.service.context.files.store.generation(&volume("v")).unwrap()
    }
}

fn with_node(scratch: &Path, body: impl AsyncFnOnce(Node)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { body(Node::start(scratch).await).await });
}

/// Waits for a condition, for less time than the pause after failed work.
async fn soon(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not within three seconds: {what}");
}

#[test]
fn work_that_meets_a_held_lock_runs_as_soon_as_the_lock_is_released() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            let publish = node.registry().try_acquire(&volume("v"), Operation::Publish).unwrap();
            node.set_trust();
            soon("it is due", || node.volume().schedule.due(Work::RefreshTrust).is_none()).await;
            assert_eq!(node.generation(), Some(1));
            drop(publish);
            soon("the trust bundle is handed over", || node.generation() == Some(2)).await;
        });
    });
}

#[test]
fn a_renewal_that_is_due_before_its_publish_has_ended_is_not_lost() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            // The state during a publish that has issued a short-lived certificate and still holds the lock.
            let publish = node.registry().try_acquire(&volume("v"), Operation::Publish).unwrap();
            let published = node.registry().remove(&volume("v")).unwrap();
            published.schedule.put_now(Work::Renew);
            soon("it is due", || published.schedule.due(Work::Renew).is_none()).await;
            node.registry().insert(published);
            drop(publish);
            soon("it is renewed", || node.generation() == Some(2)).await;
        });
    });
}

#[test]
fn a_mounted_volume_is_renewed_though_its_mount_could_not_be_examined_at_the_start() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            let volume = node.volume();
            let due = volume.schedule.due(Work::Renew);
            assert!(due.is_some());
            volume.schedule.clear(Work::Renew);
            volume.schedule.put_now(Work::Reap);
            soon("its renewal is scheduled", || volume.schedule.due(Work::Renew) == due).await;
            assert_eq!(node.generation(), Some(1));
        });
    });
}

#[test]
fn a_new_trust_bundle_reaches_a_volume_that_is_not_mounted_before_it_is() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            node.service.context.files.mounts.unbind(&volume("v"), &node.target).unwrap();
            node.set_trust();
            soon("the trust bundle is written", || node.generation() == Some(2)).await;
            let free = || node.registry().try_acquire(&volume("v"), Operation::Publish).is_ok();
            soon("its lock is released", free).await;
            node.publish().await;
            assert_eq!(names(&node.target), set(&["..2", "..data", "tls.crt", "tls.key", "ca.crt"]));
            let anchors = fs::read_to_string(node.target.join("ca.crt")).unwrap();
            assert_eq!(anchors, "-----BEGIN CERTIFICATE-----\nYW5vdGhlcg==\n-----END CERTIFICATE-----\n");
        });
    });
}

#[test]
fn a_renewal_that_waits_for_its_signer_outlives_a_new_trust_bundle() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            let store = &node.service.context.files.store;
            let request = "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n";
            let checkpoint =
                store.new_checkpoint(&volume("v"), Zeroizing::default(), request.into(), Some(1));
            checkpoint.save("request-1").unwrap();
            node.set_trust();
            let follows = || store.checkpoint(&volume("v")).unwrap().unwrap().follows();
            soon("it follows the new generation", || follows() == Some(2)).await;
            assert_eq!(node.generation(), Some(2));
        });
    });
}

#[test]
fn the_volume_of_a_pod_that_is_gone_is_removed() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            node.service.context.files.mounts.unbind(&volume("v"), &node.target).unwrap();
            fs::remove_dir(node.target.parent().unwrap()).unwrap();
            node.volume().schedule.put_now(Work::Reap);
            soon("it is removed", || node.registry().get(&volume("v")).is_none()).await;
            assert_eq!(node.generation(), None);
        });
    });
}

#[test]
fn a_republish_while_the_process_ends_finds_its_volume_in_order() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            node.service.shut_down(Duration::ZERO).await;
            node.publish().await;
        });
    });
}

#[test]
fn a_mounted_volume_without_a_record_is_adopted_though_the_store_is_full() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            node.registry().remove(&volume("v"));
            let rest = options(scratch).root.join("rest");
            assert!(fs::write(&rest, vec![0; 16 * 1024 * 1024]).is_err(), "the store still has space");
            node.publish().await;
            assert_eq!(node.generation(), Some(1));
            fs::remove_file(&rest).unwrap();
            soon("it is renewed", || node.generation() == Some(2)).await;
        });
    });
}

#[test]
fn a_namespace_follows_so_many_sources_of_its_own_choice_and_no_more() {
    in_namespace(|scratch| {
        with_node(scratch, async |node| {
            let source =
                |number| format!("clustertrustbundle:roots-{number}").parse::<TrustSource>().unwrap();
            let mut spec = attributes();
            spec.trust_sources = (0..15).map(source).collect();
            node.registry().insert(volume_of("many", spec));
            let admitted = |sources: &[TrustSource], namespace: &str| {
                let pod = WorkloadIdentity { namespace: namespace.into(), ..pod() };
                node.service.context.admit_sources(sources, &pod)
            };
            let ours = pod().namespace;
            admitted(&[source(3), source(15), TrustSource::Signer], &ours).unwrap();
            let full = admitted(&[source(15), source(16)], &ours).unwrap_err();
            assert_eq!(full.kind, FailureKind::Full);
            assert!(full.to_string().contains("would use 17 trust sources"), "{full}");
            admitted(&[source(15), source(16)], "other").unwrap();
        });
    });
}
