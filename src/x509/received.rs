//! Certificate signing requests of others (PKCS#10, RFC 2986): reading one before it is approved.

use super::pem::{self, PemError};
use super::signature::{self, SignatureError};
use const_oid::AssociatedOid;
use const_oid::db::rfc5912::ID_EXTENSION_REQ;
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use thiserror::Error;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};
use x509_parser::asn1_rs::{BitString, FromDer};
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// Microsoft's own attribute for requested extensions. OpenSSL reads it too.
const MICROSOFT_EXTENSION_REQ: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.14");
/// The labels of a request in PEM (RFC 7468 section 7).
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// A certificate signing request that somebody else made.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    request: CertReq,
    extensions: Vec<Extension>,
    names: Vec<GeneralName>,
}

/// Why something is no certificate signing request that can be judged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ReceivedRequestError {
    /// It is no PEM.
    #[error("{0}")]
    Pem(#[from] PemError),
    /// Readers differ in which block they take, so there must be one.
    #[error("is not exactly one PEM block \"CERTIFICATE REQUEST\"")]
    NotOneRequest,
    /// It is no PKCS#10 request in DER, or one of its names cannot be read.
    #[error("is no PKCS#10 request in DER: {0}")]
    Der(#[from] der::Error),
}

impl ReceivedRequest {
    /// Reads a request, PEM.
    pub(crate) fn from_pem(text: &[u8]) -> Result<Self, ReceivedRequestError> {
        match pem::blocks(text)?.as_slice() {
            [block] if LABELS.contains(&block.label.as_str()) => Ok(Self::from_der(&block.der)?),
            _ => Err(ReceivedRequestError::NotOneRequest),
        }
    }

    fn from_der(der: &[u8]) -> der::Result<Self> {
        let request = CertReq::from_der(der)?;
        let mut extensions = Vec::new();
        for attribute in request.info.attributes.iter() {
            if [ID_EXTENSION_REQ, MICROSOFT_EXTENSION_REQ].contains(&attribute.oid) {
                for value in attribute.values.iter() {
                    extensions.extend(ExtensionReq::from_der(&value.to_der()?)?.0);
                }
            }
        }
        let mut names = Vec::new();
        for extension in extensions.iter().filter(|extension| extension.extn_id == SubjectAltName::OID) {
            names.extend(SubjectAltName::from_der(extension.extn_value.as_bytes())?.0);
        }
        Ok(Self { request, extensions, names })
    }

    /// Whether the subject has any attribute.
    pub(crate) fn has_subject(&self) -> bool {
        !self.request.info.subject.is_empty()
    }

    /// The subject alternative names.
    pub(crate) fn names(&self) -> &[GeneralName] {
        &self.names
    }

    /// The requested extensions.
    pub(crate) fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// The attributes besides the requested extensions, such as a challenge password.
    pub(crate) fn other_attributes(&self) -> impl Iterator<Item = ObjectIdentifier> {
        let oids = self.request.info.attributes.iter().map(|attribute| attribute.oid);
        oids.filter(|oid| *oid != ID_EXTENSION_REQ)
    }

    /// Checks that the holder of the request's key has signed the request.
    pub(crate) fn verify_signature(&self) -> Result<(), SignatureError> {
        let CertReq { info, algorithm, signature } = &self.request;
        let encoded = || -> der::Result<_> {
            Ok((info.public_key.to_der()?, algorithm.to_der()?, signature.to_der()?, info.to_der()?))
        };
        // DER has one encoding only, so this is the message that was signed.
        let (key, algorithm, signature, message) = encoded().map_err(|_| SignatureError::Wrong)?;
        let (Ok((_, key)), Ok((_, algorithm)), Ok((_, signature))) = (
            SubjectPublicKeyInfo::from_der(&key),
            AlgorithmIdentifier::from_der(&algorithm),
            BitString::from_der(&signature),
        ) else {
            return Err(SignatureError::Wrong);
        };
        signature::verify(&key, &algorithm, &signature, &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::testing::{ALL_ALGORITHMS, attributes, openssl};
    use crate::x509::{PrivateKey, csr};

    fn der() -> Vec<u8> {
        let attributes = attributes();
        csr(&attributes, &PrivateKey::generate(attributes.key.algorithm).unwrap()).unwrap()
    }

    #[test]
    fn the_signature_of_every_key_algorithm_is_verified() {
        let mut attributes = attributes();
        for algorithm in ALL_ALGORITHMS {
            attributes.key.algorithm = algorithm;
            let der = csr(&attributes, &PrivateKey::generate(algorithm).unwrap()).unwrap();
            let request = ReceivedRequest::from_pem(&pem::certificate_request(&der)).unwrap();
            assert_eq!(request.verify_signature(), Ok(()), "{algorithm:?}");
            assert_eq!(request.names().len(), 4);
        }
    }

    #[test]
    fn a_changed_name_breaks_the_signature() {
        let mut der = der();
        let at = der.windows(3).position(|bytes| bytes == b"web").unwrap();
        der[at] = b'W';
        let request = ReceivedRequest::from_pem(&pem::certificate_request(&der)).unwrap();
        assert_eq!(request.verify_signature(), Err(SignatureError::Wrong));
    }

    #[test]
    fn a_request_of_openssl_is_read() {
        let key = openssl(&["genpkey", "-algorithm", "ed25519"], b"");
        let request = openssl(
            &[
                "req",
                "-new",
                "-key",
                "/dev/stdin",
                "-subj",
                "/",
                "-addext",
                "subjectAltName=URI:spiffe://a/b",
            ],
            &key,
        );
        let request = ReceivedRequest::from_pem(&request).unwrap();
        assert_eq!(request.verify_signature(), Ok(()));
        assert!(!request.has_subject());
        assert!(
            matches!(request.names(), [GeneralName::UniformResourceIdentifier(uri)] if uri.as_str() == "spiffe://a/b")
        );
    }

    #[test]
    fn only_one_request_and_nothing_else_is_read() {
        let pem = pem::certificate_request(&der());
        let mut trailing = der();
        trailing.push(0);
        for (odd, expected) in [
            (b"".to_vec(), ReceivedRequestError::Pem(PemError::NoBlock)),
            ([pem.clone(), pem.clone()].concat(), ReceivedRequestError::NotOneRequest),
            (
                String::from_utf8(pem).unwrap().replace("CERTIFICATE REQUEST", "X").into(),
                ReceivedRequestError::NotOneRequest,
            ),
        ] {
            assert_eq!(ReceivedRequest::from_pem(&odd).unwrap_err(), expected);
        }
        let error = ReceivedRequest::from_pem(&pem::certificate_request(&trailing)).unwrap_err();
        assert!(matches!(error, ReceivedRequestError::Der(_)), "{error}");
    }
}
