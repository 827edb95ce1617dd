//! Timer messages of 5.x (RIP-43): delivered at any time that the sender asks for.
//!
//! They wait in the topic `rmq_sys_wheel_timer`, queue 0, as in Java, so a Java broker can take the
//! log over. Java's `timerwheel` and `timerlog` are not kept; instead everything follows from the
//! queue and three marks in `config/timerProgress.json` (`progress`): up to where messages were
//! looked at, up to which time they were delivered, and before which offset all are done with. The
//! slots (`slots`) are a by-product that saves reading the queue again: memory for the near messages,
//! append-only files under `timerslots/` for the rest. Whenever they are not what the progress file
//! says, they are thrown away and built anew from the queue. One pass of the `engine` does everything.
//!
//! What is promised:
//! * A message is delivered at the first whole `timerPrecisionMs` at or after its time by the wall
//!   clock, in order of these steps and within one in order of sending.
//! * Nothing pending is lost by a kill or a power cut: the progress is written when the log is on disk
//!   as far as it was then. What was delivered or rolled since, up to `timerFlushIntervalMs` and the
//!   log's own flush interval ago, is recognised by the message index and not done again; without the
//!   index or a unique key it is.
//! * A message that waits longer than `timerRollWindowSlot` steps, or half of `fileReservedTime`, is
//!   stored again before the log forgets it, with `TIMER_ROLL_TIMES`.
//! * A clock that was set back delays what waits. What is delivered until it catches up may be
//!   repeated after a crash in that time.
//!
//! A slave delivers nothing and keeps its master's progress, for the day it is made a master.

mod engine;
mod message;
mod progress;
mod slots;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use rocketmq_store::ConfigFile;
use tokio_util::sync::CancellationToken;

pub(crate) use self::engine::Standing;
use self::engine::{Engine, Settings};
pub(crate) use self::message::{
    ADDED_PROPERTIES_MAX, DEL_UNIQKEY, DELIVER_MS, OUT_MS, TIMER_TOPIC, append_waiting, asks_for_time, is_wish, out_ms,
    precision_ms, wanted,
};
use self::progress::Progress;
use crate::broker::Broker;
use crate::clock;
use crate::config::BrokerConfig;

/// Passes in one step of precision, as in Java: a message is late by a tenth of it on average.
const PASSES_PER_STEP: u64 = 10;
/// Time over which messages a second are counted.
const METER_WINDOW: Duration = Duration::from_secs(10);
/// After a pass that failed as a whole.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The longest roll window, in steps: Java's wheel has seven days of seconds, less a minute.
const ROLL_WINDOW_MAX: i64 = 7 * 86_400 - 60;

/// The timer of this broker, master or slave.
pub(crate) struct Timer {
    root: PathBuf,
    /// A master's, from its first pass on.
    engine: Mutex<Option<Engine>>,
    standing: Mutex<Standing>,
    check_point: Mutex<Option<Vec<u8>>>,
    meter: Mutex<Meter>,
    /// The progress that this slave took over last.
    known: Mutex<Option<Progress>>,
    taken: AtomicU64,
    delivered: AtomicU64,
    rolled: AtomicU64,
}

/// Messages since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    /// Taken in.
    pub(crate) taken: u64,
    /// Delivered.
    pub(crate) delivered: u64,
    /// Stored again because they wait long.
    pub(crate) rolled: u64,
}

/// Messages a second, over the last ten seconds that are over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// Taken in.
    pub(crate) taken: f64,
    /// Delivered.
    pub(crate) delivered: f64,
}

#[derive(Debug, Default)]
struct Meter {
    /// When the window began, by the running clock.
    since: Option<(Instant, Totals)>,
    rates: Rates,
}

impl Meter {
    fn sample(&mut self, totals: Totals) {
        let (since, before) = *self.since.get_or_insert_with(|| (Instant::now(), totals));
        let elapsed = since.elapsed();
        if elapsed >= METER_WINDOW {
            let rate = |now: u64, before: u64| (now - before) as f64 / elapsed.as_secs_f64();
            let (taken, delivered) = (rate(totals.taken, before.taken), rate(totals.delivered, before.delivered));
            self.rates = Rates { taken, delivered };
            self.since = Some((Instant::now(), totals));
        }
    }
}

