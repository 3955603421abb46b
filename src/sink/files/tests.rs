use super::*;
use crate::model::{CertificateFacts, Dialect};
use crate::model::{
    KeyAlgorithm, KeyEncoding, KeystorePassword, Layout, Pkcs12, Pkcs12Profile, SecretNames, SubjectAltNames,
    VolumeId,
};
use crate::store::Store;
use crate::x509::certificate::Template;
use crate::x509::extensions::{basic_constraints, subject_alt_names};
use crate::x509::testing::{
    ALL_ALGORITHMS, attributes, name, openssl, openssl_public_key, openssl_text, run,
};
use crate::x509::{self, PrivateKey};
use der::Encode;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use x509_cert::name::Name;

/// The leaf and an intermediate, and two roots of which the first signed the intermediate.
fn issued(algorithm: KeyAlgorithm) -> (Credential, TrustBundle) {
    let keys: Vec<_> = (0..3).map(|_| PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()).collect();
    let key = PrivateKey::generate(algorithm).unwrap();
    let now = Timestamp::now();
    let (not_before, not_after) = (now - SignedDuration::from_hours(1), now + SignedDuration::from_hours(1));
    let certify = |subject: &str, key: &PrivateKey, issuer: &str, by: &PrivateKey| {
        let (subject, issuer) = (name(subject), name(issuer));
        let extensions = [basic_constraints(!std::ptr::eq(key, by) || subject == issuer).unwrap()];
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
    let anchors = vec![
        certify("CN=root", &keys[0], "CN=root", &keys[0]),
        certify("CN=next root", &keys[2], "CN=next root", &keys[2]),
    ];
    let credential = Credential {
        leaf: certify("CN=wéb 😀", &key, "CN=middle", &keys[1]),
        intermediates: vec![certify("CN=middle", &keys[1], "CN=root", &keys[0])],
        facts: Arc::new(CertificateFacts {
            serial: "01".into(),
            subject: "CN=web".into(),
            sans: Vec::new(),
            not_before,
            not_after,
        }),
        key,
    };
    (credential, TrustBundle { anchors, ..TrustBundle::default() })
}

/// A spec with every optional file.
fn spec(encoding: KeyEncoding, password: &str) -> CertificateSpec {
    let mut spec = attributes();
    spec.key.encoding = encoding;
    spec.files.combined = Some("both.pem".into());
    spec.files.pkcs12 = Some(Pkcs12::modern("store.p12"));
    spec.files.password = Some(KeystorePassword::Given(SecretString::from(password)));
    spec
}

fn contents<'a>(files: &'a [NewFile], name: &str) -> &'a NewFile {
    files.iter().find(|file| file.name == name).unwrap()
}

fn subjects(pem: &[u8]) -> Vec<String> {
    let end = "-----END CERTIFICATE-----\n";
    let text = String::from_utf8(pem.to_vec()).unwrap();
    let certificates = text.split_inclusive(end).filter(|block| block.ends_with(end));
    let format = ["x509", "-noout", "-subject", "-nameopt", "RFC2253,utf8,-esc_msb"];
    let subjects = certificates.map(|certificate| openssl_text(&format, certificate.as_bytes()));
    subjects.map(|subject| subject.trim().trim_start_matches("subject=").to_owned()).collect()
}

/// What a volume with these files has after a restart.
fn read_back(files: &[NewFile], spec: &CertificateSpec) -> Result<(Credential, TrustBundle), Failure> {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let (store, _) = Store::open(root.path()).unwrap();
    let id = VolumeId::new("csi-1");
    store.write_generation(&id, files).unwrap();
    let read = store.read_generation(&id, |generation| read(generation, spec, None))?;
    Ok(read.flatten().unwrap())
}

/// As [`issued`], with the SPIFFE ID of a workload.
fn svid() -> (Credential, TrustBundle) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let (subject, spki) = (Name::default().to_der().unwrap(), key.spki_der());
    let now = Timestamp::now();
    let names = SubjectAltNames {
        uris: vec!["spiffe://example.org/ns/shop/sa/web".into()],
        ..SubjectAltNames::default()
    };
    let extensions = [subject_alt_names(&names, &Name::default()).unwrap()];
    let template = Template {
        serial: &[1],
        issuer: &name("CN=root"),
        not_before: now,
        not_after: now + SignedDuration::from_hours(1),
        subject: &subject,
        spki,
        extensions: &extensions,
    };
    let leaf = template.sign(&key).unwrap();
    let facts = Arc::new(x509::facts_of_pem(&pem::certificates([leaf.as_slice()])).unwrap());
    let (other, trust) = issued(KeyAlgorithm::EcdsaP256);
    (Credential { key, leaf, intermediates: other.intermediates, facts }, trust)
}

