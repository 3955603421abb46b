//! From the wire to typed requests: what is missing or wrong is `INVALID_ARGUMENT`, as the CSI specification words it.

use crate::attributes::{Attributes, VolumeContext, VolumeId};
use crate::lifecycle::PublishRequest;
use crate::proto::csi::volume_capability::AccessType;
use crate::proto::csi::volume_capability::access_mode::Mode;
use crate::proto::csi::{NodePublishVolumeRequest, VolumeCapability};
use std::path::PathBuf;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

/// CSI's size limit for string fields, unless a field says otherwise.
const LONGEST_ID: usize = 128;
/// What Linux takes as a path.
const LONGEST_PATH: usize = 4096;

/// Why a publish is refused before anything is done.
pub(super) struct Refused {
    pub(super) status: Status,
    /// What the request is about, where nothing is wrong with it but its volume context.
    pub(super) about: Option<(VolumeId, PathBuf)>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { status, about: None }
    }
}

/// A publish, parsed and checked. Faults of the request come first, then every fault of the attributes together.
pub(super) fn publish(request: Request<NodePublishVolumeRequest>) -> Result<PublishRequest, Refused> {
    let patience = patience(request.metadata());
    let request = request.into_inner();
    let volume = volume_id(request.volume_id)?;
    let target = path("target_path", request.target_path)?;
    let mount_group = mount_group(request.volume_capability)?;
    if !request.readonly {
        return Err(invalid(
            "readonly: false; a certlet volume is read-only: declare it with readOnly: true",
        )
        .into());
    }
    let parsed = VolumeContext::parse(request.volume_context, request.secrets).and_then(|context| {
        let attributes = Attributes::parse(&context.raw, &context.pod)?;
        Ok((context, attributes))
    });
    let (context, attributes) = match parsed {
        Ok(parsed) => parsed,
        Err(faults) => {
            return Err(Refused { status: invalid(faults.to_string()), about: Some((volume, target)) });
        }
    };
    Ok(PublishRequest { volume, target, context, attributes, mount_group, patience })
}

/// A `volume_id`: required, at most 128 bytes.
pub(super) fn volume_id(id: String) -> Result<VolumeId, Status> {
    if id.is_empty() {
        Err(invalid("volume_id: missing in request"))
    } else if id.len() > LONGEST_ID || id.contains('\0') {
        Err(invalid(format!(
            "volume_id: {} bytes; accepted: at most {LONGEST_ID}, none of them NUL",
            id.len()
        )))
    } else {
        Ok(VolumeId::new(id))
    }
}

/// A required, absolute path.
pub(super) fn path(field: &'static str, value: String) -> Result<PathBuf, Status> {
    if value.is_empty() {
        return Err(invalid(format!("{field}: missing in request")));
    }
    let path = PathBuf::from(value);
    let climbs = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    let text = path.as_os_str().as_encoded_bytes();
    if !path.is_absolute()
        || climbs
        || text.len() > LONGEST_PATH
        || text.contains(&0)
        || path.parent().is_none()
    {
        return Err(invalid(format!(
            "{field}: {:?}; accepted: an absolute path below the root, without \"..\", of at most {LONGEST_PATH} bytes",
            path.display().to_string()
        )));
    }
    Ok(path)
}

/// The capability's checks; what it yields is the pod's fsGroup.
fn mount_group(capability: Option<VolumeCapability>) -> Result<Option<u32>, Status> {
    let capability = capability.ok_or_else(|| invalid("volume_capability: missing in request"))?;
    let mode = capability.access_mode.map_or(Mode::Unknown, |mode| mode.mode());
    if mode == Mode::Unknown {
        return Err(invalid("volume_capability.access_mode: missing in request"));
    }
    let mount = match capability.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            return Err(invalid("volume_capability.block: not offered; accepted: mount"));
        }
        None => return Err(invalid("volume_capability.access_type: missing in request; accepted: mount")),
    };
    if !mount.mount_flags.is_empty() {
        return Err(invalid(format!(
            "volume_capability.mount.mount_flags: {:?}; accepted: none, the mount is always ro, nosuid, nodev, noexec",
            mount.mount_flags
        )));
    }
    match mount.volume_mount_group.as_str() {
        "" => Ok(None),
        group => group.parse().map(Some).map_err(|_| {
            invalid(format!(
                "volume_capability.mount.volume_mount_group: {group:?}; accepted: a numeric group id"
            ))
        }),
    }
}

/// How long the caller waits: most of its `grpc-timeout`, so that our answer, which says what is being waited for, comes
/// before its own "context deadline exceeded", which does not.
fn patience(metadata: &MetadataMap) -> Option<Duration> {
    let header = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_hours(count.min(1_000_000)),
        "M" => Duration::from_mins(count.min(1_000_000)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(timeout.saturating_sub((timeout / 10).min(Duration::from_secs(3))))
}

pub(super) fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_timeout(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        metadata
    }

    #[test]
    fn our_answer_comes_before_the_callers_deadline() {
        assert_eq!(patience(&with_timeout("120S")), Some(Duration::from_secs(117)));
        assert_eq!(patience(&with_timeout("1000m")), Some(Duration::from_millis(900)));
        assert_eq!(patience(&with_timeout("99999999H")), patience(&with_timeout("1000000H")));
        for odd in ["", "S", "12", "12x", "-1S"] {
            assert_eq!(patience(&with_timeout(odd)), None, "{odd:?}");
        }
        assert_eq!(patience(&MetadataMap::new()), None);
    }

    #[test]
    fn a_path_must_be_absolute_and_must_not_climb() {
        for odd in ["", "relative/path", "/", "/a/../b", "/a\0b"] {
            let error = path("target_path", odd.to_owned()).unwrap_err();
            assert!(error.message().starts_with("target_path: "), "{error}");
        }
        assert!(path("target_path", "/var/lib/kubelet/pods/x/mount".to_owned()).is_ok());
    }
}
