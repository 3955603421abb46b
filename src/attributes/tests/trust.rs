//! `ca-source`.

use super::*;
use crate::attributes::TrustDefaults;
use crate::model::{RawAttributes, TrustSource};

fn defaults() -> OperatorDefaults {
    let source = |text: &str| text.parse::<TrustSource>().unwrap();
    let trust = TrustDefaults {
        sources: vec![source("/etc/roots.pem")],
        named: [(
            "partners".to_owned(),
            vec![source("/etc/partners.pem"), source("configmap:infra/partners")],
        )]
        .into(),
        config_map_names: ["roots".to_owned()].into(),
        ..TrustDefaults::default()
    };
    OperatorDefaults { trust, ..OperatorDefaults::default() }
}

fn sources_of(
    ca_source: &str,
    parse: impl Fn(&RawAttributes, &OperatorDefaults) -> Result<CertificateSpec, AttributeErrors>,
) -> Result<Vec<String>, String> {
    let raw = [("csi.certlet.io/signer", "local"), ("csi.certlet.io/ca-source", ca_source)];
    let raw = raw.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let spec = parse(&raw, &defaults()).map_err(|error| error.to_string())?;
    Ok(spec.trust_sources.iter().map(ToString::to_string).collect())
}

fn chosen(ca_source: &str) -> Result<Vec<String>, String> {
    sources_of(ca_source, |raw, defaults| crate::attributes::parse(raw, &pod(), defaults))
}

#[test]
fn a_volume_chooses_among_what_the_operator_lists_and_its_own_namespace() {
    for (ca_source, sources) in [
        ("", &["file:/etc/roots.pem"][..]),
        ("signer", &["signer"]),
        ("partners, signer, partners", &["file:/etc/partners.pem", "configmap:infra/partners", "signer"]),
        ("configmap:roots", &["configmap:shop/roots"]),
        ("configmap:roots/trust.pem", &["configmap:shop/roots/trust.pem"]),
        ("clustertrustbundle:example.org:mesh:v1", &["clustertrustbundle:example.org:mesh:v1"]),
        ("clustertrustbundle:example.org/mesh?tier=a", &["clustertrustbundle:example.org/mesh?tier=a"]),
    ] {
        assert_eq!(chosen(ca_source).unwrap(), sources, "{ca_source}");
    }
}

#[test]
fn what_is_not_listed_is_refused_with_what_is() {
    for (ca_source, said) in [
        ("mesh", "\"mesh\" is not a trust source of the operator's (partners)"),
        ("/etc/roots.pem", "is not a trust source of the operator's (partners)"),
        ("file:/etc/roots.pem", "is not a trust source of the operator's"),
        ("configmap:kube-root-ca.crt", "is not a ConfigMap that the operator allows (roots)"),
        ("configmap:infra/roots", "is not a ConfigMap that the operator allows"),
        ("configmap:roots/", "names no ConfigMap of the pod's namespace"),
        ("clustertrustbundle:Roots", "names no ClusterTrustBundle"),
        (
            "signer,partners,configmap:roots/a,configmap:roots/b,configmap:roots/c,configmap:roots/d,configmap:roots/e,configmap:roots/f,configmap:roots/g",
            "has 9 elements",
        ),
    ] {
        let error = chosen(ca_source).unwrap_err();
        assert!(error.starts_with("csi.certlet.io/ca-source: "), "{error}");
        assert!(error.contains(said) && error.contains("; accepted: a list of at most 8 of"), "{error}");
    }
}

#[test]
fn a_running_volume_keeps_what_the_operator_no_longer_lists() {
    let stored = |ca_source| {
        sources_of(ca_source, |raw, defaults| crate::attributes::parse_stored(raw, &pod(), defaults, None))
            .unwrap()
    };
    assert_eq!(stored("mesh,partners"), ["mesh", "file:/etc/partners.pem", "configmap:infra/partners"]);
    assert_eq!(stored("configmap:gone"), ["configmap:gone"]);
}
