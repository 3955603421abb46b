use super::*;

#[test]
fn a_good_answer_gives_leaf_chain_anchors_and_facts() {
    let world = world();
    let leaf = world.leaf(&world.lower, |_| {});
    let verified =
        world.check(&[&leaf, &world.lower.der, &world.upper.der], Some(&[&world.root.der])).unwrap();
    assert_eq!(verified.leaf, leaf);
    assert_eq!(verified.intermediates, [world.lower.der.clone(), world.upper.der.clone()]);
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&world.root.der));
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
    let world = world();
    let leaf = world.leaf(&world.lower, |_| {});
    let expected = world.check(&[&leaf, &world.lower.der, &world.upper.der], None).unwrap();
    for shuffled in [
        [&world.upper.der, &leaf, &world.lower.der, &leaf],
        [&world.lower.der, &world.upper.der, &world.lower.der, &leaf],
        [&leaf, &world.upper.der, &world.upper.der, &world.lower.der],
    ] {
        assert_eq!(world.check(&shuffled.map(Vec::as_slice), None).unwrap(), expected);
    }
}

#[test]
fn a_root_in_the_chain_becomes_the_anchor_unless_the_signer_names_anchors() {
    let world = world();
    let leaf = world.leaf(&world.upper, |_| {});
    let chain: [&[u8]; 3] = [&leaf, &world.upper.der, &world.root.der];
    let verified = world.check(&chain, None).unwrap();
    assert_eq!(verified.intermediates, std::slice::from_ref(&world.upper.der));
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&world.root.der));
    // cert-manager writes the highest intermediate into `ca` where it knows no root.
    let verified = world.check(&chain[..2], Some(&[&world.upper.der])).unwrap();
    assert_eq!(verified.intermediates, std::slice::from_ref(&world.upper.der));
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&world.upper.der));
    let anchors: [&[u8]; 2] = [&world.stranger.der, &world.root.der];
    assert_eq!(world.check(&chain, Some(&anchors)).unwrap().trust_anchors, anchors);
}

#[test]
fn without_a_root_and_without_anchors_there_are_none() {
    let world = world();
    let leaf = world.leaf(&world.upper, |_| {});
    assert!(world.check(&[&leaf, &world.upper.der], None).unwrap().trust_anchors.is_empty());
    let answer = Answer { chain: pem::certificates([leaf.as_slice()]), ca: Some(b" \n".to_vec()) };
    let verified =
        verify(&answer.chain, answer.ca.as_deref(), world.key.spki_der(), &world.attributes, now()).unwrap();
    assert!(verified.trust_anchors.is_empty());
}

#[test]
fn a_self_signed_leaf_is_its_own_anchor() {
    let mut world = world();
    let own_key = PrivateKey::from_pkcs8_der(world.key.to_pkcs8_der()).unwrap();
    let own = Authority { name: testing::encoded(&world.attributes.subject), key: own_key, der: Vec::new() };
    let leaf = world.leaf(&own, |_| {});
    for ca in [None, Some([leaf.as_slice()].as_slice())] {
        let verified = world.check(&[&leaf], ca).unwrap();
        assert!(verified.intermediates.is_empty());
        assert_eq!(verified.trust_anchors, std::slice::from_ref(&leaf));
    }
    world.attributes.is_ca = true;
    let leaf = world.leaf(&own, |_| {});
    assert_eq!(world.check(&[&leaf], None).unwrap().trust_anchors, [leaf]);
}

#[test]
fn a_cross_signed_twin_of_the_root_is_no_stranger() {
    let world = world();
    let leaf = world.leaf(&world.root, |_| {});
    let twin = Template {
        serial: &[9],
        issuer: &world.stranger.name,
        not_before: now(),
        not_after: now() + SignedDuration::from_hours(1),
        subject: &world.root.name,
        spki: world.root.key.spki_der(),
        extensions: &[basic_constraints(true).unwrap()],
    };
    let twin = twin.sign(&world.stranger.key).unwrap();
    let verified = world.check(&[&leaf, &twin, &world.root.der, &world.stranger.der], None).unwrap();
    assert_eq!(verified.trust_anchors, std::slice::from_ref(&world.root.der));
    let verified = world.check(&[&leaf, &twin], Some(&[&world.stranger.der])).unwrap();
    assert_eq!(verified.intermediates, [twin]);
}

#[test]
fn a_root_with_a_signature_that_is_not_accepted_is_the_anchor_all_the_same() {
    let world = world();
    let (leaf, ca) = openssl_chain(&world, &["-newkey", "rsa:2048", "-sha1"]);
    let root = pem::blocks(&ca).unwrap().remove(0).der.to_vec();
    for named in [None, Some(ca.clone())] {
        let answer = Answer { chain: [leaf.as_slice(), ca.as_slice()].concat(), ca: named };
        let verified = verify(
            &answer.chain,
            answer.ca.as_deref(),
            world.key.spki_der(),
            &world.attributes,
            Timestamp::now(),
        )
        .unwrap();
        assert!(verified.intermediates.is_empty());
        assert_eq!(verified.trust_anchors, std::slice::from_ref(&root));
    }
}

