//! The end of validity: the requested one, shortened to what the CA can issue.

use crate::model::named::named_enum;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The longest validity of a certificate from a CA in short-lived mode.
const MAX_SHORT_LIVED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The distance from a limit. A node whose clock is a little ahead must not request more than AWS accepts.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// A CA that expires within this time issues no certificate any more.
const MIN_AUTHORITY_LIFE: SignedDuration = SignedDuration::from_mins(10);

named_enum! {
    /// Why a validity was shortened.
    pub(crate) enum Limit {
        /// Short-lived mode of the CA.
        ShortLived = "short-lived-mode",
        /// The end of the CA's own certificate.
        AuthorityEnd = "authority-end",
    }
}

impl Limit {
    /// For the pod's author.
    pub(crate) fn warning(self) -> &'static str {
        match self {
            Self::ShortLived => "the duration was cut to 7 days: the private CA is in short-lived mode",
            Self::AuthorityEnd => "the duration was cut short: the private CA itself expires soon after",
        }
    }
}

/// Returns the end of validity, in whole seconds, and the limit that shortened it.
pub(crate) fn clamp(
    duration: Duration,
    short_lived: bool,
    authority_end: Option<Timestamp>,
    now: Timestamp,
) -> Result<(Timestamp, Option<Limit>), String> {
    if let Some(end) = authority_end.filter(|end| end.duration_since(now) <= MIN_AUTHORITY_LIFE) {
        return Err(format!(
            "certificate-authority-arn: the private CA expires at {end}: renew its certificate, or name another CA"
        ));
    }
    let after = |time: SignedDuration| now.saturating_add(time).unwrap_or(Timestamp::MAX);
    let requested = after(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX));
    let limits = [
        short_lived.then(|| (after(MAX_SHORT_LIVED - MARGIN), Limit::ShortLived)),
        authority_end.map(|end| (end.saturating_sub(MARGIN).unwrap_or(end), Limit::AuthorityEnd)),
    ];
    let earliest = limits
        .into_iter()
        .flatten()
        .filter(|(latest, _)| *latest < requested)
        .min_by_key(|(latest, _)| *latest);
    let (end, limit) = earliest.map_or((requested, None), |(latest, limit)| (latest, Some(limit)));
    Ok((Timestamp::from_second(end.as_second()).unwrap_or(end), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00.5Z".parse().unwrap()
    }

    fn hours(hours: i64) -> Timestamp {
        now() + SignedDuration::from_hours(hours)
    }

    #[test]
    fn a_duration_within_the_limits_is_kept() {
        let (end, limit) = clamp(Duration::from_hours(25), true, Some(hours(1000)), now()).unwrap();
        assert_eq!((end.as_second(), limit), (hours(25).as_second(), None));
    }

    #[test]
    fn short_lived_mode_cuts_to_seven_days() {
        let (end, limit) = clamp(Duration::from_hours(2160), true, None, now()).unwrap();
        assert!(end < hours(168) && end > hours(167));
        assert_eq!(limit, Some(Limit::ShortLived));
        assert_eq!(clamp(Duration::from_hours(2160), false, None, now()).unwrap().1, None);
    }

    #[test]
    fn a_ca_near_its_end_cuts_and_one_at_its_end_refuses() {
        let (end, limit) = clamp(Duration::from_hours(24), true, Some(hours(5)), now()).unwrap();
        assert!(end < hours(5) && end > hours(4));
        assert_eq!(limit, Some(Limit::AuthorityEnd));
        for left in [0, -5] {
            let refused = clamp(Duration::from_hours(24), false, Some(hours(left)), now()).unwrap_err();
            assert!(refused.contains("renew its certificate"), "{refused}");
        }
    }

    #[test]
    fn the_longest_possible_duration_does_not_overflow() {
        assert!(clamp(Duration::MAX, false, None, now()).is_ok());
    }
}
