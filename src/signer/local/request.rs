//! The certificate signing request that the local CA gets.

use crate::model::Failure;
use crate::x509::signature;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME,
};
use der::asn1::OctetString;
use x509_cert::ext::Extension;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// The extensions that are copied from a request. All others are ignored.
const COPIED_EXTENSIONS: [ObjectIdentifier; 4] =
    [ID_CE_SUBJECT_ALT_NAME, ID_CE_KEY_USAGE, ID_CE_EXT_KEY_USAGE, ID_CE_BASIC_CONSTRAINTS];

/// What is taken from a certificate signing request.
pub(super) struct Request<'a> {
    pub(super) subject: &'a [u8],
    pub(super) spki: &'a [u8],
    pub(super) extensions: Vec<Extension>,
    pub(super) is_ca: bool,
}

impl<'a> Request<'a> {
    /// Parses a request and checks that its own key has signed it.
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Failure> {
        let unreadable = || Failure::permanent("the certificate signing request does not parse");
        let (_, request) = X509CertificationRequest::from_der(der).map_err(|_| unreadable())?;
        let info = &request.certification_request_info;
        signature::verify(
            &info.subject_pki,
            &request.signature_algorithm,
            &request.signature_value,
            info.raw,
        )
        .map_err(|error| {
            Failure::permanent(format!("the certificate signing request is refused: {error}"))
        })?;

        let mut parsed = Self {
            subject: info.subject.as_raw(),
            spki: info.subject_pki.raw,
            extensions: Vec::new(),
            is_ca: false,
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &requested.extensions {
                let dotted = extension.oid.to_id_string();
                let Some(oid) = COPIED_EXTENSIONS.iter().find(|oid| oid.to_string() == dotted) else {
                    continue;
                };
                match extension.parsed_extension() {
                    ParsedExtension::ParseError { .. } => {
                        return Err(Failure::permanent(format!(
                            "the certificate signing request's extension {dotted} does not parse"
                        )));
                    }
                    ParsedExtension::BasicConstraints(constraints) => parsed.is_ca = constraints.ca,
                    _ => {}
                }
                let extn_value = OctetString::new(extension.value).map_err(|_| unreadable())?;
                parsed.extensions.push(Extension { extn_id: *oid, critical: extension.critical, extn_value });
            }
        }
        Ok(parsed)
    }
}
