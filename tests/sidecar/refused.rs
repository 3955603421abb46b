//! What a sidecar refuses before it asks for anything, with exit code 2 and a reason for `kubectl describe pod`.

use crate::harness::{LOCAL, Sidecar, names};
use crate::node_test;
use std::fs;

/// Runs it, and returns the reason. All of it is in the termination message too.
fn refusal(sidecar: &mut Sidecar) -> String {
    let log = sidecar.directory.parent().unwrap().join("termination-log");
    fs::write(&log, "an older reason").unwrap();
    sidecar.environment.push(("CERTLET_TERMINATION_MESSAGE_PATH".into(), log.display().to_string()));
    let output = sidecar.run();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let said = said.lines().last().unwrap().strip_prefix("certlet: ").unwrap().to_owned();
    assert_eq!(fs::read_to_string(&log).unwrap(), said);
    said
}

node_test! {
    async fn a_directory_that_is_not_on_a_tmpfs_is_refused() {
        let mut sidecar = Sidecar::new(&LOCAL);
        // A file system without a device that is no tmpfs.
        sidecar.directory = "/proc/self".into();
        let output = sidecar.run();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--directory /proc/self: /proc/self is not on a tmpfs: keys must not reach a disk"), "{said}");
        sidecar.directory = "/nonexistent/shared".into();
        let said = String::from_utf8(sidecar.run().stderr).unwrap();
        assert!(said.contains("--directory /nonexistent/shared"), "{said}");
    }
}

node_test! {
    async fn a_directory_with_files_of_others_is_refused_and_they_stay() {
        let mut sidecar = Sidecar::new(&LOCAL);
        let directory = sidecar.directory.clone();
        for name in ["app.conf", "cache"] {
            let path = directory.join(name);
            if name == "cache" { fs::create_dir(&path).unwrap() } else { fs::write(&path, "precious").unwrap() }
            let said = refusal(&mut sidecar);
            assert!(said.contains(&format!("holds {name:?}, which certlet has not made; give a directory of its own")), "{said}");
            assert_eq!(names(&directory), [name]);
            if name == "cache" { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
        }
    }
}

node_test! {
    async fn attributes_that_cannot_work_are_refused_and_each_is_named() {
        let cases: [(&[&str], &str); 10] = [
            (&["signer=local", "dns-nams=a"], "csi.certlet.io/dns-nams: is not a known attribute"),
            (&["signer=local", "dns-names=not a name"], "csi.certlet.io/dns-names: "),
            (&["signer=local", "duration=-1h", "key-usages=fly"], "csi.certlet.io/key-usages: "),
            (&["signer=local", "owner=4711"], "csi.certlet.io/owner: 4711 is another user than the sidecar's"),
            (&["signer=local", "csi.cert-manager.io/issuer-name=ca"], "csi.cert-manager.io/issuer-name"),
            (&["signer=local", "dns-names=a", "dns-names=b"], "csi.certlet.io/dns-names: is given twice, with different values"),
            (&["dns-names=a"], "csi.certlet.io/issuer-name: is required"),
            (&["class=mesh"], "csi.certlet.io/class: \"mesh\" is not a class: classes are for the volumes of the CSI driver, and a sidecar has none; accepted: no class, but the attributes that it would give"),
            (&[], "csi.certlet.io/issuer-name: is required"),
            (&["signer=local", "dns-names=a", "pkcs12-enable=true", "pkcs12-password-key=x"], "--keystore-password-file"),
        ];
        let mut sidecar = Sidecar::new(&[]);
        let plain = sidecar.flags.clone();
        for (attributes, expected) in cases {
            sidecar.flags.clone_from(&plain);
            for attribute in attributes {
                sidecar.flag(&format!("--attributes={attribute}"));
            }
            let said = refusal(&mut sidecar);
            assert!(said.contains(expected), "{attributes:?}: {said}");
            assert_eq!(sidecar.names(), [""; 0], "nothing is written");
        }
    }
}

node_test! {
    async fn flags_that_cannot_work_together_are_refused() {
        let mut sidecar = Sidecar::new(&LOCAL);
        let plain = sidecar.flags.clone();
        for (flags, expected) in [
            (&["--once", "--attributes=socket-file=a.sock"][..], "csi.certlet.io/socket-file: cannot be served with --once"),
            (&["--once", "--on-renewal=exit=5"], "--on-renewal"),
            (&["--on-renewal=exit=2"], "accepted: exit=CODE, with a code from 3 to 127"),
            (&["--on-renewal=88"], "accepted: exit=CODE"),
            (&["--attributes=signer"], "accepted: NAME=VALUE"),
            (&["--attributes-file=/nonexistent"], "--attributes-file: /nonexistent cannot be read"),
            (&["--keystore-password-file=/nonexistent"], "--keystore-password-file /nonexistent: "),
            (&["--pod-uid="], "--pod-uid"),
        ] {
            sidecar.flags.clone_from(&plain);
            for flag in flags {
                sidecar.flag(flag);
            }
            if flags == ["--pod-uid="] {
                sidecar.flags.retain(|flag| flag != "--pod-uid=b8f1");
            }
            let output = sidecar.run();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(2) && said.contains(expected), "{flags:?}: {:?} {said}", output.status);
        }
    }
}

node_test! {
    async fn a_second_sidecar_in_one_directory_is_refused() {
        let mut sidecar = Sidecar::new(&LOCAL);
        sidecar.started().await;
        let output = sidecar.run();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("another certlet process has the store at"), "{said}");
        sidecar.ready().await;
        sidecar.stop();
    }
}

node_test! {
    async fn the_password_of_a_keystore_comes_from_a_file() {
        let attributes = [LOCAL[0], LOCAL[1], "pkcs12-enable=true", "pkcs12-password-key=any"];
        let mut sidecar = Sidecar::new(&attributes);
        let file = sidecar.directory.parent().unwrap().join("password");
        fs::write(&file, "correct horse\n").unwrap();
        sidecar.flag(&format!("--keystore-password-file={}", file.display()));
        sidecar.started().await;
        let keystore = sidecar.directory.join("keystore.p12").display().to_string();
        crate::support::openssl(&["pkcs12", "-in", &keystore, "-passin", "pass:correct horse", "-nodes"]);
        assert!(!sidecar.log().contains("correct horse"));
        sidecar.stop();
    }
}
