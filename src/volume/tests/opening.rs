use super::{MIB, MountError, StoreOptions, generation, open, open_with, options, target, volume};
use crate::namespace::in_namespace;
use crate::store::{Cause, StoreError};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs;
use std::path::Path;

#[test]
fn the_store_is_a_limited_and_hardened_tmpfs() {
    in_namespace(|scratch| {
        let (_opens, opened) = open_with(&options(scratch)).unwrap();
        assert!(!opened.adopted);
        let root = scratch.join("data");
        let statistics = statvfs(&root).unwrap();
        assert_eq!(
            (statistics.blocks() * statistics.fragment_size(), statistics.files()),
            (16 * MIB, 10_000)
        );
        let hardened = FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
        assert!(statistics.flags().contains(hardened));
        // Not every kernel has noswap. The result must say whether it is set.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(4) == root.to_str()).unwrap();
        assert_eq!(line.ends_with(",noswap") || line.contains(",noswap,"), opened.noswap, "{line}");
        assert_eq!(opened.warnings.is_empty(), opened.noswap, "{:?}", opened.warnings);
    });
}

#[test]
fn a_restart_adopts_the_store_and_every_mount() {
    in_namespace(|scratch| {
        let (id, target) = (volume("v"), target(scratch, "pod"));
        let (opens, first) = open_with(&options(scratch)).unwrap();
        opens.store.write_generation(&id, &generation("one")).unwrap();
        opens.mounts.bind(&id, &target).unwrap();
        drop(opens);
        let (opens, second) = open_with(&options(scratch)).unwrap();
        assert!(second.adopted);
        assert_eq!((second.noswap, second.warnings), (first.noswap, first.warnings));
        assert!(opens.mounts.is_bound(&id, &target).unwrap());
        assert_eq!(opens.store.write_generation(&id, &generation("two")).unwrap(), 2);
        assert_eq!(fs::read_to_string(target.join("tls.crt")).unwrap(), "two");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(mounts.matches(" - tmpfs certlet ").count(), 3, "the store, its view, one target");
    });
}

#[test]
fn the_host_keeps_the_store_over_a_container_restart_but_never_its_view() {
    in_namespace(|scratch| {
        // The plugin directory on the host, and the views of it in two successive containers.
        let [host, first, second] = ["host", "first", "second"].map(|name| scratch.join(name));
        for directory in [&host, &first, &second] {
            fs::create_dir(directory).unwrap();
        }
        let bind = |from: &Path, to: &Path| {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(from), to, None::<&str>, flags, None::<&str>).unwrap();
        };
        bind(&host, &host);
        mount(None::<&str>, &host, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        bind(&host, &first);
        let (id, target) = (volume("v"), target(scratch, "pod"));
        let opens = open(&first);
        opens.store.write_generation(&id, &generation("one")).unwrap();
        opens.mounts.bind(&id, &target).unwrap();
        drop(opens);
        // The end of a mount namespace removes its mounts, but unlike umount(2) it does not propagate.
        let alone = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, &first, None::<&str>, alone, None::<&str>).unwrap();
        umount2(&first, MntFlags::MNT_DETACH).unwrap();
        assert!(host.join("data/volumes/v").exists());
        assert!(fs::read_dir(host.join("data/view")).unwrap().next().is_none(), "the view reached the host");
        bind(&host, &second);
        let (opens, opened) = open_with(&options(&second)).unwrap();
        assert!(opened.adopted);
        assert!(opens.mounts.is_bound(&id, &target).unwrap());
        opens.store.write_generation(&id, &generation("two")).unwrap();
        assert_eq!(fs::read_to_string(target.join("tls.crt")).unwrap(), "two");
        let other = super::target(scratch, "other");
        opens.mounts.bind(&id, &other).unwrap();
        assert!(statvfs(&other).unwrap().flags().contains(FsFlags::ST_RDONLY));
    });
}

#[test]
fn a_restart_in_the_middle_of_making_the_view_finishes_it() {
    in_namespace(|scratch| {
        let view = scratch.join("data/view");
        drop(open(scratch));
        umount2(&view, MntFlags::MNT_DETACH).unwrap();
        drop(open(scratch));
        assert!(statvfs(&view).unwrap().flags().contains(FsFlags::ST_RDONLY));
        let writable = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount(None::<&str>, &view, None::<&str>, writable, None::<&str>).unwrap();
        let opens = open(scratch);
        opens.store.write_generation(&volume("v"), &generation("one")).unwrap();
        let target = target(scratch, "pod");
        opens.mounts.bind(&volume("v"), &target).unwrap();
        assert!(statvfs(&target).unwrap().flags().contains(FsFlags::ST_RDONLY | FsFlags::ST_NOEXEC));
    });
}

