use super::*;

#[test]
fn a_certificate_for_another_key_is_refused() {
    let hierarchy = hierarchy();
    let other = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let wrong = hierarchy.check_leaf(|leaf| leaf.spki = other.spki_der().to_vec());
    assert_eq!(wrong, Err(VerifyError::WrongKey));
    assert_eq!(hierarchy.check(&[&hierarchy.root.der], None), Err(VerifyError::WrongKey));
}

#[test]
fn every_missing_name_is_named() {
    let hierarchy = hierarchy();
    let error = hierarchy.check_leaf(|leaf| {
        leaf.attributes.sans.dns_names = vec!["other.example".into()];
        leaf.attributes.sans.ip_addresses.pop();
    });
    let missing = vec!["DNS:web.shop.svc".to_owned(), "IP:2001:db8::7".to_owned()];
    assert_eq!(error, Err(VerifyError::MissingNames(missing)));
    let error = hierarchy
        .check_leaf(|leaf| leaf.attributes.sans.uris = vec!["spiffe://EXAMPLE.org/ns/shop/sa/web".into()]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the certificate lacks names that were asked for: URI:spiffe://example.org/ns/shop/sa/web"
    );
}

#[test]
fn of_many_missing_names_the_first_are_named_and_the_rest_counted() {
    let mut hierarchy = hierarchy();
    hierarchy.attributes.sans.dns_names =
        (0..400).map(|number| format!("{number:03}.{}", "x".repeat(240))).collect();
    let error = hierarchy.check_leaf(|leaf| leaf.attributes.sans.dns_names = vec!["other".into()]);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("DNS:000.xxx") && message.ends_with("… and 392 more"), "{message}");
    assert!(message.len() < 2_000, "{}", message.len());
}

#[test]
fn a_certificate_that_is_not_valid_now_is_refused() {
    let hierarchy = hierarchy();
    let second = SignedDuration::from_secs(1);
    let error =
        hierarchy.check_leaf(|leaf| (leaf.from, leaf.to) = (now() - second * 9, now() - second)).unwrap_err();
    assert_eq!(error, VerifyError::Expired("CN=web".into(), now() - second));
    let error = hierarchy.check_leaf(|leaf| leaf.from = now() + second * 61).unwrap_err();
    assert_eq!(error, VerifyError::NotYetValid("CN=web".into(), now() + second * 61));
    hierarchy.check_leaf(|leaf| leaf.from = now() - second * 3600).unwrap();
}

#[test]
fn the_ca_flag_must_be_as_asked() {
    let mut hierarchy = hierarchy();
    let error = hierarchy.check_leaf(|leaf| leaf.attributes.is_ca = true).unwrap_err();
    assert_eq!(error.to_string(), "is-ca: no CA was asked for and the certificate is a CA's");
    hierarchy.attributes.is_ca = true;
    let error = hierarchy.check_leaf(|leaf| leaf.attributes.is_ca = false).unwrap_err();
    assert_eq!(error.to_string(), "is-ca: a CA was asked for and the certificate is not a CA's");
    hierarchy.check_leaf(|_| {}).unwrap();
}

#[test]
fn a_broken_link_is_refused() {
    let hierarchy = hierarchy();
    let impostor = authority("CN=upper", KeyAlgorithm::EcdsaP256, Some(&hierarchy.root));
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    let error = hierarchy.check(&[&leaf, &impostor.der], Some(&[&hierarchy.root.der])).unwrap_err();
    let message =
        "the chain is broken: \"CN=web\" names \"CN=upper\" as its issuer, but the signature does not verify";
    assert_eq!(error.to_string(), message);
    // With the right intermediate beside it the chain is accepted.
    hierarchy.check(&[&leaf, &impostor.der, &hierarchy.upper.der], Some(&[&hierarchy.root.der])).unwrap();
    // The same holds for a root that has been renewed under its old name.
    let old_root = authority("CN=root", KeyAlgorithm::EcdsaP384, None);
    let leaf = hierarchy.leaf(&hierarchy.root, |_| {});
    let error = hierarchy.check(&[&leaf], Some(&[&old_root.der])).unwrap_err();
    assert!(matches!(error, VerifyError::BrokenLink(..)), "{error}");
    hierarchy.check(&[&leaf], Some(&[&old_root.der, &hierarchy.root.der])).unwrap();
}

#[test]
fn an_issuer_that_is_no_ca_or_has_expired_is_refused() {
    let mut hierarchy = hierarchy();
    let end = hierarchy.leaf(&hierarchy.root, |_| {});
    let name = testing::encoded(&hierarchy.attributes.subject);
    let issuer = Authority {
        name,
        key: std::mem::replace(&mut hierarchy.key, PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap()),
        der: end,
    };
    hierarchy.attributes.subject = Subject::Literal("CN=below".parse().unwrap());
    let leaf = hierarchy.leaf(&issuer, |_| {});
    let error = hierarchy.check(&[&leaf, &issuer.der], None);
    assert_eq!(error, Err(VerifyError::IssuerNotCa("CN=web".into())));

    let leaf = hierarchy.leaf(&hierarchy.upper, |leaf| leaf.to = now() + SignedDuration::from_hours(5000));
    let answer = Answer { chain: pem::certificates([leaf.as_slice(), &hierarchy.upper.der]), ca: None };
    let later = now() + SignedDuration::from_hours(2000);
    let error =
        verify(&answer.chain, answer.ca.as_deref(), hierarchy.key.spki_der(), &hierarchy.attributes, later)
            .unwrap_err();
    assert!(
        error.to_string().starts_with("the certificate of \"CN=upper\" expired at 2026-06-12T"),
        "{error}"
    );
}

