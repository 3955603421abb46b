//! How many volumes a pod and a namespace have on this node, and how many they may have.

use crate::model::{Failure, FailureKind, WorkloadIdentity};
use crate::platform::Tally;
use parking_lot::Mutex;
use std::sync::Arc;

/// The volumes of each pod and of each namespace, counted.
#[derive(Debug)]
pub(super) struct VolumeCounts {
    limits: [Limit; 2],
    counts: Mutex<Tally<Owner>>,
}

/// Whose volumes are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Pod(Arc<str>),
    Namespace(Arc<str>),
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    flag: &'static str,
    volumes: usize,
}

/// One volume, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Arc<VolumeCounts>,
    owners: [Owner; 2],
}

impl VolumeCounts {
    /// At most so many volumes of one pod and of one namespace; 0 for no limit.
    pub(super) fn new(per_pod: usize, per_namespace: usize) -> Arc<Self> {
        let limit =
            |flag, volumes: usize| Limit { flag, volumes: if volumes == 0 { usize::MAX } else { volumes } };
        let limits =
            [limit("--max-volumes-per-pod", per_pod), limit("--max-volumes-per-namespace", per_namespace)];
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Counts a new volume, or says which limit is reached.
    pub(super) fn admit(self: &Arc<Self>, pod: &WorkloadIdentity) -> Result<Counted, Failure> {
        let counted = self.count(pod);
        let counts = self.counts.lock();
        let reached = counted.owners.iter().zip(self.limits).find(|(owner, limit)| {
            // The new one is among them.
            counts.of(*owner) > limit.volumes
        });
        let Some((owner, Limit { flag, volumes })) = reached else {
            drop(counts);
            return Ok(counted);
        };
        let message = match owner {
            Owner::Pod(_) => format!(
                "pod {} has {volumes} volumes of this driver, as many as {flag} allows; accepted: fewer volumes in the pod, \
                 or a larger {flag}",
                pod.name
            ),
            Owner::Namespace(namespace) => format!(
                "namespace {namespace} has {volumes} volumes of this driver on this node, as many as {flag} allows; \
                 accepted: fewer pods with such volumes on this node, or a larger {flag}"
            ),
        };
        drop(counts);
        Err(Failure::new(FailureKind::Full, message))
    }

    /// Counts a volume that is there already, whatever the limits.
    pub(super) fn count(self: &Arc<Self>, pod: &WorkloadIdentity) -> Counted {
        let owners = [Owner::Pod(pod.uid.as_str().into()), Owner::Namespace(pod.namespace.as_str().into())];
        let mut counts = self.counts.lock();
        for owner in &owners {
            counts.add(owner.clone());
        }
        drop(counts);
        Counted { counts: Arc::clone(self), owners }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.counts.lock();
        for owner in &self.owners {
            counts.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, uid: &str) -> WorkloadIdentity {
        WorkloadIdentity {
            namespace: namespace.into(),
            name: "web-0".into(),
            uid: uid.into(),
            service_account: "web".into(),
        }
    }

    #[test]
    fn a_pod_and_a_namespace_have_so_many_volumes_and_no_more() {
        let counts = VolumeCounts::new(2, 3);
        let mut volumes: Vec<_> = (0..2).map(|_| counts.admit(&pod("shop", "a")).unwrap()).collect();
        let full = counts.admit(&pod("shop", "a")).unwrap_err();
        assert_eq!(full.kind, FailureKind::Full);
        assert!(full.message.contains("pod web-0 has 2 volumes"), "{full}");
        assert!(full.message.contains("--max-volumes-per-pod"), "{full}");
        volumes.push(counts.admit(&pod("shop", "b")).unwrap());
        let full = counts.admit(&pod("shop", "c")).unwrap_err().message;
        assert!(
            full.contains("namespace shop has 3") && full.contains("--max-volumes-per-namespace"),
            "{full}"
        );
        counts.admit(&pod("other", "d")).unwrap();
        volumes.pop();
        counts.admit(&pod("shop", "c")).unwrap();
        drop(volumes);
        assert!(counts.counts.lock().is_empty());
    }

    #[test]
    fn volumes_that_are_there_are_counted_whatever_the_limits() {
        let counts = VolumeCounts::new(1, 0);
        let adopted = [(); 3].map(|()| counts.count(&pod("shop", "a")));
        assert!(counts.admit(&pod("shop", "a")).is_err());
        counts.admit(&pod("shop", "b")).unwrap();
        drop(adopted);
        counts.admit(&pod("shop", "a")).unwrap();
    }
}
