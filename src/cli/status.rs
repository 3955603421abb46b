//! `certlet status`: shows the records of the volumes, for `kubectl exec`. It shows no secret.

mod roots;

use super::shared::StoreArgs;
use crate::attributes::{self, OperatorDefaults, OptionalAttribute, SvidDefaults, TrustDefaults};
use crate::control::{self, Check, ControlError};
use crate::model::{Dialect, plain};
use crate::store::{RecordError, RetainedAnchor, StoreError, StoredVolume};
use clap::Args;
use jiff::Timestamp;
use roots::Scope;
use serde::Serialize;
use std::path::Path;

/// `certlet status`
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Whose volumes.
    #[command(flatten)]
    pub store: StoreArgs,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,

    /// Print JSON with the version, the driver's name and its notice too. `kubectl certlet` reads it.
    #[arg(long, conflicts_with = "json")]
    pub report: bool,
}

/// One volume.
#[derive(Clone, Debug, Default, Serialize)]
struct Row {
    namespace: String,
    pod: String,
    signer: String,
    /// The operator's class; none: the volume is of no class.
    class: Option<String>,
    subject: String,
    sans: Vec<String>,
    issued_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    renews_at: Option<Timestamp>,
    /// The root that the certificate leads to.
    root: Option<String>,
    /// The SHA-256 of that root in the pod's trust bundle; none: it has none that the certificate leads to.
    root_sha256: Option<String>,
    /// When certificate and chain end.
    ends_at: Option<Timestamp>,
    /// Anchors that are trusted only for a while.
    retained: Vec<RetainedAnchor>,
    remark: Option<String>,
    last_error: Option<String>,
    /// When a failed renewal is tried again.
    retries_at: Option<Timestamp>,
    /// The name of the volume in its pod.
    pod_volume: Option<String>,
    volume: String,
}

/// What `kubectl certlet` reads.
#[derive(Debug, Serialize)]
struct Report<'r> {
    version: &'static str,
    driver: &'r str,
    /// What the operator should know; also that the process does not answer.
    notice: Option<String>,
    volumes: &'r [Row],
}

impl StatusArgs {
    /// The table or the JSON.
    pub fn render(&self) -> Result<String, StoreError> {
        let root = self.store.root();
        let stored = crate::store::read_volumes(&root)?;
        let mut rows: Vec<Row> = stored.into_iter().filter_map(|stored| self.row(stored)).collect();
        rows.sort_by(|a, b| (&a.namespace, &a.pod, &a.volume).cmp(&(&b.namespace, &b.pod, &b.volume)));
        if self.json {
            return Ok(json(&rows));
        }
        if self.report {
            let notice = control::ask(&control::socket_in(&root), Check::Notices).err();
            let notice = notice.map(|error| error.to_string());
            let (version, driver) = (env!("CARGO_PKG_VERSION"), self.store.driver_name.as_str());
            return Ok(json(&Report { version, driver, notice, volumes: &rows }));
        }
        let mut text = table(&rows, Timestamp::now());
        let scope = if self.store.directory.is_some() { Scope::Pod } else { Scope::Node };
        text.push_str(&roots::table(&rows, scope));
        // Without a driver that runs, the volumes are shown all the same.
        if let Err(ControlError::Failed(notice)) = control::ask(&control::socket_in(&root), Check::Notices) {
            text = format!("{text}\nNotice: {}\n", plain(&notice));
        }
        Ok(text)
    }

    /// What the flags of the driver would be, as far as remarks depend on them.
    fn defaults(&self) -> OperatorDefaults {
        let attributes = OptionalAttribute::ALL.iter().copied().collect();
        OperatorDefaults {
            dialect: Dialect::of_driver(&self.store.driver_name),
            trust: TrustDefaults { are_unknown: true, ..TrustDefaults::default() },
            svid: SvidDefaults { attributes, ..SvidDefaults::default() },
            node_name: Some("node".to_owned()),
            ..OperatorDefaults::default()
        }
    }

