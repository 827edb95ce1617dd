//! Sending under load, with a record of each attempt: several connections, each with several sends in flight, every sort of
//! message. A connection sends a message once and never again, so what is stored twice was stored twice by the broker.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::wire::{Response, Wire};

const SEND_MESSAGE_V2: i32 = 310;
const SEND_BATCH_MESSAGE: i32 = 320;

/// Where delayed messages of the first level are stored until their time has come.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

/// The property that names a message: every one has it, also one without body or keys.
pub const ID: &str = "ID";

/// The longest body that is sent.
pub const BODY_MAX: usize = 100 << 10;

/// What is sent, and how fast.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Topics with their number of queues.
    pub topics: Vec<(String, i32)>,
    pub connections: usize,
    /// Sends in flight on each connection.
    pub window: usize,
    /// Requests a second on each connection, at most.
    pub rate: u32,
    /// The lengths of bodies, up to [`BODY_MAX`].
    pub body: std::ops::RangeInclusive<usize>,
    /// Whether some messages are delayed by the first level.
    pub delayed: bool,
    /// Whether some messages say `WAIT=false`: acknowledged before they are flushed, even with `SYNC_FLUSH`.
    pub hasty: bool,
    pub seed: u64,
}

/// One message that was sent.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Unique, and growing on each connection.
    pub id: u64,
    /// The connection.
    pub producer: u64,
    pub topic: Arc<str>,
    pub queue: i32,
    pub size: usize,
    /// A key that only this message has.
    pub key: Option<String>,
    pub delayed: bool,
    pub outcome: Outcome,
}

/// What the broker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `SEND_OK`: where it lies in its queue and in the log.
    Stored { queue_offset: i64, log_offset: u64 },
    /// Another answer. The message may be stored all the same.
    Refused { code: i64, remark: String },
    /// No answer.
    Unknown,
}

/// Numbers for messages and connections, unique in one test.
#[derive(Debug, Default)]
pub struct Numbers {
    message: AtomicU64,
    producer: AtomicU64,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    connections: Vec<JoinHandle<Vec<Attempt>>>,
}

impl Load {
    /// Starts sending to the broker at `addr`.
    pub fn start(addr: SocketAddr, plan: &Plan, numbers: &Arc<Numbers>) -> Self {
        let (stop, stored, refused) = (Arc::default(), Arc::default(), Arc::default());
        let connections = (0..plan.connections)
            .map(|index| {
                let producer = Producer {
                    id: numbers.producer.fetch_add(1, Ordering::Relaxed),
                    numbers: Arc::clone(numbers),
                    random: SmallRng::seed_from_u64(plan.seed.wrapping_mul(31).wrapping_add(index as u64)),
                    plan: plan.clone(),
                    stop: Arc::clone(&stop),
                    stored: Arc::clone(&stored),
                    refused: Arc::clone(&refused),
                };
                std::thread::spawn(move || producer.run(addr))
            })
            .collect();
        Self { stop, stored, refused, connections }
    }

    /// Messages that were acknowledged so far.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Messages that were refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for the answers that are owed (or for the end of the connections), and gives away the record.
    pub fn finish(self) -> Result<Vec<Attempt>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for connection in self.connections {
            all.extend(connection.join().ok().context("a producer panicked")?);
        }
        Ok(all)
    }
}

/// The body of the message `id`: bytes that follow from its number.
pub fn body_of(id: u64, size: usize) -> &'static [u8] {
    static PATTERN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    const STARTS: u64 = 65_521;
    let pattern = PATTERN.get_or_init(|| {
        let mut random = SmallRng::seed_from_u64(1);
        (0..BODY_MAX + STARTS as usize).map(|_| random.random()).collect()
    });
    let from = (id.wrapping_mul(7_919) % STARTS) as usize;
    &pattern[from..from + size]
}

/// What one connection shares between its sending and its receiving thread.
#[derive(Default)]
struct InFlight {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By the request's number: the positions of its messages among the attempts.
    waiting: HashMap<i32, std::ops::Range<usize>>,
    attempts: Vec<Attempt>,
    ended: bool,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `count` requests wait for their answers; false when the connection has ended.
    fn wait_below(&self, count: usize) -> bool {
        let mut state = self.lock();
        while state.waiting.len() >= count && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.ended
    }
}

