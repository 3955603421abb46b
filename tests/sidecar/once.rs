//! `--once`: for init containers and Jobs.

use crate::harness::{LOCAL, Sidecar};
use crate::node_test;
use crate::support::{assert_whole, eventually, openssl};

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
    async fn node_and_address_of_the_pod_come_from_the_downward_api() {
        let attributes = ["signer=local", "dns-names=${NODE_NAME}", "services=web", "ip-sans=${POD_IP}"];
        let mut sidecar = Sidecar::new(&attributes);
        sidecar.flag("--once");
        let output = sidecar.run();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("in a sidecar --pod-ip") && said.contains("(--node-name)"), "{said}");

        sidecar.environment.push(("CERTLET_POD_IP".to_owned(), "10.1.2.3".to_owned()));
        sidecar.environment.push(("CERTLET_NODE_NAME".to_owned(), "node-1".to_owned()));
        let output = sidecar.run();
        assert!(output.status.success(), "{output:?}");
        assert_whole(&sidecar.directory);
        let leaf = sidecar.directory.join("tls.crt");
        let names = || {
            let names = openssl(&["x509", "-in", leaf.to_str().unwrap(), "-noout", "-ext", "subjectAltName"]);
            String::from_utf8(names.stdout).unwrap()
        };
        let expected = "DNS:node-1, DNS:web, DNS:web.shop, DNS:web.shop.svc, DNS:web.shop.svc.cluster.local, IP Address:10.1.2.3";
        assert!(names().contains(expected), "{}", names());
        let serial = sidecar.serial();
        assert!(sidecar.run().status.success());
        assert_eq!(sidecar.serial(), serial);
        // The pod's sandbox is made anew, and its emptyDir stays.
        sidecar.environment[0].1 = "10.9.9.9".to_owned();
        assert!(sidecar.run().status.success());
        assert!(names().contains("IP Address:10.9.9.9"), "{}", names());
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
