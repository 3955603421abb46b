//! What a signer adds: refused under certlet's own prefix, a warning under a peer's.

use super::*;
use const_oid::ObjectIdentifier;
use der::asn1::OctetString;
use x509_cert::ext::Extension;

const IDENTITY_OF_WINDOWS: &str = "1.3.6.1.4.1.311.25.2";

fn extension(oid: &str, value: &[u8]) -> Extension {
    Extension {
        extn_id: ObjectIdentifier::new_unwrap(oid),
        critical: false,
        extn_value: OctetString::new(value).unwrap(),
    }
}

impl Hierarchy {
    /// What both prefixes say of a leaf: the refusal under certlet's own, the warning under a peer's.
    fn said(&mut self, leaf: &[u8]) -> (Option<String>, Option<String>) {
        let mut check = |dialect| {
            self.attributes.dialect = dialect;
            self.check(&[leaf], Some(&[&self.root.der]))
        };
        let refusal = check(Dialect::Certlet).err().map(|error| error.to_string());
        (refusal, check(Dialect::CertManager).unwrap().warning)
    }

    fn assert_added(&mut self, leaf: &[u8], said: &str) {
        let (refusal, warning) = self.said(leaf);
        let accepted = "; accepted under csi.certlet.io/ is what the volume asks for, and nothing else";
        assert_eq!(refusal.as_deref(), Some(format!("{said}{accepted}").as_str()));
        assert_eq!(warning.as_deref(), Some(said));
    }

    /// A leaf as it was asked for, with these extensions instead of its usages.
    fn leaf_with(&self, extensions: &[Extension]) -> Vec<u8> {
        let subject = name::encode(&self.attributes.subject, self.attributes.dialect).unwrap();
        let mut all = vec![subject_alt_names(&self.attributes.sans, &subject).unwrap()];
        all.extend_from_slice(extensions);
        let template = Template {
            serial: &[1],
            issuer: &self.root.name,
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(1),
            subject: &testing::encoded(&self.attributes.subject),
            spki: self.key.spki_der(),
            extensions: &all,
        };
        template.sign(&self.root.key).unwrap()
    }
}

#[test]
fn a_name_that_was_not_asked_for_is_an_addition() {
    let mut hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.root, |leaf| {
        leaf.attributes.sans.dns_names.push("payments.bank.svc".into());
        leaf.attributes.sans.uris.push("spiffe://example.org/ns/bank/sa/admin".into());
        leaf.attributes.sans.ip_addresses.push("10.9.9.9".parse().unwrap());
    });
    hierarchy.assert_added(
        &leaf,
        "the signer added names that were not asked for: DNS:payments.bank.svc, IP:10.9.9.9, \
         URI:spiffe://example.org/ns/bank/sa/admin",
    );
    // The case of a DNS name does not matter.
    let leaf =
        hierarchy.leaf(&hierarchy.root, |leaf| leaf.attributes.sans.dns_names = vec!["WEB.shop.svc".into()]);
    assert_eq!(hierarchy.said(&leaf), (None, None));
}

#[test]
fn many_long_names_are_cut_in_the_message() {
    let mut hierarchy = hierarchy();
    let leaf = hierarchy.leaf(&hierarchy.root, |leaf| {
        leaf.attributes.sans.dns_names.extend((0..40).map(|n| format!("{n}{}", "x".repeat(400))));
    });
    let (refusal, _) = hierarchy.said(&leaf);
    let refusal = refusal.unwrap();
    assert!(refusal.contains("… and 32 more;") && refusal.len() < 2000, "{refusal}");
}

