use super::{generation, mode, mount_dir, open, record, volume};
use crate::model::{CertificateFacts, FailureKind, VolumeClass};
use crate::namespace::in_namespace;
use crate::store::{
    IssuedRecord, LastError, LeafRoot, Record, RecordError, RetainedAnchor, Store, StoreError, TrustRecord,
    read_volumes,
};
use jiff::Timestamp;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn whole() -> Record {
    let at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let class = VolumeClass {
        name: "mesh".into(),
        attributes: [("csi.certlet.io/class".to_owned(), "mesh".to_owned())].into_iter().collect(),
        trust_domain: Some("example.org".into()),
        spiffe_id_template: None,
    };
    Record {
        class: Some(Arc::new(class)),
        issued: Some(IssuedRecord {
            facts: Arc::new(CertificateFacts {
                serial: "0a1b".into(),
                subject: "CN=web".into(),
                sans: vec!["DNS:web.sandbox".into()],
                not_before: at,
                not_after: at,
            }),
            issued_at: at,
            renew_at: at,
            generation: 7,
            warning: Some("cut to 7 days".into()),
            trust: TrustRecord {
                root: Some(LeafRoot { subject: "CN=root".into(), sha256: Some("ab".into()) }),
                issuing_ca: Some("cd".into()),
                chain_not_after: Some(at),
                signer_anchors: vec!["ab".into()],
                retained: vec![RetainedAnchor { sha256: "ef".into(), subject: "CN=old".into(), until: at }],
            },
        }),
        last_error: Some(LastError {
            at,
            message: "throttled".into(),
            consecutive: 3,
            retry_at: None,
            kind: FailureKind::Throttled,
        }),
        ..record("v", Path::new("/var/lib/kubelet/pods/x/mount"))
    }
}

fn read(store: &Store, dir: &str) -> Option<Result<Record, RecordError>> {
    store.list().unwrap().into_iter().find(|stored| stored.dir.0 == dir).map(|stored| stored.record)
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    in_namespace(|scratch| {
        let store = open(scratch);
        assert_eq!(read(&store, "v"), None);
        store.write_record(&whole()).unwrap();
        assert_eq!(read(&store, "v"), Some(Ok(whole())));
        assert_eq!(mode(&scratch.join("data/volumes/v/record.json")), 0o600);
    });
}

#[test]
fn unknown_fields_are_ignored_and_absent_ones_have_defaults() {
    let mut json: serde_json::Value = serde_json::from_slice(&whole().encode().unwrap()).unwrap();
    json["mood"] = "good".into();
    json["record"]["colour"] = "green".into();
    assert_eq!(Record::parse(json.to_string().as_bytes()).unwrap(), whole());
    for absent in ["fs_group", "class", "issued", "last_error"] {
        json["record"].as_object_mut().unwrap().remove(absent);
    }
    let read = Record::parse(json.to_string().as_bytes()).unwrap();
    let expected = Record { fs_group: None, ..record("v", Path::new("/var/lib/kubelet/pods/x/mount")) };
    assert_eq!(read, expected);
}

#[test]
fn a_record_of_a_newer_version_is_recognised_whatever_it_holds() {
    let future = br#"{"version":2,"record":["all","different"]}"#;
    assert_eq!(Record::parse(future), Err(RecordError::FutureVersion { version: 2 }));
}

#[test]
fn a_record_cut_off_anywhere_is_unreadable_without_a_panic() {
    let json = whole().encode().unwrap();
    for length in 0..json.len() {
        assert!(matches!(Record::parse(&json[..length]), Err(RecordError::Unreadable { .. })), "{length}");
    }
    for junk in
        [&b"null"[..], b"[]", b"{}", b"\xff\xfe", br#"{"version":1}"#, br#"{"version":0,"record":{}}"#]
    {
        assert!(matches!(Record::parse(junk), Err(RecordError::Unreadable { .. })));
    }
}

#[test]
fn neither_debug_output_nor_errors_show_a_password() {
    let debug = format!("{:?}", whole());
    assert!(debug.contains("csi.certlet.io/pkcs12-password") && !debug.contains("hunter2"), "{debug}");
    let json = String::from_utf8(whole().encode().unwrap().to_vec()).unwrap();
    // serde's own message would quote the value that it did not expect.
    let broken = json.replace(r#"{"csi.certlet.io/pkcs12-password":"hunter2"}"#, r#""hunter2""#);
    assert_ne!(broken, json);
    let error = Record::parse(broken.as_bytes()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_record_that_cannot_be_encoded_is_not_reported_as_unreadable() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let target = PathBuf::from(OsStr::from_bytes(b"/pods/\xff"));
        let error = store.write_record(&Record { target, ..whole() }).unwrap_err();
        assert!(matches!(error, StoreError::Encoding { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("cannot be encoded") && !message.contains("cannot be read"), "{message}");
        assert!(store.list().unwrap().is_empty());
    });
}

#[test]
fn an_unreadable_record_is_moved_away_and_other_volumes_are_unaffected() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let (id, target) = (volume("broken"), mount_dir(scratch, "broken"));
        store.write_generation(&id, &generation("one")).unwrap();
        store.write_record(&whole()).unwrap();
        let json = scratch.join("data/volumes/broken/record.json");
        fs::write(&json, "{").unwrap();

        let listed = store.list().unwrap();
        assert_eq!(listed.len(), 2);
        assert!(matches!(listed[0].record, Err(RecordError::Unreadable { .. })));
        assert_eq!(listed[1].record, Ok(whole()));
        for _ in 0..2 {
            store.move_record_away(&listed[0].dir).unwrap();
            assert_eq!(store.list().unwrap()[0].record, Err(RecordError::MovedAway));
            fs::write(&json, "{").unwrap();
        }
        assert_eq!(fs::read_to_string(target.join("tls.crt")).unwrap(), "one");
        let anew = record("broken", &target);
        store.write_record(&anew).unwrap();
        assert_eq!(store.list().unwrap()[0].record, Ok(anew));
        store.remove_dir(&listed[0].dir).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
    });
}

#[test]
fn a_record_in_another_volumes_directory_is_not_used() {
    in_namespace(|scratch| {
        let store = open(scratch);
        store.write_record(&whole()).unwrap();
        let volumes = scratch.join("data/volumes");
        fs::rename(volumes.join("v"), volumes.join("w")).unwrap();
        assert_eq!(store.list().unwrap()[0].record, Err(RecordError::Misplaced { volume: volume("v") }));
    });
}

#[test]
fn records_are_read_beside_a_driver_that_is_running() {
    in_namespace(|scratch| {
        let store = open(scratch);
        store.write_record(&whole()).unwrap();
        let read = read_volumes(&scratch.join("data")).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].record, Ok(whole()));
        assert_eq!(store.list().unwrap().len(), 1);
    });
}
