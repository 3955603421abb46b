//! Lists as CAs make them, and as nobody should.

use super::*;
use crate::model::KeyAlgorithm;
use crate::x509::PrivateKey;
use crate::x509::certificate::Template;
use crate::x509::extensions::basic_constraints;
use jiff::ToSpan;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const URL: &str = "http://crl.example.org/1.crl";

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW.as_second() + seconds).unwrap()
}

/// A CA with its certificate, DER.
fn ca(name: &str, usages: &[KeyUsagePurpose]) -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages.to_vec();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (Issuer::new(params, key), der)
}

fn params(number: u64) -> CertificateRevocationListParams {
    CertificateRevocationListParams {
        this_update: at(-60),
        next_update: at(3600),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: at(-120),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn list(ca: &Issuer<'static, KeyPair>, params: &CertificateRevocationListParams) -> Crl {
    read(params.signed_by(ca).unwrap().der()).unwrap()
}

fn read(der: &[u8]) -> Result<Crl, CrlError> {
    Crl::read_all(der).map(|mut lists| lists.remove(0))
}

/// An element of DER with a short or a long length.
fn tlv(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let length = contents.len();
    let head = match length {
        0..=127 => vec![tag, u8::try_from(length).unwrap()],
        _ => [&[tag, 0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    };
    [head, contents].concat()
}

/// A list that the test signs itself, with these parts after the issuer's name.
struct HandMade {
    key: PrivateKey,
    certificate: Vec<u8>,
    name: Vec<u8>,
}

impl HandMade {
    fn new() -> Self {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let name = crate::x509::testing::name("CN=hand-made");
        let template = Template {
            serial: &[1],
            issuer: &name,
            not_before: NOW - 24.hours(),
            not_after: NOW + 24.hours(),
            subject: &name,
            spki: key.spki_der(),
            extensions: &[basic_constraints(true).unwrap()],
        };
        let certificate = template.sign(&key).unwrap();
        let name = X509Certificate::from_der(&certificate).unwrap().1.subject().as_raw().to_vec();
        Self { key, certificate, name }
    }

    fn list(&self, version: &[u8], rest: &[&[u8]]) -> Vec<u8> {
        // ecdsa-with-SHA256
        let algorithm = tlv(0x30, &[&tlv(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]])]);
        let signed = tlv(0x30, &[&[version, &algorithm, &self.name], rest].concat());
        let signature = self.key.sign(&signed).unwrap();
        tlv(0x30, &[&signed, &algorithm, &tlv(0x03, &[&[0], &signature])])
    }
}

const V2: [u8; 3] = [0x02, 0x01, 0x01];

fn utc(text: &str) -> Vec<u8> {
    tlv(UTC_TIME, &[text.as_bytes()])
}

/// One extension, DER.
fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    tlv(0x30, &[&tlv(0x06, &[oid]), critical, &tlv(0x04, &[value])])
}

fn extensions(all: &[&[u8]]) -> Vec<u8> {
    tlv(EXTENSIONS, &[&tlv(0x30, all)])
}

#[test]
fn a_list_is_read_in_der_and_in_pem_and_its_signer_is_found() {
    let (ca, der) = ca("root", &[KeyUsagePurpose::CrlSign]);
    let list = list(&ca, &params(258));
    assert_eq!((list.entries, list.number.as_deref()), (1, Some([1, 2].as_slice())));
    assert_eq!(list.next_update(), NOW + 1.hours());
    assert!(list.describe().starts_with("CN=root, number 0102, of "), "{}", list.describe());
    let signer = CrlSigner::new(&der).unwrap();
    assert!(signer.is_named_by(&list));
    signer.check(&list).unwrap();
    list.check_time(NOW).unwrap();
    let pem = to_pem([&list, &list]);
    assert_eq!(Crl::read_all(&pem).unwrap(), [list.clone(), list.clone()]);
    let twice = [list.der(), list.der()].concat();
    assert_eq!(Crl::read_all(&twice).unwrap().len(), 2);
}

#[test]
fn a_forged_list_is_refused() {
    let usages = [KeyUsagePurpose::CrlSign];
    let ((ca_key, der), (stranger, strangers)) = (ca("root", &usages), ca("root", &usages));
    let signer = CrlSigner::new(&der).unwrap();
    let forged = list(&stranger, &params(9));
    assert!(signer.is_named_by(&forged), "it has the CA's name");
    let error = signer.check(&forged).unwrap_err();
    assert_eq!(error.to_string(), "of CN=root is refused: the signature does not verify");
    assert!(CrlSigner::new(&strangers).unwrap().check(&forged).is_ok());
    // Any changed byte is noticed.
    let good = list(&ca_key, &params(9));
    for index in 0..good.der().len() {
        let mut damaged = good.der().to_vec();
        damaged[index] ^= 1;
        let is_accepted = Crl::read_all(&damaged).is_ok_and(|lists| {
            lists.iter().all(|list| signer.is_named_by(list) && signer.check(list).is_ok())
        });
        assert!(!is_accepted, "byte {index}");
    }
}

#[test]
fn a_ca_whose_key_may_not_sign_lists_signs_none() {
    let (_, der) = ca("root", &[KeyUsagePurpose::KeyCertSign]);
    assert!(CrlSigner::new(&der).is_none());
    assert!(CrlSigner::new(&ca("root", &[]).1).is_some(), "without key usage nothing is restricted");
    assert!(CrlSigner::new(b"no certificate").is_none());
}

#[test]
fn a_list_that_has_ended_or_not_begun_is_refused() {
    let (ca, _) = ca("root", &[]);
    let of = |from, to| {
        let params =
            CertificateRevocationListParams { this_update: at(from), next_update: at(to), ..params(1) };
        params.signed_by(&ca).map(|list| read(list.der()).unwrap()).unwrap()
    };
    let check = |from, to| of(from, to).check_time(NOW);
    check(-10, 1).unwrap();
    check(59, 100).unwrap();
    assert!(matches!(check(-10, 0), Err(CrlError::Expired(_))));
    assert!(matches!(check(61, 100), Err(CrlError::NotYetValid(_))));
}

#[test]
fn numbers_decide_which_list_is_older_and_times_where_there_are_none() {
    let (ca, _) = ca("root", &[]);
    let of = |number, from| {
        list(&ca, &CertificateRevocationListParams { this_update: at(from), ..params(number) })
    };
    let kept = of(300, -60);
    assert!(of(299, -10).is_older_than(&kept), "255 or less has one byte, and is older");
    assert!(of(255, -10).is_older_than(&kept));
    assert!(of(300, -61).is_older_than(&kept));
    assert!(!of(300, -60).is_older_than(&kept) && !of(301, -3600).is_older_than(&kept));
    let hand_made = HandMade::new();
    let unnumbered = |from: &str| read(&hand_made.list(&[], &[&utc(from), &utc("270115090000Z")])).unwrap();
    let (early, late) = (unnumbered("270115070000Z"), unnumbered("270115080000Z"));
    assert!(early.is_older_than(&late) && !late.is_older_than(&early) && !late.is_older_than(&late));
    assert!(late.is_older_than(&kept), "the CA has numbered its lists before");
    assert!(!of(1, -60).is_older_than(&early), "the CA has begun to number its lists");
}

#[test]
fn a_list_of_a_partition_comes_from_its_own_distribution_point_only() {
    let (ca, _) = ca("root", &[]);
    let point = |scope| CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint { uris: vec![URL.to_owned()] },
        scope,
    };
    let of = |point| {
        list(&ca, &CertificateRevocationListParams { issuing_distribution_point: point, ..params(1) })
    };
    let (whole, part, users) =
        (of(None), of(Some(point(None))), of(Some(point(Some(CrlScope::UserCertsOnly)))));
    for list in [&part, &users] {
        list.check_point(Some(URL)).unwrap();
        list.check_point(None).unwrap();
        assert_eq!(list.check_point(Some("http://crl.example.org/2.crl")), Err(CrlError::AnotherPoint));
        assert!(!list.has_same_scope(&whole));
    }
    whole.check_point(Some("http://anywhere.example/")).unwrap();
    assert!(!part.has_same_scope(&users) && part.has_same_scope(&part));
}

