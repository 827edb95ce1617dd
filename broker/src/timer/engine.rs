//! One pass of the timer: take in, deliver, roll, write down. All of it by explicit calls with the
//! time as an argument; nothing here waits.
//!
//! May not be run by a slave: it stores messages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rocketmq_store::{ConfigFile, MessageStore, StoreError};

use super::message::{PRECISION_MAX_MS, TIMER_QUEUE, TIMER_TOPIC, Waiting};
use super::progress::{Position, Progress, SlotsManifest};
use super::slots::{Due, Pending, Slots};
use crate::delay::{behind_hole, is_hopeless};

/// Messages taken in, delivered and rolled by one pass at most, so that passes stay short.
const TAKEN_PER_PASS: usize = 65_536;
const DELIVERED_PER_PASS: usize = 4_096;
const ROLLED_PER_PASS: usize = 1_024;
/// Queue entries read at once.
const READ_AT_ONCE: usize = 1_024;
/// Rolling a message more often than this would fill the log with copies.
const ROLL_AGE_MIN_MS: i64 = 600_000;

/// What does not change while the broker runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Delivery times are whole multiples of it, milliseconds.
    pub(crate) precision_ms: i64,
    /// Time between writes of progress and slots, milliseconds.
    pub(crate) flush_interval_ms: i64,
    /// Messages that have waited this long are rolled, milliseconds; sooner where the log forgets
    /// sooner.
    pub(crate) roll_window_ms: i64,
    /// The store host of delivered messages.
    pub(crate) store_host: SocketAddr,
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    /// More could be done at once.
    pub(crate) is_busy: bool,
    /// Messages stored under their own topic: topic, queue, bytes of the body.
    pub(crate) delivered: Vec<(String, i32, usize)>,
    /// Messages taken in.
    pub(crate) taken: u64,
    /// Messages rolled.
    pub(crate) rolled: u64,
}

/// What tools and metrics want to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Messages that wait.
    pub(crate) pending: u64,
    /// Messages in the timer's queue that were not looked at yet.
    pub(crate) not_taken: i64,
    /// How long the first message has been due, milliseconds.
    pub(crate) late_ms: i64,
}

/// The timer of a master.
pub(crate) struct Engine {
    settings: Settings,
    file: ConfigFile,
    slots_dir: PathBuf,
    slots: Slots,
    /// Without its manifest, which is made when it is written.
    progress: Progress,
    /// Queue offset of the next message to take in.
    taken: i64,
    /// The last message that was delivered or passed over, in the order of delivery.
    last: Position,
    /// Rolled messages whose records are still there.
    superseded: u64,
    /// Messages of lower offset that were due by then may have been delivered before a crash, and
    /// those of lower offset rolled; nothing after a clean stop.
    doubtful: Option<Position>,
    /// Whether all that could be done at once after the start was done.
    is_settled: bool,
    written: Progress,
    /// What is to be written as soon as the log is on disk up to there.
    candidate: Option<(Progress, u64)>,
    last_write_ms: i64,
}

/// Why a message was not delivered.
enum Hindrance {
    /// The store takes no messages now.
    Store(StoreError),
    /// The slots are not of this log.
    Slots(String),
}

