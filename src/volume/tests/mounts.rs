use super::{MountError, Opens, generation, is_target_error, names, open, target, volume};
use crate::namespace::in_namespace;
use crate::store::VolumeDir;
use crate::volume::mounts::AtTarget;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A store with the volume `v` bound at its target.
fn bound(scratch: &Path) -> (Opens, PathBuf) {
    let (opens, target) = (open(scratch), target(scratch, "pod"));
    opens.store.write_generation(&volume("v"), &generation("one")).unwrap();
    opens.mounts.bind(&volume("v"), &target).unwrap();
    assert_eq!(times_mounted(&target), 1);
    (opens, target)
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
        let (opens, target) = bound(scratch);
        assert!(is_hardened(&target));
        assert_eq!(fs::read_to_string(target.join("tls.crt")).unwrap(), "one");
        assert_eq!(fs::write(target.join("more"), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(
            fs::remove_file(target.join("tls.crt")).unwrap_err().kind(),
            ErrorKind::ReadOnlyFilesystem
        );
        opens.store.write_generation(&volume("v"), &generation("two")).unwrap();
        assert_eq!(fs::read_to_string(target.join("tls.crt")).unwrap(), "two");
    });
}

#[test]
fn the_copy_that_the_host_sees_is_read_only_too() {
    in_namespace(|scratch| {
        // Two views of the pods directory that share mounts, like those of container and host.
        let (pods, host) = (scratch.join("pods"), scratch.join("host"));
        fs::create_dir_all(&pods).unwrap();
        fs::create_dir_all(&host).unwrap();
        bind_mount(&pods, &pods);
        mount(None::<&str>, &pods, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        bind_mount(&pods, &host);
        let (opens, target) = bound(scratch);
        let seen = host.join("pod/mount");
        assert_eq!(fs::read_to_string(seen.join("tls.crt")).unwrap(), "one");
        assert!(is_hardened(&target) && is_hardened(&seen));
        opens.mounts.unbind(&volume("v"), &target).unwrap();
        assert!(!seen.exists());
    });
}

#[test]
fn a_mount_on_one_target_shows_nowhere_else() {
    in_namespace(|scratch| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>).unwrap();
        let (opens, first) = bound(scratch);
        let second = target(scratch, "other");
        opens.mounts.bind(&volume("v"), &second).unwrap();
        mount(Some("x"), &first, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        assert_eq!(fs::read_to_string(second.join("tls.crt")).unwrap(), "one");
        assert_eq!(super::read(&opens.store, "v", "tls.crt").unwrap(), "one");
        assert_eq!(opens.mounts.at(&volume("v"), &first).unwrap(), AtTarget::Foreign);
        opens.mounts.unbind(&volume("v"), &first).unwrap();
        assert!(opens.mounts.is_bound(&volume("v"), &second).unwrap());
    });
}

#[test]
fn binding_again_stacks_nothing() {
    in_namespace(|scratch| {
        let (opens, target) = bound(scratch);
        for _ in 0..3 {
            opens.mounts.bind(&volume("v"), &target).unwrap();
        }
        assert_eq!(times_mounted(&target), 1);
        assert!(opens.mounts.is_bound(&volume("v"), &target).unwrap());
        assert_ne!(opens.mounts.at(&volume("v"), &target).unwrap(), AtTarget::Foreign);
        assert!(!opens.mounts.is_bound(&volume("other"), &target).unwrap());
    });
}

#[test]
fn a_bind_that_lost_its_flags_gets_them_back() {
    in_namespace(|scratch| {
        let (opens, target) = bound(scratch);
        let writable = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount(None::<&str>, &target, None::<&str>, writable, None::<&str>).unwrap();
        assert!(!is_hardened(&target));
        opens.mounts.bind(&volume("v"), &target).unwrap();
        assert!(is_hardened(&target));
    });
}

#[test]
fn a_target_that_the_kubelet_made_is_used_and_removed() {
    in_namespace(|scratch| {
        let (opens, target) = (open(scratch), target(scratch, "pod"));
        fs::create_dir(&target).unwrap();
        opens.store.write_generation(&volume("v"), &generation("one")).unwrap();
        opens.mounts.bind(&volume("v"), &target).unwrap();
        assert_eq!(times_mounted(&target), 1);
        opens.mounts.unbind(&volume("v"), &target).unwrap();
        assert!(!target.exists() && target.parent().unwrap().exists());
    });
}

#[test]
fn a_failed_bind_undoes_only_what_it_made() {
    in_namespace(|scratch| {
        let (opens, target) = (open(scratch), target(scratch, "pod"));
        let error = opens.mounts.bind(&volume("never-written"), &target).unwrap_err();
        assert!(matches!(&error, MountError::Store(error) if error.is_vanished()), "{error}");
        assert!(!target.exists());
        fs::create_dir(&target).unwrap();
        opens.mounts.bind(&volume("never-written"), &target).unwrap_err();
        assert!(target.exists());
    });
}

