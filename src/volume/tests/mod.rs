//! Store and mounts against a real kernel: each test in a mount namespace of its own.

mod due_work;
mod mistyped_passwords;
mod mounts;
mod opening;

use super::applied::AppliedSpec;
use super::federation::Federation;
use super::targets::Targets;
use super::volume::Volume;
use super::volume_counts::VolumeCounts;
use super::{Limits, MountError, Opened, StoreOptions, VolumeFiles};
use crate::credential::WorkQueue;
use crate::model::{CertificateSpec, PodTokens, VolumeId};
use crate::store::{NewFile, Record, ShareLimits, Shares, Store};
use crate::trust::VolumeCrls;
use crate::x509::testing::{StoppedClock, attributes, pod};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const MIB: u64 = 1024 * 1024;

fn options(scratch: &Path) -> StoreOptions {
    StoreOptions { root: scratch.join("data"), size_bytes: 16 * MIB, inodes: 10_000, selinux_context: None }
}

/// An open store with its mounts.
#[derive(Debug)]
struct Opens {
    store: Arc<Store>,
    mounts: Targets,
}

fn open_with(options: &StoreOptions) -> Result<(Opens, Opened), MountError> {
    let (VolumeFiles { store, mounts }, opened) = VolumeFiles::open(options)?;
    Ok((Opens { store, mounts }, opened))
}

fn open(scratch: &Path) -> Opens {
    open_with(&options(scratch)).unwrap().0
}

fn volume(id: &str) -> VolumeId {
    VolumeId::new(id)
}

/// The files of a generation; each contains `mark`.
fn generation(mark: &str) -> Vec<NewFile> {
    let file = |name: &str, mode| NewFile {
        name: name.into(),
        contents: Zeroizing::new(mark.as_bytes().to_vec()),
        mode,
        owner: None,
        group: None,
        shared: None,
    };
    vec![file("tls.crt", 0o444), file("tls.key", 0o400), file("ca.crt", 0o444)]
}

fn read(store: &Store, id: &str, name: &str) -> Option<String> {
    let read = store.read_generation(&volume(id), |generation| generation.file(name)).unwrap().flatten();
    read.map(|read| String::from_utf8(read.to_vec()).unwrap())
}

/// Limits that no test but one of limits reaches.
pub(super) const LIMITS: Limits = Limits {
    publishes: 4,
    renewals: 4,
    renewal_interval: Duration::ZERO,
    volume_bytes: 128 << 10,
    namespace_store_percent: 50,
    volumes_per_pod: 16,
    volumes_per_namespace: 0,
};

/// A volume as the registry holds it, without a certificate.
pub(super) fn volume_in_memory(id: &str) -> Arc<Volume> {
    volume_of(id, attributes())
}

/// A volume with this spec as the registry holds it, without a certificate.
pub(super) fn volume_of(id: &str, spec: CertificateSpec) -> Arc<Volume> {
    let clock = Arc::new(StoppedClock(Timestamp::UNIX_EPOCH));
    let record = Record {
        volume_id: volume(id),
        target: "/target".into(),
        pod: pod(),
        attributes: [].into_iter().collect(),
        fs_group: None,
        signer: "local".into(),
        class: None,
        issued: None,
        last_error: None,
    };
    let schedule = WorkQueue::new(clock).register(&volume(id), "shop");
    let shares = Shares::new(ShareLimits { volume_bytes: u64::MAX, namespace_percent: 100 });
    Volume::new(
        record,
        Arc::new(AppliedSpec::new(Arc::new(spec), Vec::new(), Federation::none(), VolumeCrls::default())),
        PodTokens::default(),
        schedule,
        Arc::default(),
        (shares.open("shop"), VolumeCounts::new(0, 0).count(&pod())),
    )
}

/// A target path as the kubelet makes it. Its parent exists.
fn target(scratch: &Path, pod: &str) -> PathBuf {
    let parent = scratch.join("pods").join(pod);
    fs::create_dir_all(&parent).unwrap();
    parent.join("mount")
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn is_target_error(error: &MountError, problem: &str) -> bool {
    matches!(error, MountError::Target { problem: found, .. } if found.starts_with(problem))
}