#[test]
fn new_limits_apply_to_an_adopted_store_unless_it_is_too_full() {
    in_namespace(|scratch| {
        let opens = open(scratch);
        opens.store.write_generation(&volume("v"), &generation(&"x".repeat(200 * 1024))).unwrap();
        drop(opens);
        let larger = StoreOptions { size_bytes: 32 * MIB, inodes: 20_000, ..options(scratch) };
        let (opens, opened) = open_with(&larger).unwrap();
        assert_eq!(opened.warnings.is_empty(), opened.noswap, "{:?}", opened.warnings);
        let usage = opens.store.usage(&volume("v")).unwrap();
        assert_eq!((usage.total_bytes, usage.total_inodes), (32 * MIB, 20_000));
        drop(opens);
        let (opens, opened) = open_with(&StoreOptions { size_bytes: MIB / 8, ..larger }).unwrap();
        assert!(
            opened.warnings.iter().any(|warning| warning.contains("keeps its 33554432 bytes")),
            "{opened:?}"
        );
        assert_eq!(opens.store.usage(&volume("v")).unwrap().total_bytes, 32 * MIB);
    });
}

#[test]
fn two_processes_cannot_have_one_store_open() {
    in_namespace(|scratch| {
        let first = open(scratch);
        assert!(matches!(open_with(&options(scratch)), Err(MountError::Store(StoreError::InUse { .. }))));
        drop(first);
        open(scratch);
    });
}

#[test]
fn a_data_root_that_cannot_be_used_is_refused_in_plain_words() {
    in_namespace(|scratch| {
        let root = scratch.join("data");
        fs::write(&root, "").unwrap();
        assert!(matches!(open_with(&options(scratch)), Err(MountError::Option { flag: "--data-root", .. })));
        let below = StoreOptions { root: root.join("below"), ..options(scratch) };
        assert!(matches!(open_with(&below), Err(MountError::Option { flag: "--data-root", .. })));
        fs::remove_file(&root).unwrap();
        fs::create_dir(&root).unwrap();
        mount(Some("theirs"), &root, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let error = open_with(&options(scratch)).unwrap_err();
        assert!(error.to_string().contains("tmpfs is mounted there"), "{error}");
        assert!(fs::read_dir(&root).unwrap().next().is_none(), "somebody else's tmpfs was written to");
        for (size_bytes, inodes, refused) in [(0, 1, "--store-size"), (1, 0, "--store-inodes")] {
            let options = StoreOptions { root: root.clone(), size_bytes, inodes, selinux_context: None };
            assert!(matches!(open_with(&options), Err(MountError::Option { flag, .. }) if flag == refused));
        }
    });
}

#[test]
fn an_selinux_context_is_the_stores_or_the_flag_is_named() {
    in_namespace(|scratch| {
        let context = "system_u:object_r:container_file_t:s0:c1,c2".to_owned();
        let options = StoreOptions { selinux_context: Some(context.clone()), ..options(scratch) };
        // Which of the two happens depends on the machine's kernel and policy.
        match open_with(&options) {
            Ok(_) => {
                let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
                assert!(table.contains(&context), "{table}");
            }
            Err(error) => {
                assert!(
                    matches!(&error, MountError::Option { flag: "--store-selinux-context", .. }),
                    "{error}"
                );
                assert!(error.to_string().contains("--store-selinux-context system_u:object_r"), "{error}");
                // An adopted mount keeps its context, with a warning.
                drop(open(scratch));
                let (_opens, opened) = open_with(&options).unwrap();
                let said =
                    opened.warnings.iter().any(|warning| warning.contains("without the SELinux context"));
                assert!(opened.adopted && said, "{opened:?}");
            }
        }
    });
}

#[test]
fn a_read_only_file_system_is_named_as_such() {
    in_namespace(|scratch| {
        mount(Some("x"), scratch, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>).unwrap();
        let error = open_with(&options(scratch)).unwrap_err();
        assert!(
            matches!(error, MountError::Store(StoreError::System { cause: Cause::ReadOnly, .. })),
            "{error}"
        );
    });
}

#[test]
fn a_store_that_was_unmounted_underneath_is_an_error_and_nothing_reaches_the_disk() {
    in_namespace(|scratch| {
        let opens = open(scratch);
        umount2(&scratch.join("data/view"), MntFlags::MNT_DETACH).unwrap();
        umount2(&scratch.join("data"), MntFlags::MNT_DETACH).unwrap();
        let error = opens.store.write_generation(&volume("v"), &generation("one")).unwrap_err();
        assert!(error.is_vanished(), "{error}");
        assert!(fs::read_dir(scratch.join("data")).unwrap().next().is_none());
    });
}

#[test]
fn a_relative_data_root_works() {
    in_namespace(|scratch| {
        std::env::set_current_dir(scratch).unwrap();
        let relative = StoreOptions { root: "a/data".into(), ..options(scratch) };
        let (opens, _) = open_with(&relative).unwrap();
        std::env::set_current_dir(Path::new("/")).unwrap();
        opens.store.write_generation(&volume("v"), &generation("one")).unwrap();
        assert!(scratch.join("a/data/volumes/v/mount/tls.crt").exists());
    });
}