impl Engine {
    /// Reads what there is and brings it in line with the log. Never refuses to start because of
    /// the timer's own files.
    pub(crate) fn open(store: &MessageStore, root: &Path, settings: Settings, now: i64) -> anyhow::Result<Self> {
        let (config_dir, slots_dir) = (root.join("config"), root.join("timerslots"));
        let file = ConfigFile::new(config_dir.join("timerProgress.json"));
        let mut progress = Progress::load(&file, &config_dir);
        let (min, max) = range(store);
        if progress.read_offset > max {
            let marked = progress.read_offset;
            tracing::warn!(marked, max, "the timer's progress is ahead of its queue and is cut with it");
        }
        let manifest = progress.slots.take();
        // A log that was cut gives the same offsets to other messages.
        let whole = |manifest: &SlotsManifest| manifest.taken <= max;
        let same_precision = progress.precision_ms == settings.precision_ms;
        let manifest = manifest.filter(|manifest| whole(manifest) && same_precision);
        progress.read_offset = progress.read_offset.clamp(0, max);
        progress.roll_offset = progress.roll_offset.max(min).min(max);
        if !same_precision {
            progress.coarse_below = max;
            progress.precision_ms = settings.precision_ms;
        }
        progress.coarse_below = progress.coarse_below.min(max);
        let doubtful = (!progress.clean_stop).then_some(Position { due_ms: now, queue_offset: max });
        progress.clean_stop = false;
        let opened = manifest.and_then(|manifest| match Slots::open(&slots_dir, &manifest) {
            Ok(slots) => Some((slots, manifest)),
            Err(damage) => {
                tracing::warn!("{damage}; the slots are built anew");
                None
            }
        });
        let (slots, taken, superseded) = match opened {
            Some((slots, manifest)) => (slots, manifest.taken.max(progress.roll_offset), manifest.superseded),
            None => (Slots::empty(&slots_dir, now)?, progress.roll_offset, 0),
        };
        let engine = Self {
            settings,
            slots_dir,
            slots,
            taken,
            last: progress.delivered,
            superseded,
            doubtful,
            is_settled: false,
            written: progress.clone(),
            candidate: None,
            last_write_ms: now,
            file,
            progress,
        };
        // From the first delivery on the stop before is no longer the last one.
        let manifest = engine.slots.manifest(taken, superseded);
        engine.file.persist(&Progress { slots: Some(manifest), ..engine.progress.clone() }.text())?;
        tracing::info!(pending = engine.slots.len(), taken, max, "the timer begins");
        Ok(engine)
    }

    /// One pass. `reserved` is how long the log keeps its files.
    pub(crate) fn tick(&mut self, store: &MessageStore, now: i64, reserved: Duration) -> Pass {
        let (mut pass, mut is_through) = (Pass::default(), false);
        if range(store).1 < self.taken {
            // Nothing of it was looked at.
            (self.progress.read_offset, self.progress.roll_offset) = (0, 0);
            let is_busy = self.build_anew("its queue was deleted and begins anew", now);
            return Pass { is_busy, ..pass };
        }
        self.take_in(store, &mut pass);
        if let Err(reason) =
            self.slots.read_near(now, self.progress.delivered.due_ms, |pending| is_past(&self.progress, pending))
        {
            let is_busy = self.build_anew(&reason.to_string(), now);
            return Pass { is_busy, ..pass };
        }
        // What is taken in again after a loss is sorted in before anything else goes out.
        if self.taken >= self.progress.read_offset {
            match self.deliver(store, now, &mut pass) {
                Ok(()) => is_through = true,
                Err(Hindrance::Store(error)) => {
                    pass.is_busy = false;
                    tracing::warn!(%error, "timer messages wait: they could not be stored");
                }
                Err(Hindrance::Slots(reason)) => {
                    let is_busy = self.build_anew(&reason, now);
                    return Pass { is_busy, ..pass };
                }
            }
            self.advance();
            self.roll(store, now, reserved, &mut pass);
        }
        self.is_settled |= is_through && !pass.is_busy;
        self.slots.close_over(now);
        if now - self.last_write_ms >= self.settings.flush_interval_ms || now < self.last_write_ms {
            self.last_write_ms = now;
            if let Err(error) = self.write(store) {
                tracing::error!("the timer's progress could not be written: {error:#}");
            }
        }
        pass
    }

