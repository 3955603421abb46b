//! What one stream of SDS subscribes to, and what is still to be sent: the rules of the xDS protocol on nonces and versions. Pure.

use super::secrets::{NamedSecret, TYPE_URL};
use crate::credential::Current;
use crate::model::SecretNames;
use crate::model::{clipped, fingerprint, shown};
use crate::proto::xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use crate::proto::xds::google::rpc;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;

/// Secrets of one stream.
const MAX_NAMES: usize = 16;
/// Bytes that are kept of what an Envoy says of a secret.
const MAX_REJECTION: usize = 512;

/// The two variants of the protocol, which differ in their messages.
pub(super) trait Subscription: Default + Send + 'static {
    /// What the client sends.
    type Request: Send + 'static;
    /// What it gets.
    type Response: Send + 'static;

    /// Takes a message of the client. Returns what it says of a secret that it does not accept.
    fn receive(&mut self, request: Self::Request) -> Result<Option<String>, Status>;

    /// The next message, if something is new to the client.
    fn next(&mut self, names: &SecretNames, current: &Current) -> Result<Option<Self::Response>, Status>;
}

/// State of the world: each response has all secrets of the subscription.
#[derive(Debug, Default)]
pub(super) struct StateOfTheWorld {
    names: Vec<String>,
    /// Whether a request was received.
    is_subscribed: bool,
    /// Whether the next response is sent although the secrets are the same, because others are asked for.
    is_asked: bool,
    sent: u64,
    version: String,
}

impl Subscription for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn receive(&mut self, request: DiscoveryRequest) -> Result<Option<String>, Status> {
        check_type(&request.type_url)?;
        check_names(&request.resource_names)?;
        if !request.response_nonce.is_empty() && request.response_nonce != self.sent.to_string() {
            // The answer to a response that another one has replaced.
            return Ok(None);
        }
        if !self.is_subscribed || self.names != request.resource_names {
            self.is_asked = true;
        }
        self.is_subscribed = true;
        self.names = request.resource_names;
        Ok(rejection(request.error_detail))
    }

    fn next(&mut self, names: &SecretNames, current: &Current) -> Result<Option<DiscoveryResponse>, Status> {
        if !self.is_subscribed {
            return Ok(None);
        }
        let secrets = names.secrets(&self.names, current)?;
        let version = version_of(&secrets);
        if !self.is_asked && version == self.version {
            return Ok(None);
        }
        self.sent += 1;
        self.is_asked = false;
        self.version.clone_from(&version);
        response(version, &secrets, current, self.sent.to_string()).map(Some)
    }
}

/// A response with all of these secrets.
pub(super) fn response(
    version_info: String,
    secrets: &[NamedSecret],
    current: &Current,
    nonce: String,
) -> Result<DiscoveryResponse, Status> {
    Ok(DiscoveryResponse {
        version_info,
        resources: secrets.iter().map(|secret| secret.encoded(current)).collect::<Result<_, _>>()?,
        type_url: TYPE_URL.to_owned(),
        nonce,
    })
}

/// The version of all of these secrets together.
pub(super) fn version_of(secrets: &[NamedSecret]) -> String {
    let parts: Vec<&[u8]> =
        secrets.iter().flat_map(|secret| [secret.name.as_bytes(), secret.version.as_bytes()]).collect();
    fingerprint(&parts)
}

/// Incremental: a response has only the secrets that are new to the client.
#[derive(Debug, Default)]
pub(super) struct Delta {
    is_subscribed: bool,
    /// Whether it subscribes to all secrets.
    is_wildcard: bool,
    names: BTreeSet<String>,
    /// The version that the client has of each secret.
    versions: BTreeMap<String, String>,
    sent: u64,
}

/// The name that stands for all secrets.
const WILDCARD: &str = "*";

impl Subscription for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn receive(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<String>, Status> {
        check_type(&request.type_url)?;
        let DeltaDiscoveryRequest { resource_names_subscribe: subscribe, resource_names_unsubscribe, .. } =
            request;
        check_names(&subscribe)?;
        if self.is_subscribed {
            // A secret that is asked for again is sent again.
            for name in &subscribe {
                self.versions.remove(name);
            }
        } else {
            self.is_wildcard = subscribe.is_empty();
            check_names(request.initial_resource_versions.keys())?;
            self.versions = request.initial_resource_versions.into_iter().collect();
        }
        self.is_subscribed = true;
        for name in subscribe {
            if name == WILDCARD {
                self.is_wildcard = true;
            } else {
                self.names.insert(name);
            }
        }
        for name in resource_names_unsubscribe {
            self.is_wildcard &= name != WILDCARD;
            self.names.remove(&name);
            self.versions.remove(&name);
        }
        check_names(&self.names)?;
        Ok(rejection(request.error_detail))
    }

    fn next(
        &mut self,
        names: &SecretNames,
        current: &Current,
    ) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let mut secrets = Vec::new();
        if self.is_wildcard {
            secrets.extend(names.secrets(&[], current)?);
        }
        if !self.names.is_empty() {
            let asked: Vec<String> = self.names.iter().cloned().collect();
            secrets.extend(names.secrets(&asked, current)?);
        }
        let is_served = |name: &String| secrets.iter().any(|secret| secret.name == *name);
        // The trust domain of one that is not named can be removed by the operator.
        let removed: Vec<String> = if self.is_wildcard {
            self.versions.extract_if(.., |name, _| !is_served(name)).map(|(name, _)| name).collect()
        } else {
            Vec::new()
        };
        secrets.retain(|secret| self.versions.get(&secret.name) != Some(&secret.version));
        if secrets.is_empty() && removed.is_empty() {
            return Ok(None);
        }
        self.sent += 1;
        for secret in &secrets {
            self.versions.insert(secret.name.clone(), secret.version.clone());
        }
        Ok(Some(DeltaDiscoveryResponse {
            system_version_info: version_of(&secrets),
            resources: secrets
                .into_iter()
                .map(|secret| resource(secret, current))
                .collect::<Result<_, _>>()?,
            type_url: TYPE_URL.to_owned(),
            nonce: self.sent.to_string(),
            removed_resources: removed,
        }))
    }
}

fn resource(secret: NamedSecret, current: &Current) -> Result<Resource, Status> {
    let resource = Some(secret.encoded(current)?);
    let NamedSecret { name, version, .. } = secret;
    Ok(Resource { version, resource, name })
}

pub(super) fn check_type(type_url: &str) -> Result<(), Status> {
    if type_url.is_empty() || type_url == TYPE_URL {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("type_url {} is not served; accepted: {TYPE_URL}", shown(type_url))))
}

pub(super) fn check_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<(), Status> {
    match names.into_iter().count() {
        0..=MAX_NAMES => Ok(()),
        count => Err(Status::invalid_argument(format!(
            "resource_names has {count} names; accepted: at most {MAX_NAMES}"
        ))),
    }
}

/// What an Envoy says of a secret that it does not accept, cut.
fn rejection(detail: Option<rpc::Status>) -> Option<String> {
    detail.map(|status| clipped(&status.message, MAX_REJECTION))
}
