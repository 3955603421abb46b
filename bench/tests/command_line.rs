//! The benchmark's command line.

use std::error::Error;
use std::process::Command;

#[test]
fn a_client_whose_socket_is_missing_names_its_directory() -> Result<(), Box<dyn Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_certlet-bench"))
        .args(["client", "--api", "sds", "--socket", "/does/not/exist/socket", "--number", "0"])
        .output()?;
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains("/does/not/exist: "), "{error}");
    Ok(())
}
