//! Revocation of certificates that are no longer in use: one after the other, best effort. The journal lists them, so that a
//! restart continues.

use super::errors::{CallError, ErrorKind};
use crate::model::Arn;
use crate::store::JournalFile;
use aws_sdk_acmpca::types::RevocationReason;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;

/// The longest list. Beyond it the oldest entry is dropped.
const MAX_WAITING: usize = 2_000;
/// The pause after a transient failure.
const PAUSE: Duration = Duration::from_secs(30);
/// Attempts for one certificate.
const MAX_ATTEMPTS: u32 = 20;

/// A certificate that is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) authority: Arn,
    /// Hexadecimal, with colons between the bytes.
    pub(crate) serial: String,
    pub(crate) reason: RevocationReason,
}

impl Revocation {
    /// `serial` is the form of a record: hexadecimal digits without separators.
    pub(crate) fn new(authority: Arn, serial: &str, reason: RevocationReason) -> Self {
        let padded = if serial.len() % 2 == 1 { format!("0{serial}") } else { serial.to_owned() };
        let digits: Vec<char> = padded.chars().collect();
        let bytes: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
        Self { authority, serial: bytes.join(":"), reason }
    }

    fn encode(&self) -> String {
        format!("{} {} {}\n", self.authority.as_str(), self.serial, self.reason.as_str())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let (authority, serial, reason) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { authority: Arn::parse(authority)?, serial: serial.to_owned(), reason: reason.into() })
    }
}

/// The list of certificates that are to be revoked.
pub(crate) struct Revocations {
    journal: JournalFile,
    waiting: Mutex<VecDeque<Revocation>>,
    added: Notify,
}

impl Revocations {
    /// Starts with the list of the last process.
    pub(crate) fn open(journal: JournalFile) -> Self {
        let waiting = journal.load().lines().filter_map(Revocation::parse).collect();
        Self { journal, waiting: Mutex::new(waiting), added: Notify::new() }
    }

    pub(crate) fn add(&self, revocation: Revocation) {
        let mut waiting = self.waiting.lock();
        if waiting.contains(&revocation) {
            return;
        }
        if waiting.len() >= MAX_WAITING
            && let Some(dropped) = waiting.pop_front()
        {
            tracing::warn!(
                serial = dropped.serial,
                "the list of revocations is full; the oldest one is dropped"
            );
        }
        waiting.push_back(revocation);
        self.save(&waiting);
        self.added.notify_one();
    }

    /// Revokes what the list has and will have, one after the other. Never returns.
    pub(crate) async fn run<F>(&self, revoke: impl Fn(Revocation) -> F)
    where
        F: Future<Output = Result<(), CallError>>,
    {
        loop {
            let next = self.waiting.lock().front().cloned();
            let Some(next) = next else {
                self.added.notified().await;
                continue;
            };
            let Revocation { serial, reason, .. } = &next;
            let mut attempts = 1..MAX_ATTEMPTS;
            let answer = loop {
                match revoke(next.clone()).await {
                    Err(error) if is_retried(&error) && attempts.next().is_some() => {
                        tracing::warn!(serial, %error, "a certificate could not be revoked; trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                    answer => break answer,
                }
            };
            match answer {
                Ok(()) => tracing::info!(serial, reason = reason.as_str(), "certificate revoked"),
                Err(error) => tracing::warn!(serial, %error, "a certificate is not revoked"),
            }
            let mut waiting = self.waiting.lock();
            waiting.retain(|one| *one != next);
            self.save(&waiting);
        }
    }

    fn save(&self, waiting: &VecDeque<Revocation>) {
        self.journal.save(&waiting.iter().map(Revocation::encode).collect::<String>());
    }
}

fn is_retried(error: &CallError) -> bool {
    use ErrorKind::{Credentials, InProgress, Throttled, Transient};
    matches!(error.kind, Throttled | Transient | Credentials | InProgress)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/1";

    fn revocation(serial: &str, reason: RevocationReason) -> Revocation {
        Revocation::new(Arn::parse(CA).unwrap(), serial, reason)
    }

    fn journal(directory: &tempfile::TempDir) -> JournalFile {
        JournalFile { path: directory.path().join("revocations") }
    }

    #[test]
    fn a_restart_continues_with_the_list() {
        let directory = tempfile::tempdir().unwrap();
        let journal = journal(&directory);
        let one = revocation("a1b2c", RevocationReason::Superseded);
        assert_eq!(one.serial, "0a:1b:2c");
        Revocations::open(journal.clone()).add(one.clone());
        journal.save(&format!("{}nonsense\n", journal.load()));
        let again = Revocations::open(journal);
        assert_eq!(*again.waiting.lock(), [one]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_failure_is_retried_and_a_revoked_certificate_leaves_the_list() {
        let directory = tempfile::tempdir().unwrap();
        let journal = journal(&directory);
        let revocations = Revocations::open(journal.clone());
        for serial in ["01", "01", "02"] {
            revocations.add(revocation(serial, RevocationReason::CessationOfOperation));
        }
        let calls = Mutex::new(Vec::new());
        let done = Notify::new();
        // The first call fails, the third is the last.
        let revoke = |revocation: Revocation| {
            calls.lock().push(revocation.serial);
            let number = calls.lock().len();
            let done = &done;
            async move {
                if number == 3 {
                    done.notify_one();
                }
                if number == 1 { Err(CallError::response("RevokeCertificate", "busy")) } else { Ok(()) }
            }
        };
        tokio::select! {
            biased;
            () = revocations.run(revoke) => {}
            () = done.notified() => {}
        }
        assert_eq!(*calls.lock(), ["01", "01", "02"]);
        assert_eq!(journal.load(), "");
    }
}
