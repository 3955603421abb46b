//! From the first certificate to the end: renewals, restarts, crashes, other attributes.

use crate::client::{next, svids};
use crate::harness::{LOCAL, SPIFFE, Sidecar, names};
use crate::node_test;
use crate::support::{assert_whole, eventually, get_from};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use tonic::Code;

/// The permission bits, and the group.
fn access(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.permissions().mode() & 0o7777, found.gid())
}

node_test! {
    async fn a_pod_gets_its_certificate_and_its_renewals_in_the_shared_directory() {
        let mut sidecar = Sidecar::new(&[LOCAL[0], LOCAL[1], "duration=6s"]);
        let (code, said) = sidecar.health("--readiness");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("certlet does not listen on"), "{said}");
        sidecar.started().await;
        let directory = sidecar.directory.clone();
        assert_whole(&directory);
        assert_eq!(names(&directory), ["..1", "..certlet", "..data", "ca.crt", "tls.crt", "tls.key"]);
        assert_eq!(access(&directory.join("tls.key")).0, 0o400, "only the sidecar's own user reads the key");
        assert_eq!(access(&directory.join("..certlet")).0, 0o700);
        assert_eq!(access(&directory).0, 0o777, "the directory is not the sidecar's");
        assert!(sidecar.status().contains("DNS:web-0.shop.svc"), "{}", sidecar.status());
        let first = sidecar.serial();
        let second = sidecar.renewed(&first).await;
        sidecar.renewed(&second).await;
        assert_whole(&directory);
        assert_eq!(sidecar.health("--liveness"), (Some(0), "ok\n".into()));
        assert_eq!(sidecar.stop().code(), Some(0));
        assert_whole(&directory);
    }
}

node_test! {
    async fn a_renewal_that_is_asked_for_comes_at_once() {
        let mut sidecar = Sidecar::new(&LOCAL);
        let (code, said) = sidecar.renew();
        assert!(code == Some(1) && said.contains("there is no store in"), "{said}");
        sidecar.started().await;
        let first = sidecar.serial();
        let (code, said) = sidecar.renew();
        assert!(code == Some(0) && said.starts_with("shop/web-0: renewed, expires "), "{said}");
        assert_ne!(sidecar.serial(), first);
        assert_whole(&sidecar.directory);
        assert_eq!(sidecar.stop().code(), Some(0));
    }
}

node_test! {
    async fn the_group_of_a_pods_volumes_reads_the_key_and_connects() {
        const GROUP: u32 = 2000;
        let mut sidecar = Sidecar::new(&SPIFFE);
        let directory = sidecar.directory.clone();
        // As the kubelet does for fsGroup. Without a mapping of groups, the process's own group takes its place.
        let group = if crate::support::namespace::maps_all_groups() { GROUP } else { 0 };
        chown(&directory, None, Some(group)).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o2777)).unwrap();
        sidecar.started().await;
        assert_eq!(access(&directory.join("tls.key")), (0o440, group));
        assert_eq!(access(&directory.join("spiffe.sock")), (0o660, group));
        assert_eq!(access(&directory.join("..data")).0 & 0o005, 0o005, "all may enter");
        sidecar.stop();
    }
}

node_test! {
    async fn after_kill_9_the_certificate_is_the_same_and_clients_connect_again() {
        let mut sidecar = Sidecar::new(&SPIFFE);
        sidecar.started().await;
        let (directory, serial) = (sidecar.directory.clone(), sidecar.serial());
        let mut stream = svids(&directory).await.unwrap();
        let first = next(&mut stream).await.unwrap();
        sidecar.kill();
        assert!(next(&mut stream).await.is_err());
        sidecar.started().await;
        assert_eq!(sidecar.serial(), serial);
        let mut stream = svids(&directory).await.unwrap();
        assert!(next(&mut stream).await.unwrap() == first, "the credential was read back");
        assert_eq!(sidecar.stop().code(), Some(0));
        let end = next(&mut stream).await.err().unwrap();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "certlet is restarting: connect again"));
    }
}

