//! docs/attributes.md, generated from the table that the parser uses.

use super::rows::{Key, TABLE};
use super::table::{Default, Presence, Row, Topic};
use super::values::template::{OWN_VARIABLES, VARIABLES};
use crate::model::Dialect;
use std::fmt::Write;

const INTRODUCTION: &str = include_str!("reference/introduction.md");
const RULES: &str = include_str!("reference/rules.md");

/// The table of what csi-driver and certlet do, as seen from docs/attributes.md.
const MIGRATE: &str = "[Moving to certlet](migrate.md#what-csi-driver-serves-is-served)";

/// What an operator does for `federated-bundles`, as seen from docs/attributes.md.
const FEDERATION: &str = "[federation](trust.md#federation)";

/// The tables: heading, and a sentence below it.
const TOPICS: [(Topic, &str, &str); 6] = [
    (Topic::Signer, "Who signs", "Variables are not replaced."),
    (Topic::Names, "Names", "A certificate may have no name, but few verifiers accept one."),
    (Topic::Certificate, "The certificate", "These values are requests: the signer decides."),
    (Topic::Key, "The private key", "It is made on the node, and never leaves the node."),
    (Topic::Files, "Files", "The contents of the mounted directory."),
    (
        Topic::PrivateCa,
        "AWS Private CA",
        "For `csi.certlet.io/signer: acm-pca`, which signs without cert-manager. Other signers do not accept them.",
    ),
];

/// The reference of all attributes, for authors of pods.
pub(crate) fn reference_markdown() -> String {
    let mut page = INTRODUCTION.replace("{optional}", &optional());
    for (topic, heading, sentence) in TOPICS {
        let _ = write!(page, "\n### {heading}\n\n{sentence}\n\n");
        page.push_str("| attribute | purpose | accepted | default |\n|---|---|---|---|\n");
        for row in TABLE.iter().filter(|row| row.topic == topic) {
            page.push_str(&line(row));
        }
    }
    page.push('\n');
    page.push_str(&rules());
    page
}

fn line(row: &Row) -> String {
    let mark = if row.options.certlet_only { " (only `csi.certlet.io/`)" } else { "" };
    let about = if row.has_variables(Dialect::Certlet) {
        format!("{} Variables.", row.about)
    } else {
        row.about.to_owned()
    };
    format!("| `{}`{mark} | {about} | {} | {} |\n", row.name, row.rule, default_text(row))
}

/// The attributes that an operator can allow to volumes of csi-driver-spiffe.
fn optional() -> String {
    let optional = TABLE.iter().filter(|row| row.options.csi_driver_spiffe == Presence::IfAllowed);
    let names: Vec<_> = optional.map(|row| format!("`{}`", row.name)).collect();
    names.join(", ")
}

/// The default, and cert-manager's if it differs.
fn default_text(row: &Row) -> String {
    let ours = described(row.default(Dialect::Certlet));
    let theirs = described(row.default(Dialect::CertManager));
    if row.options.certlet_only || ours == theirs {
        return ours;
    }
    format!("{ours}; with `csi.cert-manager.io/` {theirs}")
}

fn described(default: Default) -> String {
    match default {
        Default::None => "none".into(),
        Default::Value(value) => format!("`{value}`"),
        Default::Derived(text) => text.into(),
    }
}

fn rules() -> String {
    let listed = |names: &[&str]| {
        let lines: Vec<_> = names.iter().map(|name| format!("- `${{{name}}}`")).collect();
        lines.join("\n")
    };
    let templated: Vec<_> = TABLE
        .iter()
        .filter(|row| row.has_variables(Dialect::Certlet))
        .map(|row| format!("`{}`", row.name))
        .collect();
    RULES
        .replace("{variables}", &listed(&VARIABLES))
        .replace("{own variables}", &listed(&OWN_VARIABLES))
        .replace("{templated}", &templated.join(", "))
        .replace("{migrate}", MIGRATE)
        .replace("{federation}", FEDERATION)
        .replace("{issuer-name}", &Key::IssuerName.full(Dialect::Certlet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/attributes.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == reference_markdown(), "docs/attributes.md is out of date: run `make docs`");
    }

    #[test]
    fn every_attribute_is_on_the_page_and_every_topic_has_one() {
        let page = reference_markdown();
        for row in TABLE {
            assert!(page.contains(&format!("| `{}`", row.name)), "{}", row.name);
        }
        for (topic, heading, _) in TOPICS {
            assert!(TABLE.iter().any(|row| row.topic == topic), "{heading}");
        }
        assert!(
            ["{templated}", "{variables}", "{own variables}", "{migrate}", "{federation}", "{optional}"]
                .iter()
                .all(|mark| !page.contains(mark))
        );
    }

    #[test]
    fn no_cell_breaks_its_row() {
        for row in TABLE {
            assert_eq!(line(row).matches('|').count(), 5, "{}", row.name);
        }
    }
}
