//! The mount table of this process (`proc_pid_mountinfo(5)`). Reading it takes long with many mounts, so it is read
//! only at the start.

use crate::store::{Attempt, StoreError};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) filesystem: String,
    pub(super) source: String,
    /// Options of the file system, as far as the kernel shows them.
    pub(super) options: String,
}

impl Entry {
    /// Whether the file system has that option.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }

    /// Reads a line if it is about this mount point.
    fn parse(line: &str, mount_point: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        fields.nth(4).filter(|field| *field == mount_point)?;
        // Any number of optional fields, then a lone dash.
        fields.find(|field| *field == "-")?;
        let mut text = || fields.next().map(str::to_owned);
        Some(Self { filesystem: text()?, source: text()?, options: text()? })
    }
}

/// The topmost mount at a path.
pub(super) fn mounted_at(path: &Path) -> Result<Option<Entry>, StoreError> {
    let table = fs::read(MOUNTINFO).attempt("read", Path::new(MOUNTINFO))?;
    let mount_point = escaped(path);
    Ok(String::from_utf8_lossy(&table).lines().rev().find_map(|line| Entry::parse(line, &mount_point)))
}

/// A path as the kernel writes it: space, tab, newline and backslash as a backslash and three octal digits.
fn escaped(path: &Path) -> String {
    let escape = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    String::from_utf8_lossy(&path.as_os_str().as_bytes().iter().flat_map(escape).collect::<Vec<u8>>())
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes_and_optional_fields() {
        let line = r"36 35 98:0 /mnt\0401 /a\134b\040c rw,noatime master:1 shared:7 - tmpfs certlet rw,size=4k,noswap";
        let entry = Entry::parse(line, &escaped(Path::new(r"/a\b c"))).unwrap();
        assert_eq!((entry.filesystem.as_str(), entry.source.as_str()), ("tmpfs", "certlet"));
        assert!(entry.has("noswap") && !entry.has("swap"));
        assert_eq!(Entry::parse(line, "/a"), None);
        assert_eq!(Entry::parse("", "/a"), None);
    }
}
