//! The store against a real kernel: each test in a mount namespace of its own.

mod layout;
mod leftovers;
mod mounts;
#[path = "../../../tests/support/namespace.rs"]
mod namespace;
mod opening;
mod records;

use super::{Record, Store, StoreOptions};
use crate::attributes::{PodIdentity, VolumeId};
use crate::delivery::DeliveredFile;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const MIB: u64 = 1024 * 1024;

fn options(scratch: &Path) -> StoreOptions {
    StoreOptions { root: scratch.join("data"), size_bytes: 16 * MIB, inodes: 10_000, selinux_context: None }
}

fn open(scratch: &Path) -> Store {
    Store::open(&options(scratch)).unwrap().0
}

fn volume(id: &str) -> VolumeId {
    VolumeId::new(id)
}

fn file(name: &str, contents: &str, secret: bool) -> DeliveredFile {
    DeliveredFile { name: name.into(), contents: Zeroizing::new(contents.as_bytes().to_vec()), secret }
}

/// A delivery whose every file says which one it is.
fn delivery(mark: &str) -> Vec<DeliveredFile> {
    vec![file("tls.crt", mark, false), file("tls.key", mark, true), file("ca.crt", mark, false)]
}

fn record(id: &str, target: &Path) -> Record {
    Record {
        volume_id: volume(id),
        target: target.to_owned(),
        pod: PodIdentity {
            namespace: "sandbox".into(),
            name: "web-0".into(),
            uid: "6f8b".into(),
            service_account: "web".into(),
        },
        attributes: [("csi.certlet.io/pkcs12-password".into(), "hunter2".into())].into_iter().collect(),
        fs_group: Some(2000),
        signer: "local".into(),
        issued: None,
        last_error: None,
    }
}

/// The target as the kubelet lays it out, its parent made.
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
