//! Names that come from the cluster: Services, the node, the pod's address.

use super::*;
use crate::attributes::{PodIp, parse_stored};
use std::net::IpAddr;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

fn with(
    defaults: &OperatorDefaults,
    prefix: &str,
    attributes: &[(&str, &str)],
) -> Result<CertificateSpec, AttributeErrors> {
    let issuer = [("issuer-name", "ca")];
    let all = issuer.iter().chain(attributes);
    let raw = all.map(|(name, value)| (format!("{prefix}/{name}"), (*value).to_owned())).collect();
    crate::attributes::parse(&raw, &pod(), defaults)
}

fn on_node(pod_ip: PodIp) -> OperatorDefaults {
    OperatorDefaults { node_name: Some("node-1".into()), pod_ip, ..OperatorDefaults::default() }
}

#[test]
fn a_service_gives_its_four_names_after_the_other_dns_names() {
    let spec = certlet(&[("services", "cart, ${SERVICE_ACCOUNT_NAME},db"), ("dns-names", "x,cart.shop")]);
    let spec = spec.unwrap();
    assert_eq!(
        spec.sans.dns_names,
        [
            "x",
            "cart.shop",
            "cart",
            "cart.shop.svc",
            "cart.shop.svc.cluster.local",
            "db",
            "db.shop",
            "db.shop.svc",
            "db.shop.svc.cluster.local",
        ]
    );
    assert_eq!(spec.services, ["cart", "db"]);
}

#[test]
fn the_names_of_services_end_with_the_operators_domain() {
    let defaults =
        OperatorDefaults { cluster_domain: "k8s.example".parse().unwrap(), ..OperatorDefaults::default() };
    let spec = with(&defaults, "csi.certlet.io", &[("services", "cart")]).unwrap();
    assert_eq!(spec.sans.dns_names[3], "cart.shop.svc.k8s.example");
}

#[test]
fn a_domain_that_makes_no_dns_names_is_refused() {
    for odd in ["", "Cluster.local", "a b", ".", "cluster.local.", "*.local", &"a.".repeat(61)] {
        assert!(odd.parse::<crate::attributes::ClusterDomain>().is_err(), "{odd}");
    }
    let longest = format!("{}.{}", "a".repeat(60), "b".repeat(60));
    let defaults =
        OperatorDefaults { cluster_domain: longest.parse().unwrap(), ..OperatorDefaults::default() };
    let pod = WorkloadIdentity { namespace: "n".repeat(63), ..pod() };
    let raw = [("issuer-name", "ca".to_owned()), ("services", "s".repeat(63))];
    let raw = raw.map(|(name, value)| (format!("csi.certlet.io/{name}"), value)).into_iter().collect();
    let names = crate::attributes::parse(&raw, &pod, &defaults).unwrap().sans.dns_names;
    assert_eq!(names[3].len(), 253);
}

#[test]
fn services_are_bounded() {
    let many = |count: usize| (0..count).map(|number| format!("s{number}")).collect::<Vec<_>>().join(",");
    assert_eq!(certlet(&[("services", &many(32))]).unwrap().sans.dns_names.len(), 128);
    let error = certlet(&[("services", &many(33))]).unwrap_err().to_string();
    assert!(error.contains(" names 33 Services; accepted: a list of at most 32 names"), "{error}");
}

#[test]
fn the_node_has_a_variable_of_our_own_prefix() {
    let defaults = on_node(PodIp::Unknown);
    let spec = with(&defaults, "csi.certlet.io", &[("dns-names", "${NODE_NAME}.nodes")]).unwrap();
    assert_eq!(spec.sans.dns_names, ["node-1.nodes"]);
    let error = with(&defaults, "csi.cert-manager.io", &[("dns-names", "${NODE_NAME}")]).unwrap_err();
    let known = "(known: POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME)";
    assert!(error.to_string().contains(known), "{error}");
    let error = certlet(&[("common-name", "${NODE_NAME}")]).unwrap_err().to_string();
    assert!(
        error.contains("has the variable NODE_NAME, and the name of the node is not known here"),
        "{error}"
    );
}

#[test]
fn the_pods_address_is_known_or_is_filled_in_later() {
    let given = [("ip-sans", "10.0.0.1,$POD_IP")];
    let known = with(&on_node(PodIp::Known(ADDRESS)), "csi.certlet.io", &given).unwrap();
    assert_eq!((known.sans.ip_addresses.len(), known.wants_pod_ip), (2, false));
    assert_eq!(known.sans.ip_addresses[1], ADDRESS);
    let later = with(&on_node(PodIp::Read), "csi.certlet.io", &given).unwrap();
    assert_eq!((later.sans.ip_addresses.len(), later.wants_pod_ip), (1, true));
    let filled = later.with_pod_ip(ADDRESS);
    assert_eq!((&filled.sans, filled.wants_pod_ip), (&known.sans, false));
    assert_eq!(filled.with_pod_ip(ADDRESS).sans, known.sans, "once");
}

#[test]
fn the_pods_address_is_refused_where_it_cannot_be_known() {
    let error = with(&on_node(PodIp::Unknown), "csi.certlet.io", &[("ip-sans", "${POD_IP}")]).unwrap_err();
    assert!(
        error.to_string().starts_with("csi.certlet.io/ip-sans: \"${POD_IP}\" has the variable POD_IP, and")
    );
    assert!(error.to_string().contains("--pod-readiness-gate=pod-ip:any"), "{error}");
    for pod_ip in [PodIp::Read, PodIp::Known(ADDRESS)] {
        let error = with(&on_node(pod_ip), "csi.certlet.io", &[("dns-names", "${POD_IP}.x")]).unwrap_err();
        assert!(error.to_string().contains("has the variable POD_IP, which is for ip-sans alone"), "{error}");
        let error = with(&on_node(pod_ip), "csi.cert-manager.io", &[("ip-sans", "${POD_IP}")]).unwrap_err();
        assert!(error.to_string().contains("holds a variable, which is not replaced here"), "{error}");
    }
}

#[test]
fn a_running_volume_keeps_its_address_when_the_operator_removes_the_gate() {
    let raw = [("signer", "local"), ("ip-sans", "${POD_IP}")];
    let raw = raw.map(|(name, value)| (format!("csi.certlet.io/{name}"), value.to_owned()));
    let spec = parse_stored(&raw.into_iter().collect(), &pod(), &OperatorDefaults::default(), None);
    assert!(spec.unwrap().wants_pod_ip);
}

#[test]
fn a_text_after_the_variable_is_no_address() {
    let error = with(&on_node(PodIp::Read), "csi.certlet.io", &[("ip-sans", "${POD_IP}1")]).unwrap_err();
    assert!(error.to_string().starts_with("csi.certlet.io/ip-sans: "), "{error}");
    let spec = with(&on_node(PodIp::Read), "csi.certlet.io", &[("ip-sans", "\"${POD_IP}\"")]).unwrap();
    assert!(spec.wants_pod_ip);
}
