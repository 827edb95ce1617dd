//! The consumers of one version: a member of each group, in one process, some of which come and go.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::{Client, Received},
    java::Version,
    session::Session,
};
use rustix::process::Signal;

use crate::roles::GROUPS;

const START: Duration = Duration::from_mins(1);

/// A running process of consumers, and what those before it saw.
pub(crate) struct Crew {
    version: Version,
    client: Client,
    /// The last one runs.
    sessions: Vec<Session>,
    /// By group: which member it is that runs now.
    lives: [u32; GROUPS.len()],
}

impl Crew {
    pub(crate) fn start(version: Version, namesrv: &str) -> Result<Self> {
        let sessions = vec![Session::start(version)?];
        let client = Client::new(version, namesrv);
        let mut crew = Self { version, client, sessions, lives: [0; GROUPS.len()] };
        for member in 0..GROUPS.len() {
            crew.join(member)?;
        }
        Ok(crew)
    }

    fn name(&self, member: usize) -> String {
        format!("{}.{}", GROUPS[member].name, self.lives[member])
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.sessions.last_mut().context("a crew without a session")
    }

    fn join(&mut self, member: usize) -> Result<()> {
        self.lives[member] += 1;
        let (name, invocation) = (self.name(member), GROUPS[member].member(&self.client));
        let session = self.session()?;
        session.run(&name, &invocation)?;
        session.wait_for_event(&name, "started", START).map(drop)
    }

    /// One member leaves its group and comes back after `down`.
    pub(crate) fn restart_member(&mut self, member: usize, down: Duration) -> Result<()> {
        let name = self.name(member);
        self.session()?.stop(&name)?;
        std::thread::sleep(down);
        self.join(member)
    }

    /// SIGKILL for all members at once, which come back.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.session()?.kill()?;
        self.sessions.push(Session::start(self.version)?);
        (0..GROUPS.len()).try_for_each(|member| self.join(member))
    }

    /// SIGSTOP, and SIGCONT after `pause`.
    pub(crate) fn pause(&mut self, pause: Duration) -> Result<()> {
        let session = self.session()?;
        session.signal(Signal::STOP)?;
        std::thread::sleep(pause);
        session.signal(Signal::CONT)
    }

    /// Takes in what was printed since the last time; no member may have ended by a fault.
    pub(crate) fn read(&mut self) -> Result<()> {
        self.session()?.read()?;
        for (name, output) in self.sessions.iter().flat_map(Session::outputs) {
            for ended in output.events_named("ended") {
                ensure!(ended["error"].is_null(), "{name} of {} failed: {}", self.version, ended["error"]);
            }
        }
        Ok(())
    }

    /// What all members of a group saw.
    pub(crate) fn received(&self, member: usize) -> impl Iterator<Item = &Received> {
        let prefix = format!("{}.", GROUPS[member].name);
        let outputs = self.sessions.iter().flat_map(Session::outputs);
        outputs.filter(move |(name, _)| name.starts_with(&prefix)).flat_map(|(_, output)| &output.received)
    }

    /// What the member that runs now saw.
    pub(crate) fn received_in_this_life(&self, member: usize) -> impl Iterator<Item = &Received> {
        let name = self.name(member);
        let outputs = self.sessions.iter().flat_map(Session::outputs);
        outputs.filter(move |(of, _)| **of == name).flat_map(|(_, output)| &output.received)
    }
}
