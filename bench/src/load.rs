//! The loop that drives a broker: one thread, one epoll, every connection's slots.
//!
//! Owns time: when a request is due, which answers fall into the measured span, when it is over.
//! What is asked, and whether an answer is right, is the business of the [`Work`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

use crate::answer::{Answer, Reader};
use crate::connection::Connection;
use crate::outcome::{Outcome, Percentiles};
use crate::patch::{OPAQUE_BASE, Place};
use crate::process_cost::Meter;

/// How long the broker may be silent while it owes answers.
const PATIENCE: Duration = Duration::from_secs(15);
/// Latencies above this count as this.
const LONGEST: Duration = Duration::from_mins(1);

/// When a load is over.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// After that many messages.
    Messages(u64),
    /// After that time.
    Time(Duration),
}

/// How a broker is driven.
#[derive(Clone, Debug)]
pub struct Load {
    /// `host:port` of the broker.
    pub broker: String,
    /// How many connections.
    pub connections: u32,
    /// Requests that are on their way at once, per connection.
    pub in_flight: u32,
    /// When it is over; the warm-up does not count.
    pub amount: Amount,
    /// Runs ahead of the measured span.
    pub warm_up: Duration,
    /// Requests per second over all connections. Latency then counts from when a request was due,
    /// whether or not it could be sent (no coordinated omission). `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// The broker's process, for its cost.
    pub pid: Option<u32>,
}

/// What the requests of a load are.
pub trait Work {
    /// Changes a slot's frame into its next request; `false` when the slot has nothing more to do.
    ///
    /// Slots are numbered over all connections: slot `s` of connection `c` is `s × connections + c`.
    fn prepare(&mut self, slot: u32, frame: &mut [u8]) -> bool;

    /// Judges the answer to the last request of a slot.
    fn answered(&mut self, slot: u32, answer: &Answer<'_>) -> Verdict;
}

/// What an answer was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// That many messages with that many bytes of their own.
    Done {
        /// Messages sent or received.
        messages: u64,
        /// Bytes of their bodies.
        bytes: u64,
    },
    /// An error by its response code, or -1 where the content is wrong.
    Failed(i32),
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// `None` while the slot is free.
    since: Option<Instant>,
    opaque: i32,
}

/// What has been counted in the current span.
#[derive(Debug)]
struct Tally {
    began: Instant,
    messages: u64,
    bytes: u64,
    latency: Histogram<u64>,
    errors: BTreeMap<i32, u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let latency = Histogram::new_with_bounds(100, LONGEST.as_nanos() as u64, 3)?;
        Ok(Self { began: Instant::now(), messages: 0, bytes: 0, latency, errors: BTreeMap::new() })
    }
}

/// Runs a load with one encoded request as the pattern of all of them.
///
/// # Errors
/// The broker cannot be reached, closes a connection, answers what no broker answers, or owes
/// answers for too long. Refusals by response code are not errors here: they are counted.
pub fn run(load: &Load, frame: &[u8], work: &mut impl Work) -> Result<Outcome> {
    let mut driver = Driver::open(load, frame, work)?;
    driver.begin()?;
    if !load.warm_up.is_zero() {
        driver.drive(Some(driver.tally.began + load.warm_up), None)?;
        // What fails before the measured span fails the run all the same.
        driver.tally = Tally { errors: std::mem::take(&mut driver.tally.errors), ..Tally::new()? };
    }
    let meter = Meter::start(load.pid)?;
    let began = driver.tally.began;
    match load.amount {
        Amount::Time(time) => driver.drive(Some(began + time), None)?,
        Amount::Messages(messages) => driver.drive(None, Some(messages))?,
    }
    let seconds = began.elapsed().as_secs_f64();
    let cost = meter.stop(driver.tally.messages)?;
    let latency = Percentiles::of(&driver.tally.latency);
    let (messages, bytes) = (driver.tally.messages, driver.tally.bytes);
    driver.drain()?;
    let errors = driver.tally.errors;
    Ok(Outcome { seconds, messages, bytes, latency, cost, errors })
}

struct Driver<'a, W> {
    load: &'a Load,
    work: &'a mut W,
    reader: Reader,
    opaque: Place,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// By number over all connections.
    flights: Vec<Flight>,
    /// Slots that wait until a request is due; unused where there is no rate.
    free: VecDeque<u32>,
    outstanding: usize,
    requests: u64,
    /// When the first request of a rate was due.
    first_due: Instant,
    tally: Tally,
}

