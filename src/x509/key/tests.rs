use super::*;
use crate::x509::testing::{ALL_ALGORITHMS, openssl, openssl_public_key};

#[test]
fn every_key_in_every_encoding_is_read_by_openssl_as_the_same_key() {
    for algorithm in ALL_ALGORITHMS {
        let key = PrivateKey::generate(algorithm).unwrap();
        for encoding in [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8] {
            let pem = key.to_pem(encoding).unwrap();
            openssl(&["pkey", "-check", "-noout"], &pem);
            assert_eq!(openssl_public_key(&pem), key.spki_der(), "{algorithm:?} {encoding:?}");
            let again = PrivateKey::from_pem(&pem).unwrap();
            assert_eq!((again.algorithm(), again.spki_der()), (algorithm, key.spki_der()));
            assert_eq!(again.to_pkcs8_der(), key.to_pkcs8_der());
        }
    }
}

#[test]
fn the_pem_label_follows_algorithm_and_encoding() {
    let label = |algorithm, encoding| {
        let pem = PrivateKey::generate(algorithm).unwrap().to_pem(encoding).unwrap();
        String::from_utf8(pem.to_vec()).unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(label(KeyAlgorithm::Rsa(2048), KeyEncoding::Pkcs1), "-----BEGIN RSA PRIVATE KEY-----");
    assert_eq!(label(KeyAlgorithm::EcdsaP256, KeyEncoding::Pkcs1), "-----BEGIN EC PRIVATE KEY-----");
    assert_eq!(label(KeyAlgorithm::Ed25519, KeyEncoding::Pkcs1), "-----BEGIN PRIVATE KEY-----");
    assert_eq!(label(KeyAlgorithm::EcdsaP384, KeyEncoding::Pkcs8), "-----BEGIN PRIVATE KEY-----");
}

#[test]
fn keys_that_openssl_makes_are_read() {
    let ec = openssl(&["ecparam", "-genkey", "-name", "secp384r1"], b"");
    assert_eq!(PrivateKey::from_pem(&ec).unwrap().algorithm(), KeyAlgorithm::EcdsaP384);
    let ed = openssl(&["genpkey", "-algorithm", "ed25519"], b"");
    assert_eq!(PrivateKey::from_pem(&ed).unwrap().algorithm(), KeyAlgorithm::Ed25519);
    let rsa = openssl(&["genrsa", "-traditional", "2048"], b"");
    assert_eq!(PrivateKey::from_pem(&rsa).unwrap().algorithm(), KeyAlgorithm::Rsa(2048));
}

#[test]
fn keys_that_are_not_supported_are_refused_with_what_is() {
    let error = |pem: &[u8]| PrivateKey::from_pem(pem).unwrap_err().to_string();
    assert!(error(&openssl(&["genrsa", "1024"], b"")).starts_with("the private key was rejected: TooSmall"));
    let k1 = openssl(&["ecparam", "-genkey", "-noout", "-name", "secp256k1"], b"");
    assert!(
        error(&k1)
            .starts_with("this elliptic curve key is not supported; accepted are RSA of 2048 to 8192 bits")
    );
    let x25519 = openssl(&["genpkey", "-algorithm", "x25519"], b"");
    assert!(error(&x25519).starts_with("algorithm 1.3.101.110 is not supported"));
    let encrypted = openssl(&["genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x"], b"");
    assert!(error(&encrypted).starts_with("the private key is encrypted"));
    assert_eq!(
        error(b"junk"),
        "the private key is not PEM: it holds no PEM block (a line \"-----BEGIN ...-----\")"
    );
    assert!(
        error(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").contains("was rejected")
    );
}

#[test]
fn debug_output_shows_no_key() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(EcdsaP256, redacted)");
}

#[test]
fn rsa_keys_of_other_sizes_are_made_and_read_back() {
    for bits in [2176, 2560] {
        let key = PrivateKey::generate(KeyAlgorithm::Rsa(bits)).unwrap();
        assert_eq!(key.algorithm(), KeyAlgorithm::Rsa(bits));
        let pem = key.to_pem(KeyEncoding::Pkcs1).unwrap();
        assert_eq!(PrivateKey::from_pem(&pem).unwrap().algorithm(), KeyAlgorithm::Rsa(bits));
        let text = crate::x509::testing::openssl_text(&["pkey", "-noout", "-text"], &pem);
        assert!(text.contains(&format!("({bits} bit")), "{text}");
    }
}
