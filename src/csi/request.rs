//! From the wire to typed requests. Missing and wrong fields are `INVALID_ARGUMENT`, as the CSI specification says.

use super::status;
use crate::attributes::{self, AttributeErrors, OperatorDefaults, VolumeContext};
use crate::model::VolumeId;
use crate::proto::csi::volume_capability::AccessType;
use crate::proto::csi::volume_capability::access_mode::Mode;
use crate::proto::csi::{NodePublishVolumeRequest, VolumeCapability};
use crate::volume::{PublishRequest, RefusedPublish, accepted_spec};
use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

/// CSI's size limit for string fields without a limit of their own.
const MAX_ID_BYTES: usize = 128;
/// Linux's limit on a path (`PATH_MAX`).
const MAX_PATH_BYTES: usize = 4096;

/// An invalid publish.
pub(super) struct InvalidPublish {
    pub(super) status: Status,
    /// The rest of the publish, if only the volume context is invalid: the volume may be in use.
    pub(super) refused: Option<Box<RefusedPublish>>,
}

impl InvalidPublish {
    /// A publish whose attributes, or whose Secret, are refused.
    pub(super) fn of_attributes(faults: &AttributeErrors, refused: RefusedPublish) -> Self {
        Self { status: invalid(faults.to_string()), refused: Some(Box::new(refused)) }
    }
}

impl From<Status> for InvalidPublish {
    fn from(status: Status) -> Self {
        Self { status, refused: None }
    }
}

/// Parses a publish. Faults of the request come first, then all faults of the attributes together.
pub(super) fn publish(
    request: Request<NodePublishVolumeRequest>,
    defaults: &OperatorDefaults,
) -> Result<PublishRequest, InvalidPublish> {
    let timeout = timeout(request.metadata());
    let request = request.into_inner();
    let volume = volume_id(request.volume_id)?;
    let target = path("target_path", request.target_path)?;
    let mount_group = mount_group(request.volume_capability)?;
    if !request.readonly {
        let message = "readonly: false; a certlet volume is read-only: declare it with readOnly: true";
        return Err(invalid(message).into());
    }
    let context = match VolumeContext::parse(request.volume_context, request.secrets, defaults.dialect) {
        Ok(context) => context,
        Err(faults) => {
            let refused = RefusedPublish { volume, target, context: None };
            return Err(InvalidPublish::of_attributes(&faults, refused));
        }
    };
    match accepted_spec(&context, defaults) {
        Ok(spec) => {
            if let Err(faults) = attributes::check_tokens(&spec, &context) {
                // A volume in use keeps the tokens that it has.
                let refused = RefusedPublish { volume, target, context: None };
                return Err(InvalidPublish::of_attributes(&faults, refused));
            }
            Ok(PublishRequest { volume, target, context, spec: Arc::new(spec), mount_group, timeout })
        }
        Err(faults) => {
            let refused = RefusedPublish { volume, target, context: Some(context) };
            Err(InvalidPublish::of_attributes(&faults, refused))
        }
    }
}

/// A `volume_id`: required, at most 128 bytes.
pub(super) fn volume_id(id: String) -> Result<VolumeId, Status> {
    required("volume_id", &id)?;
    if id.len() > MAX_ID_BYTES || id.contains('\0') {
        let length = id.len();
        return Err(invalid(format!(
            "volume_id: {length} bytes; accepted: at most {MAX_ID_BYTES}, none of them NUL"
        )));
    }
    Ok(VolumeId::new(id))
}

/// An error if a required field is missing.
pub(super) fn required(field: &'static str, value: &str) -> Result<(), Status> {
    if value.is_empty() { Err(invalid(format!("{field}: missing in request"))) } else { Ok(()) }
}

/// A required, absolute path.
pub(super) fn path(field: &'static str, value: String) -> Result<PathBuf, Status> {
    required(field, &value)?;
    let is_text_valid = value.len() <= MAX_PATH_BYTES && !value.contains('\0');
    let path = PathBuf::from(value);
    let has_parent_dir = path.components().any(|part| part == Component::ParentDir);
    if !is_text_valid || !path.is_absolute() || has_parent_dir || path.parent().is_none() {
        return Err(invalid(format!(
            "{field}: {:?}; accepted: an absolute path below the root, without \"..\", of at most {MAX_PATH_BYTES} bytes",
            path.display().to_string()
        )));
    }
    Ok(path)
}

