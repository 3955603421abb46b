//! The mount table of this process (`proc_pid_mountinfo(5)`). Reads all of it: for the start, not for every call.

use crate::store::{Attempt, StoreError};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mount.
pub(super) struct Entry {
    mount_point: PathBuf,
    pub(super) filesystem: String,
    pub(super) source: String,
    /// Of the file system, as far as the kernel shows them.
    pub(super) options: String,
}

impl Entry {
    /// Whether the file system has that option.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let mount_point = unescape(fields.nth(4)?);
        // Any number of optional fields, then a lone dash.
        fields.find(|field| *field == b"-")?;
        let mut text = || Some(OsStr::from_bytes(fields.next()?).to_string_lossy().into_owned());
        Some(Self { mount_point, filesystem: text()?, source: text()?, options: text()? })
    }
}

/// The topmost mount at a path.
pub(super) fn mounted_at(path: &Path) -> Result<Option<Entry>, StoreError> {
    let table = fs::read(MOUNTINFO).attempt("read", Path::new(MOUNTINFO))?;
    let entries: Vec<Entry> = table.split(|&byte| byte == b'\n').filter_map(Entry::parse).collect();
    Ok(entries.into_iter().rfind(|entry| entry.mount_point == path))
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes_and_optional_fields() {
        let line = br"36 35 98:0 /mnt\0401 /a\134b\040c rw,noatime master:1 shared:7 - tmpfs certlet rw,size=4k,noswap";
        let entry = Entry::parse(line).unwrap();
        assert_eq!(entry.mount_point, Path::new(r"/a\b c"));
        assert_eq!((entry.filesystem.as_str(), entry.source.as_str()), ("tmpfs", "certlet"));
        assert!(entry.has("noswap") && !entry.has("swap"));
        assert!(Entry::parse(b"").is_none());
    }
}
