//! Finds consume queue and index files that changed on disk since they were written, and has them made anew.
//!
//! Opening a store compares the newest of them only. The older ones are compared here, in the background: full files
//! with the checksums that were noted when they were written; what was written without (a Java broker's store) with the
//! log, once. Reading is paced, a round begins behind the file that the last one ended with, and when all were
//! looked at the thread sleeps until a reader finds a unit that is of no message. Owns what is to be compared. May not:
//! stop the store, whatever it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crc32fast::Hasher;
use parking_lot::Mutex;

use crate::consume_queue::{ConsumeQueue, UNIT};
use crate::core::{Core, Waker};
use crate::error::StoreError;
use crate::index::Index;
use crate::index_file::IndexFile;
use crate::mapped_file::MappedFile;
use crate::mend::{self, GoOn, Mended};
use crate::message::{MessageView, sys_flag};
use crate::properties::{DispatchProperties, SCHEDULE_TOPIC};
use crate::worker::Signal;

/// Bytes that are read in one go, and how long it rests behind them: 32 MiB a second, so that clients do not feel it.
const READ_AT_ONCE: usize = 1 << 20;
const REST: Duration = Duration::from_millis(31);
/// A file that could not be made anew is tried again after this.
const RETRY: Duration = Duration::from_mins(1);
/// Files that wait to be made anew, and files that were: a reader finds no more of them at a time.
const FILES_MAX: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// The log that queues and index were never compared with.
    pub(crate) unchecked: Mutex<Option<Range<u64>>>,
    /// The file compared last, see [`Candidate::name`].
    pub(crate) last: Mutex<Option<String>>,
    /// Files in which a reader found a unit that is of no message: topic, queue id, first queue byte.
    found: Mutex<BTreeSet<Place>>,
    /// Those that were made anew since the store was opened.
    mended: Mutex<BTreeSet<Place>>,
    /// Everything was compared once since the store was opened.
    pub(crate) done: AtomicBool,
    pub(crate) waker: Waker,
}

type Place = (Arc<str>, i32, u64);

/// Counts bytes, and rests now and then.
struct Pace<'a> {
    signal: &'a Signal,
    read: usize,
}

impl Pace<'_> {
    /// `false` when the store is being closed.
    fn go_on(&mut self, bytes: usize) -> bool {
        self.read += bytes;
        while self.read >= READ_AT_ONCE && !self.signal.stopped() {
            self.read -= READ_AT_ONCE;
            self.signal.pause(REST);
        }
        !self.signal.stopped()
    }
}

/// A full file with noted checksums.
enum Candidate {
    Queue(Arc<ConsumeQueue>, Arc<MappedFile>),
    Index(Arc<IndexFile>),
}

impl Candidate {
    /// Path below the store's directory: the order in which files are compared.
    fn name(&self, root: &Path) -> String {
        let path = match self {
            Self::Queue(_, file) => file.path(),
            Self::Index(file) => file.path(),
        };
        path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
    }
}

impl Check {
    pub(crate) fn new(unchecked: Option<Range<u64>>, last: Option<String>) -> Self {
        Self { unchecked: Mutex::new(unchecked), last: Mutex::new(last), ..Self::default() }
    }

    /// Notes that a unit of a queue is of no message.
    pub(crate) fn found(&self, queue: &ConsumeQueue, queue_offset: i64) {
        let Some(file) = queue.file_of(queue_offset) else { return };
        let place = (Arc::clone(&queue.topic), queue.queue_id, file.start);
        let mut found = self.found.lock();
        // What was made anew is as right as the log allows.
        if found.len() < FILES_MAX && !self.mended.lock().contains(&place) && found.insert(place) {
            self.waker.wake();
        }
    }

    /// Whether nothing is left to be compared or made anew.
    pub(crate) fn is_idle(&self) -> bool {
        self.done.load(Ordering::Acquire) && self.found.lock().is_empty()
    }
}

/// The thread's work, until it is stopped.
pub(crate) fn check_loop(core: &Core, signal: &Signal) {
    mend::clear_aside(core);
    while !signal.stopped() {
        if !round(core, signal) {
            signal.pause(RETRY);
        }
        while !signal.stopped() && core.check.is_idle() {
            signal.wait(Duration::from_hours(1));
        }
    }
}

/// Does what is to be done; `false` when something is left, or when it was stopped.
pub(crate) fn round(core: &Core, signal: &Signal) -> bool {
    let mut pace = Pace { signal, read: 0 };
    let mut go_on = |bytes| pace.go_on(bytes);
    let mended = core.counters.mended_files.load(Ordering::Relaxed);
    if !core.check.done.load(Ordering::Acquire) {
        let done = compare_files(core, &mut go_on) && compare_with_log(core, &mut go_on);
        core.check.done.store(done, Ordering::Release);
    }
    mend_found(core, &mut go_on);
    if core.counters.mended_files.load(Ordering::Relaxed) > mended
        && let Err(error) = core.checkpoint_all()
    {
        tracing::error!(%error, "what is in the new files is not noted yet");
    }
    core.check.is_idle()
}

