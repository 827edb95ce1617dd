//! A test client as a typed thing: what to run, and what it printed. The programs themselves are `tests/java/client/TestClient.java`
//! and `tests/go/client`, which take the same options and print the same lines.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    go,
    java::{self, Version},
    process::{Process, scratch_dir},
};

/// Whose client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    Java(Version),
    Go,
}

impl From<Version> for Library {
    fn from(version: Version) -> Self {
        Self::Java(version)
    }
}

impl std::fmt::Display for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Java(version) => version.fmt(f),
            Self::Go => write!(f, "go-{}", go::VERSION),
        }
    }
}

/// One message as its producer saw it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    pub seq: u64,
    pub key: String,
    /// `SEND_OK` and the other values of `SendStatus`, `ONEWAY`, or `EXCEPTION`.
    pub status: String,
    pub msg_id: Option<String>,
    pub offset_msg_id: Option<String>,
    pub broker: Option<String>,
    pub queue_id: Option<i32>,
    pub queue_offset: Option<i64>,
    pub error: Option<String>,
}

impl Sent {
    /// True when the broker acknowledged the message without any reservation.
    pub fn is_ok(&self) -> bool {
        self.status == "SEND_OK"
    }
}

/// One delivery of a message as its consumer saw it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// None for a message that the test client did not send.
    pub seq: Option<u64>,
    pub key: String,
    pub msg_id: String,
    pub broker: String,
    pub topic: String,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub commit_log_offset: i64,
    pub reconsume_times: i32,
    pub tags: Option<String>,
    pub store_host: String,
    /// The body is exactly what the producer made of the key.
    pub whole: bool,
    /// When the producer made it, when the broker stored it, when it was here; milliseconds since 1970.
    pub born: i64,
    pub stored: i64,
    pub at: i64,
    /// The topic that it was consumed of at first, where it comes from a retry topic. `reconsume_times` may be 0 even so: a client
    /// that cannot send a message back sends it anew, and loses the number where that takes more than one try.
    pub retry_topic: Option<String>,
    /// `TIMER_OUT_MS`, which a timer message of 5.x keeps.
    pub out_ms: Option<String>,
}

/// Everything a finished command printed.
#[derive(Debug, Default)]
pub struct Output {
    pub sent: Vec<Sent>,
    pub received: Vec<Received>,
    /// Lines that are neither: `started`, `assigned`, `check`, `pulled`, `summary`, and the answers about offsets.
    pub events: Vec<Value>,
}

impl Output {
    fn parse(lines: &[String]) -> Result<Self> {
        let mut output = Self::default();
        for line in lines {
            output.add(serde_json::from_str(line).with_context(|| format!("the test client printed {line:?}"))?)?;
        }
        Ok(output)
    }

    /// Adds one line.
    pub(crate) fn add(&mut self, line: Value) -> Result<()> {
        if line.get("status").is_some() && line.get("seq").is_some() {
            self.sent.push(serde_json::from_value(line)?);
        } else if line.get("msgId").is_some() {
            self.received.push(serde_json::from_value(line)?);
        } else {
            self.events.push(line);
        }
        Ok(())
    }

    /// The events of that name.
    pub fn events_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["event"] == name)
    }
}

/// A client of one library at one name server, from which commands are started.
#[derive(Debug, Clone)]
pub struct Client {
    pub library: Library,
    pub namesrv: String,
}

impl Client {
    /// A client of `library` that knows the name servers `namesrv` (`host:port;host:port`).
    pub fn new(library: impl Into<Library>, namesrv: &str) -> Self {
        Self { library: library.into(), namesrv: namesrv.to_owned() }
    }

    /// `produce` to `topic`.
    pub fn produce(&self, topic: &str) -> Invocation {
        self.command("produce", topic)
    }

    /// `consume` of `topic` by `group`.
    pub fn consume(&self, topic: &str, group: &str) -> Invocation {
        self.command("consume", topic).arg("group", group)
    }

