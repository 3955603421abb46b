//! What is known of a private CA, asked once and kept.

use super::client::Api;
use super::errors::{CallError, Class};
use crate::model::Failure;
use crate::platform::Clock;
use aws_sdk_acmpca::types::{
    CertificateAuthority, CertificateAuthorityStatus, CertificateAuthorityUsageMode, KeyAlgorithm,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Mutex as AsyncMutex;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// A description is asked for again after this time at the latest: the CA's certificate may have been replaced.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(6);
/// And not before this, whatever AWS refuses meanwhile: many refusals at once are no reason for many questions. A CA that is
/// not active is the exception, since it may be any moment.
const KEPT_AT_LEAST: SignedDuration = SignedDuration::from_mins(1);
/// The nearer the CA's end, the likelier its certificate has been renewed: this part of what is left is how long the old end
/// is believed.
const PART_OF_LIFE: i32 = 24;

/// A CA with less left than this is warned of.
const NEAR_END: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What an issuance needs to know of its CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The algorithm the CA's key signs with where nothing else is asked for; unknown where only the author says.
    pub(crate) algorithm: Option<String>,
    /// At most seven days.
    pub(crate) short_lived: bool,
    /// The CA's own end.
    pub(crate) not_after: Option<Timestamp>,
}

/// Descriptions by CA and caller; one that may not describe gets what another way tells.
#[derive(Default)]
pub(crate) struct Authorities(Mutex<HashMap<(String, String), Slot>>);

type Slot = Arc<AsyncMutex<Option<Known>>>;

struct Known {
    facts: Facts,
    asked_at: Timestamp,
    kept_for: SignedDuration,
}

impl Authorities {
    /// The CA's facts, from the cache or from AWS; callers that come meanwhile wait for the same answer.
    pub(crate) async fn facts(
        &self,
        api: &Api,
        caller: &str,
        algorithm: Option<&str>,
        clock: &dyn Clock,
    ) -> Result<Facts, Failure> {
        let slot = self.slot(api, caller);
        let mut slot = slot.lock().await;
        let now = clock.now();
        if let Some(known) = &*slot
            && now.duration_since(known.asked_at).abs() < known.kept_for
        {
            return Ok(known.facts.clone());
        }
        let facts = match api.describe().await {
            Ok(description) => of_description(&description)?,
            Err(CallError { class: Class::Denied, .. }) => of_certificate(api, algorithm).await?,
            Err(error) => return Err(error.into_sign_error()),
        };
        if let Some(end) = facts.not_after {
            api.metrics.authority_end(api.authority.as_str(), end);
            let left = end.duration_since(now);
            if left < NEAR_END {
                tracing::warn!(
                    authority = api.authority.as_str(), expires_at = %end, days_left = left.as_hours() / 24,
                    "a private CA nears its end: certificates will be cut short, then refused; renew its certificate"
                );
            }
        }
        *slot = Some(Known { facts: facts.clone(), asked_at: now, kept_for: kept_for(&facts, now) });
        Ok(facts)
    }

    /// Forgets what is known: AWS has said something that does not fit it.
    pub(crate) fn forget(&self, authority: &str) {
        self.lock().retain(|(known, _), _| known != authority);
    }

    /// AWS has refused something to a caller, perhaps because what is known is out of date: it is believed for
    /// [`KEPT_AT_LEAST`] only, counted from when it was asked for.
    pub(crate) fn doubt(&self, authority: &str, caller: &str) {
        let slots = self.lock();
        let Some(slot) = slots.get(&(authority.to_owned(), caller.to_owned())) else { return };
        // What is being asked for just now is not out of date.
        if let Ok(mut held) = slot.try_lock()
            && let Some(known) = held.as_mut()
        {
            known.kept_for = KEPT_AT_LEAST;
        }
    }

