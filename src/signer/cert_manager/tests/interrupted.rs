//! Calls, watches and processes that are cut off, and requests that somebody else touches.

use super::server::Mishap;
use super::*;
use serde_json::json;

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_found_again() {
    let driver = Driver::new().await;
    driver.server.next_create(Mishap::LoseAnswer);
    transient(driver.sign().await);
    driver.sign_and_issue().await;
    assert_eq!(driver.server.names().len(), 1);
}

#[tokio::test]
async fn a_watch_that_closed_is_taken_up_where_it_was() {
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
async fn a_failing_server_is_asked_again_under_the_same_name() {
    let driver = Driver::new().await;
    driver.server.next_create(Mishap::Refuse { code: 500, body: "oops".into(), retry_after: None });
    transient(driver.sign().await);
    let before = driver.notes.load();
    driver.sign_and_issue().await;
    assert_eq!(driver.notes.load(), before);
}

#[tokio::test]
async fn a_restart_takes_up_the_request_that_waits() {
    let mut driver = Driver::new().await;
    driver.sign_in_vain().await;
    driver.restart().await;
    driver.sign_and_issue().await;
    assert_eq!(driver.server.calls("create"), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_waits_for_is_announced_once() {
    let driver = Driver::new().await;
    driver.sign_in_vain().await;
    let name = driver.server.only().await;
    driver.server.set(&name, &[("Approved", "True", "", "")], &json!({}));
    driver.server.issue(&name);
    assert_eq!(driver.signer.answered().await, driver.volume);
    // Neither a certificate that somebody has got nor a list of all of them is news.
    driver.sign().await.unwrap();
    driver.server.close_watches(false);
    driver.server.expire();
    driver.server.issue(&name);
    let again = tokio::time::timeout(Duration::from_secs(2), driver.signer.answered()).await;
    assert!(again.is_err(), "{again:?}");
    assert!(driver.server.calls("list") >= 2);
}

#[tokio::test]
async fn a_request_signed_while_nobody_ran_is_found_signed() {
    let mut driver = Driver::new().await;
    driver.sign_in_vain().await;
    driver.server.issue(&driver.server.only().await);
    driver.restart().await;
    driver.sign().await.unwrap();
    assert_eq!(driver.server.names().len(), 1);
}

#[tokio::test]
async fn a_request_that_somebody_deletes_is_made_again() {
    let driver = Driver::new().await;
    transient(driver.sign_while(async |server, name| server.delete(&name)).await);
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn requests_that_led_to_nothing_do_not_pile_up() {
    let driver = Driver::new().await;
    for _ in 0..4 {
        // Each was signed, and the answer refused.
        driver.sign_anew().await;
    }
    driver.server.number(2).await;
    assert_eq!(driver.server.calls("create"), 4);
}

#[tokio::test]
async fn a_request_that_cannot_be_deleted_is_on_its_way_out_once() {
    let driver = Driver::new().await;
    driver.server.refuse_deletes(true);
    for _ in 0..6 {
        // Each issuance hands over all older ones.
        driver.sign_anew().await;
        driver.signer.delivered(&driver.signed_volume()).await;
    }
    assert_eq!(driver.signer.deletions.under_way(), 5);

    driver.server.refuse_deletes(false);
    driver.server.number(1).await;
    // A second task for the same request would come to delete what is gone.
    while driver.signer.deletions.under_way() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(driver.server.calls("delete in vain"), 0);
}

#[tokio::test]
async fn only_the_newest_requests_are_kept_and_none_of_a_volume_that_went() {
    let driver = Driver::new().await;
    driver.sign_and_issue().await;
    let first = driver.server.only().await;
    *driver.notes.0.lock().unwrap() = None;
    let renewal = async {
        let names = driver.server.number(2).await;
        driver.server.issue(names.iter().find(|name| **name != first).unwrap());
    };
    // The same signing request, as RSA and Ed25519 give it with a key that is kept, and yet another certificate.
    tokio::join!(driver.sign(), renewal).0.unwrap();
    assert_eq!(driver.server.calls("create"), 2);
    driver.signer.delivered(&driver.signed_volume()).await;
    assert_ne!(driver.server.only().await, first);
    driver.signer.removed(&driver.signed_volume()).await;
    driver.server.number(0).await;
}

#[tokio::test]
async fn a_request_that_turns_up_after_its_volume_went_goes_too() {
    let mut driver = Driver::new().await;
    driver.sign_in_vain().await;
    // The new process hears of the volume's end before its first list.
    driver.signer = signer(driver.address, &driver.clock, CertManagerOptions::default());
    driver.signer.removed(&driver.signed_volume()).await;
    driver.server.number(0).await;
}
