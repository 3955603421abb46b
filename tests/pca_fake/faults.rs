//! Faults of AWS, and the number of calls and certificates in each case.

use crate::fake_pca::Fault;
use crate::support::assert_whole;
use crate::{DESCRIBE, GET, ISSUE, node_test, pod, started};
use tonic::Code;

node_test! {
    async fn a_slow_certificate_is_issued_once() {
        let (fake, _node, kubelet) = started().await;
        fake.slow(3);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(ISSUE), fake.calls(GET)), (1, 4));
    }
}

node_test! {
    async fn throttled_calls_are_retried() {
        let (fake, _node, kubelet) = started().await;
        fake.fail(DESCRIBE, &[Fault::Refuse("ThrottlingException", 400)]);
        fake.fail(ISSUE, &[Fault::Refuse("ThrottlingException", 400), Fault::Refuse("TooManyRequestsException", 429)]);
        fake.fail(GET, &[Fault::Refuse("ThrottlingException", 400)]);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(DESCRIBE), fake.calls(ISSUE), fake.calls(GET), fake.issued()), (2, 3, 2, 1));
    }
}

node_test! {
    async fn a_call_with_a_lost_answer_is_retried_and_issues_once() {
        let (fake, _node, kubelet) = started().await;
        fake.fail(ISSUE, &[Fault::LoseAnswer, Fault::LoseAnswer]);
        fake.fail(GET, &[Fault::LoseAnswer]);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(ISSUE), fake.calls(GET), fake.issued()), (3, 2, 1));
    }
}

node_test! {
    async fn a_disabled_ca_is_reported_and_existing_volumes_stay() {
        let (fake, _node, kubelet) = started().await;
        let volume = kubelet.publish(&pod("web-0", &[])).await.unwrap();
        fake.describe(|ca| ca.status = "DISABLED");
        let refused = kubelet.publish(&pod("web-1", &[])).await.unwrap_err();
        assert!(refused.message().contains("InvalidStateException"), "{refused}");
        let refused = kubelet.publish(&pod("web-1", &[])).await.unwrap_err();
        assert!(refused.message().contains("the private CA is DISABLED, not ACTIVE: enable it"), "{refused}");
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_whole(&volume);
        fake.describe(|ca| ca.status = "ACTIVE");
        kubelet.publish(&pod("web-1", &[])).await.unwrap();
    }
}

node_test! {
    async fn an_invalid_answer_is_refused_and_fetched_again_without_a_new_certificate() {
        let (fake, _node, kubelet) = started().await;
        fake.fail(GET, &[Fault::InvalidAnswer]);
        let refused = kubelet.publish(&pod("web-0", &[])).await.unwrap_err();
        assert!(refused.message().contains("not PEM"), "{refused}");
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.issued(), fake.calls(ISSUE)), (1, 1));
    }
}

node_test! {
    async fn permanent_errors_give_advice() {
        let (fake, _node, kubelet) = started().await;
        for (number, (code, advice)) in [
            ("AccessDeniedException", "let the IAM policy"),
            ("LimitExceededException", "quota of certificates is used up"),
            ("ResourceNotFoundException", "check certificate-authority-arn"),
            ("MalformedCSRException", "does not accept this subject"),
            ("InvalidArgsException", "template, signing algorithm and duration"),
        ]
        .into_iter()
        .enumerate()
        {
            fake.fail(ISSUE, &[Fault::Refuse(code, 400)]);
            let refused = kubelet.publish(&pod(&format!("web-{number}"), &[])).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{code}");
            assert!(refused.message().contains(code) && refused.message().contains(advice), "{refused}");
            assert_eq!(fake.calls(ISSUE), number + 1, "{code} is not retried");
        }
        assert_eq!(fake.calls(DESCRIBE), 1, "the CA is not described again after each error");
    }
}
