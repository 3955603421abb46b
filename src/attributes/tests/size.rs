//! The limit on the names of a certificate.

use super::*;
use crate::attributes::check_names;
use crate::x509::{MAX_NAMES_BYTES, names_len};

fn checked(spec: &CertificateSpec) -> Result<(), AttributeErrors> {
    check_names(spec, MAX_NAMES_BYTES, |subject, names| names_len(subject, names, spec.dialect).unwrap())
}

/// So many elements, all different.
fn elements(count: usize, element: impl Fn(usize) -> String) -> String {
    (0..count).map(element).collect::<Vec<_>>().join(",")
}

#[test]
fn names_up_to_the_limit_are_accepted_and_longer_ones_refused_with_their_attributes() {
    // docs/attributes.md, docs/migrate.md and docs/security.md name it.
    assert_eq!(MAX_NAMES_BYTES, 36_288);
    // A part of the subject takes ten bytes more than its text, an address takes 18.
    let units = |length: usize| elements(500, |n| format!("{n:0length$}"));
    let (lists, addresses) = (units(20), elements(500, |n| format!("::{n:x}")));
    for prefix in ["csi.certlet.io", "csi.cert-manager.io"] {
        let volume = |common_name: usize, ou: usize| {
            let common_name = "x".repeat(common_name);
            let units = units(ou);
            let given = [
                ("organizations", lists.as_str()),
                ("organizationalunits", units.as_str()),
                ("ip-sans", addresses.as_str()),
                ("common-name", common_name.as_str()),
            ];
            with_prefix(prefix, &given).unwrap()
        };
        let length = |spec: &CertificateSpec| names_len(&spec.subject, &spec.sans, spec.dialect).unwrap();
        // The longest values of the second list that fit, and the common name that fills the rest to the byte.
        let ou = (3..40).rev().find(|ou| length(&volume(1, *ou)) <= MAX_NAMES_BYTES).unwrap();
        let rest = MAX_NAMES_BYTES - length(&volume(1, ou));
        assert!(rest < 500, "{rest}");
        let filled = |more: usize| {
            let mut spec = volume(1, ou);
            let Subject::Fields(fields) = &mut spec.subject else { panic!("fields") };
            let units = &mut fields.organizational_units;
            (0..rest + more).for_each(|n| units[n % 500].push('0'));
            spec
        };
        assert_eq!(length(&filled(0)), MAX_NAMES_BYTES, "{prefix}");
        checked(&filled(0)).unwrap();
        let message = checked(&filled(1)).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{prefix}/organizations: the names take 36289 bytes")),
            "{message}"
        );
        assert!(message.contains("ip-sans 90") && message.contains("common-name 1"), "{message}");
        assert!(
            message.ends_with("accepted: at most 36288 bytes (DER) for all names of a certificate together")
        );
    }
}

#[test]
fn every_kind_of_name_counts_with_what_its_encoding_adds() {
    let short = elements(500, |n| format!("{n:03}"));
    let addresses = elements(500, |n| format!("::{n:x}"));
    let subjects = (0..2_800).map(|n| format!("OU={n:04}")).collect::<Vec<_>>().join(",");
    let all =
        ["organizations", "organizationalunits", "provinces", "localities", "streetaddresses", "postalcodes"];
    let mut lists: Vec<_> = all.iter().chain(&["dns-names"]).map(|name| (*name, short.as_str())).collect();
    for (attributes, named) in
        [(vec![("literal-subject", subjects.as_str())], "literal-subject"), (lists.clone(), "organizations")]
    {
        for prefix in ["csi.certlet.io", "csi.cert-manager.io"] {
            let spec = with_prefix(prefix, &attributes).unwrap();
            let message = checked(&spec).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{prefix}/{named}: the names take ")), "{message}");
        }
    }
    // Five lists fit, and do not fit with addresses of which each is six characters long as text.
    lists.truncate(5);
    checked(&certlet(&lists).unwrap()).unwrap();
    lists.push(("ip-sans", addresses.as_str()));
    checked(&certlet(&lists).unwrap()).unwrap_err();
}
