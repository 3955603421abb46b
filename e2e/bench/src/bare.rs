//! The bare client: creates CertificateRequests and learns of their certificates through one watch. The requests have owner
//! references and labels as a driver's requests have, so that the API server has the same work with each.

use crate::Failure;
use crate::load::{Load, Measured};
use base64ct::{Base64, Encoding};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::process::Command;
use tokio::sync::oneshot;

/// The label that the watch selects.
const NODE: (&str, &str) = ("example.org/node", "bare");

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>;

pub(crate) fn api(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest");
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind))
}

/// Requests `load.count` certificates, and deletes the requests afterwards.
pub(crate) async fn measure(
    client: &Client,
    namespace: &str,
    issuer: &str,
    pods: &[Pod],
    load: Load,
) -> Result<Measured, Failure> {
    let api = api(client, namespace);
    let request = signing_request().await?;
    let waiting = Waiting::default();
    let version = api
        .list_metadata(&ListParams::default().limit(1))
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    let watching = tokio::spawn(watch(api.clone(), version, Arc::clone(&waiting)));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest"));
    let measured = load
        .run(async |n| {
            let name = format!("bare-{n}");
            let (ready, signed) = oneshot::channel();
            waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), ready);
            let mut object = DynamicObject::new(&name, &kind).data(json!({ "spec": {
                "request": request, "issuerRef": { "kind": "ClusterIssuer", "name": issuer },
                "duration": "1h", "usages": ["digital signature", "key encipherment"],
            }}));
            let uid = pods[n].uid().unwrap_or_default();
            object.metadata.owner_references = pods[n].owner_ref(&()).map(|owner| vec![owner]);
            object
                .labels_mut()
                .extend([NODE, ("example.org/volume", &uid)].map(|(k, v)| (k.to_owned(), v.to_owned())));
            object.annotations_mut().insert("example.org/volume-id".to_owned(), format!("csi-{uid}"));
            api.create(&PostParams::default(), &object).await?;
            Ok(signed.await?)
        })
        .await?;
    watching.abort();
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    Ok(measured)
}

async fn watch(api: Api<DynamicObject>, version: String, waiting: Waiting) -> Result<(), Failure> {
    let mut events =
        api.watch(&WatchParams::default().labels(&format!("{}={}", NODE.0, NODE.1)), &version).await?.boxed();
    while let Some(event) = events.next().await {
        if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event?
            && object.data["status"]["certificate"].is_string()
            && let Some(ready) =
                waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&object.name_any())
        {
            let _gone = ready.send(());
        }
    }
    Ok(())
}

/// Makes one signing request for all certificates. The issuer's work is the same, and no key is made during the measurement.
async fn signing_request() -> Result<String, Failure> {
    let arguments =
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bare -keyout /dev/null";
    let made = Command::new("openssl").args(arguments.split(' ')).stderr(Stdio::null()).output().await?;
    Ok(Base64::encode_string(&made.stdout))
}
