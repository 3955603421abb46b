//! The table in docs/migrate.md: what cert-manager's csi-driver does with a value, and what certlet does.

use super::cert_manager;
use crate::model::{KeyAlgorithm, SignerSpec, Subject};

const PAGE: &str = include_str!("../../../docs/migrate.md");

/// A row: attributes with their values, and what the two do.
struct Row {
    attributes: Vec<(String, String)>,
    csi_driver: String,
    certlet: String,
}

fn rows() -> Vec<Row> {
    let table = PAGE.split("| attribute | value | csi-driver | certlet |\n").nth(1).unwrap();
    let lines = table.lines().skip(1).take_while(|line| line.starts_with("| "));
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [names, values, csi_driver, certlet] = *cells.as_slice() else { panic!("{line}") };
            let (names, values) = (spans(names), spans(values));
            assert_eq!(names.len(), values.len(), "{line}");
            let attributes = names.into_iter().zip(values.iter().map(|value| unescaped(value))).collect();
            Row { attributes, csi_driver: csi_driver.to_owned(), certlet: certlet.to_owned() }
        })
        .collect()
}

/// The code spans of a cell.
fn spans(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `\\n` and `\\t` stand for control characters, and `65 × a` for 65 letters.
fn unescaped(value: &str) -> String {
    match value.split_once(" × ") {
        Some((count, letter)) => letter.repeat(count.parse().unwrap()),
        None => value.replace("\\n", "\n").replace("\\t", "\t"),
    }
}

#[test]
fn certlet_does_what_the_table_says() {
    let rows = rows();
    assert!(rows.len() > 60, "{}", rows.len());
    for Row { attributes, csi_driver, certlet } in rows {
        let given: Vec<_> = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let result = cert_manager(&given);
        let is_served = match certlet.split([',', ' ', ':']).next().unwrap() {
            "served" => true,
            "refused" => false,
            _ => csi_driver.starts_with("served"),
        };
        assert!(csi_driver.starts_with("served") || csi_driver.starts_with("refused"), "{csi_driver}");
        match result {
            Ok(spec) => {
                assert!(is_served, "{given:?} is served");
                let warns = certlet.ends_with("with a warning");
                assert_eq!(!spec.doubts.is_empty(), warns, "{given:?}: {}", spec.doubts);
            }
            Err(error) => assert!(!is_served, "{given:?}: {error}"),
        }
    }
}

#[test]
fn a_doubtful_password_is_served_and_not_shown() {
    let spec = cert_manager(&[("pkcs12-enable", "true"), ("pkcs12-password", "hunter2\n")]).unwrap();
    let doubts = spec.doubts.to_string();
    assert!(doubts.contains("pkcs12-password") && doubts.contains("control character"), "{doubts}");
    assert!(!format!("{spec:?}").contains("hunter"), "{doubts}");
}

#[test]
fn what_is_served_is_what_csi_driver_writes() {
    let spec = cert_manager(&[
        ("common-name", "a${}b${POD_NAME}"),
        ("dns-names", "a,, b. ,"),
        ("uri-sans", "HTTPS://a/b#c,/x y"),
        ("organizations", "Acme, Foo,"),
        ("serialnumber", "$POD_NAME"),
        ("key-usages", "signing, digital signature,s/mime,s/mime"),
        ("key-size", "2300"),
        ("fs-group", "0"),
        ("renew-before", "0"),
    ])
    .unwrap();
    let Subject::Fields(subject) = &spec.subject else { panic!("fields") };
    assert_eq!(subject.common_name.as_deref(), Some("abcart-0"));
    assert_eq!(subject.organizations, ["Acme", " Foo"]);
    assert_eq!(subject.serial_number.as_deref(), Some("$POD_NAME"));
    assert_eq!(spec.sans.dns_names, ["a", "b."]);
    assert_eq!(spec.sans.uris, ["https://a/b%23c", "/x%20y"]);
    let SignerSpec::CertManager { usage_words, .. } = &spec.signer else { panic!("an issuer") };
    assert_eq!(*usage_words, ["signing", "digital signature", "s/mime", "s/mime"]);
    assert_eq!(spec.usages.len(), 2);
    assert_eq!(spec.key.algorithm, KeyAlgorithm::Rsa(2176));
    assert_eq!((spec.fs_group, spec.renew_before), (Some(0), None));
}
