//! The startup taint: it keeps pods off a node until the driver is ready.

use super::{CallError, Caller, Cluster};
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};

/// Removes all taints with this key from the node. Returns whether there was one.
pub(crate) async fn remove_startup_taint(
    cluster: &Cluster,
    node: &str,
    key: &str,
) -> Result<bool, CallError> {
    let nodes = Request::new("/api/v1/nodes");
    let found: Value = cluster.read(Caller::Driver, nodes.get(node, &GetParams::default())).await?;
    let Some(version) = found["metadata"]["resourceVersion"].as_str() else {
        return Err(CallError::Unreadable("the node has no resourceVersion".to_owned()));
    };
    let taints = found["spec"]["taints"].as_array().map_or(&[][..], Vec::as_slice);
    let others: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != key).collect();
    if others.len() == taints.len() {
        return Ok(false);
    }
    // With the version that was read, so that a concurrent change of the taints is a conflict and the caller retries.
    let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "taints": others } });
    let patch = nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch));
    cluster.call(Caller::Driver, patch).await?;
    Ok(true)
}
