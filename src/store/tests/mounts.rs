use super::namespace::in_namespace;
use super::{delivery, names, open, target, volume};
use crate::store::{Binding, Bound, Store, StoreError};
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A store with the volume `v` bound at its target.
fn bound(scratch: &Path) -> (Store, PathBuf) {
    let (store, target) = (open(scratch), target(scratch, "pod"));
    store.write_bundle(&volume("v"), &delivery("one"), None).unwrap();
    let bound = store.bind(&volume("v"), &target).unwrap();
    assert_eq!(bound, Bound { created_target: true, mounted: true });
    (store, target)
}

fn is_hardened(mounted: &Path) -> bool {
    let wanted = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
    statvfs(mounted).unwrap().flags().contains(wanted)
}

fn times_mounted(target: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.split(' ').nth(4) == target.to_str()).count()
}

fn bind_mount(source: &Path, target: &Path) {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[test]
fn a_target_is_read_only_nosuid_nodev_and_noexec() {
    in_namespace(|scratch| {
        let (store, target) = bound(scratch);
        assert!(is_hardened(&target));
        assert_eq!(fs::read_to_string(target.join("tls.crt")).unwrap(), "one");
        assert_eq!(fs::write(target.join("more"), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(
            fs::remove_file(target.join("tls.crt")).unwrap_err().kind(),
            ErrorKind::ReadOnlyFilesystem
        );
        store.write_bundle(&volume("v"), &delivery("two"), None).unwrap();
        assert_eq!(fs::read_to_string(target.join("tls.crt")).unwrap(), "two");
    });
}

#[test]
fn the_copy_that_the_host_sees_is_read_only_too() {
    in_namespace(|scratch| {
        // Two views of the pods directory that share mounts, as the container's and the host's do.
        let (pods, host) = (scratch.join("pods"), scratch.join("host"));
        fs::create_dir_all(&pods).unwrap();
        fs::create_dir_all(&host).unwrap();
        bind_mount(&pods, &pods);
        mount(None::<&str>, &pods, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        bind_mount(&pods, &host);
        let (store, target) = bound(scratch);
        let seen = host.join("pod/mount");
        assert_eq!(fs::read_to_string(seen.join("tls.crt")).unwrap(), "one");
        assert!(is_hardened(&target) && is_hardened(&seen));
        store.unbind(&target).unwrap();
        assert!(!seen.exists());
    });
}

#[test]
fn a_mount_on_one_target_shows_nowhere_else() {
    in_namespace(|scratch| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>).unwrap();
        let (store, first) = bound(scratch);
        let second = target(scratch, "other");
        store.bind(&volume("v"), &second).unwrap();
        mount(Some("x"), &first, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        assert_eq!(fs::read_to_string(second.join("tls.crt")).unwrap(), "one");
        assert_eq!(&**store.read_file(&volume("v"), "tls.crt").unwrap().unwrap(), b"one");
        assert!(store.foreign_mount(&volume("v"), &first).unwrap());
        store.unbind(&first).unwrap();
        assert!(store.is_bound(&volume("v"), &second).unwrap());
    });
}

#[test]
fn binding_again_stacks_nothing() {
    in_namespace(|scratch| {
        let (store, target) = bound(scratch);
        for _ in 0..3 {
            assert_eq!(store.bind(&volume("v"), &target).unwrap(), Bound::default());
        }
        assert_eq!(times_mounted(&target), 1);
        assert!(store.is_bound(&volume("v"), &target).unwrap());
        assert!(!store.foreign_mount(&volume("v"), &target).unwrap());
        assert!(!store.is_bound(&volume("other"), &target).unwrap());
    });
}

#[test]
fn a_bind_that_lost_its_flags_gets_them_back() {
    in_namespace(|scratch| {
        let (store, target) = bound(scratch);
        let writable = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount(None::<&str>, &target, None::<&str>, writable, None::<&str>).unwrap();
        assert!(!is_hardened(&target));
        store.bind(&volume("v"), &target).unwrap();
        assert!(is_hardened(&target));
    });
}

#[test]
fn a_target_that_the_kubelet_made_is_used_and_removed() {
    in_namespace(|scratch| {
        let (store, target) = (open(scratch), target(scratch, "pod"));
        fs::create_dir(&target).unwrap();
        store.write_bundle(&volume("v"), &delivery("one"), None).unwrap();
        let bound = store.bind(&volume("v"), &target).unwrap();
        assert_eq!(bound, Bound { created_target: false, mounted: true });
        store.unbind(&target).unwrap();
        assert!(!target.exists() && target.parent().unwrap().exists());
    });
}

#[test]
fn a_failed_bind_undoes_only_what_it_made() {
    in_namespace(|scratch| {
        let (store, target) = (open(scratch), target(scratch, "pod"));
        let error = store.bind(&volume("never-written"), &target).unwrap_err();
        assert!(matches!(error, StoreError::Vanished { .. }), "{error}");
        assert!(!target.exists());
        fs::create_dir(&target).unwrap();
        store.bind(&volume("never-written"), &target).unwrap_err();
        assert!(target.exists());
    });
}

#[test]
fn a_target_that_cannot_be_is_refused_in_plain_words() {
    in_namespace(|scratch| {
        let (store, target) = (open(scratch), target(scratch, "pod"));
        let id = volume("v");
        store.write_bundle(&id, &delivery("one"), None).unwrap();

        let orphan = scratch.join("no/such/mount");
        assert!(matches!(store.bind(&id, &orphan), Err(StoreError::MissingParent { .. })));
        fs::write(&target, "data").unwrap();
        assert!(matches!(store.bind(&id, &target), Err(StoreError::TargetNotADirectory { .. })));
        assert!(matches!(store.unbind(&target), Err(StoreError::TargetNotADirectory { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "data");
        fs::remove_file(&target).unwrap();
        symlink("/etc", &target).unwrap();
        assert!(matches!(store.bind(&id, &target), Err(StoreError::TargetNotADirectory { .. })));
        assert!(matches!(store.unbind(&target), Err(StoreError::TargetNotADirectory { .. })));
        fs::remove_file(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("precious"), "data").unwrap();
        assert!(matches!(store.bind(&id, &target), Err(StoreError::TargetNotEmpty { .. })));
        assert!(matches!(store.unbind(&target), Err(StoreError::TargetNotEmpty { .. })));
        assert_eq!(names(&target), super::set(&["precious"]));

        let data = scratch.join("data");
        let inside = data.join("volumes/v/mount");
        for bad in
            [Path::new("relative"), Path::new("/"), scratch, &data, &inside, &scratch.join("a/../data")]
        {
            assert!(matches!(store.bind(&id, bad), Err(StoreError::Target { .. })), "{}", bad.display());
            assert!(matches!(store.unbind(bad), Err(StoreError::Target { .. })), "{}", bad.display());
        }
    });
}

#[test]
fn unbinding_what_is_not_there_is_fine() {
    in_namespace(|scratch| {
        let (store, target) = (open(scratch), target(scratch, "pod"));
        store.unbind(&target).unwrap();
        store.unbind(&scratch.join("no/such/mount")).unwrap();
        fs::create_dir(&target).unwrap();
        store.unbind(&target).unwrap();
        assert!(!target.exists());
        fs::write(&target, "").unwrap();
        store.unbind(&target).unwrap();
        assert!(!target.exists());
    });
}

#[test]
fn unbinding_takes_every_layer_and_open_files_do_not_stop_it() {
    in_namespace(|scratch| {
        let (store, target) = bound(scratch);
        let held = fs::File::open(target.join("tls.crt")).unwrap();
        let source = scratch.join("data/volumes/v/mount");
        for _ in 0..20 {
            bind_mount(&source, &target);
        }
        assert_eq!(times_mounted(&target), 21);
        store.unbind(&target).unwrap();
        assert!(!target.exists());
        assert_eq!(std::io::read_to_string(held).unwrap(), "one");
        assert_eq!(names(&source).len(), 5, "the volume itself is untouched");
    });
}

#[test]
fn a_mount_of_somebody_else_is_told_apart_and_left_alone() {
    in_namespace(|scratch| {
        let (store, target) = (open(scratch), target(scratch, "pod"));
        let id = volume("v");
        store.write_bundle(&id, &delivery("one"), None).unwrap();
        assert!(!store.foreign_mount(&id, &target).unwrap());
        fs::create_dir(&target).unwrap();
        assert!(!store.foreign_mount(&id, &target).unwrap());
        // From the same file system, so that only the kernel knows it for a mount.
        let theirs = scratch.join("theirs");
        fs::create_dir(&theirs).unwrap();
        bind_mount(&theirs, &target);
        assert!(store.foreign_mount(&id, &target).unwrap());
        assert!(!store.is_bound(&id, &target).unwrap());
        assert!(matches!(store.bind(&id, &target), Err(StoreError::TargetOccupied { .. })));
        assert_eq!(times_mounted(&target), 1);
        store.unbind(&target).unwrap();
        assert!(!target.exists() && theirs.exists());
    });
}

#[test]
fn every_bind_is_found_without_a_record() {
    in_namespace(|scratch| {
        let (store, first) = bound(scratch);
        let second = target(scratch, "with a space");
        store.write_bundle(&volume("w"), &delivery("one"), None).unwrap();
        store.bind(&volume("w"), &second).unwrap();
        let mut bindings = store.bindings().unwrap();
        bindings.sort_by(|a, b| a.dir.cmp(&b.dir));
        let expected = [("v", &first), ("w", &second)];
        assert_eq!(
            bindings,
            expected.map(|(dir, target)| Binding { dir: dir.into(), target: target.clone() })
        );
    });
}