    fn row(&self, stored: StoredVolume) -> Option<Row> {
        let record = match stored.record {
            Ok(record) => record,
            // A publish has just begun, and has not written its record yet.
            Err(RecordError::Missing) => return None,
            Err(error) => {
                let volume = stored.dir.to_string();
                return Some(Row { last_error: Some(error.to_string()), volume, ..Row::default() });
            }
        };
        let in_use = record.issued.as_ref().map(|issued| &*issued.facts);
        let (pod, defaults) = (&record.pod, self.defaults());
        let spec = match &record.class {
            Some(class) => attributes::parse_stored_class(class, pod, &defaults, in_use),
            None => attributes::parse_stored(&record.attributes, pod, &defaults, in_use),
        };
        let doubts = spec.map(|spec| spec.doubts).unwrap_or_default();
        let remarks = (!doubts.is_empty()).then(|| doubts.to_string());
        let mut row = Row {
            namespace: record.pod.namespace,
            pod: record.pod.name,
            signer: record.signer,
            pod_volume: pod_volume(&record.target),
            retries_at: record.last_error.as_ref().and_then(|last| last.retry_at),
            class: record.class.map(|class| class.name.clone()),
            last_error: record.last_error.map(|last| {
                format!("{} ({} in a row, last at {})", last.message, last.consecutive, seconds(last.at))
            }),
            volume: record.volume_id.to_string(),
            ..Row::default()
        };
        row.remark.clone_from(&remarks);
        if let Some(issued) = record.issued {
            row.subject.clone_from(&issued.facts.subject);
            row.sans.clone_from(&issued.facts.sans);
            row.issued_at = Some(issued.issued_at);
            row.expires_at = Some(issued.facts.not_after);
            row.renews_at = Some(issued.renew_at);
            row.ends_at = Some(issued.end());
            row.root = issued.trust.root.as_ref().map(|root| root.subject.clone());
            row.root_sha256 = issued.trust.root.and_then(|root| root.sha256);
            row.retained = issued.trust.retained;
            row.remark = match (issued.warning, remarks) {
                (Some(warning), Some(remarks)) => Some(format!("{warning}; {remarks}")),
                (warning, remarks) => warning.or(remarks),
            };
        }
        Some(row)
    }
}

/// The name of a volume in its pod: the kubelet's path is `.../volumes/kubernetes.io~csi/NAME/mount`.
fn pod_volume(target: &Path) -> Option<String> {
    let name = target.parent()?.file_name()?.to_str()?;
    target.ends_with("mount").then(|| name.to_owned())
}

fn json(shown: &(impl Serialize + ?Sized)) -> String {
    let text = serde_json::to_string_pretty(shown);
    text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")) + "\n"
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn table(rows: &[Row], now: Timestamp) -> String {
    if rows.is_empty() {
        return "no volumes on this node\n".to_owned();
    }
    let header = ["NAMESPACE", "POD", "SIGNER", "NAME", "ISSUED", "EXPIRES", "RENEWS", "LAST ERROR"]
        .map(str::to_owned);
    aligned(&std::iter::once(header).chain(rows.iter().map(|row| line(row, now))).collect::<Vec<_>>())
}

/// Lines whose columns are as wide as their longest cell. Cells hold texts of pods and issuers.
fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let lines: Vec<[String; COLUMNS]> =
        lines.iter().map(|line| line.each_ref().map(|cell| plain(cell))).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

fn line(row: &Row, now: Timestamp) -> [String; 8] {
    let at = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), seconds);
    let name = match (row.sans.as_slice(), row.subject.as_str()) {
        ([], "") => "-".to_owned(),
        ([], subject) => subject.to_owned(),
        (sans, _) => sans.join(","),
    };
    let expired = row.expires_at.is_some_and(|expires| expires <= now);
    let expiry = if expired { format!("{} EXPIRED", at(row.expires_at)) } else { at(row.expires_at) };
    [
        row.namespace.clone(),
        row.pod.clone(),
        row.signer.clone(),
        name,
        at(row.issued_at),
        expiry,
        at(row.renews_at),
        row.last_error.clone().or_else(|| row.remark.clone()).unwrap_or_else(|| "-".to_owned()),
    ]
}
