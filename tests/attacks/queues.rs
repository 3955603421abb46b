//! Attacks on the queues: what waits in one namespace must not delay what waits in another.

use crate::in_process::{Behaviour, InProcess, ManualClock, ScriptedSigner};
use crate::support::{Node, eventually};
use crate::{node_test, pod};
use certlet::run::Config;
use certlet_kubelet::{Kubelet, Pod};
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::{Code, Request};

/// Volumes of the namespace that floods a queue.
const HOSTILE: usize = 40;

/// A driver and its signer.
async fn started(configure: impl FnOnce(&mut Config)) -> (Node, InProcess, Kubelet) {
    let mut node = Node::new();
    let clock = ManualClock::new();
    let signer = ScriptedSigner::new(&clock, false);
    let (driver, kubelet) = InProcess::start_with(&mut node, &clock, &signer, configure).await;
    (node, driver, kubelet)
}

/// The positions of a namespace's requests among all that the signer has had from `first` on.
fn positions(signer: &Arc<ScriptedSigner>, first: usize, namespace: &str) -> Vec<usize> {
    let name = format!(".{namespace}.svc");
    let requests = signer.requests.lock().unwrap();
    let is_of = |csr: &[u8]| csr.windows(name.len()).any(|part| part == name.as_bytes());
    let later = requests.iter().skip(first).enumerate();
    later.filter(|(_, csr)| is_of(csr)).map(|(position, _)| position).collect()
}

fn publish(calls: &mut JoinSet<()>, kubelet: &Kubelet, pod: Pod) {
    let kubelet = kubelet.clone();
    calls.spawn(async move { drop(kubelet.publish(&pod).await.unwrap()) });
}

node_test! {
    async fn publishes_of_one_namespace_leave_the_next_slot_to_another() {
        let (_node, driver, kubelet) = started(|config| config.limits.publishes = 2).await;
        driver.signer.set(Behaviour::Waits);
        let mut calls = JoinSet::new();
        (0..HOSTILE).for_each(|number| publish(&mut calls, &kubelet, pod("hostile", number)));
        eventually("all slots are taken", async || driver.signer.calls() == 2).await;
        publish(&mut calls, &kubelet, pod("innocent", 0));
        // The answer shows that the driver has read the calls before it.
        kubelet.stats(&pod("innocent", 1)).await.unwrap_err();
        driver.signer.set(Behaviour::Signs);
        calls.join_all().await;
        let innocent = positions(&driver.signer, 0, "innocent");
        assert!(innocent[0] <= 6, "{} publishes of the other namespace came before it", innocent[0]);
        driver.stop().await;
    }
}

node_test! {
    async fn a_publish_that_finds_no_slot_is_told_which_flag_to_raise() {
        let (_node, driver, kubelet) = started(|config| config.limits.publishes = 1).await;
        driver.signer.set(Behaviour::Waits);
        let mut calls = JoinSet::new();
        publish(&mut calls, &kubelet, pod("hostile", 0));
        eventually("the slot is taken", async || driver.signer.calls() == 1).await;
        let mut request = Request::new(kubelet.publish_request(&pod("innocent", 0)));
        request.set_timeout(Duration::from_secs(1));
        let refused = kubelet.node().node_publish_volume(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("--max-volumes-in-flight"), "{refused:?}");
        driver.signer.set(Behaviour::Signs);
        calls.join_all().await;
        kubelet.publish(&pod("innocent", 0)).await.unwrap();
        driver.stop().await;
    }
}

node_test! {
    async fn an_unpublish_does_not_wait_for_a_publish_that_waits_for_a_slot() {
        let (node, driver, kubelet) = started(|config| config.limits.publishes = 1).await;
        driver.signer.set(Behaviour::Waits);
        let mut calls = JoinSet::new();
        publish(&mut calls, &kubelet, pod("hostile", 0));
        eventually("the slot is taken", async || driver.signer.calls() == 1).await;
        let waiting = tokio::spawn({
            let kubelet = kubelet.clone();
            async move { kubelet.publish(&pod("shop", 0)).await }
        });
        // An unpublish can arrive before the publish that it is to cancel.
        eventually("the publish is cancelled", async || {
            kubelet.unpublish(&pod("shop", 0)).await.unwrap();
            waiting.is_finished()
        })
        .await;
        assert!(waiting.await.unwrap().is_err());
        assert_eq!(node.stored().len(), 0);
        driver.signer.set(Behaviour::Signs);
        calls.join_all().await;
        driver.stop().await;
    }
}

node_test! {
    async fn renewals_of_one_namespace_leave_the_next_slot_to_another() {
        let (_node, driver, kubelet) = started(|config| config.limits.renewals = 1).await;
        for number in 0..HOSTILE {
            kubelet.publish(&pod("hostile", number)).await.unwrap();
        }
        for number in 0..2 {
            kubelet.publish(&pod("innocent", number)).await.unwrap();
        }
        let published = driver.signer.calls();
        driver.clock.advance(SignedDuration::from_hours(20));
        eventually("all are renewed", async || driver.signer.calls() >= 2 * published).await;
        let innocent = positions(&driver.signer, published, "innocent");
        assert!(innocent[1] <= 6, "{innocent:?}: the other namespace's renewals came first");
        driver.stop().await;
    }
}

node_test! {
    async fn a_namespace_whose_issuer_never_answers_leaves_slots_to_the_renewals_of_another() {
        let (_node, driver, kubelet) = started(|config| config.limits.renewals = 4).await;
        for number in 0..HOSTILE {
            kubelet.publish(&pod("hostile", number)).await.unwrap();
        }
        for number in 0..8 {
            kubelet.publish(&pod("innocent", number)).await.unwrap();
        }
        let published = driver.signer.calls();
        driver.signer.set(Behaviour::WaitsFor("hostile"));
        driver.clock.advance(SignedDuration::from_hours(20));
        eventually("all of the other namespace are renewed", async || {
            positions(&driver.signer, published, "innocent").len() == 8
        })
        .await;
        let hostile = positions(&driver.signer, published, "hostile").len();
        assert!(hostile <= 3 + 12, "{hostile} are more than three quarters of the active and waiting slots");
        driver.signer.set(Behaviour::Signs);
        driver.stop().await;
    }
}
