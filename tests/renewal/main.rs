//! Renewals, with a clock and a signer that the tests control.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/in_process.rs"]
mod in_process;
mod live;
mod slow_signer;
#[path = "../support/mod.rs"]
mod support;

use certlet::model::Failure;
use certlet_kubelet::{Kubelet, Pod};
use in_process::{Behaviour, InProcess, started};
use jiff::SignedDuration;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{eventually, key_in, pod, pod_with, serial};
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// Publishes, and advances the clock until a renewal was tried with this behaviour of the signer. Returns the volume's target,
/// and the serial number of its first certificate.
async fn publish_and_try_renewal(
    driver: &InProcess,
    kubelet: &Kubelet,
    pod: &Pod,
    behaviour: Behaviour,
) -> (PathBuf, String) {
    let volume = kubelet.publish(pod).await.unwrap();
    let before = serial(&volume);
    driver.signer.set(behaviour);
    driver.clock.advance(SignedDuration::from_hours(17));
    eventually("a renewal is tried", async || driver.signer.calls() == 2).await;
    (volume, before)
}

fn down() -> Behaviour {
    Behaviour::Fails(Failure::transient("the signer is down".to_owned()))
}

node_test! {
    async fn a_failed_renewal_keeps_the_old_certificate_and_is_tried_again() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let (volume, before) = publish_and_try_renewal(&driver, &kubelet, &pod, down()).await;
        assert_eq!(serial(&volume), before);
        // A republish succeeds although the renewal fails, and the volume condition reports the failure.
        kubelet.publish(&pod).await.unwrap();
        driver.clock.advance(SignedDuration::from_hours(3));
        eventually("the condition says so", async || {
            let condition = kubelet.stats(&pod).await.unwrap().volume_condition.unwrap();
            condition.abnormal && condition.message.contains("2 attempts") && condition.message.contains("the signer is down")
        }).await;
        driver.signer.set(Behaviour::Signs);
        driver.clock.advance(SignedDuration::from_mins(10));
        eventually("the renewal follows", async || serial(&volume) != before).await;
        let condition = kubelet.stats(&pod).await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{condition:?}");
        driver.stop().await;
    }
}

async fn publish_with_token(kubelet: &Kubelet, pod: &Pod) {
    publish_with_token_until(kubelet, pod, "2999-01-01T00:00:00Z").await;
}

async fn publish_with_token_until(kubelet: &Kubelet, pod: &Pod, expires_at: &str) {
    let mut publish = kubelet.publish_request(pod);
    let tokens = format!(r#"{{"":{{"token":"t","expirationTimestamp":"{expires_at}"}}}}"#);
    publish.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens);
    kubelet.publish_with(publish).await.unwrap();
}

