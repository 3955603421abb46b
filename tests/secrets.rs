//! Keys, tokens and passwords appear only where they belong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::{Node, eventually, key_in, pod_with, serial};

const PASSWORD: &str = "correct-horse-battery-staple";
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LXRva2Vu.c2lnbmF0dXJl";

node_test! {
    async fn keys_tokens_and_passwords_are_in_no_log_no_record_and_no_other_file() {
        let mut node = Node::with_flags(&["--allow-local-signer", "--log-level=trace", "--log-format=json"]);
        let kubelet = node.started().await;
        let mut secrets: Vec<Vec<u8>> = vec![TOKEN.as_bytes().to_vec()];
        let mut volumes = Vec::new();
        for (name, algorithm) in [("rsa", "RSA"), ("ecdsa", "ECDSA"), ("ed25519", "Ed25519")] {
            let pod = pod_with(name, &[
                ("key-algorithm", algorithm), ("duration", "6s"),
                ("pkcs12-enable", "true"), ("pkcs12-password", PASSWORD),
            ]);
            let mut request = kubelet.publish_request(&pod);
            let tokens = format!(r#"{{"api":{{"token":"{TOKEN}","expirationTimestamp":"2030-01-01T00:00:00Z"}}}}"#);
            request.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens);
            fs::create_dir_all(kubelet.target(&pod).parent().unwrap()).unwrap();
            kubelet.publish_with(request.clone()).await.unwrap();
            // Refusals and republishes are logged too.
            request.readonly = false;
            kubelet.publish_with(request).await.unwrap_err();
            volumes.push(kubelet.target(&pod));
            secrets.extend(key_bytes(&kubelet.target(&pod)));
        }
        let before = serial(&volumes[1]);
        eventually("a renewal", async || serial(&volumes[1]) != before).await;
        secrets.extend(key_bytes(&volumes[1]));
        node.kill();
        node.started().await;

        let log = fs::read(node.root.join("driver.log")).unwrap();
        assert!(log.len() > 2000, "trace is logged");
        for secret in secrets.iter().map(Vec::as_slice).chain([PASSWORD.as_bytes()]) {
            assert!(!contains(&log, secret), "a secret is in the log");
        }
        for stored in node.stored() {
            let record = fs::read(stored.join("record.json")).unwrap();
            assert!(!secrets.iter().any(|secret| contains(&record, secret)), "a key or token is in a record");
        }
        // All files that the driver could have written outside of its store: below the kubelet's root, and in /tmp.
        let mut seen = 0;
        let skip = [node.data_root(), node.root.join("pods")];
        for file in files_below(Path::new("/tmp"), &skip) {
            let Ok(text) = fs::read(&file) else { continue };
            seen += 1;
            assert!(!secrets.iter().any(|secret| contains(&text, secret)), "a secret is in {}", file.display());
        }
        assert!(seen > 0, "the driver's own log is among the files");
    }
}

node_test! {
    async fn the_process_gives_no_core_dump_and_the_store_is_not_swapped() {
        let mut node = Node::new();
        node.started().await;
        let id = node.id();
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // That the process is undumpable can only be seen in a user namespace, where its files in /proc belong to
        // nobody (proc(5)). So only the core limit is checked.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let store = mounts.lines().find(|line| line.contains(node.data_root().to_str().unwrap())).unwrap();
        for option in ["nosuid", "nodev", "noexec", "size=", "nr_inodes="] {
            assert!(store.contains(option), "{option} is not in {store}");
        }
        let warned = node.log().contains("noswap");
        assert!(store.contains("noswap") || warned, "neither noswap nor a warning: {store}");
    }
}

/// The key in a volume: as PEM lines, and as the secret numbers' DER.
fn key_bytes(volume: &Path) -> Vec<Vec<u8>> {
    let pem = key_in(volume);
    let text = String::from_utf8(pem.clone()).unwrap();
    // From the second line on, because the first is the same for every key of an algorithm.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = certlet::x509::PrivateKey::from_pem(&pem).unwrap();
    let der = key.to_pkcs8_der();
    let mut secrets = vec![der[der.len() - 32..].to_vec(), der.to_vec()];
    secrets.extend(lines.iter().filter(|line| line.len() >= 40).skip(1).map(|line| line.as_bytes().to_vec()));
    secrets
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn files_below(root: &Path, skip: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir()
                && !skip.contains(&path)
                && path.file_name().is_some_and(|name| {
                    name.to_string_lossy().contains("certlet") || root != path.parent().unwrap()
                })
            {
                directories.push(path);
            } else if kind.is_file() && entry.metadata().is_ok_and(|found| found.len() < 1 << 22) {
                files.push(path);
            }
        }
    }
    files
}
