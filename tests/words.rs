//! Checks that code and docs use the words of docs/glossary.md, and not others for the same things.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// No identifier has one of these as a part, and no heading has it. Log keys are identifiers too.
const IN_NAMES: [&str; 25] = [
    "aside",
    "board",
    "bundle",
    "delivery",
    "errand",
    "heed",
    "ledger",
    "lifecycle",
    "look",
    "looks",
    "mend",
    "mended",
    "news",
    "note",
    "notes",
    "patience",
    "place",
    "places",
    "remark",
    "room",
    "rooms",
    "turn",
    "turns",
    "unheard",
    "wish",
];

/// No text has one of these as a word: comments, messages, help, metrics and pages included.
const IN_TEXT: [&str; 13] = [
    "errand",
    "heed",
    "heeds",
    "ledger",
    "lifecycle",
    "mend",
    "mended",
    "patience",
    "pod identity",
    "remarked",
    "unheard",
    "wish",
    "wishes",
];

/// Names that may have such a part, and why.
const EXCEPTIONS: [(&str, &str); 5] = [
    ("bundle_set", "a method of Rust's spiffe"),
    ("source_ca_bundle", "csi-driver-spiffe's flag"),
    ("sds_default_bundle_name", "a flag of SPIRE's agent"),
    ("remark", "the record's JSON field and the key of `certlet status --json`: their formats stay"),
    ("note", "the API field of a Kubernetes Event"),
];

/// A trust bundle is a term of the field: SPIFFE's, Kubernetes' and trust-manager's. A credential bundle is a file of SPIFFE Filesystem
/// Delivery, a SPIFFE bundle a format of keys, and federated bundles are a field of the SPIFFE Workload API.
const TERMS: [&str; 10] = [
    "trust_bundle",
    "TrustBundle",
    "TRUST_BUNDLE",
    "credential_bundle",
    "CREDENTIAL_BUNDLE",
    "spiffe_bundle",
    "SpiffeBundle",
    "SPIFFE_BUNDLE",
    "federated_bundle",
    "FederatedBundle",
];

/// A field of an X.509-SVID in the SPIFFE Workload API, and the files that name it.
const SVID_FIELD: (&str, [&str; 4]) = (
    "bundle",
    [
        "proto/src/generated/_.rs",
        "src/sink/workload_api.rs",
        "tests/socket/federation.rs",
        "tests/socket/workload_api.rs",
    ],
);

/// Texts that may have such a word: AWS's product, and pages that quote it.
const TEXT_EXCEPTIONS: [&str; 3] = ["eks pod identity", "pod identity agent", "pod identity association"];

#[test]
fn no_name_has_a_word_that_the_field_does_not_know() {
    let mut faults = Vec::new();
    for file in files(&["rs"]) {
        for (number, line) in (1..).zip(code(&fs::read_to_string(&file).unwrap()).lines()) {
            for name in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                let is_svid_field =
                    SVID_FIELD.0 == name && SVID_FIELD.1.iter().any(|end| file.ends_with(end));
                let excepted = is_svid_field || EXCEPTIONS.iter().any(|(excepted, _)| *excepted == name);
                let name = TERMS.iter().fold(name.to_owned(), |name, term| name.replace(term, "_"));
                let part = parts(&name).into_iter().find(|part| IN_NAMES.contains(&part.as_str()));
                if let (Some(part), false) = (part, excepted) {
                    faults.push(format!("{}:{number}: {name} has {part:?}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_heading_has_such_a_word() {
    let mut faults = Vec::new();
    for file in files(&["md"]) {
        let page = fs::read_to_string(&file).unwrap();
        for heading in page.lines().filter(|line| line.starts_with('#')) {
            let words = heading.to_lowercase();
            let mut words = words.split(|c: char| !c.is_alphanumeric());
            let is_flag = ["`--sds-default-bundle-name", "`--federated-bundle "]
                .iter()
                .any(|flag| heading.contains(flag));
            if let (Some(word), false) = (words.find(|word| IN_NAMES.contains(word)), is_flag) {
                faults.push(format!("{}: {heading}: {word:?}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_text_has_a_word_that_is_always_jargon_here() {
    let mut faults = Vec::new();
    for file in files(&["rs", "md", "sh", "yaml", "toml"]) {
        if file.ends_with("tests/words.rs") {
            continue;
        }
        for (number, line) in (1..).zip(fs::read_to_string(&file).unwrap().lines()) {
            let mut text = line.to_lowercase();
            for excepted in TEXT_EXCEPTIONS {
                text = text.replace(excepted, "");
            }
            let is_word = |word: &&&str| {
                text.match_indices(**word).any(|(at, found)| {
                    let end = at + found.len();
                    let is_letter =
                        |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
                    !is_letter(text[..at].chars().next_back()) && !is_letter(text[end..].chars().next())
                })
            };
            if let Some(word) = IN_TEXT.iter().find(is_word) {
                faults.push(format!("{}:{number}: {word:?}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The words of `some_name` or `SomeName`, in lower case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if c == '_' || c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().unwrap().push(c.to_ascii_lowercase());
        }
        before = c;
    }
    parts
}

/// The text without comments and without the contents of strings; lines stay lines.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match rest.as_bytes() {
            [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
            // A raw string ends with as many number signs as it begins with.
            [b'"', ..] if out.ends_with('#') => {
                let hashes = out.chars().rev().take_while(|c| *c == '#').count();
                let end = format!("\"{}", "#".repeat(hashes));
                rest[1..].find(&end).map_or(rest.len(), |found| found + 1 + end.len())
            }
            [b'"', ..] => string_length(rest),
            [b'\'', b'\\', ..] => rest[2..].find('\'').map_or(1, |found| found + 3),
            [b'\'', _, b'\'', ..] => 3,
            _ => {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
                continue;
            }
        };
        out.extend(rest[..length].chars().filter(|c| *c == '\n'));
        rest = &rest[length..];
    }
    out + rest
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// The project's own files with one of these endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", ".run", "corpus", "artifacts"].contains(&name.as_str()) {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|ending| endings.iter().any(|one| *ending == **one)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn strings_and_comments_do_not_count_as_code() {
    let text = "let a = \"note \\\" wish\"; // turn\nlet b = r#\"look \" x\"#; let c = '\"'; let d: &'static str = x;\n";
    let stripped = code(text);
    for word in ["note", "wish", "turn", "look"] {
        assert!(!stripped.contains(word), "{stripped}");
    }
    assert!(stripped.contains("let d: &'static str = x;") && stripped.lines().count() == 2, "{stripped}");
}
