//! Requests that are read again and again, by a process that may not watch.

use super::server::CreateFailure;
use super::*;
use serde_json::{Value, json};
use tokio::time::Instant;

impl Driver {
    async fn polling() -> Self {
        Self::with(CertManagerOptions { following: Following::Poll, ..Default::default() }).await
    }

    /// Waits for so many more reads of the request.
    async fn polled(&self, times: usize) {
        let enough = self.server.calls("get") + times;
        while self.server.calls("get") < enough {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn assert_no_watch(&self) {
        assert_eq!((self.server.calls("watch"), self.server.calls("list")), (0, 0));
    }
}

#[tokio::test]
async fn a_polled_request_is_read_until_it_is_issued_and_nothing_is_watched_or_listed() {
    let driver = Driver::polling().await;
    let begun = Instant::now();
    let issuing = async {
        driver.polled(6).await;
        driver.server.issue(&driver.server.only().await);
    };
    let signed = tokio::join!(driver.sign(), issuing).0.unwrap();
    assert_eq!((signed.chain.as_slice(), signed.ca.as_deref()), (&b"leaf"[..], Some(&b"root"[..])));
    // 20, 30, 45, 68, 101 and 152 ms, or half of each.
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    let object = driver.server.object(&driver.server.only().await);
    let label = object::label_value(driver.id.as_str());
    assert_eq!(object["metadata"]["labels"], json!({ "certlet.io/volume": label }), "no label of a node");
    assert_eq!(object["metadata"]["annotations"]["certlet.io/volume-id"], driver.id.as_str());
    driver.sign_new_request().await;
    driver.signer.in_use(&driver.issued());
    driver.server.wait_for_count(1).await;
    driver.signer.removed(&driver.issued());
    driver.server.wait_for_count(0).await;
    driver.assert_no_watch();
}

#[tokio::test]
async fn a_cancelled_signing_polls_no_more_and_the_next_one_resumes_its_request() {
    let driver = Driver::polling().await;
    driver.sign_until_cancelled().await;
    // A call that was in flight has reached the server.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let gets = driver.server.calls("get");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(driver.server.calls("get"), gets);
    driver.server.issue(&driver.server.only().await);
    driver.sign().await.unwrap();
    assert_eq!((driver.server.calls("create"), driver.server.calls("get")), (1, gets + 1));
}

#[tokio::test]
async fn a_restart_resumes_the_polled_request() {
    let mut driver = Driver::polling().await;
    driver.sign_until_cancelled().await;
    driver.restart().await;
    driver.sign_and_issue().await;
    assert_eq!(driver.server.names().len(), 1);
    driver.assert_no_watch();
}

#[tokio::test]
async fn a_polled_request_that_is_denied_fails_or_is_invalid_ends_the_signing() {
    let denied = [("Denied", "True", "policy.cert-manager.io", "no such name")];
    let invalid = [("InvalidRequest", "True", "BadSubject", "too long")];
    let failed = [("Approved", "True", "", ""), ("Ready", "False", "Failed", "backend down")];
    for (conditions, kind, message) in [
        (&denied[..], FailureKind::Permanent, "policy.cert-manager.io: no such name"),
        (&invalid, FailureKind::Permanent, "BadSubject: too long"),
        (&failed, FailureKind::Transient, "backend down"),
    ] {
        let driver = Driver::polling().await;
        let decided = async |server: &Server, name: String| {
            driver.polled(2).await;
            server.set(&name, conditions, &json!({}));
        };
        let said = of_kind(kind, driver.sign_while(decided).await);
        assert!(said.contains(message), "{said}");
        let first = driver.server.only().await;
        driver.sign_again_and_issue(&first).await;
    }
}

#[tokio::test]
async fn a_polled_request_that_somebody_deletes_is_created_again() {
    let driver = Driver::polling().await;
    let deleted = async |server: &Server, name: String| {
        driver.polled(2).await;
        server.delete(&name);
    };
    let said = transient(driver.sign_while(deleted).await);
    assert!(said.contains("was deleted before it was signed"), "{said}");
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn a_polled_request_that_somebody_replaces_is_not_adopted() {
    let changes: [fn(&mut Value); 2] = [|_| {}, |object| object["spec"]["issuerRef"]["name"] = "evil".into()];
    for change in changes {
        let driver = Driver::polling().await;
        let replaced = async |server: &Server, name: String| {
            driver.polled(2).await;
            server.replace(&name, false, change);
            server.issue(&name);
        };
        let said = transient(driver.sign_while(replaced).await);
        assert!(said.contains("was replaced by another one of that name"), "{said}");
        let first = driver.server.names().remove(0);
        driver.sign_again_and_issue(&first).await;
    }
}

#[tokio::test]
async fn errors_of_the_server_while_polling_do_not_end_the_signing() {
    let driver = Driver::polling().await;
    driver.server.fail_gets(&[(500, None), (503, None), (401, None), (502, None)]);
    let issuing = async |server: &Server, name: String| {
        while server.get_failures() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.issue(&name);
    };
    driver.sign_while(issuing).await.unwrap();
    assert_eq!(driver.server.calls("create"), 1);
}

#[tokio::test]
async fn a_retry_after_delays_the_next_poll() {
    let driver = Driver::polling().await;
    driver.server.fail_gets(&[(429, Some(1))]);
    let begun = Instant::now();
    driver.sign_and_issue().await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(driver.server.calls("get"), 2);
}

#[tokio::test]
async fn what_fails_while_polling_is_described() {
    let driver = Driver::polling().await;
    driver.server.fail_gets(&[(500, None); 100]);
    driver.sign_until_cancelled().await;
    let described = || driver.signer.describe(&driver.checkpoint.load().unwrap());
    assert!(described().contains("scripted Scripted"), "{}", described());
}

#[tokio::test]
async fn a_missing_permission_to_get_is_permanent() {
    let driver = Driver::polling().await;
    driver.server.fail_gets(&[(403, None)]);
    let said = permanent(driver.sign().await);
    assert!(said.contains("get certificaterequests in namespace shop"), "{said}");
    // Once it is granted, the same request is used.
    driver.sign_and_issue().await;
    assert_eq!(driver.server.calls("create"), 1);
}

#[tokio::test]
async fn without_the_permission_to_delete_each_old_request_is_tried_once() {
    let driver = Driver::polling().await;
    driver.server.refuse_deletes(true);
    for _ in 0..4 {
        driver.sign_new_request().await;
        driver.signer.in_use(&driver.issued());
        while driver.signer.deletions.pending() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!((driver.server.names().len(), driver.server.calls("delete")), (4, 3));
}

#[tokio::test]
async fn an_approver_that_approves_everything_is_noticed_by_polling() {
    let issued = json!({ "certificate": "bGVhZg==", "ca": "cm9vdA==" });
    for (reason, is_noticed) in [("policy.cert-manager.io", false), ("cert-manager.io", true)] {
        let driver = Driver::polling().await;
        let conditions = [("Approved", "True", reason, ""), ("Ready", "True", "Issued", "")];
        driver.sign_while(async |server, name| server.set(&name, &conditions, &issued)).await.unwrap();
        assert_eq!(driver.approved_unchecked.load(Ordering::Relaxed) > 0, is_noticed, "{reason}");
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_create_is_found_by_polling() {
    let driver = Driver::polling().await;
    driver.server.next_create(CreateFailure::LoseAnswer);
    transient(driver.sign().await);
    driver.sign_and_issue().await;
    assert_eq!(driver.server.names().len(), 1);
}
