//! What one of the operator's classes makes of the attributes of a volume.

use super::digest::{hex, sha256};
use super::raw::RawAttributes;
use serde::{Deserialize, Serialize};

/// A volume's attributes together with those of its class. A record keeps it: it says what the files in use were made by, whatever
/// becomes of the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeClass {
    /// The name of the class.
    pub name: String,
    /// The attributes of pod and class together, by their full keys.
    pub attributes: RawAttributes,
    /// The trust domain of the class; none: that of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// How the class makes SPIFFE IDs; none: as the driver does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id_template: Option<String>,
}

impl VolumeClass {
    /// A digest of all of it, in hexadecimal.
    pub(crate) fn digest(&self) -> String {
        let json = zeroize::Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        hex(&sha256(&[json.as_slice()]))
    }
}
