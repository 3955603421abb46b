//! The startup taint: it keeps pods off a node until the driver is ready.

use super::{CallError, Caller, Cluster};
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    taints: Vec<Value>,
}

/// Removes all taints with this key from the node. True: there was one.
pub(crate) async fn remove_startup_taint(
    cluster: &Cluster,
    node: &str,
    key: &str,
) -> Result<bool, CallError> {
    let nodes = Request::new("/api/v1/nodes");
    let Node { metadata, spec } =
        cluster.read(Caller::Driver, nodes.get(node, &GetParams::default())).await?;
    let others: Vec<&Value> = spec.taints.iter().filter(|taint| taint["key"] != key).collect();
    if others.len() == spec.taints.len() {
        return Ok(false);
    }
    // With the version that was read, so that a concurrent change of the taints is a conflict and the caller retries.
    let patch =
        json!({ "metadata": { "resourceVersion": metadata.resource_version }, "spec": { "taints": others } });
    let patch = nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch));
    cluster.call(Caller::Driver, patch).await?;
    Ok(true)
}
