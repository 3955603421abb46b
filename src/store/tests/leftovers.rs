//! What a kill -9 leaves behind: each test sets up the state after one step, and checks that the next call clears it.

use super::{generation, mount_dir, names, open, read, record, set, target, volume};
use crate::namespace::in_namespace;
use crate::store::{RecordError, Refusal, Store};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use zeroize::Zeroizing;

/// Sets up leftovers in a live volume, then checks that the next open has cleared them and, in a second volume, that the
/// next write has.
fn clears(scratch: &Path, leave: impl Fn(&Path)) {
    let whole = |generation: &str| set(&[generation, "..data", "tls.crt", "tls.key", "ca.crt"]);
    let live_before = |id: &str, store: &Store| {
        store.write_generation(&volume(id), &generation("live")).unwrap();
        leave(&mount_dir(scratch, id));
    };
    let store = open(scratch);
    live_before("opened", &store);
    drop(store);
    let store = open(scratch);
    assert_eq!(names(&mount_dir(scratch, "opened")), whole("..1"));
    assert_eq!(read(&store, "opened", "tls.key").unwrap(), "live");

    live_before("written", &store);
    assert_eq!(store.write_generation(&volume("written"), &generation("next")).unwrap(), 2);
    assert_eq!(names(&mount_dir(scratch, "written")), whole("..2"));
    assert_eq!(read(&store, "written", "tls.key").unwrap(), "next");
}

#[test]
fn a_generation_that_was_being_filled_is_cleared() {
    in_namespace(|scratch| {
        clears(scratch, |mount| {
            fs::create_dir(mount.join("..2")).unwrap();
            fs::write(mount.join("..2/tls.key"), "half a k").unwrap();
        });
    });
}

#[test]
fn names_that_lead_nowhere_are_cleared() {
    in_namespace(|scratch| {
        clears(scratch, |mount| {
            fs::create_dir(mount.join("..2")).unwrap();
            fs::write(mount.join("..2/new.pem"), "new").unwrap();
            symlink("..data/new.pem", mount.join("new.pem")).unwrap();
        });
    });
}

#[test]
fn a_data_link_that_was_not_swapped_in_is_cleared() {
    in_namespace(|scratch| {
        clears(scratch, |mount| {
            fs::create_dir(mount.join("..2")).unwrap();
            symlink("..2", mount.join("..data_tmp")).unwrap();
        });
    });
}

#[test]
fn an_old_generation_and_stale_names_after_the_swap_are_cleared() {
    in_namespace(|scratch| {
        clears(scratch, |mount| {
            fs::create_dir(mount.join("..0")).unwrap();
            fs::write(mount.join("..0/old.pem"), "old").unwrap();
            symlink("..data/old.pem", mount.join("old.pem")).unwrap();
        });
    });
}

#[test]
fn a_first_generation_that_was_not_swapped_in_leaves_nothing() {
    in_namespace(|scratch| {
        drop(open(scratch));
        let mount = mount_dir(scratch, "v");
        fs::create_dir_all(mount.join("..1")).unwrap();
        fs::write(mount.join("..1/tls.key"), "key").unwrap();
        symlink("..data/tls.key", mount.join("tls.key")).unwrap();
        symlink("..1", mount.join("..data_tmp")).unwrap();
        let store = open(scratch);
        assert!(names(&mount).is_empty());
        assert_eq!(store.list().unwrap()[0].record, Err(RecordError::Missing));
        assert_eq!(store.write_generation(&volume("v"), &generation("one")).unwrap(), 1);
    });
}

#[test]
fn files_without_their_record_show_in_the_generation_number() {
    in_namespace(|scratch| {
        let store = open(scratch);
        store.write_generation(&volume("v"), &generation("one")).unwrap();
        store.write_record(&record("v", &target(scratch, "pod"))).unwrap();
        store.write_generation(&volume("v"), &generation("two")).unwrap();
        drop(store);
        assert_eq!(open(scratch).generation(&volume("v")).unwrap(), Some(2));
    });
}