#[test]
fn an_intermediate_of_version_1_is_refused() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    let upper = version_1(&hierarchy.upper, &hierarchy.root);
    let error = hierarchy.check(&[&leaf, &upper, &hierarchy.root.der], None);
    assert_eq!(error, Err(VerifyError::IssuerNotCa("CN=upper".into())));
}

/// Only a root may have a signature that is not accepted.
#[test]
fn a_leaf_whose_signature_is_not_accepted_is_refused_though_its_ca_has_its_name() {
    let hierarchy = hierarchy();
    let ca = authority("CN=web", KeyAlgorithm::EcdsaP256, None);
    assert_eq!(ca.name, testing::encoded(&hierarchy.attributes.subject));
    let leaf = with_sha224(&hierarchy.leaf(&ca, |_| {}));
    let error = hierarchy.check(&[&leaf, &ca.der], None).unwrap_err().to_string();
    assert!(error.contains("an algorithm that is not accepted (1.2.840.10045.4.3.1)"), "{error}");
    assert!(hierarchy.check(&[&leaf], None).unwrap().trust_anchors.is_empty());
}

#[test]
fn an_unrelated_ca_is_refused() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    let chain: [&[u8]; 2] = [&leaf, &hierarchy.upper.der];
    let error = hierarchy.check(&chain, Some(&[&hierarchy.other_root.der])).unwrap_err();
    assert_eq!(error, VerifyError::NotAnchored("CN=root".into()));
    let error = hierarchy.check(&[&leaf, &hierarchy.other_root.der], None).unwrap_err();
    assert_eq!(error, VerifyError::Unrelated("CN=other root".into()));
}

#[test]
fn what_is_not_a_chain_of_certificates_is_refused() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.root, |_| {});
    let good = pem::certificates([leaf.as_slice()]);
    let error = |chain: &[u8], ca: Option<&[u8]>| {
        let answer = Answer { chain: chain.to_vec(), ca: ca.map(<[u8]>::to_vec) };
        verify(&answer.chain, answer.ca.as_deref(), hierarchy.key.spki_der(), &hierarchy.attributes, now())
            .unwrap_err()
            .to_string()
    };
    let not_pem = "the signer's chain is not PEM: it holds no PEM block (a line \"-----BEGIN ...-----\")";
    assert_eq!(error(b"", None), not_pem);
    assert_eq!(error(b"<html>503</html>", None), not_pem);
    assert_eq!(error(&leaf, None), not_pem);
    assert!(error(&good, Some(b"nonsense")).starts_with("the signer's CA bundle is not PEM"));

    let key = hierarchy.key.to_pem(crate::model::KeyEncoding::Pkcs8).unwrap();
    let with_key = [good.as_slice(), key.as_slice()].concat();
    let refused = "the signer's chain holds a PRIVATE KEY block; accepted are only CERTIFICATE blocks";
    assert_eq!(error(&with_key, None), refused);

    let mut trailing = leaf.clone();
    trailing.push(0);
    let error_of = |der: &[u8]| error(&pem::certificates([der]), None);
    assert_eq!(
        error_of(&trailing),
        "certificate 1 of the signer's chain does not parse: 1 bytes follow the certificate"
    );
    assert!(error_of(&leaf[..leaf.len() - 1]).ends_with("it is not an X.509 certificate in DER"));
    let request = csr(&hierarchy.attributes, &hierarchy.key).unwrap();
    assert!(error_of(&request).ends_with("it is not an X.509 certificate in DER"));

    assert!(error(&vec![b'x'; 70_000], None).contains("is too long; accepted are at most 65536 bytes"));
    let many: Vec<_> = (0..21)
        .map(|n| hierarchy.leaf(&hierarchy.root, |leaf| leaf.to += SignedDuration::from_secs(n)))
        .collect();
    let many = pem::certificates(many.iter().map(Vec::as_slice));
    assert!(error(&many, None).contains("holds 21 certificates; accepted are at most 20"));
}

/// Every byte changed, every truncation, in the DER and in the PEM.
#[test]
fn no_damage_to_an_answer_makes_verification_panic_or_pass() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    for at in 0..leaf.len() {
        let mut damaged = leaf.clone();
        damaged[at] ^= 1 << (at % 8);
        let ca = [hierarchy.root.der.as_slice()];
        assert!(hierarchy.check(&[&damaged, &hierarchy.upper.der], Some(&ca)).is_err(), "byte {at}");
        let _ = hierarchy.check(&[&leaf[..at], &hierarchy.upper.der], None);
    }
    let text = pem::certificates([leaf.as_slice(), &hierarchy.upper.der]);
    for at in 0..text.len() {
        let mut damaged = text.clone();
        damaged[at] = damaged[at].wrapping_add(u8::try_from(at % 251).unwrap());
        for chain in [damaged, text[..at].to_vec()] {
            let answer = Answer { ca: Some(chain.clone()), chain };
            let _ = verify(
                &answer.chain,
                answer.ca.as_deref(),
                hierarchy.key.spki_der(),
                &hierarchy.attributes,
                now(),
            );
        }
    }
}

#[test]
fn a_ca_with_a_small_rsa_key_is_refused() {
    let hierarchy = hierarchy();
    let (leaf, ca) = openssl_chain(&hierarchy, &["-newkey", "rsa:1024", "-sha256"]);
    let answer = Answer { chain: [leaf, ca].concat(), ca: None };
    let refused = verify(
        &answer.chain,
        answer.ca.as_deref(),
        hierarchy.key.spki_der(),
        &hierarchy.attributes,
        Timestamp::now(),
    )
    .unwrap_err();
    assert!(refused.to_string().contains("RSA key of 1024 bits; accepted are 2048 to 8192"), "{refused}");
}
