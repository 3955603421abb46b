//! CSI's Node service: what an ephemeral inline volume needs of it.

use super::Driver;
use super::request::{self, Refused};
use super::status::{code_name, status};
use crate::attributes::VolumeContext;
use crate::lifecycle::Lifecycle;
use crate::proto::csi::node_server::Node as NodeService;
use crate::proto::csi::node_service_capability::{Rpc, Type, rpc};
use crate::proto::csi::volume_usage::Unit;
use crate::proto::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeCondition, VolumeUsage,
};
use crate::store::Usage;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Request, Response, Status};

pub(super) struct Node {
    pub(super) driver: Driver,
    pub(super) lifecycle: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
}

/// What a call is about.
struct Subject {
    method: &'static str,
    volume: String,
    namespace: Option<String>,
    pod: Option<String>,
}

impl Subject {
    fn of(method: &'static str, volume: &str) -> Self {
        Self { method, volume: volume.to_owned(), namespace: None, pod: None }
    }
}

/// Counts when it goes: a call whose caller has gone away never says so itself.
struct Outcome<'a> {
    metrics: &'a Metrics,
    method: &'static str,
    started: Instant,
    code: Code,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.metrics.csi_call(self.method, code_name(self.code), self.started.elapsed());
    }
}

impl Node {
    /// Counts and logs a call. Only names and the outcome: requests carry tokens and passwords, and are never logged.
    async fn observed<T>(
        &self,
        subject: Subject,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let Subject { method, volume, namespace, pod } = subject;
        let mut outcome =
            Outcome { metrics: &self.metrics, method, started: Instant::now(), code: Code::Cancelled };
        let result = call.await;
        let took = outcome.started.elapsed();
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        outcome.code = code;
        match &result {
            Ok(_) => {
                tracing::debug!(
                    method,
                    volume,
                    namespace,
                    pod,
                    elapsed_seconds = took.as_secs_f64(),
                    "answered"
                );
            }
            // The kubelet asks once a minute, of volumes too that were left to another driver.
            Err(error) if code == Code::NotFound => {
                tracing::debug!(method, volume, error = error.message(), "not known");
            }
            Err(error) => tracing::warn!(
                method,
                volume,
                namespace,
                pod,
                code = code_name(code),
                error = error.message(),
                elapsed_seconds = took.as_secs_f64(),
                "refused"
            ),
        }
        result.map(Response::new)
    }

    async fn publish(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<NodePublishVolumeResponse, Status> {
        let request = match request::publish(request) {
            Ok(request) => request,
            Err(refused) => return self.refuse(refused).await,
        };
        self.lifecycle.publish(request).await.map_err(|error| status(&error))?;
        Ok(NodePublishVolumeResponse {})
    }

    /// An error could make the kubelet take the mount away from a running pod (kubernetes#121271). What an earlier build,
    /// or the driver that had this name before, took from the pod's author stays as it is.
    async fn refuse(&self, refused: Refused) -> Result<NodePublishVolumeResponse, Status> {
        let Refused { status, about } = refused;
        if let Some((volume, target)) = about
            && self.lifecycle.is_in_use(&volume, &target).await
        {
            tracing::warn!(
                %volume, target = %target.display(), error = status.message(),
                "published again with attributes that are not accepted; the volume stays as it is, and is not renewed"
            );
            return Ok(NodePublishVolumeResponse {});
        }
        Err(status)
    }

    async fn unpublish(
        &self,
        request: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Status> {
        let volume = request::volume_id(request.volume_id)?;
        let target = request::path("target_path", request.target_path)?;
        self.lifecycle.unpublish(volume, target).await.map_err(|error| status(&error))?;
        Ok(NodeUnpublishVolumeResponse {})
    }

    async fn stats(&self, request: NodeGetVolumeStatsRequest) -> Result<NodeGetVolumeStatsResponse, Status> {
        let volume = request::volume_id(request.volume_id)?;
        let target = request::path("volume_path", request.volume_path)?;
        let stats = self.lifecycle.stats(volume, target).await.map_err(|error| status(&error))?;
        Ok(NodeGetVolumeStatsResponse {
            usage: usage(&stats.usage),
            volume_condition: Some(VolumeCondition {
                abnormal: stats.condition.abnormal,
                message: stats.condition.message,
            }),
        })
    }
}

/// What the volume uses, of what the store that all volumes share can hold.
fn usage(usage: &Usage) -> Vec<VolumeUsage> {
    let amount = |counts: [u64; 3], unit: Unit| {
        let [available, total, used] = counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        VolumeUsage { available, total, used, unit: unit.into() }
    };
    vec![
        amount([usage.available_bytes, usage.total_bytes, usage.volume_bytes], Unit::Bytes),
        amount([usage.available_inodes, usage.total_inodes, usage.volume_inodes], Unit::Inodes),
    ]
}

fn not_offered<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{what}: not offered by this driver")))
}

#[tonic::async_trait]
impl NodeService for Node {
    async fn node_stage_volume(
        &self,
        _request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        not_offered("NodeStageVolume")
    }

    async fn node_unstage_volume(
        &self,
        _request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        not_offered("NodeUnstageVolume")
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let NodePublishVolumeRequest { volume_id, volume_context, .. } = request.get_ref();
        let [namespace, pod] = VolumeContext::pod_of(volume_context).map(|name| name.map(str::to_owned));
        let subject = Subject { namespace, pod, ..Subject::of("NodePublishVolume", volume_id) };
        self.observed(subject, self.publish(request)).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let subject = Subject::of("NodeUnpublishVolume", &request.get_ref().volume_id);
        self.observed(subject, self.unpublish(request.into_inner())).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let subject = Subject::of("NodeGetVolumeStats", &request.get_ref().volume_id);
        self.observed(subject, self.stats(request.into_inner())).await
    }

    async fn node_expand_volume(
        &self,
        _request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        not_offered("NodeExpandVolume")
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let offered = [rpc::Type::VolumeMountGroup, rpc::Type::GetVolumeStats, rpc::Type::VolumeCondition];
        let capabilities = offered
            .into_iter()
            .map(|offered| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: offered.into() })) })
            .collect();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        // No limit of our own on volumes per node: zero leaves it to the orchestrator.
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.driver.node_id.clone(),
            max_volumes_per_node: 0,
        }))
    }
}
