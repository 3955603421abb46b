//! SPIFFE bundle documents: how a trust domain publishes its keys (the SPIFFE Trust Domain and Bundle standard, section 4). Pure.
//!
//! The trust anchors are its JWKs with the use `x509-svid`. Keys of JWTs, unknown keys and the document's other parameters are
//! ignored: whoever puts the document into its source decides when it changes.

use crate::model::TrustSource;
use crate::x509::{Anchors, Candidate, MAX_ANCHORS_BYTES, usable_anchors, usable_certificates};
use base64ct::{Base64, Encoding};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::error::Category;

/// The use of a key that signs X.509-SVIDs (the X.509-SVID standard, section 6.1).
const X509_SVID: &str = "x509-svid";

/// A JWK Set (RFC 7517 section 5).
#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

/// A JWK, as far as it concerns X.509-SVIDs. The certificate counts, and the other parameters of the key say the same.
#[derive(Deserialize)]
struct Jwk {
    /// Without one the key is ignored (section 4.2.2).
    #[serde(rename = "use", default)]
    purpose: Option<String>,
    /// The certificate, DER in Base64. More than one are ignored (the X.509-SVID standard, section 6.2).
    #[serde(default)]
    x5c: Option<Vec<String>>,
}

/// The trust anchors in the text of a source.
pub(super) fn anchors_of(source: &TrustSource, text: &[u8], now: Timestamp) -> Result<Anchors, String> {
    match source {
        TrustSource::SpiffeBundle(_) => spiffe_anchors(text, now),
        _ => usable_anchors(text, now),
    }
}

/// The trust anchors of a SPIFFE bundle document. What is no CA certificate, and what has expired, is left out with a warning. An
/// error if nothing is left.
fn spiffe_anchors(text: &[u8], now: Timestamp) -> Result<Anchors, String> {
    const ACCEPTED: &str = "accepted is a SPIFFE bundle document: JSON with an array of keys";
    if text.len() > MAX_ANCHORS_BYTES {
        return Err(format!("is too long; accepted are at most {MAX_ANCHORS_BYTES} bytes"));
    }
    if text.trim_ascii().is_empty() {
        return Err(format!("is empty; {ACCEPTED}"));
    }
    let Document { keys } = serde_json::from_slice(text).map_err(|error| {
        // Without the parser's own message, which quotes the text: it may be a key that does not belong here.
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            Category::Data => {
                format!("is no SPIFFE bundle document at line {line}, column {column}; {ACCEPTED}")
            }
            _ => format!("is not JSON at line {line}, column {column}; {ACCEPTED}"),
        }
    })?;
    let of_certificates =
        keys.into_iter().enumerate().filter(|(_, key)| key.purpose.as_deref() == Some(X509_SVID));
    let candidates = of_certificates.map(|(index, Jwk { x5c, .. })| {
        let first = x5c.and_then(|certificates| certificates.into_iter().next());
        let der = match first {
            Some(base64) => {
                Base64::decode_vec(&base64).map_err(|_| "has no certificate in Base64 in its x5c".to_owned())
            }
            None => Err("has no certificate: its x5c is missing or empty".to_owned()),
        };
        Candidate { at: format!("keys[{index}]"), der }
    });
    usable_certificates(candidates, now).map_err(|told| match told {
        Some(told) => format!("holds no CA certificate that can be used: {told}"),
        None => format!("has no key with the use {X509_SVID}: its trust domain has no X.509-SVIDs"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyAlgorithm, KeyEncoding};
    use crate::x509::testing::root;
    use crate::x509::{PrivateKey, pem};
    use jiff::ToSpan;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn read(document: &Value) -> Result<Anchors, String> {
        spiffe_anchors(document.to_string().as_bytes(), NOW)
    }

    fn key(der: &[u8]) -> Value {
        json!({ "kty": "EC", "crv": "P-256", "use": X509_SVID, "x5c": [Base64::encode_string(der)] })
    }

    fn valid() -> Vec<u8> {
        root("CN=root", NOW - 1.hours(), NOW + 1.hours())
    }

    #[test]
    fn the_anchors_are_the_first_certificates_of_keys_for_x509_svids_each_once() {
        let (one, other) = (valid(), valid());
        let mut with_two = key(&other);
        with_two["x5c"] = json!([Base64::encode_string(&other), "no certificate"]);
        let document = json!({
            "spiffe_sequence": 12_345_678_901_u64,
            "spiffe_refresh_hint": 300,
            "more": { "of": ["this"] },
            "keys": [
                { "kty": "RSA", "use": "jwt-svid", "kid": "a", "n": "AQAB", "e": "AQAB" },
                key(&one),
                { "kty": "EC", "use": "wit-svid", "x5c": ["no certificate"] },
                { "kty": "EC", "x5c": ["no certificate"] },
                with_two,
                key(&one),
            ],
        });
        let Anchors { certificates, warning } = read(&document).unwrap();
        assert_eq!((certificates, warning), (vec![one, other], None));
    }

    #[test]
    fn what_cannot_be_used_is_told_by_its_key_and_left_out() {
        let good = valid();
        let expired = root("CN=old", NOW - 2.hours(), NOW - 1.hours());
        let mut without = key(&good);
        without["x5c"] = json!([]);
        let document = json!({ "keys": [without, key(&expired), key(&good)] });
        let Anchors { certificates, warning } = read(&document).unwrap();
        assert_eq!(certificates, [good]);
        let warning = warning.unwrap();
        assert!(warning.contains("keys[0] has no certificate"), "{warning}");
        assert!(warning.contains("keys[1] (CN=old) has expired"), "{warning}");
    }

    #[test]
    fn what_is_no_document_or_has_no_anchor_is_an_error_that_says_why() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let secret = key.to_pem(KeyEncoding::Pkcs8).unwrap();
        let pem = pem::certificates([valid().as_slice()]);
        let large = vec![b' '; MAX_ANCHORS_BYTES + 1];
        let deep = "[".repeat(10_000);
        for (text, said) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (&large, "too long"),
            (&pem, "is not JSON at line 1"),
            (&secret, "is not JSON at line 1"),
            (deep.as_bytes(), "is no SPIFFE bundle document"),
            (b"{\"keys\": [", "is not JSON at line 1, column 10"),
            (b"{}", "is no SPIFFE bundle document"),
            (b"[]", "is no SPIFFE bundle document"),
            (b"{\"keys\": \"hunter2\"}", "is no SPIFFE bundle document at line 1"),
            (b"{\"keys\": []}", "has no key with the use x509-svid"),
            (b"{\"keys\": [{\"use\": \"jwt-svid\"}]}", "has no key with the use x509-svid"),
            (b"{\"keys\": [{\"use\": \"x509-svid\", \"x5c\": [\"AQI=\"]}]}", "keys[0] is not an X.509"),
            (
                b"{\"keys\": [{\"use\": \"x509-svid\", \"x5c\": [\"a b\"]}]}",
                "keys[0] has no certificate in Base64",
            ),
        ] {
            let error = spiffe_anchors(text, NOW).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("PRIVATE"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s)\\{\"keys\":\\[[\\[\\]{}\":,a-z0-9]{0,40}|.{0,40}") {
            let _read = spiffe_anchors(text.as_bytes(), NOW);
        }
    }
}
