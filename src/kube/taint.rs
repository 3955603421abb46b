//! The startup taint: it keeps pods off a node until the driver is ready.

use super::{CallError, Caller, Cluster};
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// What is read of a node: its images alone can be thousands of small objects.
#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    taints: Vec<Taint>,
}

/// A taint with all its fields, which are texts: the other taints are written back as they are.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct Taint(BTreeMap<String, String>);

/// Removes all taints with this key from the node. Returns whether there was one.
pub(crate) async fn remove_startup_taint(
    cluster: &Cluster,
    node: &str,
    key: &str,
) -> Result<bool, CallError> {
    let nodes = Request::new("/api/v1/nodes");
    let found: Node = cluster.read(Caller::Driver, nodes.get(node, &GetParams::default())).await?;
    let Some(version) = found.metadata.resource_version else {
        return Err(CallError::Unreadable("the node has no resourceVersion".to_owned()));
    };
    let taints = found.spec.taints;
    let is_other = |taint: &&Taint| taint.0.get("key").is_none_or(|found| found != key);
    let others: Vec<&Taint> = taints.iter().filter(is_other).collect();
    if others.len() == taints.len() {
        return Ok(false);
    }
    // With the version that was read, so that a concurrent change of the taints is a conflict and the caller retries.
    let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "taints": others } });
    let patch = nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch));
    cluster.call(Caller::Driver, patch).await?;
    Ok(true)
}
