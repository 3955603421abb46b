//! A socket's life: permissions, restarts, leftovers, and the end of its volume.

use crate::client::{connect, next, socket_in, svids};
use crate::support::{Node, eventually, key_in};
use crate::{node_test, spiffe_pod};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tonic::Code;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

node_test! {
    async fn a_stream_ends_with_kill_9_and_the_path_answers_again_after_the_restart() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut stream = svids(&volume).await.unwrap();
        let first = next(&mut stream).await.unwrap();
        node.kill();
        assert!(next(&mut stream).await.is_err());
        assert!(socket_in(&volume).symlink_metadata().unwrap().file_type().is_socket(), "the path vanished");
        assert!(connect(&socket_in(&volume)).await.is_err(), "somebody answers");
        node.start();
        eventually("the socket", async || connect(&socket_in(&volume)).await.is_ok()).await;
        let again = next(&mut svids(&volume).await.unwrap()).await.unwrap();
        assert!(first == again, "the credential was read back from the store");
        // At a SIGTERM too, the stream ends with a status on which clients connect again.
        let mut stream = svids(&volume).await.unwrap();
        next(&mut stream).await.unwrap();
        node.stop();
        let end = next(&mut stream).await.err().unwrap();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "certlet is restarting: connect again"));
        node.started().await;
        let again = next(&mut svids(&volume).await.unwrap()).await.unwrap();
        assert!(first == again);
        node.stop();
    }
}

node_test! {
    async fn whoever_may_read_the_key_may_connect() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let mut grouped = spiffe_pod("grouped", &[]);
        grouped.fs_group = Some(2000);
        for (pod, expected) in [
            (spiffe_pod("plain", &[]), (0o666, 0, 0)),
            (spiffe_pod("owned", &[("owner", "1000")]), (0o600, 1000, 0)),
            (spiffe_pod("both", &[("owner", "1000"), ("fs-group", "3000")]), (0o660, 1000, 3000)),
            (grouped, (0o660, 0, 2000)),
        ] {
            let socket = socket_in(&kubelet.publish(&pod).await.unwrap());
            let found = socket.symlink_metadata().unwrap();
            assert_eq!((mode(&socket), found.uid(), found.gid()), expected, "{}", pod.name);
        }
        // Nobody else on the node reaches a socket, because a directory above it is root's alone.
        assert_eq!(mode(&node.data_root()) & 0o077, 0);
        node.stop();
    }
}

node_test! {
    async fn without_files_the_key_is_in_no_file_of_the_volume() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = spiffe_pod("web-0", &[("files", "false")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let names = || -> Vec<_> { fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
        assert_eq!(names(), ["spiffe.sock"]);
        let first = next(&mut svids(&volume).await.unwrap()).await.unwrap();
        node.kill();
        node.started().await;
        let again = next(&mut svids(&volume).await.unwrap()).await.unwrap();
        assert!(first == again, "the credential was read back from the store");
        assert_eq!(names(), ["spiffe.sock"]);
        kubelet.unpublish(&pod).await.ok();
        node.stop();
    }
}

node_test! {
    async fn a_leftover_of_a_crash_is_removed_and_the_socket_is_not() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = spiffe_pod("web-0", &[]);
        let volume = kubelet.publish(&pod).await.unwrap();
        node.kill();
        let mount = node.stored_at(&pod).join("mount");
        fs::rename(mount.join("spiffe.sock"), mount.join("..socket_tmp")).unwrap();
        let kubelet = node.started().await;
        assert!(!mount.join("..socket_tmp").exists());
        assert!(next(&mut svids(&volume).await.unwrap()).await.is_ok());
        assert!(!key_in(&volume).is_empty());
        kubelet.unpublish(&pod).await.unwrap();
        assert!(!node.stored_at(&pod).exists());
        node.stop();
    }
}

node_test! {
    async fn many_volumes_with_sockets_answer_after_a_restart() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--max-store-share-per-namespace=100"]);
        let kubelet = node.started().await;
        let mut volumes = Vec::new();
        for number in 0..250 {
            volumes.push(kubelet.publish(&spiffe_pod(&format!("web-{number}"), &[])).await.unwrap());
        }
        let mut streams = Vec::new();
        for volume in &volumes {
            let mut stream = svids(volume).await.unwrap();
            next(&mut stream).await.unwrap();
            streams.push(stream);
        }
        node.kill();
        for stream in &mut streams {
            assert!(next(stream).await.is_err());
        }
        node.started().await;
        for volume in &volumes {
            next(&mut svids(volume).await.unwrap()).await.unwrap();
        }
        node.stop();
    }
}

node_test! {
    async fn in_a_full_store_a_publish_with_a_socket_fails_whole() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--store-inodes=64", "--max-store-share-per-namespace=100"]);
        let kubelet = node.started().await;
        let mut published = Vec::new();
        let error = loop {
            let pod = spiffe_pod(&format!("web-{}", published.len()), &[]);
            match kubelet.publish(&pod).await {
                Ok(volume) => published.push(volume),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        assert!(error.message().contains("--store-inodes"), "{error}");
        assert_eq!(node.stored().len(), published.len(), "something of the failed publish is left");
        for volume in &published {
            next(&mut svids(volume).await.unwrap()).await.unwrap();
        }
        node.stop();
    }
}

node_test! {
    async fn another_user_of_the_host_cannot_connect_where_the_volume_is_stored() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let pod = spiffe_pod("web-0", &[]);
        kubelet.publish(&pod).await.unwrap();
        let socket = node.stored_at(&pod).join("mount/spiffe.sock");
        assert_eq!(mode(&socket), 0o666);
        // The file system gives the same answer to every user: it is the directories above that refuse.
        let refused: Vec<_> = socket.ancestors().skip(1).filter(|above| mode(above) & 0o001 == 0).collect();
        assert!(refused.iter().any(|above| above.starts_with(node.data_root())), "{refused:?}");
        node.stop();
    }
}
