//! The certificate signing request: PKCS#10 (RFC 2986).

use super::{KeyError, PrivateKey, extensions, name};
use crate::model::{CertificateSpec, Dialect, Subject, SubjectAltNames, shown};
use der::asn1::{BitString, SetOfVec};
use der::{Decode, Encode};
use thiserror::Error;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// The certificate signing request for the volume's spec, signed by its key, DER.
///
/// It holds the subject, the alternative names, the usages, and for a CA the basic constraints. cert-manager's webhook
/// compares these with the `CertificateRequest` and refuses a difference. So a CA request always has the usage
/// `cert sign`, as in cert-manager.
///
/// Under the prefix `csi.cert-manager.io/` it is the request of cert-manager's csi-driver: of extensions it has the alternative
/// names only, and these are never critical. What the `CertificateRequest` says then decides. Under `spiffe.csi.cert-manager.io/` it
/// is that of csi-driver-spiffe: of extensions it has the alternative names only, which are critical, since there is no subject.
pub fn csr(attributes: &CertificateSpec, key: &PrivateKey) -> Result<Vec<u8>, RequestError> {
    let info = request_info(attributes, key)?;
    let signature = BitString::from_bytes(&key.sign(&info.to_der()?)?)?;
    Ok(CertReq { info, algorithm: key.signature_algorithm(), signature }.to_der()?)
}

/// Whether a request, DER, is what [`csr`] makes for this spec and key: operators can change what a spec means, with another trust
/// domain for example.
pub(crate) fn is_csr_for(
    der: &[u8],
    attributes: &CertificateSpec,
    key: &PrivateKey,
) -> Result<bool, RequestError> {
    // In DER, which has one form: a value that was read has other types than one that was made.
    Ok(CertReq::from_der(der)?.info.to_der()? == request_info(attributes, key)?.to_der()?)
}

fn request_info(attributes: &CertificateSpec, key: &PrivateKey) -> Result<CertReqInfo, RequestError> {
    let subject = name::encode(&attributes.subject, attributes.dialect)?;
    let mut requested = Vec::new();
    if !attributes.sans.is_empty() {
        requested.push(extensions::subject_alt_names(&attributes.sans, &subject)?);
    }
    match attributes.dialect {
        Dialect::CertManager => requested.iter_mut().for_each(|names| names.critical = false),
        Dialect::CsiDriverSpiffe => {}
        Dialect::Certlet => {
            requested.extend(extensions::usages(&attributes.usages, attributes.is_ca)?);
            if attributes.is_ca {
                requested.push(extensions::basic_constraints(true)?);
            }
        }
    }
    let mut request_attributes = SetOfVec::new();
    if !requested.is_empty() {
        request_attributes.insert(ExtensionReq(requested).try_into()?)?;
    }
    let public_key = SubjectPublicKeyInfoOwned::from_der(key.spki_der())?;
    Ok(CertReqInfo { version: Version::V1, subject, public_key, attributes: request_attributes })
}

/// How many bytes subject and alternative names take in a request, and so in the certificate.
pub(crate) fn names_len(
    subject: &Subject,
    names: &SubjectAltNames,
    dialect: Dialect,
) -> Result<usize, RequestError> {
    let subject = name::encode(subject, dialect)?;
    let mut bytes = subject.to_der()?.len();
    if !names.is_empty() {
        bytes += extensions::subject_alt_names(names, &subject)?.to_der()?.len();
    }
    Ok(bytes)
}

