//! Revocation of certificates that nobody has any more: one after the other, bounded, best effort, and on paper, so that
//! a restart goes on with it.

use super::arn::AuthorityArn;
use super::errors::{CallError, Class};
use crate::signer::Journal;
use aws_sdk_acmpca::types::RevocationReason;
use futures_util::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What waits at most; beyond, the oldest is given up.
const LONGEST: usize = 2_000;
/// The pause after a call that failed for a passing reason.
const PAUSE: Duration = Duration::from_secs(30);
/// Attempts at one certificate.
const ATTEMPTS: u32 = 20;

/// One certificate to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) authority: String,
    /// Hexadecimal, a colon after each byte.
    pub(crate) serial: String,
    pub(crate) reason: Reason,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The volume is gone.
    Cessation,
    /// A certificate with a new key has taken its place.
    Superseded,
}

impl Reason {
    const ALL: [Self; 2] = [Self::Cessation, Self::Superseded];

    fn as_str(self) -> &'static str {
        match self {
            Self::Cessation => "CESSATION_OF_OPERATION",
            Self::Superseded => "SUPERSEDED",
        }
    }

    pub(crate) fn to_aws(self) -> RevocationReason {
        RevocationReason::from(self.as_str())
    }
}

impl Revocation {
    /// For a serial number as a record has it: hexadecimal digits only.
    pub(crate) fn new(authority: &str, serial: &str, reason: Reason) -> Self {
        let padded = if serial.len() % 2 == 1 { format!("0{serial}") } else { serial.to_owned() };
        let digits: Vec<char> = padded.chars().collect();
        let bytes: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
        Self { authority: authority.to_owned(), serial: bytes.join(":"), reason }
    }

    fn encode(&self) -> String {
        format!("{} {} {}\n", self.authority, self.serial, self.reason.as_str())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (authority, serial, reason) = (words.next()?, words.next()?, words.next()?);
        AuthorityArn::parse(authority)?;
        let reason = Reason::ALL.into_iter().find(|known| known.as_str() == reason)?;
        Some(Self { authority: authority.to_owned(), serial: serial.to_owned(), reason })
    }
}

/// Who makes the call.
pub(crate) trait Revoker: Send + Sync {
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<(), CallError>>;
}

/// What is still to be revoked.
pub(crate) struct Revocations {
    journal: Arc<dyn Journal>,
    waiting: Mutex<VecDeque<Revocation>>,
    more: Notify,
}

impl Revocations {
    /// Goes on with what the last process left.
    pub(crate) fn open(journal: Arc<dyn Journal>) -> Self {
        let waiting = journal.load().lines().filter_map(Revocation::parse).collect();
        Self { journal, waiting: Mutex::new(waiting), more: Notify::new() }
    }

    pub(crate) fn put(&self, revocation: Revocation) {
        let mut waiting = self.lock();
        if waiting.contains(&revocation) {
            return;
        }
        if waiting.len() >= LONGEST
            && let Some(given_up) = waiting.pop_front()
        {
            tracing::warn!(serial = given_up.serial, "too many revocations wait; one is given up");
        }
        waiting.push_back(revocation);
        self.save(&waiting);
        self.more.notify_one();
    }

    /// Revokes what waits, one after the other, until `shutdown`.
    pub(crate) async fn work(&self, shutdown: &CancellationToken, revoker: &dyn Revoker) {
        let mut attempts = 0;
        loop {
            let next = self.lock().front().cloned();
            let Some(next) = next else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.more.notified() => {}
                }
                continue;
            };
            let answer = tokio::select! {
                // An answer that is there is not thrown away because the process ends as well.
                biased;
                answer = revoker.revoke(&next) => answer,
                () = shutdown.cancelled() => return,
            };
            attempts += 1;
            match answer {
                Err(error) if is_passing(&error) && attempts < ATTEMPTS => {
                    tracing::warn!(serial = next.serial, %error, "a certificate could not be revoked; trying again");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(serial = next.serial, %error, "a certificate is not revoked");
                }
                Ok(()) => {
                    tracing::info!(
                        serial = next.serial,
                        reason = next.reason.as_str(),
                        "certificate revoked"
                    );
                }
            }
            attempts = 0;
            let mut waiting = self.lock();
            waiting.retain(|one| *one != next);
            self.save(&waiting);
        }
    }

    fn save(&self, waiting: &VecDeque<Revocation>) {
        self.journal.save(&waiting.iter().map(Revocation::encode).collect::<String>());
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Revocation>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_passing(error: &CallError) -> bool {
    matches!(error.class, Class::Throttled | Class::Transient | Class::Credentials | Class::InProgress)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/1";

    #[derive(Default)]
    struct Paper(Mutex<String>);

    impl Journal for Paper {
        fn load(&self) -> String {
            self.0.lock().unwrap().clone()
        }

        fn save(&self, text: &str) {
            text.clone_into(&mut self.0.lock().unwrap());
        }
    }

    /// Fails once, and shuts down after three calls.
    #[derive(Default)]
    struct Aws {
        calls: Mutex<Vec<String>>,
        shutdown: CancellationToken,
    }

    impl Revoker for Aws {
        fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<(), CallError>> {
            let mut calls = self.calls.lock().unwrap();
            calls.push(revocation.serial.clone());
            if calls.len() == 3 {
                self.shutdown.cancel();
            }
            let busy = calls.len() == 1;
            Box::pin(async move {
                if busy { Err(CallError::local("RevokeCertificate", "busy".into())) } else { Ok(()) }
            })
        }
    }

    #[test]
    fn a_restart_goes_on_with_what_was_left() {
        let paper = Arc::new(Paper::default());
        let one = Revocation::new(CA, "a1b2c", Reason::Superseded);
        assert_eq!(one.serial, "0a:1b:2c");
        Revocations::open(paper.clone()).put(one.clone());
        paper.0.lock().unwrap().push_str("nonsense\n");
        let again = Revocations::open(paper);
        assert_eq!(*again.lock(), [one]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_revoked_or_cannot_be_is_crossed_out_and_a_passing_fault_is_tried_again() {
        let paper = Arc::new(Paper::default());
        let revocations = Revocations::open(paper.clone());
        revocations.put(Revocation::new(CA, "01", Reason::Cessation));
        revocations.put(Revocation::new(CA, "01", Reason::Cessation));
        revocations.put(Revocation::new(CA, "02", Reason::Cessation));
        let aws = Aws::default();
        revocations.work(&aws.shutdown, &aws).await;
        assert_eq!(*aws.calls.lock().unwrap(), ["01", "01", "02"]);
        assert_eq!(paper.load(), "");
    }
}
