//! Many commands of the Java test client in one process, started and stopped one by one: a JVM for each would be most of the load.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    client::{Invocation, Output},
    java::{self, Version},
    process::{Process, scratch_dir, wait_until},
};

const START: Duration = Duration::from_mins(1);

/// A running session.
#[derive(Debug)]
pub struct Session {
    process: Process,
    /// By command: what it has printed so far.
    output: BTreeMap<String, Output>,
    read: usize,
    _home: tempfile::TempDir,
}

impl Session {
    /// Starts a session of a Java client without commands, and waits for it.
    pub fn start(version: Version) -> Result<Self> {
        let home = scratch_dir()?;
        let mut command = java::client_command(version, home.path())?;
        command.args(["session", "--topic", "none"]);
        let process = Process::spawn(&format!("java session {version}"), command, &home.path().join("log"))?;
        process.wait_for_line(START, |line| line.contains("\"started\""))?;
        Ok(Self { process, output: BTreeMap::new(), read: 1, _home: home })
    }

    /// Starts a command under a name that none has had; does not wait for it.
    pub fn run(&mut self, name: &str, command: &Invocation) -> Result<()> {
        ensure!(self.output.insert(name.to_owned(), Output::default()).is_none(), "{name} was there before");
        let words: Vec<&str> = ["start", name].into_iter().chain(command.words().iter().map(String::as_str)).collect();
        self.process.write_line(&words.join("\t"))
    }

    /// Tells a command to stop; does not wait for it.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        self.process.write_line(&format!("stop\t{name}"))
    }

    /// Waits for an event of a command.
    pub fn wait_for_event(&mut self, name: &str, event: &str, timeout: Duration) -> Result<Value> {
        wait_until(timeout, || {
            self.read()?;
            Ok(self.output[name].events_named(event).next().is_some())
        })
        .with_context(|| format!("{name} does not say {event}\n{}", self.process.log_tail()))?;
        self.output[name].events_named(event).next().cloned().context("it was there")
    }

    /// Looks at what was printed since the last time.
    pub fn read(&mut self) -> Result<()> {
        let lines = self.process.lines_after(self.read);
        self.read += lines.len();
        for (at, line) in lines.iter().enumerate() {
            let parsed: Value = match serde_json::from_str(line) {
                Ok(parsed) => parsed,
                // Half written when it was killed.
                Err(_) if at + 1 == lines.len() && !self.process.is_running() => break,
                Err(error) => return Err(error).with_context(|| format!("the session printed {line:?}")),
            };
            let name = parsed["as"].as_str().with_context(|| format!("nobody printed {line:?}"))?.to_owned();
            self.output.entry(name).or_default().add(parsed)?;
        }
        Ok(())
    }

    /// What a command had printed at the last [`read`](Self::read).
    pub fn output(&self, name: &str) -> Option<&Output> {
        self.output.get(name)
    }

    /// As [`output`](Self::output), for every command by its name.
    pub fn outputs(&self) -> impl Iterator<Item = (&String, &Output)> {
        self.output.iter()
    }

    /// Sends a signal, such as SIGSTOP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// SIGKILL: no unregistering, no last commit of offsets. What was printed can still be asked for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.read()
    }
}
