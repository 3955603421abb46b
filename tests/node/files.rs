//! What is in a volume, and who may read it.

use crate::node_test;
use crate::support::{self, Node, assert_whole, openssl, pod, pod_with};
use nix::sys::statvfs::FsFlags;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

node_test! {
    async fn a_published_volume_is_whole_read_only_and_private() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        assert_whole(&volume);
        let mode = |name: &str| fs::metadata(volume.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("tls.key"), mode("tls.crt"), mode("ca.crt")), (0o400, 0o444, 0o444));
        assert_eq!(fs::read_link(volume.join("tls.key")).unwrap().to_str(), Some("..data/tls.key"));
        let error = fs::write(volume.join("intruder"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let flags = nix::sys::statvfs::statvfs(&volume).unwrap().flags();
        assert!(flags.contains(FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC), "{flags:?}");
    }
}

node_test! {
    async fn the_fs_group_may_read_the_key_and_nobody_else() {
        if !support::namespace::maps_all_groups() {
            eprintln!("not checked: an ordinary user has no second group to give a file to");
            return;
        }
        let mut node = Node::new();
        let kubelet = node.started().await;
        let mut by_pod = pod("web-0");
        by_pod.fs_group = Some(2000);
        let mut by_attribute = pod_with("web-1", &[("fs-group", "3000")]);
        by_attribute.fs_group = Some(2000);
        for (pod, group) in [(by_pod, 2000), (by_attribute, 3000)] {
            let key = fs::metadata(kubelet.publish(&pod).await.unwrap().join("tls.key")).unwrap();
            assert_eq!((key.permissions().mode() & 0o777, key.gid()), (0o440, group));
        }
    }
}

node_test! {
    async fn every_key_algorithm_gives_a_key_that_fits_its_certificate() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        for (algorithm, size) in [("RSA", "2048"), ("ECDSA", "256"), ("ECDSA", "384"), ("ECDSA", "521"), ("Ed25519", "")] {
            let pod = pod_with(&format!("web-{}{size}", algorithm.to_lowercase()), &[("key-algorithm", algorithm), ("key-size", size)]);
            let volume = kubelet.publish(&pod).await.unwrap_or_else(|status| panic!("{algorithm} {size}: {status:?}"));
            assert_whole(&volume);
        }
    }
}

node_test! {
    async fn all_requested_files_exist_under_their_names() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[
            ("certificate-file", "cert.pem"), ("privatekey-file", "key.pem"), ("ca-file", "roots.pem"),
            ("combined-file", "all.pem"), ("pkcs12-enable", "true"), ("pkcs12-password", "changeit"),
        ]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let names: BTreeSet<String> = fs::read_dir(&volume).unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("..")).collect();
        let expected = ["all.pem", "cert.pem", "key.pem", "keystore.p12", "roots.pem"].map(str::to_owned);
        assert_eq!(names, BTreeSet::from(expected));
        let keystore = volume.join("keystore.p12");
        openssl(&["pkcs12", "-in", keystore.to_str().unwrap(), "-passin", "pass:changeit", "-nodes"]);
        let combined = fs::read_to_string(volume.join("all.pem")).unwrap();
        assert!(combined.find("PRIVATE KEY").unwrap() < combined.find("BEGIN CERTIFICATE").unwrap(), "key first, then chain");
        assert_eq!(fs::metadata(volume.join("all.pem")).unwrap().permissions().mode() & 0o777, 0o400);
    }
}
