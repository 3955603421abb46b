//! A bundle, encoded into the files a pod reads. Pure.

use zeroize::Zeroizing;

/// One file of a delivery.
#[derive(Clone)]
pub struct DeliveredFile {
    /// A plain file name.
    pub name: String,
    /// What it holds.
    pub contents: Zeroizing<Vec<u8>>,
    /// Whether it holds the private key, and so is readable by owner (and fsGroup) only.
    pub secret: bool,
}
