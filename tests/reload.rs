//! `certlet reload`: as a program's wrapper, as PID 1, and as a sidecar.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CERTLET: &str = env!("CARGO_BIN_EXE_certlet");
const DEADLINE: Duration = Duration::from_secs(30);
/// Writes a line for each HUP and USR1, and ends with code 7 at TERM. It ends with its parent too.
const PROGRAM: &str = r#"
trap 'echo hup >> "$OUT"' HUP
trap 'echo usr1 >> "$OUT"' USR1
trap 'echo term >> "$OUT"; exit 7' TERM
echo started >> "$OUT"
while [ -d /proc/$PPID ]; do sleep 0.02; done
"#;

/// A directory with a volume, and `certlet reload` that follows it. Each process that it starts has a group of its own, which ends
/// with it.
struct Stage {
    root: TempDir,
    children: Vec<Child>,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { root: tempfile::tempdir().unwrap(), children: Vec::new() };
        fs::create_dir(stage.volume()).unwrap();
        stage.swap("..1");
        stage
    }

    fn volume(&self) -> PathBuf {
        self.root.path().join("tls")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Makes a generation the current one, as certlet and the kubelet do it.
    fn swap(&self, name: &str) {
        let volume = self.volume();
        fs::create_dir_all(volume.join(name)).unwrap();
        fs::write(volume.join(name).join("tls.crt"), name).unwrap();
        symlink(name, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        // It ends also if the test is killed, and its program ends with it.
        command.args(["--pdeathsig", "KILL", CERTLET, "reload", "--log-format=text", "--watch"]);
        command.arg(self.volume()).args(arguments).process_group(0);
        command.env("OUT", self.path("out")).env("VOLUME", self.volume()).stdin(Stdio::null());
        command
    }

    /// Starts certlet, and waits until it watches. Its log is in `log`.
    fn start(&mut self, arguments: &[&str]) -> usize {
        let log = fs::File::create(self.path("log")).unwrap();
        let command = self.command(arguments).stderr(log).spawn().unwrap();
        self.children.push(command);
        self.until("certlet starts", |stage| stage.log().contains("certlet reload starts"));
        self.children.len() - 1
    }

    /// Starts a program that is not certlet's. A shell cannot catch what is ignored where the tests run, as HUP is under nohup.
    fn other(&mut self, program: &Command) -> i32 {
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP").arg(program.get_program()).args(program.get_args());
        command.env("OUT", self.path("out")).stdin(Stdio::null()).process_group(0);
        let child = command.spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        self.children.push(child);
        id
    }

    fn id(&self, child: usize) -> Pid {
        Pid::from_raw(i32::try_from(self.children[child].id()).unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn out(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    /// How often the programs have written that line.
    fn count(&self, line: &str) -> usize {
        self.out().lines().filter(|written| *written == line).count()
    }

    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < DEADLINE, "{what}:\n{}\n{}", self.out(), self.log());
            sleep(Duration::from_millis(5));
        }
    }

    fn wait(&mut self, child: usize) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.children[child].try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "it does not end:\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let (Ok(None), Ok(id)) = (child.try_wait(), i32::try_from(child.id())) {
                let _ended = killpg(Pid::from_raw(id), Signal::SIGKILL);
            }
            let _reaped = child.wait();
        }
    }
}

/// Time in which a signal that must not come would come.
fn a_while() {
    sleep(Duration::from_millis(300));
}

fn script(text: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", text]);
    command
}

/// Runs certlet to its end, which comes at once.
fn run(arguments: &[&str]) -> Output {
    Command::new(CERTLET).arg("reload").args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_wrapped_program_gets_one_signal_for_each_generation_and_other_signals_too() {
    let mut stage = Stage::new();
    let certlet = stage.start(&["--signal", "HUP", "--", "sh", "-c", PROGRAM]);
    stage.until("the program starts", |stage| stage.count("started") == 1);
    a_while();
    assert_eq!(stage.count("hup"), 0, "it has read the generation that was there");
    for number in 2..5 {
        stage.swap(&format!("..{number}"));
        stage.until("the signal", |stage| stage.count("hup") == number - 1);
    }
    fs::write(stage.volume().join("unrelated"), "").unwrap();
    kill(stage.id(certlet), Signal::SIGUSR1).unwrap();
    stage.until("the forwarded signal", |stage| stage.count("usr1") == 1);
    a_while();
    assert_eq!(stage.count("hup"), 3, "{}", stage.log());
    kill(stage.id(certlet), Signal::SIGTERM).unwrap();
    assert_eq!(stage.wait(certlet).code(), Some(7));
    assert_eq!(stage.count("term"), 1);
}

#[test]
fn it_ends_as_its_program_does() {
    for (end, code) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let output = run(&["--watch=/nonexistent", "--signal=HUP", "--", "sh", "-c", end]);
        assert_eq!(output.status.code(), Some(code), "{end}: {output:?}");
    }
    for (program, code) in [("/nonexistent/program", 127), ("/dev/null", 126)] {
        let output = run(&["--watch=/nonexistent", "--signal=HUP", "--", program]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(program), "{said}");
    }
}