#[test]
fn key_identifiers_tell_such_a_root_from_an_intermediate_of_its_own_name() {
    let world = world();
    let leaf = world.leaf(&world.upper, |_| {});
    for (issuers_key, is_root) in [([1_u8; 20], true), ([2_u8; 20], false)] {
        let template = Template {
            serial: &[1],
            issuer: &world.upper.name,
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(1),
            subject: &world.upper.name,
            spki: world.upper.key.spki_der(),
            extensions: &[
                basic_constraints(true).unwrap(),
                certificate::subject_key_id(&[1; 20]).unwrap(),
                certificate::authority_key_id(&issuers_key).unwrap(),
            ],
        };
        let upper = with_sha224(&template.sign(&world.upper.key).unwrap());
        let verified = world.check(&[&leaf, &upper], None).unwrap();
        assert_eq!(verified.trust_anchors.contains(&upper), is_root);
        assert_eq!(verified.intermediates.contains(&upper), !is_root);
    }
}

#[test]
fn a_roots_new_key_that_its_old_one_has_signed_leads_to_the_old_root() {
    let world = world();
    let leaf = world.leaf(&world.root, |_| {});
    // A signature that does not verify with the new key, and one that a key of its kind cannot have made.
    for algorithm in [KeyAlgorithm::EcdsaP384, KeyAlgorithm::Ed25519] {
        let old = authority("CN=root", algorithm, None);
        let template = Template {
            serial: &[2],
            issuer: &old.name,
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(1),
            subject: &old.name,
            spki: world.root.key.spki_der(),
            extensions: &[basic_constraints(true).unwrap()],
        };
        let new = template.sign(&old.key).unwrap();
        let verified = world.check(&[&leaf, &new, &old.der], None).unwrap();
        assert_eq!(verified.intermediates, std::slice::from_ref(&new));
        assert_eq!(verified.trust_anchors, std::slice::from_ref(&old.der));
        let verified = world.check(&[&leaf, &new], None).unwrap();
        assert!(verified.trust_anchors.is_empty(), "{algorithm:?}");
    }
}

#[test]
fn a_root_of_version_1_is_an_anchor_though_it_cannot_say_that_it_is_a_ca() {
    let world = world();
    let leaf = world.leaf(&world.upper, |_| {});
    let root = version_1(&world.root, &world.root);
    let verified = world.check(&[&leaf, &world.upper.der, &root], None).unwrap();
    assert_eq!(verified.intermediates, std::slice::from_ref(&world.upper.der));
    assert_eq!(verified.trust_anchors, [root]);
    let upper = with_sha224(&version_1(&world.upper, &world.upper));
    assert_eq!(world.check(&[&leaf, &upper], None).unwrap().trust_anchors, [upper]);
}

#[test]
fn a_clock_a_little_behind_the_signers_is_accepted_with_a_warning() {
    let world = world();
    let verified = world.check_leaf(|leaf| leaf.from = now() + SignedDuration::from_secs(60)).unwrap();
    assert!(verified.warning.unwrap().contains("compare the clocks"));
}

#[test]
fn usages_that_were_left_out_are_accepted_with_a_warning() {
    let mut world = world();
    world.attributes.usages =
        vec![Usage::DigitalSignature, Usage::ServerAuth, Usage::IpsecTunnel, Usage::CrlSign];
    let verified =
        world.check_leaf(|leaf| leaf.attributes.usages = vec![Usage::DigitalSignature, Usage::ServerAuth]).unwrap();
    assert_eq!(
        verified.warning.unwrap(),
        "the signer left out usages that were asked for: ipsec tunnel, crl sign"
    );
    assert_eq!(world.check_leaf(|_| {}).unwrap().warning, None);
}

#[test]
fn comments_and_crlf_in_the_answer_do_no_harm() {
    let world = world();
    let leaf = world.leaf(&world.root, |_| {});
    let chain = String::from_utf8(pem::certificates([leaf.as_slice()])).unwrap().replace('\n', "\r\n");
    let chain = format!("Certificate:\r\n    Data: é\r\n{chain}\r\n\r\n# end").into_bytes();
    let answer = Answer { chain, ca: None };
    let verified =
        verify(&answer.chain, answer.ca.as_deref(), world.key.spki_der(), &world.attributes, now()).unwrap();
    assert_eq!(verified.leaf, leaf);
    assert_eq!(verified.warning, None);
}

#[test]
fn leaves_that_openssl_signs_with_every_kind_of_ca_are_accepted() {
    let world = world();
    let request = csr(&world.attributes, &world.key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("csr"), &request).unwrap();
    let mut styles: Vec<(KeyAlgorithm, Vec<&str>)> =
        ALL_ALGORITHMS.map(|algorithm| (algorithm, vec![])).to_vec();
    styles.push((
        KeyAlgorithm::Rsa3072,
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
            world.key.spki_der(),
            &world.attributes,
            Timestamp::now(),
        )
        .unwrap_or_else(|error| panic!("{algorithm:?} {style:?}: {error}"));
    }
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    std::fs::write(path("key"), key.to_pem(crate::model::KeyEncoding::Pkcs8).unwrap()).unwrap();
    let (key, ca, request) = (path("key"), path("ca"), path("csr"));
    openssl(&["req", "-x509", "-new", "-key", &key, "-subj", "/CN=openssl", "-out", &ca], b"");
    let sign = ["x509", "-req", "-inform", "DER", "-in", &request, "-CA", &ca, "-CAkey", &key, "-sha1"];
    let sign = [&sign[..], &["-copy_extensions", "copy"]].concat();
    let answer = Answer { chain: openssl(&sign, b""), ca: Some(std::fs::read(&ca).unwrap()) };
    let error = verify(
        &answer.chain,
        answer.ca.as_deref(),
        world.key.spki_der(),
        &world.attributes,
        Timestamp::now(),
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("an algorithm that is not accepted (1.2.840.113549.1.1.5)"), "{error}");
}
