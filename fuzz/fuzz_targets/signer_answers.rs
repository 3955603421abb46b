//! Whatever a signer answers is verified or refused, never a panic; what passes is for our key and is valid now.
//!
//! The first byte tells how the rest is read. Bit 0 clear: PEM as it came, the chain, then a NUL byte and the trust
//! anchors. Bit 0 set: DER certificates, each after its length (two bytes, big endian), so that a mutation reaches the
//! parser of certificates and not only that of base64; with bit 1 set the last one is the trust anchor.
#![no_main]

use base64ct::{Base64, Encoding};
use certlet::model::{CertificateSpec, Dialect};
use certlet::attributes::{self, VolumeContext};
use certlet::x509::{SignerAnswer, verify};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The public key of the leaf in `seeds/signer_answers/`, `SubjectPublicKeyInfo`, DER. Its private key is gone.
const KEY: &[u8] = include_bytes!("../leaf.spki.der");

/// 2027-01-15: the seeds are valid until 2126.
const NOW: i64 = 1_800_000_000;

static SPEC: LazyLock<CertificateSpec> = LazyLock::new(|| {
    let context: HashMap<String, String> = [
        ("csi.storage.k8s.io/pod.name", "pod"),
        ("csi.storage.k8s.io/pod.namespace", "namespace"),
        ("csi.storage.k8s.io/pod.uid", "uid"),
        ("csi.storage.k8s.io/serviceAccount.name", "account"),
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.certlet.io/signer", "local"),
        ("csi.certlet.io/dns-names", "pod.example.com"),
        ("csi.certlet.io/uri-sans", "spiffe://example.com/pod"),
        ("csi.certlet.io/ip-sans", "10.0.0.1"),
        ("csi.certlet.io/key-usages", "digital signature, server auth"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let context = VolumeContext::parse(context, HashMap::new(), Dialect::Certlet).expect("the context is fixed");
    attributes::parse(&context.raw, &context.pod, &attributes::OperatorDefaults::default()).expect("the attributes are fixed")
});

fuzz_target!(|input: &[u8]| {
    let Some((form, rest)) = input.split_first() else { return };
    let (chain, ca) = if form & 1 == 0 { as_it_came(rest) } else { wrapped(rest, form & 2 != 0) };
    let now = Timestamp::from_second(NOW).expect("a time in range");
    match verify(&SignerAnswer { chain: &chain, ca: ca.as_deref(), template_usages: &[] }, KEY, &SPEC, now) {
        Ok(verified) => {
            // The point itself: how a signer writes the algorithm before it is its own affair.
            let point = &KEY[KEY.len() - 65..];
            assert!(verified.leaf.windows(65).any(|window| window == point), "the leaf has another key");
            assert!(verified.facts.not_after > now, "the leaf has expired");
            assert!(verified.facts.sans.iter().any(|name| name.eq_ignore_ascii_case("DNS:pod.example.com")));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn as_it_came(text: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut parts = text.splitn(2, |byte| *byte == 0);
    (parts.next().unwrap_or_default().to_vec(), parts.next().map(<[u8]>::to_vec))
}

fn wrapped(mut rest: &[u8], anchored: bool) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut certificates = Vec::new();
    while let [high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (certificate, after) = after.split_at(length);
        certificates.push(certificate);
        rest = after;
    }
    let anchor = if anchored { certificates.pop() } else { None };
    (certificates.into_iter().flat_map(pem).collect(), anchor.map(pem))
}

fn pem(der: &[u8]) -> Vec<u8> {
    let base64 = Base64::encode_string(der);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n").into_bytes()
}
