//! The store against a real kernel: each test in a mount namespace of its own.

mod crls;
mod inside;
mod layout;
mod leftovers;
mod records;

use super::{NewFile, Record, Store};
use crate::model::{VolumeId, WorkloadIdentity};
use nix::mount::{MsFlags, mount};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const MIB: u64 = 1024 * 1024;

/// Opens the store in the tmpfs at the scratch directory's `data`. Mounts the tmpfs with this size if it does not
/// exist.
fn open_sized(scratch: &Path, bytes: u64, inodes: u64) -> Store {
    let root = scratch.join("data");
    if !root.exists() {
        fs::create_dir(&root).unwrap();
        let limits = format!("mode=0700,size={bytes},nr_inodes={inodes}");
        mount(Some("x"), &root, Some("tmpfs"), MsFlags::empty(), Some(limits.as_str())).unwrap();
    }
    Store::open(&root).unwrap().0
}

fn open(scratch: &Path) -> Store {
    open_sized(scratch, 16 * MIB, 10_000)
}

fn volume(id: &str) -> VolumeId {
    VolumeId::new(id)
}

fn file(name: &str, contents: &str, secret: bool) -> NewFile {
    let mode = if secret { 0o400 } else { 0o444 };
    NewFile {
        name: name.into(),
        contents: Zeroizing::new(contents.as_bytes().to_vec()),
        mode,
        owner: None,
        group: None,
        shared: None,
    }
}

fn read(store: &Store, id: &str, name: &str) -> Option<String> {
    let read = store.read_generation(&volume(id), |generation| generation.file(name)).unwrap().flatten();
    read.map(|read| String::from_utf8(read.to_vec()).unwrap())
}

/// The files of a generation, with a key for a group.
fn generation_of(mark: &str, group: u32) -> Vec<NewFile> {
    let mut files = generation(mark);
    (files[1].mode, files[1].group) = (0o440, Some(group));
    files
}

/// The files of a generation; each contains `mark`.
fn generation(mark: &str) -> Vec<NewFile> {
    vec![file("tls.crt", mark, false), file("tls.key", mark, true), file("ca.crt", mark, false)]
}

fn record(id: &str, target: &Path) -> Record {
    Record {
        volume_id: volume(id),
        target: target.to_owned(),
        pod: WorkloadIdentity {
            namespace: "sandbox".into(),
            name: "web-0".into(),
            uid: "6f8b".into(),
            service_account: "web".into(),
        },
        attributes: [("csi.certlet.io/pkcs12-password".into(), "hunter2".into())].into_iter().collect(),
        fs_group: Some(2000),
        signer: "local".into(),
        class: None,
        issued: None,
        last_error: None,
    }
}

/// A target path as the kubelet makes it. Its parent exists.
fn target(scratch: &Path, pod: &str) -> PathBuf {
    let parent = scratch.join("pods").join(pod);
    fs::create_dir_all(&parent).unwrap();
    parent.join("mount")
}

/// The mounted directory of a volume, inside the store.
fn mount_dir(scratch: &Path, id: &str) -> PathBuf {
    scratch.join("data/volumes").join(id).join("mount")
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}