    /// Takes in what is new in the timer's queue.
    fn take_in(&mut self, store: &MessageStore, pass: &mut Pass) {
        let mut room = TAKEN_PER_PASS;
        while room > 0 {
            let entries = store.queue_entries(TIMER_TOPIC, TIMER_QUEUE, self.taken, room.min(READ_AT_ONCE));
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
                let Some(next) = behind_hole(store, TIMER_TOPIC, TIMER_QUEUE, self.taken) else { return };
                tracing::error!(from = self.taken, to = next, "a hole in the timer's queue is passed over");
                self.taken = next;
                continue;
            };
            if first.queue_offset > self.taken {
                let (from, to) = (self.taken, first.queue_offset);
                tracing::error!(from, to, "timer messages were deleted from the log before they were looked at");
            }
            room -= entries.len();
            self.taken = last.queue_offset + 1;
            for entry in &entries {
                let unit = store.message_at(entry.offset);
                let read = unit.as_ref().map_or(Err("it is gone".to_owned()), |unit| Waiting::read(unit));
                match read {
                    Ok(waiting) => {
                        let at = self.place(&waiting, entry.queue_offset);
                        let pending = Pending { at, deletes: waiting.deletes.is_some() };
                        if !is_past(&self.progress, &pending) {
                            self.slots.insert(pending);
                            pass.taken += 1;
                        }
                    }
                    Err(reason) => {
                        let (queue_offset, offset) = (entry.queue_offset, entry.offset);
                        tracing::error!(queue_offset, offset, reason, "a timer message is passed over");
                    }
                }
            }
        }
        pass.is_busy = true;
    }

    /// When a waiting message is due: never before the time it was sent for.
    fn place(&self, waiting: &Waiting<'_>, queue_offset: i64) -> Position {
        let is_coarse = queue_offset < self.progress.coarse_below;
        let step = if is_coarse { PRECISION_MAX_MS } else { self.settings.precision_ms };
        Position { due_ms: waiting.out_ms + step, queue_offset }
    }

    fn deliver(&mut self, store: &MessageStore, now: i64, pass: &mut Pass) -> Result<(), Hindrance> {
        let mut room = DELIVERED_PER_PASS;
        while let Some((due_ms, slot)) = self.slots.take_due(now) {
            let (mut deletions, messages): (Vec<Due>, Vec<Due>) = slot.into_iter().partition(|due| due.deletes);
            let keys = self.deleted_keys(store, &mut deletions);
            let mut messages = messages.into_iter();
            let mut hindrance = None;
            while room > 0
                && let Some(due) = messages.next()
            {
                let at = Position { due_ms, queue_offset: due.queue_offset };
                match self.deliver_one(store, at, &keys, now) {
                    Ok(delivered) => {
                        room -= 1;
                        self.last = at;
                        pass.delivered.extend(delivered);
                    }
                    Err(reason) => {
                        hindrance = Some((due, reason));
                        break;
                    }
                }
            }
            let is_left = hindrance.is_some() || messages.len() > 0;
            if is_left {
                let failed = hindrance.as_ref().map(|(due, _)| *due);
                self.slots.put_back(due_ms, deletions.into_iter().chain(failed).chain(messages));
                pass.is_busy = true;
                return hindrance.map_or(Ok(()), |(_, reason)| Err(reason));
            }
            self.last = Position::after(due_ms);
            if room == 0 {
                pass.is_busy = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The keys of messages that these deletions mean; rolled deletions go. A deletion means messages
    /// of its own time.
    fn deleted_keys(&mut self, store: &MessageStore, deletions: &mut Vec<Due>) -> Vec<String> {
        let before = deletions.len();
        deletions.retain(|due| due.queue_offset >= self.progress.roll_offset);
        self.superseded = self.superseded.saturating_sub((before - deletions.len()) as u64);
        let key_of = |due: &Due| {
            let unit = unit_at(store, due.queue_offset)?;
            Waiting::read(&unit).ok()?.deletes.map(str::to_owned)
        };
        deletions.iter().filter_map(key_of).collect()
    }

    fn deliver_one(
        &mut self,
        store: &MessageStore,
        at: Position,
        keys: &[String],
        now: i64,
    ) -> Result<Option<(String, i32, usize)>, Hindrance> {
        let queue_offset = at.queue_offset;
        if queue_offset < self.progress.roll_offset {
            self.superseded = self.superseded.saturating_sub(1);
            return Ok(None);
        }
        let Some(unit) = unit_at(store, queue_offset) else {
            tracing::error!(queue_offset, "a timer message is lost: the log deleted it while it waited");
            return Ok(None);
        };
        let waiting = Waiting::read(&unit).map_err(Hindrance::Slots)?;
        if self.place(&waiting, queue_offset) != at || waiting.deletes.is_some() {
            return Err(Hindrance::Slots(format!("the message at {queue_offset} is another one")));
        }
        if keys.iter().any(|key| waiting.is_meant_by(key)) {
            tracing::info!(queue_offset, "a timer message was deleted before its time");
            return Ok(None);
        }
        if self.is_doubtful(at) && waiting.was_delivered(store) {
            tracing::info!(queue_offset, "a timer message was delivered before the last stop");
            return Ok(None);
        }
        match waiting.deliver(store, now, self.settings.store_host) {
            Ok((topic, queue_id, bytes)) => Ok(Some((topic.to_owned(), queue_id, bytes))),
            Err(error) if is_hopeless(&error) => {
                tracing::error!(queue_offset, %error, "a timer message can never be stored and is dropped");
                Ok(None)
            }
            Err(error) => Err(Hindrance::Store(error)),
        }
    }

    fn is_doubtful(&self, at: Position) -> bool {
        self.doubtful.is_some_and(|until| at.due_ms <= until.due_ms && at.queue_offset < until.queue_offset)
    }

    /// Moves the mark of delivery, where nothing before it is pending.
    fn advance(&mut self) {
        if self.slots.first().is_none_or(|first| first > self.progress.delivered) {
            self.progress.read_offset = self.taken;
            self.progress.delivered = self.progress.delivered.max(self.last);
        }
    }

    /// Moves the front over what is done with, and stores again what has waited so long that the
    /// log may forget it.
    fn roll(&mut self, store: &MessageStore, now: i64, reserved: Duration, pass: &mut Pass) {
        let half = reserved.as_millis() as i64 / 2;
        let age_max = self.settings.roll_window_ms.min(half).max(ROLL_AGE_MIN_MS);
        for _ in 0..ROLLED_PER_PASS {
            let front = self.progress.roll_offset;
            if front >= self.progress.read_offset {
                return;
            }
            let entry = store.queue_entries(TIMER_TOPIC, TIMER_QUEUE, front, 1).into_iter().next();
            let Some(entry) = entry else {
                let Some(next) = behind_hole(store, TIMER_TOPIC, TIMER_QUEUE, front) else { return };
                self.progress.roll_offset = next;
                continue;
            };
            let next = entry.queue_offset + 1;
            let unit = store.message_at(entry.offset);
            let Some(Ok(waiting)) = unit.as_ref().map(|unit| Waiting::read(unit)) else {
                // Said when it was taken in.
                self.progress.roll_offset = next;
                continue;
            };
            let at = self.place(&waiting, entry.queue_offset);
            let pending = Pending { at, deletes: waiting.deletes.is_some() };
            if is_past(&self.progress, &pending) {
                self.progress.roll_offset = next;
                continue;
            }
            // One that is due now is delivered now.
            if now - waiting.view.store_timestamp < age_max || at.due_ms <= now {
                return;
            }
            let is_doubtful = self.doubtful.is_some_and(|until| entry.queue_offset < until.queue_offset);
            if !is_doubtful || !waiting.was_rolled(store) {
                let out_ms = at.due_ms - self.settings.precision_ms;
                match waiting.roll(store, now, out_ms, self.settings.store_host) {
                    Ok(()) => pass.rolled += 1,
                    Err(error) if is_hopeless(&error) => {
                        tracing::error!(front, %error, "a timer message can never be stored and is dropped");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a timer message could not be rolled yet");
                        return;
                    }
                }
            }
            self.superseded += 1;
            self.progress.roll_offset = next;
        }
        pass.is_busy = true;
    }

    /// Forgets the slots and takes in again what is not done with; false where that must wait.
    fn build_anew(&mut self, reason: &str, now: i64) -> bool {
        tracing::warn!(reason, from = self.progress.roll_offset, "the timer's slots are built anew from the log");
        // Another number than before even where the clock stands still.
        let generation = now.max(self.slots.generation() + 1);
        let taken = self.taken;
        match Slots::empty(&self.slots_dir, generation) {
            Ok(slots) => {
                self.slots = slots;
                self.taken = self.progress.roll_offset;
                self.superseded = 0;
                self.candidate = None;
                // What was delivered while something late kept the mark back.
                self.doubtful = Some(Position { due_ms: now, queue_offset: taken });
                true
            }
            Err(error) => {
                tracing::error!(%error, "the timer's slots cannot be built anew");
                false
            }
        }
    }

    /// Writes the slots, and the progress once the log is on disk as far as it was then: a power
    /// cut must not take a delivered message and leave the mark that it was delivered.
    fn write(&mut self, store: &MessageStore) -> anyhow::Result<()> {
        if self.candidate.is_none() {
            self.slots.write()?;
            let slots = self.slots.manifest(self.taken, self.superseded);
            let progress = Progress { slots: Some(slots), ..self.progress.clone() };
            if progress != self.written {
                self.candidate = Some((progress, store.max_physical_offset()));
            }
        }
        if let Some((progress, log_end)) = self.candidate.take() {
            if store.flushed_offset() < log_end {
                self.candidate = Some((progress, log_end));
                return Ok(());
            }
            self.file.persist(&progress.text())?;
            self.written = progress;
        }
        if let Some(slots) = &self.written.slots {
            self.slots.remove_over(slots)?;
        }
        Ok(())
    }

    /// Writes everything at the end. The log must be on disk.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.slots.write()?;
        let slots = self.slots.manifest(self.taken, self.superseded);
        // What may have been done before a crash and was not looked at since is still in doubt.
        let clean_stop = self.doubtful.is_none() || self.is_settled;
        self.file.persist(&Progress { slots: Some(slots), clean_stop, ..self.progress.clone() }.text())?;
        Ok(())
    }

    /// How things stand.
    pub(crate) fn standing(&self, store: &MessageStore, now: i64) -> Standing {
        let first = self.slots.first().map_or(now, |first| first.due_ms);
        Standing {
            pending: self.slots.len().saturating_sub(self.superseded),
            not_taken: (range(store).1 - self.taken).max(0),
            late_ms: (now - first).max(0),
        }
    }

    /// The body of `GET_TIMER_CHECK_POINT`.
    pub(crate) fn check_point(&self) -> Vec<u8> {
        self.progress.to_wire()
    }
}

/// Deletions stay until all of their time is delivered, however far that is.
fn is_past(progress: &Progress, pending: &Pending) -> bool {
    if !pending.deletes {
        return progress.is_past(pending.at);
    }
    let at = pending.at;
    at.queue_offset < progress.roll_offset
        || (at.queue_offset < progress.read_offset && Position::after(at.due_ms) <= progress.delivered)
}

fn range(store: &MessageStore) -> (i64, i64) {
    (store.min_offset(TIMER_TOPIC, TIMER_QUEUE), store.max_offset(TIMER_TOPIC, TIMER_QUEUE))
}

fn unit_at(store: &MessageStore, queue_offset: i64) -> Option<bytes::Bytes> {
    let entry = store.queue_entries(TIMER_TOPIC, TIMER_QUEUE, queue_offset, 1).into_iter().next()?;
    if entry.queue_offset != queue_offset {
        return None;
    }
    store.message_at(entry.offset)
}
