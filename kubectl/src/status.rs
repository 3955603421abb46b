//! `kubectl certlet status`: one table.

use crate::args::{ClusterArgs, Format, From, StatusArgs};
use crate::drivers::{self, Asked, Unasked};
use crate::kubectl::{Kubectl, in_parallel};
use crate::objects::{List, Pod};
use crate::report::{Report, ReportedVolume};
use crate::requests::Objects;
use crate::table::{Cell, Color, relative, render, timestamp};
use crate::{Output, PluginError};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;

/// One volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) node: String,
    /// The name of the volume in its pod; empty: it is not known.
    pub(crate) volume: String,
    pub(crate) signer: String,
    /// The names in its certificate.
    pub(crate) names: String,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) renews_at: Option<Timestamp>,
    /// When a failed renewal is tried again.
    pub(crate) retries_at: Option<Timestamp>,
    pub(crate) error: Option<String>,
    pub(crate) warning: Option<String>,
}

/// What programs read.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// `drivers` or `api`.
    source: &'static str,
    is_complete: bool,
    notices: &'a [String],
    volumes: &'a [Row],
}

/// The rows, and where they come from.
#[derive(Debug, Default)]
struct Found {
    source: &'static str,
    rows: Vec<Row>,
    notices: Vec<String>,
    is_incomplete: bool,
}

/// Which volumes to show.
struct Scope {
    /// None: all.
    namespace: Option<String>,
    pod: Option<String>,
}

impl Scope {
    fn contains(&self, row: &Row) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == row.namespace)
            && self.pod.as_ref().is_none_or(|pod| *pod == row.pod)
    }

    /// A flag of kubectl.
    fn flag(&self) -> String {
        let of = |namespace: &String| format!("--namespace={namespace}");
        self.namespace.as_ref().map_or_else(|| "--all-namespaces".to_owned(), of)
    }
}

/// Runs the command.
pub(crate) fn run(
    kubectl: &Kubectl,
    cluster: &ClusterArgs,
    args: &StatusArgs,
    color: bool,
) -> Result<Output, PluginError> {
    let namespace =
        if args.all_namespaces { None } else { Some(kubectl.namespace(cluster.namespace.as_ref())?) };
    let scope = Scope { namespace, pod: args.pod.clone() };
    let mut found = find(kubectl, cluster, args.from, &scope)?;
    if args.sidecars {
        ask_sidecars(kubectl, &scope, &mut found)?;
    }
    found.rows.retain(|row| scope.contains(row));
    found.rows.sort_by(|a, b| (&a.namespace, &a.pod, &a.volume).cmp(&(&b.namespace, &b.pod, &b.volume)));
    let text = match args.output {
        Some(Format::Json) => json(&found)?,
        format => table(&found.rows, Timestamp::now(), format == Some(Format::Wide), color),
    };
    let is_json = args.output == Some(Format::Json);
    let notices = if is_json { Vec::new() } else { found.notices };
    Ok(Output { text, notices, is_incomplete: found.is_incomplete })
}

fn find(kubectl: &Kubectl, cluster: &ClusterArgs, from: From, scope: &Scope) -> Result<Found, PluginError> {
    if from == From::Api {
        return by_objects(kubectl, scope, "as --from asks");
    }
    match drivers::ask_all(kubectl, cluster, None) {
        Ok(asked) => Ok(by_drivers(&asked)),
        Err(Unasked::Forbidden(why)) if from == From::Auto => {
            by_objects(kubectl, scope, &format!("the drivers may not be asked: {}", why.trim()))
        }
        Err(Unasked::Forbidden(why)) => Err(PluginError::Usage(why.trim().to_owned())),
        Err(Unasked::Failed(error)) => Err(error.into()),
    }
}

