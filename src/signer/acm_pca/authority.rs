//! Facts of private CAs, with a cache.

use super::MAX_CACHED;
use super::client::Api;
use super::errors::{CallError, ErrorKind};
use crate::model::Failure;
use crate::platform::{BoundedMap, Clock};
use aws_sdk_acmpca::types::{
    CertificateAuthority, CertificateAuthorityStatus, CertificateAuthorityUsageMode, KeyAlgorithm,
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex as AsyncMutex;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// The longest time that facts are kept, because the CA's certificate may have been replaced.
const MAX_CACHE_TIME: SignedDuration = SignedDuration::from_hours(6);
/// The shortest time that facts are kept, so that many refusals do not cause many queries.
const MIN_CACHE_TIME: SignedDuration = SignedDuration::from_mins(1);
/// Facts are kept for this part of the CA's remaining life: near its end, its certificate has more likely been renewed.
const PART_OF_LIFE: i32 = 24;

/// A CA that expires within this time causes a warning.
const WARN_BEFORE_END: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The facts of a CA that an issuance needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The default signing algorithm for the CA's key; none if the caller may read neither description nor certificate.
    pub(crate) algorithm: Option<&'static str>,
    /// Whether validity is at most seven days.
    pub(crate) short_lived: bool,
    /// The end of the CA's own certificate.
    pub(crate) not_after: Option<Timestamp>,
}

/// Facts by the CA's ARN and the caller, because callers have different permissions.
pub(crate) struct Authorities {
    /// Only of CAs that AWS has described. So CAs that a pod invents displace no others.
    known: Mutex<BoundedMap<Key, Known>>,
    /// The queries in flight. Each has a lock, so that concurrent callers make one query.
    queries: Mutex<HashMap<Key, Arc<AsyncMutex<()>>>>,
}

/// A CA and a caller.
type Key = (String, String);

struct Known {
    facts: Facts,
    queried_at: Timestamp,
    cache_time: SignedDuration,
}

impl Default for Authorities {
    fn default() -> Self {
        Self { known: Mutex::new(BoundedMap::new(MAX_CACHED)), queries: Mutex::default() }
    }
}

/// One of the callers that wait for a query. The last one to be dropped removes the query.
struct Query<'a> {
    authorities: &'a Authorities,
    key: &'a Key,
    lock: Arc<AsyncMutex<()>>,
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        let mut queries = self.authorities.queries.lock();
        // The lock is shared under the lock of the map only. Two: the map's and this one.
        if Arc::strong_count(&self.lock) == 2 {
            queries.remove(self.key);
        }
    }
}

impl Authorities {
    /// The CA's facts, from the cache or from AWS. Concurrent callers wait for the same answer.
    pub(crate) async fn facts(
        &self,
        api: &Api,
        caller: &str,
        algorithm: Option<&str>,
        clock: &dyn Clock,
    ) -> Result<Facts, Failure> {
        let authority = api.authority.as_str();
        let key = (authority.to_owned(), caller.to_owned());
        if let Some(facts) = self.known(&key, clock.now()) {
            return Ok(facts);
        }
        let query = self.query(&key);
        let _only_one = query.lock.lock().await;
        let now = clock.now();
        if let Some(facts) = self.known(&key, now) {
            return Ok(facts);
        }
        let facts = match api.describe().await {
            Ok(description) => from_description(&description)?,
            Err(CallError { kind: ErrorKind::Denied, .. }) => from_certificate(api, algorithm).await?,
            Err(error) => return Err(error.into()),
        };
        if let Some(end) = facts.not_after {
            api.metrics.authority_end(authority, end);
            let left = end.duration_since(now);
            if left < WARN_BEFORE_END {
                tracing::warn!(
                    authority, expires_at = %end, days_left = left.as_hours() / 24,
                    "a private CA expires soon: certificates will be shortened, then refused; renew its certificate"
                );
            }
        }
        let known = Known { facts: facts.clone(), queried_at: now, cache_time: cache_time(&facts, now) };
        self.known.lock().insert(key.clone(), known);
        Ok(facts)
    }

    /// The facts in the cache, if they are not too old.
    fn known(&self, key: &Key, now: Timestamp) -> Option<Facts> {
        let mut known = self.known.lock();
        let known = known.get(key)?;
        (now.duration_since(known.queried_at).abs() < known.cache_time).then(|| known.facts.clone())
    }

