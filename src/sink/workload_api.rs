//! The SPIFFE Workload API (`SPIFFE_Workload_API.md`, `SPIFFE_Workload_Endpoint.md`): X.509-SVIDs and their trust bundles.

use super::socket::{Caller, updates};
use super::trust_domains::{federated, trust_domain_id};
use crate::credential::{Current, Published};
use crate::proto::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use crate::proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};
use crate::trust::TrustBundle;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// The metadata that every call carries, so that no other program can be made to call (SPIFFE Workload Endpoint, section 3).
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Bytes of all CRLs of a message. Clients refuse messages of more than 4 MiB, which is the default of gRPC.
const MAX_CRL_BYTES: usize = 3 << 20;

const NO_JWT: &str = "certlet serves X.509-SVIDs only: its signers sign certificates and no JWT";
const NO_WIT: &str = "certlet serves X.509-SVIDs only: its signers sign certificates and no WIT";

/// The service, for all volumes.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkloadApi;

/// Who calls, if the call carries the security header.
async fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let header = request.metadata().get(SECURITY_HEADER).and_then(|value| value.to_str().ok());
    if header != Some("true") {
        return Err(Status::invalid_argument(format!(
            "the metadata {SECURITY_HEADER} is missing; accepted: {SECURITY_HEADER}: true"
        )));
    }
    Caller::of(request).await
}

/// Answers with the message of what is published now, and then of everything that is published later. `has_changed` says whether a
/// change concerns this method.
async fn follow<T: Send + 'static>(
    caller: Caller,
    message: fn(&Published) -> Result<T, Status>,
    has_changed: fn(&Current, &Current) -> bool,
) -> Result<Response<BoxStream<T>>, Status> {
    let permit = caller.stream()?;
    let mut follower = caller.follow().await?;
    let mut sent = follower.published();
    let first = message(&sent)?;
    let messages = updates(caller, permit, move |outlet| async move {
        let following = async {
            outlet.send(first).await?;
            while follower.changed().await {
                let published = follower.published();
                let is_new = match (&sent.current, &published.current) {
                    (Some(before), Some(now)) => has_changed(before, now),
                    _ => true,
                };
                if is_new {
                    outlet.send(message(&published)?).await?;
                }
                sent = published;
            }
            Ok(())
        };
        let ended: Result<(), Status> = following.await;
        ended.err().unwrap_or_else(|| Status::unavailable("the volume is unmounted"))
    });
    Ok(Response::new(Box::pin(messages)))
}

/// The workload's SPIFFE ID with its credential and trust bundle.
fn identity(published: &Published) -> Result<(&str, &Current), Status> {
    let current = published
        .current
        .as_ref()
        .ok_or_else(|| Status::unavailable("the first certificate is not issued yet: try again"))?;
    let id = current.credential.facts.spiffe_id().ok_or_else(|| {
        Status::permission_denied(
            "the certificate of this volume has no SPIFFE ID: set the attribute spiffe, or uri-sans to a SPIFFE ID",
        )
    })?;
    if current.trust.anchors.is_empty() {
        return Err(Status::unavailable(
            "the signer named no trust anchors, without which no SPIFFE client can use the certificate",
        ));
    }
    Ok((id, current))
}

fn svids(published: &Published) -> Result<X509svidResponse, Status> {
    let (id, current) = identity(published)?;
    let Current { credential, trust } = current;
    let svid = X509svid {
        spiffe_id: id.to_owned(),
        x509_svid: credential.chain().collect::<Vec<_>>().concat(),
        x509_svid_key: credential.key.to_pkcs8_der().to_vec(),
        bundle: trust.anchors.concat(),
        hint: String::new(),
    };
    Ok(X509svidResponse { svids: vec![svid], crl: crls(trust), federated_bundles: of_federated(current) })
}

fn bundles(published: &Published) -> Result<X509BundlesResponse, Status> {
    let (id, current) = identity(published)?;
    let mut bundles = of_federated(current);
    bundles.insert(trust_domain_id(id).to_owned(), current.trust.anchors.concat());
    Ok(X509BundlesResponse { crl: crls(&current.trust), bundles })
}

/// The CRLs, if the message stays so small that every client takes it.
fn crls(trust: &TrustBundle) -> Vec<Vec<u8>> {
    let bytes: usize = trust.crls.iter().map(|crl| crl.der().len()).sum();
    if bytes > MAX_CRL_BYTES {
        return Vec::new();
    }
    trust.crls.iter().map(|crl| crl.der().to_vec()).collect()
}

/// The anchors of other trust domains, by the SPIFFE IDs of these.
fn of_federated(current: &Current) -> HashMap<String, Vec<u8>> {
    federated(current).map(|(domain, anchors)| (domain.id(), anchors.concat())).collect()
}

fn other_trust_bundle(before: &Current, now: &Current) -> bool {
    let same = |one: &Arc<TrustBundle>, other: &Arc<TrustBundle>| Arc::ptr_eq(one, other) || one == other;
    !same(&before.trust, &now.trust)
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<BoxStream<X509svidResponse>>, Status> {
        follow(caller(&request).await?, svids, |_, _| true).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<BoxStream<X509BundlesResponse>>, Status> {
        follow(caller(&request).await?, bundles, other_trust_bundle).await
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        caller(&request).await?;
        Err(Status::unimplemented(NO_JWT))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<BoxStream<JwtBundlesResponse>>, Status> {
        caller(&request).await?;
        Err(Status::unimplemented(NO_JWT))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        caller(&request).await?;
        Err(Status::unimplemented(NO_JWT))
    }

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<BoxStream<WitsvidResponse>>, Status> {
        caller(&request).await?;
        Err(Status::unimplemented(NO_WIT))
    }

    async fn fetch_wit_bundles(
        &self,
        request: Request<WitBundlesRequest>,
    ) -> Result<Response<BoxStream<WitBundlesResponse>>, Status> {
        caller(&request).await?;
        Err(Status::unimplemented(NO_WIT))
    }
}
