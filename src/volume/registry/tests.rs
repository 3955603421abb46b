use super::*;
use crate::volume::tests::volume_in_memory;

fn id(id: &str) -> VolumeId {
    VolumeId::new(id)
}

/// Of the id `a`, for a pod of the namespace of `volume_in_memory`.
fn liveness(registry: &Registry) -> Liveness {
    registry.liveness(SignerKind::Local, &RequestId::new("a"), "shop")
}

fn holder(acquired: Result<Guard, Held>) -> Option<Operation> {
    acquired.err().map(|held| held.operation)
}

#[test]
fn a_second_operation_is_told_which_one_has_the_volume() {
    let registry = Arc::new(Registry::default());
    let guard = registry.try_acquire(&id("a"), Operation::Publish).unwrap();
    assert_eq!(holder(registry.try_acquire(&id("a"), Operation::Renewal)), Some(Operation::Publish));
    assert!(registry.try_acquire(&id("b"), Operation::Renewal).is_ok());
    drop(guard);
    assert!(registry.try_acquire(&id("a"), Operation::Renewal).is_ok());
}

#[tokio::test]
async fn an_unpublish_cancels_what_is_in_flight_and_waits_for_it() {
    let registry = Arc::new(Registry::default());
    let publish = registry.try_acquire(&id("a"), Operation::Publish).unwrap();
    let worker = tokio::spawn(async move {
        publish.cancel().cancelled().await;
        drop(publish);
    });
    let guard = registry.acquire_for_unpublish(&id("a")).await.unwrap();
    worker.await.unwrap();
    assert_eq!(holder(registry.acquire_for_unpublish(&id("a")).await), Some(Operation::Unpublish));
    drop(guard);
    assert_eq!(registry.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_volume_is_remembered_for_a_while_and_not_while_it_is_published_again() {
    let registry = Arc::new(Registry::default());
    let request = RequestId::new("a");
    assert_eq!(liveness(&registry), Liveness::Unknown, "an id of another driver is not ours");
    assert_eq!(registry.liveness(SignerKind::Local, &request, "other"), Liveness::Unknown);
    registry.insert(volume_in_memory("a"));
    let unpublish = registry.try_acquire(&id("a"), Operation::Unpublish).unwrap();
    assert_ne!(liveness(&registry), Liveness::Removed);
    registry.remove(&id("a"));
    assert_eq!(liveness(&registry), Liveness::Removed, "also while its unpublish goes on");
    drop(unpublish);
    assert_eq!(liveness(&registry), Liveness::Removed);
    let publish = registry.try_acquire(&id("a"), Operation::Publish).unwrap();
    assert_ne!(liveness(&registry), Liveness::Removed);
    drop(publish);
    assert_eq!(liveness(&registry), Liveness::Removed);
    tokio::time::advance(KEPT_AFTER_REMOVAL).await;
    assert_ne!(liveness(&registry), Liveness::Removed);
}

#[test]
fn an_unpublish_of_a_volume_that_this_node_never_had_removes_none() {
    let registry = Arc::new(Registry::default());
    let unpublish = registry.try_acquire(&id("a"), Operation::Unpublish).unwrap();
    assert!(registry.remove(&id("a")).is_none());
    drop(unpublish);
    assert_ne!(liveness(&registry), Liveness::Removed);
}

#[tokio::test(start_paused = true)]
async fn publishes_that_fail_for_good_leave_nothing_behind_but_their_events_for_a_while() {
    let registry = Arc::new(Registry::default());
    for volume in 0..100 {
        drop(registry.try_acquire(&id(&volume.to_string()), Operation::Publish));
    }
    let events = registry.events(&id("7"));
    tokio::time::advance(KEPT_AFTER_REMOVAL / 2).await;
    drop(registry.try_acquire(&id("7"), Operation::Publish));
    tokio::time::advance(KEPT_AFTER_REMOVAL / 2).await;
    registry.insert(volume_in_memory("live"));
    drop(registry.try_acquire(&id("new"), Operation::Publish));
    assert_eq!(registry.slots.lock().len(), 3, "the live one, the new one, and the one that failed lately");
    assert!(Arc::ptr_eq(&events, &registry.events(&id("7"))));
}
