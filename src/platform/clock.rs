//! Wall time, and waiting for it. Injected everywhere, so that tests drive it.

use super::readiness::readable;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::time::Duration;

/// Wall time, and waiting for it.
pub trait Clock: Send + Sync + 'static {
    /// Now, on the wall clock.
    fn now(&self) -> Timestamp;

    /// Returns at `deadline` on the wall clock, or as soon as the wall clock is set or jumps, whichever comes first:
    /// the caller reads [`Clock::now`] again. Without a deadline it returns only on a jump.
    fn wait_until(&self, deadline: Option<Timestamp>) -> BoxFuture<'_, ()>;
}

/// The machine's wall clock.
///
/// Waiting is a `timerfd` on `CLOCK_REALTIME` with `TFD_TIMER_CANCEL_ON_SET` (`timerfd_create(2)`): the kernel ends the
/// wait when the clock is set and when the machine comes back from suspend. There are no wakeups before that.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn wait_until(&self, deadline: Option<Timestamp>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = wait_on_timerfd(deadline).await {
                // Out of descriptors, for example. A wait that cannot notice a jump is better than a busy loop.
                tracing::warn!(%error, "no timerfd for waiting on the wall clock; the clock is read again within a minute");
                let left = deadline.map_or(MAX_WAIT_WITHOUT_TIMERFD, |at| {
                    until(Timestamp::now(), at).min(MAX_WAIT_WITHOUT_TIMERFD)
                });
                tokio::time::sleep(left).await;
            }
        })
    }
}

/// How long a wait without a timerfd lasts before the caller reads the clock again.
const MAX_WAIT_WITHOUT_TIMERFD: Duration = Duration::from_mins(1);

/// Time from `now` to `then`; zero if `then` has passed.
pub(crate) fn until(now: Timestamp, then: Timestamp) -> Duration {
    then.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

async fn wait_on_timerfd(deadline: Option<Timestamp>) -> io::Result<()> {
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let at = deadline.unwrap_or(Timestamp::MAX).max(Timestamp::UNIX_EPOCH);
    // An expiry of zero would disarm the timer, hence at least a nanosecond.
    let spec = TimeSpec::new(at.as_second(), i64::from(at.subsec_nanosecond()).max(1));
    timer.set(
        Expiration::OneShot(spec),
        TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
    )?;
    // It is readable when it has expired, and when a jump of the clock has cancelled it. The caller reads the clock in both cases.
    let timer = readable(timer.into())?;
    let _ready = timer.readable().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline_and_not_before() {
        let deadline = Timestamp::now() + SignedDuration::from_millis(30);
        SystemClock.wait_until(Some(deadline)).await;
        assert!(Timestamp::now() >= deadline);
    }

    #[tokio::test]
    async fn a_deadline_that_has_passed_is_no_wait() {
        for passed in
            [Timestamp::now() - SignedDuration::from_hours(1), Timestamp::UNIX_EPOCH, Timestamp::MIN]
        {
            SystemClock.wait_until(Some(passed)).await;
        }
    }

    #[tokio::test]
    async fn a_wait_without_a_deadline_goes_on() {
        let limit = Duration::from_millis(30);
        assert!(tokio::time::timeout(limit, SystemClock.wait_until(None)).await.is_err());
    }
}
