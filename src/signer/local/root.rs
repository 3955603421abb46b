//! The root of an ephemeral CA.

use super::serial;
use crate::x509::{PrivateKey, certificate};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyIdMethod, KeyUsagePurpose};
use std::time::Duration;
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// Validity of the root of an ephemeral CA: longer than any process runs.
const EPHEMERAL_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// Lets rcgen sign with a key without copying it. A `rcgen::KeyPair` holds a copy that is not zeroized.
struct RootKey<'a> {
    key: &'a PrivateKey,
    public_key: Vec<u8>,
}

impl rcgen::PublicKeyData for RootKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for RootKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A root for an ECDSA P-256 key, DER.
pub(super) fn root(key: &PrivateKey, now: Timestamp) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial().map_err(|_| rcgen::Error::RemoteKeyError)?.to_vec().into());
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_after = params.not_before + EPHEMERAL_LIFETIME;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "certlet");
    params.distinguished_name.push(DnType::CommonName, "certlet local CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(certificate::key_id(key.spki_der()));
    let public_key =
        SubjectPublicKeyInfoRef::try_from(key.spki_der()).map_err(|_| rcgen::Error::RemoteKeyError)?;
    let public_key = public_key.subject_public_key.raw_bytes().to_vec();
    Ok(params.self_signed(&RootKey { key, public_key })?.der().to_vec())
}