fn by_drivers(asked: &Asked) -> Found {
    let of_report = |(node, report): &(String, Report)| {
        report.volumes.iter().map(|volume| row(node, volume)).collect::<Vec<_>>()
    };
    let mut notices = vec![format!(
        "source: the drivers, by exec: {} answered, {} did not; namespace {}",
        asked.reports.len(),
        asked.missing.len(),
        asked.namespaces.iter().cloned().collect::<Vec<_>>().join(", "),
    )];
    notices.extend(asked.missing.iter().map(|(node, why)| format!("not asked: {node}: {why}")));
    notices.extend(asked.notices.iter().cloned());
    Found {
        source: "drivers",
        rows: asked.reports.iter().flat_map(of_report).collect(),
        notices,
        is_incomplete: !asked.missing.is_empty(),
    }
}

/// A volume as its driver shows it.
pub(crate) fn row(node: &str, volume: &ReportedVolume) -> Row {
    Row {
        namespace: volume.namespace.clone(),
        pod: volume.pod.clone(),
        node: node.to_owned(),
        volume: volume.pod_volume.clone().unwrap_or_default(),
        signer: volume.signer.clone(),
        names: volume.names(),
        issued_at: volume.issued_at,
        expires_at: volume.ends_at.or(volume.expires_at),
        renews_at: volume.renews_at,
        retries_at: volume.retries_at,
        error: volume.last_error.clone(),
        warning: volume
            .warning
            .clone()
            .or_else(|| volume.issued_at.is_none().then(|| "no certificate yet".to_owned())),
    }
}

fn by_objects(kubectl: &Kubectl, scope: &Scope, why: &str) -> Result<Found, PluginError> {
    let objects = Objects::read(kubectl, &scope.flag(), scope.pod.as_deref())?;
    let rows = objects.pods.iter().flat_map(|pod| rows_of(&objects, pod)).collect();
    let of = scope
        .namespace
        .as_ref()
        .map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}"));
    let source = format!("source: Pods, Events and CertificateRequests of {of}, because {why}");
    let notices = std::iter::once(source).chain(objects.notices.iter().cloned()).collect();
    Ok(Found { source: "api", rows, notices, is_incomplete: !objects.notices.is_empty() })
}

/// What the objects show of a pod: a row for each volume that has requests, and one for those that have none.
fn rows_of(objects: &Objects, pod: &Pod) -> Vec<Row> {
    // This user cannot ask the drivers, so their own names are not known.
    let no_names = BTreeSet::new();
    let volumes: Vec<_> = pod.certificate_volumes(&no_names).collect();
    let requests = objects.of_pod(pod);
    // Only the driver knows which request is whose, unless there is one volume.
    let name = match volumes.as_slice() {
        [(name, _)] => (*name).to_owned(),
        _ => String::new(),
    };
    let row = Row {
        namespace: pod.metadata.namespace.clone(),
        pod: pod.metadata.name.clone(),
        node: pod.spec.node_name.clone(),
        volume: name,
        ..Row::default()
    };
    let mut rows = Vec::new();
    for of_volume in &requests {
        let certificate = of_volume.certificate();
        let since = certificate.as_ref().map(|certificate| certificate.not_before);
        let issuer = of_volume.newest().map(|request| &request.spec.issuer_ref);
        rows.push(Row {
            signer: issuer.map(|issuer| format!("{}/{}", issuer.kind(), issuer.name)).unwrap_or_default(),
            names: certificate.as_ref().map(|certificate| certificate.names.clone()).unwrap_or_default(),
            issued_at: since,
            expires_at: certificate.as_ref().map(|certificate| certificate.not_after),
            error: of_volume.waits_for().or_else(|| objects.last_warning(pod, since)),
            ..row.clone()
        });
    }
    if let Some(without) = volumes.len().checked_sub(requests.len()).filter(|without| *without > 0) {
        let none = format!("no CertificateRequest of {without} of its volumes");
        rows.push(Row { error: objects.last_warning(pod, None), warning: Some(none), ..row });
    }
    rows
}

