//! The DNS names of Services.

use super::identity::is_label;

/// The Service of this namespace that has this DNS name: `SERVICE.NAMESPACE`, `SERVICE.NAMESPACE.svc` or
/// `SERVICE.NAMESPACE.svc.CLUSTER-DOMAIN`. Whether it exists is for the caller to find out.
pub(super) fn service(name: &str, namespace: &str, cluster_domain: &str) -> Option<String> {
    let (service, rest) = name.split_once('.')?;
    let rest = rest.strip_prefix(namespace)?;
    let is_known = match rest.strip_prefix(".svc") {
        Some("") => true,
        Some(domain) => domain.strip_prefix('.') == Some(cluster_domain),
        None => rest.is_empty(),
    };
    (is_known && is_label(service)).then(|| service.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_three_names_in_its_own_namespace() {
        for name in ["web.shop", "web.shop.svc", "web.shop.svc.cluster.local"] {
            assert_eq!(service(name, "shop", "cluster.local").as_deref(), Some("web"), "{name}");
        }
        for odd in [
            "web",
            "web.",
            "web.shop.",
            "web.shopping",
            "web.shop.svc.",
            "web.shop.svc.local",
            "web.shop.svc.cluster.local.",
            "web.other.svc",
            "a.web.shop.svc",
            ".shop.svc",
            "*.shop.svc",
            "Web.shop.svc",
            "web.shop.cluster.local",
            "web/x.shop.svc",
            "web.shop.svccluster.local",
        ] {
            assert_eq!(service(odd, "shop", "cluster.local"), None, "{odd}");
        }
    }
}
