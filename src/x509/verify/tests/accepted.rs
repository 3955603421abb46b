use super::*;

#[test]
fn a_good_answer_gives_leaf_chain_anchors_and_facts() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.lower, |_| {});
    let verified = hierarchy
        .check(&[&leaf, &hierarchy.lower.der, &hierarchy.upper.der], Some(&[&hierarchy.root.der]))
        .unwrap();
    assert_eq!(verified.leaf, leaf);
    assert_eq!(verified.intermediates, [hierarchy.lower.der.clone(), hierarchy.upper.der.clone()]);
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&hierarchy.root.der));
    assert_eq!(verified.warning, None);
    let facts = verified.facts;
    assert_eq!((facts.serial.as_str(), facts.subject.as_str()), ("ab01", "CN=web"));
    assert_eq!(
        facts.sans,
        ["DNS:web.shop.svc", "IP:10.1.2.3", "IP:2001:db8::7", "URI:spiffe://example.org/ns/shop/sa/web"]
    );
    assert_eq!((facts.not_before, facts.not_after), (now(), now() + SignedDuration::from_hours(24)));
}

#[test]
fn a_chain_out_of_order_and_with_duplicates_is_put_in_order() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.lower, |_| {});
    let expected = hierarchy.check(&[&leaf, &hierarchy.lower.der, &hierarchy.upper.der], None).unwrap();
    for shuffled in [
        [&hierarchy.upper.der, &leaf, &hierarchy.lower.der, &leaf],
        [&hierarchy.lower.der, &hierarchy.upper.der, &hierarchy.lower.der, &leaf],
        [&leaf, &hierarchy.upper.der, &hierarchy.upper.der, &hierarchy.lower.der],
    ] {
        assert_eq!(hierarchy.check(&shuffled.map(Vec::as_slice), None).unwrap(), expected);
    }
}

#[test]
fn a_root_in_the_chain_becomes_the_anchor_unless_the_signer_names_anchors() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    let chain: [&[u8]; 3] = [&leaf, &hierarchy.upper.der, &hierarchy.root.der];
    let verified = hierarchy.check(&chain, None).unwrap();
    assert_eq!(verified.intermediates, std::slice::from_ref(&hierarchy.upper.der));
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&hierarchy.root.der));
    // cert-manager writes the highest intermediate into `ca` where it knows no root.
    let verified = hierarchy.check(&chain[..2], Some(&[&hierarchy.upper.der])).unwrap();
    assert_eq!(verified.intermediates, std::slice::from_ref(&hierarchy.upper.der));
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&hierarchy.upper.der));
    let anchors: [&[u8]; 2] = [&hierarchy.other_root.der, &hierarchy.root.der];
    assert_eq!(hierarchy.check(&chain, Some(&anchors)).unwrap().trust_anchors, anchors);
}

#[test]
fn an_answer_without_root_and_anchors_gives_no_trust_anchors() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    assert!(hierarchy.check(&[&leaf, &hierarchy.upper.der], None).unwrap().trust_anchors.is_empty());
    let answer = Answer { chain: pem::certificates([leaf.as_slice()]), ca: Some(b" \n".to_vec()) };
    let verified =
        verify(&answer.chain, answer.ca.as_deref(), hierarchy.key.spki_der(), &hierarchy.attributes, now())
            .unwrap();
    assert!(verified.trust_anchors.is_empty());
}

#[test]
fn an_anchor_that_is_no_root_is_a_warning() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    let warning = |ca: &[u8]| hierarchy.check(&[&leaf, &hierarchy.upper.der], Some(&[ca])).unwrap().warning;
    assert!(warning(&hierarchy.upper.der).unwrap().contains("is not self-signed"));
    assert_eq!(warning(&hierarchy.root.der), None);
}

#[test]
fn a_self_signed_leaf_is_its_own_anchor() {
    let mut hierarchy = hierarchy();
    let own_key = PrivateKey::from_pkcs8_der(hierarchy.key.to_pkcs8_der()).unwrap();
    let own =
        Authority { name: testing::encoded(&hierarchy.attributes.subject), key: own_key, der: Vec::new() };
    let leaf = hierarchy.leaf(&own, |_| {});
    for ca in [None, Some([leaf.as_slice()].as_slice())] {
        let verified = hierarchy.check(&[&leaf], ca).unwrap();
        assert!(verified.intermediates.is_empty());
        assert_eq!(verified.trust_anchors, std::slice::from_ref(&leaf));
    }
    hierarchy.attributes.is_ca = true;
    let leaf = hierarchy.leaf(&own, |_| {});
    assert_eq!(hierarchy.check(&[&leaf], None).unwrap().trust_anchors, [leaf]);
}