/// Why no request could be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A DNS name or URI is not ASCII, so a certificate cannot hold it.
    #[error(
        "{attribute}: {shown} has characters outside ASCII; write an internationalised name in its xn-- form",
        shown = shown(.name)
    )]
    NotAscii {
        /// The attribute.
        attribute: &'static str,
        /// The name as it was given.
        name: String,
    },
    /// The request cannot be encoded.
    #[error("encoding the certificate signing request failed: {0}")]
    Encoding(#[from] der::Error),
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyAlgorithm, SubjectFields, Usage};
    use crate::x509::certificate::Template;
    use crate::x509::testing::{ALL_ALGORITHMS, attributes, openssl_text};
    use crate::x509::{MAX_CHAIN_BYTES, MAX_NAMES_BYTES, pem};
    use jiff::Timestamp;

    fn text(attributes: &CertificateSpec) -> String {
        let key = PrivateKey::generate(attributes.key.algorithm).unwrap();
        let der = csr(attributes, &key).unwrap();
        let form = ["req", "-inform", "DER", "-verify", "-noout", "-text", "-nameopt", "RFC2253"];
        let text = openssl_text(&form, &der);
        // One space between words, so that openssl's indentation is no part of the expectation.
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn openssl_verifies_the_request_of_every_key_algorithm() {
        let mut attributes = attributes();
        for algorithm in ALL_ALGORITHMS {
            attributes.key.algorithm = algorithm;
            let text = text(&attributes);
            assert!(text.contains("Subject: CN=web"), "{text}");
        }
    }

    #[test]
    fn the_request_asks_for_names_and_usages_exactly_as_the_volume_does() {
        let mut attributes = attributes();
        attributes.usages =
            vec![Usage::ServerAuth, Usage::DigitalSignature, Usage::ClientAuth, Usage::DecipherOnly];
        let text = text(&attributes);
        assert!(
            text.contains(
                "X509v3 Subject Alternative Name: DNS:web.shop.svc, IP Address:10.1.2.3, \
                 IP Address:2001:DB8:0:0:0:0:0:7, URI:spiffe://example.org/ns/shop/sa/web X509v3 Key Usage: critical \
                 Digital Signature, Decipher Only X509v3 Extended Key Usage: TLS Web Server Authentication, TLS Web \
                 Client Authentication Signature"
            ),
            "{text}"
        );
        assert!(!text.contains("Basic Constraints"), "{text}");
    }

    #[test]
    fn without_a_subject_the_names_are_critical() {
        let mut attributes = attributes();
        attributes.subject = Subject::Fields(SubjectFields::default());
        let text = text(&attributes);
        assert!(text.contains("Subject: Subject Public Key Info"), "{text}");
        assert!(text.contains("X509v3 Subject Alternative Name: critical DNS:"), "{text}");
    }

    #[test]
    fn a_ca_request_has_basic_constraints_and_the_usage_cert_sign() {
        let mut attributes = attributes();
        attributes.is_ca = true;
        attributes.usages = vec![Usage::CrlSign];
        let text = text(&attributes);
        assert!(text.contains("X509v3 Key Usage: critical Certificate Sign, CRL Sign"), "{text}");
        assert!(text.contains("X509v3 Basic Constraints: critical CA:TRUE Signature"), "{text}");
    }

    #[test]
    fn under_the_peers_prefix_the_request_is_that_of_csi_driver() {
        let mut attributes = attributes();
        attributes.dialect = Dialect::CertManager;
        attributes.is_ca = true;
        attributes.subject = Subject::Fields(SubjectFields::default());
        let text = text(&attributes);
        assert!(text.contains("X509v3 Subject Alternative Name: DNS:web.shop.svc"), "{text}");
        assert_eq!(text.matches("X509v3").count(), 1, "{text}");
    }

    #[test]
    fn a_literal_subject_reaches_openssl_in_its_order() {
        let mut attributes = attributes();
        attributes.subject = Subject::Literal("CN=web,OU=b,OU=a,O=Acme\\, Inc.,C=DE".parse().unwrap());
        assert!(text(&attributes).contains("Subject: CN=web,OU=b,OU=a,O=Acme\\, Inc.,C=DE "));
    }

    #[test]
    fn repeated_attribute_types_are_all_in_the_subject() {
        let mut attributes = attributes();
        attributes.subject = Subject::Fields(SubjectFields {
            common_name: Some("wéb".into()),
            organizational_units: vec!["one".into(), "two".into()],
            ..Default::default()
        });
        let ours = text(&attributes);
        assert!(ours.contains("Subject: CN=w\\C3\\A9b,OU=two,OU=one "), "{ours}");
        attributes.dialect = Dialect::CertManager;
        let theirs = text(&attributes);
        assert!(theirs.contains("Subject: CN=w\\C3\\A9b,OU=two+OU=one "), "{theirs}");
    }

    #[test]
    fn a_spec_without_names_and_usages_makes_a_request_without_extensions() {
        let mut attributes = attributes();
        attributes.sans = SubjectAltNames::default();
        attributes.usages = Vec::new();
        assert!(!text(&attributes).contains("X509v3"));
    }

    #[test]
    fn a_name_outside_ascii_is_refused_with_its_attribute() {
        let mut attributes = attributes();
        attributes.sans.dns_names.push("bücher.example".into());
        let key = PrivateKey::generate(attributes.key.algorithm).unwrap();
        let error = csr(&attributes, &key).unwrap_err().to_string();
        assert!(error.starts_with("dns-names: \"bücher.example\" has characters outside ASCII"), "{error}");
    }

    #[test]
    fn a_message_cuts_a_long_name() {
        let names = SubjectAltNames { dns_names: vec!["\u{fc}".repeat(30_000)], ..Default::default() };
        let error = names_len(&attributes().subject, &names, Dialect::Certlet).unwrap_err().to_string();
        assert!(error.len() < 300, "{}", error.len());
    }

    #[test]
    fn a_chain_can_hold_a_leaf_with_the_most_names_and_five_issuers() {
        let mut attributes = attributes();
        let names = &mut attributes.sans.dns_names;
        *names = vec!["x".repeat(253); 140];
        let subject = &attributes.subject;
        let length = names_len(subject, &attributes.sans, Dialect::Certlet).unwrap();
        attributes.sans.dns_names.push("x".repeat(MAX_NAMES_BYTES - length - 4));
        let length = names_len(subject, &attributes.sans, Dialect::Certlet).unwrap();
        assert!((MAX_NAMES_BYTES - 1..=MAX_NAMES_BYTES).contains(&length), "{length}");

        let key = PrivateKey::generate(KeyAlgorithm::Rsa(4096)).unwrap();
        let subject = name::encode(subject, Dialect::Certlet).unwrap();
        let mut all = extensions::usages(&attributes.usages, false).unwrap();
        all.push(extensions::subject_alt_names(&attributes.sans, &subject).unwrap());
        let subject = subject.to_der().unwrap();
        let leaf = Template {
            serial: &[1; 20],
            issuer: &subject,
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::UNIX_EPOCH,
            subject: &subject,
            spki: key.spki_der(),
            extensions: &all,
        };
        let leaf = pem::certificates([leaf.sign(&key).unwrap().as_slice()]);
        let left = MAX_CHAIN_BYTES - leaf.len();
        assert!(left > 12 * 1024, "{left}");
    }
}