#[test]
fn an_alternative_name_of_any_other_kind_is_an_addition() {
    let mut hierarchy = hierarchy();
    hierarchy.attributes.sans = SubjectAltNames::default();
    // SEQUENCE of: rfc822Name, otherName (user principal name), registeredID.
    let names = b"\x30\x2a\x81\x09a@bank.io\xa0\x18\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x14\x02\x03\xa0\x0a\x0c\x08admin@ad\x88\x03\x2a\x03\x04";
    let leaf = hierarchy.leaf_with(&[extension("2.5.29.17", names)]);
    // `leaf_with` writes the names that were asked for too: none here, so that it is there twice.
    assert!(hierarchy.check(&[&leaf], None).unwrap_err().to_string().contains("is there twice"));
    let subject = testing::encoded(&hierarchy.attributes.subject);
    let template = Template {
        serial: &[1],
        issuer: &hierarchy.root.name,
        not_before: now(),
        not_after: now() + SignedDuration::from_hours(1),
        subject: &subject,
        spki: hierarchy.key.spki_der(),
        extensions: &[extension("2.5.29.17", names)],
    };
    let leaf = template.sign(&hierarchy.root.key).unwrap();
    let (refusal, _) = hierarchy.said(&leaf);
    let refusal = refusal.unwrap();
    for name in ["email:a@bank.io", "othername:1.3.6.1.4.1.311.20.2.3#", "RID:1.2.3.4"] {
        assert!(refusal.contains(name), "{name}: {refusal}");
    }
}

#[test]
fn another_subject_is_an_addition() {
    let mut hierarchy = hierarchy();
    for (subject, shown) in
        [("CN=admin", "CN=admin"), ("CN=web,O=bank", "CN=web,O=bank"), ("CN=Web", "CN=Web")]
    {
        let leaf = hierarchy.leaf(&hierarchy.root, |leaf| {
            leaf.attributes.subject = Subject::Literal(subject.parse().unwrap());
        });
        let said = format!("the signer set the subject \"{shown}\" where \"CN=web\" was asked for");
        hierarchy.assert_added(&leaf, &said);
    }
}

#[test]
fn a_subject_in_another_type_of_string_is_the_same() {
    let mut hierarchy = hierarchy();
    // A UTF8String where ours is a PrintableString: CN=web.
    hierarchy.attributes.subject = Subject::Literal("CN=#0C03776562".parse().unwrap());
    let leaf = hierarchy.leaf(&hierarchy.root, |_| {});
    hierarchy.attributes.subject = attributes().subject;
    assert_eq!(hierarchy.said(&leaf), (None, None));
}

#[test]
fn a_common_name_that_repeats_a_dns_name_is_accepted_where_none_was_asked_for() {
    let mut hierarchy = hierarchy();
    hierarchy.attributes.subject = Subject::Fields(crate::model::SubjectFields::default());
    let with = |hierarchy: &Hierarchy, name: &str| {
        let name = format!("CN={name}").parse().unwrap();
        hierarchy.leaf(&hierarchy.root, |leaf| leaf.attributes.subject = Subject::Literal(name))
    };
    let repeated = with(&hierarchy, "web.shop.svc");
    assert_eq!(hierarchy.said(&repeated), (None, None));
    let other = with(&hierarchy, "admin");
    hierarchy.assert_added(&other, "the signer set the subject \"CN=admin\" where \"\" was asked for");
}

#[test]
fn a_usage_that_was_not_asked_for_is_an_addition() {
    let mut hierarchy = hierarchy();
    for (asked, given, added) in [
        (vec![Usage::ServerAuth], vec![Usage::ServerAuth, Usage::ClientAuth], "client auth"),
        (vec![Usage::ServerAuth], vec![Usage::ServerAuth, Usage::Any], "any"),
        (vec![], vec![Usage::OcspSigning, Usage::CodeSigning], "ocsp signing, code signing"),
        (vec![Usage::DigitalSignature], vec![Usage::CertSign, Usage::CrlSign], "cert sign, crl sign"),
        (vec![Usage::DigitalSignature], vec![Usage::ContentCommitment], "content commitment"),
    ] {
        hierarchy.attributes.usages = asked.clone();
        let leaf = hierarchy.leaf(&hierarchy.root, |leaf| leaf.attributes.usages = [asked, given].concat());
        hierarchy.assert_added(&leaf, &format!("the signer added usages that were not asked for: {added}"));
    }
    hierarchy.attributes.usages = vec![Usage::ServerAuth];
    let leaf = hierarchy.leaf(&hierarchy.root, |leaf| leaf.attributes.usages = Vec::new());
    let (refusal, _) = hierarchy.said(&leaf);
    assert!(refusal.unwrap().contains("every purpose (it has no extended key usage)"));
}

