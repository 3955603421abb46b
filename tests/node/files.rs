//! What is in a volume, and who may read it.

use crate::node_test;
use crate::support::{self, Node, assert_whole, openssl, pod, pod_with, serial};
use nix::sys::statvfs::FsFlags;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use tonic::Code;

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

/// The PKCS#12 keystore opens with this password.
fn opens(volume: &Path, password: &str) -> bool {
    let (keystore, password) = (volume.join("keystore.p12"), format!("pass:{password}"));
    let arguments = ["pkcs12", "-in", keystore.to_str().unwrap(), "-passin", &password, "-noout"];
    Command::new("openssl").args(arguments).output().unwrap().status.success()
}

node_test! {
    async fn a_password_from_a_secret_is_kept_across_restarts_and_in_no_record() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[("pkcs12-enable", "true"), ("pkcs12-password-key", "store")]);
        let refused = kubelet.publish(&pod).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("pkcs12-password: is required") && refused.message().contains("nodePublishSecretRef"), "{refused:?}");
        let mut request = kubelet.publish_request(&pod);
        for (value, problem) in [("line\n", "control character"), ("", "is empty"), ("\u{fc}", "is not ASCII")] {
            request.secrets.insert("store".to_owned(), value.to_owned());
            let refused = kubelet.publish_with(request.clone()).await.unwrap_err();
            assert!(refused.message().contains("pkcs12-password-key") && refused.message().contains(problem), "{refused:?}");
        }
        request.secrets.insert("store".to_owned(), "correct-horse".to_owned());
        kubelet.publish_with(request.clone()).await.unwrap();
        let volume = kubelet.target(&pod);
        assert!(opens(&volume, "correct-horse") && !opens(&volume, "changeit"));
        let record = fs::read_to_string(node.stored_at(&pod).join("record.json")).unwrap();
        assert!(!record.contains("correct-horse"));
        assert!(!volume.join("keystore.password").exists() && !node.log().contains("correct-horse"));
        node.kill();
        let kubelet = node.started().await;
        kubelet.publish_with(request).await.unwrap();
        assert!(opens(&volume, "correct-horse"));
        kubelet.unpublish(&pod).await.unwrap();
        assert_eq!(node.stored(), Vec::<std::path::PathBuf>::new());
    }
}

node_test! {
    async fn a_running_volume_keeps_its_password_whatever_becomes_of_the_secret() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--store-size=1Mi", "--max-store-share-per-namespace=100"]);
        let kubelet = node.started().await;
        let pod = pod_with("web-0", &[("pkcs12-enable", "true"), ("duration", "8s")]);
        let volume = kubelet.target(&pod);
        fs::create_dir_all(volume.parent().unwrap()).unwrap();
        let with_secret = |password: Option<&str>| {
            let mut request = kubelet.publish_request(&pod);
            request.secrets.extend(password.map(|password| ("password".to_owned(), password.to_owned())));
            request
        };
        kubelet.publish_with(with_secret(Some("correct-horse"))).await.unwrap();
        let before = serial(&volume);
        let kept = node.stored_at(&pod).join("keystore.password");
        // A full store does not fail a republish either.
        let rest = node.data_root().join("rest");
        fs::write(&rest, vec![0; 1 << 20]).unwrap_err();
        for password in [Some("rotated"), Some("line\n"), None] {
            kubelet.publish_with(with_secret(password)).await.unwrap_or_else(|status| panic!("{password:?}: {status:?}"));
            assert_eq!(fs::read_to_string(&kept).unwrap(), "correct-horse");
        }
        fs::remove_file(&rest).unwrap();
        support::eventually("it is renewed", async || serial(&volume) != before).await;
        assert!(opens(&volume, "correct-horse") && !opens(&volume, "rotated"));
        // The mount is made again without the Secret too.
        nix::mount::umount(&volume).unwrap();
        kubelet.publish_with(with_secret(None)).await.unwrap();
        assert!(opens(&volume, "correct-horse"));
        assert!(!node.log().contains("not accepted"));
        kubelet.unpublish(&pod).await.unwrap();
        fs::create_dir_all(volume.parent().unwrap()).unwrap();
        kubelet.publish_with(with_secret(Some("rotated"))).await.unwrap();
        assert!(opens(&volume, "rotated"));
    }
}

node_test! {
    async fn a_random_password_is_in_its_file_and_the_truststore_has_the_same() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let attributes = [("pkcs12-enable", "true"), ("pkcs12-password-file", "password"), ("truststore-file", "trust.p12")];
        let [first, second] = ["web-0", "web-1"].map(|name| pod_with(name, &attributes));
        let volume = kubelet.publish(&first).await.unwrap();
        let password = fs::read_to_string(volume.join("password")).unwrap();
        assert!(password.len() == 64 && opens(&volume, &password));
        let mode = fs::metadata(volume.join("password")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o400);
        let trust = volume.join("trust.p12");
        openssl(&["pkcs12", "-in", trust.to_str().unwrap(), "-passin", &format!("pass:{password}"), "-nokeys"]);
        let other = kubelet.publish(&second).await.unwrap();
        assert_ne!(fs::read_to_string(other.join("password")).unwrap(), password);
    }
}

node_test! {
    async fn the_owner_may_read_the_key_and_nobody_else() {
        if !support::namespace::maps_all_groups() {
            eprintln!("not checked: an ordinary user has no second user to give a file to");
            return;
        }
        let mut node = Node::new();
        let kubelet = node.started().await;
        let alone = pod_with("web-0", &[("owner", "1000")]);
        let mut with_group = pod_with("web-1", &[("owner", "1000")]);
        with_group.fs_group = Some(2000);
        for (pod, mode, group) in [(alone, 0o400, 0), (with_group, 0o440, 2000)] {
            let key = fs::metadata(kubelet.publish(&pod).await.unwrap().join("tls.key")).unwrap();
            assert_eq!((key.permissions().mode() & 0o777, key.uid(), key.gid()), (mode, 1000, group));
        }
    }
}
