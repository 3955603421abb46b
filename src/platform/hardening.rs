//! Keeps keys in this process's memory: no core dump, no debugger.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Makes the process undumpable: no core file, and no attaching for others of the same user (prctl(2), `PR_SET_DUMPABLE`).
pub fn keep_memory_private() -> nix::Result<()> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}