#[test]
fn a_target_that_cannot_be_used_is_refused_in_plain_words() {
    in_namespace(|scratch| {
        let (opens, target) = (open(scratch), target(scratch, "pod"));
        let id = volume("v");
        opens.store.write_generation(&id, &generation("one")).unwrap();

        let orphan = scratch.join("no/such/mount");
        assert!(is_target_error(&opens.mounts.bind(&id, &orphan).unwrap_err(), "has no parent"));
        fs::write(&target, "data").unwrap();
        assert!(is_target_error(
            &opens.mounts.bind(&id, &target).unwrap_err(),
            "exists and is not a directory"
        ));
        assert!(is_target_error(
            &opens.mounts.unbind(&volume("v"), &target).unwrap_err(),
            "exists and is not a directory"
        ));
        assert_eq!(fs::read_to_string(&target).unwrap(), "data");
        fs::remove_file(&target).unwrap();
        symlink("/etc", &target).unwrap();
        assert!(is_target_error(
            &opens.mounts.bind(&id, &target).unwrap_err(),
            "exists and is not a directory"
        ));
        assert!(is_target_error(
            &opens.mounts.unbind(&volume("v"), &target).unwrap_err(),
            "exists and is not a directory"
        ));
        fs::remove_file(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("precious"), "data").unwrap();
        assert!(is_target_error(
            &opens.mounts.bind(&id, &target).unwrap_err(),
            "is a directory that is not empty"
        ));
        assert!(is_target_error(
            &opens.mounts.unbind(&volume("v"), &target).unwrap_err(),
            "is a directory that is not empty"
        ));
        assert_eq!(names(&target), super::set(&["precious"]));

        let data = scratch.join("data");
        let inside = data.join("volumes/v/mount");
        for bad in
            [Path::new("relative"), Path::new("/"), scratch, &data, &inside, &scratch.join("a/../data")]
        {
            assert!(is_target_error(&opens.mounts.bind(&id, bad).unwrap_err(), ""), "{}", bad.display());
            assert!(
                is_target_error(&opens.mounts.unbind(&volume("v"), bad).unwrap_err(), ""),
                "{}",
                bad.display()
            );
        }
    });
}

#[test]
fn unbinding_what_is_not_there_is_fine() {
    in_namespace(|scratch| {
        let (opens, target) = (open(scratch), target(scratch, "pod"));
        opens.mounts.unbind(&volume("v"), &target).unwrap();
        opens.mounts.unbind(&volume("v"), &scratch.join("no/such/mount")).unwrap();
        fs::create_dir(&target).unwrap();
        opens.mounts.unbind(&volume("v"), &target).unwrap();
        assert!(!target.exists());
        fs::write(&target, "").unwrap();
        opens.mounts.unbind(&volume("v"), &target).unwrap();
        assert!(!target.exists());
    });
}

#[test]
fn unbinding_takes_every_layer_and_open_files_do_not_stop_it() {
    in_namespace(|scratch| {
        let (opens, target) = bound(scratch);
        let held = fs::File::open(target.join("tls.crt")).unwrap();
        let source = scratch.join("data/volumes/v/mount");
        for _ in 0..20 {
            bind_mount(&source, &target);
        }
        assert_eq!(times_mounted(&target), 21);
        opens.mounts.unbind(&volume("v"), &target).unwrap();
        assert!(!target.exists());
        assert_eq!(std::io::read_to_string(held).unwrap(), "one");
        assert_eq!(names(&source).len(), 5, "the volume itself is untouched");
    });
}

#[test]
fn another_volumes_mount_is_recognised_and_never_unmounted() {
    in_namespace(|scratch| {
        let (opens, target) = bound(scratch);
        let other = volume("other");
        let at = || opens.mounts.at(&other, &target).unwrap();
        assert_eq!(at(), AtTarget::AnotherVolume(VolumeDir::of(&volume("v"))));
        assert_eq!(opens.mounts.at(&volume("v"), &target).unwrap(), AtTarget::Volume);
        opens.mounts.unbind(&other, &target).unwrap();
        assert_eq!(times_mounted(&target), 1);
        // Nor is it if something is stacked on it.
        mount(Some("x"), &target, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        assert_eq!(at(), AtTarget::Foreign);
        opens.mounts.unbind(&other, &target).unwrap();
        assert_eq!((times_mounted(&target), at()), (1, AtTarget::AnotherVolume(VolumeDir::of(&volume("v")))));
        // The mount of a volume that is not in the store any more is nobody's.
        opens.store.remove(&volume("v")).unwrap();
        assert_eq!(at(), AtTarget::Foreign);
        opens.mounts.unbind(&other, &target).unwrap();
        assert!(!target.exists());
    });
}

#[test]
fn another_drivers_mount_is_recognised_and_left_alone() {
    in_namespace(|scratch| {
        let (opens, target) = (open(scratch), target(scratch, "pod"));
        let id = volume("v");
        opens.store.write_generation(&id, &generation("one")).unwrap();
        assert_ne!(opens.mounts.at(&id, &target).unwrap(), AtTarget::Foreign);
        fs::create_dir(&target).unwrap();
        assert_ne!(opens.mounts.at(&id, &target).unwrap(), AtTarget::Foreign);
        // From the same file system, so the device number does not show that it is a mount.
        let theirs = scratch.join("theirs");
        fs::create_dir(&theirs).unwrap();
        bind_mount(&theirs, &target);
        assert_eq!(opens.mounts.at(&id, &target).unwrap(), AtTarget::Foreign);
        assert!(!opens.mounts.is_bound(&id, &target).unwrap());
        assert!(is_target_error(&opens.mounts.bind(&id, &target).unwrap_err(), "has something mounted"));
        assert_eq!(times_mounted(&target), 1);
        opens.mounts.unbind(&volume("v"), &target).unwrap();
        assert!(!target.exists() && theirs.exists());
    });
}
