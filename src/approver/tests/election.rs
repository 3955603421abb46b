//! The election.

use super::super::lease::{Attempt, Candidate, Lease, Timings};
use super::server::Server;
use crate::kube::CallError;
use axum::http::Method;
use serde_json::json;
use std::time::Duration;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/cert-manager/leases/a";
/// A lease that does not end while a test runs.
const LONG: Timings = Timings {
    lease: Duration::from_hours(1),
    deadline: Duration::from_mins(30),
    pause: Duration::from_millis(20),
};

fn candidate(server: &Server, identity: &str, timings: Timings) -> Candidate {
    Candidate::new(Lease {
        cluster: server.cluster(),
        namespace: "cert-manager".into(),
        name: "a".into(),
        identity: identity.into(),
        timings,
    })
}

#[tokio::test]
async fn one_candidate_leads_until_it_releases_the_lease() {
    let server = Server::start().await;
    let (mut first, mut second) = (candidate(&server, "first", LONG), candidate(&server, "second", LONG));
    first.acquire(|_| {}).await;
    let spec = server.object(PATH)["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"]), (&json!("first"), &json!(3600)));
    assert!(spec["renewTime"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{spec}");

    let mut attempts = Vec::<Result<Attempt, CallError>>::new();
    let waiting = second.acquire(|attempt| attempts.push(attempt.clone()));
    let releasing = async {
        server.until("the second tries", |server| server.calls("GET") >= 4).await;
        first.release().await;
    };
    tokio::join!(waiting, releasing);
    assert_eq!(attempts.first(), Some(&Ok(Attempt::HeldBy("first".into()))));
    assert_eq!(attempts.last(), Some(&Ok(Attempt::Held)));
    let spec = server.object(PATH)["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!("second"), &json!(1)));
}

#[tokio::test]
async fn a_leader_renews_its_lease_and_notices_that_another_has_taken_it() {
    let server = Server::start().await;
    let mut leader = candidate(&server, "first", LONG);
    let renewed = leader.acquire(|_| {}).await;
    let first = server.object(PATH)["spec"]["renewTime"].clone();
    let taking = async {
        server.until("a renewal", |server| server.object(PATH)["spec"]["renewTime"] != first).await;
        // As somebody who overwrites it with force.
        let mut object = server.object(PATH);
        object["spec"]["holderIdentity"] = "second".into();
        server.put(PATH, object);
    };
    let (lost, ()) = tokio::join!(leader.keep(renewed), taking);
    assert_eq!(lost, "second has taken it");
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_before_another_can_take_the_lease() {
    let server = Server::start().await;
    let timings = Timings {
        lease: Duration::from_secs(2),
        deadline: Duration::from_secs(1),
        pause: Duration::from_millis(20),
    };
    let mut leader = candidate(&server, "first", timings);
    let renewed = leader.acquire(|_| {}).await;
    server.refuse(Method::PUT, "/leases/", 500);
    let lost = leader.keep(renewed).await;
    assert!(!lost.is_empty());
    server.refuse_nothing();
    // Nothing is compared with the clock of the other node: the lease has not changed for its whole time.
    let mut object = server.object(PATH);
    object["spec"]["renewTime"] = "2200-01-01T00:00:00.000000Z".into();
    server.put(PATH, object);
    candidate(&server, "second", timings).acquire(|_| {}).await;
    assert_eq!(server.object(PATH)["spec"]["holderIdentity"], "second");
}

#[tokio::test]
async fn of_two_that_claim_the_lease_at_once_one_gets_a_conflict() {
    let server = Server::start().await;
    server.put(
        PATH,
        json!({ "metadata": { "namespace": "cert-manager", "name": "a" }, "spec": { "holderIdentity": "" } }),
    );
    let mut candidates: Vec<Candidate> = (0..8).map(|n| candidate(&server, &format!("c{n}"), LONG)).collect();
    let leading =
        candidates.iter_mut().map(|candidate| Box::pin(async move { candidate.acquire(|_| {}).await }));
    let (_, _, others) = futures_util::future::select_all(leading).await;
    let holder = server.object(PATH)["spec"]["holderIdentity"].clone();
    // None of the others leads, however often it tries.
    let more = server.calls("GET") + 40;
    let tries = server.until("more attempts", |server| server.calls("GET") >= more);
    tokio::select! {
        () = tries => {}
        (_, index, _) = futures_util::future::select_all(others) => panic!("candidate {index} leads too"),
    }
    assert_eq!(server.object(PATH)["spec"]["holderIdentity"], holder);
    assert_eq!(server.object(PATH)["spec"]["leaseTransitions"], 1);
}
