//! Keeps one process running, as a kubelet keeps a container: starts it again when it ends, ever more slowly while it
//! keeps ending, and stops it in good order when told to.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::child::Identity;

/// First pause before a process is started again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A process that ran this long had started well, and its end is the first again.
const STEADY: Duration = Duration::from_secs(30);

/// A process to keep running.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// Name for people.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Its working folder, which also gets `log` and `pid`.
    pub folder: PathBuf,
    /// How long it may take to end before it is killed.
    pub grace: Duration,
}

/// A process that is being kept running.
#[derive(Debug)]
pub(super) struct Supervised {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts it.
    pub(super) fn start(spec: Spec) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(keep_running(spec, stopped)) }
    }

    /// Tells it to end, without waiting for that.
    pub(super) fn begin_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether it was told to end and has ended.
    pub(super) fn has_stopped(&self) -> bool {
        self.task.is_finished()
    }

    /// Tells it to end and waits until it has.
    pub(super) async fn stop(self) {
        self.begin_stop();
        if let Err(fault) = self.task.await {
            tracing::error!("a supervisor has failed: {fault}");
        }
    }
}

async fn keep_running(spec: Spec, mut stop: watch::Receiver<bool>) {
    let pid_file = spec.folder.join("pid");
    let mut pause = FIRST_PAUSE;
    while !*stop.borrow() {
        let started = Instant::now();
        match spawn(&spec) {
            Ok(mut child) => {
                let identity = child.id().and_then(Identity::of);
                if let Some(identity) = identity
                    && let Err(fault) = identity.write(&pid_file)
                {
                    tracing::warn!(pod = spec.name, "cannot write {}: {fault}", pid_file.display());
                }
                tokio::select! {
                    status = child.wait() => match status {
                        Ok(status) => tracing::warn!(
                            pod = spec.name, log = %spec.folder.join("log").display(), "ended with {status}"
                        ),
                        Err(fault) => tracing::warn!(pod = spec.name, "cannot be waited for: {fault}"),
                    },
                    () = told(&mut stop) => end(&spec, child, identity).await,
                }
                // A leftover record is harmless, for it names the start time too.
                let _ = std::fs::remove_file(&pid_file);
            }
            Err(fault) => tracing::warn!(pod = spec.name, "cannot be started: {fault}"),
        }
        if started.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        if tokio::time::timeout(pause, told(&mut stop)).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns once it is told to stop, which it also is when nobody is left who could tell it.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn end(spec: &Spec, mut child: Child, identity: Option<Identity>) {
    if let Some(identity) = identity {
        identity.signal(rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(spec.grace, child.wait()).await.is_err() {
        tracing::warn!(pod = spec.name, "has not ended within {:?} and is killed", spec.grace);
        if let Err(fault) = child.kill().await {
            tracing::warn!(pod = spec.name, "cannot be killed: {fault}");
        }
    }
}

fn spawn(spec: &Spec) -> std::io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(spec.folder.join("log"))?;
    let (program, arguments) =
        spec.command.split_first().ok_or_else(|| std::io::Error::other("no program is named"))?;
    Command::new(program)
        .args(arguments)
        .current_dir(&spec.folder)
        .env("HOME", &spec.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Of its own, so that Ctrl-C reaches only the operator, which then stops everything in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(folder: &std::path::Path, script: &str) -> Spec {
        Spec {
            name: "test".to_owned(),
            command: ["sh", "-c", script].iter().map(OsString::from).collect(),
            folder: folder.to_owned(),
            grace: Duration::from_secs(5),
        }
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..200 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{what}");
    }

    #[tokio::test]
    async fn a_process_that_dies_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let supervised = Supervised::start(spec(folder.path(), "echo begun; exec sleep 60"));
        until("it starts", || Identity::read(&pid_file).is_some()).await;
        let first = Identity::read(&pid_file).unwrap();
        first.signal(rustix::process::Signal::KILL);
        until("it starts again", || Identity::read(&pid_file).is_some_and(|next| next != first)).await;
        let second = Identity::read(&pid_file).unwrap();
        assert!(second.runs() && !first.runs());
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        until("the log is appended to", || log() == "begun\nbegun\n").await;
        supervised.stop().await;
        assert!(!second.runs() && !pid_file.exists());
    }

    #[tokio::test]
    async fn a_process_that_keeps_dying_is_started_ever_more_slowly() {
        let folder = tempfile::tempdir().unwrap();
        let supervised = Supervised::start(spec(folder.path(), "echo begun; exit 3"));
        tokio::time::sleep(Duration::from_millis(1700)).await;
        supervised.stop().await;
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        // At 0, 0.5 and 1.5 s; the next would be at 3.5 s.
        assert!((2..=3).contains(&log.lines().count()), "{log}");
    }

    #[tokio::test]
    async fn stopping_lets_it_finish_what_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'sleep 0.3; echo flushed; exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let supervised = Supervised::start(spec(folder.path(), script));
        let log = folder.path().join("log");
        until("it is up", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("up"))).await;
        supervised.stop().await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "up\nflushed\n");
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_can_still_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let command = vec![OsString::from("/does/not/exist")];
        let supervised = Supervised::start(Spec { command, ..spec(folder.path(), "") });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!supervised.has_stopped());
        supervised.stop().await;
    }
}