#[test]
fn what_consumers_could_misread_is_refused() {
    const IDP: [u8; 3] = [0x55, 0x1d, 28];
    let hand_made = HandMade::new();
    let times = [utc("270115070000Z"), utc("270115090000Z")].concat();
    let of = |extension: &[u8]| read(&hand_made.list(&V2, &[&times, &extensions(&[extension])]));
    let point = |field: &[u8]| of(&extension(&IDP, true, &tlv(0x30, &[field])));
    assert_eq!(of(&extension(&[0x55, 0x1d, 27], true, &[2, 1, 1])).unwrap_err(), CrlError::Delta);
    assert_eq!(point(&[0x84, 1, 0xff]).unwrap_err(), CrlError::Indirect);
    assert_eq!(point(&[0x85, 1, 0xff]).unwrap_err(), CrlError::AttributeCertificates);
    assert_eq!(point(&[0x83, 2, 1, 0x40]).unwrap_err(), CrlError::SomeReasons);
    assert!(matches!(of(&extension(&IDP, true, b"?")), Err(CrlError::Malformed(_))));
    assert_eq!(
        of(&extension(&[0x2a, 3], true, &[5, 0])).unwrap_err(),
        CrlError::CriticalExtension("1.2.3".into())
    );
    of(&extension(&[0x2a, 3], false, &[5, 0])).unwrap();
    let number = |bytes: &[u8]| of(&extension(&[0x55, 0x1d, 20], false, &tlv(0x02, &[bytes])));
    assert_eq!(number(&[0, 0x80]).unwrap().number, Some(vec![0x80]));
    assert!(number(&[0x80]).is_err() && number(&[1; 21]).is_err() && number(&[]).is_err());
    let list = read(&hand_made.list(&V2, &[&times])).unwrap();
    let signer = CrlSigner::new(&hand_made.certificate).unwrap();
    signer.check(&list).unwrap();
    assert_eq!(read(&hand_made.list(&V2, &[&utc("270115070000Z")])).unwrap_err(), CrlError::NoNextUpdate);
    let backwards = [utc("270115090000Z"), utc("270115070000Z")].concat();
    assert!(matches!(read(&hand_made.list(&V2, &[&backwards])), Err(CrlError::Malformed(_))));
    // No v3, nothing after the extensions, and entries that are entries.
    assert!(read(&hand_made.list(&[2, 1, 2], &[&times])).is_err());
    assert!(read(&hand_made.list(&V2, &[&times, &[5, 0]])).is_err());
    let entries = |entry: &[u8]| read(&hand_made.list(&V2, &[&times, &tlv(0x30, &[entry])]));
    let entry = tlv(0x30, &[&[2, 1, 9], &utc("270115060000Z")]);
    assert_eq!(entries(&[entry.clone(), entry.clone()].concat()).unwrap().entries, 2);
    assert!(entries(&tlv(0x30, &[&[2, 1, 9]])).is_err() && entries(&[2, 1, 9]).is_err());
}