#[test]
fn a_cross_signed_certificate_of_the_root_is_accepted() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.root, |_| {});
    let cross_signed = Template {
        serial: &[9],
        issuer: &hierarchy.other_root.name,
        not_before: now(),
        not_after: now() + SignedDuration::from_hours(1),
        subject: &hierarchy.root.name,
        spki: hierarchy.root.key.spki_der(),
        extensions: &[basic_constraints(true).unwrap()],
    };
    let cross_signed = cross_signed.sign(&hierarchy.other_root.key).unwrap();
    let verified = hierarchy
        .check(&[&leaf, &cross_signed, &hierarchy.root.der, &hierarchy.other_root.der], None)
        .unwrap();
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&hierarchy.root.der));
    let verified = hierarchy.check(&[&leaf, &cross_signed], Some(&[&hierarchy.other_root.der])).unwrap();
    assert_eq!(verified.intermediates, [cross_signed]);
}

#[test]
fn a_root_signed_with_an_unaccepted_algorithm_is_still_the_anchor() {
    let hierarchy = hierarchy();
    let (leaf, ca) = openssl_chain(&hierarchy, &["-newkey", "rsa:2048", "-sha1"]);
    let root = pem::blocks(&ca).unwrap().remove(0).der.to_vec();
    for named in [None, Some(ca.clone())] {
        let answer = Answer { chain: [leaf.as_slice(), ca.as_slice()].concat(), ca: named };
        let verified = verify(
            &answer.chain,
            answer.ca.as_deref(),
            hierarchy.key.spki_der(),
            &hierarchy.attributes,
            Timestamp::now(),
        )
        .unwrap();
        assert!(verified.intermediates.is_empty());
        assert_eq!(verified.trust_anchors, std::slice::from_ref(&root));
    }
}

#[test]
fn key_identifiers_tell_such_a_root_from_an_intermediate_whose_issuer_has_its_name() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    for (issuers_key, is_root) in [([1_u8; 20], true), ([2_u8; 20], false)] {
        let template = Template {
            serial: &[1],
            issuer: &hierarchy.upper.name,
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(1),
            subject: &hierarchy.upper.name,
            spki: hierarchy.upper.key.spki_der(),
            extensions: &[
                basic_constraints(true).unwrap(),
                certificate::subject_key_id(&[1; 20]).unwrap(),
                certificate::authority_key_id(&issuers_key).unwrap(),
            ],
        };
        let upper = with_sha224(&template.sign(&hierarchy.upper.key).unwrap());
        let verified = hierarchy.check(&[&leaf, &upper], None).unwrap();
        assert_eq!(verified.trust_anchors.contains(&upper), is_root);
        assert_eq!(verified.intermediates.contains(&upper), !is_root);
    }
}

#[test]
fn a_new_root_key_signed_by_the_old_one_leads_to_the_old_root() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.root, |_| {});
    // A signature that does not verify with the new key, and one that a key of its kind cannot have made.
    for algorithm in [KeyAlgorithm::EcdsaP384, KeyAlgorithm::Ed25519] {
        let old = authority("CN=root", algorithm, None);
        let template = Template {
            serial: &[2],
            issuer: &old.name,
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(1),
            subject: &old.name,
            spki: hierarchy.root.key.spki_der(),
            extensions: &[basic_constraints(true).unwrap()],
        };
        let new = template.sign(&old.key).unwrap();
        let verified = hierarchy.check(&[&leaf, &new, &old.der], None).unwrap();
        assert_eq!(verified.intermediates, std::slice::from_ref(&new));
        assert_eq!(verified.trust_anchors, std::slice::from_ref(&old.der));
        let verified = hierarchy.check(&[&leaf, &new], None).unwrap();
        assert!(verified.trust_anchors.is_empty(), "{algorithm:?}");
    }
}

#[test]
fn a_root_of_version_1_is_an_anchor_without_basic_constraints() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.upper, |_| {});
    let root = version_1(&hierarchy.root, &hierarchy.root);
    let verified = hierarchy.check(&[&leaf, &hierarchy.upper.der, &root], None).unwrap();
    assert_eq!(verified.intermediates, std::slice::from_ref(&hierarchy.upper.der));
    assert_eq!(verified.trust_anchors, [root]);
    let upper = with_sha224(&version_1(&hierarchy.upper, &hierarchy.upper));
    assert_eq!(hierarchy.check(&[&leaf, &upper], None).unwrap().trust_anchors, [upper]);
}