fn mend_found(core: &Core, go_on: GoOn<'_>) {
    let places = core.check.found.lock().clone();
    for place in places {
        if !mend_queue(core, place, go_on) {
            return;
        }
    }
}

/// Makes a file anew, now or, when that fails, later; `false` when stopped.
fn mend_queue(core: &Core, place: Place, go_on: GoOn<'_>) -> bool {
    let queue = core.queues.find(&place.0, place.1);
    let file = queue.as_ref().and_then(|queue| queue.file_of((place.2 / UNIT) as i64));
    let (Some(queue), Some(file)) = (queue, file) else {
        core.check.found.lock().remove(&place);
        return true;
    };
    match mend::queue_file(core, &queue, &file, go_on) {
        Ok(Mended::Stopped) => return false,
        Ok(mended) => {
            report(core, file.path(), mended);
            let mut all = core.check.mended.lock();
            while all.len() >= FILES_MAX {
                all.pop_first();
            }
            all.insert(place.clone());
            drop(all);
            core.check.found.lock().remove(&place);
        }
        Err(error) => {
            tracing::error!(%error, file = %file.path().display(), "the file is damaged and cannot be made anew now");
            core.check.found.lock().insert(place);
        }
    }
    true
}

/// As [`mend_queue`]; but what fails is not tried again before the next start: keys are missing, and no messages.
fn mend_index(core: &Core, index: &Index, file: &Arc<IndexFile>, go_on: GoOn<'_>) -> bool {
    match mend::index_file(core, index, file, go_on) {
        Ok(Mended::Stopped) => return false,
        Ok(mended) => report(core, file.path(), mended),
        Err(error) => {
            tracing::error!(%error, file = %file.path().display(), "the index file is damaged and cannot be made anew");
        }
    }
    true
}

fn report(core: &Core, path: &Path, mended: Mended) {
    let file = path.display();
    match mended {
        Mended::Changed(changed) => {
            core.counters.mended_files.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%file, changed, "the file was damaged and is made anew from the log");
        }
        Mended::Unchanged => tracing::warn!(%file, "the log says nothing else than the file"),
        Mended::Gone | Mended::Stopped => {}
    }
}

/// Compares full files with what was noted of them, beginning behind the one compared last.
fn compare_files(core: &Core, go_on: GoOn<'_>) -> bool {
    let root = &core.config.store_path_root_dir;
    let mut candidates: Vec<(String, Candidate)> =
        candidates(core).into_iter().map(|candidate| (candidate.name(root), candidate)).collect();
    candidates.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let last = core.check.last.lock().clone().unwrap_or_default();
    let first = candidates.partition_point(|(name, _)| *name <= last);
    candidates.rotate_left(first);
    for (name, candidate) in candidates {
        let went_on = match &candidate {
            Candidate::Queue(queue, file) => compare_queue_file(core, queue, file, go_on),
            Candidate::Index(file) => compare_index_file(core, file, go_on),
        };
        if !went_on || !go_on(0) {
            return false;
        }
        *core.check.last.lock() = Some(name);
    }
    true
}

fn candidates(core: &Core) -> Vec<Candidate> {
    let mut all = Vec::new();
    for queue in core.queues.all() {
        let files = queue.files();
        let full = files.iter().take(files.len().saturating_sub(1));
        all.extend(full.map(|file| Candidate::Queue(Arc::clone(&queue), Arc::clone(file))));
    }
    let indexes = core.index.as_ref().map(Index::files).unwrap_or_default();
    let full = indexes.iter().take(indexes.len().saturating_sub(1));
    all.extend(full.map(|file| Candidate::Index(Arc::clone(file))));
    all
}

/// `false` when stopped.
fn compare_queue_file(core: &Core, queue: &ConsumeQueue, file: &Arc<MappedFile>, go_on: GoOn<'_>) -> bool {
    let Some(noted) = queue.noted_checksum(file) else { return true };
    core.counters.checked_files.fetch_add(1, Ordering::Relaxed);
    // What cannot be read may be written anew.
    if checksum(core, file, go_on).is_ok_and(|found| found.is_none_or(|found| found == noted)) {
        return true;
    }
    if !queue.has(file) {
        return true;
    }
    tracing::error!(file = %file.path().display(), "the consume queue file is not what it was, the log is read");
    mend_queue(core, (Arc::clone(&queue.topic), queue.queue_id, file.start), go_on)
}