#[test]
fn what_is_no_list_is_refused_in_time_that_depends_on_its_size_only() {
    let (ca, der) = ca("root", &[]);
    let good = list(&ca, &params(1)).der;
    for text in
        [b"".as_slice(), b"<html>", b"\x30", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", &der, &good[1..]]
    {
        assert!(Crl::read_all(text).is_err(), "{text:?}");
    }
    for length in 0..good.len() {
        assert!(Crl::read_all(&good[..length]).is_err(), "{length}");
    }
    assert!(Crl::read_all(&[good.as_slice(), b"x"].concat()).is_err(), "something follows");
    let certificate = pem::certificates([der.as_slice()]);
    assert_eq!(Crl::read_all(&certificate).unwrap_err(), CrlError::AnotherBlock("CERTIFICATE".into()));
    assert_eq!(Crl::read_all(&good.repeat(33)).unwrap_err(), CrlError::TooMany);
    // Each block would be decoded in a buffer as large as the whole text.
    let blocks = "-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n".repeat(300_000);
    assert_eq!(Crl::read_all(blocks.as_bytes()).unwrap_err(), CrlError::TooMany);
}

#[test]
fn the_urls_of_a_certificate_are_found() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let point = |uri: &str| CrlDistributionPoint { uris: vec![uri.to_owned()] };
    params.crl_distribution_points = vec![point(URL), point("ldap://crl.example.org/cn=ca")];
    let certificate = params.self_signed(&key).unwrap();
    assert_eq!(distribution_points(certificate.der()), [URL, "ldap://crl.example.org/cn=ca"]);
    assert!(distribution_points(b"no certificate").is_empty());
}
