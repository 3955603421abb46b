//! The issuer of SPIFFE IDs: that of the flags, or that of a ConfigMap that may change at any time.

use super::request::IssuerRef;
use crate::kube::{Cluster, follow};
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

/// Publishes the issuer for ever. Nothing is published before the ConfigMap was looked for.
pub(super) async fn publish_issuer(
    cluster: Cluster,
    config_map: RuntimeConfigMap,
    fallback: IssuerRef,
    issuer: watch::Sender<Option<IssuerRef>>,
) {
    let RuntimeConfigMap { namespace, name } = config_map;
    let api: Api<ConfigMap> = Api::namespaced(cluster.own, &namespace);
    let mut events = pin!(follow(api, Config::default().fields(&format!("metadata.name={name}"))));
    let mut followed = Followed { fallback, current: None, is_listed: false };
    while let Some(event) = events.next().await {
        if let Err(error) = event.map_err(|error| error.cause).and_then(|event| followed.apply(event)) {
            tracing::warn!(namespace, name, error, "the runtime ConfigMap cannot be used");
        }
        issuer.send_if_modified(|published| {
            let is_new = *published != followed.current;
            if let (true, Some(IssuerRef { name, kind, group })) = (is_new, &followed.current) {
                tracing::info!(name, kind, group, "the issuer of SPIFFE IDs");
                published.clone_from(&followed.current);
            }
            is_new
        });
    }
}

/// The issuer: that of the ConfigMap while it exists, else the fallback. A ConfigMap that lacks a key changes nothing.
struct Followed {
    fallback: IssuerRef,
    /// None before the ConfigMap was looked for.
    current: Option<IssuerRef>,
    /// Whether the list that has begun has the ConfigMap.
    is_listed: bool,
}

impl Followed {
    fn apply(&mut self, event: Event<ConfigMap>) -> Result<(), String> {
        match event {
            Event::Init => {}
            Event::InitApply(object) => {
                self.is_listed = true;
                return self.read(object);
            }
            Event::Apply(object) => return self.read(object),
            Event::InitDone if std::mem::take(&mut self.is_listed) => {}
            Event::InitDone | Event::Delete(_) => self.current = Some(self.fallback.clone()),
        }
        Ok(())
    }

    fn read(&mut self, object: ConfigMap) -> Result<(), String> {
        let issuer = read(&object.data.unwrap_or_default());
        if self.current.is_none() {
            self.current = Some(self.fallback.clone());
        }
        self.current = Some(issuer?);
        Ok(())
    }
}

fn read(data: &BTreeMap<String, String>) -> Result<IssuerRef, String> {
    let value = |key: &str| {
        let value = data.get(key).filter(|value| !value.is_empty());
        value.cloned().ok_or_else(|| format!("{key}: is missing or empty"))
    };
    Ok(IssuerRef { name: value("issuer-name")?, kind: value("issuer-kind")?, group: value("issuer-group")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(name: &str) -> IssuerRef {
        IssuerRef { name: name.into(), kind: "Issuer".into(), group: "example.org".into() }
    }

    fn config_map(name: &str) -> ConfigMap {
        let data = [("issuer-name", name), ("issuer-kind", "Issuer"), ("issuer-group", "example.org")];
        let data = data.map(|(key, value)| (key.to_owned(), value.to_owned()));
        ConfigMap { data: Some(data.into()), ..ConfigMap::default() }
    }

    #[test]
    fn a_config_map_that_lacks_a_key_changes_nothing_and_its_deletion_leads_back_to_the_flags() {
        let mut followed = Followed { fallback: issuer("flags"), current: None, is_listed: false };
        for (event, works, expected) in [
            (Event::InitApply(config_map("first")), true, "first"),
            (Event::InitDone, true, "first"),
            (Event::Apply(config_map("second")), true, "second"),
            (Event::Apply(config_map("")), false, "second"),
            (Event::Apply(ConfigMap::default()), false, "second"),
            (Event::Delete(config_map("second")), true, "flags"),
            // A later list, after an interruption, with it and without it.
            (Event::InitApply(config_map("third")), true, "third"),
            (Event::InitDone, true, "third"),
            (Event::Apply(config_map("fourth")), true, "fourth"),
            (Event::InitDone, true, "flags"),
        ] {
            assert_eq!(followed.apply(event.clone()).is_ok(), works, "{event:?}");
            assert_eq!(followed.current, Some(issuer(expected)), "{event:?}");
        }
    }

    #[test]
    fn without_a_config_map_that_can_be_used_the_flags_apply() {
        for event in [Event::InitDone, Event::InitApply(config_map(""))] {
            let mut followed = Followed { fallback: issuer("flags"), current: None, is_listed: false };
            let _fault = followed.apply(event);
            assert_eq!(followed.current, Some(issuer("flags")));
        }
    }
}