#[test]
fn usages_of_tls_and_of_the_signers_template_are_no_additions() {
    let mut hierarchy = hierarchy();
    // With no purpose asked for, every purpose of TLS is there anyway.
    let tls = [Usage::DigitalSignature, Usage::KeyAgreement, Usage::ServerAuth, Usage::ClientAuth];
    let leaf = hierarchy.leaf(&hierarchy.root, |leaf| leaf.attributes.usages.extend(tls));
    assert_eq!(hierarchy.said(&leaf), (None, None));

    hierarchy.attributes.usages = vec![Usage::ServerAuth];
    let template = [Usage::DigitalSignature, Usage::ServerAuth, Usage::ClientAuth];
    let leaf = hierarchy.leaf(&hierarchy.root, |leaf| leaf.attributes.usages = template.to_vec());
    let chain = pem::certificates([leaf.as_slice()]);
    let mut answer = SignerAnswer { chain: &chain, ca: None, template_usages: &template };
    hierarchy.attributes.dialect = Dialect::Certlet;
    super::super::verify(&answer, hierarchy.key.spki_der(), &hierarchy.attributes, now()).unwrap();
    answer.template_usages = &[];
    super::super::verify(&answer, hierarchy.key.spki_der(), &hierarchy.attributes, now()).unwrap_err();
}

#[test]
fn an_extension_that_is_not_on_the_list_is_an_addition() {
    let mut hierarchy = hierarchy();
    let leaf = hierarchy.leaf_with(&[extension(IDENTITY_OF_WINDOWS, b"\x05\x00")]);
    let said = "the signer added extensions that are not accepted unasked: 1.3.6.1.4.1.311.25.2";
    hierarchy.attributes.usages = Vec::new();
    hierarchy.assert_added(&leaf, said);
    // Policies, CRL distribution points, and a purpose where Windows looks for it.
    let accepted = [
        extension("2.5.29.32", b"\x30\x06\x30\x04\x06\x02\x2a\x03"),
        extension("2.5.29.31", b"\x30\x00"),
        extension("1.3.6.1.5.5.7.1.1", b"\x30\x00"),
    ];
    let leaf = hierarchy.leaf_with(&accepted);
    assert_eq!(hierarchy.said(&leaf), (None, None));
    let purposes =
        extension("1.3.6.1.4.1.311.21.10", b"\x30\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x09");
    let leaf = hierarchy.leaf_with(&[purposes]);
    hierarchy.assert_added(&leaf, "the signer added usages that were not asked for: ocsp signing");
}

#[test]
fn a_ca_that_was_not_asked_for_is_refused_under_every_prefix_however_it_is_written() {
    let mut hierarchy = hierarchy();
    let ca = basic_constraints(true).unwrap();
    let unreadable = extension("2.5.29.19", b"\x30\x06\x01\x01\xff\x02\x01");
    for dialect in [Dialect::Certlet, Dialect::CertManager] {
        hierarchy.attributes.dialect = dialect;
        for extensions in
            [vec![ca.clone()], vec![ca.clone(), basic_constraints(false).unwrap()], vec![unreadable.clone()]]
        {
            let leaf = hierarchy.leaf_with(&extensions);
            hierarchy.check(&[&leaf], Some(&[&hierarchy.root.der])).unwrap_err();
        }
    }
}
