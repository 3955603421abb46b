//! Makes many calls at once, and measures how long each takes and how many are answered per second.

use crate::Failure;
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Status;

/// Durations of a run of calls.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    /// Number of calls.
    pub(crate) calls: usize,
    /// Most calls in flight at once.
    pub(crate) in_flight: usize,
    /// Calls per second.
    pub(crate) rate: f64,
    /// Median, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub(crate) p99_ms: f64,
    /// The longest call, in milliseconds.
    pub(crate) longest_ms: f64,
}

impl Load {
    fn of(mut took: Vec<Duration>, in_flight: usize, whole: Duration) -> Self {
        took.sort_unstable();
        let ms = |quantile| percentile(&took, quantile).as_secs_f64() * 1e3;
        Self {
            calls: took.len(),
            in_flight,
            rate: took.len() as f64 / whole.as_secs_f64(),
            p50_ms: ms(50),
            p99_ms: ms(99),
            longest_ms: ms(100),
        }
    }
}

/// The value that `percent` of the sorted values do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Makes all calls, `in_flight` at once. Each answer starts the next call.
pub(crate) async fn closed<F>(
    count: usize,
    in_flight: usize,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Load, Failure>
where
    F: Future<Output = Result<(), Status>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..in_flight.min(count) {
        let (next, call) = (Arc::clone(&next), call.clone());
        callers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok::<_, Status>(took);
                }
                let begun = Instant::now();
                call(index).await?;
                took.push(begun.elapsed());
            }
        });
    }
    let mut took = Vec::with_capacity(count);
    while let Some(caller) = callers.join_next().await {
        took.extend(caller??);
    }
    Ok(Load::of(took, in_flight, started.elapsed()))
}

/// Starts calls at a steady rate, however long the answers take, with at most `in_flight` open. A call's duration includes
/// its wait for a free slot.
pub(crate) async fn open<F>(
    count: usize,
    rate: u32,
    in_flight: usize,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Load, Failure>
where
    F: Future<Output = Result<(), Status>> + Send,
{
    let slots = Arc::new(Semaphore::new(in_flight));
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for index in 0..count {
        let due = started + Duration::from_secs(1) * u32::try_from(index)? / rate;
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let (slots, call, begun) = (Arc::clone(&slots), call.clone(), Instant::now());
        calls.spawn(async move {
            let _slot = slots.acquire().await;
            call(index).await?;
            Ok::<_, Status>(begun.elapsed())
        });
    }
    let mut took = Vec::with_capacity(count);
    while let Some(ended) = calls.join_next().await {
        took.push(ended??);
    }
    Ok(Load::of(took, in_flight, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 100), Duration::from_millis(200));
        assert_eq!(percentile(&values[..1], 50), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
