use super::{
    MIB, file, generation, generation_of, mode, mount_dir, names, open, open_sized, read, set, volume,
};
use crate::namespace::{in_namespace, maps_all_groups};
use crate::store::{Cause, Resource, Size, StoreError, StoredVolume, VOLUME_INODES};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_generation_is_laid_out_as_the_kubelet_would() {
    in_namespace(|scratch| {
        let store = open(scratch);
        assert_eq!(store.write_generation(&volume("v"), &generation("one")).unwrap(), 1);
        let mount = mount_dir(scratch, "v");
        assert_eq!(names(&mount), set(&["..1", "..data", "tls.crt", "tls.key", "ca.crt"]));
        assert_eq!(fs::read_link(mount.join("..data")).unwrap(), Path::new("..1"));
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            assert_eq!(fs::read_link(mount.join(name)).unwrap(), Path::new("..data").join(name));
            assert_eq!(fs::read_to_string(mount.join(name)).unwrap(), "one");
        }
        assert_eq!(mode(&mount), 0o755);
        assert_eq!(mode(&mount.join("..1")), 0o755);
        assert_eq!(mode(&mount.join("..1/tls.crt")), 0o444);
        assert_eq!(mode(&mount.join("..1/tls.key")), 0o400);
        assert_eq!(mode(mount.parent().unwrap()), 0o700);
        assert_eq!(mode(&scratch.join("data")), 0o700);
    });
}

#[test]
fn a_second_generation_replaces_the_first_whole() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        store.write_generation(&id, &generation("one")).unwrap();
        let second = [file("tls.crt", "two", false), file("combined.pem", "two", true)];
        assert_eq!(store.write_generation(&id, &second).unwrap(), 2);
        assert_eq!(names(&mount_dir(scratch, "v")), set(&["..2", "..data", "tls.crt", "combined.pem"]));
        assert_eq!(store.generation(&id).unwrap(), Some(2));
        assert_eq!(read(&store, "v", "combined.pem").unwrap(), "two");
        assert!(read(&store, "v", "tls.key").is_none());
        assert_eq!(store.generation(&volume("other")).unwrap(), None);
        assert!(read(&store, "other", "tls.key").is_none());
    });
}

#[test]
fn a_reader_never_sees_a_mixed_generation_in_a_thousand_swaps() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let (id, target) = (volume("v"), mount_dir(scratch, "v"));
        let contents = |swap: u32| format!("{swap} ").repeat(300);
        store.write_generation(&id, &generation(&contents(0))).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut read = 0;
                while !done.load(Ordering::Relaxed) {
                    read += u32::from(read_one_generation(&target));
                }
                read
            });
            for swap in 1..=1000 {
                store.write_generation(&id, &generation(&contents(swap))).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 20, "the reader hardly read at all");
        });
        assert_eq!(fs::read_to_string(target.join("tls.key")).unwrap(), contents(1000));
    });
}

#[test]
fn files_that_are_read_back_are_of_one_generation_in_a_thousand_swaps() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        store.write_generation(&id, &generation("0")).unwrap();
        let has_seen_enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swaps = scope.spawn(|| {
                // More of them if the reader gets too little of the machine's time.
                for swap in 1..=100_000 {
                    store.write_generation(&id, &generation(&swap.to_string())).unwrap();
                    if swap >= 1000 && has_seen_enough.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let mut seen = BTreeSet::new();
            while !swaps.is_finished() {
                let read = store.read_generation::<_, StoreError>(&id, |generation| {
                    Ok([generation.file("tls.key")?, generation.file("tls.crt")?, generation.file("ca.crt")?])
                });
                let [key, chain, anchors] = read.unwrap().unwrap();
                assert!(key.is_some() && key == chain && chain == anchors, "mixed generations");
                seen.insert(key.unwrap().to_vec());
                has_seen_enough.store(seen.len() > 20, Ordering::Relaxed);
            }
            assert!(seen.len() > 20, "{} generations prove nothing", seen.len());
        });
    });
}

/// Follows `..data` once and reads every file in it, as a careful reader of a Secret volume does. Returns false if the
/// generation was removed meanwhile. Such a reader then starts again.
fn read_one_generation(target: &Path) -> bool {
    fs::read_link(target.join("..data")).expect("there is a live generation at every instant");
    let path_only = nix::fcntl::OFlag::O_PATH.bits();
    let Ok(data) = fs::OpenOptions::new().read(true).custom_flags(path_only).open(target.join("..data"))
    else {
        return false;
    };
    let directory = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&data));
    let mut seen: Option<String> = None;
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let mut text = String::new();
        let Ok(mut file) = fs::File::open(format!("{directory}/{name}")) else { return false };
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.len() % 300, 0, "a file that is not whole");
        assert_eq!(*seen.get_or_insert_with(|| text.clone()), text, "a mixed generation");
    }
    true
}

