//! The rooms import along the arrows of docs/architecture.md and no other way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// For each room, the rooms it may import.
const ARROWS: [(&str, &[&str]); 18] = [
    ("readiness", &[]),
    ("watch", &["readiness"]),
    ("x509", &["attributes"]),
    ("attributes", &[]),
    ("clock", &["readiness"]),
    ("hardening", &[]),
    ("limiter", &[]),
    ("policy", &["attributes", "watch"]),
    ("signer", &["attributes", "clock", "limiter", "policy", "x509"]),
    ("issue", &["attributes", "clock", "signer", "x509"]),
    ("delivery", &["attributes", "issue", "x509"]),
    ("store", &["attributes", "delivery", "issue", "signer", "x509"]),
    ("telemetry", &["attributes", "issue"]),
    ("lifecycle", &["attributes", "clock", "delivery", "issue", "signer", "store", "telemetry"]),
    ("csi", &["attributes", "issue", "lifecycle", "proto", "store", "telemetry", "watch"]),
    (
        "node",
        &[
            "attributes",
            "clock",
            "csi",
            "issue",
            "lifecycle",
            "limiter",
            "policy",
            "proto",
            "signer",
            "store",
            "telemetry",
        ],
    ),
    ("cli", &["attributes", "csi", "lifecycle", "limiter", "node", "policy", "signer", "store", "telemetry"]),
    ("demo", &["cli", "clock", "proto", "store", "watch", "x509"]),
];

/// Rooms that know nothing of gRPC.
const WITHOUT_TONIC: [&str; 9] =
    ["attributes", "clock", "limiter", "policy", "signer", "issue", "delivery", "store", "lifecycle"];

#[test]
fn rooms_import_along_the_drawn_arrows_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for (room, allowed) in ARROWS {
        for (file, line) in code_lines(&source, room) {
            for imported in rooms_named(&line) {
                if imported != room && !allowed.contains(&imported.as_str()) {
                    faults.push(format!(
                        "{}: {room} -> {imported} is not drawn: {}",
                        file.display(),
                        line.trim()
                    ));
                }
            }
            if WITHOUT_TONIC.contains(&room) && line.contains("tonic") {
                faults.push(format!("{}: {room} knows nothing of gRPC: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_room_is_in_the_picture() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms: BTreeSet<String> = fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| !["lib", "main"].contains(&name.as_str()))
        .collect();
    let drawn: BTreeSet<String> = ARROWS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(rooms, drawn);
}

/// The `crate::room` paths on a line, also those of a braced import.
fn rooms_named(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// Lines of a room's files that are code: comments aside, and tests with all that follows them.
fn code_lines(source: &Path, room: &str) -> Vec<(PathBuf, String)> {
    let mut files = vec![source.join(format!("{room}.rs"))];
    let mut directories = vec![source.join(room)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    let is_test =
        |file: &PathBuf| file.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("test"));
    let mut lines = Vec::new();
    for file in files.into_iter().filter(|file| file.exists() && !is_test(file)) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        lines.extend(
            code.filter(|line| !line.trim_start().starts_with("//"))
                .map(|line| (file.clone(), line.to_owned())),
        );
    }
    lines
}
