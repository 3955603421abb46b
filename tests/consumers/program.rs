//! Programs that run beside the driver as a user that is not root.

use crate::support::{DEADLINE, namespace};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// The user and the group of the programs.
pub(crate) const USER: u32 = 1000;

/// The value of `owner` with which that user may read a key. An ordinary user's namespace has one user only, so that a volume's
/// files belong to everybody in it.
pub(crate) static OWNER: LazyLock<Option<String>> =
    LazyLock::new(|| namespace::maps_all_groups().then(|| USER.to_string()));

/// A program that will run as that user.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command;
    if OWNER.is_some() {
        command = Command::new(program);
        command.uid(USER).gid(USER);
    } else {
        command = Command::new("unshare");
        let user = format!("--map-user={USER}");
        command.args(["--user", &user, &format!("--map-group={USER}"), "--"]).arg(program);
    }
    // That user may not have the right to enter the checkout.
    command.current_dir("/");
    command
}

/// Gives a new directory to that user.
pub(crate) fn directory(path: &Path) {
    fs::create_dir(path).unwrap();
    if OWNER.is_some() {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
}

/// The folder of a piece that `tests/consumers/build` has built, mounted below `root`. The cache itself may be in a home directory
/// that is closed to other users.
pub(crate) fn built(piece: &str, root: &Path) -> PathBuf {
    let variable = format!("CERTLET_CONSUMERS_{}", piece.to_uppercase());
    let built =
        env::var_os(&variable).unwrap_or_else(|| panic!("{variable} is not set: run `make consumers`"));
    let mounted = root.join(piece);
    fs::create_dir(&mounted).unwrap();
    mount(Some(Path::new(&built)), &mounted, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    mounted
}

/// Runs a program to its end: whether it succeeded, and its output and errors.
pub(crate) fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    // Some programs print rubbish in an error.
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

/// Runs a program, which must succeed. Returns its output.
pub(crate) fn output(command: &mut Command) -> String {
    let (success, output) = outcome(command);
    assert!(success, "{command:?}: {output}");
    output
}

/// A program that runs, and is ended with its owner.
pub(crate) struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::of(Self::spawn(command))
    }

    /// The first half of [`Self::start`], for a thread that cannot start others.
    pub(crate) fn spawn(command: &mut Command) -> Child {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// The second half.
    pub(crate) fn of(mut child: Child) -> Self {
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        // The thread ends with the program's output.
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, input, lines }
    }

    /// The next line of its output.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line of output")
    }

    /// What follows a prefix in the first line of its output that has it.
    pub(crate) fn line_after(&self, prefix: &str) -> String {
        loop {
            if let Some(rest) = self.line().strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    /// Its answer to a line of input.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.line()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The signal with which PostgreSQL waits for nobody, and removes its shared memory.
        self.signal(Signal::SIGINT);
        let asked = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if asked.elapsed() > DEADLINE {
                let _killed = self.child.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