node_test! {
    async fn a_crash_in_the_middle_of_a_write_leaves_nothing_behind() {
        let mut sidecar = Sidecar::new(&LOCAL);
        sidecar.started().await;
        let serial = sidecar.serial();
        sidecar.kill();
        let directory = sidecar.directory.clone();
        fs::create_dir(directory.join("..2")).unwrap();
        fs::write(directory.join("..2/tls.key"), "half").unwrap();
        std::os::unix::fs::symlink("..2", directory.join("..data_tmp")).unwrap();
        std::os::unix::fs::symlink("..data/new.crt", directory.join("new.crt")).unwrap();
        fs::write(directory.join("..certlet/volumes/sidecar-b8f1/record.json.tmp"), "{").unwrap();
        sidecar.started().await;
        assert_eq!(sidecar.names(), ["..1", "..certlet", "..data", "ca.crt", "tls.crt", "tls.key"]);
        assert_eq!(sidecar.serial(), serial);
        sidecar.stop();
    }
}

node_test! {
    async fn without_a_usable_record_the_files_stay_and_are_renewed() {
        let mut sidecar = Sidecar::new(&LOCAL);
        sidecar.started().await;
        let serial = sidecar.serial();
        for damage in ["", "{\"version\":1}", "not JSON"] {
            sidecar.kill();
            fs::write(sidecar.directory.join("..certlet/volumes/sidecar-b8f1/record.json"), damage).unwrap();
            sidecar.started().await;
            sidecar.renewed(&serial).await;
            assert_whole(&sidecar.directory);
        }
        sidecar.stop();
    }
}

node_test! {
    async fn other_attributes_at_a_restart_ask_for_another_certificate_and_the_old_one_stays_until_then() {
        let mut sidecar = Sidecar::new(&LOCAL);
        sidecar.started().await;
        let serial = sidecar.serial();
        sidecar.stop();
        sidecar.flag("--attributes=certificate-file=other.crt");
        sidecar.started().await;
        eventually("the other files", async || sidecar.directory.join("other.crt").exists()).await;
        eventually("the end of the old name", async || !sidecar.directory.join("tls.crt").exists()).await;
        assert!(sidecar.status().contains("web-0"), "{}", sidecar.status());
        assert!(!fs::read_to_string(sidecar.directory.join("other.crt")).unwrap().contains(&serial));
        sidecar.stop();
    }
}

node_test! {
    async fn attributes_come_from_the_environment_and_from_annotations() {
        let mut sidecar = Sidecar::new(&["signer=local"]);
        let file = sidecar.directory.parent().unwrap().join("annotations");
        let annotations = "certlet.io/inject=\"true\"\ncsi.certlet.io/uri-sans=\"spiffe://example.org/a\"\nother=\"x\\ny\"";
        fs::write(&file, annotations).unwrap();
        sidecar.flag(&format!("--attributes-file={}", file.display()));
        // Flags win over the environment as a whole.
        sidecar.flags.retain(|flag| !flag.starts_with("--attributes="));
        let lines = "signer=local\ndns-names=a.example,b.example";
        sidecar.environment.push(("CERTLET_ATTRIBUTES".into(), lines.into()));
        sidecar.started().await;
        let status = sidecar.status();
        for name in ["DNS:a.example", "DNS:b.example", "URI:spiffe://example.org/a"] {
            assert!(status.contains(name), "{status}");
        }
        sidecar.stop();
    }
}

node_test! {
    async fn the_admin_server_is_off_unless_it_is_asked_for() {
        let mut sidecar = Sidecar::new(&LOCAL);
        sidecar.flag("--metrics-bind-address=127.0.0.1:19403");
        sidecar.started().await;
        assert_eq!(get_from("127.0.0.1:19403", "/readyz").await.unwrap(), (200, "ok\n".into()));
        assert_eq!(get_from("127.0.0.1:19403", "/healthz").await.unwrap().0, 200);
        let metrics = get_from("127.0.0.1:19403", "/metrics").await.unwrap().1;
        assert!(metrics.contains("certlet_issuances_total"), "{metrics}");
        sidecar.stop();
        sidecar.flags.pop();
        sidecar.started().await;
        assert_eq!(get_from("127.0.0.1:19403", "/readyz").await, None);
        sidecar.stop();
    }
}

node_test! {
    async fn with_on_renewal_it_exits_after_the_renewal_and_its_successor_goes_on_with_the_certificate() {
        let mut sidecar = Sidecar::new(&[LOCAL[0], LOCAL[1], "duration=8s"]);
        sidecar.flag("--on-renewal=exit=88");
        sidecar.started().await;
        let first = sidecar.serial();
        assert_eq!(sidecar.wait().code(), Some(88));
        let second = sidecar.serial();
        assert_ne!(second, first);
        assert_whole(&sidecar.directory);
        sidecar.started().await;
        assert_eq!(sidecar.serial(), second, "the restart asks for no certificate");
        assert_eq!(sidecar.stop().code(), Some(0));
    }
}