#[test]
fn a_program_that_somebody_kills_ends_certlet() {
    let mut stage = Stage::new();
    let program = format!("echo $$ > \"$OUT.pid\"\n{PROGRAM}");
    let certlet = stage.start(&["--signal", "HUP", "--", "sh", "-c", &program]);
    stage.until("the program starts", |stage| stage.count("started") == 1);
    let id: i32 = fs::read_to_string(stage.path("out.pid")).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(id), Signal::SIGKILL).unwrap();
    assert_eq!(stage.wait(certlet).code(), Some(137));
}

#[test]
fn a_signal_that_would_end_the_program_is_not_sent_before_it_has_a_handler() {
    let mut stage = Stage::new();
    let program = format!("until [ -e \"$OUT.go\" ]; do sleep 0.02; done\n{PROGRAM}");
    stage.start(&["--signal", "HUP", "--", "sh", "-c", &program]);
    stage.swap("..2");
    stage.until("the refusal", |stage| stage.log().contains("does not handle SIGHUP"));
    fs::write(stage.path("out.go"), "").unwrap();
    stage.until("the signal", |stage| stage.count("hup") == 1);
}

#[test]
fn generations_that_come_while_the_command_runs_count_as_one() {
    let mut stage = Stage::new();
    let command = "sh -c 'cat \"$VOLUME/..data/tls.crt\" >> \"$OUT\"; echo >> \"$OUT\"; sleep 0.5'";
    let certlet = stage.start(&["--exec", command]);
    stage.until("the first run", |stage| stage.count("..1") == 1);
    for number in 2..12 {
        stage.swap(&format!("..{number}"));
    }
    stage.until("the last generation", |stage| stage.count("..11") == 1);
    a_while();
    assert_eq!(stage.out().lines().count(), 2, "{}", stage.out());
    kill(stage.id(certlet), Signal::SIGTERM).unwrap();
    assert_eq!(stage.wait(certlet).code(), Some(0), "a sidecar has no program to wait for");
}