#[test]
fn a_watcher_sees_one_move_onto_the_data_link_per_swap() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let (id, target) = (volume("v"), mount_dir(scratch, "v"));
        store.write_generation(&id, &generation("one")).unwrap();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        inotify.add_watch(&target, AddWatchFlags::IN_ALL_EVENTS).unwrap();
        store.write_generation(&id, &generation("two")).unwrap();
        let events = inotify.read_events().unwrap();
        let moved =
            |event: &&nix::sys::inotify::InotifyEvent| event.mask.contains(AddWatchFlags::IN_MOVED_TO);
        let moved: Vec<_> = events.iter().filter(moved).map(|event| event.name.clone().unwrap()).collect();
        assert_eq!(moved, ["..data"]);
        let about_names = |event: &&nix::sys::inotify::InotifyEvent| {
            event.name.as_ref().is_some_and(|name| !name.to_string_lossy().starts_with(".."))
        };
        let touched = events.iter().filter(about_names).filter(|event| {
            event
                .mask
                .intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ATTRIB)
        });
        assert_eq!(touched.count(), 0, "a name was touched: {events:?}");
    });
}

#[test]
fn a_full_store_keeps_the_old_generation() {
    in_namespace(|scratch| {
        let store = open_sized(scratch, MIB / 4, 10_000);
        let id = volume("v");
        store.write_generation(&id, &generation("old")).unwrap();
        let before = store.usage(&id).unwrap();
        let mut large = generation("new");
        large.push(file("keystore.p12", &"x".repeat(300 * 1024), true));
        let error = store.write_generation(&id, &large).unwrap_err();
        assert!(matches!(error, StoreError::System { cause: Cause::Full(Resource::Space), .. }), "{error}");
        assert!(error.to_string().contains("--store-size"), "{error}");
        assert_eq!(names(&mount_dir(scratch, "v")), set(&["..1", "..data", "tls.crt", "tls.key", "ca.crt"]));
        assert_eq!(read(&store, "v", "tls.key").unwrap(), "old");
        assert_eq!(store.usage(&id).unwrap(), before);
        assert_eq!(store.write_generation(&id, &generation("new")).unwrap(), 2);
    });
}

#[test]
fn a_store_without_inodes_says_which_flag_to_raise() {
    in_namespace(|scratch| {
        // The root, view/, volumes/, and eleven for the volume: its directories, links and files.
        let store = open_sized(scratch, 16 * MIB, 14);
        let id = volume("v");
        store.write_generation(&id, &generation("old")).unwrap();
        let error = store.write_generation(&id, &generation("new")).unwrap_err();
        assert!(matches!(error, StoreError::System { cause: Cause::Full(Resource::Inodes), .. }), "{error}");
        assert!(error.to_string().contains("--store-inodes"), "{error}");
        assert_eq!(names(&mount_dir(scratch, "v")), set(&["..1", "..data", "tls.crt", "tls.key", "ca.crt"]));
        assert_eq!(read(&store, "v", "tls.key").unwrap(), "old");
    });
}

#[test]
fn a_key_belongs_to_the_pods_group_where_it_has_one() {
    in_namespace(|scratch| {
        if !maps_all_groups() {
            println!("skipped: only root can give a file to another group");
            return;
        }
        let store = open(scratch);
        store.write_generation(&volume("v"), &generation_of("one", 2000)).unwrap();
        let directory = mount_dir(scratch, "v").join("..1");
        let key = fs::metadata(directory.join("tls.key")).unwrap();
        assert_eq!((key.uid(), key.gid(), mode(&directory.join("tls.key"))), (0, 2000, 0o440));
        let certificate = fs::metadata(directory.join("tls.crt")).unwrap();
        assert_eq!((certificate.gid(), mode(&directory.join("tls.crt"))), (0, 0o444));
    });
}

#[test]
fn a_group_that_cannot_be_set_leaves_the_old_generation() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        store.write_generation(&id, &generation("old")).unwrap();
        // A user namespace does not map this group.
        let error = store.write_generation(&id, &generation_of("new", u32::MAX - 1));
        if maps_all_groups() {
            error.unwrap();
            return;
        }
        assert!(matches!(error, Err(StoreError::Owners { group: Some(4_294_967_294), .. })), "{error:?}");
        assert_eq!(read(&store, "v", "tls.key").unwrap(), "old");
    });
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    in_namespace(|scratch| {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let store = open(scratch);
        store.write_generation(&volume("v"), &generation("one")).unwrap();
        let mount = mount_dir(scratch, "v");
        assert_eq!((mode(&mount), mode(&mount.join("..1"))), (0o755, 0o755));
        assert_eq!((mode(&mount.join("..1/tls.crt")), mode(&mount.join("..1/tls.key"))), (0o444, 0o400));
    });
}