/// `None` when stopped.
fn checksum(core: &Core, file: &MappedFile, go_on: GoOn<'_>) -> Result<Option<u32>, StoreError> {
    let mut sum = Hasher::new();
    let mut piece = vec![0; file.len().min(READ_AT_ONCE)];
    for at in (0..file.len()).step_by(READ_AT_ONCE) {
        let part = &mut piece[..(file.len() - at).min(READ_AT_ONCE)];
        part.fill(0);
        core.disk.read_at(file.path(), at as u64, part)?;
        sum.update(part);
        if !go_on(part.len()) {
            return Ok(None);
        }
    }
    Ok(Some(sum.finalize()))
}

/// `false` when stopped.
fn compare_index_file(core: &Core, file: &Arc<IndexFile>, go_on: GoOn<'_>) -> bool {
    core.counters.checked_files.fetch_add(1, Ordering::Relaxed);
    if file.is_as_noted(&core.disk, go_on).is_ok_and(|is_same| is_same.unwrap_or(true)) {
        return true;
    }
    let Some(index) = &core.index else { return true };
    if !index.has(file) {
        return true;
    }
    tracing::error!(file = %file.path().display(), "the index file is not what it was, the log is read");
    mend_index(core, index, file, go_on)
}

/// Compares queues and index with the part of the log that they never were compared with. What does not fit is made
/// anew, each file once. `false` when stopped, or when the log cannot be read now.
fn compare_with_log(core: &Core, go_on: GoOn<'_>) -> bool {
    let Some(range) = core.check.unchecked.lock().clone() else { return true };
    tracing::info!(?range, "queues and index are compared with the log");
    let mut tried = Damaged::default();
    let mut at = range.start.max(core.log.min_offset());
    while at < range.end {
        let to = range.end.min(at + READ_AT_ONCE as u64);
        let mut found = Damaged::default();
        match mend::walk(core, at..to, go_on, &mut |m| found.look_at(core, m)) {
            Ok(stopped_at) if stopped_at < to => return false,
            Ok(next) => at = next,
            Err(error) => {
                tracing::error!(%error, "queues and index cannot be compared with the log now");
                return false;
            }
        }
        if !found.mend(core, &mut tried, go_on) {
            return false;
        }
        *core.check.unchecked.lock() = Some(at..range.end);
    }
    *core.check.unchecked.lock() = None;
    tracing::info!("queues and index were compared with the log");
    // So that the next start need not.
    if let Err(error) = core.checkpoint_all() {
        tracing::error!(%error, "that they were compared is not noted");
    }
    true
}

/// Files that are not what the log says.
#[derive(Default)]
struct Damaged {
    queues: BTreeSet<Place>,
    /// By path.
    indexes: BTreeMap<PathBuf, Arc<IndexFile>>,
}

impl Damaged {
    fn look_at(&mut self, core: &Core, m: &MessageView<'_>) -> Result<(), StoreError> {
        if mend::is_queued(core, m)
            && let Some(queue) = core.queues.find(m.topic, m.queue_id)
            && m.queue_offset >= queue.min_offset()
            && let Some(unit) = queue.unit(m.queue_offset)
        {
            let ought = mend::unit_of(core, m);
            let is_same = (unit.offset, unit.size) == (ought.offset, ought.size)
                && (unit.tags_code == ought.tags_code || m.topic == SCHEDULE_TOPIC);
            // Its topic may have been made again, and the unit be that of a later message.
            if !is_same
                && !mend::is_right(core, &queue, &unit)
                && let Some(file) = queue.file_of(m.queue_offset)
            {
                self.queues.insert((Arc::clone(&queue.topic), queue.queue_id, file.start));
            }
        }
        if let Some(index) = core.index.as_ref().filter(|_| sys_flag::is_indexed(m.sys_flag)) {
            for key in DispatchProperties::scan(m.properties).index_keys() {
                if let Some(file) = index.lacks(m.topic, key, m.physical_offset, m.store_timestamp)? {
                    self.indexes.insert(file.path().to_owned(), file);
                }
            }
        }
        Ok(())
    }

    /// Makes them anew but for those that were tried; `false` when stopped.
    fn mend(self, core: &Core, tried: &mut Self, go_on: GoOn<'_>) -> bool {
        for place in self.queues {
            if tried.queues.insert(place.clone()) && !mend_queue(core, place, go_on) {
                return false;
            }
        }
        for (path, file) in self.indexes {
            let Some(index) = &core.index else { break };
            if tried.indexes.insert(path, Arc::clone(&file)).is_none() && !mend_index(core, index, &file, go_on) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
