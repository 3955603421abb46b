//! `kubectl certlet trust`: the roots that certificates lead to, in the whole cluster, and whether they can be removed from trust sources.

use crate::args::{ClusterArgs, Format, TrustArgs};
use crate::drivers::{self, Asked, Unasked};
use crate::kubectl::{Kubectl, KubectlError};
use crate::table::{Cell, Color, render, timestamp};
use crate::{Output, PluginError};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Length of a SHA-256 as it is shown.
const SHOWN_DIGITS: usize = 16;

/// One root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Root {
    subject: String,
    /// None: the pods' trust bundles do not have it.
    sha256: Option<String>,
    volumes: usize,
    nodes: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    /// When the last certificate that leads to it ends.
    last_end: Option<Timestamp>,
    /// Until when it is trusted although nothing names it any more.
    retained_until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// Whether every driver has answered. If not, nothing is known to be safe to remove.
    is_complete: bool,
    missing: &'a [(String, String)],
    roots: &'a [Root],
}

/// Runs the command.
pub(crate) fn run(kubectl: &Kubectl, cluster: &ClusterArgs, args: &TrustArgs) -> Result<Output, PluginError> {
    let asked = match drivers::ask_all(kubectl, cluster, None) {
        Ok(asked) => asked,
        Err(Unasked::Failed(error)) => return Err(error.into()),
        Err(Unasked::Forbidden(why)) => {
            let why = format!(
                "only the drivers know the roots of their node, and they may not be asked: {}",
                why.trim()
            );
            return Err(PluginError::Usage(why));
        }
    };
    let roots = roots(&asked);
    let is_complete = asked.missing.is_empty();
    let text = if args.output == Some(Format::Json) {
        let answer = Answer { is_complete, missing: &asked.missing, roots: &roots };
        serde_json::to_string_pretty(&answer).map_err(KubectlError::from)? + "\n"
    } else {
        table(&roots, is_complete, args.output == Some(Format::Wide))
    };
    let mut notices: Vec<String> =
        asked.missing.iter().map(|(node, why)| format!("not asked: {node}: {why}")).collect();
    if args.output != Some(Format::Json) {
        notices.extend(asked.notices.clone());
    }
    Ok(Output { text, notices, is_incomplete: !is_complete })
}

fn roots(asked: &Asked) -> Vec<Root> {
    let mut roots: BTreeMap<(String, Option<String>), Root> = BTreeMap::new();
    for (node, volume) in asked
        .reports
        .iter()
        .flat_map(|(node, report)| report.volumes.iter().map(move |volume| (node, volume)))
    {
        if let Some(subject) = &volume.root {
            let root = roots.entry((subject.clone(), volume.root_sha256.clone())).or_default();
            root.volumes += 1;
            root.nodes.insert(node.clone());
            root.namespaces.insert(volume.namespace.clone());
            root.last_end = root.last_end.max(volume.ends_at.or(volume.expires_at));
        }
        for retained in &volume.retained {
            let key = (retained.subject.clone(), Some(retained.sha256.clone()));
            let root = roots.entry(key).or_default();
            root.retained_until = root.retained_until.max(Some(retained.until));
        }
    }
    roots.into_iter().map(|((subject, sha256), root)| Root { subject, sha256, ..root }).collect()
}

fn table(roots: &[Root], is_complete: bool, wide: bool) -> String {
    if roots.is_empty() {
        return "no certificates\n".to_owned();
    }
    let header = ["ROOT", "SHA-256", "VOLUMES", "NODES", "NAMESPACES", "SAFE TO REMOVE"];
    let lines: Vec<Vec<Cell>> = roots.iter().map(|root| line(root, is_complete, wide)).collect();
    let end = if is_complete {
        "A root that is not in this list: no certificate of a volume leads to it. Sidecars, and peers outside the cluster, are not asked."
    } else {
        "Not every node was asked, so no root is known to be safe to remove."
    };
    format!("{}{end}\n", render(&header, &lines, false))
}

fn line(root: &Root, is_complete: bool, wide: bool) -> Vec<Cell> {
    let digest = match &root.sha256 {
        None => "not in the trust bundle",
        Some(digest) if wide => digest,
        Some(digest) => digest.get(..SHOWN_DIGITS).unwrap_or(digest),
    };
    let safe = match (&root.sha256, root.last_end) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(end)) => format!("not before {}", timestamp(end)),
        (Some(_), None) if is_complete => "yes".to_owned(),
        (Some(_), None) => "not known".to_owned(),
    };
    let retained = root
        .retained_until
        .map(|until| format!(" (not named any more, still trusted until {})", timestamp(until)))
        .unwrap_or_default();
    let joined = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(",");
    let nodes = if wide { joined(&root.nodes) } else { root.nodes.len().to_string() };
    vec![
        Cell::new(&root.subject, Color::None),
        digest.into(),
        root.volumes.to_string().as_str().into(),
        nodes.as_str().into(),
        joined(&root.namespaces).as_str().into(),
        format!("{safe}{retained}").as_str().into(),
    ]
}
