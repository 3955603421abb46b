//! Renewal through the socket, with a clock that tests turn and a signer that fails when told to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/in_process.rs"]
mod in_process;
mod live;
mod slow_signer;
#[path = "../support/mod.rs"]
mod support;

use certlet::model::Failure;
use certlet_kubelet::{Kubelet, Pod};
use in_process::{InProcess, Mood, started};
use jiff::SignedDuration;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{eventually, key_in, pod, pod_with, serial};
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// Publishes, and turns the clock until a renewal has been tried with the signer in this mood. Answers where the volume is, and
/// the serial number that it had.
async fn renewed_in_vain(driver: &InProcess, kubelet: &Kubelet, pod: &Pod, mood: Mood) -> (PathBuf, String) {
    let volume = kubelet.publish(pod).await.unwrap();
    let before = serial(&volume);
    driver.signer.set(mood);
    driver.clock.advance(SignedDuration::from_hours(17));
    eventually("a renewal is tried", async || driver.signer.calls() == 2).await;
    (volume, before)
}

fn down() -> Mood {
    Mood::Fails(Failure::transient("the signer is down".to_owned()))
}

node_test! {
    async fn a_failed_renewal_keeps_the_old_certificate_and_follows_by_itself() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let (volume, before) = renewed_in_vain(&driver, &kubelet, &pod, down()).await;
        assert_eq!(serial(&volume), before);
        // Trouble is told, and a republish is fine all the same.
        kubelet.publish(&pod).await.unwrap();
        driver.clock.advance(SignedDuration::from_hours(3));
        eventually("the condition says so", async || {
            let condition = kubelet.stats(&pod).await.unwrap().volume_condition.unwrap();
            condition.abnormal && condition.message.contains("2 attempts") && condition.message.contains("the signer is down")
        }).await;
        driver.signer.set(Mood::Signs);
        driver.clock.advance(SignedDuration::from_mins(10));
        eventually("the renewal follows", async || serial(&volume) != before).await;
        let condition = kubelet.stats(&pod).await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{condition:?}");
        driver.stop().await;
    }
}

async fn publish_with_token(kubelet: &Kubelet, pod: &Pod) {
    let mut publish = kubelet.publish_request(pod);
    let tokens = r#"{"":{"token":"t","expirationTimestamp":"2999-01-01T00:00:00Z"}}"#;
    publish.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens.to_owned());
    kubelet.publish_with(publish).await.unwrap();
}