node_test! {
    async fn a_fresh_token_brings_a_failed_renewal_forward() {
        let (node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let (volume, before) = publish_and_try_renewal(&driver, &kubelet, &pod, down()).await;
        eventually("the failure is on record", async || {
            let record = std::fs::read(node.stored_at(&pod).join("record.json")).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            record["record"]["last_error"].is_object()
        }).await;
        driver.signer.wants_token.store(true, Ordering::Relaxed);
        driver.signer.set(Behaviour::Signs);
        kubelet.publish(&pod).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(serial(&volume), before, "nothing has changed, so nothing is tried before its time");
        publish_with_token(&kubelet, &pod).await;
        eventually("it is renewed", async || serial(&volume) != before).await;
        driver.stop().await;
    }
}

node_test! {
    async fn after_a_start_a_renewal_waits_for_the_pods_token() {
        let (mut node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let volume = kubelet.publish(&pod).await.unwrap();
        let before = serial(&volume);
        driver.signer.wants_token.store(true, Ordering::Relaxed);
        driver.clock.advance(SignedDuration::from_hours(17));
        let (driver, kubelet) = driver.restarted(&mut node).await;
        driver.clock.advance(SignedDuration::from_mins(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(driver.signer.calls(), 1, "it could only fail");
        publish_with_token(&kubelet, &pod).await;
        eventually("it is renewed", async || {
            driver.clock.advance(SignedDuration::from_secs(1));
            serial(&volume) != before
        }).await;
        driver.stop().await;
    }
}

node_test! {
    async fn a_running_volume_whose_attributes_are_refused_now_is_renewed_with_its_fresh_tokens() {
        let (mut node, driver, kubelet) = started(false).await;
        let (accepted, refused) = ("spiffe://cluster.local/web", "spiffe://cluster.local/web,https://web");
        let volume = kubelet.publish(&pod_with("web-0", &[("uri-sans", accepted)])).await.unwrap();
        let before = serial(&volume);
        driver.signer.wants_token.store(true, Ordering::Relaxed);
        let (clock, signer) = (Arc::clone(&driver.clock), Arc::clone(&driver.signer));
        driver.stop().await;
        // An earlier build accepted a SPIFFE ID beside another URI.
        let pod = pod_with("web-0", &[("uri-sans", refused)]);
        let path = node.stored_at(&pod).join("record.json");
        let record = std::fs::read_to_string(&path).unwrap();
        let older = record.replace(accepted, refused);
        assert_ne!(older, record);
        std::fs::write(&path, older).unwrap();
        let (driver, kubelet) = InProcess::start(&mut node, &clock, &signer).await;
        let new = kubelet.publish(&pod_with("web-1", &[("uri-sans", refused)])).await.unwrap_err();
        assert_eq!(new.code(), Code::InvalidArgument, "{new:?}");
        driver.clock.advance(SignedDuration::from_hours(17));
        publish_with_token(&kubelet, &pod).await;
        eventually("it is renewed with the token", async || {
            driver.clock.advance(SignedDuration::from_secs(1));
            serial(&volume) != before
        }).await;
        // A renewal that failed for want of a fresh token is tried again at once.
        let before = serial(&volume);
        driver.signer.set(down());
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("the failure is on record", async || node.last_error(&pod).is_some()).await;
        driver.signer.set(Behaviour::Signs);
        publish_with_token_until(&kubelet, &pod, "3000-01-01T00:00:00Z").await;
        eventually("it is renewed at once", async || serial(&volume) != before).await;
        // And so is one whose certificate has expired.
        let before = serial(&volume);
        driver.signer.set(down());
        driver.clock.advance(SignedDuration::from_hours(25));
        eventually("the failure is on record", async || node.last_error(&pod).is_some()).await;
        driver.signer.set(Behaviour::Signs);
        kubelet.publish(&pod).await.unwrap();
        eventually("it is renewed at once", async || serial(&volume) != before).await;
        driver.stop().await;
    }
}

node_test! {
    async fn a_reader_never_sees_a_mixed_generation_during_a_thousand_renewals() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = pod_with("web-0", &[("combined-file", "all.pem")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let done = CancellationToken::new();
        let reader = { let (volume, done) = (volume.clone(), done.clone()); std::thread::spawn(move || read_until(&volume, &done)) };
        for _ in 0..1000 {
            let before = serial(&volume);
            // The renewal is due after 16 hours at the latest. If the clock was advanced during the renewal before this
            // one, it is due a little later.
            driver.clock.advance(SignedDuration::from_hours(16));
            eventually("the renewal", async || {
                driver.clock.advance(SignedDuration::from_mins(1));
                serial(&volume) != before
            }).await;
        }
        done.cancel();
        let (reads, generations) = reader.join().unwrap();
        assert!(reads > 1000 && generations > 100, "{reads} reads of {generations} generations prove nothing");
        driver.stop().await;
    }
}

/// Reads the volume like Envoy, through one resolution of `..data`, until `done`. Checks that the files belong
/// together. Returns the number of reads and of generations.
fn read_until(volume: &std::path::Path, done: &CancellationToken) -> (usize, usize) {
    let (mut reads, mut seen) = (0, std::collections::HashSet::new());
    while !done.is_cancelled() {
        let Ok(generation) = std::fs::read_link(volume.join("..data")).map(|link| volume.join(link)) else {
            panic!("..data is gone");
        };
        let files = ["tls.key", "tls.crt", "all.pem"].map(|name| std::fs::read(generation.join(name)));
        // A swap removes the generation that is being read. Readers of the kubelet's own volumes must expect that too. A
        // reader that gets all files gets them from one generation.
        let [Ok(key), Ok(certificate), Ok(all)] = files else { continue };
        assert_eq!([key, certificate.clone()].concat(), all, "mixed generations in {}", generation.display());
        reads += 1;
        seen.insert(certificate);
    }
    (reads, seen.len())
}

node_test! {
    async fn an_answer_that_is_no_certificate_changes_nothing() {
        let (_node, driver, kubelet) = started(false).await;
        let (volume, before) = publish_and_try_renewal(&driver, &kubelet, &pod("web-0"), Behaviour::AnswersGarbage).await;
        let refused = kubelet.publish(&pod("web-1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert_eq!(serial(&volume), before);
        driver.stop().await;
    }
}

node_test! {
    async fn an_expired_volume_is_republished_and_renewed_at_once() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let (volume, before) = publish_and_try_renewal(&driver, &kubelet, &pod, down()).await;
        driver.clock.advance(SignedDuration::from_hours(10));
        let condition = kubelet.stats(&pod).await.unwrap().volume_condition.unwrap();
        assert!(condition.abnormal && condition.message.contains("expired"), "{condition:?}");
        kubelet.publish(&pod).await.expect("a republish of a mounted volume never fails");
        assert_eq!(serial(&volume), before, "the old files stay");
        driver.signer.set(Behaviour::Signs);
        kubelet.publish(&pod).await.unwrap();
        // An attempt that began before the signer's behaviour changed is followed by a pause.
        eventually("it is renewed", async || {
            driver.clock.advance(SignedDuration::from_secs(1));
            serial(&volume) != before
        }).await;
        driver.stop().await;
    }
}

node_test! {
    async fn a_clock_that_jumps_back_breaks_nothing_and_one_that_jumps_ahead_renews() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        let before = serial(&volume);
        driver.clock.advance(SignedDuration::from_hours(-48));
        kubelet.publish(&pod("web-0")).await.unwrap();
        assert_eq!((serial(&volume), driver.signer.calls()), (before.clone(), 1));
        driver.clock.advance(SignedDuration::from_hours(48 + 16));
        eventually("it is renewed", async || serial(&volume) != before).await;
        driver.stop().await;
    }
}

node_test! {
    async fn after_a_clock_was_ahead_all_volumes_are_renewed_in_time() {
        let (_node, driver, kubelet) = started(false).await;
        let failing = kubelet.publish(&pod("web-0")).await.unwrap();
        let before = serial(&failing);
        driver.signer.set(down());
        driver.clock.advance(SignedDuration::from_hours(720));
        eventually("a renewal is tried", async || driver.signer.calls() == 2).await;
        driver.signer.set(Behaviour::Signs);
        let issued_ahead = kubelet.publish(&pod("web-1")).await.unwrap();
        let ahead = serial(&issued_ahead);
        driver.clock.advance(SignedDuration::from_hours(-720));
        eventually("the certificate that is not valid yet is renewed", async || {
            driver.clock.advance(SignedDuration::from_secs(1));
            serial(&issued_ahead) != ahead
        }).await;
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("the volume whose renewal failed is renewed", async || serial(&failing) != before).await;
        driver.stop().await;
    }
}

node_test! {
    async fn without_due_work_nothing_wakes_up() {
        let (_node, driver, kubelet) = started(false).await;
        for number in 0..50 {
            kubelet.publish(&pod(&format!("web-{number}"))).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waits = driver.clock.waits.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(driver.clock.waits.load(Ordering::Relaxed), waits);
        driver.stop().await;
    }
}

node_test! {
    async fn volumes_published_together_are_not_renewed_together_and_never_too_many_at_once() {
        let (_node, driver, kubelet) = started(false).await;
        let mut volumes = Vec::new();
        for number in 0..40 {
            volumes.push(kubelet.publish(&pod(&format!("web-{number}"))).await.unwrap());
        }
        // Between the earliest and the latest due time (two thirds of the lifetime, less up to a tenth), renewals come
        // one after the other.
        driver.clock.advance(SignedDuration::from_mins(16 * 60 - 48));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let some = driver.signer.calls() - 40;
        assert!((2..38).contains(&some), "{some} of 40 renewed at half the window");
        driver.signer.set(Behaviour::Waits);
        driver.clock.advance(SignedDuration::from_hours(1));
        eventually("three renewals are active", async || driver.signer.calls() == 40 + some + 3).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(
            driver.signer.calls(),
            40 + some + 3,
            "as many of one namespace as --max-renewals-in-flight=4 allows"
        );
        driver.signer.set(Behaviour::Signs);
        eventually("all are renewed", async || driver.signer.calls() == 80).await;
        driver.stop().await;
    }
}

node_test! {
    async fn an_unpublish_ends_a_publish_that_waits_for_a_signer() {
        let (node, driver, kubelet) = started(true).await;
        driver.signer.set(Behaviour::Waits);
        let pod = pod("web-0");
        let publish = { let (kubelet, pod) = (kubelet.clone(), pod.clone()); tokio::spawn(async move { kubelet.publish(&pod).await }) };
        eventually("the signer is asked", async || driver.signer.calls() == 1).await;
        kubelet.unpublish(&pod).await.unwrap();
        assert_eq!(publish.await.unwrap().unwrap_err().code(), Code::Cancelled);
        assert_eq!(node.stored(), Vec::<PathBuf>::new());
        assert!(!kubelet.target(&pod).exists());
        driver.stop().await;
    }
}

node_test! {
    async fn a_republish_during_a_renewal_is_fine_and_an_unpublish_ends_the_renewal() {
        let (node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        kubelet.publish(&pod).await.unwrap();
        driver.signer.set(Behaviour::Waits);
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("the renewal waits", async || driver.signer.calls() == 2).await;
        kubelet.publish(&pod).await.unwrap();
        kubelet.unpublish(&pod).await.unwrap();
        assert_eq!(node.stored(), Vec::<PathBuf>::new());
        driver.stop().await;
    }
}

node_test! {
    async fn a_shutdown_does_not_wait_for_ever_for_a_signer() {
        let (_node, driver, kubelet) = started(false).await;
        driver.signer.set(Behaviour::Waits);
        let publish = { let kubelet = kubelet.clone(); tokio::spawn(async move { kubelet.publish(&pod("web-0")).await }) };
        eventually("the signer is asked", async || driver.signer.calls() == 1).await;
        driver.stop().await;
        assert!(publish.await.unwrap().is_err());
    }
}

node_test! {
    async fn a_random_keystore_password_stays_after_a_renewal() {
        let (_node, driver, kubelet) = started(false).await;
        let attributes = [("pkcs12-enable", "true"), ("pkcs12-password-file", "password")];
        let volume = kubelet.publish(&pod_with("web-0", &attributes)).await.unwrap();
        let read = |name: &str| std::fs::read(volume.join(name)).unwrap();
        let (before, password, keystore) = (serial(&volume), read("password"), read("keystore.p12"));
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_eq!(read("password"), password);
        assert_ne!(read("keystore.p12"), keystore);
        driver.stop().await;
    }
}

node_test! {
    async fn a_reused_key_stays_after_a_renewal() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&pod_with("web-0", &[("reuse-private-key", "true"), ("key-algorithm", "RSA"), ("key-encoding", "PKCS1")])).await.unwrap();
        let (before, key) = (serial(&volume), key_in(&volume));
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_eq!(key_in(&volume), key);
        driver.stop().await;
    }
}
