//! The address of a pod, for `${POD_IP}` in `ip-sans`.

use super::gate::{GateBackoff, read_pod};
use crate::kube::Cluster;
use crate::model::{Failure, WorkloadIdentity, jitter};
use crate::signer::PodAddresses;
use futures_util::future::BoxFuture;
use std::net::IpAddr;

/// Reads pods from the API server.
pub struct PodReader {
    cluster: Cluster,
    backoff: GateBackoff,
}

impl PodReader {
    /// Reads from this cluster. While a pod has no address, the pauses are those of the readiness gates.
    pub fn new(cluster: Cluster, backoff: GateBackoff) -> Self {
        Self { cluster, backoff }
    }

    async fn read(&self, identity: &WorkloadIdentity, attempts: u32) -> Result<IpAddr, Failure> {
        let pod = read_pod(&self.cluster, &[], identity, "").await?;
        // A pod of a StatefulSet has the name of the one before it.
        if pod.uid != identity.uid {
            return Err(Failure::transient(format!(
                "the pod {}/{} is another one now, and its address is not asked for",
                identity.namespace, identity.name
            )));
        }
        pod.address.ok_or_else(|| {
            let pause = self.backoff.pause(attempts, jitter(&identity.uid, &attempts.to_be_bytes()));
            let message = "no certificate is asked for yet: the pod has no IP address yet, which ip-sans names by ${POD_IP}";
            Failure::not_ready(message, pause)
        })
    }
}

impl PodAddresses for PodReader {
    fn primary<'a>(
        &'a self,
        pod: &'a WorkloadIdentity,
        attempts: u32,
    ) -> BoxFuture<'a, Result<IpAddr, Failure>> {
        Box::pin(self.read(pod, attempts))
    }
}
