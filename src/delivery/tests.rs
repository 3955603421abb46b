use super::*;
use crate::attributes::{KeyAlgorithm, Pkcs12};
use crate::issue::{CertificateFacts, PrivateKey};
use crate::x509::certificate::Template;
use crate::x509::extensions::basic_constraints;
use crate::x509::testing::{
    ALL_ALGORITHMS, attributes, name, openssl, openssl_public_key, openssl_text, run,
};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

/// The leaf, an intermediate, and two roots of which the first signed the intermediate.
fn bundle(algorithm: KeyAlgorithm) -> Bundle {
    let keys: Vec<_> = (0..3).map(|_| PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()).collect();
    let key = PrivateKey::generate(algorithm).unwrap();
    let now = Timestamp::now();
    let (not_before, not_after) = (now - SignedDuration::from_hours(1), now + SignedDuration::from_hours(1));
    let certify = |subject: &str, key: &PrivateKey, issuer: &str, by: &PrivateKey| {
        let (subject, issuer) = (name(subject), name(issuer));
        let extensions = [basic_constraints(!std::ptr::eq(key, by) || subject == issuer)];
        let (serial, spki) = (&[1], key.spki_der());
        let template = Template {
            serial,
            issuer: &issuer,
            not_before,
            not_after,
            subject: &subject,
            spki,
            extensions: &extensions,
        };
        template.sign(by).unwrap()
    };
    Bundle {
        leaf: certify("CN=wéb 😀", &key, "CN=middle", &keys[1]),
        intermediates: vec![certify("CN=middle", &keys[1], "CN=root", &keys[0])],
        trust_anchors: vec![
            certify("CN=root", &keys[0], "CN=root", &keys[0]),
            certify("CN=next root", &keys[2], "CN=next root", &keys[2]),
        ],
        facts: CertificateFacts {
            serial: "01".into(),
            subject: "CN=web".into(),
            sans: Vec::new(),
            not_before,
            not_after,
        },
        key,
    }
}

fn files() -> Files {
    let mut files = attributes().files;
    files.combined = Some("both.pem".into());
    files.pkcs12 = Some(Pkcs12 { file: "store.p12".into(), password: SecretString::from("päss wörd") });
    files
}

fn contents<'a>(delivered: &'a [DeliveredFile], name: &str) -> &'a DeliveredFile {
    delivered.iter().find(|file| file.name == name).unwrap()
}

fn subjects(pem: &[u8]) -> Vec<String> {
    let end = "-----END CERTIFICATE-----\n";
    let text = String::from_utf8(pem.to_vec()).unwrap();
    let certificates = text.split_inclusive(end).filter(|block| block.ends_with(end));
    let format = ["x509", "-noout", "-subject", "-nameopt", "RFC2253,utf8,-esc_msb"];
    let subjects = certificates.map(|certificate| openssl_text(&format, certificate.as_bytes()));
    subjects.map(|subject| subject.trim().trim_start_matches("subject=").to_owned()).collect()
}

#[test]
fn openssl_reads_every_file_in_its_order() {
    for algorithm in ALL_ALGORITHMS {
        let bundle = bundle(algorithm);
        for encoding in [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8] {
            let delivered = encode(&bundle, &files(), encoding).unwrap();
            assert_eq!(subjects(&contents(&delivered, "tls.crt").contents), ["CN=wéb 😀", "CN=middle"]);
            assert_eq!(subjects(&contents(&delivered, "ca.crt").contents), ["CN=root", "CN=next root"]);
            let key = &contents(&delivered, "tls.key").contents;
            assert_eq!(openssl_public_key(key), bundle.key.spki_der());
            let combined = &contents(&delivered, "both.pem").contents;
            assert_eq!(openssl_public_key(combined), bundle.key.spki_der());
            assert!(combined.starts_with(key));
            assert_eq!(subjects(combined), ["CN=wéb 😀", "CN=middle"]);
        }
    }
}

#[test]
fn only_files_with_the_key_are_secret() {
    let delivered = encode(&bundle(KeyAlgorithm::EcdsaP256), &files(), KeyEncoding::Pkcs8).unwrap();
    let mut secret: Vec<_> = delivered.iter().map(|file| (file.name.as_str(), file.secret)).collect();
    secret.sort_unstable();
    let expected =
        [("both.pem", true), ("ca.crt", false), ("store.p12", true), ("tls.crt", false), ("tls.key", true)];
    assert_eq!(secret, expected);
}

