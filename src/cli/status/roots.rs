//! The roots that the certificates of this node lead to, and whether they can be removed from its trust sources.

use super::{Row, aligned, seconds};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Whose certificates are shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    /// Those of a driver.
    Node,
    /// That of a sidecar.
    Pod,
}

/// Length of a SHA-256 as it is shown.
const SHOWN_DIGITS: usize = 16;

/// One root.
#[derive(Debug, Default)]
struct Root {
    volumes: usize,
    /// When the last certificate that leads to it ends.
    last_end: Option<Timestamp>,
    /// Until when it is trusted although nothing names it.
    retained_until: Option<Timestamp>,
}

/// The table of roots; empty without any.
pub(super) fn table(rows: &[Row], scope: Scope) -> String {
    let mut roots: BTreeMap<(String, Option<String>), Root> = BTreeMap::new();
    for row in rows {
        if let Some(subject) = &row.root {
            let root = roots.entry((subject.clone(), row.root_sha256.clone())).or_default();
            root.volumes += 1;
            root.last_end = root.last_end.max(row.ends_at);
        }
        for retained in &row.retained {
            let root = roots.entry((retained.subject.clone(), Some(retained.sha256.clone()))).or_default();
            root.retained_until = root.retained_until.max(Some(retained.until));
        }
    }
    if roots.is_empty() {
        return String::new();
    }
    let (safe, here) = match scope {
        Scope::Node => ("SAFE TO REMOVE ON THIS NODE", "on this node"),
        Scope::Pod => ("SAFE TO REMOVE IN THIS POD", "of this sidecar"),
    };
    let header = ["ROOT", "SHA-256", "VOLUMES", safe].map(str::to_owned);
    let lines: Vec<_> = std::iter::once(header).chain(roots.iter().map(line)).collect();
    format!("\n{}A root that is not in this list: no certificate {here} leads to it.\n", aligned(&lines))
}

fn line(((subject, sha256), root): (&(String, Option<String>), &Root)) -> [String; 4] {
    let digest = sha256
        .as_ref()
        .map_or("not in the trust bundle", |digest| digest.get(..SHOWN_DIGITS).unwrap_or(digest));
    let safe = match (sha256, root.last_end) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(end)) => format!("not before {}", seconds(end)),
        (Some(_), None) => "yes".to_owned(),
    };
    let retained = root
        .retained_until
        .map(|until| format!(" (not named any more, still trusted until {})", seconds(until)));
    [subject.clone(), digest.to_owned(), root.volumes.to_string(), safe + &retained.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RetainedAnchor;

    fn row(root: &str, sha256: Option<&str>, end: i64) -> Row {
        Row {
            root: Some(root.into()),
            root_sha256: sha256.map(str::to_owned),
            ends_at: Timestamp::from_second(end).ok(),
            ..Row::default()
        }
    }

    #[test]
    fn each_root_has_its_volumes_and_the_end_of_the_last_certificate() {
        let (old, new) = ("a".repeat(64), "b".repeat(64));
        let mut renewed = row("CN=new", Some(&new), 300);
        let gone = RetainedAnchor {
            sha256: "c".repeat(64),
            subject: "CN=gone".into(),
            until: Timestamp::from_second(400).unwrap(),
        };
        renewed.retained = vec![gone];
        let rows = [
            row("CN=old", Some(&old), 100),
            row("CN=old", Some(&old), 200),
            renewed,
            row("CN=foreign", None, 50),
            Row::default(),
        ];
        insta::assert_snapshot!(table(&rows, Scope::Node).trim_start(), @"
        ROOT        SHA-256                  VOLUMES  SAFE TO REMOVE ON THIS NODE
        CN=foreign  not in the trust bundle  1        -
        CN=gone     cccccccccccccccc         0        yes (not named any more, still trusted until 1970-01-01T00:06:40Z)
        CN=new      bbbbbbbbbbbbbbbb         1        not before 1970-01-01T00:05:00Z
        CN=old      aaaaaaaaaaaaaaaa         2        not before 1970-01-01T00:03:20Z
        A root that is not in this list: no certificate on this node leads to it.
        ");
        assert_eq!(table(&[Row::default()], Scope::Pod), "");
    }
}