    fn slot(&self, api: &Api, caller: &str) -> Slot {
        Arc::clone(self.lock().entry((api.authority.as_str().to_owned(), caller.to_owned())).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long facts are believed that were asked for at that time. What could not be learnt is asked for again soon: the
/// permission may have been given since.
fn kept_for(facts: &Facts, asked_at: Timestamp) -> SignedDuration {
    match (&facts.algorithm, facts.not_after) {
        (Some(_), Some(end)) => (end.duration_since(asked_at) / PART_OF_LIFE).clamp(KEPT_AT_LEAST, KEPT_FOR),
        _ => KEPT_AT_LEAST,
    }
}

fn of_description(description: &CertificateAuthority) -> Result<Facts, Failure> {
    if let Some(status) = &description.status
        && *status != CertificateAuthorityStatus::Active
    {
        let advice = match status {
            CertificateAuthorityStatus::Disabled => "enable it",
            CertificateAuthorityStatus::PendingCertificate => "install its certificate",
            CertificateAuthorityStatus::Creating => "wait until it is made, and install its certificate",
            CertificateAuthorityStatus::Expired => "renew its certificate",
            CertificateAuthorityStatus::Deleted => "restore it, or name another CA",
            _ => "name another CA",
        };
        return Err(permanent(format!(
            "certificate-authority-arn: the private CA is {}, not ACTIVE: {advice}",
            status.as_str()
        )));
    }
    let configuration = description.certificate_authority_configuration.as_ref();
    let algorithm =
        configuration.map(|configuration| default_algorithm(&configuration.key_algorithm)).transpose()?;
    Ok(Facts {
        algorithm,
        short_lived: description.usage_mode == Some(CertificateAuthorityUsageMode::ShortLivedCertificate),
        not_after: description.not_after.and_then(|end| Timestamp::from_second(end.secs()).ok()),
    })
}

/// The digest that fits the CA's key best.
fn default_algorithm(key: &KeyAlgorithm) -> Result<String, Failure> {
    let algorithm = match key {
        KeyAlgorithm::EcPrime256v1 => "SHA256WITHECDSA",
        KeyAlgorithm::EcSecp384r1 => "SHA384WITHECDSA",
        KeyAlgorithm::EcSecp521r1 => "SHA512WITHECDSA",
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => "SHA256WITHRSA",
        other => {
            return Err(permanent(format!(
                "certificate-authority-arn: the private CA has a key of type {}; accepted: RSA and ECDSA on P-256, \
                 P-384, P-521",
                other.as_str()
            )));
        }
    };
    Ok(algorithm.to_owned())
}

/// For a caller that may not describe the CA (shared by AWS RAM with few permissions): its certificate tells key and
/// end, but not the mode.
async fn of_certificate(api: &Api, algorithm: Option<&str>) -> Result<Facts, Failure> {
    match api.authority_certificate().await {
        Ok(pem) => of_pem(&pem).ok_or_else(|| {
            Failure::transient(
                "AWS Private CA: GetCertificateAuthorityCertificate: the answer is no certificate".to_owned(),
            )
        }),
        Err(CallError { class: Class::Denied, .. }) if algorithm.is_some() => {
            Ok(Facts { algorithm: None, short_lived: false, not_after: None })
        }
        Err(error) if error.class == Class::Denied => Err(permanent(format!(
            "{error}; or set the attribute signing-algorithm, so that the CA need not be looked at"
        ))),
        Err(error) => Err(error.into_sign_error()),
    }
}

fn of_pem(pem: &[u8]) -> Option<Facts> {
    let blocks = crate::x509::pem::blocks(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&blocks.first()?.der).ok()?;
    let curve = || certificate.public_key().algorithm.parameters.as_ref()?.as_oid().ok();
    let key = match certificate.public_key().algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => KeyAlgorithm::Rsa2048,
        "1.2.840.10045.2.1" => match curve()?.to_id_string().as_str() {
            "1.3.132.0.34" => KeyAlgorithm::EcSecp384r1,
            "1.3.132.0.35" => KeyAlgorithm::EcSecp521r1,
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

/// The signing algorithm to ask for: the author's, where its family is that of the CA's key.
pub(crate) fn signing_algorithm(asked: Option<&str>, facts: &Facts) -> Result<String, Failure> {
    let family = |algorithm: &str| algorithm.split_once("WITH").map(|(_, family)| family.to_owned());
    match (asked, facts.algorithm.as_deref()) {
        (Some(asked), Some(fits)) if family(asked) != family(fits) => Err(permanent(format!(
            "signing-algorithm: {asked} does not fit the private CA's own key, whatever the key of the certificate is; \
             accepted: leave it out, or one that ends in {}",
            family(fits).unwrap_or_default()
        ))),
        (Some(asked), _) => Ok(asked.to_owned()),
        (None, Some(fits)) => Ok(fits.to_owned()),
        (None, None) => Err(permanent(
            "signing-algorithm: not set, and the private CA's key is not known; set it to fit the CA's key"
                .to_owned(),
        )),
    }
}

fn permanent(reason: String) -> Failure {
    Failure::permanent(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(algorithm: Option<&str>) -> Facts {
        Facts { algorithm: algorithm.map(str::to_owned), short_lived: true, not_after: None }
    }

    #[test]
    fn the_end_of_a_ca_is_asked_for_more_often_the_nearer_it_is() {
        let asked_at = Timestamp::UNIX_EPOCH;
        let minutes = |left: i64| {
            let not_after = Some(asked_at + SignedDuration::from_mins(left));
            kept_for(&Facts { not_after, ..facts(Some("SHA256WITHECDSA")) }, asked_at).as_mins()
        };
        assert_eq!([24 * 60 * 365, 24 * 60, 5 * 60, 3, -60].map(minutes), [360, 60, 12, 1, 1]);
    }

    #[test]
    fn what_could_not_be_learnt_is_asked_for_again_after_a_minute() {
        let asked_at = Timestamp::UNIX_EPOCH;
        let not_after = Some(asked_at + SignedDuration::from_hours(24 * 365));
        for unknown in [facts(None), facts(Some("SHA256WITHECDSA")), Facts { not_after, ..facts(None) }] {
            assert_eq!(kept_for(&unknown, asked_at), KEPT_AT_LEAST, "{unknown:?}");
        }
    }

    #[test]
    fn the_family_must_be_that_of_the_cas_key() {
        let ecdsa = facts(Some("SHA384WITHECDSA"));
        assert_eq!(signing_algorithm(None, &ecdsa).unwrap(), "SHA384WITHECDSA");
        assert_eq!(signing_algorithm(Some("SHA256WITHECDSA"), &ecdsa).unwrap(), "SHA256WITHECDSA");
        let refused = signing_algorithm(Some("SHA256WITHRSA"), &ecdsa).unwrap_err().to_string();
        assert!(refused.starts_with("signing-algorithm: SHA256WITHRSA does not fit"), "{refused}");
        assert_eq!(signing_algorithm(Some("SHA256WITHRSA"), &facts(None)).unwrap(), "SHA256WITHRSA");
        assert!(signing_algorithm(None, &facts(None)).is_err());
    }
}
