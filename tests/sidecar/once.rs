//! `--once`: for init containers and Jobs.

use crate::harness::{LOCAL, Sidecar};
use crate::node_test;
use crate::support::{assert_whole, eventually};

node_test! {
    async fn once_ends_with_the_certificate_and_asks_for_no_second_one() {
        let mut sidecar = Sidecar::new(&LOCAL);
        sidecar.flag("--once");
        let output = sidecar.run();
        assert!(output.status.success(), "{output:?}");
        assert_whole(&sidecar.directory);
        let serial = sidecar.serial();
        // The kubelet runs init containers again when it makes the pod's sandbox again.
        assert!(sidecar.run().status.success());
        assert_eq!(sidecar.serial(), serial);
    }
}

node_test! {
    async fn once_renews_a_certificate_that_is_due() {
        let mut sidecar = Sidecar::new(&[LOCAL[0], LOCAL[1], "duration=6s"]);
        sidecar.flag("--once");
        assert!(sidecar.run().status.success());
        let serial = sidecar.serial();
        eventually("the time of the renewal", async || {
            let output = sidecar.run();
            assert!(output.status.success(), "{output:?}");
            sidecar.serial() != serial
        })
        .await;
        assert_whole(&sidecar.directory);
    }
}

node_test! {
    async fn once_says_what_is_missing_when_its_time_is_over_or_nothing_can_help() {
        let mut sidecar = Sidecar::without_signer(&LOCAL);
        sidecar.flag("--once");
        let log = sidecar.directory.parent().unwrap().join("termination-log");
        std::fs::write(&log, "").unwrap();
        sidecar.flag(&format!("--termination-message-path={}", log.display()));
        let output = sidecar.run();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(
            said,
            "no certificate: signer: \"local\" is not available here: certlet offers it only with --allow-local-signer, which is \
             for development"
        );
        let last = String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned();
        assert_eq!(last, format!("certlet: {said}"));
    }
}