fn of_layout(layout: Layout, (credential, trust): &(Credential, TrustBundle)) -> Vec<NewFile> {
    let mut spec = attributes();
    spec.files.layout = layout;
    encode(credential, trust, &spec, None, None).unwrap()
}

fn text(files: &[NewFile], name: &str) -> String {
    String::from_utf8(contents(files, name).contents.to_vec()).unwrap()
}

fn pem_of<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    String::from_utf8(pem::certificates(certificates)).unwrap()
}

fn key_of(credential: &Credential) -> String {
    String::from_utf8(credential.key.to_pem(KeyEncoding::Pkcs8).unwrap().to_vec()).unwrap()
}

/// Name and mode of every file.
fn modes(files: &[NewFile]) -> Vec<(&str, u32)> {
    let mut modes: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.mode)).collect();
    modes.sort_unstable();
    modes
}

#[test]
fn every_layout_is_read_back_with_and_without_anchors() {
    let (credential, trust) = svid();
    for trust in [trust, TrustBundle::default()] {
        for layout in
            [attributes().files.layout, Layout::Istio, Layout::Spiffe, Layout::Envoy(SecretNames::default())]
        {
            let mut spec = attributes();
            spec.files.layout = layout.clone();
            let files = encode(&credential, &trust, &spec, None, None).unwrap();
            let (read, trusted) = read_back(&files, &spec).unwrap();
            assert_eq!(read.key.to_pkcs8_der(), credential.key.to_pkcs8_der(), "{layout:?}");
            assert_eq!((&read.leaf, &read.intermediates), (&credential.leaf, &credential.intermediates));
            assert_eq!((read.facts, trusted), (Arc::clone(&credential.facts), trust.clone()), "{layout:?}");
        }
    }
}

#[test]
fn the_layout_istio_has_the_three_files_of_istios_agent() {
    let svid = svid();
    let files = of_layout(Layout::Istio, &svid);
    assert_eq!(modes(&files), [("cert-chain.pem", 0o444), ("key.pem", 0o400), ("root-cert.pem", 0o444)]);
    assert_eq!(text(&files, "cert-chain.pem"), pem_of(svid.0.chain()));
    assert_eq!(text(&files, "key.pem"), key_of(&svid.0));
    assert_eq!(text(&files, "root-cert.pem"), pem_of(svid.1.anchors.iter().map(Vec::as_slice)));
}

#[test]
fn the_layout_spiffe_is_a_credential_folder_and_nothing_else() {
    let svid = svid();
    let files = of_layout(Layout::Spiffe, &svid);
    let (credential_bundle, trust) =
        ("credential-bundle.private-key.x509.pem", "example.org.spiffe-trust-bundle.x509.pem");
    assert_eq!(modes(&files), [(credential_bundle, 0o400), (trust, 0o444), ("hints.json", 0o444)]);
    assert_eq!(text(&files, credential_bundle), key_of(&svid.0) + &pem_of(svid.0.chain()));
    assert_eq!(text(&files, trust), pem_of(svid.1.anchors.iter().map(Vec::as_slice)));
    let hints: serde_json::Value = serde_json::from_str(&text(&files, "hints.json")).unwrap();
    let digest =
        String::from_utf8(openssl(&["dgst", "-sha256", "-r"], text(&files, credential_bundle).as_bytes()))
            .unwrap();
    let fingerprint = format!("sha256:{}", digest.split(' ').next().unwrap());
    assert_eq!(hints, serde_json::json!({ "hints": [{ "hint": "", "id": 0, "fingerprint": fingerprint }] }));
    let without_id = issued(KeyAlgorithm::EcdsaP256);
    let mut spec = attributes();
    spec.files.layout = Layout::Spiffe;
    let error = encode(&without_id.0, &without_id.1, &spec, None, None).err().unwrap();
    assert_eq!(error, FileError::NoTrustDomain);
}