struct Producer {
    id: u64,
    numbers: Arc<Numbers>,
    random: SmallRng,
    plan: Plan,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

/// One request, before it is sent.
struct Request {
    code: i32,
    properties: String,
    body: Vec<u8>,
    messages: Vec<Attempt>,
}

impl Producer {
    fn run(mut self, addr: SocketAddr) -> Vec<Attempt> {
        // A broker that is killed before it accepts leaves nothing to record.
        let Ok(mut wire) = Wire::connect(addr, Duration::from_mins(1)) else { return Vec::new() };
        let Ok(mut answers) = wire.second_handle() else { return Vec::new() };
        let flight = InFlight::default();
        let (stored, refused) = (Arc::clone(&self.stored), Arc::clone(&self.refused));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while let Ok((opaque, response)) = answers.receive() {
                    let mut state = flight.lock();
                    if let Some(range) = state.waiting.remove(&opaque) {
                        let counter = if response.code == 0 { &stored } else { &refused };
                        counter.fetch_add(range.len() as u64, Ordering::Relaxed);
                        note(&mut state.attempts[range], &response);
                    }
                    drop(state);
                    flight.changed.notify_all();
                }
                flight.lock().ended = true;
                flight.changed.notify_all();
            });
            self.send_until_stopped(&mut wire, &flight);
            flight.wait_below(1);
            wire.close();
        });
        flight.state.into_inner().unwrap_or_else(PoisonError::into_inner).attempts
    }

    fn send_until_stopped(&mut self, wire: &mut Wire, flight: &InFlight) {
        let step = Duration::from_secs(1) / self.plan.rate.max(1);
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) && flight.wait_below(self.plan.window) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due = (due + step).max(Instant::now().checked_sub(step * 8).unwrap_or(due));
            let request = self.next_request();
            let first = &request.messages[0];
            let (queue, now) = (first.queue.to_string(), now_millis().to_string());
            let topic = Arc::clone(&first.topic);
            let batch = (request.code == SEND_BATCH_MESSAGE).to_string();
            let ext = [
                ("a", "PID_load"),
                ("b", &*topic),
                ("c", "TBW102"),
                ("d", "4"),
                ("e", queue.as_str()),
                ("f", "0"),
                ("g", now.as_str()),
                ("h", "0"),
                ("i", request.properties.as_str()),
                ("j", "0"),
                ("k", "false"),
                ("m", batch.as_str()),
            ];
            // Locked over the send, so that the answer finds its request.
            let mut state = flight.lock();
            let from = state.attempts.len();
            state.attempts.extend(request.messages);
            let range = from..state.attempts.len();
            let Ok(opaque) = wire.send(request.code, &ext, &request.body) else { return };
            state.waiting.insert(opaque, range);
        }
    }

    fn next_request(&mut self) -> Request {
        let (topic, queues) = self.plan.topics[self.random.random_range(0..self.plan.topics.len())].clone();
        let topic: Arc<str> = topic.into();
        let queue = self.random.random_range(0..queues);
        let count = if self.random.random_ratio(1, 10) { self.random.random_range(2..=16) } else { 0 };
        let delayed = count == 0 && self.plan.delayed && self.random.random_ratio(1, 30);
        let waits = !(self.plan.hasty && self.random.random_ratio(1, 5));
        let first = self.numbers.message.fetch_add(count.max(1), Ordering::Relaxed);
        let mut messages = Vec::new();
        let mut texts = Vec::new();
        for id in first..first + count.max(1) {
            let size = self.size(if count > 0 { 4 << 10 } else { BODY_MAX });
            let key = self.random.random_bool(0.5).then(|| format!("K{id}"));
            // The second word of the keys is one that many messages share.
            let keys = key.as_ref().map(|key| format!("KEYS\u{1}{key} G{}\u{2}", id % 50));
            let unique = self.random.random_ratio(4, 5).then(|| format!("UNIQ_KEY\u{1}7F000001{id:024X}\u{2}"));
            let tags = self.random.random_bool(0.5).then(|| format!("TAGS\u{1}T{}\u{2}", id % 3));
            let all = [Some(format!("{ID}\u{1}{id}\u{2}")), keys, unique, tags];
            let text: String = all.into_iter().flatten().collect();
            texts.push(text);
            let topic = Arc::clone(&topic);
            let producer = self.id;
            messages.push(Attempt { id, producer, topic, queue, size, key, delayed, outcome: Outcome::Unknown });
        }
        let wait = format!("WAIT\u{1}{waits}\u{2}");
        if count == 0 {
            let delay = if delayed { "DELAY\u{1}1\u{2}" } else { "" };
            let properties = format!("{}{wait}{delay}", texts[0]);
            let body = body_of(first, messages[0].size).to_vec();
            return Request { code: SEND_MESSAGE_V2, properties, body, messages };
        }
        let mut body = Vec::new();
        for (message, text) in messages.iter().zip(&texts) {
            let content = body_of(message.id, message.size);
            body.extend(((20 + content.len() + 2 + text.len()) as u32).to_be_bytes());
            body.extend([0; 12]); // magic, checksum and flag: the broker looks at the flag alone
            body.extend((content.len() as u32).to_be_bytes());
            body.extend(content);
            body.extend((text.len() as u16).to_be_bytes());
            body.extend(text.as_bytes());
        }
        Request { code: SEND_BATCH_MESSAGE, properties: wait, body, messages }
    }

    /// Mostly small ones, some as short as can be, a few large.
    fn size(&mut self, max: usize) -> usize {
        let (min, max) = (*self.plan.body.start(), max.min(*self.plan.body.end()));
        let up_to = match self.random.random_range(0..100) {
            0..5 => 0,
            5..70 => 1 << 10,
            70..96 => 10 << 10,
            _ => BODY_MAX,
        };
        self.random.random_range(min..=up_to.clamp(min, max))
    }
}

/// Enters an answer into the attempts that it is about.
fn note(attempts: &mut [Attempt], response: &Response) {
    let places = (response.code == 0).then(|| places(response, attempts.len())).flatten();
    for (index, attempt) in attempts.iter_mut().enumerate() {
        attempt.outcome = match &places {
            Some((offset, logs)) => Outcome::Stored { queue_offset: offset + index as i64, log_offset: logs[index] },
            None => Outcome::Refused { code: response.code, remark: format!("{:?}", response.remark) },
        };
    }
}

/// The first queue offset, and the log offset of each message; `None` unless there are `count` of these.
fn places(response: &Response, count: usize) -> Option<(i64, Vec<u64>)> {
    let first = response.ext.get("queueOffset")?.parse().ok()?;
    // Address and port in hexadecimal, then the log offset.
    let ids = response.ext.get("msgId")?.split(',');
    let logs: Option<Vec<u64>> =
        ids.map(|id| u64::from_str_radix(id.get(id.len().checked_sub(16)?..)?, 16).ok()).collect();
    logs.filter(|logs| logs.len() == count).map(|logs| (first, logs))
}

fn now_millis() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