#[test]
fn a_record_that_was_being_written_leaves_the_old_one() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let old = record("v", &target(scratch, "pod"));
        store.write_record(&old).unwrap();
        drop(store);
        let dir = scratch.join("data/volumes/v");
        fs::write(dir.join("record.json.tmp"), "{\"version\":").unwrap();
        let store = open(scratch);
        assert_eq!(names(&dir), set(&["record.json"]));
        assert_eq!(store.list().unwrap()[0].record, Ok(old.clone()));
        fs::write(dir.join("record.json.tmp"), "{\"version\":").unwrap();
        store.write_record(&old).unwrap();
        assert_eq!(names(&dir), set(&["record.json"]));
    });
}

#[test]
fn a_volume_that_was_being_removed_is_gone_after_the_restart() {
    in_namespace(|scratch| {
        let store = open(scratch);
        store.write_generation(&volume("v"), &generation("one")).unwrap();
        drop(store);
        let volumes = scratch.join("data/volumes");
        fs::rename(volumes.join("v"), volumes.join(".trash-v")).unwrap();
        fs::remove_file(volumes.join(".trash-v/mount/..data")).unwrap();
        let store = open(scratch);
        assert!(names(&volumes).is_empty());
        // Within one process: a removal failed halfway, and the volume was published again.
        fs::create_dir_all(volumes.join(".trash-v/mount")).unwrap();
        store.write_generation(&volume("v"), &generation("one")).unwrap();
        store.remove(&volume("v")).unwrap();
        assert!(names(&volumes).is_empty());
    });
}

#[test]
fn a_checkpoint_is_there_whole_or_not_at_all() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        store.write_record(&record("v", &target(scratch, "pod"))).unwrap();
        let key = |text: &str| Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{text}\n").into_bytes());
        let csr = |text: &str| {
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
                .into_bytes()
        };
        let first = store.new_checkpoint(&id, key("one"), csr("1"), None);
        assert!(
            !store.has_checkpoint(&id) && first.checkpoint().is_none(),
            "it is kept before the signer's first checkpoint"
        );
        first.save("request-1").unwrap();
        first.save("request-2\n").unwrap();
        let dir = scratch.join("data/volumes/v");
        assert_eq!(super::mode(&dir.join("pending.pem")), 0o600);
        fs::write(dir.join("pending.pem.tmp"), "half").unwrap();
        drop(store);

        let store = open(scratch);
        assert_eq!(names(&dir), set(&["record.json", "pending.pem"]));
        let kept = store.checkpoint(&id).unwrap().unwrap();
        assert_eq!((&*kept.key_pem, &kept.csr_pem), (&*key("one"), &csr("1")));
        assert_eq!((kept.checkpoint().as_deref(), kept.follows()), (Some("request-2\n"), None));
        let at = "2026-05-01T12:00:00Z".parse().unwrap();
        let first = Refusal { at, by_signer: Some("denied".into()) };
        kept.refuse(first.clone()).unwrap();
        let later = "2026-05-01T12:05:00Z".parse().unwrap();
        kept.refuse(Refusal { at: later, by_signer: None }).unwrap();
        let kept = store.checkpoint(&id).unwrap().unwrap();
        assert_eq!(
            (kept.checkpoint().as_deref(), kept.refusal()),
            (Some("request-2\n"), Some(first)),
            "the first time counts"
        );
        let again = Refusal { at: later, by_signer: Some("denied again".into()) };
        kept.refuse(again.clone()).unwrap();
        assert_eq!(
            store.checkpoint(&id).unwrap().unwrap().refusal(),
            Some(again),
            "the signer was asked again"
        );
        kept.save("request-3").unwrap();
        assert_eq!(
            store.checkpoint(&id).unwrap().unwrap().refusal(),
            None,
            "a refusal outlived its certificate"
        );
        let second = store.new_checkpoint(&id, key("two"), csr("2"), Some(7));
        assert_eq!(second.checkpoint(), None, "a checkpoint outlived its request");
        second.save("").unwrap();
        let kept = store.checkpoint(&id).unwrap().unwrap();
        assert_eq!((&*kept.csr_pem, kept.checkpoint(), kept.follows()), (&*csr("2"), None, Some(7)));
        fs::write(dir.join("pending.pem"), "neither key nor request").unwrap();
        assert!(store.checkpoint(&id).unwrap().is_none());
        store.clear_checkpoint(&id).unwrap();
        store.clear_checkpoint(&id).unwrap();
        assert_eq!(names(&dir), set(&["record.json"]));
    });
}
