use super::{file, mode, names, set, volume};
use crate::namespace::in_namespace;
use crate::store::{INSIDE, NewSocket, Store, StoreError};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// An empty directory on a tmpfs, as the kubelet makes an emptyDir: everybody may write to it.
fn shared(scratch: &Path) -> PathBuf {
    let directory = scratch.join("shared");
    fs::create_dir(&directory).unwrap();
    mount(Some("x"), &directory, Some("tmpfs"), MsFlags::empty(), Some("mode=0777,size=1m")).unwrap();
    directory
}

fn open(directory: &Path) -> Store {
    let (store, warnings) = Store::open_inside(directory).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    store
}

#[test]
fn generations_and_socket_are_in_the_directory_itself_whose_mode_stays() {
    in_namespace(|scratch| {
        let (directory, id) = (shared(scratch), volume("v"));
        let store = open(&directory);
        assert_eq!(store.write_generation(&id, &[file("tls.crt", "1", false)]).unwrap(), 1);
        let socket = NewSocket { name: "s.sock".into(), mode: 0o600, owner: None, group: None };
        let _listener = store.listen(&id, &socket).unwrap();
        assert_eq!(names(&directory), set(&["..1", INSIDE, "..data", "tls.crt", "s.sock"]));
        assert_eq!((mode(&directory), mode(&directory.join(INSIDE))), (0o777, 0o700));
        assert!(store.size(&id).unwrap().bytes > 0);
        drop(store);
        // A crash left these.
        fs::create_dir(directory.join("..2")).unwrap();
        symlink("..data/new", directory.join("new")).unwrap();
        let store = open(&directory);
        assert_eq!(store.generation(&id).unwrap(), Some(1));
        assert_eq!(store.write_generation(&id, &[file("other.crt", "2", false)]).unwrap(), 2);
        assert_eq!(names(&directory), set(&["..2", INSIDE, "..data", "other.crt", "s.sock"]));
        store.remove(&id).unwrap();
        assert_eq!(store.generation(&id).unwrap(), Some(2), "the pod keeps its files");
    });
}

#[test]
fn generations_that_no_pod_sees_are_in_the_state() {
    in_namespace(|scratch| {
        let (directory, id) = (shared(scratch), volume("v"));
        let store = open(&directory);
        store.keep_unmounted(&id).unwrap();
        store.write_generation(&id, &[file("tls.key", "k", true)]).unwrap();
        assert_eq!(names(&directory), set(&[INSIDE]));
        assert_eq!(mode(&directory), 0o777);
    });
}

#[test]
fn what_others_have_made_is_refused_and_stays() {
    in_namespace(|scratch| {
        let directory = shared(scratch);
        let foreign = |expected: &str| match Store::open_inside(&directory) {
            Err(StoreError::Foreign { name, .. }) => assert_eq!(name, expected),
            other => panic!("{expected}: {other:?}"),
        };
        // A socket of the app is no part of a generation.
        let _socket = UnixListener::bind(directory.join("app.sock")).unwrap();
        drop(open(&directory));
        fs::write(directory.join("app.conf"), "precious").unwrap();
        foreign("app.conf");
        fs::remove_file(directory.join("app.conf")).unwrap();
        symlink("/etc/passwd", directory.join("link")).unwrap();
        foreign("link");
        fs::remove_file(directory.join("link")).unwrap();
        // Another container, which may write to the directory, leads the state elsewhere.
        fs::remove_dir_all(directory.join(INSIDE)).unwrap();
        let elsewhere = scratch.join("disk");
        fs::create_dir(&elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(&elsewhere, directory.join(INSIDE)).unwrap();
        foreign(INSIDE);
        assert_eq!((names(&elsewhere), mode(&elsewhere)), (set(&[]), 0o755));
    });
}

#[test]
fn a_disk_is_refused_and_nothing_is_written_to_it() {
    in_namespace(|scratch| {
        let opened = Store::open_inside(Path::new("/proc/self"));
        assert!(matches!(opened, Err(StoreError::NotTmpfs { .. })), "{opened:?}");
        let missing = Store::open_inside(&scratch.join("missing"));
        assert!(matches!(&missing, Err(error) if error.is_vanished()), "{missing:?}");
    });
}

#[test]
fn a_tmpfs_without_limits_has_space() {
    in_namespace(|scratch| {
        let directory = scratch.join("shared");
        fs::create_dir(&directory).unwrap();
        let limits = Some("size=0,nr_inodes=0");
        mount(Some("x"), &directory, Some("tmpfs"), MsFlags::empty(), limits).unwrap();
        let capacity = open(&directory).capacity().unwrap();
        assert!(capacity.total.bytes > 1 << 30 && capacity.free.inodes > 1 << 20, "{capacity:?}");
    });
}
