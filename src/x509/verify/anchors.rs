//! Trust anchors that somebody else keeps: which certificates of a PEM text can be used as anchors.

use super::chain::Certificate;
use super::error::Part;
use crate::x509::pem;
use jiff::Timestamp;
use x509_parser::x509::X509Version;

/// Maximum size of the PEM text, in bytes: what a ConfigMap or a ClusterTrustBundle can hold.
pub(crate) const MAX_ANCHORS_BYTES: usize = 1024 * 1024;
/// Maximum number of faults that are told one by one.
const MAX_TOLD: usize = 3;

/// What a PEM text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Anchors {
    /// DER, in the order of the text and without duplicates. Never empty.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// What is left out, and why; none: nothing.
    pub(crate) warning: Option<String>,
}

/// What may be a trust anchor.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// What a message calls it.
    pub(crate) at: String,
    /// A certificate, DER, or why there is none.
    pub(crate) der: Result<Vec<u8>, String>,
}

/// Reads the trust anchors. What is no CA certificate, and what has expired, is left out with a warning. An error if nothing is left.
pub(crate) fn usable_anchors(text: &[u8], now: Timestamp) -> Result<Anchors, String> {
    if text.len() > MAX_ANCHORS_BYTES {
        return Err(format!("is too long; accepted are at most {MAX_ANCHORS_BYTES} bytes"));
    }
    if text.trim_ascii().is_empty() {
        return Err("is empty; accepted are CA certificates, PEM".to_owned());
    }
    let blocks = pem::blocks(text).map_err(|error| format!("is not PEM: it {error}"))?;
    let candidates = blocks.iter().enumerate().map(|(index, block)| Candidate {
        at: format!("PEM block {}", index + 1),
        der: match block.label.as_str() {
            "CERTIFICATE" => Ok(block.der.to_vec()),
            // Not quoted as it is: it may be the label of a key that does not belong here.
            _ => Err("is no CERTIFICATE".to_owned()),
        },
    });
    usable_certificates(candidates, now)
        .map_err(|told| format!("holds no CA certificate that can be used: {}", told.unwrap_or_default()))
}

/// The candidates that can be trust anchors, each once; a warning tells of the others. If there is none, the error tells of them too.
pub(crate) fn usable_certificates(
    candidates: impl Iterator<Item = Candidate>,
    now: Timestamp,
) -> Result<Anchors, Option<String>> {
    let mut certificates: Vec<Vec<u8>> = Vec::new();
    let mut faults = Vec::new();
    for Candidate { at, der } in candidates {
        match der.and_then(|der| fault(&der, now).map_or(Ok(der), Err)) {
            Ok(der) if certificates.contains(&der) => {}
            Ok(der) => certificates.push(der),
            Err(fault) => faults.push(format!("{at} {fault}")),
        }
    }
    let more = faults.len().saturating_sub(MAX_TOLD);
    faults.truncate(MAX_TOLD);
    let mut told = faults.join(", ");
    if more > 0 {
        told = format!("{told}, and {more} more");
    }
    let told = Some(told).filter(|told| !told.is_empty());
    if certificates.is_empty() {
        return Err(told);
    }
    Ok(Anchors { certificates, warning: told.map(|told| format!("{told}: left out")) })
}

/// Why a certificate cannot be an anchor.
fn fault(der: &[u8], now: Timestamp) -> Option<String> {
    let ders = [der.to_vec()];
    let Ok(parsed) = Certificate::parse_all(Part::Anchors, &ders) else {
        return Some("is not an X.509 certificate in DER".to_owned());
    };
    let certificate = parsed.first()?;
    // A certificate of version 1 has no extensions that could say it (RFC 5280 section 6.1.4 (k)).
    let is_ca = certificate.x509.is_ca()
        || certificate.x509.version() == X509Version::V1 && certificate.is_self_issued();
    if !is_ca {
        return Some(format!("({}) is not a CA certificate", certificate.subject()));
    }
    (now > certificate.not_after())
        .then(|| format!("({}) has expired at {:.0}", certificate.subject(), certificate.not_after()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyAlgorithm;
    use crate::x509::PrivateKey;
    use crate::x509::certificate::Template;
    use crate::x509::extensions::basic_constraints;
    use jiff::ToSpan;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn certificate(serial: u8, is_ca: bool, not_after: Timestamp) -> Vec<u8> {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let name = crate::x509::testing::name("CN=root");
        let template = Template {
            serial: &[serial],
            issuer: &name,
            not_before: NOW - 24.hours(),
            not_after,
            subject: &name,
            spki: key.spki_der(),
            extensions: &[basic_constraints(is_ca).unwrap()],
        };
        template.sign(&key).unwrap()
    }

    #[test]
    fn anchors_are_the_ca_certificates_that_have_not_expired_each_once() {
        let good = certificate(1, true, NOW + 1.hours());
        let other = certificate(2, true, NOW + 1.hours());
        let expired = certificate(3, true, NOW - 1.hours());
        let leaf = certificate(4, false, NOW + 1.hours());
        let text = pem::certificates([&good, &expired, &other, &leaf, &good].map(Vec::as_slice));
        let anchors = usable_anchors(&text, NOW).unwrap();
        assert_eq!(anchors.certificates, [good, other]);
        let warning = anchors.warning.unwrap();
        assert!(warning.contains("block 2") && warning.contains("expired"), "{warning}");
        assert!(warning.contains("block 4") && warning.contains("not a CA"), "{warning}");
    }

    #[test]
    fn a_text_without_a_usable_anchor_is_an_error_that_says_why() {
        let expired = pem::certificates([certificate(3, true, NOW - 1.hours()).as_slice()]);
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec();
        let large = vec![b'\n'; MAX_ANCHORS_BYTES + 1];
        for (text, said) in [
            (Vec::new(), "is empty"),
            (b"\n \n".to_vec(), "is empty"),
            (b"hello".to_vec(), "is not PEM"),
            (key, "block 1 is no CERTIFICATE"),
            (expired, "expired"),
            (large, "too long"),
        ] {
            let error = usable_anchors(&text, NOW).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let many = pem::certificates((0..9).map(|_| &[1_u8, 2][..]));
        assert!(usable_anchors(&many, NOW).unwrap_err().ends_with("and 6 more"));
    }
}
