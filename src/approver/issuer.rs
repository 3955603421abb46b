//! The issuer of SPIFFE IDs: that of the flags, or that of a ConfigMap that may change at any time.

use super::request::IssuerRef;
use crate::kube::{Cluster, follow_forever};
use crate::model::shown;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{Config, Event};
use std::collections::BTreeMap;
use std::pin::pin;
use tokio::sync::watch;

/// A ConfigMap with the keys `issuer-name`, `issuer-kind` and `issuer-group`.
#[derive(Clone, Debug)]
pub struct RuntimeConfigMap {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

/// Publishes the issuer for ever: that of the ConfigMap while it exists, else `fallback`. A ConfigMap that lacks a key changes
/// nothing. Nothing is published before the ConfigMap was looked for.
pub(super) async fn publish_issuer(
    cluster: Cluster,
    config_map: RuntimeConfigMap,
    fallback: IssuerRef,
    issuer: watch::Sender<Option<IssuerRef>>,
) {
    let api: Api<ConfigMap> = Api::namespaced(cluster.own, &config_map.namespace);
    let config = Config::default().fields(&format!("metadata.name={}", config_map.name));
    let mut events = pin!(follow_forever(api, config));
    let mut is_listed = false;
    while let Some(event) = events.next().await {
        let active = match event {
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                is_listed = true;
                match read(&object.data.unwrap_or_default()) {
                    Ok(active) => active,
                    Err(fault) => {
                        let (namespace, name) = (&config_map.namespace, &config_map.name);
                        tracing::warn!(namespace, name, fault, "the runtime ConfigMap is not used");
                        if issuer.borrow().is_some() {
                            continue;
                        }
                        fallback.clone()
                    }
                }
            }
            Ok(Event::InitDone) if std::mem::take(&mut is_listed) => continue,
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => fallback.clone(),
            Err(error) => {
                tracing::warn!(error, "the watch on the runtime ConfigMap is interrupted");
                continue;
            }
        };
        issuer.send_if_modified(|current| {
            let is_new = current.as_ref() != Some(&active);
            if is_new {
                tracing::info!(
                    name = active.name,
                    kind = active.kind,
                    group = active.group,
                    "the issuer of SPIFFE IDs"
                );
                *current = Some(active);
            }
            is_new
        });
    }
}

fn read(data: &BTreeMap<String, String>) -> Result<IssuerRef, String> {
    let value = |key: &str| {
        let value = data.get(key).filter(|value| !value.is_empty());
        value.cloned().ok_or_else(|| format!("{}: is missing or empty", shown(key)))
    };
    Ok(IssuerRef { name: value("issuer-name")?, kind: value("issuer-kind")?, group: value("issuer-group")? })
}
