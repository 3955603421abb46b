//! A private mount namespace, so that mounts need no root and end with the process.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::path::Path;
use thiserror::Error;

/// Errors of entering a namespace.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// The host does not allow namespaces or mounts by an ordinary user.
    #[error(
        "this host does not allow mounts by an ordinary user ({what}: {errno}){setting}; or run it with sudo"
    )]
    Forbidden {
        /// The step that failed.
        what: &'static str,
        /// The system's error.
        errno: Errno,
        /// Which setting forbids it.
        setting: String,
    },
    /// Any other error.
    #[error("no mount namespace: {what}: {source}")]
    Io {
        /// The step that failed.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Settings that can forbid user namespaces: path, forbidding value, and the command that allows them.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

/// Enters a new mount namespace. An ordinary user first enters a new user namespace, and is root in it.
///
/// Must be called while the process has one thread (unshare(2)).
pub fn enter() -> Result<(), NamespaceError> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNS).map_err(forbidden("unshare"))?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(forbidden("unshare"))?;
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {user} 1"))?;
        write("/proc/self/gid_map", &format!("0 {group} 1"))?;
    }
    // Later mounts are not visible outside.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(forbidden("mount"))
}

/// Mounts a tmpfs that the kernel removes together with the namespace.
pub fn scratch(directory: &Path) -> Result<(), NamespaceError> {
    fs::create_dir_all(directory)
        .map_err(|source| NamespaceError::Io { what: "its directory cannot be created", source })?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("certlet-demo"), directory, Some("tmpfs"), flags, Some("mode=0755"))
        .map_err(forbidden("mount"))
}

fn write(path: &'static str, text: &str) -> Result<(), NamespaceError> {
    fs::write(path, text).map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
        Some(errno @ (Errno::EPERM | Errno::EACCES)) => forbidden(path)(errno),
        _ => NamespaceError::Io { what: path, source },
    })
}

fn forbidden(what: &'static str) -> impl Fn(Errno) -> NamespaceError {
    move |errno| {
        let found = SETTINGS
            .iter()
            .find(|(path, forbids, _)| fs::read_to_string(path).is_ok_and(|value| value.trim() == *forbids));
        let setting =
            found.map_or_else(String::new, |(_, _, fix)| format!("; root can allow it with: {fix}"));
        NamespaceError::Forbidden { what, errno, setting }
    }
}
