//! A program under test: its output as it comes, its end, and nothing left of it afterwards.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::PATIENCE;

/// A running program, in a process group of its own. When this is dropped, the whole group is killed.
pub struct Program {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// How a program ended, and all that it wrote.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Lines of its standard output.
    pub stdout: Vec<String>,
    /// Lines of its standard error.
    pub stderr: Vec<String>,
}

impl Program {
    /// Starts it with both outputs read in the background. Its input is what `command` says, or else empty.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_stdin(command, Stdio::null())
    }

    /// As [`Program::start`], with this as its input.
    pub fn start_with_stdin(command: &mut Command, stdin: Stdio) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Self { name, child, stdout, stderr }
    }

    /// Runs it to its end.
    pub fn run(command: &mut Command) -> Ended {
        Self::start(command).finish()
    }

    /// Its process id, which is also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it occupies now.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kib << 10
    }

    /// Its input, if it was started with a pipe.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("started with Stdio::piped()")
    }

    /// Waits for the first line of its output for which `found` gives something.
    pub fn wait_for<T>(&self, what: &str, found: impl FnMut(&str) -> Option<T>) -> T {
        self.stdout
            .wait_for(found, PATIENCE)
            .unwrap_or_else(|| panic!("no {what} from {}:\n{}", self.name, self.said()))
    }

    /// Waits until its output has `count` lines, and returns these.
    pub fn wait_for_lines(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        self.wait_for(&format!("{count} lines"), |line| {
            lines.push(line.to_owned());
            (lines.len() == count).then_some(())
        });
        lines
    }

    /// As [`Program::wait_for`], for standard error.
    pub fn wait_for_error<T>(&self, what: &str, found: impl FnMut(&str) -> Option<T>) -> T {
        self.stderr
            .wait_for(found, PATIENCE)
            .unwrap_or_else(|| panic!("no {what} from {}:\n{}", self.name, self.said()))
    }

    /// The lines of its standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.stdout.seen()
    }

    /// The lines of its standard error so far.
    pub fn errors(&self) -> Vec<String> {
        self.stderr.seen()
    }

    /// What a terminal sends on Ctrl-C, to the program alone.
    pub fn interrupt(&self) {
        kill_process(self.group(), Signal::INT).expect("it runs");
    }

    /// What a supervisor sends to end a program in good order.
    pub fn terminate(&self) {
        kill_process(self.group(), Signal::TERM).expect("it runs");
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&self) {
        kill_process_group(self.group(), Signal::KILL).expect("it runs");
    }

    /// Waits for its end, at most [`PATIENCE`].
    pub fn finish(self) -> Ended {
        self.finish_within(PATIENCE)
    }

    /// Waits for its end, at most this long.
    pub fn finish_within(mut self, patience: Duration) -> Ended {
        let status = self.wait_within(patience);
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        Ended { status, stdout, stderr }
    }

    /// Waits for the end of the program itself, at most this long; what it has started is left alone.
    pub fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => return status,
                None if Instant::now() > deadline => {
                    panic!("{} does not end within {patience:?}:\n{}", self.name, self.said())
                }
                // The interval of a look, not a wait for something to have happened.
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The processes of its group that still run, as Linux shows them in /proc.
    pub fn left(&self) -> Vec<String> {
        let group = self.child.id().to_string();
        let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
        let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
        // After the name in parentheses: state, parent, group (proc_pid_stat(5)).
        let in_group = |stat: &String| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(2) == Some(group.as_str()))
        };
        stats.filter(in_group).collect()
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).expect("not 0")
    }

    /// The end of what it wrote, for people.
    pub fn said(&self) -> String {
        let show =
            |lines: &Lines| lines.seen().into_iter().rev().take(40).rev().collect::<Vec<_>>().join("\n");
        format!("--- stdout\n{}\n--- stderr\n{}", show(&self.stdout), show(&self.stderr))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Also what it started, such as a browser's helpers. That the group is gone already is no error.
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Lines that a thread reads until the end of the stream.
struct Lines(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let shared = Arc::clone(&lines.0);
        std::thread::spawn(move || {
            let (seen, changed) = &*shared;
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                seen.lock().expect("no panic while locked").lines.push(line);
                changed.notify_all();
            }
            seen.lock().expect("no panic while locked").ended = true;
            changed.notify_all();
        });
        lines
    }

    fn wait_for<T>(&self, mut found: impl FnMut(&str) -> Option<T>, patience: Duration) -> Option<T> {
        let deadline = Instant::now() + patience;
        let (seen, changed) = &*self.0;
        let mut seen = seen.lock().expect("no panic while locked");
        let mut next = 0;
        loop {
            while let Some(line) = seen.lines.get(next) {
                next += 1;
                if let Some(result) = found(line) {
                    return Some(result);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.ended || left.is_zero() {
                return None;
            }
            seen = changed.wait_timeout(seen, left).expect("no panic while locked").0;
        }
    }

    fn seen(&self) -> Vec<String> {
        self.0.0.lock().expect("no panic while locked").lines.clone()
    }

    /// All lines, after the program's end; those of a helper that outlives it are not waited for.
    fn all(&self) -> Vec<String> {
        self.wait_for(|_| None::<()>, Duration::from_secs(5));
        self.seen()
    }
}
