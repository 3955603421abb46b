//! Limits the Events of a volume's pod: a few a minute, and the same one only once in a while.

use crate::model::{PodEvent, fingerprint};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The same Event is recorded again only after this time.
const REPEAT_AFTER: Duration = Duration::from_mins(15);
/// Events per volume and minute.
const MAX_EVENTS_PER_MINUTE: usize = 4;
const MINUTE: Duration = Duration::from_mins(1);
/// The recent Events of one volume.
#[derive(Debug, Default)]
pub(super) struct EventHistory(Mutex<Vec<Recorded>>);

#[derive(Debug)]
struct Recorded {
    at: Instant,
    /// Identifies equal Events; none if the Event may be recorded again.
    key: Option<String>,
}

impl EventHistory {
    /// The volume's failure is over: if it returns, the same Event is recorded again.
    pub(super) fn settle(&self) {
        self.0.lock().iter_mut().for_each(|recorded| recorded.key = None);
    }

    /// Whether to record an Event. Repetitions and Events above the limit of a minute are dropped.
    pub(super) fn admits(&self, event: &PodEvent) -> bool {
        let now = Instant::now();
        let key = Some(fingerprint(&[event.reason.as_bytes(), stable_part(&event.message).as_bytes()]));
        let mut recent = self.0.lock();
        recent.retain(|recorded| now.duration_since(recorded.at) < REPEAT_AFTER);
        let in_last_minute =
            recent.iter().filter(|recorded| now.duration_since(recorded.at) < MINUTE).count();
        let admitted =
            in_last_minute < MAX_EVENTS_PER_MINUTE && recent.iter().all(|recorded| recorded.key != key);
        if admitted {
            recent.push(Recorded { at: now, key });
        }
        admitted
    }
}

/// The part of a message that makes two Events the same: without words with digits, such as a request's name or a time.
fn stable_part(message: &str) -> String {
    let has_digit = |word: &&str| word.contains(|c: char| c.is_ascii_digit());
    message.split_whitespace().filter(|word| !has_digit(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventKind;

    fn event(message: &str) -> PodEvent {
        PodEvent { kind: EventKind::Warning, reason: "RenewalFailing", message: message.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_event_is_recorded_again_only_after_a_while() {
        let history = EventHistory::default();
        let admitted = || (0..100).filter(|_| history.admits(&event("no"))).count();
        assert_eq!(admitted(), 1);
        tokio::time::advance(REPEAT_AFTER).await;
        assert_eq!(admitted(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_failure_of_another_request_is_recorded_only_after_a_success() {
        let history = EventHistory::default();
        let failed =
            |name: &str| event(&format!("CertificateRequest shop/web-0-{name} failed: no such issuer"));
        assert!(history.admits(&failed("05f3aa")));
        assert!(!history.admits(&failed("c0ffee1")));
        assert!(history.admits(&event("CertificateRequest shop/web-0-7 failed: the backend is down")));
        history.settle();
        assert!(history.admits(&failed("1b")));
    }

    #[tokio::test(start_paused = true)]
    async fn each_volume_has_a_few_events_a_minute_of_its_own() {
        let history = EventHistory::default();
        let admitted = (1..=100).filter(|n| history.admits(&event(&"no".repeat(*n)))).count();
        assert_eq!(admitted, MAX_EVENTS_PER_MINUTE);
        assert!(EventHistory::default().admits(&event("no")));
    }
}