node_test! {
    async fn a_fresh_token_puts_a_failed_renewal_ahead() {
        let (node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let (volume, before) = renewed_in_vain(&driver, &kubelet, &pod, down()).await;
        eventually("the failure is on record", async || {
            let record = std::fs::read(node.stored_at(&pod).join("record.json")).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            record["record"]["last_error"].is_object()
        }).await;
        driver.signer.wants_token.store(true, Ordering::Relaxed);
        driver.signer.set(Mood::Signs);
        kubelet.publish(&pod).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(serial(&volume), before, "nothing has changed, so nothing is tried before its time");
        publish_with_token(&kubelet, &pod).await;
        eventually("it is renewed", async || serial(&volume) != before).await;
        driver.stop().await;
    }
}

node_test! {
    async fn after_a_start_a_renewal_waits_for_the_pods_token_and_fails_nothing() {
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
    async fn a_reader_never_sees_a_mixed_generation_during_a_thousand_renewals() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = pod_with("web-0", &[("combined-file", "all.pem")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let done = CancellationToken::new();
        let reader = { let (volume, done) = (volume.clone(), done.clone()); std::thread::spawn(move || read_until(&volume, &done)) };
        for _ in 0..1000 {
            let before = serial(&volume);
            // Due at two thirds of the day at the latest. The clock may have been turned in the middle of the renewal
            // before this one, which then counts from there: a little more until it is due.
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

/// Reads the volume as Envoy does, through one resolution of `..data`, until told to stop: the pieces belong together.
/// Answers how often it read, and how many generations it saw.
fn read_until(volume: &std::path::Path, done: &CancellationToken) -> (usize, usize) {
    let (mut reads, mut seen) = (0, std::collections::HashSet::new());
    while !done.is_cancelled() {
        let Ok(generation) = std::fs::read_link(volume.join("..data")).map(|link| volume.join(link)) else {
            panic!("..data is gone");
        };
        let files = ["tls.key", "tls.crt", "all.pem"].map(|name| std::fs::read(generation.join(name)));
        // A generation that was swapped out while it was read is gone, which a reader of the kubelet's own volumes has to
        // expect too; a reader that got all the files got them of one generation.
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
        let (volume, before) = renewed_in_vain(&driver, &kubelet, &pod("web-0"), Mood::Babbles).await;
        let refused = kubelet.publish(&pod("web-1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert_eq!(serial(&volume), before);
        driver.stop().await;
    }
}

node_test! {
    async fn an_expired_volume_is_republished_and_renewed_as_soon_as_can_be() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = pod("web-0");
        let (volume, before) = renewed_in_vain(&driver, &kubelet, &pod, down()).await;
        driver.clock.advance(SignedDuration::from_hours(10));
        let condition = kubelet.stats(&pod).await.unwrap().volume_condition.unwrap();
        assert!(condition.abnormal && condition.message.contains("expired"), "{condition:?}");
        kubelet.publish(&pod).await.expect("a republish of a mounted volume never fails");
        assert_eq!(serial(&volume), before, "the old files stay");
        driver.signer.set(Mood::Signs);
        kubelet.publish(&pod).await.unwrap();
        // A try that began before the signer's change of mood pauses first.
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
    async fn a_clock_that_was_ahead_for_a_while_leaves_nothing_to_its_future() {
        let (_node, driver, kubelet) = started(false).await;
        let failing = kubelet.publish(&pod("web-0")).await.unwrap();
        let before = serial(&failing);
        driver.signer.set(down());
        driver.clock.advance(SignedDuration::from_hours(720));
        eventually("a renewal is tried", async || driver.signer.calls() == 2).await;
        driver.signer.set(Mood::Signs);
        let issued_ahead = kubelet.publish(&pod("web-1")).await.unwrap();
        let ahead = serial(&issued_ahead);
        driver.clock.advance(SignedDuration::from_hours(-720));
        eventually("what is not valid yet is renewed", async || {
            driver.clock.advance(SignedDuration::from_secs(1));
            serial(&issued_ahead) != ahead
        }).await;
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("what failed is renewed in time", async || serial(&failing) != before).await;
        driver.stop().await;
    }
}

node_test! {
    async fn nothing_wakes_up_when_nothing_is_due() {
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
        // Between the earliest point (two thirds less a tenth) and the latest, renewals come one after the other.
        driver.clock.advance(SignedDuration::from_mins(16 * 60 - 48));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let some = driver.signer.calls() - 40;
        assert!((2..38).contains(&some), "{some} of 40 renewed at half the window");
        driver.signer.set(Mood::Waits);
        driver.clock.advance(SignedDuration::from_hours(1));
        eventually("four are at work", async || driver.signer.calls() == 40 + some + 4).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(driver.signer.calls(), 40 + some + 4, "as many as --max-renewals-in-flight allows");
        driver.signer.set(Mood::Signs);
        eventually("all are renewed", async || driver.signer.calls() == 80).await;
        driver.stop().await;
    }
}

node_test! {
    async fn an_unpublish_ends_a_publish_that_waits_for_a_signer() {
        let (node, driver, kubelet) = started(true).await;
        driver.signer.set(Mood::Waits);
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
        driver.signer.set(Mood::Waits);
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
        driver.signer.set(Mood::Waits);
        let publish = { let kubelet = kubelet.clone(); tokio::spawn(async move { kubelet.publish(&pod("web-0")).await }) };
        eventually("the signer is asked", async || driver.signer.calls() == 1).await;
        driver.stop().await;
        assert!(publish.await.unwrap().is_err());
    }
}

node_test! {
    async fn a_key_that_is_to_be_kept_is_kept() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&pod_with("web-0", &[("reuse-private-key", "true"), ("key-algorithm", "RSA"), ("key-encoding", "PKCS1")])).await.unwrap();
        let (before, key) = (serial(&volume), key_in(&volume));
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_eq!(key_in(&volume), key);
        driver.stop().await;
    }
}