#[test]
fn without_trust_anchors_the_ca_file_is_there_and_empty() {
    let mut bundle = bundle(KeyAlgorithm::EcdsaP256);
    bundle.trust_anchors.clear();
    let delivered = encode(&bundle, &attributes().files, KeyEncoding::Pkcs8).unwrap();
    assert_eq!(delivered.len(), 3);
    assert!(contents(&delivered, "ca.crt").contents.is_empty());
}

fn keystore(bundle: &Bundle, password: &str) -> Zeroizing<Vec<u8>> {
    let mut files = files();
    files.pkcs12 = Some(Pkcs12 { file: "store.p12".into(), password: SecretString::from(password) });
    contents(&encode(bundle, &files, KeyEncoding::Pkcs8).unwrap(), "store.p12").contents.clone()
}

#[test]
fn openssl_3_opens_the_keystore_without_legacy_algorithms() {
    for algorithm in ALL_ALGORITHMS {
        let bundle = bundle(algorithm);
        for password in ["changeit", "", "päss wörd 😀", &"long".repeat(40)] {
            let store = keystore(&bundle, password);
            let pass = format!("pass:{password}");
            let (success, info, _) = run("openssl", &["pkcs12", "-info", "-noout", "-passin", &pass], &store);
            assert!(success, "{algorithm:?} {password:?}: {info}");
            assert!(info.contains("MAC: sha256, Iteration 2048"), "{info}");
            assert_eq!(
                info.matches("PBES2, PBKDF2, AES-256-CBC, Iteration 2048, PRF hmacWithSHA256").count(),
                2,
                "{info}"
            );
            let key = openssl(&["pkcs12", "-nocerts", "-nodes", "-passin", &pass], &store);
            assert_eq!(openssl_public_key(&key), bundle.key.spki_der());
            let leaf = openssl(&["pkcs12", "-nokeys", "-clcerts", "-passin", &pass], &store);
            assert_eq!(subjects(&leaf), ["CN=wéb 😀"]);
            let rest = openssl(&["pkcs12", "-nokeys", "-cacerts", "-passin", &pass], &store);
            assert_eq!(subjects(&rest), ["CN=middle", "CN=root", "CN=next root"]);
        }
        assert!(
            !run("openssl", &["pkcs12", "-noout", "-passin", "pass:wrong"], &keystore(&bundle, "right")).0
        );
    }
}

#[test]
fn java_17_opens_the_keystore_and_trusts_the_anchors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.p12");
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048, KeyAlgorithm::Ed25519] {
        std::fs::write(&path, keystore(&bundle(algorithm), "changeit")).unwrap();
        let path = path.to_str().unwrap();
        let (success, errors, listing) =
            run("keytool", &["-list", "-v", "-keystore", path, "-storepass", "changeit"], b"");
        let listing = String::from_utf8_lossy(&listing);
        assert!(success, "{errors}{listing}");
        assert!(listing.contains("Your keystore contains 3 entries"), "{listing}");
        assert!(listing.contains("Alias name: certificate\n"), "{listing}");
        assert_eq!(listing.matches("Entry type: PrivateKeyEntry").count(), 1, "{listing}");
        assert!(listing.contains("Certificate chain length: 3"), "{listing}");
        assert!(listing.contains("Alias name: ca\n") && listing.contains("Alias name: ca-2\n"), "{listing}");
        assert_eq!(listing.matches("Entry type: trustedCertEntry").count(), 2, "{listing}");
        // Taking the key out again needs the key's own password to be right too.
        let copy = folder.path().join(format!("{algorithm:?}.p12"));
        let import = ["-importkeystore", "-srckeystore", path, "-srcstorepass", "changeit", "-destkeystore"];
        let import = [&import[..], &[copy.to_str().unwrap(), "-deststorepass", "changeit"]].concat();
        let (success, errors, output) = run("keytool", &import, b"");
        assert!(success, "{errors}{}", String::from_utf8_lossy(&output));
    }
}

#[test]
fn the_key_is_not_in_the_keystore_in_the_clear() {
    let bundle = bundle(KeyAlgorithm::Ed25519);
    let store = keystore(&bundle, "changeit");
    let seed = &bundle.key.to_pkcs8_der()[bundle.key.to_pkcs8_der().len() - 32..];
    assert!(!store.windows(32).any(|window| window == seed));
}
