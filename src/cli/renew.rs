//! `certlet renew`: renews certificates before they are due, over the control socket of the driver or of a sidecar. What has become of
//! them it reads from the records, so that a signer that takes long holds no connection to the driver.

use super::shared::StoreArgs;
use crate::control::{self, ControlError};
use crate::model::{VolumeId, plain};
use crate::store::{LastError, StoreError};
use crate::volume::RenewTarget;
use clap::Args;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The pause between two reads of the records.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// `certlet renew`
#[derive(Clone, Debug, Args)]
pub struct RenewArgs {
    /// Pods of this node, or ids of volumes as `certlet status --json` shows them.
    #[arg(value_name = "NAMESPACE/POD|VOLUME", required_unless_present_any = ["all", "directory"], conflicts_with = "all")]
    pub targets: Vec<RenewTarget>,

    /// Renew every volume of this node, spread over half a minute.
    #[arg(long)]
    pub all: bool,

    /// How long to wait for the certificates; 0: only start the renewals.
    #[arg(long, default_value = "90s", value_parser = super::values::duration_or_zero)]
    pub timeout: Duration,

    /// Whose certificates.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Why not every certificate is renewed.
#[derive(Debug, Error)]
pub enum RenewError {
    /// The process refuses, or does not run.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What has become of each volume, one a line.
    #[error("{0}")]
    NotRenewed(String),
}

/// A volume before its renewal.
struct Before {
    pod: String,
    issued_at: Timestamp,
    failed_at: Option<Timestamp>,
}

/// What became of a volume.
enum Outcome {
    Renewed { expires_at: Timestamp },
    Failed(String),
    Gone,
}

impl RenewArgs {
    /// Renews, and returns what has become of each volume.
    pub fn run(&self) -> Result<String, RenewError> {
        let root = self.store.root();
        let targets = if self.targets.is_empty() { vec![RenewTarget::All] } else { self.targets.clone() };
        // Read first: the renewal can end before the next read.
        let before = before(&root, &targets)?;
        let mut lines = String::new();
        let (mut started, mut all_accepted) = (0, true);
        for target in &targets {
            match control::renew(&control::socket_in(&root), target) {
                Ok(number) => started += number,
                // One pod that is not here must not hide what has become of the others.
                Err(ControlError::Failed(reason)) if targets.len() > 1 => {
                    let _infallible = writeln!(lines, "{target}: not renewed: {}", plain(&reason));
                    all_accepted = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.timeout.is_zero() {
            let _infallible = writeln!(lines, "renewals started: {started}");
            return if all_accepted { Ok(lines) } else { Err(RenewError::NotRenewed(lines)) };
        }
        let all_renewed = self.wait(&root, before, &mut lines)?;
        if all_renewed && all_accepted { Ok(lines) } else { Err(RenewError::NotRenewed(lines)) }
    }

    /// Waits for every volume, and adds a line for each. Returns whether all are renewed.
    fn wait(
        &self,
        root: &Path,
        mut waiting: BTreeMap<VolumeId, Before>,
        lines: &mut String,
    ) -> Result<bool, RenewError> {
        let (begun, mut all_renewed) = (Instant::now(), true);
        if waiting.is_empty() {
            lines.push_str("no certificate to renew\n");
        }
        while !waiting.is_empty() && begun.elapsed() < self.timeout {
            std::thread::sleep(POLL_INTERVAL);
            let now = outcomes(root, &waiting)?;
            for (id, outcome) in now {
                let Some(Before { pod, .. }) = waiting.remove(&id) else { continue };
                let line = match outcome {
                    Outcome::Renewed { expires_at } => {
                        format!("{pod}: renewed, expires {}", expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"))
                    }
                    Outcome::Failed(reason) => {
                        all_renewed = false;
                        format!("{pod}: not renewed, the old certificate stays: {reason}")
                    }
                    Outcome::Gone => format!("{pod}: the volume is gone"),
                };
                let _infallible = writeln!(lines, "{line}");
            }
        }
        for Before { pod, .. } in waiting.values() {
            all_renewed = false;
            let seconds = self.timeout.as_secs();
            let _infallible =
                writeln!(lines, "{pod}: not renewed within {seconds} s; certlet goes on with it");
        }
        Ok(all_renewed)
    }
}

/// The volumes with a certificate that the targets name.
fn before(root: &Path, targets: &[RenewTarget]) -> Result<BTreeMap<VolumeId, Before>, StoreError> {
    let records = crate::store::read_volumes(root)?.into_iter().filter_map(|stored| stored.record.ok());
    let named = records.filter_map(|record| {
        let pod = &record.pod;
        let is_named =
            targets.iter().any(|target| target.names(&record.volume_id, &pod.namespace, &pod.name));
        let issued_at = record.issued.as_ref().filter(|_| is_named)?.issued_at;
        let before = Before {
            pod: format!("{}/{}", pod.namespace, pod.name),
            issued_at,
            failed_at: record.last_error.as_ref().map(|last| last.at),
        };
        Some((record.volume_id, before))
    });
    Ok(named.collect())
}

/// What has become of those that wait, as far as that is known.
fn outcomes(
    root: &Path,
    waiting: &BTreeMap<VolumeId, Before>,
) -> Result<BTreeMap<VolumeId, Outcome>, StoreError> {
    let mut found = BTreeMap::new();
    let mut present: Vec<VolumeId> = Vec::new();
    for record in crate::store::read_volumes(root)?.into_iter().filter_map(|stored| stored.record.ok()) {
        let Some(before) = waiting.get(&record.volume_id) else { continue };
        present.push(record.volume_id.clone());
        let issued = record.issued.as_ref().filter(|issued| issued.issued_at != before.issued_at);
        let failed = |last: &&LastError| Some(last.at) != before.failed_at;
        let outcome = if let Some(issued) = issued {
            Outcome::Renewed { expires_at: issued.end() }
        } else if let Some(last) = record.last_error.as_ref().filter(failed) {
            Outcome::Failed(plain(&last.message))
        } else {
            continue;
        };
        found.insert(record.volume_id, outcome);
    }
    let gone = waiting.keys().filter(|id| !present.contains(id));
    found.extend(gone.map(|id| (id.clone(), Outcome::Gone)));
    Ok(found)
}
