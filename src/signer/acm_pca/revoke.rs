//! Revocation of certificates that are no longer in use: one after the other, fair by namespace, best effort. The journal lists
//! them, so that a restart continues.

use super::errors::{CallError, ErrorKind};
use crate::model::Arn;
use crate::platform::FairQueue;
use crate::store::JournalFile;
use aws_sdk_acmpca::types::RevocationReason;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The longest list. Beyond it the oldest entry of the namespace with most entries is dropped.
const MAX_WAITING: usize = 2_000;
/// The pause of a namespace after a transient failure.
const PAUSE: Duration = Duration::from_secs(30);
/// Attempts for one certificate.
const MAX_ATTEMPTS: u32 = 20;

/// A certificate that is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    /// That of the pod; empty if an earlier version listed it.
    pub(crate) namespace: Arc<str>,
    pub(crate) authority: Arn,
    /// Hexadecimal, with colons between the bytes.
    pub(crate) serial: String,
    pub(crate) reason: RevocationReason,
}

impl Revocation {
    /// `serial` is the form of a record: hexadecimal digits without separators.
    pub(crate) fn new(namespace: &str, authority: Arn, serial: &str, reason: RevocationReason) -> Self {
        let padded = if serial.len() % 2 == 1 { format!("0{serial}") } else { serial.to_owned() };
        let digits: Vec<char> = padded.chars().collect();
        let bytes: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
        Self { namespace: namespace.into(), authority, serial: bytes.join(":"), reason }
    }

    fn encode(&self) -> String {
        let Self { namespace, authority, serial, reason } = self;
        format!("{} {serial} {} {namespace}\n", authority.as_str(), reason.as_str())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let (authority, serial, reason) = (fields.next()?, fields.next()?, fields.next()?);
        let namespace = fields.next().unwrap_or_default().into();
        let authority = Arn::parse(authority)?;
        Some(Self { namespace, authority, serial: serial.to_owned(), reason: reason.into() })
    }
}

/// The list of certificates that are to be revoked.
pub(crate) struct Revocations {
    journal: JournalFile,
    waiting: Mutex<WaitingList>,
    added: Notify,
}

impl Revocations {
    /// Starts with the list of the last process.
    pub(crate) fn open(journal: JournalFile) -> Self {
        let mut waiting = WaitingList::default();
        for revocation in journal.load().lines().filter_map(Revocation::parse) {
            waiting.add(revocation);
        }
        Self { journal, waiting: Mutex::new(waiting), added: Notify::new() }
    }

    pub(crate) fn add(&self, revocation: Revocation) {
        let mut waiting = self.waiting.lock();
        if waiting.add(revocation) {
            self.save(&waiting);
            self.added.notify_one();
        }
    }

    /// Revokes what the list has and will have, one after the other. Never returns.
    pub(crate) async fn run<F>(&self, revoke: impl Fn(Revocation) -> F)
    where
        F: Future<Output = Result<(), CallError>>,
    {
        loop {
            let started = self.waiting.lock().start(Instant::now());
            match started {
                Ok(revocation) => {
                    let answer = revoke(revocation).await;
                    let mut waiting = self.waiting.lock();
                    waiting.finish(answer, Instant::now());
                    self.save(&waiting);
                }
                Err(Some(resume_at)) => {
                    let _either = timeout_at(resume_at, self.added.notified()).await;
                }
                Err(None) => self.added.notified().await,
            }
        }
    }

    fn save(&self, waiting: &WaitingList) {
        self.journal.save(&waiting.in_order().map(Revocation::encode).collect::<String>());
    }
}

/// The revocations that wait. Namespaces are served one after the other, and the revocations of one in the order of their arrival.
#[derive(Default)]
struct WaitingList {
    /// By the number of the arrival.
    entries: FairQueue<u64, Entry>,
    in_progress: Option<(u64, Entry)>,
    last_number: u64,
    /// Namespaces whose last revocation failed, and until when they pause. Others do not wait for them.
    paused: HashMap<Arc<str>, Instant>,
}

struct Entry {
    revocation: Revocation,
    /// Failed attempts.
    failures: u32,
}

impl WaitingList {
    /// Adds a revocation to the list, unless it is there already. If the list is full, it drops the oldest one of the namespace that
    /// has most, so that a namespace with many displaces none of another.
    fn add(&mut self, revocation: Revocation) -> bool {
        if self.in_order().any(|known| *known == revocation) {
            return false;
        }
        let namespace = Arc::clone(&revocation.namespace);
        if self.entries.len() >= MAX_WAITING {
            let largest = self.entries.lengths().max_by_key(|(name, length)| (*length, **name == namespace));
            let largest = largest.map(|(name, _)| Arc::clone(name));
            let dropped = self.entries.pop_first_of(|name| Some(name) == largest.as_deref());
            if let Some((namespace, _, Entry { revocation, .. })) = dropped {
                let serial = revocation.serial;
                tracing::warn!(serial, %namespace, "the list of revocations is full; the oldest one is dropped");
            }
        }
        self.last_number += 1;
        self.entries.insert(&namespace, self.last_number, Entry { revocation, failures: 0 });
        true
    }

