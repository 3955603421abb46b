//! Who may read a volume's key, and who may connect to its socket. Said here and nowhere else.

use crate::model::{CertificateSpec, Dialect};
use crate::store::NewSocket;

/// Who may read the key of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    owner: Option<u32>,
    group: Option<u32>,
    dialect: Dialect,
}

impl Access {
    /// As the volume asks for, with its group: the attribute `fs-group`, or else CSI's `volume_mount_group`.
    pub(crate) fn new(spec: &CertificateSpec, group: Option<u32>) -> Self {
        Self { owner: spec.owner, group, dialect: spec.dialect }
    }

    /// The user and the group that get the files with the key, and the socket; none: those of the driver, which is root.
    pub(crate) fn owners(self) -> (Option<u32>, Option<u32>) {
        (self.owner, self.group)
    }

    /// The permission bits of a file with the key. Under a peer's prefix it is readable in the group of root if there is no other
    /// group, as those drivers have it. It has an owner there only in a sidecar, which is not root.
    pub(crate) fn key_mode(self) -> u32 {
        let is_roots = self.owner.is_none() && self.dialect.is_peers();
        if self.group.is_some() || is_roots { 0o440 } else { 0o400 }
    }

    /// The volume's socket. Without owner and group everybody in a container that mounts the volume can connect, and nobody else:
    /// the directories above the volume are root's alone.
    pub(crate) fn socket(self, name: &str) -> NewSocket {
        let mode = match (self.owner, self.group) {
            (_, Some(_)) => 0o660,
            (Some(_), None) => 0o600,
            (None, None) => 0o666,
        };
        NewSocket { name: name.to_owned(), mode, owner: self.owner, group: self.group }
    }
}
