//! CSI's Node service, as far as an ephemeral inline volume needs it.

use super::CsiServer;
use super::request::{self, InvalidPublish};
use super::status::{code_name, status};
use crate::attributes::{self, VolumeContext};
use crate::proto::csi::node_server::Node;
use crate::proto::csi::node_service_capability::{Rpc, Type, rpc};
use crate::proto::csi::volume_usage::Unit;
use crate::proto::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, VolumeCondition, VolumeUsage,
};
use crate::store::Usage;
use crate::telemetry::Metrics;
use crate::volume::{InUse, PublishRequest, RefusedPublish};
use std::time::Instant;
use tonic::{Code, Request, Response, Status};

/// One CSI call. It is counted when dropped, because a caller that goes away drops the call without an answer.
struct Call<'a> {
    metrics: &'a Metrics,
    method: &'static str,
    volume: String,
    pod: [Option<String>; 2],
    started: Instant,
    code: Code,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.metrics.csi_call(self.method, code_name(self.code), self.started.elapsed());
    }
}

impl Call<'_> {
    /// Runs the call and logs names and result. Requests carry tokens and passwords, and are never logged.
    async fn run<T>(mut self, call: impl Future<Output = Result<T, Status>>) -> Result<Response<T>, Status> {
        let result = call.await;
        self.code = result.as_ref().err().map_or(Code::Ok, Status::code);
        let Self { method, volume, pod: [namespace, pod], .. } = &self;
        let elapsed_seconds = self.started.elapsed().as_secs_f64();
        match &result {
            Ok(_) => tracing::debug!(method, volume, namespace, pod, elapsed_seconds, "CSI call succeeded"),
            // The kubelet asks for stats once a minute, also of volumes of another driver.
            Err(error) if error.code() == Code::NotFound => {
                tracing::debug!(method, volume, error = error.message(), "volume not found");
            }
            Err(error) => tracing::warn!(
                method,
                volume,
                namespace,
                pod,
                code = code_name(self.code),
                error = error.message(),
                elapsed_seconds,
                "CSI call failed"
            ),
        }
        result.map(Response::new)
    }
}

impl CsiServer {
    fn call(&self, method: &'static str, volume: &str, pod: [Option<String>; 2]) -> Call<'_> {
        Call {
            metrics: &self.metrics,
            method,
            volume: volume.to_owned(),
            pod,
            started: Instant::now(),
            code: Code::Cancelled,
        }
    }

    async fn publish(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<NodePublishVolumeResponse, Status> {
        match request::publish(request, &self.defaults).and_then(|request| self.check_secret(request)) {
            Ok(request) => self.volumes.publish(request).await.map_err(|error| status(&error))?,
            Err(invalid) => self.reject(invalid).await?,
        }
        Ok(NodePublishVolumeResponse {})
    }

    /// Checks the keystore's password from the Secret. A volume keeps the one of its first publish, whatever becomes of the Secret.
    fn check_secret(&self, mut request: PublishRequest) -> Result<PublishRequest, InvalidPublish> {
        match attributes::check_secret(&request.spec, &request.context) {
            Ok(()) => Ok(request),
            Err(_) if self.volumes.has_password(&request.volume) => {
                request.context.keystore_password = None;
                Ok(request)
            }
            Err(faults) => {
                let PublishRequest { volume, target, context, .. } = request;
                let refused = RefusedPublish { volume, target, context: Some(context) };
                Err(InvalidPublish::of_attributes(&faults, refused))
            }
        }
    }

    /// Rejects an invalid publish, but not for a volume in use: an error could make the kubelet unmount the volume of a
    /// running pod (kubernetes#121271). An earlier build, or the previous driver of this name, may have accepted the
    /// attributes.
    async fn reject(&self, InvalidPublish { status, refused }: InvalidPublish) -> Result<(), Status> {
        let Some(refused) = refused else { return Err(status) };
        let (volume, target) = (refused.volume.clone(), refused.target.clone());
        let (target, error) = (target.display(), status.message());
        match self.volumes.republish_refused(*refused).await {
            InUse::Nothing => return Err(status),
            InUse::Renewed => tracing::warn!(
                %volume, %target, error,
                "published again with attributes that are not accepted; the volume goes on with those that it has"
            ),
            InUse::NotRenewed => tracing::warn!(
                %volume, %target, error,
                "published again with attributes that are not accepted; the volume stays as it is, and is not renewed"
            ),
        }
        Ok(())
    }

    async fn unpublish(
        &self,
        request: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Status> {
        let volume = request::volume_id(request.volume_id)?;
        let target = request::path("target_path", request.target_path)?;
        self.volumes.unpublish(volume, target).await.map_err(|error| status(&error))?;
        Ok(NodeUnpublishVolumeResponse {})
    }

    async fn stats(&self, request: NodeGetVolumeStatsRequest) -> Result<NodeGetVolumeStatsResponse, Status> {
        let volume = request::volume_id(request.volume_id)?;
        request::required("volume_path", &request.volume_path)?;
        // An unknown volume is not found, whatever its path is.
        self.volumes.check_known(&volume).map_err(|error| status(&error))?;
        let target = request::path("volume_path", request.volume_path)?;
        let stats = self.volumes.stats(volume, target).await.map_err(|error| status(&error))?;
        Ok(NodeGetVolumeStatsResponse {
            usage: usage(&stats.usage),
            volume_condition: Some(VolumeCondition {
                abnormal: stats.condition.abnormal,
                message: stats.condition.message,
            }),
        })
    }
}

/// The volume's own usage; total and available are those of the store, which all volumes share.
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

#[tonic::async_trait]
impl Node for CsiServer {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let NodePublishVolumeRequest { volume_id, volume_context, .. } = request.get_ref();
        let call = self.call("NodePublishVolume", volume_id, VolumeContext::pod_of(volume_context));
        call.run(self.publish(request)).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call("NodeUnpublishVolume", &request.volume_id, [None, None]).run(self.unpublish(request)).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        self.call("NodeGetVolumeStats", &request.volume_id, [None, None]).run(self.stats(request)).await
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
        // Zero: the driver sets no limit on volumes per node.
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.driver.node_id.clone(),
            max_volumes_per_node: 0,
        }))
    }
}
