//! Follows the X.509-SVID of a volume's socket.
//!
//! ```text
//! workload-api unix:///spiffe/socket
//! ```
//!
//! For each line of input it prints the serial number of the current one (hexadecimal) and its SPIFFE ID, after it has verified
//! the one against the current trust bundle; or an error.

use spiffe::X509Source;
use std::error::Error;
use tokio::io::{AsyncBufReadExt, BufReader};
use x509_parser::parse_x509_certificate;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args().nth(1).ok_or("usage: workload-api SOCKET")?;
    let source = X509Source::builder().endpoint(socket).build().await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        println!("{}", current(&source).unwrap_or_else(|error| format!("error: {error}")));
    }
    Ok(())
}

fn current(source: &X509Source) -> Result<String, Box<dyn Error>> {
    let context = source.x509_context()?;
    let svid = context.default_svid().ok_or("no SVID")?;
    let domain = svid.spiffe_id().trust_domain();
    let anchors = context.bundle_set().get(domain).ok_or("no anchors of its trust domain")?;
    let (_, leaf) = parse_x509_certificate(svid.leaf().as_bytes())?;
    let is_verified = anchors.authorities().iter().any(|anchor| {
        let anchor = parse_x509_certificate(anchor.as_bytes());
        anchor.is_ok_and(|(_, anchor)| leaf.verify_signature(Some(anchor.public_key())).is_ok())
    });
    if !is_verified {
        return Err("no trust anchor issued it".into());
    }
    Ok(format!("{:x} {}", leaf.serial, svid.spiffe_id()))
}