/// Checks the capability and returns the pod's fsGroup.
fn mount_group(capability: Option<VolumeCapability>) -> Result<Option<u32>, Status> {
    let capability = capability.ok_or_else(|| invalid("volume_capability: missing in request"))?;
    let mode = capability.access_mode.map_or(Mode::Unknown, |mode| mode.mode());
    if mode == Mode::Unknown {
        return Err(invalid("volume_capability.access_mode: missing in request"));
    }
    let mount = match capability.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            return Err(invalid("volume_capability.block: not supported; accepted: mount"));
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
        // `chown(2)` takes the highest number as "no change".
        group => group.parse().ok().filter(|group| *group != u32::MAX).map(Some).ok_or_else(|| {
            invalid(format!(
                "volume_capability.mount.volume_mount_group: {group:?}; accepted: a group id from 0 to 4294967294"
            ))
        }),
    }
}

/// The time for the answer: most of the caller's `grpc-timeout`. So the caller shows the driver's error, which names what
/// the driver waits for, and not its own "context deadline exceeded".
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
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

fn invalid(message: impl Into<String>) -> Status {
    status::new(Code::InvalidArgument, &message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::csi::volume_capability::{AccessMode, MountVolume};

    fn with_timeout(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        metadata
    }

    #[test]
    fn the_answer_comes_before_the_callers_deadline() {
        assert_eq!(timeout(&with_timeout("120S")), Some(Duration::from_secs(117)));
        assert_eq!(timeout(&with_timeout("1000m")), Some(Duration::from_millis(900)));
        assert_eq!(timeout(&with_timeout("99999999H")), timeout(&with_timeout("1000000H")));
        for odd in ["", "S", "12", "12x", "-1S"] {
            assert_eq!(timeout(&with_timeout(odd)), None, "{odd:?}");
        }
        assert_eq!(timeout(&MetadataMap::new()), None);
    }

    #[test]
    fn a_path_must_be_absolute_and_without_parent_components() {
        for odd in ["", "relative/path", "/", "/a/../b", "/a\0b"] {
            let error = path("target_path", odd.to_owned()).unwrap_err();
            assert!(error.message().starts_with("target_path: "), "{error}");
        }
        assert!(path("target_path", "/var/lib/kubelet/pods/x/mount".to_owned()).is_ok());
    }

    #[test]
    fn a_publish_with_more_names_than_an_answer_can_hold_is_invalid_under_both_prefixes() {
        let units = (0..500).map(|number| format!("{number:03}")).collect::<Vec<_>>().join(",");
        let lists = ["organizations", "organizationalunits", "provinces", "localities", "streetaddresses"];
        for prefix in ["csi.certlet.io", "csi.cert-manager.io"] {
            let with_lists = |lists: &[&str]| {
                let kubelet = ["pod.name", "pod.namespace", "pod.uid", "serviceAccount.name"];
                let kubelet = kubelet.map(|name| (format!("csi.storage.k8s.io/{name}"), "a".to_owned()));
                let names = lists.iter().map(|name| (format!("{prefix}/{name}"), units.clone()));
                let context = kubelet.into_iter().chain(names).chain([
                    ("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned()),
                    (format!("{prefix}/issuer-name"), "ca".to_owned()),
                ]);
                let capability = VolumeCapability {
                    access_type: Some(AccessType::Mount(MountVolume::default())),
                    access_mode: Some(AccessMode { mode: Mode::SingleNodeReaderOnly.into() }),
                };
                let request = NodePublishVolumeRequest {
                    volume_id: "v".into(),
                    target_path: "/target".into(),
                    readonly: true,
                    volume_capability: Some(capability),
                    volume_context: context.collect(),
                    ..Default::default()
                };
                publish(Request::new(request), &OperatorDefaults::default())
            };
            assert!(with_lists(&lists).is_ok(), "{prefix}");
            let Err(refused) = with_lists(&[&lists[..], &["postalcodes", "dns-names"]].concat()) else {
                panic!("{prefix}")
            };
            assert_eq!(refused.status.code(), Code::InvalidArgument);
            let message = refused.status.message();
            assert!(message.contains(": the names take ") && message.contains("postalcodes"), "{message}");
        }
    }
}
