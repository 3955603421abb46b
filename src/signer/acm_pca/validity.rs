//! How long a certificate may last: what is asked for, cut to what the CA can give.

use jiff::{SignedDuration, Timestamp};
use std::fmt;
use std::time::Duration;

/// The longest life of a certificate from a CA in short-lived mode.
const SHORT_LIVED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What is kept off a limit, so that a node whose clock is a little ahead does not ask for more than there is.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// A CA with less left than this is as good as expired.
const USELESS: SignedDuration = SignedDuration::from_mins(10);

/// What cut a certificate's life short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Short-lived mode.
    ShortLived,
    /// The CA's own end.
    AuthorityEnd,
}

impl Limit {
    pub(crate) const ALL: [Self; 2] = [Self::ShortLived, Self::AuthorityEnd];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ShortLived => "short-lived-mode",
            Self::AuthorityEnd => "authority-end",
        }
    }

    /// For the pod's author.
    pub(crate) fn warning(self) -> &'static str {
        match self {
            Self::ShortLived => "the duration was cut to 7 days: the private CA is in short-lived mode",
            Self::AuthorityEnd => "the duration was cut short: the private CA itself expires soon after",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The end of a certificate's life, in whole seconds, and what cut it short.
pub(crate) fn clamp(
    asked: Duration,
    short_lived: bool,
    authority_end: Option<Timestamp>,
    now: Timestamp,
) -> Result<(Timestamp, Option<Limit>), String> {
    let asked = SignedDuration::try_from(asked).unwrap_or(SignedDuration::MAX);
    let mut end = now.saturating_add(asked).unwrap_or(Timestamp::MAX);
    let mut limit = None;
    let longest = now.saturating_add(SHORT_LIVED - MARGIN).unwrap_or(Timestamp::MAX);
    if short_lived && end > longest {
        (end, limit) = (longest, Some(Limit::ShortLived));
    }
    if let Some(authority_end) = authority_end {
        if authority_end.duration_since(now) <= USELESS {
            return Err(format!(
                "certificate-authority-arn: the private CA expires at {authority_end}: renew its certificate, or name \
                 another CA"
            ));
        }
        let last = authority_end.saturating_sub(MARGIN).unwrap_or(authority_end);
        if end > last {
            (end, limit) = (last, Some(Limit::AuthorityEnd));
        }
    }
    let whole = Timestamp::from_second(end.as_second()).unwrap_or(end);
    Ok((whole, limit))
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
    fn hours_are_kept_and_nothing_is_cut_that_fits() {
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
    fn the_longest_duration_there_is_does_not_overflow() {
        assert!(clamp(Duration::MAX, false, None, now()).is_ok());
    }
}
