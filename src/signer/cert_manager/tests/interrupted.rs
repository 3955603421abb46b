//! Interrupted calls, watches and processes, and requests that somebody else changes.

use super::server::CreateFailure;
use super::*;
use serde_json::{Value, json};

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_found_again() {
    let driver = Driver::new().await;
    driver.server.next_create(CreateFailure::LoseAnswer);
    transient(driver.sign().await);
    driver.sign_and_issue().await;
    assert_eq!(driver.server.names().len(), 1);
}

#[tokio::test]
async fn a_closed_watch_is_resumed_without_a_list() {
    let driver = Driver::new().await;
    let signed = driver
        .sign_while(async |server, name| {
            server.close_watches(true);
            server.issue(&name);
            tokio::time::sleep(Duration::from_millis(500)).await;
            server.close_watches(false);
        })
        .await;
    signed.unwrap();
    assert_eq!((driver.server.calls("get"), driver.server.calls("list")), (0, 1));
}

#[tokio::test]
async fn an_expired_resource_version_costs_a_new_list_and_loses_nothing() {
    let driver = Driver::new().await;
    let signed = driver
        .sign_while(async |server, name| {
            server.close_watches(true);
            server.issue(&name);
            server.expire();
        })
        .await;
    signed.unwrap();
    assert!(driver.server.calls("list") >= 2);
}

#[tokio::test]
async fn a_create_that_failed_is_retried_under_the_same_name() {
    let driver = Driver::new().await;
    driver.server.next_create(CreateFailure::Refuse { code: 500, body: "oops".into(), retry_after: None });
    transient(driver.sign().await);
    let key = || RequestCheckpoint::parse(&driver.checkpoint.load().unwrap()).unwrap().key;
    let before = key();
    driver.sign_and_issue().await;
    assert_eq!(key(), before);
}

