//! The ConfigMap that names the issuer at run time.

use crate::cert_manager::{Authority, Cluster, SIGNED};
use crate::support::{self, eventually};
use crate::{OWN_ACCOUNT, node_test, pod, start};
use certlet_kubelet::Pod;
use serde_json::{Value, json};

const CONFIG_MAP: [&str; 2] =
    ["--runtime-issuance-config-map-name=issuer", "--runtime-issuance-config-map-namespace=certlet"];

fn named(name: &str) -> Value {
    json!({ "issuer-name": name, "issuer-kind": "ClusterIssuer", "issuer-group": "cert-manager.io" })
}

/// Publishes a volume, and returns the name of the issuer that was asked.
async fn issuer_of(cluster: &Cluster, pod: &Pod) -> String {
    let request = crate::publish(cluster, pod).await;
    request["spec"]["issuerRef"]["name"].as_str().unwrap().to_owned()
}

/// Waits until the driver has logged so many changes of the issuer.
async fn changes(cluster: &Cluster, count: usize) {
    let logged = || cluster.node.log().matches("the operator's issuer\"").count();
    eventually("the new issuer", async || logged() == count).await;
}

node_test! {
    async fn the_config_map_wins_over_the_flags_while_it_exists() {
        let cluster = start(&[&[OWN_ACCOUNT, "--issuer-name=flags"], &CONFIG_MAP[..]].concat()).await;
        cluster.server.config_map_watched().await;
        assert_eq!(issuer_of(&cluster, &pod("web-0", &[])).await, "flags");
        cluster.server.put_config_map(Some(named("first")));
        changes(&cluster, 2).await;
        assert_eq!(issuer_of(&cluster, &pod("web-1", &[])).await, "first");
        // One that lacks a key changes nothing, loudly.
        cluster.server.put_config_map(Some(json!({ "issuer-name": "second" })));
        eventually("the fault", async || cluster.node.log().contains("issuer-kind: is missing or empty")).await;
        assert_eq!(issuer_of(&cluster, &pod("web-2", &[])).await, "first");
        cluster.server.put_config_map(None);
        changes(&cluster, 3).await;
        assert_eq!(issuer_of(&cluster, &pod("web-3", &[])).await, "flags");
    }
}

node_test! {
    async fn without_an_issuer_volumes_wait_and_the_error_names_the_config_map() {
        let cluster = start(&[&[OWN_ACCOUNT, "--issuer-name="], &CONFIG_MAP[..]].concat()).await;
        cluster.server.config_map_watched().await;
        let waiting = pod("web-0", &[]);
        let refused = cluster.kubelet.publish(&waiting).await.unwrap_err();
        assert!(refused.message().contains("the ConfigMap certlet/issuer names none"), "{refused:?}");
        assert!(cluster.server.names().is_empty());
        cluster.server.put_config_map(Some(named("late")));
        changes(&cluster, 1).await;
        assert_eq!(issuer_of(&cluster, &waiting).await, "late");
    }
}

node_test! {
    async fn a_request_to_the_old_issuer_is_given_up_at_once_and_the_new_one_is_asked() {
        let cluster = start(&[&[OWN_ACCOUNT], &CONFIG_MAP[..]].concat()).await;
        cluster.server.config_map_watched().await;
        let waiting = pod("web-0", &[]);
        let authority = Authority::new("spiffe-ca");
        let change = async {
            let old = cluster.server.only().await;
            cluster.server.put_config_map(Some(named("new")));
            let new = cluster.server.new_besides(&[old]).await;
            let object = cluster.server.object(&new);
            cluster.server.set(&new, &SIGNED, &authority.sign(&object, |_| {}));
            object["spec"]["issuerRef"]["name"].as_str().unwrap().to_owned()
        };
        let (published, issuer) = tokio::join!(cluster.kubelet.publish(&waiting), change);
        published.unwrap();
        assert_eq!(issuer, "new");
        eventually("the old request is deleted", async || cluster.server.names().len() == 1).await;
    }
}

node_test! {
    async fn a_request_to_the_old_issuer_is_not_resumed_after_a_restart() {
        let mut cluster = start(&[OWN_ACCOUNT, "--issuer-name=old"]).await;
        let waiting = pod("web-0", &[]);
        let old = cluster.publish_without_answer(&waiting).await;
        cluster.node.stop();
        cluster.node.replace_flag("--issuer-name=old", "--issuer-name=new");
        cluster.kubelet = cluster.node.started().await;
        assert_eq!(issuer_of(&cluster, &waiting).await, "new");
        eventually("the old request is deleted", async || !cluster.server.names().contains(&old)).await;
    }
}

node_test! {
    async fn a_running_volume_asks_the_new_issuer_at_its_next_renewal() {
        let flags = [OWN_ACCOUNT, "--min-renewal-interval=0", "--spiffe-attributes=renew-before"];
        let mut cluster = start(&[&flags, &CONFIG_MAP[..]].concat()).await;
        cluster.server.config_map_watched().await;
        let running = pod("web-0", &[("renew-before", "59m55s")]);
        assert_eq!(issuer_of(&cluster, &running).await, "my-spiffe-ca");
        let volume = cluster.kubelet.target(&running);
        let first = support::serial(&volume);
        cluster.server.put_config_map(Some(named("new")));
        changes(&cluster, 2).await;
        let signing = cluster.sign_all(Authority::new("spiffe-ca"));
        eventually("a renewal", async || support::serial(&volume) != first).await;
        // The request to the old issuer is deleted once the certificate of the new one is in use.
        eventually("requests to the new issuer only", async || {
            let issuer = |name: String| cluster.server.object(&name)["spec"]["issuerRef"]["name"].clone();
            cluster.server.names().into_iter().map(issuer).all(|issuer| issuer == "new")
        }).await;
        // The record is whole: another process adopts the volume.
        cluster.restart(|_| {}).await;
        assert!(cluster.node.log().contains("\"adopted\":1"), "{}", cluster.node.log());
        let second = support::serial(&volume);
        eventually("another renewal", async || support::serial(&volume) != second).await;
        signing.abort();
    }
}