#[test]
fn a_clock_a_little_behind_the_signers_is_accepted_with_a_warning() {
    let hierarchy = hierarchy();
    let verified = hierarchy.check_leaf(|leaf| leaf.from = now() + SignedDuration::from_secs(60)).unwrap();
    assert!(verified.warning.unwrap().contains("compare the clocks"));
}

#[test]
fn usages_that_were_left_out_are_accepted_with_a_warning() {
    let mut hierarchy = hierarchy();
    hierarchy.attributes.usages =
        vec![Usage::DigitalSignature, Usage::ServerAuth, Usage::IpsecTunnel, Usage::CrlSign];
    let verified = hierarchy
        .check_leaf(|leaf| leaf.attributes.usages = vec![Usage::DigitalSignature, Usage::ServerAuth])
        .unwrap();
    assert_eq!(
        verified.warning.unwrap(),
        "the signer left out usages that were asked for: ipsec tunnel, crl sign"
    );
    assert_eq!(hierarchy.check_leaf(|_| {}).unwrap().warning, None);
}

#[test]
fn comments_and_crlf_in_the_answer_do_no_harm() {
    let hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.root, |_| {});
    let chain = String::from_utf8(pem::certificates([leaf.as_slice()])).unwrap().replace('\n', "\r\n");
    let chain = format!("Certificate:\r\n    Data: é\r\n{chain}\r\n\r\n# end").into_bytes();
    let answer = Answer { chain, ca: None };
    let verified =
        verify(&answer.chain, answer.ca.as_deref(), hierarchy.key.spki_der(), &hierarchy.attributes, now())
            .unwrap();
    assert_eq!(verified.leaf, leaf);
    assert_eq!(verified.warning, None);
}

#[test]
fn leaves_that_openssl_signs_with_every_kind_of_ca_are_accepted() {
    let hierarchy = hierarchy();
    let request = csr(&hierarchy.attributes, &hierarchy.key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("csr"), &request).unwrap();
    let mut styles: Vec<(KeyAlgorithm, Vec<&str>)> =
        ALL_ALGORITHMS.map(|algorithm| (algorithm, vec![])).to_vec();
    styles.push((
        KeyAlgorithm::Rsa(3072),
        vec!["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"],
    ));
    styles.push((KeyAlgorithm::EcdsaP256, vec!["-sha512"]));
    for (algorithm, style) in styles {
        let key = PrivateKey::generate(algorithm).unwrap().to_pem(crate::model::KeyEncoding::Pkcs8).unwrap();
        std::fs::write(path("key"), &key).unwrap();
        let (key, ca, request) = (path("key"), path("ca"), path("csr"));
        openssl(&["req", "-x509", "-new", "-key", &key, "-subj", "/CN=openssl", "-out", &ca], b"");
        let sign = [
            "x509",
            "-req",
            "-inform",
            "DER",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &key,
            "-copy_extensions",
            "copy",
        ];
        let chain = openssl(&[&sign[..], &style].concat(), b"");
        let answer = Answer { chain, ca: Some(std::fs::read(&ca).unwrap()) };
        verify(
            &answer.chain,
            answer.ca.as_deref(),
            hierarchy.key.spki_der(),
            &hierarchy.attributes,
            Timestamp::now(),
        )
        .unwrap_or_else(|error| panic!("{algorithm:?} {style:?}: {error}"));
    }
    let key = PrivateKey::generate(KeyAlgorithm::Rsa(2048)).unwrap();
    std::fs::write(path("key"), key.to_pem(crate::model::KeyEncoding::Pkcs8).unwrap()).unwrap();
    let (key, ca, request) = (path("key"), path("ca"), path("csr"));
    openssl(&["req", "-x509", "-new", "-key", &key, "-subj", "/CN=openssl", "-out", &ca], b"");
    let sign = ["x509", "-req", "-inform", "DER", "-in", &request, "-CA", &ca, "-CAkey", &key, "-sha1"];
    let sign = [&sign[..], &["-copy_extensions", "copy"]].concat();
    let answer = Answer { chain: openssl(&sign, b""), ca: Some(std::fs::read(&ca).unwrap()) };
    let error = verify(
        &answer.chain,
        answer.ca.as_deref(),
        hierarchy.key.spki_der(),
        &hierarchy.attributes,
        Timestamp::now(),
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("an algorithm that is not accepted (1.2.840.113549.1.1.5)"), "{error}");
}
