//! What a request says, and what becomes of it.

use super::server::Mishap;
use super::*;
use jiff::SignedDuration;
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
        object::label_value(driver.volume.as_str()).as_str()
    );
    assert_eq!(object["metadata"]["annotations"]["certlet.io/volume-id"], driver.volume.as_str());
    assert_eq!(object["spec"]["duration"], "24h0m0s");
    assert_eq!(object["spec"]["usages"], json!(["digital signature", "key encipherment"]));
    assert_eq!(
        object["spec"]["issuerRef"],
        json!({"name": "ca", "kind": "Issuer", "group": "cert-manager.io"})
    );
    driver.sign_anew().await;
    assert_eq!(driver.server.calls("watch"), 1, "one watch serves all requests");
}

#[tokio::test]
async fn the_request_in_use_stays_until_a_newer_one_is() {
    let driver = Driver::new().await;
    driver.sign_and_issue().await;
    let in_use = driver.server.only().await;
    driver.signer.delivered(&driver.signed_volume()).await;
    // Signed, and refused by certlet.
    for _ in 0..3 {
        driver.sign_anew().await;
    }
    // But for the first of the three, which was cleared away with the third.
    assert!(driver.server.number(3).await.contains(&in_use));
    driver.signer.delivered(&driver.signed_volume()).await;
    assert_ne!(driver.server.only().await, in_use);
}

#[tokio::test]
async fn after_a_start_too_a_failed_request_does_not_cost_the_one_in_use() {
    let mut driver = Driver::new().await;
    driver.sign_and_issue().await;
    let in_use = driver.server.only().await;
    driver.restart().await;
    for _ in 0..2 {
        *driver.notes.0.lock().unwrap() = None;
        let known = driver.server.names();
        let failing = async {
            let names = driver.server.number(known.len() + 1).await;
            let name = names.into_iter().find(|name| !known.contains(name)).unwrap();
            driver.server.set(&name, &[("Ready", "False", "Failed", "no")], &json!({}));
        };
        transient(tokio::join!(driver.sign(), failing).0);
    }
    assert!(driver.server.names().contains(&in_use));
}

#[tokio::test]
async fn as_many_requests_are_kept_as_the_operator_wants() {
    let options = CertManagerOptions { keep_requests: 2, ..CertManagerOptions::default() };
    let driver = Driver::with(options).await;
    driver.sign_and_issue().await;
    let first = driver.server.only().await;
    for _ in 0..2 {
        driver.sign_anew().await;
        driver.signer.delivered(&driver.signed_volume()).await;
    }
    assert!(!driver.server.number(2).await.contains(&first));
}

#[tokio::test]
async fn a_server_that_wants_to_be_left_alone_is() {
    let driver = Driver::new().await;
    let body = "Too many requests, please try again later.\n".to_owned();
    driver.server.next_create(Mishap::Refuse { code: 429, body, retry_after: Some(1) });
    let Err(SignError::Throttled { retry_after, .. }) = driver.sign().await else { panic!("not throttled") };
    assert_eq!(retry_after, Some(Duration::from_secs(1)));
    let begun = tokio::time::Instant::now();
    driver.sign_and_issue().await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());

    let body = "Service Unavailable\n".to_owned();
    driver.server.next_create(Mishap::Refuse { code: 503, body, retry_after: Some(60) });
    *driver.notes.0.lock().unwrap() = None;
    for _ in 0..3 {
        let Err(SignError::Throttled { .. }) = driver.sign().await else { panic!("not throttled") };
    }
    assert_eq!(driver.server.calls("create"), 3, "a long wait is told, and nobody asked meanwhile");
}

#[tokio::test]
async fn what_is_refused_to_one_volume_is_no_wish_to_be_left_alone() {
    let driver = Driver::new().await;
    let body = r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"the webhook says no","details":{"retryAfterSeconds":60}}"#;
    driver.server.next_create(Mishap::Refuse { code: 403, body: body.to_owned(), retry_after: None });
    assert!(permanent(driver.sign().await).contains("the webhook says no"));
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn a_denied_request_stands_for_a_while_and_says_who_denied_it() {
    let driver = Driver::new().await;
    let denied =
        [("Denied", "True", "policy.cert-manager.io", "no such name"), ("Ready", "False", "Denied", "")];
    let reason =
        permanent(driver.sign_while(async |server, name| server.set(&name, &denied, &json!({}))).await);
    assert!(reason.contains("policy.cert-manager.io: no such name"), "{reason}");
    for _ in 0..3 {
        let again = permanent(driver.sign().await);
        assert!(again.contains("no such name") && again.contains("12:10:00Z"), "{again}");
    }
    let first = driver.server.only().await;
    assert_eq!(driver.server.calls("create"), 1);

    *driver.clock.0.lock().unwrap() += SignedDuration::from_mins(10);
    let mended = async {
        let names = driver.server.number(1).await;
        let mut second = names[0].clone();
        while second == first {
            tokio::time::sleep(Duration::from_millis(10)).await;
            second = driver.server.names().into_iter().find(|name| *name != first).unwrap_or(second);
        }
        driver.server.issue(&second);
    };
    let (signed, ()) = tokio::join!(driver.sign(), mended);
    signed.unwrap();
    assert_ne!(driver.server.only().await, first);
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
    let again = async {
        loop {
            if let Some(second) = driver.server.names().into_iter().find(|name| *name != first) {
                assert_eq!(driver.server.object(&second)["spec"]["request"], csr);
                return driver.server.issue(&second);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (signed, ()) = tokio::join!(driver.sign(), again);
    signed.unwrap();
    assert_ne!(driver.server.only().await, first);
}

#[tokio::test]
async fn a_request_nobody_approves_says_so_and_is_signed_once_somebody_does() {
    let driver = Driver::new().await;
    driver.sign_in_vain().await;
    let words = driver.signer.describe(&driver.notes.load().unwrap());
    assert!(
        words.contains("CertificateRequest shop/web-0-") && words.contains("not approved yet"),
        "{words}"
    );
    driver.sign_and_issue().await;
    assert_eq!(driver.server.calls("create"), 1);
}