/// Adds the rows of sidecars.
fn ask_sidecars(kubectl: &Kubectl, scope: &Scope, found: &mut Found) -> Result<(), PluginError> {
    let flag = scope.flag();
    let pods = match &scope.pod {
        Some(pod) => vec![kubectl.get::<Pod>(&["pod", pod, &flag])?],
        None => kubectl.get::<List<Pod>>(&["pods", &flag])?.items,
    };
    let pods: Vec<Pod> =
        pods.into_iter().filter(|pod| pod.has_sidecar() && pod.status.phase == "Running").collect();
    let reports = in_parallel(&pods, |pod| drivers::ask_sidecar(kubectl, pod));
    found.notices.push(format!("sidecars asked, by exec: {}", pods.len()));
    for (pod, report) in pods.iter().zip(reports) {
        let name = pod.full_name();
        match report {
            Ok(report) => {
                found.notices.extend(drivers::version_notice(&name, &report.version));
                found.notices.extend(report.notice.map(|notice| format!("{name}: {notice}")));
                // What its requests show is known better by the sidecar.
                found.rows.retain(|row| {
                    row.namespace != pod.metadata.namespace
                        || row.pod != pod.metadata.name
                        || !row.volume.is_empty()
                });
                found.rows.extend(report.volumes.iter().map(|volume| of_sidecar(pod, volume)));
            }
            Err(error) => {
                found.is_incomplete = true;
                found.notices.push(format!("not asked: sidecar of {name}: {error}"));
            }
        }
    }
    Ok(())
}

/// A certificate of a sidecar. The pod is the one that was asked: a tenant can make a sidecar report any other.
fn of_sidecar(pod: &Pod, volume: &ReportedVolume) -> Row {
    Row {
        namespace: pod.metadata.namespace.clone(),
        pod: pod.metadata.name.clone(),
        volume: "(sidecar)".to_owned(),
        ..row(&pod.spec.node_name, volume)
    }
}

fn json(found: &Found) -> Result<String, PluginError> {
    let answer = Answer {
        source: found.source,
        is_complete: !found.is_incomplete,
        notices: &found.notices,
        volumes: &found.rows,
    };
    let text = serde_json::to_string_pretty(&answer).map_err(crate::KubectlError::from)?;
    Ok(text + "\n")
}

fn table(rows: &[Row], now: Timestamp, wide: bool, color: bool) -> String {
    if rows.is_empty() {
        return "no volumes\n".to_owned();
    }
    let header: &[&str] = if wide {
        &["NAMESPACE", "POD", "VOLUME", "NODE", "SIGNER", "NAME", "ISSUED", "EXPIRES", "RENEWS", "LAST ERROR"]
    } else {
        &["NAMESPACE", "POD", "NODE", "NAME", "EXPIRES", "RENEWS", "LAST ERROR"]
    };
    let lines: Vec<Vec<Cell>> = rows.iter().map(|row| line(row, now, wide)).collect();
    render(header, &lines, color)
}

fn line(row: &Row, now: Timestamp, wide: bool) -> Vec<Cell> {
    let shown = |at: Timestamp| if wide { timestamp(at) } else { relative(at, now) };
    let at = |at: Option<Timestamp>| at.map(shown).unwrap_or_default();
    let expires = match row.expires_at {
        Some(end) if end <= now => Cell::new(&format!("{} EXPIRED", shown(end)), Color::Red),
        end => at(end).as_str().into(),
    };
    let is_late = row.renews_at.is_some_and(|due| due < now);
    let renews = Cell::new(&at(row.renews_at), if is_late { Color::Yellow } else { Color::None });
    let problem = match (&row.error, &row.warning) {
        (Some(error), _) => {
            let next = row.retries_at.map(|next| format!("; next try {}", shown(next))).unwrap_or_default();
            Cell::new(&format!("{error}{next}"), Color::Red)
        }
        (None, Some(warning)) => Cell::new(warning, Color::Yellow),
        (None, None) => "".into(),
    };
    let text = |text: &String| Cell::from(text.as_str());
    if wide {
        let issued = at(row.issued_at).as_str().into();
        let first = [&row.namespace, &row.pod, &row.volume, &row.node, &row.signer, &row.names].map(text);
        first.into_iter().chain([issued, expires, renews, problem]).collect()
    } else {
        let first = [&row.namespace, &row.pod, &row.node, &row.names].map(text);
        first.into_iter().chain([expires, renews, problem]).collect()
    }
}