#[test]
fn file_names_that_would_break_the_layout_are_refused() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        let long = "x".repeat(256);
        for name in ["", ".", "..", "..data", "..1", "a/b", "/etc/passwd", "a\0b", &long] {
            let error = store.write_generation(&id, &[file(name, "x", false)]).unwrap_err();
            assert!(
                matches!(&error, StoreError::FileName { name: refused, .. } if refused == name),
                "{error}"
            );
        }
        store.write_generation(&id, &[file("tls.crt", "x", false)]).unwrap();
        for name in ["..", "a/b", "/etc/passwd"] {
            store.read_generation(&id, |generation| generation.file(name)).unwrap_err();
        }
        store.remove(&id).unwrap();
        let twice = [file("tls.crt", "x", false), file("tls.crt", "y", false)];
        assert!(matches!(store.write_generation(&id, &twice), Err(StoreError::FileName { .. })));
        assert!(!mount_dir(scratch, "v").exists());
    });
}

#[test]
fn odd_volume_ids_stay_inside_the_store_and_apart() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let hashed = crate::store::VolumeDir::of(&volume("../x")).to_string();
        let long = "v".repeat(4096);
        let ids =
            ["../x", "", ".", "..", ".trash-v", "a/b", "käse-🧀", &long, &hashed, "csi-0123abc", "a.b_c-D"];
        for id in ids {
            store.write_generation(&volume(id), &generation(id)).unwrap();
            store.write_record(&super::record(id, Path::new("/pods/x"))).unwrap();
        }
        for id in ids {
            assert_eq!(read(&store, id, "tls.crt").unwrap(), id);
            let is_its = |stored: &&StoredVolume| stored.record.as_ref().unwrap().volume_id == volume(id);
            assert_eq!(store.list().unwrap().iter().filter(is_its).count(), 1);
        }
        assert_eq!(names(&scratch.join("data")), set(&["volumes"]));
        let listed = store.list().unwrap();
        assert_eq!(listed.len(), ids.len());
        assert!(listed.iter().all(|stored| stored.record.is_ok()));
        assert_eq!(crate::store::VolumeDir::of(&volume("csi-0123abc")).0, "csi-0123abc");
        for id in ids {
            store.remove(&volume(id)).unwrap();
            store.remove(&volume(id)).unwrap();
        }
        assert!(names(&scratch.join("data/volumes")).is_empty());
    });
}

#[test]
fn the_pages_name_the_inodes_of_a_volume() {
    let pages = [include_str!("../../../docs/cli.md"), include_str!("../../../docs/operations.md")];
    assert!(pages[0].contains(&format!("a volume with key, certificate and CA has {VOLUME_INODES}")));
    assert_eq!(pages[1].matches(&format!("{VOLUME_INODES} inodes")).count(), 2);
}

#[test]
fn usage_counts_the_volume_and_the_store() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        assert!(store.usage(&id).unwrap_err().is_vanished());
        store.write_generation(&id, &generation("one")).unwrap();
        store.write_record(&super::record("v", Path::new("/pods/x"))).unwrap();
        let usage = store.usage(&id).unwrap();
        // Three files and a record of a page each; volume, mount and generation directories, four links.
        assert_eq!((usage.volume_bytes, usage.volume_inodes), (4 * 4096, VOLUME_INODES));
        assert_eq!((usage.total_bytes, usage.total_inodes), (16 * MIB, 10_000));
        assert!(usage.available_bytes <= usage.total_bytes - usage.volume_bytes);
        assert!(usage.available_inodes <= usage.total_inodes - usage.volume_inodes);
    });
}

#[test]
fn usage_is_measured_while_the_volume_changes() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        store.write_generation(&id, &generation("one")).unwrap();
        std::thread::scope(|scope| {
            let changes = scope.spawn(|| {
                for _ in 0..500 {
                    store.write_generation(&id, &generation("another")).unwrap();
                    store.write_record(&super::record("v", Path::new("/pods/x"))).unwrap();
                }
            });
            while !changes.is_finished() {
                store.usage(&id).unwrap();
            }
        });
    });
}

#[test]
fn an_examined_removal_says_what_is_kept_open() {
    in_namespace(|scratch| {
        let store = open(scratch);
        let id = volume("v");
        store.write_generation(&id, &generation("one")).unwrap();
        let live = |name: &str| mount_dir(scratch, "v").join("..data").join(name);
        assert_eq!(store.write_generation_examined(&id, &generation("two")).unwrap(), (2, Size::default()));
        let key = fs::File::open(live("tls.key")).unwrap();
        let directory = fs::File::open(live(".")).unwrap();
        let page = store.capacity().unwrap().page;
        let kept = Size { bytes: page, inodes: 2 };
        assert_eq!(store.write_generation_examined(&id, &generation("three")).unwrap(), (3, kept));
        drop((key, directory));
        assert_eq!(store.write_generation_examined(&id, &generation("four")).unwrap(), (4, Size::default()));
    });
}