impl Timer {
    /// A timer whose files lie in the store's directory; none is touched yet.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            engine: Mutex::new(None),
            standing: Mutex::default(),
            check_point: Mutex::default(),
            meter: Mutex::default(),
            known: Mutex::default(),
            taken: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            rolled: AtomicU64::new(0),
        }
    }

    /// How things stood after the last pass.
    pub(crate) fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    /// Messages a second.
    pub(crate) fn rates(&self) -> Rates {
        self.meter.lock().rates
    }

    /// Messages since the start.
    pub(crate) fn totals(&self) -> Totals {
        let [taken, delivered, rolled] =
            [&self.taken, &self.delivered, &self.rolled].map(|count| count.load(Ordering::Relaxed));
        Totals { taken, delivered, rolled }
    }

    /// The body of `GET_TIMER_CHECK_POINT`, as of the last pass; `None` where nothing runs.
    pub(crate) fn check_point(&self) -> Option<Vec<u8>> {
        self.check_point.lock().clone()
    }

    /// Takes over the progress of this slave's master, from the answer to `GET_TIMER_CHECK_POINT`. The
    /// log here must hold all that the master had delivered by then. The slots are made anew from the
    /// queue when this broker becomes a master.
    pub(crate) fn take_over(&self, body: &[u8]) -> anyhow::Result<()> {
        let progress = Progress::from_wire(body).context("the master's timer check point is no such thing")?;
        let mut known = self.known.lock();
        // A master that has seen no timer message teaches nothing.
        if progress.read_offset == 0 || known.as_ref() == Some(&progress) {
            return Ok(());
        }
        ConfigFile::new(self.root.join("config").join("timerProgress.json")).persist(&progress.text())?;
        *known = Some(progress);
        Ok(())
    }

    /// One pass over a master's messages; true when there is more to do at once.
    fn tick(&self, broker: &Broker, now: i64) -> anyhow::Result<bool> {
        let config = broker.config();
        let mut engine = self.engine.lock();
        let engine = match &mut *engine {
            Some(engine) => engine,
            empty => empty.insert(Engine::open(&broker.store, &self.root, settings(&config, broker), now)?),
        };
        let pass = engine.tick(&broker.store, now, config.reserved_time());
        for (topic, queue_id, bytes) in &pass.delivered {
            broker.stats.put(topic, *queue_id, 1, *bytes as u64);
        }
        self.taken.fetch_add(pass.taken, Ordering::Relaxed);
        self.delivered.fetch_add(pass.delivered.len() as u64, Ordering::Relaxed);
        self.rolled.fetch_add(pass.rolled, Ordering::Relaxed);
        *self.check_point.lock() = Some(engine.check_point());
        self.meter.lock().sample(self.totals());
        *self.standing.lock() = engine.standing(&broker.store, now);
        Ok(pass.is_busy)
    }

    /// Writes a master's progress at the end; the log must be on disk.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.engine.lock().as_mut().map_or(Ok(()), Engine::stop)
    }
}

fn settings(config: &BrokerConfig, broker: &Broker) -> Settings {
    let precision_ms = precision_ms(config.timer_precision_ms);
    let window = config.timer_roll_window_slot;
    let window = if (2..=ROLL_WINDOW_MAX).contains(&window) { window } else { ROLL_WINDOW_MAX };
    Settings {
        precision_ms,
        flush_interval_ms: config.timer_flush_interval.as_millis() as i64,
        roll_window_ms: window * precision_ms,
        store_host: broker.store_host,
    }
}

/// Delivers until `shutdown`; for masters only.
pub(crate) async fn deliver(broker: Arc<Broker>, shutdown: CancellationToken) {
    let step = precision_ms(broker.config().timer_precision_ms) as u64;
    let between = Duration::from_millis(step / PASSES_PER_STEP);
    let (mut is_busy, mut pause) = (false, between);
    loop {
        if shutdown.is_cancelled() {
            return;
        }
        if !is_busy {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
        // A pass reads and writes files.
        let ticking = Arc::clone(&broker);
        let pass = tokio::task::spawn_blocking(move || ticking.timer.tick(&ticking, clock::now_millis())).await;
        (is_busy, pause) = match pass {
            Ok(Ok(is_busy)) => (is_busy, between),
            Ok(Err(error)) => {
                tracing::error!("the timer does not run: {error:#}");
                (false, AFTER_FAILURE)
            }
            Err(panic) => {
                tracing::error!("a pass of the timer failed: {panic}");
                (false, AFTER_FAILURE)
            }
        };
    }
}
