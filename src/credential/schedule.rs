//! When a renewal is due, and when to try again after a failure. Pure arithmetic on wall time.

use crate::model::{Failure, FailureKind, VolumeId, jitter};
use crate::platform::{Backoff, until};
use crate::store::IssuedRecord;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Share of the time until the renewal by which a renewal may come earlier, so that volumes do not renew together.
const JITTER: f64 = 0.1;

/// The life of one certificate. It is counted from the time of issue, because AWS Private CA and others backdate
/// `notBefore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
}

impl Lifetime {
    /// The lifetime of the certificate in a record.
    pub(crate) fn of(issued: &IssuedRecord) -> Self {
        Self { issued_at: issued.issued_at, not_after: issued.end() }
    }

    /// The whole lifetime, at least a nanosecond.
    fn total(self) -> SignedDuration {
        self.not_after.duration_since(self.issued_at).max(SignedDuration::from_nanos(1))
    }

    /// The part that is left at `now`, as a fraction of the whole: 1 when new, 0 or less once expired.
    pub fn remaining_fraction(self, now: Timestamp) -> f64 {
        self.not_after.duration_since(now).as_secs_f64() / self.total().as_secs_f64()
    }
}

/// When a certificate is renewed: after two thirds of its life, or `renew_before` ahead of its end. A jitter moves this
/// earlier. It depends only on the volume id and the two times of `lifetime`.
///
/// A `renew_before` as long as the life or longer is ignored, because it would renew all the time. A certificate is used
/// for at least `at_least`, or for two thirds of its life less the jitter, if that is shorter.
pub fn renew_at(
    volume: &VolumeId,
    lifetime: Lifetime,
    renew_before: Option<Duration>,
    at_least: Duration,
) -> Timestamp {
    let total = lifetime.total();
    let renew_before = renew_before
        .and_then(|before| SignedDuration::try_from(before).ok())
        .filter(|before| *before < total)
        .unwrap_or(total / 3);
    let at_least = SignedDuration::try_from(at_least).unwrap_or(SignedDuration::MAX);
    let at_least = at_least.min((total - total / 3).mul_f64(1.0 - JITTER));
    let window = (total - renew_before).max(at_least.mul_f64(1.0 / (1.0 - JITTER)));
    let seed = [lifetime.issued_at, lifetime.not_after].map(|at| at.as_nanosecond().to_be_bytes()).concat();
    let earlier = window.mul_f64(JITTER * jitter(volume.as_str(), &seed));
    lifetime.issued_at.saturating_add((window - earlier).max(at_least)).unwrap_or(lifetime.not_after)
}

/// A number in [0, 1) that depends only on the volume and the number of the attempt.
pub(crate) fn spread(volume: &VolumeId, attempt: u32) -> f64 {
    jitter(volume.as_str(), &attempt.to_be_bytes())
}

/// Renewals that fall due together, after a restart or a change of the clock, are spread over this time.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(30);

/// A clock that goes back by no more than this was corrected, for example by NTP, and not set back.
const MAX_CORRECTION: Duration = Duration::from_mins(1);

/// Whether a recorded time lies in the future. Then the clock was ahead when it was recorded, and has been set back
/// since.
pub(crate) fn is_ahead(recorded: Timestamp, now: Timestamp) -> bool {
    until(now, recorded) > MAX_CORRECTION
}

/// The volume's offset within a time over which renewals are spread.
pub(crate) fn offset_within(window: Duration, volume: &VolumeId) -> Duration {
    window.mul_f64(spread(volume, 0))
}

/// The pause after the `failures`-th failure of a kind in a row (counted from one).
///
/// It doubles from a base to a cap, which depend on the kind. `jitter` in [0, 1) spreads it over its upper half. While
/// the certificate is valid, the pause is at most half of the remaining lifetime, so that attempts become more frequent
/// towards the end.
pub(crate) fn retry_after(
    failure: &Failure,
    failures: u32,
    lifetime: Lifetime,
    now: Timestamp,
    jitter: f64,
) -> Duration {
    let asked = failure.retry_after.unwrap_or_default();
    let (base, cap) = match failure.kind.retry_kind() {
        FailureKind::NotReady => return asked.max(MIN_RETRY),
        FailureKind::Permanent => (Duration::from_mins(1), Duration::from_hours(1)),
        FailureKind::Throttled | FailureKind::OverBudget => {
            (Duration::from_secs(10), Duration::from_mins(10))
        }
        _ => (Duration::from_secs(2), Duration::from_mins(5)),
    };
    // A certificate with a lifetime of a minute needs shorter pauses than one with a day.
    let base = base.min(lifetime.total().unsigned_abs() / 50).max(MIN_RETRY);
    let pause = Backoff::new(base, cap).pause(failures.saturating_sub(1), jitter).max(asked);
    let left = until(now, lifetime.not_after);
    if left.is_zero() { pause } else { pause.min(left / 2).max(MIN_RETRY) }
}