    /// Any command of the test client.
    pub fn command(&self, command: &str, topic: &str) -> Invocation {
        Invocation {
            library: self.library,
            args: vec![
                command.to_owned(),
                "--namesrv".to_owned(),
                self.namesrv.clone(),
                "--topic".to_owned(),
                topic.to_owned(),
            ],
            properties: Vec::new(),
        }
    }
}

/// A command of the test client that is not started yet.
#[derive(Debug, Clone)]
pub struct Invocation {
    library: Library,
    args: Vec<String>,
    properties: Vec<(String, String)>,
}

impl Invocation {
    /// Adds `--name value`.
    #[must_use]
    pub fn arg(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.args.extend([format!("--{name}"), value.to_string()]);
        self
    }

    /// Adds `--name`.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.args.push(format!("--{name}"));
        self
    }

    /// Adds `-Dname=value`, of Java's client.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds all of these as `-Dname=value`.
    #[must_use]
    pub fn properties(mut self, properties: &[(String, String)]) -> Self {
        self.properties.extend_from_slice(properties);
        self
    }

    /// The command and its options, as words.
    pub(crate) fn words(&self) -> &[String] {
        &self.args
    }

    /// Starts it, and waits until its RocketMQ client has started.
    pub fn start(&self) -> Result<Running> {
        let home = scratch_dir()?;
        let mut command = match self.library {
            Library::Java(version) => java::client_command(version, home.path())?,
            Library::Go => go::client_command(home.path())?,
        };
        java::set_properties(&mut command, &self.properties);
        command.args(&self.args);
        let name = format!("client {}: {}", self.library, self.args.join(" "));
        let process = Process::spawn(&name, command, &home.path().join("log"))?;
        Ok(Running { process, _home: home })
    }

    /// Starts it and waits for its end.
    pub fn run(&self, timeout: Duration) -> Result<Output> {
        self.start()?.finish(timeout)
    }
}

/// A command of the test client that runs.
#[derive(Debug)]
pub struct Running {
    process: Process,
    _home: tempfile::TempDir,
}

impl Running {
    /// Waits until the RocketMQ client inside has started.
    pub fn wait_started(&self) -> Result<()> {
        self.wait_for_event("started", Duration::from_mins(1), |_| true).map(drop)
    }

    /// Waits for an event of that name which `wanted` accepts.
    pub fn wait_for_event(&self, name: &str, timeout: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let line = self.process.wait_for_line(timeout, |line| {
            line.contains("\"event\"")
                && serde_json::from_str::<Value>(line).is_ok_and(|event| event["event"] == name && wanted(&event))
        })?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until it has printed at least `count` lines.
    pub fn wait_for_lines(&self, count: usize, timeout: Duration) -> Result<()> {
        crate::process::wait_until(timeout, || Ok(self.process.line_count() >= count))
            .with_context(|| format!("{}: {} of {count} lines", self.process.name(), self.process.line_count()))
    }

    /// What it has printed so far.
    pub fn so_far(&self) -> Result<Output> {
        Output::parse(&self.process.lines())
    }

    /// SIGKILL: no unregistering, no last commit of offsets.
    pub fn kill(mut self) -> Result<Output> {
        self.process.kill()?;
        let mut lines = self.process.lines();
        // The last line may be half written.
        if lines.last().is_some_and(|line| serde_json::from_str::<Value>(line).is_err()) {
            lines.pop();
        }
        Output::parse(&lines)
    }

    /// Closes its input, which ends `--until-stdin-closes`, and waits for its end.
    pub fn stop(mut self, timeout: Duration) -> Result<Output> {
        self.process.close_stdin();
        self.finish(timeout)
    }

    /// Waits for its end.
    pub fn finish(mut self, timeout: Duration) -> Result<Output> {
        let status = self.process.wait(timeout)?;
        ensure!(status.success(), "{} ended with {status}\n{}", self.process.name(), self.process.log());
        Output::parse(&self.process.lines())
    }
}
