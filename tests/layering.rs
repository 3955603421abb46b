//! Checks that modules import only modules to their left. `make docs` writes the same table into docs/architecture.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module: its name, what it does, and whether it speaks gRPC.
struct Module(&'static str, &'static str, bool);

/// The layers from left to right. A module imports modules of layers to its left, and none of its own layer.
const LAYERS: [&[Module]; 9] = [
    &[
        Module(
            "model",
            "The types that all modules share: `VolumeId`, `WorkloadIdentity`, `CertificateSpec`, `SignerSpec`, `Failure`",
            false,
        ),
        Module("proto", "The gRPC services of `proto/`, as generated", true),
        Module(
            "platform",
            "Clock, file events, Unix sockets, backoff, token bucket, fair queues, private memory",
            false,
        ),
    ],
    &[
        Module("x509", "Builds, reads and verifies keys, signing requests, certificates and PEM", false),
        Module(
            "attributes",
            "Parses `volumeAttributes` into a `CertificateSpec`, by one table for both prefixes; pure",
            false,
        ),
        Module("policy", "Who may ask AWS Private CA for what: patterns and decisions", false),
        Module(
            "store",
            "A tmpfs: generations, records, checkpoints, journals; the only module that writes files",
            false,
        ),
        Module(
            "kube",
            "The Kubernetes API: clients, calls and what their failures mean, Events, the startup taint",
            false,
        ),
        Module("telemetry", "Logs, metrics, the admin server", false),
    ],
    &[
        Module(
            "signer",
            "Who signs: one trait; cert-manager, AWS Private CA with its quotas, the local CA",
            false,
        ),
        Module("trust", "Trust bundles, apart from credentials; the operator's sources of them, live", false),
    ],
    &[Module(
        "credential",
        "Obtains and verifies a credential, publishes it on its channel; the queue of renewals and other due work",
        false,
    )],
    &[Module(
        "sink",
        "Hands a credential and its trust bundle to a pod: files as PEM and PKCS#12, the SPIFFE Workload API, SDS",
        true,
    )],
    &[Module(
        "volume",
        "A CSI volume's life: publish, renew, unpublish, recover; locks and bind mounts",
        false,
    )],
    &[
        Module(
            "csi",
            "The gRPC services: requests to types, failures to status codes, registration with the kubelet",
            true,
        ),
        Module(
            "approver",
            "`certlet approver`: who gets which SPIFFE ID; leader election, evaluation, decisions",
            false,
        ),
        Module(
            "reload",
            "`certlet reload`: signals or runs a program once for each generation; reaps processes as PID 1 must",
            false,
        ),
        Module(
            "sidecar",
            "A sidecar's flags, pod and annotations to a publish; whether it has its certificate",
            false,
        ),
        Module(
            "control",
            "The local socket that only root reaches: health for the kubelet's probes, and renewals that are asked for",
            false,
        ),
    ],
    &[Module(
        "run",
        "Puts the modules together: `certlet node`, `certlet sidecar`, `certlet approver`",
        true,
    )],
    &[Module("cli", "The command line; every flag is an environment variable too", false)],
];

/// The marks around the table in docs/architecture.md.
const BEGIN: &str = "<!-- modules: begin; written by `make docs` from tests/layering.rs -->\n";
const END: &str = "<!-- modules: end -->";

