//! The issuer that the operator names: that of the flags, or that of a ConfigMap that may change at any time.

use super::Cluster;
use crate::model::{CurrentIssuer, IssuerRef, RuntimeConfigMap};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use std::collections::BTreeMap;
use std::pin::pin;

/// Follows the issuer for ever: that of the ConfigMap while it exists, else the fallback. Calls `publish` with each new one, the first
/// time once the ConfigMap is read or found missing. Calls `reject` with what is wrong with a ConfigMap that cannot be used.
pub(crate) async fn follow_issuer(
    cluster: Cluster,
    config_map: RuntimeConfigMap,
    fallback: Option<IssuerRef>,
    mut publish: impl FnMut(&CurrentIssuer),
    mut reject: impl FnMut(&str),
) {
    let RuntimeConfigMap { namespace, name } = config_map;
    let api: Api<ConfigMap> = Api::namespaced(cluster.own.clone(), &namespace);
    let mut objects = pin!(cluster.follow_object(api, &name));
    let mut followed = Followed::new(fallback.into());
    while let Some(object) = objects.next().await {
        let published = followed.current.clone();
        match object {
            Ok(object) => {
                if let Err(error) = followed.apply(object) {
                    tracing::error!(
                        namespace,
                        name,
                        error,
                        "the runtime ConfigMap cannot be used, and changes nothing"
                    );
                    reject(&error);
                }
            }
            Err(error) => {
                tracing::warn!(namespace, name, error = error.cause, "the runtime ConfigMap cannot be read");
            }
        }
        if followed.current == published {
            continue;
        }
        match &followed.current {
            CurrentIssuer::Named(IssuerRef { name, kind, group }) => {
                tracing::info!(name, kind, group, "the operator's issuer");
            }
            CurrentIssuer::Missing => {
                tracing::warn!(
                    namespace,
                    name,
                    "there is no runtime ConfigMap, and the flags name no issuer"
                );
            }
            CurrentIssuer::Unread => {}
        }
        publish(&followed.current);
    }
}

/// The issuer: that of the ConfigMap while it exists, else the fallback. A ConfigMap that lacks a key changes nothing.
struct Followed {
    fallback: CurrentIssuer,
    current: CurrentIssuer,
}

impl Followed {
    fn new(fallback: CurrentIssuer) -> Self {
        Self { fallback, current: CurrentIssuer::Unread }
    }

    /// Takes the ConfigMap as it is now; none if it does not exist.
    fn apply(&mut self, object: Option<ConfigMap>) -> Result<(), String> {
        let Some(object) = object else {
            self.current = self.fallback.clone();
            return Ok(());
        };
        let issuer = read(&object.data.unwrap_or_default());
        if self.current == CurrentIssuer::Unread {
            self.current = self.fallback.clone();
        }
        self.current = CurrentIssuer::Named(issuer?);
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
        let mut followed = Followed::new(CurrentIssuer::Named(issuer("flags")));
        for (object, works, expected) in [
            (Some(config_map("first")), true, "first"),
            (Some(config_map("second")), true, "second"),
            (Some(config_map("")), false, "second"),
            (Some(ConfigMap::default()), false, "second"),
            (None, true, "flags"),
            (Some(config_map("third")), true, "third"),
        ] {
            assert_eq!(followed.apply(object.clone()).is_ok(), works, "{object:?}");
            assert_eq!(followed.current, CurrentIssuer::Named(issuer(expected)), "{object:?}");
        }
    }

    #[test]
    fn without_a_config_map_that_can_be_used_the_flags_apply() {
        for fallback in [CurrentIssuer::Missing, CurrentIssuer::Named(issuer("flags"))] {
            for object in [None, Some(config_map(""))] {
                let mut followed = Followed::new(fallback.clone());
                let _fault = followed.apply(object);
                assert_eq!(followed.current, fallback);
            }
        }
    }
}