#[test]
fn the_layouts_spiffe_and_envoy_have_no_empty_trust_bundle() {
    let svid = (svid().0, TrustBundle::default());
    for (layout, expected) in [(Layout::Spiffe, 2), (Layout::Envoy(SecretNames::default()), 1)] {
        let files = of_layout(layout, &svid);
        assert_eq!(files.len(), expected);
        assert!(files.iter().all(|file| !file.contents.is_empty()));
    }
}

/// An X.509-SVID with the trust bundle of another trust domain, and what cannot be: one of its own as a federated one.
fn federated_svid() -> (Credential, TrustBundle) {
    let (credential, mut trust) = svid();
    let [other, wrong] = [0, 1].map(|_| issued(KeyAlgorithm::EcdsaP256).1.anchors);
    let federated = [("partner.org", other), ("example.org", wrong)];
    trust.federated =
        federated.into_iter().map(|(domain, anchors)| (domain.parse().unwrap(), anchors)).collect();
    (credential, trust)
}

#[test]
fn every_layout_has_federated_trust_bundles_apart_and_reads_them_back() {
    let (credential, trust) = federated_svid();
    let partner = &trust.federated["partner.org"];
    for layout in
        [attributes().files.layout, Layout::Istio, Layout::Spiffe, Layout::Envoy(SecretNames::default())]
    {
        let mut spec = attributes();
        spec.files.layout = layout.clone();
        let without = encode(&credential, &trust, &spec, None, None).unwrap();
        spec.federated = Some(std::collections::BTreeMap::new());
        let files = encode(&credential, &trust, &spec, None, None).unwrap();
        let added = 1 + usize::from(layout == Layout::Envoy(SecretNames::default()));
        assert_eq!(files.len(), without.len() + added, "{layout:?}");
        let file = "partner.org.spiffe-trust-bundle.x509.pem";
        assert_eq!(text(&files, file), pem_of(partner.iter().map(Vec::as_slice)), "{layout:?}");
        assert_eq!(contents(&files, file).mode, 0o444);
        let (_, read) = read_back(&files, &spec).unwrap();
        assert_eq!(read.anchors, trust.anchors, "{layout:?}");
        assert_eq!(read.federated, [("partner.org".parse().unwrap(), partner.clone())].into_iter().collect());
        // A volume that does not ask for them may have a file of such a name, which is not one.
        spec.federated = None;
        let (_, read) = read_back(&files, &spec).unwrap();
        assert!(read.federated.is_empty(), "{layout:?}");
    }
}

