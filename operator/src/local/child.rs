//! Processes that end with the operator, whatever becomes of it, and the identity of processes over time.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

/// Turns this process into `command`, which the kernel kills when the one that started it dies.
///
/// Only the process itself can ask for that, between its start and the other program: hence this step in between,
/// which keeps the process id. Returns only when it failed, with the reason.
pub fn become_child(parent: u32, command: &[String]) -> anyhow::Error {
    match prepare(parent, command) {
        Ok(mut command) => {
            let program = command.get_program().to_string_lossy().into_owned();
            anyhow::Error::new(command.exec()).context(format!("cannot start {program}"))
        }
        Err(fault) => fault,
    }
}

fn prepare(parent: u32, command: &[String]) -> Result<Command> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot bind to the parent")?;
    // The parent may have died before the line above, and then nobody would ever be told.
    let actual = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if actual != Some(parent) {
        bail!("the parent {parent} is gone");
    }
    let (program, arguments) = command.split_first().ok_or_else(|| anyhow!("no program is named"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// One process, told from a later one that was given the same number by the time it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pid: u32,
    /// Clock ticks between boot and its start.
    started: u64,
}

impl Identity {
    /// Of the process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold anything; field 3 is the state, 22 the start.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// Reads what [`write`](Self::write) wrote.
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// Writes the number and the start of the process.
    pub fn write(self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, format!("{} {}\n", self.pid, self.started))
    }

    /// Whether it still runs.
    pub fn runs(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if self.runs()
            && let Some(pid) = pid
            && let Err(fault) = kill_process(pid, signal)
        {
            tracing::debug!(self.pid, "cannot be signalled: {fault}");
        }
    }

    /// Asks it to end, and kills it if it has not after `grace`.
    pub async fn end(self, grace: Duration) {
        self.signal(Signal::TERM);
        let deadline = tokio::time::Instant::now() + grace;
        while self.runs() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_that_of_one_process_only() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.runs());
        assert!(!Identity { started: me.started + 1, ..me }.runs());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        me.write(&path).unwrap();
        assert_eq!(Identity::read(&path), Some(me));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(Identity::read(&path), None);
    }

    #[tokio::test]
    async fn what_does_not_end_is_killed() {
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id().unwrap()).unwrap();
        let mut line = [0; 3];
        let mut output = child.stdout.take().unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut output, &mut line).await.unwrap();
        identity.end(Duration::from_millis(200)).await;
        let status = child.wait().await.unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert!(!identity.runs());
    }

    #[test]
    fn a_child_whose_parent_is_gone_does_not_begin() {
        let fault = prepare(u32::MAX, &["true".to_owned()]).unwrap_err();
        assert!(fault.to_string().contains("is gone"), "{fault}");
    }
}