    fn query<'a>(&'a self, key: &'a Key) -> Query<'a> {
        let lock = Arc::clone(self.queries.lock().entry(key.clone()).or_default());
        Query { authorities: self, key, lock }
    }

    /// How many CAs and queries are in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.known.lock().keys().len(), self.queries.lock().len())
    }

    /// Forgets the facts of a CA, because its state has changed.
    pub(crate) fn forget(&self, authority: &str) {
        self.known.lock().retain(|(known, _), _| known != authority);
    }

    /// Keeps a caller's facts for [`MIN_CACHE_TIME`] only, because AWS has refused a call and they may be outdated.
    pub(crate) fn shorten_cache_time(&self, authority: &str, caller: &str) {
        if let Some(known) = self.known.lock().get(&(authority.to_owned(), caller.to_owned())) {
            known.cache_time = MIN_CACHE_TIME;
        }
    }
}

/// How long facts are kept. Unknown facts are queried again soon, because the permission may have been granted since.
fn cache_time(facts: &Facts, queried_at: Timestamp) -> SignedDuration {
    match (&facts.algorithm, facts.not_after) {
        (Some(_), Some(end)) => {
            (end.duration_since(queried_at) / PART_OF_LIFE).clamp(MIN_CACHE_TIME, MAX_CACHE_TIME)
        }
        _ => MIN_CACHE_TIME,
    }
}

fn from_description(description: &CertificateAuthority) -> Result<Facts, Failure> {
    if let Some(status) = &description.status
        && *status != CertificateAuthorityStatus::Active
    {
        let advice = match status {
            CertificateAuthorityStatus::Disabled => "enable it",
            CertificateAuthorityStatus::PendingCertificate => "install its certificate",
            CertificateAuthorityStatus::Creating => "wait until it is created, and install its certificate",
            CertificateAuthorityStatus::Expired => "renew its certificate",
            CertificateAuthorityStatus::Deleted => "restore it, or name another CA",
            _ => "name another CA",
        };
        return Err(Failure::permanent(format!(
            "certificate-authority-arn: the private CA is {}, not ACTIVE: {advice}",
            status.as_str()
        )));
    }
    let configuration = description.certificate_authority_configuration.as_ref();
    Ok(Facts {
        algorithm: configuration.map(|found| default_algorithm(&found.key_algorithm)).transpose()?,
        short_lived: description.usage_mode == Some(CertificateAuthorityUsageMode::ShortLivedCertificate),
        not_after: description.not_after.and_then(|end| Timestamp::from_second(end.secs()).ok()),
    })
}

/// The signing algorithm with the digest that fits the CA's key.
fn default_algorithm(key: &KeyAlgorithm) -> Result<&'static str, Failure> {
    match key {
        KeyAlgorithm::EcPrime256v1 => Ok("SHA256WITHECDSA"),
        KeyAlgorithm::EcSecp384r1 => Ok("SHA384WITHECDSA"),
        KeyAlgorithm::EcSecp521r1 => Ok("SHA512WITHECDSA"),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => Ok("SHA256WITHRSA"),
        other => Err(Failure::permanent(format!(
            "certificate-authority-arn: the private CA has a key of type {}; accepted: RSA and ECDSA on P-256, \
                 P-384, P-521",
            other.as_str()
        ))),
    }
}

/// Reads the CA's certificate, for a caller without the permission to describe the CA, such as an account that AWS RAM shares
/// it with. The certificate shows key and end, but not the mode.
async fn from_certificate(api: &Api, algorithm: Option<&str>) -> Result<Facts, Failure> {
    match api.authority_certificate().await {
        Ok(pem) => from_pem(&pem).ok_or_else(|| {
            CallError::response("GetCertificateAuthorityCertificate", "the answer is not a certificate")
                .into()
        }),
        Err(error) if error.kind != ErrorKind::Denied => Err(error.into()),
        Err(_) if algorithm.is_some() => Ok(Facts { algorithm: None, short_lived: false, not_after: None }),
        Err(error) => Err(Failure::permanent(format!(
            "{error}; or set the attribute signing-algorithm, so that no information on the CA is needed"
        ))),
    }
}

