//! A signer that takes longer than its callers wait.

use crate::in_process::{Behaviour, started};
use crate::support::{assert_whole, eventually, key_in, pod, pod_with, serial};
use crate::{down, node_test, publish_and_try_renewal};
use certlet::model::VolumeId;
use jiff::SignedDuration;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Code;

node_test! {
    async fn a_slow_signer_gets_one_request_however_often_the_kubelet_asks() {
        let (mut node, driver, kubelet) = started(true).await;
        driver.signer.set(Behaviour::Waits);
        let pod = pod("web-0");
        for attempt in 1..=3 {
            let cut_off = tokio::time::timeout(Duration::from_millis(100), kubelet.publish(&pod)).await;
            assert!(cut_off.is_err(), "{cut_off:?}");
            eventually("the attempt is noticed", async || driver.signer.calls() == attempt).await;
            eventually("and cut off", async || kubelet.stats(&pod).await.is_err()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // After a restart, key and request are still in the store.
        let (driver, kubelet) = driver.restarted(&mut node).await;
        driver.signer.set(Behaviour::Signs);
        let volume = kubelet.publish(&pod).await.unwrap();
        assert_whole(&volume);
        let requests = driver.signer.requests.lock().unwrap().clone();
        assert!(requests.len() >= 4 && requests.iter().all(|request| *request == requests[0]), "one request, asked for again");
        let checkpoints = driver.signer.checkpoints.lock().unwrap().clone();
        assert_eq!(checkpoints.first(), Some(&None));
        assert!(checkpoints[1..].iter().all(|saved| saved.as_deref() == Some("request-1")), "{checkpoints:?}");
        assert!(!node.stored_at(&pod).join("pending.pem").exists(), "nothing waits any more");
        driver.stop().await;
    }
}

node_test! {
    async fn a_refused_certificate_stands_for_a_while_and_then_another_is_requested() {
        let (mut node, driver, kubelet) = started(true).await;
        driver.signer.set(Behaviour::AnswersGarbage);
        let pod = pod("web-0");
        for _ in 0..3 {
            let refused = kubelet.publish(&pod).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        }
        let checkpoints = driver.signer.checkpoints.lock().unwrap().clone();
        assert_eq!(checkpoints, [None, Some("request-1".to_owned()), Some("request-1".to_owned())]);
        driver.clock.advance(SignedDuration::from_mins(11));
        driver.signer.set(Behaviour::Signs);
        // The check whether the pod is gone runs every ten minutes, and may hold the lock.
        eventually("it is issued", async || kubelet.publish(&pod).await.is_ok()).await;
        assert_eq!(driver.signer.checkpoints.lock().unwrap().last(), Some(&None), "another one");
        // The next process finds nothing of the refused request either.
        let (driver, kubelet) = driver.restarted(&mut node).await;
        kubelet.unpublish(&pod).await.unwrap();
        assert_eq!(node.stored(), Vec::<PathBuf>::new());
        driver.stop().await;
    }
}

node_test! {
    async fn a_refused_answer_does_not_outlast_the_certificate_in_use() {
        let (node, driver, kubelet) = started(true).await;
        let pod = pod_with("web-0", &[("duration", "20m")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let before = serial(&volume);
        driver.signer.set(Behaviour::AnswersGarbage);
        driver.clock.advance(SignedDuration::from_mins(14));
        let pending = node.stored_at(&pod).join("pending.pem");
        eventually("a renewal is refused", async || {
            std::fs::read_to_string(&pending).unwrap_or_default().contains("\"refused_at\":\"")
        }).await;
        // Six minutes of validity are left. After half of them, another certificate is requested.
        driver.signer.set(Behaviour::Signs);
        driver.clock.advance(SignedDuration::from_mins(4));
        eventually("it is renewed", async || {
            driver.clock.advance(SignedDuration::from_secs(1));
            serial(&volume) != before
        }).await;
        assert_eq!(driver.signer.checkpoints.lock().unwrap().last(), Some(&None), "by another certificate");
        driver.stop().await;
    }
}

node_test! {
    async fn a_certificate_that_could_not_be_mounted_is_neither_requested_nor_used_again() {
        let (node, driver, kubelet) = started(true).await;
        let pod = pod("web-0");
        let obstacle = kubelet.target(&pod).join("obstacle");
        std::fs::create_dir_all(&obstacle).unwrap();
        kubelet.publish(&pod).await.unwrap_err();
        std::fs::remove_dir(&obstacle).unwrap();
        let volume = kubelet.publish(&pod).await.unwrap();
        assert_eq!(driver.signer.calls(), 1);
        assert!(!node.stored_at(&pod).join("pending.pem").exists());
        let before = serial(&volume);
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("it is renewed", async || serial(&volume) != before).await;
        let checkpoints = driver.signer.checkpoints.lock().unwrap().clone();
        assert_eq!(checkpoints, [None, None], "the renewal asks for a certificate of its own");
        driver.stop().await;
    }
}

node_test! {
    async fn the_request_of_a_certificate_in_use_is_not_resumed_after_a_crash() {
        let (mut node, driver, kubelet) = started(true).await;
        let pod = pod("web-0");
        let pending = node.stored_at(&pod).join("pending.pem");
        driver.signer.set(down());
        kubelet.publish(&pod).await.unwrap_err();
        let waiting = std::fs::read(&pending).unwrap();
        driver.signer.set(Behaviour::Signs);
        let volume = kubelet.publish(&pod).await.unwrap();
        let (before, key) = (serial(&volume), key_in(&volume));
        // The state after a kill -9 between writing the record and removing the checkpoint.
        std::fs::write(&pending, waiting).unwrap();
        let (driver, _kubelet) = driver.restarted(&mut node).await;
        driver.clock.advance(SignedDuration::from_hours(17));
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_ne!(key_in(&volume), key, "a key of its own");
        assert_eq!(driver.signer.checkpoints.lock().unwrap().last(), Some(&None));
        driver.stop().await;
    }
}

node_test! {
    async fn a_mounted_volume_whose_record_was_lost_keeps_its_files_whatever_the_signer_says() {
        for slow in [false, true] {
            let (mut node, driver, kubelet) = started(slow).await;
            let pod = pod("web-0");
            let volume = kubelet.publish(&pod).await.unwrap();
            let before = serial(&volume);
            std::fs::write(node.stored_at(&pod).join("record.json"), "damaged").unwrap();
            driver.signer.set(down());
            let (driver, kubelet) = driver.restarted(&mut node).await;
            kubelet.publish(&pod).await.unwrap();
            eventually("a certificate is asked for", async || driver.signer.calls() == 2).await;
            kubelet.publish(&pod).await.unwrap();
            assert_eq!(serial(&volume), before);
            assert_whole(&volume);
            let condition = kubelet.stats(&pod).await.unwrap().volume_condition.unwrap();
            assert!(!condition.message.contains("no certificate"), "{condition:?}");
            driver.signer.set(Behaviour::Signs);
            eventually("it is renewed", async || {
                driver.clock.advance(SignedDuration::from_secs(10));
                serial(&volume) != before
            }).await;
            kubelet.unpublish(&pod).await.unwrap();
            assert_eq!(node.stored(), Vec::<PathBuf>::new());
            driver.stop().await;
        }
    }
}

node_test! {
    async fn before_the_kubelets_deadline_the_error_says_what_the_volume_waits_for() {
        let (node, driver, kubelet) = started(true).await;
        driver.signer.set(Behaviour::Waits);
        let pod = pod("web-0");
        std::fs::create_dir_all(kubelet.target(&pod).parent().unwrap()).unwrap();
        let mut request = tonic::Request::new(kubelet.publish_request(&pod));
        // The driver answers half a second before its end.
        request.set_timeout(Duration::from_secs(5));
        let refused = kubelet.node().node_publish_volume(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded);
        assert!(refused.message().contains("request-1") && refused.message().contains("stays in place"), "{refused:?}");
        kubelet.unpublish(&pod).await.unwrap();
        assert_eq!(node.stored(), Vec::<PathBuf>::new());
        eventually("the signer is told", async || driver.signer.removed.load(Ordering::Relaxed) == 1).await;
        driver.stop().await;
    }
}

node_test! {
    async fn a_renewal_that_timed_out_goes_on_when_its_request_completes() {
        let (_node, driver, kubelet) = started(true).await;
        let pod = pod("web-0");
        let (volume, before) = publish_and_try_renewal(&driver, &kubelet, &pod, down()).await;
        driver.signer.set(Behaviour::Signs);
        // The clock stands still, so the pause before the next attempt does not end.
        driver.signer.complete(VolumeId::new(pod.volume_id()));
        eventually("the renewal follows", async || serial(&volume) != before).await;
        // Completed requests that nothing waits for change nothing.
        driver.signer.complete(VolumeId::new(pod.volume_id()));
        driver.signer.complete(VolumeId::new("csi-of-nobody"));
        eventually("the reports are taken", async || driver.signer.unreported() == 0).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(driver.signer.calls(), 3);
        driver.stop().await;
    }
}

node_test! {
    async fn a_completed_request_of_a_publish_waits_for_the_kubelet() {
        let (node, driver, kubelet) = started(true).await;
        driver.signer.set(down());
        let pod = pod("web-0");
        kubelet.publish(&pod).await.unwrap_err();
        assert!(node.stored_at(&pod).join("pending.pem").exists());
        driver.signer.set(Behaviour::Signs);
        driver.signer.complete(VolumeId::new(pod.volume_id()));
        eventually("the report is taken", async || driver.signer.unreported() == 0).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(driver.signer.calls(), 1);
        kubelet.publish(&pod).await.unwrap();
        driver.stop().await;
    }
}

node_test! {
    async fn renewals_that_wait_for_their_signer_leave_capacity_for_others() {
        let (_node, driver, kubelet) = started(true).await;
        let pods: Vec<_> = (0..6).map(|n| pod(&format!("web-{n}"))).collect();
        for pod in &pods {
            kubelet.publish(pod).await.unwrap();
        }
        driver.signer.set(Behaviour::Waits);
        driver.clock.advance(SignedDuration::from_hours(17));
        // There are four active slots, and six renewals. Each moves to a waiting slot after a while.
        eventually("all are tried", async || driver.signer.calls() == 2 * pods.len()).await;
        driver.stop().await;
    }
}