/// The shortest pause between two attempts of one volume.
pub(crate) const MIN_RETRY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn lifetime(hours: i64) -> Lifetime {
        let issued_at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        Lifetime { issued_at, not_after: issued_at + SignedDuration::from_hours(hours) }
    }

    #[test]
    fn renewal_is_due_at_two_thirds_or_a_jitter_earlier() {
        let life = lifetime(24);
        for n in 0..1000 {
            let due = renew_at(&VolumeId::new(format!("csi-{n}")), life, None, NONE);
            let after = due.duration_since(life.issued_at);
            assert!(after <= SignedDuration::from_hours(16), "{after:?}");
            assert!(after >= SignedDuration::from_hours(16).mul_f64(0.9), "{after:?}");
        }
    }

    #[test]
    fn the_point_is_fixed_by_volume_and_lifetime() {
        let volume = VolumeId::new("csi-1");
        assert_eq!(renew_at(&volume, lifetime(24), None, NONE), renew_at(&volume, lifetime(24), None, NONE));
        assert_ne!(
            renew_at(&volume, lifetime(24), None, NONE),
            renew_at(&VolumeId::new("csi-2"), lifetime(24), None, NONE)
        );
    }

    #[test]
    fn volumes_published_in_one_second_do_not_renew_in_one_second() {
        let life = lifetime(24);
        let mut seconds: Vec<i64> = (0..250)
            .map(|n| renew_at(&VolumeId::new(format!("csi-{n}")), life, None, NONE).as_second())
            .collect();
        seconds.sort_unstable();
        let most = seconds.chunk_by(|a, b| a == b).map(<[i64]>::len).max().unwrap();
        assert!(most <= 4, "{most} volumes renew in the same second");
    }

    #[test]
    fn renew_before_is_kept_but_for_jitter_towards_earlier() {
        let life = lifetime(24);
        for n in 0..100 {
            let due = renew_at(&VolumeId::new(format!("csi-{n}")), life, Some(Duration::from_hours(4)), NONE);
            let before = life.not_after.duration_since(due);
            assert!(
                before >= SignedDuration::from_hours(4) && before <= SignedDuration::from_hours(6),
                "{before:?}"
            );
        }
    }

    #[test]
    fn renew_before_at_or_over_the_lifetime_is_ignored() {
        let volume = VolumeId::new("csi-1");
        let usual = renew_at(&volume, lifetime(24), None, NONE);
        assert_eq!(renew_at(&volume, lifetime(24), Some(Duration::from_hours(24)), NONE), usual);
        assert_eq!(renew_at(&volume, lifetime(24), Some(Duration::MAX), NONE), usual);
    }

    #[test]
    fn a_renew_before_of_nearly_the_whole_life_does_not_renew_all_the_time() {
        let (volume, life) = (VolumeId::new("csi-1"), lifetime(24));
        let used = |life: Lifetime, before| {
            renew_at(&volume, life, Some(before), Duration::from_mins(1)).duration_since(life.issued_at)
        };
        let nearly_all = Duration::from_hours(24) - Duration::from_secs(3);
        let minute = used(life, nearly_all).as_secs();
        assert!((60..67).contains(&minute), "{minute} s");
        // With a lifetime of nine seconds it is used for six, less the jitter.
        let short = Lifetime { not_after: life.issued_at + SignedDuration::from_secs(9), ..life };
        let six = used(short, Duration::from_secs(8)).as_secs_f64();
        assert!((5.4..=6.0).contains(&six), "{six} s");
    }

    #[test]
    fn a_renewal_that_comes_later_than_asked_is_spread_too() {
        let cases = [(Duration::from_mins(59), Duration::from_mins(1)), (NONE, Duration::from_hours(1))];
        for (before, at_least) in cases {
            let due = |n| renew_at(&VolumeId::new(format!("csi-{n}")), lifetime(1), Some(before), at_least);
            let all: std::collections::BTreeSet<_> = (0..100).map(due).collect();
            assert!(all.len() > 90, "{} points for 100 volumes", all.len());
        }
    }

    #[test]
    fn a_certificate_that_is_expired_when_issued_does_not_panic() {
        let issued_at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let life = Lifetime { issued_at, not_after: issued_at - SignedDuration::from_hours(1) };
        assert!(
            renew_at(&VolumeId::new("csi-1"), life, Some(Duration::from_secs(1)), NONE)
                <= issued_at + SignedDuration::from_secs(1)
        );
    }

    #[test]
    fn retries_grow_but_never_past_half_of_what_is_left() {
        let life = lifetime(24);
        let start = life.issued_at + SignedDuration::from_hours(16);
        let pauses: Vec<_> =
            (1..20).map(|n| retry_after(&Failure::transient(""), n, life, start, 0.999)).collect();
        assert!(pauses.is_sorted());
        assert!(*pauses.last().unwrap() <= Duration::from_mins(5));
        let late = life.not_after - SignedDuration::from_secs(20);
        assert!(retry_after(&Failure::permanent(""), 9, life, late, 0.5) <= Duration::from_secs(10));
    }

    #[test]
    fn a_throttled_retry_waits_as_long_as_the_signer_asks() {
        let life = lifetime(24);
        let failure = Failure::throttled("", Some(Duration::from_mins(20)));
        assert_eq!(retry_after(&failure, 1, life, life.issued_at, 0.0), Duration::from_mins(20));
    }
}
