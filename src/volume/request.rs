//! A request for a publish.

use super::context::Context;
use super::volume::Volume;
use super::volume_counts::Counted;
use crate::attributes::{self, AttributeErrors, OperatorDefaults, VolumeContext};
use crate::model::{CertificateSpec, VolumeId};
use crate::store::Record;
use crate::x509;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A `NodePublishVolume`, parsed and checked.
#[derive(Debug)]
pub(crate) struct PublishRequest {
    /// The volume.
    pub(crate) volume: VolumeId,
    /// Where the kubelet wants the volume: an absolute path whose parent exists.
    pub(crate) target: PathBuf,
    /// Pod, tokens, and the author's attributes as written.
    pub(crate) context: VolumeContext,
    /// The spec that the attributes ask for.
    pub(crate) spec: Arc<CertificateSpec>,
    /// The pod's fsGroup, as CSI's `volume_mount_group`.
    pub(crate) mount_group: Option<u32>,
    /// How long the caller waits; none if it does not say.
    pub(crate) timeout: Option<Duration>,
}

/// A publish whose attributes are refused.
#[derive(Debug)]
pub(crate) struct RefusedPublish {
    /// The volume.
    pub(crate) volume: VolumeId,
    /// Where the kubelet wants the volume.
    pub(crate) target: PathBuf,
    /// Pod, tokens, and the author's attributes as written; none if the volume context itself is refused.
    pub(crate) context: Option<VolumeContext>,
}

/// The spec that the attributes of a volume ask for, if its request can be made. The error lists all faults.
pub(crate) fn accepted_spec(
    context: &VolumeContext,
    defaults: &OperatorDefaults,
) -> Result<CertificateSpec, AttributeErrors> {
    check_names(attributes::parse(&context.raw, &context.pod, defaults)?)
}

/// The spec, if a request can hold its names.
pub(super) fn check_names(spec: CertificateSpec) -> Result<CertificateSpec, AttributeErrors> {
    // In every dialect: a longer answer of the signer could not be read.
    attributes::check_names(&spec, x509::MAX_NAMES_BYTES, |subject, names| {
        // What cannot be encoded has no length yet. The request says what is wrong with it.
        x509::names_len(subject, names, spec.dialect).unwrap_or_default()
    })?;
    Ok(spec)
}

impl PublishRequest {
    /// The volume, before its first certificate.
    pub(super) fn new_volume(&self, node: &Context, counted: Counted) -> Arc<Volume> {
        let Self { volume, target, context, spec, mount_group, .. } = self;
        let record = Record {
            volume_id: volume.clone(),
            target: target.clone(),
            pod: context.pod.clone(),
            attributes: context.raw.clone(),
            fs_group: *mount_group,
            signer: spec.signer.kind().to_string(),
            class: spec.class.clone(),
            issued: None,
            last_error: None,
        };
        node.new_volume(record, Arc::clone(spec), context.tokens.clone(), counted)
    }

    /// The field in which this request differs from the one in the record.
    pub(super) fn differs_from(&self, record: &Record) -> Option<&'static str> {
        if record.target != self.target {
            return Some("target_path");
        }
        (record.attributes != self.context.raw).then_some("volumeAttributes")
    }
}
