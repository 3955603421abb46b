//! Renewals that a person asks for, before they are due.

use super::VolumeService;
use super::volume::Volume;
use crate::credential::{CATCH_UP, Work, offset_within};
use crate::model::{Failure, FailureKind, VolumeId};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Limit on a target as text: a namespace has 63 characters, a pod's name 253, a volume's id 128.
const MAX_BYTES: usize = 320;

/// Which volumes to renew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewTarget {
    /// Every volume.
    All,
    /// The volumes of a pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// One volume.
    Volume(VolumeId),
}

impl RenewTarget {
    /// Whether it names the volume of this id and pod.
    pub(crate) fn names(&self, id: &VolumeId, namespace: &str, pod: &str) -> bool {
        match self {
            Self::All => true,
            Self::Pod { namespace: of, name } => of == namespace && name == pod,
            Self::Volume(volume) => volume == id,
        }
    }

    fn names_volume(&self, volume: &Volume) -> bool {
        volume.with_record(|record| self.names(&volume.id, &record.pod.namespace, &record.pod.name))
    }
}

impl fmt::Display for RenewTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("--all"),
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Volume(id) => write!(f, "{id}"),
        }
    }
}

impl FromStr for RenewTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
                && part.starts_with(|first: char| first.is_ascii_alphanumeric())
        };
        let found = match text.split_once('/') {
            _ if text.len() > MAX_BYTES => None,
            None if text == "--all" => Some(Self::All),
            None => is_name(text).then(|| Self::Volume(VolumeId::new(text))),
            Some((namespace, name)) => (is_name(namespace) && is_name(name))
                .then(|| Self::Pod { namespace: namespace.to_owned(), name: name.to_owned() }),
        };
        found.ok_or("accepted: NAMESPACE/POD, or the id of a volume")
    }
}

impl VolumeService {
    /// Starts the renewal of volumes that are not due: of all volumes within half a minute, else now. The queue, its limits and the
    /// signer's budgets apply as to every renewal. Returns the number of volumes.
    pub(crate) fn renew_now(&self, target: &RenewTarget) -> Result<usize, Failure> {
        let has_certificate = |volume: &Volume| volume.with_record(|record| record.issued.is_some());
        let all = self.context.registry.all().into_iter();
        let issued: Vec<_> =
            all.filter(|volume| target.names_volume(volume) && has_certificate(volume)).collect();
        if issued.is_empty() && *target != RenewTarget::All {
            let message = format!(
                "{target} has no certificate of this driver: it waits for its first one, or is not on this node"
            );
            return Err(Failure::new(FailureKind::NotFound, message));
        }
        let window = if *target == RenewTarget::All { CATCH_UP } else { Duration::ZERO };
        for volume in &issued {
            volume.schedule.put_in(Work::Renew, offset_within(window, &volume.id));
        }
        tracing::info!(%target, volumes = issued.len(), "a renewal was asked for on the control socket");
        Ok(issued.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_pod_a_volume_or_all_and_nothing_else() {
        let pod = RenewTarget::Pod { namespace: "shop".into(), name: "web-0".into() };
        for (text, target) in [
            ("--all", RenewTarget::All),
            ("shop/web-0", pod.clone()),
            ("csi-0a1b", RenewTarget::Volume(VolumeId::new("csi-0a1b"))),
        ] {
            assert_eq!(text.parse::<RenewTarget>().as_ref(), Ok(&target));
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "/", "shop/", "/web-0", "a/b/c", "--everything", "a b", "a\nb", &"x".repeat(400)] {
            assert!(text.parse::<RenewTarget>().is_err(), "{text}");
        }
        assert!(
            pod.names(&VolumeId::new("v"), "shop", "web-0")
                && !pod.names(&VolumeId::new("v"), "shop", "web-1")
        );
    }
}