impl<'a, W: Work> Driver<'a, W> {
    fn open(load: &'a Load, frame: &[u8], work: &'a mut W) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for number in 0..load.connections {
            let connection = Connection::open(&load.broker, frame, load.in_flight as usize)
                .with_context(|| format!("connecting to {}", load.broker))?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &connection, epoll::EventData::new_u64(number.into()), flags)?;
            connections.push(connection);
        }
        let slots = load.connections * load.in_flight;
        Ok(Self {
            load,
            work,
            reader: Reader::default(),
            opaque: Place::of_opaque(frame)?,
            epoll,
            connections,
            flights: vec![Flight { since: None, opaque: 0 }; slots as usize],
            free: VecDeque::with_capacity(slots as usize),
            outstanding: 0,
            requests: 0,
            first_due: Instant::now(),
            tally: Tally::new()?,
        })
    }

    /// Sends the first requests, or makes every slot ready for when one is due.
    fn begin(&mut self) -> Result<()> {
        let slots = self.flights.len() as u32;
        self.first_due = Instant::now();
        if self.load.rate.is_some() {
            self.free.extend(0..slots);
            return Ok(());
        }
        (0..slots).for_each(|slot| self.send(slot, self.first_due));
        self.flush()
    }

    fn send(&mut self, slot: u32, since: Instant) {
        let connection = &mut self.connections[(slot % self.load.connections) as usize];
        let local = slot / self.load.connections;
        let frame = connection.frame_mut(local);
        if !self.work.prepare(slot, frame) {
            return;
        }
        let flight = &mut self.flights[slot as usize];
        // Each slot counts its own numbers, so that a late or double answer meets no request.
        let slots = self.load.connections * self.load.in_flight;
        let round = (self.requests % 400) as u32;
        flight.opaque = OPAQUE_BASE + (slot + slots * round) as i32;
        flight.since = Some(since);
        self.opaque.decimal(frame, flight.opaque as u64);
        connection.queue(local);
        self.outstanding += 1;
        self.requests += 1;
    }

    fn flush(&mut self) -> Result<()> {
        self.connections.iter_mut().try_for_each(Connection::flush).context("the broker closed a connection")
    }

    /// Sends and counts until the time or the number of messages is reached.
    fn drive(&mut self, until: Option<Instant>, messages: Option<u64>) -> Result<()> {
        let mut heard = Instant::now();
        loop {
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) || messages.is_some_and(|wanted| self.tally.messages >= wanted) {
                return Ok(());
            }
            let due = self.send_due(now)?;
            if self.outstanding == 0 && self.load.rate.is_none() {
                bail!("there is nothing left to ask for");
            }
            let wait =
                [until, due].into_iter().flatten().min().map_or(PATIENCE, |at| at.saturating_duration_since(now));
            if self.poll(wait.min(PATIENCE), true)? {
                heard = Instant::now();
            } else if self.outstanding > 0 && heard.elapsed() > PATIENCE {
                bail!("no answer to {} requests for {PATIENCE:?}", self.outstanding);
            }
        }
    }

    /// Sends what a rate has made due; says when the next request will be.
    fn send_due(&mut self, now: Instant) -> Result<Option<Instant>> {
        let Some(rate) = self.load.rate else {
            return Ok(None);
        };
        loop {
            let due = self.first_due + Duration::from_secs_f64(self.requests as f64 / rate);
            if due > now {
                self.flush()?;
                return Ok(Some(due));
            }
            let Some(slot) = self.free.pop_front() else {
                self.flush()?;
                return Ok(None);
            };
            self.send(slot, due);
        }
    }

    /// Waits for the answers that are still owed; they count no more, unless they are errors.
    fn drain(&mut self) -> Result<()> {
        let mut heard = Instant::now();
        while self.outstanding > 0 {
            if self.poll(PATIENCE, false)? {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                bail!("no answer to {} requests for {PATIENCE:?}", self.outstanding);
            }
        }
        Ok(())
    }

    /// Waits for the sockets and handles what they bring; whether anything came.
    fn poll(&mut self, wait: Duration, go_on: bool) -> Result<bool> {
        let mut events =
            [const { epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) } }; 64];
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let count = match epoll::wait(&self.epoll, &mut events, Some(&wait)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut came = false;
        for event in &events[..count] {
            let number = event.data.u64() as usize;
            let flags = event.flags;
            if flags.contains(epoll::EventFlags::OUT) {
                self.connections[number].unblock();
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                came |= self.receive(number, go_on)?;
            }
            self.connections[number].flush().context("the broker closed a connection")?;
        }
        Ok(came)
    }

    fn receive(&mut self, number: usize, go_on: bool) -> Result<bool> {
        let mut came = false;
        loop {
            let more = match self.connections[number].receive() {
                Ok(more) => more,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bail!("the broker closed a connection"),
                Err(error) => return Err(error).context("the broker closed a connection"),
            };
            let now = Instant::now();
            while let Some(slot) = self.take_answer(number, now)? {
                came = true;
                if go_on && self.load.rate.is_none() {
                    self.send(slot, now);
                } else {
                    self.free.push_back(slot);
                }
            }
            if !more {
                return Ok(came);
            }
        }
    }

    /// Counts the next answer of a connection; the slot that it frees.
    fn take_answer(&mut self, number: usize, now: Instant) -> Result<Option<u32>> {
        while let Some(answer) = self.connections[number].next_answer(&self.reader) {
            let answer = answer?;
            if !answer.is_response {
                continue;
            }
            let slots = self.flights.len() as u32;
            let slot = answer.opaque.wrapping_sub(OPAQUE_BASE) as u32 % slots;
            let flight = &mut self.flights[slot as usize];
            let Some(since) = flight.since.take().filter(|_| flight.opaque == answer.opaque) else {
                bail!("an answer to no request: opaque {}, code {}", answer.opaque, answer.code);
            };
            self.outstanding -= 1;
            match self.work.answered(slot, &answer) {
                Verdict::Done { messages, bytes } => {
                    self.tally.messages += messages;
                    self.tally.bytes += bytes;
                    self.tally.latency.saturating_record(now.saturating_duration_since(since).as_nanos() as u64);
                }
                Verdict::Failed(code) => *self.tally.errors.entry(code).or_default() += 1,
            }
            return Ok(Some(slot));
        }
        Ok(None)
    }
}
