//! Connections that do nothing but stay, some of them with a pull that the broker holds.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process_cost;
use crate::pull::{self, Queues};

/// How long a broker is asked to hold a pull: longer than anybody measures.
const HOLD: Duration = Duration::from_mins(1);

/// What rests.
#[derive(Clone, Copy, Debug)]
pub struct Resting {
    /// Connections.
    pub connections: u32,
    /// So many of them wait for a message.
    pub pulls: u32,
}

/// Opens the connections, lets the broker come to rest, and measures what it costs to keep them: ms of CPU a second.
///
/// # Errors
/// The broker closes a connection or answers a pull, or this process may not open so many files.
pub fn run(broker: &str, pid: u32, topic: &str, resting: Resting, settle: Duration, span: Duration) -> Result<f64> {
    ensure!(settle + span < HOLD, "a pull is held for {HOLD:?}");
    let queues = Queues { topic: topic.to_owned(), count: 1, from: 0, batch: 32, groups: 1, hold: Some(HOLD) };
    let mut frame = pull::encode(&queues)?;
    pull::aim(&queues, &mut frame)?;
    let mut streams = Vec::new();
    for number in 0..resting.connections {
        let mut stream = TcpStream::connect(broker).with_context(|| format!("connection {number} to {broker}"))?;
        if number < resting.pulls {
            stream.write_all(&frame)?;
        }
        stream.set_nonblocking(true)?;
        streams.push(stream);
    }
    std::thread::sleep(settle);
    let ticks = process_cost::cpu_ticks(pid)?;
    std::thread::sleep(span);
    let ticks = process_cost::cpu_ticks(pid)? - ticks;
    for stream in &mut streams {
        match stream.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) => bail!("the broker closed a connection that rests"),
            Ok(_) => bail!("the broker answered a pull that it was to hold"),
            Err(error) => return Err(error).context("a connection that rests"),
        }
    }
    Ok(process_cost::micros(ticks) / 1e3 / span.as_secs_f64())
}
