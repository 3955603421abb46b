//! Amounts of the two things that a tmpfs can run out of.

use super::error::{Attempt, Resource, StoreError};
use super::{NewFile, Record};
use nix::sys::statvfs::statvfs;
use std::path::Path;

/// Bytes, in whole pages where files are meant, and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) inodes: u64,
}

/// What the store can hold and what it has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// What it can hold.
    pub(crate) total: Size,
    /// What it has left.
    pub(crate) free: Size,
    /// Bytes of a page.
    pub(crate) page: u64,
    /// What CRLs take, which no volume accounts for.
    pub(crate) crls: Size,
}

/// The inodes of a volume besides its generation: its two directories, its record and the link `..data`.
const FIXED_INODES: u64 = 4;
/// The inodes of a usual volume, which has a key, a certificate and a CA. The help of `--store-inodes` names it too.
pub(crate) const VOLUME_INODES: u64 = FIXED_INODES + generation_inodes(3);

impl Capacity {
    /// That of the file system at this path.
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        let found = statvfs(path).attempt("examine", path)?;
        let page = found.fragment_size().max(1);
        // A tmpfs without limits has none of either.
        let unlimited = |total: u64, amount: u64| if total == 0 { u64::from(u32::MAX) } else { amount };
        let size = |blocks, inodes| Size {
            bytes: unlimited(found.blocks(), blocks).saturating_mul(page),
            inodes: unlimited(found.files(), inodes),
        };
        Ok(Self {
            total: size(found.blocks(), found.files()),
            free: size(found.blocks_available(), found.files_available()),
            page,
            crls: Size::default(),
        })
    }

    /// What a generation with these files takes: each file whole pages, an inode and a link.
    pub(crate) fn generation(&self, files: &[NewFile]) -> Size {
        let bytes = files.iter().map(|file| self.pages(file.contents.len())).sum();
        Size { bytes, inodes: generation_inodes(files.len() as u64) }
    }

    /// What a volume has besides its generation.
    pub(crate) fn besides_generation(&self, record: &Record) -> Size {
        Size { bytes: self.pages(record.encoded_len()), inodes: FIXED_INODES }
    }

    fn pages(&self, length: usize) -> u64 {
        (length as u64).next_multiple_of(self.page)
    }
}

/// The inodes of a generation: its directory, and for each file the file and the link to it.
const fn generation_inodes(files: u64) -> u64 {
    1 + 2 * files
}

impl Size {
    /// The sum.
    pub(crate) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// The difference, not below zero.
    pub(crate) fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    /// That many hundredths.
    pub(crate) fn percent(self, percent: u64) -> Self {
        self.map(|amount| u64::try_from(u128::from(amount) * u128::from(percent) / 100).unwrap_or(u64::MAX))
    }

    /// One of so many equal parts.
    pub(crate) fn divided_by(self, parts: u64) -> Self {
        self.map(|amount| amount / parts.max(1))
    }

    /// Its part of `whole`, if the parts of `before` are shared out anew; at most as much as before.
    pub(crate) fn in_proportion(self, whole: Self, before: Self) -> Self {
        let scale = |part: u64, whole: u64, before: u64| {
            let scaled = u128::from(part) * u128::from(whole) / u128::from(before.max(1));
            part.min(u64::try_from(scaled).unwrap_or(u64::MAX))
        };
        Self {
            bytes: scale(self.bytes, whole.bytes, before.bytes),
            inodes: scale(self.inodes, whole.inodes, before.inodes),
        }
    }

    /// The amount of one resource.
    pub(crate) fn of(self, resource: Resource) -> u64 {
        match resource {
            Resource::Space => self.bytes,
            Resource::Inodes => self.inodes,
        }
    }

    /// Of which resource this is more than the limit.
    pub(crate) fn exceeds(self, limit: Self) -> Option<Resource> {
        [Resource::Space, Resource::Inodes]
            .into_iter()
            .find(|resource| self.of(*resource) > limit.of(*resource))
    }

    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { bytes: of(self.bytes, other.bytes), inodes: of(self.inodes, other.inodes) }
    }

    fn map(self, of: impl Fn(u64) -> u64) -> Self {
        Self { bytes: of(self.bytes), inodes: of(self.inodes) }
    }
}