#[test]
fn modules_import_to_the_left_only() {
    let mut left: Vec<&str> = Vec::new();
    let mut faults = Vec::new();
    for layer in LAYERS {
        for Module(module, _, speaks_grpc) in layer {
            for (file, line) in code_lines(&source(), module) {
                for imported in modules_named(&line) {
                    if imported != *module && !left.contains(&imported.as_str()) {
                        faults.push(format!(
                            "{}: {module} -> {imported} is not to the left: {}",
                            file.display(),
                            line.trim()
                        ));
                    }
                }
                if !speaks_grpc && line.contains("tonic") {
                    faults.push(format!(
                        "{}: {module} knows nothing of gRPC: {}",
                        file.display(),
                        line.trim()
                    ));
                }
            }
        }
        left.extend(layer.iter().map(|Module(name, ..)| *name));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_the_store_and_the_mounts_write_files() {
    let writes = ["fs::write(", "File::create", "OpenOptions", "fs::rename(", "set_permissions("];
    let mut faults = Vec::new();
    for Module(module, ..) in LAYERS.into_iter().flatten().filter(|module| module.0 != "store") {
        for (file, line) in code_lines(&source(), module) {
            // The mode of a Unix socket is set where it is bound.
            let is_socket = file.ends_with("platform/socket.rs");
            if !is_socket && writes.iter().any(|call| line.contains(call)) {
                faults.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_client_of_the_probes_needs_no_async_runtime() {
    // The kubelet starts it twice every half minute on every node.
    let mut faults = Vec::new();
    let (mut seen, files) = (BTreeSet::new(), ["control/client.rs", "cli/health.rs"]);
    for (file, line) in ["control", "cli"].into_iter().flat_map(|module| code_lines(&source(), module)) {
        let Some(name) = files.into_iter().find(|name| file.ends_with(name)) else { continue };
        seen.insert(name);
        if ["tokio", "async ", ".await"].iter().any(|word| line.contains(word)) {
            faults.push(format!("{}: {}", file.display(), line.trim()));
        }
    }
    assert_eq!(seen.len(), files.len(), "only {seen:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_module_is_in_the_table() {
    let in_source: BTreeSet<String> = fs::read_dir(source())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| !["fuzzing", "lib", "main"].contains(&name.as_str()))
        .collect();
    let generated = |name: &&str| *name == "proto";
    let names = LAYERS.into_iter().flatten().map(|Module(name, ..)| *name);
    let drawn: BTreeSet<String> = names.filter(|name| !generated(name)).map(str::to_owned).collect();
    assert_eq!(in_source, drawn);
}

#[test]
fn the_documentation_shows_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the begin of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    let written = [before, BEGIN, &table(), END, after].concat();
    if std::env::var_os("CERTLET_WRITE_DOCS").is_some() {
        fs::write(&path, written).unwrap();
    } else {
        assert!(page == written, "docs/architecture.md shows another table of modules: run `make docs`");
    }
}

/// The layers and the table of modules, in Markdown.
fn table() -> String {
    let layer = |layer: &[Module]| {
        let names: Vec<&str> =
            layer.iter().map(|Module(name, ..)| *name).filter(|name| *name != "proto").collect();
        names.join(", ")
    };
    let layers: Vec<String> = LAYERS.into_iter().map(layer).collect();
    let mut text =
        format!("```text\n{}\n```\n\n| module | what it does |\n|---|---|\n", layers.join("\n  <- "));
    for Module(name, does, _) in LAYERS.into_iter().flatten() {
        text.extend(["| `", name, "` | ", does, " |\n"]);
    }
    text
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The `crate::module` paths on a line, also those of a braced import.
fn modules_named(line: &str) -> Vec<String> {
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

/// The lines of code of a module's files, without comments, and without tests and everything after them.
fn code_lines(source: &Path, module: &str) -> Vec<(PathBuf, String)> {
    let mut files = vec![source.join(format!("{module}.rs"))];
    let mut directories = vec![source.join(module)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    let is_test =
        |file: &PathBuf| file.strip_prefix(source).is_ok_and(|path| path.to_string_lossy().contains("test"));
    let mut lines = Vec::new();
    for file in files.into_iter().filter(|file| file.exists() && !is_test(file)) {
        let text = fs::read_to_string(&file).unwrap();
        // Skips the line after the attribute too. If that line opens a module, the rest of the file is skipped.
        let mut skip = 0;
        for line in text.lines() {
            if line.trim() == "#[cfg(test)]" {
                skip = 2;
            }
            if skip > 0 {
                skip -= 1;
                if skip == 0 && line.trim_end().ends_with('{') {
                    break;
                }
            } else if !line.trim_start().starts_with("//") {
                lines.push((file.clone(), line.to_owned()));
            }
        }
    }
    lines
}
