//! Envoy's Secret Discovery Service: certificate and key, and trust bundles, as secrets (Envoy's API v3).

mod secrets;
mod subscription;
#[cfg(test)]
mod tests;

pub(super) use secrets::{SPIFFE_VALIDATOR, SPIFFE_VALIDATOR_TYPE, TYPE_URL};

use super::socket::{Caller, Outlet, updates};
use crate::credential::{Current, Follower};
use crate::model::SecretNames;
use crate::proto::xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::proto::xds::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use crate::telemetry::Metrics;
use std::sync::Arc;
use subscription::{Delta, StateOfTheWorld, Subscription, check_names, check_type, response, version_of};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// The service, for all volumes.
pub(super) struct Sds {
    names: Arc<SecretNames>,
    metrics: Arc<Metrics>,
}

impl Sds {
    pub(super) fn new(names: SecretNames, metrics: Arc<Metrics>) -> Self {
        Self { names: Arc::new(names), metrics }
    }

    /// Answers a stream of requests.
    async fn stream<S: Subscription>(
        &self,
        request: Request<Streaming<S::Request>>,
    ) -> Result<Response<BoxStream<S::Response>>, Status> {
        let caller = Caller::of(&request).await?;
        let permit = caller.stream()?;
        let stream = Stream::<S> {
            subscription: S::default(),
            requests: request.into_inner(),
            follower: caller.follow().await?,
            caller: caller.clone(),
            names: Arc::clone(&self.names),
            metrics: Arc::clone(&self.metrics),
        };
        let messages = updates(caller, permit, |outlet| async move {
            // A client that half-closes its stream gets no more secrets.
            stream.run(outlet).await.err().unwrap_or_else(|| Status::ok("the client has ended the stream"))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

/// One stream of a client.
struct Stream<S: Subscription> {
    subscription: S,
    requests: Streaming<S::Request>,
    follower: Follower,
    caller: Caller,
    names: Arc<SecretNames>,
    metrics: Arc<Metrics>,
}

impl<S: Subscription> Stream<S> {
    /// Sends what is new after each request and each change of the credential. Before the first certificate the client waits.
    async fn run(mut self, outlet: Outlet<S::Response>) -> Result<(), Status> {
        loop {
            tokio::select! {
                request = self.requests.message() => match request? {
                    Some(request) => self.receive(request).await?,
                    None => return Ok(()),
                },
                is_there = self.follower.changed() => if !is_there {
                    return Err(Status::unavailable("the volume is unmounted"));
                },
            }
            if let Some(current) = self.follower.published().current
                && let Some(message) = self.subscription.next(&self.names, &current)?
            {
                outlet.send(message).await?;
            }
        }
    }

    async fn receive(&mut self, request: S::Request) -> Result<(), Status> {
        self.caller.pace().await;
        if let Some(rejection) = self.subscription.receive(request)? {
            self.metrics.secret_rejected();
            self.caller.secret_rejected(&rejection);
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DiscoveryResponse>>, Status> {
        self.stream::<StateOfTheWorld>(request).await
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DeltaDiscoveryResponse>>, Status> {
        self.stream::<Delta>(request).await
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let caller = Caller::of(&request).await?;
        let _stream = caller.stream()?;
        let DiscoveryRequest { resource_names, type_url, .. } = request.into_inner();
        check_type(&type_url)?;
        check_names(&resource_names)?;
        let published = caller.follow().await?.published();
        let current: Current = published
            .current
            .ok_or_else(|| Status::unavailable("the first certificate is not issued yet: try again"))?;
        let secrets = self.names.secrets(&resource_names, &current)?;
        Ok(Response::new(response(version_of(&secrets), &secrets, &current, String::new())?))
    }
}