fn from_pem(pem: &[u8]) -> Option<Facts> {
    let blocks = crate::x509::pem::blocks(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&blocks.first()?.der).ok()?;
    let key = match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(_) => KeyAlgorithm::Rsa2048,
        PublicKey::EC(point) => match point.key_size() {
            384 => KeyAlgorithm::EcSecp384r1,
            // P-521: each coordinate has 66 bytes.
            528 => KeyAlgorithm::EcSecp521r1,
            _ => KeyAlgorithm::EcPrime256v1,
        },
        _ => return None,
    };
    Some(Facts {
        algorithm: default_algorithm(&key).ok(),
        short_lived: false,
        not_after: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok(),
    })
}

/// The signing algorithm to request: the author's, if its family is that of the CA's key, or the default one.
pub(crate) fn signing_algorithm(requested: Option<&str>, facts: &Facts) -> Result<String, Failure> {
    let family = |algorithm: &str| algorithm.split_once("WITH").map(|(_, family)| family.to_owned());
    match (requested, facts.algorithm) {
        (Some(requested), Some(default)) if family(requested) != family(default) => {
            Err(Failure::permanent(format!(
                "signing-algorithm: {requested} does not fit the private CA's own key, whatever the key of the \
                 certificate is; accepted: leave it out, or one that ends in {}",
                family(default).unwrap_or_default()
            )))
        }
        (Some(algorithm), _) | (None, Some(algorithm)) => Ok(algorithm.to_owned()),
        (None, None) => Err(Failure::permanent(
            "signing-algorithm: not set, and the private CA's key is not known; set it to fit the CA's key",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(algorithm: Option<&'static str>) -> Facts {
        Facts { algorithm, short_lived: true, not_after: None }
    }

    #[test]
    fn a_ca_near_its_end_is_described_more_often() {
        let queried_at = Timestamp::UNIX_EPOCH;
        let minutes = |left: i64| {
            let not_after = Some(queried_at + SignedDuration::from_mins(left));
            cache_time(&Facts { not_after, ..facts(Some("SHA256WITHECDSA")) }, queried_at).as_mins()
        };
        assert_eq!([24 * 60 * 365, 24 * 60, 5 * 60, 3, -60].map(minutes), [360, 60, 12, 1, 1]);
    }

    #[test]
    fn unknown_facts_are_queried_again_after_a_minute() {
        let queried_at = Timestamp::UNIX_EPOCH;
        let not_after = Some(queried_at + SignedDuration::from_hours(24 * 365));
        for unknown in [facts(None), facts(Some("SHA256WITHECDSA")), Facts { not_after, ..facts(None) }] {
            assert_eq!(cache_time(&unknown, queried_at), MIN_CACHE_TIME, "{unknown:?}");
        }
    }

    #[test]
    fn the_default_algorithm_follows_from_the_certificate_of_the_ca() {
        for (key, algorithm) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "SHA256WITHECDSA"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "SHA384WITHECDSA"),
            (&rcgen::PKCS_ECDSA_P521_SHA512, "SHA512WITHECDSA"),
            (&rcgen::PKCS_RSA_SHA256, "SHA256WITHRSA"),
        ] {
            let key = rcgen::KeyPair::generate_for(key).unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
            assert_eq!(from_pem(certificate.as_bytes()).unwrap().algorithm, Some(algorithm));
        }
    }

    #[test]
    fn the_family_must_fit_the_key_of_the_ca() {
        let ecdsa = facts(Some("SHA384WITHECDSA"));
        assert_eq!(signing_algorithm(None, &ecdsa).unwrap(), "SHA384WITHECDSA");
        assert_eq!(signing_algorithm(Some("SHA256WITHECDSA"), &ecdsa).unwrap(), "SHA256WITHECDSA");
        let refused = signing_algorithm(Some("SHA256WITHRSA"), &ecdsa).unwrap_err().to_string();
        assert!(refused.starts_with("signing-algorithm: SHA256WITHRSA does not fit"), "{refused}");
        assert_eq!(signing_algorithm(Some("SHA256WITHRSA"), &facts(None)).unwrap(), "SHA256WITHRSA");
        assert!(signing_algorithm(None, &facts(None)).is_err());
    }
}