#[tokio::test]
async fn a_restart_resumes_the_request_that_waits() {
    let mut driver = Driver::new().await;
    driver.sign_until_cancelled().await;
    driver.restart().await;
    driver.sign_and_issue().await;
    assert_eq!(driver.server.calls("create"), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_waits_for_is_announced_once() {
    let driver = Driver::new().await;
    driver.sign_until_cancelled().await;
    let name = driver.server.only().await;
    driver.server.set(&name, &[("Approved", "True", "", "")], &json!({}));
    driver.server.issue(&name);
    assert_eq!(driver.signer.next_completed().await, driver.id);
    // A certificate that a call has returned is not announced again, and neither is one that a list names.
    driver.sign().await.unwrap();
    driver.server.close_watches(false);
    driver.server.expire();
    driver.server.issue(&name);
    let again = tokio::time::timeout(Duration::from_secs(2), driver.signer.next_completed()).await;
    assert!(again.is_err(), "{again:?}");
    assert!(driver.server.calls("list") >= 2);
}

#[tokio::test]
async fn a_request_signed_while_no_process_ran_is_found_signed() {
    let mut driver = Driver::new().await;
    driver.sign_until_cancelled().await;
    driver.server.issue(&driver.server.only().await);
    driver.restart().await;
    driver.sign().await.unwrap();
    assert_eq!(driver.server.names().len(), 1);
}

#[tokio::test]
async fn a_request_that_somebody_deletes_is_created_again() {
    let driver = Driver::new().await;
    transient(driver.sign_while(async |server, name| server.delete(&name)).await);
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn every_created_request_is_taken_from_the_budget_and_a_resumed_one_is_not() {
    let driver = Driver::with(CertManagerOptions { max_issuances_per_hour: 4, ..Default::default() }).await;
    let failed = [("Approved", "True", "", ""), ("Ready", "False", "Failed", "no")];
    // One that is deleted is created again, and one that has failed is replaced by another.
    transient(driver.sign_while(async |server, name| server.delete(&name)).await);
    let first = driver.sign_while(async |server, name| server.set(&name, &failed, &json!({}))).await;
    transient(first);
    let known = driver.server.names();
    driver.sign_until_cancelled().await;
    let resumed = tokio::join!(driver.sign(), driver.issue_new(&known)).0;
    resumed.unwrap();
    driver.sign_new_request().await;
    *driver.checkpoint.0.lock() = None;
    let beyond = of_kind(FailureKind::OverBudget, driver.sign().await);
    assert!(beyond.contains("namespace shop") && beyond.contains("--max-issuances-per-hour"), "{beyond}");
    assert_eq!(driver.server.calls("create"), 4);
}

#[tokio::test]
async fn pods_that_start_all_the_time_leave_requests_to_renewals() {
    let mut driver =
        Driver::with(CertManagerOptions { max_issuances_per_hour: 5, ..Default::default() }).await;
    for _ in 0..4 {
        driver.sign_new_request().await;
    }
    *driver.checkpoint.0.lock() = None;
    of_kind(FailureKind::OverBudget, driver.sign().await);
    driver.replaces_certificate = true;
    driver.sign_new_request().await;
}

#[tokio::test]
async fn a_create_that_the_server_refuses_costs_nothing() {
    let driver = Driver::with(CertManagerOptions { max_issuances_per_hour: 1, ..Default::default() }).await;
    for _ in 0..3 {
        let body = r#"{"message":"no","reason":"Forbidden","code":403}"#.to_owned();
        driver.server.next_create(CreateFailure::Refuse { code: 403, body, retry_after: None });
        driver.sign().await.unwrap_err();
    }
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn requests_without_a_usable_certificate_do_not_pile_up() {
    let driver = Driver::new().await;
    for _ in 0..4 {
        // Each is issued, and its certificate is refused by certlet.
        driver.sign_new_request().await;
    }
    driver.server.wait_for_count(2).await;
    assert_eq!(driver.server.calls("create"), 4);
}

#[tokio::test]
async fn a_request_that_cannot_be_deleted_has_one_pending_deletion() {
    let driver = Driver::new().await;
    driver.server.refuse_deletes(true);
    for _ in 0..6 {
        // Each issuance passes all older requests.
        driver.sign_new_request().await;
        driver.signer.in_use(&driver.issued());
    }
    assert_eq!(driver.signer.deletions.pending(), 5);

    driver.server.refuse_deletes(false);
    driver.server.wait_for_count(1).await;
    // A second task for the same request would delete what is already gone.
    while driver.signer.deletions.pending() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(driver.server.calls("failed delete"), 0);
}

#[tokio::test]
async fn only_the_newest_request_is_kept_and_none_after_the_removal() {
    let driver = Driver::new().await;
    driver.sign_and_issue().await;
    let first = driver.server.only().await;
    *driver.checkpoint.0.lock() = None;
    let renewal = async {
        let names = driver.server.wait_for_count(2).await;
        driver.server.issue(names.iter().find(|name| **name != first).unwrap());
    };
    // The same signing request, as RSA and Ed25519 give it with a kept key, must get another certificate.
    tokio::join!(driver.sign(), renewal).0.unwrap();
    assert_eq!(driver.server.calls("create"), 2);
    driver.signer.in_use(&driver.issued());
    assert_ne!(driver.server.only().await, first);
    driver.signer.removed(&driver.issued());
    driver.server.wait_for_count(0).await;
}

#[tokio::test]
async fn a_request_that_is_seen_after_the_removal_of_its_id_is_deleted() {
    let mut driver = Driver::new().await;
    driver.sign_until_cancelled().await;
    // The new process learns of the removal before its first list.
    driver.signer = signer(
        driver.address,
        &driver.clock,
        CertManagerOptions::default(),
        Arc::clone(&driver.removed) as _,
        Arc::default(),
    );
    driver.removed.0.lock().push(driver.id.clone());
    driver.signer.removed(&driver.issued());
    driver.server.wait_for_count(0).await;
}

/// Somebody makes the request again, with a change, while the driver is away. The driver does not use it, and makes another one.
async fn adopts_none_made_again(change: impl Fn(&mut Value)) {
    for seen in [true, false] {
        let mut driver = Driver::new().await;
        driver.sign_until_cancelled().await;
        let name = driver.server.only().await;
        driver.server.replace(&name, seen, &change);
        driver.restart().await;
        driver.server.issue(&name);
        let failure = driver.sign().await.unwrap_err();
        assert!(failure.message.contains("was replaced by another one of that name"), "{failure}");
        // The next call makes another request.
        driver.sign_again_and_issue(&name).await;
    }
}

#[tokio::test]
async fn a_request_that_somebody_made_again_with_another_issuer_is_not_adopted() {
    adopts_none_made_again(|object| object["spec"]["issuerRef"]["name"] = "evil".into()).await;
}

#[tokio::test]
async fn a_request_is_not_adopted_from_another_creator() {
    let options = CertManagerOptions { token_audience: Some(String::new()), ..Default::default() };
    let mut driver = Driver::with(options).await;
    driver.tokens = super::preconditions::tokens("", "2026-05-01T12:10:00Z");
    driver.sign_until_cancelled().await;
    let name = driver.server.only().await;
    driver.server.replace(&name, true, |object| {
        object["spec"]["username"] = "system:serviceaccount:shop:evil".into();
    });
    driver.server.issue(&name);
    let failure = driver.sign().await.unwrap_err();
    assert!(failure.message.contains("was replaced by another one of that name"), "{failure}");
}

#[tokio::test]
async fn a_request_that_somebody_made_again_with_the_same_content_is_not_adopted_after_a_restart() {
    adopts_none_made_again(|_| {}).await;
}

#[tokio::test]
async fn without_a_uid_a_request_is_resumed_only_if_the_driver_has_created_it() {
    const OWN: &str = "system:serviceaccount:certlet:certlet";
    for (creator, is_resumed) in [(OWN, true), ("system:serviceaccount:shop:evil", false), ("", true)] {
        let mut driver = Driver::new().await;
        driver.server.set_creator(OWN);
        driver.server.next_create(CreateFailure::LoseAnswer);
        transient(driver.sign().await);
        let name = driver.server.only().await;
        driver.server.replace(&name, false, |object| object["spec"]["username"] = creator.into());
        // The new process has created nothing yet, so it asks for its own name.
        driver.restart().await;
        driver.server.issue(&name);
        let signed = driver.sign().await;
        if is_resumed {
            signed.unwrap();
        } else {
            let failure = signed.unwrap_err();
            assert!(failure.message.contains("was replaced by another one of that name"), "{failure}");
        }
        assert_eq!(driver.server.calls("review"), usize::from(!creator.is_empty()), "{creator}");
    }
}
