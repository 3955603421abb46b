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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::testing::Uncounted;
    use axum::Router;
    use axum::body::to_bytes;
    use axum::extract::Request as Received;
    use axum::http::Method;
    use parking_lot::Mutex;
    use serde_json::Value;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_other_taints_are_written_back_as_they_are() {
        let other =
            json!({ "key": "other", "effect": "NoExecute", "timeAdded": "2026-05-01T12:00:00Z", "new": "x" });
        let node = json!({
            "metadata": { "resourceVersion": "7", "labels": {} },
            "spec": { "taints": [{ "key": "startup", "effect": "NoSchedule" }, other], "podCIDRs": [] },
            "status": { "images": [{ "names": ["a"], "sizeBytes": 1 }] },
        });
        let patches = Arc::new(Mutex::new(Vec::<Value>::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = Cluster::at(listener.local_addr().unwrap(), Arc::new(Uncounted));
        let received = Arc::clone(&patches);
        let app = Router::new().fallback(async move |request: Received| {
            if request.method() == Method::PATCH {
                let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
                received.lock().push(serde_json::from_slice(&body).unwrap());
            }
            node.to_string()
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        assert_eq!(remove_startup_taint(&cluster, "node-1", "missing").await, Ok(false));
        assert_eq!(remove_startup_taint(&cluster, "node-1", "startup").await, Ok(true));
        let patch = json!({ "metadata": { "resourceVersion": "7" }, "spec": { "taints": [other] } });
        assert_eq!(*patches.lock(), [patch]);
    }
}
