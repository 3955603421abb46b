//! Requests that are decided, and refused calls.

use super::server::CreateFailure;
use super::*;
use serde_json::json;

#[tokio::test]
async fn a_certificate_costs_one_create_and_no_get() {
    let driver = Driver::new().await;
    driver.sign_and_issue().await;
    let object = driver.server.object(&driver.server.only().await);
    assert_eq!((driver.server.calls("create"), driver.server.calls("get")), (1, 0));
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(object["metadata"]["labels"]["certlet.io/node"], "node-1");
    assert_eq!(
        object["metadata"]["labels"]["certlet.io/volume"],
        object::label_value(driver.id.as_str()).as_str()
    );
    assert_eq!(object["metadata"]["annotations"]["certlet.io/volume-id"], driver.id.as_str());
    assert_eq!(object["spec"]["duration"], "24h0m0s");
    assert_eq!(object["spec"]["usages"], json!(["signing", "key encipherment", "signing"]), "word for word");
    assert_eq!(
        object["spec"]["issuerRef"],
        json!({"name": "ca", "kind": "Issuer", "group": "cert-manager.io"})
    );
    driver.sign_new_request().await;
    assert_eq!(driver.server.calls("watch"), 1, "one watch serves all requests");
}

#[tokio::test]
async fn an_approver_that_approves_everything_is_noticed() {
    let issued = json!({ "certificate": "bGVhZg==", "ca": "cm9vdA==" });
    for (reason, noticed) in [("policy.cert-manager.io", 0), ("cert-manager.io", 1)] {
        let driver = Driver::new().await;
        let conditions = [("Approved", "True", reason, ""), ("Ready", "True", "Issued", "")];
        driver.sign_while(async |server, name| server.set(&name, &conditions, &issued)).await.unwrap();
        // The observer hears of the event after the waiting call does.
        tokio::time::timeout(Duration::from_secs(20), async {
            while driver.approved_unchecked.load(Ordering::Relaxed) < noticed {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect(reason);
        driver.sign_new_request().await;
        assert_eq!(driver.approved_unchecked.load(Ordering::Relaxed), noticed, "{reason}");
    }
}

#[tokio::test]
async fn the_request_in_use_stays_until_a_newer_one_is() {
    let driver = Driver::new().await;
    driver.sign_and_issue().await;
    let in_use = driver.server.only().await;
    driver.signer.in_use(&driver.issued());
    // Each is issued, and its certificate is refused by certlet.
    for _ in 0..3 {
        driver.sign_new_request().await;
    }
    // The third call has deleted the request of the first.
    assert!(driver.server.wait_for_count(3).await.contains(&in_use));
    driver.signer.in_use(&driver.issued());
    assert_ne!(driver.server.only().await, in_use);
}

#[tokio::test]
async fn failed_requests_after_a_restart_do_not_delete_the_request_in_use() {
    let mut driver = Driver::new().await;
    driver.sign_and_issue().await;
    let in_use = driver.server.only().await;
    driver.restart().await;
    for _ in 0..2 {
        *driver.checkpoint.0.lock() = None;
        let known = driver.server.names();
        let failing = async {
            let names = driver.server.wait_for_count(known.len() + 1).await;
            let name = names.into_iter().find(|name| !known.contains(name)).unwrap();
            driver.server.set(&name, &[("Ready", "False", "Failed", "no")], &json!({}));
        };
        transient(tokio::join!(driver.sign(), failing).0);
    }
    assert!(driver.server.names().contains(&in_use));
}

#[tokio::test]
async fn keep_requests_sets_how_many_requests_are_kept() {
    let options = CertManagerOptions { keep_requests: 2, ..CertManagerOptions::default() };
    let driver = Driver::with(options).await;
    driver.sign_and_issue().await;
    let first = driver.server.only().await;
    for _ in 0..2 {
        driver.sign_new_request().await;
        driver.signer.in_use(&driver.issued());
    }
    assert!(!driver.server.wait_for_count(2).await.contains(&first));
}

#[tokio::test]
async fn a_retry_after_of_the_server_delays_later_calls() {
    let driver = Driver::new().await;
    let body = "Too many requests, please try again later.\n".to_owned();
    driver.server.next_create(CreateFailure::Refuse { code: 429, body, retry_after: Some(1) });
    let Failure { kind: FailureKind::Throttled, retry_after, .. } = driver.sign().await.unwrap_err() else {
        panic!("not throttled")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(1)));
    let begun = tokio::time::Instant::now();
    driver.sign_and_issue().await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());

    let body = "Service Unavailable\n".to_owned();
    driver.server.next_create(CreateFailure::Refuse { code: 503, body, retry_after: Some(60) });
    *driver.checkpoint.0.lock() = None;
    for _ in 0..3 {
        assert_eq!(driver.sign().await.unwrap_err().kind, FailureKind::Throttled);
    }
    assert_eq!(
        driver.server.calls("create"),
        3,
        "a long Retry-After is reported, and no call is made before its end"
    );
}

#[tokio::test]
async fn a_retry_after_in_a_refusal_of_one_request_does_not_delay_the_others() {
    let driver = Driver::new().await;
    let body = r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"the webhook says no","details":{"retryAfterSeconds":60}}"#;
    driver.server.next_create(CreateFailure::Refuse { code: 403, body: body.to_owned(), retry_after: None });
    assert!(permanent(driver.sign().await).contains("the webhook says no"));
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn a_denied_request_is_a_refusal_that_says_who_denied_it_and_the_next_call_makes_another() {
    let driver = Driver::new().await;
    let denied =
        [("Denied", "True", "policy.cert-manager.io", "no such name"), ("Ready", "False", "Denied", "")];
    let signed = driver.sign_while(async |server, name| server.set(&name, &denied, &json!({}))).await;
    let failure = signed.unwrap_err();
    assert!(failure.message.contains("policy.cert-manager.io: no such name"), "{failure}");
    assert_eq!((failure.kind, failure.is_refusal), (FailureKind::Permanent, true));
    let first = driver.server.only().await;
    driver.sign_again_and_issue(&first).await;
    assert_ne!(driver.server.only().await, first);
    assert_eq!(driver.server.calls("create"), 2);
}

#[tokio::test]
async fn an_invalid_request_is_permanent() {
    let driver = Driver::new().await;
    let invalid = [("InvalidRequest", "True", "BadSubject", "too long"), ("Ready", "False", "Failed", "x")];
    let reason =
        permanent(driver.sign_while(async |server, name| server.set(&name, &invalid, &json!({}))).await);
    assert!(reason.contains("BadSubject: too long"), "{reason}");
}

#[tokio::test]
async fn a_failed_request_is_replaced_by_another_for_the_same_key() {
    let driver = Driver::new().await;
    let failed = [("Approved", "True", "", ""), ("Ready", "False", "Failed", "backend down")];
    let reason =
        transient(driver.sign_while(async |server, name| server.set(&name, &failed, &json!({}))).await);
    assert!(reason.contains("backend down"), "{reason}");
    let first = driver.server.only().await;
    let csr = driver.server.object(&first)["spec"]["request"].clone();
    let second = driver.sign_again_and_issue(&first).await;
    assert_eq!(driver.server.object(&second)["spec"]["request"], csr);
    assert_eq!(driver.server.only().await, second);
}

#[tokio::test]
async fn a_request_without_approval_says_so_and_is_signed_after_its_approval() {
    let driver = Driver::new().await;
    driver.sign_until_cancelled().await;
    let described = driver.signer.describe(&driver.checkpoint.load().unwrap());
    assert!(
        described.contains("CertificateRequest shop/web-0-") && described.contains("not approved yet"),
        "{described}"
    );
    driver.sign_and_issue().await;
    assert_eq!(driver.server.calls("create"), 1);
}
