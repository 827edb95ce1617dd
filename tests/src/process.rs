//! A child process that cannot outlive its test: spawned, watched, and killed by its own pid when dropped.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A directory that goes away with its test, unless `RMQ_KEEP` is set to look at what is in it.
pub fn scratch_dir() -> Result<tempfile::TempDir> {
    let mut dir = tempfile::Builder::new().prefix("rmq-test-").tempdir()?;
    if std::env::var_os("RMQ_KEEP").is_some() {
        dir.disable_cleanup(true);
        eprintln!("kept: {}", dir.path().display());
    }
    Ok(dir)
}

/// What a child has written to its standard output so far.
#[derive(Debug, Default)]
struct Lines {
    read: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running child. Dropping it kills it with SIGKILL and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Lines>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`: standard output is kept line by line in memory and copied with standard error into the file `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let mut file =
            File::options().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file.try_clone()?)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        let lines = Arc::new(Lines::default());
        let stdout = child.stdout.take().context("standard output is not piped")?;
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut raw = Vec::new();
            while matches!(reader.read_until(b'\n', &mut raw), Ok(n) if n > 0) {
                // A log that cannot be written is no reason to lose the line.
                let _ = file.write_all(&raw);
                sink.lock().0.push(String::from_utf8_lossy(&raw).trim_end().to_owned());
                sink.changed.notify_all();
                raw.clear();
            }
            sink.lock().1 = true;
            sink.changed.notify_all();
        });
        Ok(Self { name: name.to_owned(), stdin: child.stdin.take(), child, lines, log: log.to_owned() })
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to the child's standard input.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().with_context(|| format!("the input of {} is closed", self.name))?;
        writeln!(stdin, "{line}").with_context(|| format!("writing to {}", self.name))
    }

    /// Closes the child's standard input, by which some programs are told to finish.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// All lines of standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().0.clone()
    }

    /// The lines of standard output behind the first `skipped` ones.
    pub fn lines_after(&self, skipped: usize) -> Vec<String> {
        self.lines.lock().0.get(skipped..).unwrap_or_default().to_vec()
    }

    /// How many lines of standard output there are so far.
    pub fn line_count(&self) -> usize {
        self.lines.lock().0.len()
    }

    /// Waits for a line of standard output that `wanted` accepts, from the first one on.
    pub fn wait_for_line(&self, timeout: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        self.wait_for_line_after(0, timeout, wanted)
    }

    /// As [`wait_for_line`](Self::wait_for_line), leaving out the first `skipped` lines.
    pub fn wait_for_line_after(
        &self,
        skipped: usize,
        timeout: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut guard = self.lines.lock();
        let mut looked_at = skipped.min(guard.0.len());
        loop {
            if let Some(line) = guard.0[looked_at..].iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            looked_at = guard.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if guard.1 || left.is_zero() {
                let why = if guard.1 { "ended" } else { "printed nothing of the kind" };
                drop(guard);
                bail!("{} {why} within {timeout:?}\n{}", self.name, self.log_tail());
            }
            guard = self.lines.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until something accepts connections at `addr`.
    pub fn wait_for_port(&mut self, addr: SocketAddr, timeout: Duration) -> Result<()> {
        wait_until(timeout, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}\n{}", self.name, self.log_tail());
            }
            Ok(TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok())
        })
        .with_context(|| format!("{} does not listen on {addr}\n{}", self.name, self.log_tail()))
    }

    /// True while the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.drain(Duration::from_secs(5));
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {timeout:?}\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_pid(self.pid(), signal)
    }

    /// SIGKILL, then reaps.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.drain(Duration::from_secs(5));
        Ok(())
    }

    /// SIGTERM, then waits for a clean end.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(timeout)
    }

    /// Resident memory in KiB, as the kernel counts it.
    pub fn rss_kib(&self) -> Result<u64> {
        status_field(self.pid(), "VmRSS:")
    }

    /// Private resident memory (heap and stacks, no mapped files) in KiB.
    pub fn rss_anon_kib(&self) -> Result<u64> {
        status_field(self.pid(), "RssAnon:")
    }

    /// CPU time of all its threads so far, in the kernel's clock ticks of 10 ms.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // Behind the name, which may hold blanks: user and system time are fields 14 and 15 of all.
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// How many file descriptors the process has open.
    pub fn open_files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// The text of the log: standard output and standard error.
    pub fn log(&self) -> String {
        let mut raw = Vec::new();
        match File::open(&self.log).and_then(|mut file| file.read_to_end(&mut raw)) {
            Ok(_) => String::from_utf8_lossy(&raw).into_owned(),
            Err(error) => format!("{}: {error}", self.log.display()),
        }
    }

    /// The end of the log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let from = log.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
        format!("--- {}\n{}", self.log.display(), &log[from..])
    }

    fn drain(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut guard = self.lines.lock();
        while !guard.1 && Instant::now() < deadline {
            guard = self
                .lines
                .changed
                .wait_timeout(guard, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        // It may have ended already; there is nothing else to do about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends `signal` to the process `pid`.
pub fn signal_pid(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no process id"))?;
    kill_process(pid, signal).with_context(|| format!("{signal:?} to {pid:?}"))
}

/// Calls `done` every 25 ms until it says yes; an error of `done` ends the waiting.
pub fn wait_until(timeout: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !done()? {
        if Instant::now() > deadline {
            bail!("not within {timeout:?}");
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}

fn status_field(pid: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field} of {pid}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_arrive_and_drop_kills() {
        let dir = scratch_dir().expect("a directory");
        let process =
            Process::spawn("sh", shell("echo one; echo two; exec sleep 600"), &dir.path().join("log")).expect("start");
        let line = process.wait_for_line(Duration::from_secs(10), |line| line.starts_with("tw")).expect("a line");
        assert_eq!(line, "two");
        assert_eq!(process.log(), "one\ntwo\n");
        let proc_dir = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc_dir.exists());
        drop(process);
        assert!(!proc_dir.exists(), "the child outlives its guard");
    }

    #[test]
    fn the_end_of_the_child_ends_the_wait() {
        let dir = scratch_dir().expect("a directory");
        let process = Process::spawn("sh", shell("echo only"), &dir.path().join("log")).expect("start");
        let began = Instant::now();
        assert!(process.wait_for_line(Duration::from_mins(1), |line| line == "other").is_err());
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn closing_stdin_is_seen() {
        let dir = scratch_dir().expect("a directory");
        let mut process = Process::spawn("cat", Command::new("cat"), &dir.path().join("log")).expect("start");
        process.close_stdin();
        assert!(process.wait(Duration::from_secs(10)).expect("an end").success());
    }
}