/// The schema of Envoy's file, as far as certlet writes it. Nothing else is accepted.
#[cfg(feature = "aws")]
mod envoy {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Response {
        resources: Vec<Secret>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Secret {
        #[serde(rename = "@type")]
        kind: String,
        name: String,
        tls_certificate: Option<TlsCertificate>,
        validation_context: Option<ValidationContext>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct TlsCertificate {
        certificate_chain: Inline,
        private_key: Inline,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct ValidationContext {
        trusted_ca: Option<Inline>,
        custom_validator_config: Option<Validator>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Validator {
        name: String,
        typed_config: ValidatorConfig,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct ValidatorConfig {
        #[serde(rename = "@type")]
        kind: String,
        trust_domains: Vec<TrustDomain>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct TrustDomain {
        name: String,
        trust_bundle: Inline,
    }

    #[test]
    fn the_layout_envoy_has_one_more_secret_with_every_trust_domain() {
        let (credential, trust) = federated_svid();
        let mut spec = attributes();
        spec.files.layout = Layout::Envoy(SecretNames::default());
        spec.federated = Some(std::collections::BTreeMap::new());
        let files = encode(&credential, &trust, &spec, None, None).unwrap();
        let mut response: Response = serde_saphyr::from_str(&text(&files, "ALL.yaml")).unwrap();
        let secret = response.resources.pop().unwrap();
        assert_eq!((response.resources.len(), secret.name.as_str()), (0, "ALL"));
        let context = secret.validation_context.unwrap();
        assert!(context.trusted_ca.is_none(), "trusted for every trust domain");
        let validator = context.custom_validator_config.unwrap();
        assert_eq!(validator.name, "envoy.tls.cert_validator.spiffe");
        assert!(validator.typed_config.kind.ends_with(".SPIFFECertValidatorConfig"));
        let domains = validator.typed_config.trust_domains.into_iter();
        let domains: Vec<_> =
            domains.map(|domain| (domain.name, domain.trust_bundle.inline_string)).collect();
        let of =
            |name: &str, anchors: &[Vec<u8>]| (name.to_owned(), pem_of(anchors.iter().map(Vec::as_slice)));
        let expected =
            [of("example.org", &trust.anchors), of("partner.org", &trust.federated["partner.org"])];
        assert_eq!(domains, expected);
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Inline {
        inline_string: String,
    }

    #[test]
    fn the_layout_envoy_has_a_file_for_each_secret_as_yaml_says_it() {
        let svid = svid();
        let odd = "a\"b: #\\\n{c}\u{e9}".to_owned();
        for names in [
            SecretNames::default(),
            SecretNames { certificate: odd.clone(), trust_bundle: odd, ..SecretNames::default() },
        ] {
            let files = of_layout(Layout::Envoy(names.clone()), &svid);
            assert_eq!(modes(&files), [("ROOTCA.yaml", 0o444), ("default.yaml", 0o400)]);
            let secret = |name: &str| {
                let mut response: Response = serde_saphyr::from_str(&text(&files, name)).unwrap();
                let secret = response.resources.pop().unwrap();
                assert!(response.resources.is_empty());
                assert_eq!(
                    secret.kind,
                    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
                );
                secret
            };
            let own = secret("default.yaml");
            let certificate = own.tls_certificate.unwrap();
            assert_eq!((own.name, own.validation_context.is_none()), (names.certificate, true));
            assert_eq!(certificate.certificate_chain.inline_string, pem_of(svid.0.chain()));
            assert_eq!(certificate.private_key.inline_string, key_of(&svid.0));
            let trust_bundle = secret("ROOTCA.yaml");
            assert_eq!(
                (trust_bundle.name, trust_bundle.tls_certificate.is_none()),
                (names.trust_bundle, true)
            );
            let anchors = pem_of(svid.1.anchors.iter().map(Vec::as_slice));
            let context = trust_bundle.validation_context.unwrap();
            assert_eq!(context.trusted_ca.unwrap().inline_string, anchors);
        }
    }
}

#[test]
fn openssl_reads_every_file_in_its_order() {
    for algorithm in ALL_ALGORITHMS {
        let (credential, trust) = issued(algorithm);
        for encoding in [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8] {
            let files = encode(&credential, &trust, &spec(encoding, "päss wörd"), None, None).unwrap();
            assert_eq!(subjects(&contents(&files, "tls.crt").contents), ["CN=wéb 😀", "CN=middle"]);
            assert_eq!(subjects(&contents(&files, "ca.crt").contents), ["CN=root", "CN=next root"]);
            let key = &contents(&files, "tls.key").contents;
            assert_eq!(openssl_public_key(key), credential.key.spki_der());
            let combined = &contents(&files, "both.pem").contents;
            assert_eq!(openssl_public_key(combined), credential.key.spki_der());
            assert!(combined.starts_with(key));
            assert_eq!(subjects(combined), ["CN=wéb 😀", "CN=middle"]);
            let (read, trusted) = read_back(&files, &attributes()).unwrap();
            assert_eq!(read.key.to_pkcs8_der(), credential.key.to_pkcs8_der());
            assert_eq!(
                (read.leaf, read.intermediates),
                (credential.leaf.clone(), credential.intermediates.clone())
            );
            assert_eq!(trusted, trust);
        }
    }
}

#[test]
fn only_files_with_the_key_are_secret() {
    let (credential, trust) = issued(KeyAlgorithm::EcdsaP256);
    for (group, mode) in [(None, 0o400), (Some(2000), 0o440)] {
        let files = encode(&credential, &trust, &spec(KeyEncoding::Pkcs8, "changeit"), group, None).unwrap();
        let is_right = |file: &&NewFile| match file.mode {
            0o444 => file.group.is_none(),
            other => other == mode && file.group == group,
        };
        assert_eq!(files.iter().filter(is_right).count(), 5);
    }
    let files = encode(&credential, &trust, &spec(KeyEncoding::Pkcs8, "changeit"), None, None).unwrap();
    let mut secret: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.mode == 0o400)).collect();
    secret.sort_unstable();
    let expected =
        [("both.pem", true), ("ca.crt", false), ("store.p12", true), ("tls.crt", false), ("tls.key", true)];
    assert_eq!(secret, expected);
}

#[test]
fn without_trust_anchors_the_ca_file_is_there_and_empty() {
    let (credential, _) = issued(KeyAlgorithm::EcdsaP256);
    let files = encode(&credential, &TrustBundle::default(), &attributes(), None, None).unwrap();
    assert_eq!(files.len(), 3);
    assert!(contents(&files, "ca.crt").contents.is_empty());
}

fn keystore((credential, trust): &(Credential, TrustBundle), password: &str) -> Zeroizing<Vec<u8>> {
    let spec = spec(KeyEncoding::Pkcs8, password);
    let password = SecretString::from(password);
    contents(&encode(credential, trust, &spec, None, Some(&password)).unwrap(), "store.p12").contents.clone()
}

/// As under the prefix of cert-manager's csi-driver.
fn legacy((credential, trust): &(Credential, TrustBundle), password: &str) -> Vec<u8> {
    let keystore = Pkcs12 {
        profile: Pkcs12Profile::Legacy,
        alias: None,
        has_anchors: false,
        ..Pkcs12::modern("store.p12")
    };
    pkcs12::encode(credential, trust, &keystore, password).unwrap()
}

fn listed(path: &str, password: &str) -> String {
    let arguments = ["-list", "-v", "-keystore", path, "-storepass", password];
    let (success, errors, listing) = run("keytool", &arguments, b"");
    let listing = String::from_utf8_lossy(&listing).into_owned();
    assert!(success, "{errors}{listing}");
    listing
}

#[test]
fn openssl_opens_the_legacy_keystore_with_its_legacy_algorithms() {
    for algorithm in ALL_ALGORITHMS {
        let issued = issued(algorithm);
        for password in ["changeit", "", "päss wörd", &"long".repeat(40)] {
            let store = legacy(&issued, password);
            let pass = format!("pass:{password}");
            let info = ["pkcs12", "-legacy", "-info", "-noout", "-passin", &pass];
            let (success, info, _) = run("openssl", &info, &store);
            assert!(success, "{algorithm:?} {password:?}: {info}");
            assert!(info.contains("MAC: sha1, Iteration 1\n"), "{info}");
            assert!(info.contains("pbeWithSHA1And40BitRC2-CBC, Iteration 2048"), "{info}");
            assert!(info.contains("pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 2048"), "{info}");
            let key = openssl(&["pkcs12", "-legacy", "-nocerts", "-nodes", "-passin", &pass], &store);
            assert_eq!(openssl_public_key(&key), issued.0.key.spki_der());
            assert!(!String::from_utf8_lossy(&key).contains("friendlyName"));
            let all = openssl(&["pkcs12", "-legacy", "-nokeys", "-passin", &pass], &store);
            assert_eq!(subjects(&all), ["CN=wéb 😀", "CN=middle"]);
        }
    }
}

#[test]
fn java_shows_one_entry_in_the_legacy_keystore_and_calls_it_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.p12");
    std::fs::write(&path, legacy(&issued(KeyAlgorithm::Rsa(2048)), "changeit")).unwrap();
    let listing = listed(path.to_str().unwrap(), "changeit");
    assert!(listing.contains("Your keystore contains 1 entry"), "{listing}");
    assert!(listing.contains("Alias name: 1\n"), "{listing}");
    assert!(listing.contains("Entry type: PrivateKeyEntry"), "{listing}");
    assert!(listing.contains("Certificate chain length: 2"), "{listing}");
}

#[test]
fn java_trusts_the_anchors_of_a_truststore_of_both_profiles() {
    let folder = tempfile::tempdir().unwrap();
    let (credential, trust) = issued(KeyAlgorithm::EcdsaP256);
    for profile in [Pkcs12Profile::Modern, Pkcs12Profile::Legacy] {
        let mut spec = attributes();
        spec.files.truststore = Some(Truststore { file: "trust.p12".to_owned(), profile });
        let files = encode(&credential, &trust, &spec, None, None).unwrap();
        let truststore = contents(&files, "trust.p12");
        assert_eq!(truststore.mode, 0o444);
        let path = folder.path().join("trust.p12");
        std::fs::write(&path, &truststore.contents).unwrap();
        let listing = listed(path.to_str().unwrap(), "changeit");
        assert_eq!(listing.matches("Entry type: trustedCertEntry").count(), 2, "{listing}");
        assert!(listing.contains("Alias name: ca\n") && listing.contains("Alias name: ca-2\n"), "{listing}");
        assert!(!listing.contains("PrivateKeyEntry"), "{listing}");
    }
}

#[test]
fn an_owner_has_the_key_alone_or_with_a_group() {
    let (credential, trust) = issued(KeyAlgorithm::EcdsaP256);
    let mut spec = spec(KeyEncoding::Pkcs8, "changeit");
    spec.owner = Some(1000);
    for (group, mode) in [(None, 0o400), (Some(2000), 0o440)] {
        for file in encode(&credential, &trust, &spec, group, None).unwrap() {
            let expected = if ["tls.crt", "ca.crt"].contains(&file.name.as_str()) {
                (0o444, None, None)
            } else {
                (mode, Some(1000), group)
            };
            assert_eq!((file.mode, file.owner, file.group), expected, "{}", file.name);
        }
    }
}

#[test]
fn under_the_peers_prefix_the_key_is_readable_in_roots_group() {
    let (credential, trust) = issued(KeyAlgorithm::EcdsaP256);
    let mut spec = spec(KeyEncoding::Pkcs8, "changeit");
    spec.dialect = Dialect::CertManager;
    for file in encode(&credential, &trust, &spec, None, None).unwrap() {
        let is_public = ["tls.crt", "ca.crt"].contains(&file.name.as_str());
        assert_eq!((file.mode, file.group), (if is_public { 0o444 } else { 0o440 }, None), "{}", file.name);
    }
}

#[test]
fn openssl_3_opens_the_keystore_without_legacy_algorithms() {
    for algorithm in ALL_ALGORITHMS {
        let issued = issued(algorithm);
        for password in ["changeit", "", "päss wörd 😀", &"long".repeat(40)] {
            let store = keystore(&issued, password);
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
            assert_eq!(openssl_public_key(&key), issued.0.key.spki_der());
            let leaf = openssl(&["pkcs12", "-nokeys", "-clcerts", "-passin", &pass], &store);
            assert_eq!(subjects(&leaf), ["CN=wéb 😀"]);
            let rest = openssl(&["pkcs12", "-nokeys", "-cacerts", "-passin", &pass], &store);
            assert_eq!(subjects(&rest), ["CN=middle", "CN=root", "CN=next root"]);
        }
        assert!(
            !run("openssl", &["pkcs12", "-noout", "-passin", "pass:wrong"], &keystore(&issued, "right")).0
        );
    }
}

#[test]
fn java_17_opens_the_keystore_and_trusts_the_anchors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.p12");
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa(2048), KeyAlgorithm::Ed25519] {
        std::fs::write(&path, keystore(&issued(algorithm), "changeit")).unwrap();
        let path = path.to_str().unwrap();
        let listing = listed(path, "changeit");
        assert!(listing.contains("Your keystore contains 3 entries"), "{listing}");
        assert!(listing.contains("Alias name: certificate\n"), "{listing}");
        assert_eq!(listing.matches("Entry type: PrivateKeyEntry").count(), 1, "{listing}");
        assert!(listing.contains("Certificate chain length: 3"), "{listing}");
        assert!(listing.contains("Alias name: ca\n") && listing.contains("Alias name: ca-2\n"), "{listing}");
        assert_eq!(listing.matches("Entry type: trustedCertEntry").count(), 2, "{listing}");
        // An import also decrypts the key, which has a password of its own.
        let copy = folder.path().join(format!("{algorithm:?}.p12"));
        let import = ["-importkeystore", "-srckeystore", path, "-srcstorepass", "changeit", "-destkeystore"];
        let import = [&import[..], &[copy.to_str().unwrap(), "-deststorepass", "changeit"]].concat();
        let (success, errors, output) = run("keytool", &import, b"");
        assert!(success, "{errors}{}", String::from_utf8_lossy(&output));
    }
}

#[test]
fn the_key_is_not_in_the_keystore_in_the_clear() {
    let issued = issued(KeyAlgorithm::Ed25519);
    let store = keystore(&issued, "changeit");
    let seed = &issued.0.key.to_pkcs8_der()[issued.0.key.to_pkcs8_der().len() - 32..];
    assert!(!store.windows(32).any(|window| window == seed));
}
