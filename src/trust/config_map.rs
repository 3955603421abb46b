//! A ConfigMap as a trust source.

use super::reader::SourceReader;
use super::sources::MIN_INTERVAL;
use crate::kube::Cluster;
use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use std::collections::BTreeMap;
use std::pin::pin;

/// Follows a key of the ConfigMap for ever.
pub(super) async fn follow<R: SourceReader>(
    cluster: Option<Cluster>,
    namespace: String,
    name: String,
    key: Option<String>,
    reader: R,
) {
    let Some(cluster) = cluster else {
        return reader.read(Err("cannot be read: certlet has no connection to a cluster".to_owned())).await;
    };
    let api: Api<ConfigMap> = Api::namespaced(cluster.own.clone(), &namespace);
    let mut objects = pin!(cluster.follow_object(api, &name));
    while let Some(mut object) = objects.next().await {
        // Only the newest: its author may change it all the time.
        while let Some(Some(newer)) = objects.next().now_or_never() {
            object = newer;
        }
        match object {
            Ok(Some(object)) => reader.read(text(object, key.as_deref(), R::DEFAULT_KEY)).await,
            Ok(None) => reader.read(Err("does not exist".to_owned())).await,
            // An API server that cannot be reached says nothing of the ConfigMap.
            Err(error) if error.is_forbidden || !reader.was_usable() => {
                reader.read(Err(format!("cannot be read: {}", error.cause))).await;
            }
            Err(error) => {
                tracing::debug!(namespace, name, error = error.cause, "a ConfigMap could not be read");
            }
        }
        tokio::time::sleep(MIN_INTERVAL).await;
    }
}

fn text(object: ConfigMap, key: Option<&str>, default_key: &str) -> Result<Vec<u8>, String> {
    let text = object.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
    let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
    let mut data: BTreeMap<String, Vec<u8>> = text.chain(binary).collect();
    let wanted = key.unwrap_or(default_key);
    if let Some(text) = data.remove(wanted) {
        return Ok(text);
    }
    match (key, data.len()) {
        (None, 1) => Ok(data.into_values().next().unwrap_or_default()),
        (None, count) if count > 1 => Err(format!(
            "has {count} keys and none of them is {default_key}; accepted: NAMESPACE/NAME/KEY, or a ConfigMap with one key"
        )),
        _ => Err(format!("has no key {wanted} with text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::testing::{ScriptedServer, refusal};
    use k8s_openapi::ByteString;
    use serde_json::json;
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// A source that could be used before.
    struct UsedSource(mpsc::UnboundedSender<Result<Vec<u8>, String>>);

    impl SourceReader for UsedSource {
        const DEFAULT_KEY: &'static str = "ca.crt";

        fn max_bytes(&self) -> usize {
            usize::MAX
        }

        async fn read(&self, text: Result<Vec<u8>, String>) {
            self.0.send(text).unwrap();
        }

        fn was_usable(&self) -> bool {
            true
        }
    }

    fn config_map(keys: &[&str]) -> ConfigMap {
        let data = keys.iter().map(|key| ((*key).to_owned(), format!("text of {key}")));
        ConfigMap { data: Some(data.collect()), ..ConfigMap::default() }
    }

    #[test]
    fn the_key_is_the_one_that_is_named_or_ca_crt_or_the_only_one() {
        let read = |keys: &[&str], key| {
            text(config_map(keys), key, "ca.crt").map(|text| String::from_utf8(text).unwrap())
        };
        assert_eq!(read(&["a", "b"], Some("b")).unwrap(), "text of b");
        assert_eq!(read(&["a", "ca.crt"], None).unwrap(), "text of ca.crt");
        assert_eq!(read(&["roots.pem"], None).unwrap(), "text of roots.pem");
        assert!(read(&["a", "b"], None).unwrap_err().contains("NAMESPACE/NAME/KEY"));
        assert!(read(&["a"], Some("b")).unwrap_err().contains("has no key b"));
        assert!(read(&[], None).unwrap_err().contains("has no key ca.crt"));
        // A CRL in DER, as `kubectl create configmap --from-file` stores it.
        let binary_data = [("root.crl".to_owned(), ByteString(vec![0x30, 0x82]))].into();
        let binary = ConfigMap { binary_data: Some(binary_data), ..ConfigMap::default() };
        assert_eq!(text(binary, Some("root.crl"), "ca.crl").unwrap(), [0x30, 0x82]);
    }

    #[tokio::test]
    async fn a_polled_config_map_that_changes_is_forbidden_or_is_deleted_reaches_its_reader_and_an_outage_does_not()
     {
        let object =
            |text: &str| (200, json!({ "metadata": { "name": "roots" }, "data": { "ca.crt": text } }));
        let (server, cluster) = ScriptedServer::start([
            object("A"),
            refusal(500, "InternalError"),
            object("B"),
            refusal(403, "Forbidden"),
            refusal(404, "NotFound"),
        ])
        .await;
        let (sender, mut texts) = mpsc::unbounded_channel();
        let cluster = Some(cluster.polling(Duration::from_millis(20)));
        let following = follow(cluster, "pki".into(), "roots".into(), None, UsedSource(sender));
        let _following = tokio::spawn(following);
        let gone = Err("does not exist".to_owned());
        let refused = Err("cannot be read: scripted Forbidden".to_owned());
        for expected in [Ok("A".into()), Ok("B".into()), refused, gone.clone(), gone] {
            assert_eq!(texts.recv().await.unwrap(), expected);
        }
        let urls = server.urls_without_watch();
        assert!(urls.iter().all(|url| url == "/api/v1/namespaces/pki/configmaps/roots"), "{urls:?}");
    }
}
