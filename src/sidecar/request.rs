//! From a sidecar's pod and attributes to a publish.

use crate::attributes::{AttributeError, AttributeErrors, OperatorDefaults, VolumeContext, check_secret};
use crate::model::{CertificateSpec, RawAttributes, VolumeId, WorkloadIdentity, jitter};
use crate::volume::{PublishRequest, accepted_spec};
use nix::unistd::{getegid, geteuid, getgroups};
use secrecy::SecretString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a sidecar asks for, parsed and checked. It can be published as often as it needs.
#[derive(Clone, Debug)]
pub(crate) struct SidecarRequest {
    /// Its only volume.
    pub(crate) volume: VolumeId,
    directory: PathBuf,
    context: VolumeContext,
    spec: Arc<CertificateSpec>,
    group: Option<u32>,
}

impl SidecarRequest {
    /// Parses the attributes, with the flags' defaults. The error lists all faults.
    pub(crate) fn new(
        directory: PathBuf,
        pod: WorkloadIdentity,
        raw: RawAttributes,
        keystore_password: Option<SecretString>,
        group: Option<u32>,
        defaults: &OperatorDefaults,
    ) -> Result<Self, AttributeErrors> {
        let context = VolumeContext::of_sidecar(pod, raw, keystore_password, defaults.dialect)?;
        let spec = accepted_spec(&context, defaults)?;
        check_secret(&spec, &context)?;
        if let Some(group) = spec.fs_group.filter(|group| !is_own(*group)) {
            let attribute = format!("{}/fs-group", spec.dialect.prefix());
            let problem = format!("{group} is no group of the sidecar, which cannot give files to it");
            let accepted = "a group of the pod (fsGroup or supplementalGroups); or leave it out, and the pod's fsGroup gets the files";
            return Err(AttributeErrors::new(vec![AttributeError::new(attribute, problem, accepted)]));
        }
        let volume = VolumeId::new(format!("sidecar-{}", context.pod.uid));
        Ok(Self { volume, directory, context, spec: Arc::new(spec), group })
    }

    /// The author's attributes, as written.
    pub(crate) fn attributes(&self) -> &RawAttributes {
        &self.context.raw
    }

    /// What the attributes ask for.
    pub(crate) fn spec(&self) -> &CertificateSpec {
        &self.spec
    }

    /// The name of its pod.
    pub(crate) fn pod_name(&self) -> &str {
        &self.context.pod.name
    }

    /// The publish.
    pub(super) fn publish(&self, timeout: Option<Duration>) -> PublishRequest {
        PublishRequest {
            volume: self.volume.clone(),
            target: self.directory.clone(),
            context: self.context.clone(),
            spec: Arc::clone(&self.spec),
            mount_group: self.group,
            timeout,
        }
    }

    /// What spreads the attempts of many sidecars that start together: from 0 to 1.
    pub(super) fn jitter(&self, attempt: u32) -> f64 {
        jitter(self.volume.as_str(), &attempt.to_be_bytes())
    }
}

/// Whether the process may give files to the group.
fn is_own(group: u32) -> bool {
    let groups = getgroups().unwrap_or_default();
    geteuid().is_root() || groups.into_iter().chain([getegid()]).any(|own| own.as_raw() == group)
}

/// The group that a pod's fsGroup gives to its volumes: that of a directory with the setgid bit.
pub(crate) fn directory_group(directory: &Path) -> io::Result<Option<u32>> {
    const SETGID: u32 = 0o2000;
    let found = fs::metadata(directory)?;
    Ok((found.mode() & SETGID != 0).then_some(found.gid()))
}