    /// The next revocation, which is in progress from now on. Or when the first pause ends, if a namespace pauses.
    fn start(&mut self, now: Instant) -> Result<Revocation, Option<Instant>> {
        self.paused.retain(|_, until| *until > now);
        let paused = &self.paused;
        match self.entries.pop_first_of(|namespace| !paused.contains_key(namespace)) {
            Some((_, number, entry)) => {
                let revocation = entry.revocation.clone();
                self.in_progress = Some((number, entry));
                Ok(revocation)
            }
            None => Err(self.paused.values().min().copied()),
        }
    }

    /// Records the answer to the revocation in progress. After a transient failure it waits again.
    fn finish(&mut self, answer: Result<(), CallError>, now: Instant) {
        let Some((number, mut entry)) = self.in_progress.take() else { return };
        let Revocation { serial, reason, namespace, .. } = &entry.revocation;
        match answer {
            Ok(()) => tracing::info!(serial, reason = reason.as_str(), "certificate revoked"),
            Err(error) if is_retried(&error) && entry.failures + 1 < MAX_ATTEMPTS => {
                tracing::warn!(serial, %error, "a certificate could not be revoked; trying again");
                let namespace = Arc::clone(namespace);
                entry.failures += 1;
                self.entries.insert(&namespace, number, entry);
                self.paused.insert(namespace, now + PAUSE);
            }
            Err(error) => tracing::warn!(serial, %error, "a certificate is not revoked"),
        }
    }

    /// All revocations in the order of their arrival, with the one in progress.
    fn in_order(&self) -> impl Iterator<Item = &Revocation> {
        let in_progress = self.in_progress.iter().map(|(number, entry)| (number, entry));
        let mut all: Vec<_> = self.entries.iter().chain(in_progress).collect();
        all.sort_unstable_by_key(|(number, _)| **number);
        all.into_iter().map(|(_, entry)| &entry.revocation)
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
        Revocation::new("shop", Arn::parse(CA).unwrap(), serial, reason)
    }

    fn of(namespace: &str, serial: &str) -> Revocation {
        Revocation::new(namespace, Arn::parse(CA).unwrap(), serial, RevocationReason::Superseded)
    }

    fn serials(list: &WaitingList) -> Vec<String> {
        list.in_order().map(|revocation| revocation.serial.clone()).collect()
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
        // The second line is of an earlier version, which did not know the namespace.
        journal.save(&format!("{}{CA} 01 SUPERSEDED\nnonsense\n", journal.load()));
        let again = Revocations::open(journal);
        let two = Revocation { namespace: "".into(), serial: "01".to_owned(), ..one.clone() };
        assert!(again.waiting.lock().in_order().eq([&one, &two]));
    }

    #[test]
    fn a_full_list_drops_the_oldest_of_the_namespace_that_has_most() {
        let mut list = WaitingList::default();
        for serial in ["aa", "bb"] {
            list.add(of("quiet", serial));
        }
        for number in 0..MAX_WAITING + 10 {
            list.add(of("noisy", &format!("{number:04x}")));
        }
        list.add(of("quiet", "cc"));
        let kept = serials(&list);
        assert_eq!(kept.len(), MAX_WAITING);
        assert_eq!(kept[..2], ["aa", "bb"]);
        // Twelve for the noisy namespace's own, and one for the quiet one's third.
        assert_eq!((kept[2].as_str(), kept.last().unwrap().as_str()), ("00:0d", "cc"));
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_are_served_one_after_the_other_and_wait_for_no_failure_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let revocations = Revocations::open(journal(&directory));
        for serial in ["f1", "f2", "f3"] {
            revocations.add(of("failing", serial));
        }
        for serial in ["01", "02"] {
            revocations.add(of("shop", serial));
        }
        revocations.add(of("bank", "0b"));
        let calls = Mutex::new(Vec::new());
        let revoke = |revocation: Revocation| {
            let fails = &*revocation.namespace == "failing";
            calls.lock().push(revocation.serial);
            async move { if fails { Err(CallError::response("RevokeCertificate", "busy")) } else { Ok(()) } }
        };
        let time = Duration::from_secs(1);
        tokio::time::timeout(time, revocations.run(revoke)).await.unwrap_err();
        assert_eq!(*calls.lock(), ["f1", "01", "0b", "02"]);
        assert_eq!(serials(&revocations.waiting.lock()), ["f1", "f2", "f3"]);
        // After its attempts it is given up, and the next one gets its own.
        let time = PAUSE * (MAX_ATTEMPTS + 1);
        tokio::time::timeout(time, revocations.run(revoke)).await.unwrap_err();
        assert_eq!(serials(&revocations.waiting.lock()), ["f2", "f3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_that_a_shutdown_cuts_off_stays_in_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let journal = journal(&directory);
        let revocations = Revocations::open(journal.clone());
        revocations.add(of("shop", "01"));
        let run = revocations.run(|_| std::future::pending());
        tokio::time::timeout(Duration::from_secs(1), run).await.unwrap_err();
        revocations.add(of("shop", "01"));
        revocations.add(of("shop", "02"));
        assert_eq!(serials(&Revocations::open(journal).waiting.lock()), ["01", "02"]);
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
