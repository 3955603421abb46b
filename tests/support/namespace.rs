//! Runs a test in a mount namespace of its own, as root or as an ordinary user.
//!
//! The test binary starts itself again under `unshare(1)`, for this test only. The namespace ends with that process,
//! and so do the mounts of the test. The tests of the library and the integration tests include this file.

#![allow(clippy::expect_used, reason = "support for tests")]

use std::any::type_name;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Set for the inner run; its value is the scratch directory.
const SCRATCH: &str = "CERTLET_TEST_SCRATCH";

/// Runs `body`, the whole body of a `#[test]`, in a mount namespace of its own, from which no mount propagates. It gets
/// an empty scratch directory, which is removed afterwards.
///
/// The test's name is taken from the closure's type, so the closure must be written in the test function itself.
pub(crate) fn in_namespace<F: FnOnce(&Path)>(body: F) {
    if let Some(scratch) = env::var_os(SCRATCH) {
        return body(Path::new(&scratch));
    }
    let name = test_name(type_name::<F>());
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new("unshare")
        .args(kind_of_namespace())
        .args(["--propagation", "private", "--"])
        .arg(env::current_exe().expect("the path of this test binary"))
        .args([name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(SCRATCH, scratch.path())
        .output()
        .expect("unshare(1), which util-linux brings");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The count is checked, because a run with a name that matches no test passes too.
    let passed = output.status.success() && stdout.contains("1 passed");
    assert!(passed, "{name}, in its own namespace ({}):\n{stdout}\n{stderr}", output.status);
    print!("{stdout}");
}

/// Whether the namespace has all groups. The user namespace of an ordinary user has one group only.
#[allow(dead_code, reason = "not every test binary that includes this needs it")]
pub(crate) fn maps_all_groups() -> bool {
    let map = fs::read_to_string("/proc/self/gid_map").expect("/proc/self/gid_map");
    map.split_whitespace().nth(2).is_some_and(|count| count != "1")
}

/// Root needs no user namespace. Without one, root can give files to any group.
fn kind_of_namespace() -> &'static [&'static str] {
    if nix::unistd::geteuid().is_root() { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] }
}

/// `certlet::store::tests::name::{{closure}}` is the test `store::tests::name`.
fn test_name(closure: &'static str) -> &'static str {
    let name = closure.trim_end_matches("::{{closure}}");
    assert_ne!(name, closure, "the body must be a closure");
    name.split_once("::").map_or(name, |(_crate, name)| name)
}
