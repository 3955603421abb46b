//! From version 1 of the policy file to version 2.
//!
//! Version 1 allowed every usage that the template sets or passes through, and always the driver's own role.

use super::file::DRIVER;
use serde::Deserialize;
use std::fmt::Write;

/// What the upgrade reads of a file of version 1.
#[derive(Deserialize)]
struct Old {
    version: u32,
    #[serde(default)]
    rules: Vec<OldRule>,
}

#[derive(Deserialize)]
struct OldRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    allow: OldAllow,
}

#[derive(Default, Deserialize)]
struct OldAllow {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default, rename = "isCa")]
    is_ca: bool,
}

/// The lines that a file of version 1 needs to mean the same in version 2, as far as the usages of the default templates go.
/// None if the file is not of version 1.
pub(crate) fn upgrade(text: &str) -> Option<String> {
    let old: Old = serde_saphyr::from_str(text).ok().filter(|old: &Old| old.version == 1)?;
    let mut lines = "version: 2\n".to_owned();
    for OldRule { name, allow: OldAllow { roles, is_ca } } in old.rules {
        let replaced = if roles.is_empty() { "" } else { ", in place of roles" };
        let roles = roles.iter().map(|role| format!("{role:?}"));
        let callers: Vec<_> = std::iter::once(DRIVER.to_owned()).chain(roles).collect();
        let for_ca = if is_ca { ", cert sign, crl sign" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(
            lines,
            "rule {name:?}, under allow{replaced}:\n      callers: [{}]\n      \
             usages: [digital signature, key encipherment, server auth, client auth{for_ca}]\n",
            callers.join(", ")
        );
    }
    Some(lines)
}