/// Whether a process is there, and no zombie.
fn runs(id: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn a_command_that_runs_ends_with_certlet_and_reads_no_input() {
    let mut stage = Stage::new();
    let command = "sh -c 'cat; sleep 60 & echo $! > \"$OUT\"; wait'";
    let certlet = stage.start(&["--exec", command]);
    stage.until("the command runs", |stage| stage.out().ends_with('\n'));
    let id: i32 = stage.out().trim().parse().unwrap();
    assert!(runs(id));
    kill(stage.id(certlet), Signal::SIGTERM).unwrap();
    assert_eq!(stage.wait(certlet).code(), Some(0));
    stage.until("the command ends", |_| !runs(id));
}

#[test]
fn a_program_that_ends_by_a_real_time_signal_ends_certlet() {
    let output = run(&["--watch=/nonexistent", "--signal=HUP", "--", "sh", "-c", "kill -40 $$"]);
    assert_eq!(output.status.code(), Some(168), "{output:?}");
}

#[test]
fn a_command_that_fails_or_hangs_is_run_again() {
    let mut stage = Stage::new();
    let command =
        "sh -c 'echo run >> \"$OUT\"; case $(grep -c run \"$OUT\") in 1) exit 3;; 2) sleep 60;; esac'";
    stage.start(&["--exec", command, "--exec-timeout", "300ms"]);
    stage.until("the third run", |stage| stage.log().contains("the command has run"));
    assert_eq!(stage.count("run"), 3, "{}", stage.log());
    for said in ["ended with exit code 3", "killed after 0.3s (--exec-timeout)"] {
        assert!(stage.log().contains(said), "{said}: {}", stage.log());
    }
}

#[test]
fn a_wrapper_can_run_a_command_for_each_generation() {
    let mut stage = Stage::new();
    let exec = "sh -c 'echo told >> \"$OUT\"'";
    let certlet = stage.start(&["--exec", exec, "--", "sh", "-c", PROGRAM]);
    stage.until("the program starts", |stage| stage.count("started") == 1);
    stage.swap("..2");
    stage.until("the command", |stage| stage.count("told") == 1);
    kill(stage.id(certlet), Signal::SIGTERM).unwrap();
    assert_eq!(stage.wait(certlet).code(), Some(7));
    assert_eq!(stage.count("told"), 1, "not for the generation that the program has read at its start");
}

#[test]
fn orphans_are_reaped_with_pid_1_and_without() {
    let stage = Stage::new();
    // The subshell ends at once, and its child becomes an orphan that ends while the program runs. A zombie would still be listed.
    let program = "(sleep 0.1 & echo $! > \"$OUT\"); sleep 1
        case $(cat /proc/$(cat \"$OUT\")/stat 2>&1) in *' Z '*) exit 9;; esac
        echo \"$PPID\" > \"$OUT.parent\"; exit 5";
    let output = stage.command(&["--signal=HUP", "--", "sh", "-c", program]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let mut contained = Command::new("unshare");
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    contained.args(user).args([
        "--pid",
        "--fork",
        "--mount-proc",
        CERTLET,
        "reload",
        "--signal=HUP",
        "--watch",
    ]);
    contained.arg(stage.volume()).args(["--", "sh", "-c", program]).env("OUT", stage.path("out"));
    let output = contained.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(fs::read_to_string(stage.path("out.parent")).unwrap().trim(), "1");
}

#[test]
fn a_pid_file_may_come_later_and_a_stale_one_signals_nobody() {
    let mut stage = Stage::new();
    let file = stage.path("pid");
    let program = stage.other(&script(PROGRAM));
    stage.until("the program starts", |stage| stage.count("started") == 1);
    // A file from before the program's start: the id has been given to it anew.
    fs::write(&file, format!("{program}\n")).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_hours(1);
    fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    stage.swap("..2");
    stage.start(&["--signal=HUP", "--pid-file", file.to_str().unwrap()]);
    stage.until("the stale file shows", |stage| stage.log().contains("another one, which started after"));
    fs::remove_file(&file).unwrap();
    stage.swap("..3");
    stage.until("the missing file shows", |stage| stage.log().contains("No such file"));
    assert_eq!(stage.count("hup"), 0);
    fs::write(&file, format!("{program}\n")).unwrap();
    stage.until("the signal", |stage| stage.count("hup") == 1);
    stage.swap("..4");
    stage.until("the next signal", |stage| stage.count("hup") == 2);
    fs::write(&file, "2147483647").unwrap();
    stage.swap("..5");
    stage.until("the stale id shows", |stage| stage.log().contains("process 2147483647 does not run"));
}

/// A copy of the shell with this name, so that a test finds only its own processes.
fn named_shell(stage: &Stage, name: &str) -> PathBuf {
    let path = stage.path(name);
    fs::copy("/bin/sh", &path).unwrap();
    path
}

fn unique(stage: &Stage, prefix: &str) -> String {
    let root = stage.root.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
    format!("{prefix}-{root}")
}

#[test]
fn of_processes_with_one_name_the_parents_get_the_signal() {
    let mut stage = Stage::new();
    let name = unique(&stage, "m");
    assert!(name.len() <= 15, "{name}");
    let shell = named_shell(&stage, &name);
    // A worker has the name of its master, as nginx's have.
    let with_worker = format!(
        "\"$0\" -c 'trap \"echo worker >> $OUT\" HUP; while [ -d /proc/$PPID ]; do sleep 0.02; done' &\n{PROGRAM}"
    );
    // So that the programs are clearly younger than the generation.
    sleep(Duration::from_millis(200));
    let masters: Vec<i32> =
        (0..2).map(|_| stage.other(Command::new(&shell).args(["-c", &with_worker]).arg(&shell))).collect();
    stage.until("the programs start", |stage| stage.count("started") == 2);
    a_while();
    stage.start(&["--signal=HUP", "--process", &name]);
    stage.swap("..2");
    stage.until("the signals", |stage| stage.count("hup") == 2);
    a_while();
    assert_eq!((stage.count("hup"), stage.count("worker")), (2, 0), "{}", stage.log());
    for master in masters {
        assert!(stage.log().contains(&format!("process={master}")), "{}", stage.log());
    }
}

#[test]
fn a_process_that_cannot_be_signalled_does_not_keep_others_from_it() {
    let mut stage = Stage::new();
    let name = unique(&stage, "n");
    let shell = named_shell(&stage, &name);
    sleep(Duration::from_millis(200));
    // Both orders of the ids: those without a handler first, and last.
    let without = "while [ -d /proc/$PPID ]; do sleep 0.02; done";
    stage.other(Command::new(&shell).args(["-c", without]));
    stage.other(Command::new(&shell).args(["-c", PROGRAM]));
    stage.other(Command::new(&shell).args(["-c", without]));
    stage.until("the program starts", |stage| stage.count("started") == 1);
    stage.start(&["--signal=HUP", "--process", &name]);
    stage.swap("..2");
    stage.until("the signal", |stage| stage.count("hup") == 1);
    stage.until("the refusal", |stage| stage.log().contains("does not handle SIGHUP"));
    sleep(Duration::from_millis(1500));
    assert_eq!(stage.count("hup"), 1, "not again with each attempt for the others: {}", stage.log());
}

#[test]
fn a_process_that_started_after_the_generation_is_left_alone_and_an_older_one_is_told_at_the_start() {
    let mut stage = Stage::new();
    let name = unique(&stage, "a-program-with-a-long-name");
    let shell = named_shell(&stage, &name);
    sleep(Duration::from_millis(200));
    stage.other(Command::new(&shell).args(["-c", PROGRAM]));
    stage.until("the program starts", |stage| stage.count("started") == 1);
    let first = stage.start(&["--signal=HUP", "--process", &name]);
    a_while();
    assert_eq!(stage.count("hup"), 0, "it has read what was there: {}", stage.log());
    stage.children[first].kill().unwrap();
    stage.children[first].wait().unwrap();
    // This one is missed, until certlet starts again.
    stage.swap("..2");
    stage.start(&["--signal=HUP", "--process", &name]);
    stage.until("the signal", |stage| stage.count("hup") == 1);
}

#[test]
fn a_name_that_no_process_has_is_tried_again() {
    let mut stage = Stage::new();
    let name = unique(&stage, "l");
    stage.start(&["--signal=HUP", "--process", &name]);
    stage.until("the failure", |stage| stage.log().contains("shareProcessNamespace: true"));
    let shell = named_shell(&stage, &name);
    stage.other(Command::new(&shell).args(["-c", PROGRAM]));
    stage.until("the program starts", |stage| stage.count("started") == 1);
    stage.swap("..2");
    stage.until("the signal", |stage| stage.count("hup") == 1);
}

#[test]
fn a_directory_that_does_not_exist_yet_is_waited_for() {
    let mut stage = Stage::new();
    fs::remove_dir_all(stage.volume()).unwrap();
    stage.start(&["--signal", "HUP", "--", "sh", "-c", PROGRAM]);
    stage.until("the program starts", |stage| stage.count("started") == 1);
    stage.until("it waits", |stage| stage.log().contains("does not exist yet"));
    fs::create_dir(stage.volume()).unwrap();
    stage.until("it still waits", |stage| stage.log().contains("it has no link ..data yet"));
    stage.swap("..1");
    stage.until("the signal", |stage| stage.count("hup") == 1);
}

#[test]
fn one_of_several_directories_is_enough() {
    let mut stage = Stage::new();
    let second = stage.path("other");
    fs::create_dir(&second).unwrap();
    let watch = format!("--watch={}", second.display());
    stage.start(&[&watch, "--signal=HUP", "--", "sh", "-c", PROGRAM]);
    stage.until("the program starts", |stage| stage.count("started") == 1);
    symlink("..1", second.join("..data_tmp")).unwrap();
    fs::rename(second.join("..data_tmp"), second.join("..data")).unwrap();
    stage.until("the signal", |stage| stage.count("hup") == 1);
    stage.swap("..2");
    stage.until("the signal of the first", |stage| stage.count("hup") == 2);
}

#[test]
fn what_cannot_work_is_refused_with_one_line_that_says_what_is_accepted() {
    let wrong: [(&[&str], &str); 11] = [
        (&["--signal=HUP", "--process=nginx"], "--watch"),
        (&["--watch=/tls"], "--exec COMMAND"),
        (&["--watch=/tls", "--", "nginx"], "--signal HUP"),
        (&["--watch=/tls", "--signal=HUP"], "--process NAME"),
        (&["--watch=/tls", "--signal=RELOAD", "--process=nginx"], "accepted: the name of a signal"),
        (&["--watch=/tls", "--signal=HUP", "--exec=nginx"], "--exec"),
        (&["--watch=/tls", "--signal=HUP", "--process=/usr/sbin/nginx"], "without its directory"),
        (&["--watch=/tls", "--exec=sh -c 'x"], "quotes in pairs"),
        (&["--watch=/tls", "--pid-file=/run/pid", "--exec=x"], "--exec"),
        (&["--watch=/tls", "--process=nginx", "--exec=x"], "--exec"),
        (&["--watch=/tls", "--process=nginx"], "--signal"),
    ];
    for (arguments, expected) in wrong {
        let output = run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.lines().count() == 1 && said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn the_flags_can_be_environment_variables() {
    let stage = Stage::new();
    let watched = format!("{}\n{}", stage.volume().display(), Path::new("/nonexistent").display());
    let mut command = Command::new(CERTLET);
    command.args(["reload", "--", "sh", "-c", "exit 6"]).env("CERTLET_WATCH", watched);
    command.env("CERTLET_SIGNAL", "HUP");
    assert_eq!(command.output().unwrap().status.code(), Some(6));
}
