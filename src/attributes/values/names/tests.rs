use super::*;
use crate::attributes::OperatorDefaults;
use crate::attributes::tests::spiffe_ids;
use crate::model::{RawAttributes, WorkloadIdentity};
use proptest::prelude::*;

#[test]
fn plain_file_names_pass() {
    for name in ["tls.crt", "a", ".hidden", "a..b", "with space.pem", "\u{fc}ber.pem", &"x".repeat(255)] {
        assert_eq!(file_name(name).as_deref(), Ok(name));
    }
}

#[test]
fn file_names_outside_the_directory_and_odd_ones_are_refused() {
    let long = "x".repeat(256);
    for name in [
        "",
        ".",
        "..",
        "..data",
        "..x",
        "/etc/passwd",
        "a/b",
        "a/",
        " a",
        "a ",
        "a\n",
        "a\0b",
        "a\u{7f}b",
        &long,
    ] {
        assert!(file_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn host_names_pass_and_others_do_not() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    for name in
        ["localhost", "a.b", "*.a.b", "*.local", "xn--bcher-kva.example", "A.b", "my_svc", "1.2", &longest]
    {
        assert_eq!(dns_name(name).as_deref(), Ok(name));
    }
    let too_long = format!("{longest}a");
    for name in [
        "",
        "*",
        "*.",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a.-b",
        "a.*.b",
        "*a.b",
        "**.a",
        "a b",
        "a/b",
        "b\u{fc}cher",
        "a:1",
        "https://a",
        &format!("{label}a.b"),
        &too_long,
    ] {
        assert!(dns_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn absolute_uris_pass_and_others_do_not() {
    for text in [
        "spiffe://td/ns/a/sa/b",
        "urn:uuid:f81d4fae",
        "https://[::1]:8443/a?b=c#d",
        "x-a.b+c:%20",
        "file:///a",
    ] {
        assert_eq!(uri(text).as_deref(), Ok(text));
    }
    for text in [
        "",
        "/a/b",
        "a/b",
        "spiffe:",
        "spiffe://",
        ":a",
        "1a:b",
        "a b:c",
        "a:b c",
        "a:%",
        "a:%2",
        "a:%zz",
        "a:\u{fc}",
        "a:\n",
    ] {
        assert!(uri(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_uri_that_normalization_would_change_is_refused() {
    for text in [
        "spiffe://td/ns/shop/../bank",
        "spiffe://td/ns/./shop",
        "spiffe://td/..",
        "spiffe://td/.",
        "https://a/b/%2e%2E/c",
        "https://a/.%2e?b#c",
        "https://a/%2E",
        "file:/a/../b",
        "urn:../a",
    ] {
        assert!(uri(text).unwrap_err().starts_with("has the path segment \""), "{text}");
    }
    assert_eq!(
        uri("spiffe://td/a/%2e./b"),
        Err("has the path segment \"%2e.\" (write the resulting path)".into())
    );
    for text in ["https://a/..b/c../.../d.e", "https://a/b%2ec", "https://a.b?c=/../d", "https://a/b#/../c"] {
        assert_eq!(uri(text).as_deref(), Ok(text));
    }
}

#[test]
fn a_uri_has_at_most_2048_bytes() {
    let longest = format!("spiffe://td/{}", "a".repeat(2036));
    assert_eq!(uri(&longest).as_deref(), Ok(longest.as_str()));
    let longer = format!("{longest}a");
    assert_eq!(uri(&longer), Err("is 2049 bytes long (at most 2048 are accepted)".into()));
}

#[test]
fn a_uri_has_the_form_that_go_writes() {
    assert_eq!(uri("SPIFFE://TD/Ns/A").as_deref(), Ok("spiffe://TD/Ns/A"));
    assert_eq!(uri("https://a#b").as_deref(), Ok("https://a#b"));
    for text in ["https://a#", "https://a/b?c#", "urn:a#"] {
        assert!(uri(text).unwrap_err().contains("empty fragment"), "{text}");
    }
    let pod = WorkloadIdentity {
        namespace: "shop".into(),
        name: "cart-0".into(),
        uid: "b8f1".into(),
        service_account: "cart".into(),
    };
    for prefix in ["csi.certlet.io", "csi.cert-manager.io"] {
        let given = [("issuer-name", "ca"), ("uri-sans", "URN://td/ns/${POD_NAMESPACE}, Https://A/b")];
        let raw: RawAttributes =
            given.into_iter().map(|(name, value)| (format!("{prefix}/{name}"), value.to_owned())).collect();
        let attributes = crate::attributes::parse(&raw, &pod, &OperatorDefaults::default()).unwrap();
        assert_eq!(attributes.sans.uris, ["urn://td/ns/shop", "https://A/b"], "{prefix}");
    }
}

#[test]
fn a_spiffe_id_has_the_form_of_its_standard() {
    for id in spiffe_ids::workloads().into_iter().chain(spiffe_ids::trust_domains()) {
        assert_eq!(plain_uri(&id).as_deref(), Ok(id.as_str()));
    }
    assert!(plain_uri("SPIFFE://example.org/a").is_ok());
    for id in spiffe_ids::invalid().into_iter().chain(spiffe_ids::too_long()) {
        assert!(plain_uri(&id).is_err(), "{id}");
    }
}

#[test]
fn the_parts_of_a_subject_have_the_limits_of_x_520() {
    let of = |length: usize| "\u{fc}".repeat(length);
    assert!(common_name(&of(64)).is_ok() && common_name(&of(65)).is_err());
    assert!(locality(&of(128)).is_ok() && locality(&of(129)).is_err());
    assert!(postal_code(&of(40)).is_ok() && postal_code(&of(41)).is_err());
    assert!(
        country("DE").is_ok() && ["", "D", "DEU", "D1", "\u{fc}"].iter().all(|text| country(text).is_err())
    );
    let serial = |length: usize| serial_number(&"7".repeat(length));
    assert!(serial(64).is_ok() && serial(65).is_err());
}

#[test]
fn addresses_pass_and_networks_zones_and_ports_do_not() {
    assert_eq!(ip_address("::ffff:10.0.0.1"), Ok(IpAddr::from([10, 0, 0, 1])));
    assert!(ip_address("fd00::1").is_ok());
    for text in [
        "",
        "10.0.0.0/8",
        "10.0.0.256",
        "010.0.0.1",
        "10.0.0",
        "fe80::1%eth0",
        "[::1]",
        "1.2.3.4:80",
        "${POD_IP}",
    ] {
        assert!(ip_address(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_common_name_has_at_most_64_characters_not_bytes() {
    assert!(common_name(&"\u{fc}".repeat(64)).is_ok());
    assert!(common_name(&"a".repeat(65)).is_err());
    assert!(common_name("a\nb").is_err());
}

#[test]
fn a_value_of_the_subject_has_at_most_1024_bytes() {
    for check in [subject_text, any_text] {
        assert!(check(&"a".repeat(1024)).is_ok());
        let refused = check(&"a".repeat(1025));
        assert_eq!(refused, Err("is 1025 bytes long (at most 1024 are accepted)".into()));
    }
}

#[test]
fn annotation_keys_are_those_that_the_api_server_accepts() {
    assert!(is_annotation_key("Example.com", "a_B.c"));
    for (group, name) in
        [("", "a"), ("a b", "c"), ("a", ""), ("a", "b/c"), ("a", "-b"), ("a", "b."), ("a_b", "c")]
    {
        assert!(!is_annotation_key(group, name), "{group}/{name}");
    }
}

proptest! {
    #[test]
    fn an_accepted_file_name_is_one_path_component(name in "(?s)[./ab\0 ]{0,6}|.{0,300}") {
        if file_name(&name).is_ok() {
            let path = std::path::Path::new("/volume").join(&name);
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/volume")));
            prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
            prop_assert!(!name.starts_with("..") && name.len() <= 255 && !name.contains('\0'));
        }
    }

    #[test]
    fn an_ordinary_file_name_is_accepted(name in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,40}") {
        prop_assert!(file_name(&name).is_ok());
    }

    #[test]
    fn a_host_name_of_good_labels_is_accepted(labels in proptest::collection::vec("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", 1..6)) {
        // An IP address is refused among the DNS names.
        prop_assume!(labels.join(".").parse::<std::net::IpAddr>().is_err());
        prop_assert!(dns_name(&labels.join(".")).is_ok());
        let wildcard = format!("*.{}", labels.join("."));
        prop_assert!(dns_name(&wildcard).is_ok());
    }

    #[test]
    fn no_text_makes_a_check_panic(text in any::<String>()) {
        let _ = (dns_name(&text), uri(&text), ip_address(&text), printable(&text), kind(&text), resource_name(&text));
    }
}
