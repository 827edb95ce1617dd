//! What a broker and its name server make of many: topics, connections, consumers that wait.

use std::path::Path;

use anyhow::{Result, ensure};

use super::scenario::Times;
use super::server::{Kind, MANY, Programs, Server};
use crate::load::{Amount, Load};
use crate::outcome::Outcome;
use crate::resting::{self, Resting};
use crate::route::{self, Topics};
use crate::send::{self, Messages};
use crate::topic;

/// Topics of the broker.
pub const TOPICS: u32 = 10_000;
/// What rests.
pub const RESTING: Resting = Resting { connections: 5_000, pulls: 2_000 };
/// Connections of the loads with many.
pub const CONNECTIONS: u32 = 1_000;
/// Requests a second of those that have a rate.
pub const RATE: u32 = 5_000;

/// What they showed in one round.
#[derive(Debug)]
pub struct Many {
    /// Process start to first acknowledged message with all the topics, ms.
    pub start_up_ms: f64,
    /// The name server's CPU, µs for a route.
    pub route_us: f64,
    /// CPU of a message over all topics by that over one.
    pub topics_growth: f64,
    /// CPU of a message over many connections by that over one, each with one at a time and as fast as it goes.
    pub connections_growth: f64,
    /// The same where as many come in a second, in a burst over one connection and one by one over many.
    pub scattered_growth: f64,
    /// CPU with connections and pulls that rest, ms per second.
    pub resting_cpu_ms: f64,
}

/// Starts a broker with many topics in an empty directory, measures, and ends it.
///
/// # Errors
/// It does not serve, or refused a request.
pub fn visit(kind: Kind, programs: &Programs, home: &Path, times: Times) -> Result<Many> {
    let server = Server::start(kind, programs, home, TOPICS)?;
    // First, while nothing that was written waits for the disk.
    topic::create(&server.address, "bench-resting", 1)?;
    let resting_cpu_ms =
        resting::run(&server.address, server.pid(), "bench-resting", RESTING, times.settle, times.idle)?;
    let load = |connections: u32, in_flight: u32, rate: Option<f64>| Load {
        broker: server.address.clone(),
        connections,
        in_flight,
        amount: Amount::Time(times.load),
        warm_up: times.warm_up / 2,
        rate,
        pid: Some(server.pid()),
    };
    let look_up = Load { broker: server.routes_address.clone(), pid: Some(server.routes_pid()), ..load(4, 16, None) };
    let routes = cpu(kind, "routes", &route::run(&look_up, &Topics { prefix: MANY.to_owned(), count: TOPICS })?)?;
    let messages = |topics: u32| Messages {
        topic: if topics == 1 { topic::numbered(MANY, 0) } else { MANY.to_owned() },
        topics,
        queues: 1,
        size: 128,
        batch: 1,
    };
    let send = |title: &str, load: &Load, topics: u32| cpu(kind, title, &send::run(load, &messages(topics))?);
    // The first pass over all topics makes their queues' files.
    send("a first pass over many topics", &load(4, 16, None), TOPICS)?;
    let topics = send("many topics", &load(4, 16, None), TOPICS)?;
    let one_topic = send("one topic", &load(4, 16, None), 1)?;
    let rate = Some(f64::from(RATE));
    let one_connection = send("one connection", &load(1, 64, rate), 1)?;
    let scattered = send("many connections", &load(CONNECTIONS, 1, rate), 1)?;
    let one_sender = send("one at a time, one connection", &load(1, 1, None), 1)?;
    let senders = send("one at a time, many connections", &load(CONNECTIONS, 1, None), 1)?;
    Ok(Many {
        start_up_ms: server.start_up.as_secs_f64() * 1e3,
        route_us: routes,
        topics_growth: topics / one_topic,
        connections_growth: senders / one_sender,
        scattered_growth: scattered / one_connection,
        resting_cpu_ms,
    })
}

/// CPU of the server, µs per message or route; a refused request is an error.
fn cpu(kind: Kind, title: &str, outcome: &Outcome) -> Result<f64> {
    eprint!("-- {kind}: {title}\n{outcome}");
    println!("{}", outcome.json(&format!("{kind}: {title}")));
    ensure!(outcome.errors.is_empty(), "{kind}: {title}: refused by code: {:?}", outcome.errors);
    Ok(outcome.cost.broker_cpu_us_per_message.unwrap_or(f64::NAN))
}
