//! `federated-bundles`: the other trust domains whose trust bundles a volume gets.

use super::fields::Fields;
use super::rows::Key;
use super::values::list;
use crate::model::{TrustDomain, TrustSource, shown_list};
use std::collections::BTreeMap;

/// The value that stands for every trust domain of the operator.
const ALL: &str = "*";

/// The trust domains with their sources; none if the volume asks for none. `id` is the certificate's SPIFFE ID, if it has one.
///
/// A volume that was published before keeps running when the operator federates with fewer trust domains: it gets those that are left.
pub(super) fn federated(
    fields: &mut Fields<'_>,
    id: Option<&str>,
) -> Option<BTreeMap<TrustDomain, Vec<TrustSource>>> {
    let key = Key::FederatedBundles;
    let given = fields.given(key)?;
    let Some(rest) = id.and_then(|id| id.strip_prefix("spiffe://")) else {
        let problem = "needs a SPIFFE ID, whose trust domain is the certificate's own: set spiffe to true, or uri-sans to a SPIFFE ID";
        fields.invalid(key, given, problem);
        return None;
    };
    let own = rest.split('/').next().unwrap_or_default();
    let (defaults, is_stored) = (fields.defaults, fields.is_stored);
    if defaults.trust.are_unknown {
        return Some(BTreeMap::new());
    }
    let others = defaults.trust.federated.iter().filter(|(domain, _)| domain.as_str() != own);
    let others: BTreeMap<&TrustDomain, &Vec<TrustSource>> = others.collect();
    if others.is_empty() && !is_stored {
        let problem =
            "cannot be given: the driver has no trust bundle of another trust domain (--federated-bundle)";
        fields.invalid(key, given, problem);
        return None;
    }
    let chosen: Vec<&TrustDomain> = if given.trim() == ALL {
        others.keys().copied().collect()
    } else {
        let known = |text: &str| match others.keys().find(|domain| domain.as_str() == text) {
            Some(domain) => Ok(Some(*domain)),
            None if text == own => Err("is the trust domain of the certificate itself".to_owned()),
            None => {
                let known: Vec<_> = others.keys().collect();
                Err(format!(
                    "is no trust domain that the driver federates with: {}",
                    shown_list(&known, ", ")
                ))
            }
        };
        fields.list_or(key, list::split, known, |_| Ok(None)).into_iter().flatten().collect()
    };
    Some(chosen.into_iter().map(|domain| (domain.clone(), others[domain].clone())).collect())
}

#[cfg(test)]
mod tests {
    use crate::attributes::{AttributeErrors, OperatorDefaults, TrustDefaults, parse, parse_stored};
    use crate::model::{CertificateSpec, RawAttributes};
    use crate::x509::testing::pod;

    fn defaults(domains: &[&str]) -> OperatorDefaults {
        let source = |domain: &&str| (domain.parse().unwrap(), vec!["/partner.pem".parse().unwrap()]);
        let trust =
            TrustDefaults { federated: domains.iter().map(source).collect(), ..TrustDefaults::default() };
        OperatorDefaults { trust, ..OperatorDefaults::default() }
    }

    fn raw(attributes: &[(&str, &str)]) -> RawAttributes {
        let all = [("signer", "local"), ("uri-sans", "spiffe://example.org/ns/shop/sa/web")].into_iter();
        let all = all.filter(|(name, _)| !attributes.iter().any(|(given, _)| given == name));
        let all = all.chain(attributes.iter().copied()).filter(|(_, value)| !value.is_empty());
        all.map(|(name, value)| (format!("csi.certlet.io/{name}"), value.to_owned())).collect()
    }

    fn asked(domains: &[&str], attributes: &[(&str, &str)]) -> Result<CertificateSpec, AttributeErrors> {
        parse(&raw(attributes), &pod(), &defaults(domains))
    }

    fn names(spec: &CertificateSpec) -> Vec<&str> {
        spec.federated.iter().flatten().map(|(domain, _)| domain.as_str()).collect()
    }

    #[test]
    fn a_volume_gets_those_it_names_or_all_but_never_its_own() {
        let all = ["example.org", "partner.org", "third.org"];
        let of = |value: &str| asked(&all, &[("federated-bundles", value)]).unwrap();
        assert_eq!(names(&of("third.org")), ["third.org"]);
        assert_eq!(names(&of("third.org, partner.org,third.org")), ["partner.org", "third.org"]);
        assert_eq!(names(&of("*")), ["partner.org", "third.org"]);
        assert_eq!(asked(&all, &[]).unwrap().federated, None);
        let text = of("third.org").federated.unwrap().into_values().next().unwrap()[0].to_string();
        assert_eq!(text, "file:/partner.pem");
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_what_is_accepted() {
        let all = ["example.org", "partner.org"];
        let refused = |domains: &[&str], attributes: &[(&str, &str)]| {
            let error = asked(domains, attributes).unwrap_err().to_string();
            assert!(error.starts_with("csi.certlet.io/federated-bundles: "), "{error}");
            error
        };
        let unknown = refused(&all, &[("federated-bundles", "other.org")]);
        assert!(
            unknown.contains("\"other.org\" is no trust domain that the driver federates with: partner.org"),
            "{unknown}"
        );
        let own = refused(&all, &[("federated-bundles", "example.org")]);
        assert!(own.contains("the certificate itself"), "{own}");
        refused(&all, &[("federated-bundles", "*,partner.org")]);
        refused(&all, &[("federated-bundles", "partner.org,")]);
        let none = refused(&["example.org"], &[("federated-bundles", "*")]);
        assert!(none.contains("--federated-bundle"), "{none}");
        let without = refused(&all, &[("federated-bundles", "*"), ("uri-sans", ""), ("dns-names", "web")]);
        assert!(without.contains("needs a SPIFFE ID"), "{without}");
    }

    #[test]
    fn no_file_of_the_author_can_pass_for_a_federated_trust_bundle() {
        let name = ("combined-file", "other.org.spiffe-trust-bundle.x509.pem");
        let error = asked(&["partner.org"], &[("federated-bundles", "*"), name]).unwrap_err().to_string();
        assert!(error.starts_with("csi.certlet.io/combined-file: "), "{error}");
        assert!(error.contains("csi.certlet.io/federated-bundles"), "{error}");
        asked(&["partner.org"], &[name]).unwrap();
    }

    #[test]
    fn a_running_volume_keeps_the_trust_domains_that_are_left() {
        let raw = raw(&[("federated-bundles", "partner.org,third.org")]);
        let left = |domains: &[&str]| {
            let spec = parse_stored(&raw, &pod(), &defaults(domains), None).unwrap();
            let names = names(&spec).join(" ");
            (names, spec.doubts.to_string())
        };
        assert_eq!(left(&["partner.org", "third.org"]), ("partner.org third.org".into(), String::new()));
        let (names, doubts) = left(&["third.org"]);
        assert!(names == "third.org" && doubts.contains("\"partner.org\" is no trust domain"), "{doubts}");
        assert_eq!(left(&[]).0, "");
    }
}
