//! Reads all of a store and holds its files against each other: log against queues, queues against log, both with the
//! index, and what the checkpoint says against what is there.
//!
//! The log is read once, in order; each message is looked up in its queue and its keys in the index, which are in the
//! same order. What is left over in queues and index then is looked up in the log. May not: change anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::commit_log::{LogLookup, LogReader, PassedOver, Record};
use super::finding::{Finding, FindingKind};
use super::segment::{SegmentFile, Window, usual_size};
use super::verify_index::IndexCheck;
use super::verify_queues::QueueCheck;
use crate::checkpoint;
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::message::{MessageView, read_i64};
use crate::store_lock;

/// What a verification has read and found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Another process has the store open: its tail was in motion.
    pub open: bool,
    /// Log offset of the log's first byte.
    pub log_begin: u64,
    /// Log offset up to which the log was seen.
    pub log_end: u64,
    /// Messages in the log.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Topics with queues.
    pub topics: u64,
    /// Queues.
    pub queues: u64,
    /// Units that point to a message, expired ones included.
    pub units: u64,
    /// Index files.
    pub index_files: u64,
    /// Index entries, expired ones included.
    pub index_entries: u64,
    /// Faults reported.
    pub findings: u64,
    /// Remarks reported.
    pub notes: u64,
}

/// Whom the checks tell.
pub(crate) struct Reporter<'a> {
    report: &'a mut dyn FnMut(&Finding),
    findings: u64,
    notes: u64,
    /// See [`Summary::open`].
    pub(crate) open: bool,
    /// The `abort` file is there.
    pub(crate) aborted: bool,
}

impl Reporter<'_> {
    pub(crate) fn tell(&mut self, kind: FindingKind, path: &Path, at: u64, what: impl Into<String>) {
        if kind.is_fault() {
            self.findings += 1;
        } else {
            self.notes += 1;
        }
        (self.report)(&Finding::new(kind, path, at, what));
    }
}

/// Verifies the store that `config` names: its directories, the shape of the index and the delay levels count, sizes
/// of log and queue files are found from the files. `topics` are those the broker knows, if that can be said: a queue
/// without files is a fault for them, and the sign of a deleted topic for others.
///
/// Must not be called by a process that has the store open itself: closing the `lock` file would free its lock.
pub fn verify(
    config: &StoreConfig,
    topics: Option<&BTreeSet<String>>,
    report: &mut dyn FnMut(&Finding),
) -> Result<Summary, StoreError> {
    let root = &config.store_path_root_dir;
    let open = store_lock::is_held_elsewhere(&root.join("lock"))?;
    let abort = root.join("abort");
    let aborted = abort.exists();
    let mut reporter = Reporter { report, findings: 0, notes: 0, open, aborted };
    let checkpoint = read_checkpoint(&root.join("checkpoint"))?;

    let mut queues = QueueCheck::open(config, topics)?;
    let mut index = IndexCheck::open(config)?;
    index.check_files(&mut reporter)?;
    let mut log = LogReader::open(&config.commit_log_dir())?;
    let mut summary = Summary { open, log_begin: log.begin(), ..Summary::default() };
    if let Some(size) = usual_size(log.files()) {
        check_layout(&config.commit_log_dir(), log.files(), size, &mut reporter);
    }
    let newest = read_log(config, &mut log, &mut queues, &mut index, &mut summary, &mut reporter)?;
    summary.log_end = log.offset();

    let mut lookup = LogLookup::open(&config.commit_log_dir())?;
    queues.finish(&mut lookup, &mut summary, &mut reporter)?;
    index.finish(checkpoint.is_some_and(|times| times[2] > 0), lookup, &mut summary, &mut reporter)?;
    check_checkpoint(&root.join("checkpoint"), checkpoint, newest, &mut reporter)?;
    if open {
        let what = format!("a broker has the store open: its log was seen up to offset {}", summary.log_end);
        reporter.tell(FindingKind::Note, &root.join("lock"), 0, what);
    } else if aborted {
        let what = "the store was not shut down: the next start recovers it";
        reporter.tell(FindingKind::Abort, &abort, 0, what);
    }
    if summary.log_begin > 0 {
        let what = format!("the log begins at offset {}: older files have expired", summary.log_begin);
        reporter.tell(FindingKind::Note, &config.commit_log_dir(), 0, what);
    }
    (summary.findings, summary.notes) = (reporter.findings, reporter.notes);
    Ok(summary)
}

/// Returns the newest store time (ms), 0 without messages.
fn read_log(
    config: &StoreConfig,
    log: &mut LogReader,
    queues: &mut QueueCheck<'_>,
    index: &mut IndexCheck,
    summary: &mut Summary,
    reporter: &mut Reporter<'_>,
) -> Result<i64, StoreError> {
    let files = log.files().to_vec();
    let place = |offset: u64| {
        let at = files.partition_point(|f| f.start <= offset);
        files.get(at.wrapping_sub(1)).map_or((Path::new(""), 0), |f| (f.path.as_path(), offset - f.start))
    };
    let mut newest = 0;
    while let Some(record) = log.advance()? {
        match record {
            Record::Message(m) => {
                summary.messages += 1;
                summary.message_bytes += u64::from(m.total_size);
                newest = newest.max(m.store_timestamp);
                let (path, at) = place(m.physical_offset);
                check_body(&m, path, at, &config.commit_log_dir(), reporter)?;
                queues.saw(&m, path, at, reporter)?;
                index.saw(&m, path, at, reporter)?;
            }
            Record::Blank { .. } => {}
            Record::PassedOver(passed) => tell_passed_over(&passed, reporter),
        }
    }
    Ok(newest)
}

fn check_body(
    m: &MessageView<'_>,
    path: &Path,
    at: u64,
    log_dir: &Path,
    reporter: &mut Reporter<'_>,
) -> Result<(), StoreError> {
    // The last message of a running store may have been read while it was being written.
    let written_since = || {
        let mut lookup = LogLookup::open(log_dir)?;
        let now = lookup.message_at(m.physical_offset)?;
        Ok::<_, StoreError>(now.is_some_and(|now| now.crc_matches()))
    };
    if m.crc_matches() || (reporter.open && written_since()?) {
        return Ok(());
    }
    let what = format!(
        "the body of the message at log offset {} (topic {}, queue {}, queue offset {}) has not the CRC {:#010x}",
        m.physical_offset, m.topic, m.queue_id, m.queue_offset, m.body_crc
    );
    reporter.tell(FindingKind::CrcMismatch, path, at, what);
    Ok(())
}

fn tell_passed_over(passed: &PassedOver, reporter: &mut Reporter<'_>) {
    let PassedOver { path, file_start, from, to, reason, at_end } = passed;
    let bytes = to - from;
    let behind = if *at_end { "no message follows" } else { "messages follow" };
    let what = format!("{bytes} bytes at log offset {from} are no message ({reason}); {behind}");
    // A message that is being written looks like this.
    let kind = if *at_end && reporter.open { FindingKind::Note } else { FindingKind::DamagedRegion };
    reporter.tell(kind, path, from - file_start, what);
}

/// Whether files follow each other and are all of one size.
pub(crate) fn check_layout(dir: &Path, files: &[SegmentFile], size: u64, reporter: &mut Reporter<'_>) {
    for (i, file) in files.iter().enumerate() {
        let next = files.get(i + 1);
        // A running broker may be just making the last one.
        if file.len != size && !(reporter.open && next.is_none()) {
            let what = format!("{} bytes, where the others have {size}", file.len);
            reporter.tell(FindingKind::FileSize, &file.path, file.len.min(size), what);
        }
        if size > 0 && !file.start.is_multiple_of(size) {
            let what = format!("its name is no multiple of the size {size}");
            reporter.tell(FindingKind::FileSize, &file.path, 0, what);
        }
        let end = file.start.saturating_add(size);
        if let Some(next) = next.filter(|next| next.start > end) {
            let what = format!("missing: the next file begins {} bytes behind the one before", next.start - end);
            reporter.tell(FindingKind::MissingFile, &SegmentFile::path_in(dir, end), 0, what);
        }
    }
}

/// The three times of a checkpoint, `None` when there is no file; missing bytes read as zero.
fn read_checkpoint(path: &Path) -> Result<Option<[i64; 3]>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let mut raw = [0; 24];
    let mut window = Window::new(path, checkpoint::SIZE as usize);
    let bytes = window.get(0, 24)?;
    raw[..bytes.len()].copy_from_slice(bytes);
    Ok(Some([0, 8, 16].map(|at| read_i64(&raw, at))))
}

fn check_checkpoint(
    path: &Path,
    times: Option<[i64; 3]>,
    newest: i64,
    reporter: &mut Reporter<'_>,
) -> Result<(), StoreError> {
    const NAMES: [&str; 3] = ["physicMsgTimestamp", "logicsMsgTimestamp", "indexMsgTimestamp"];
    let Some(times) = times else {
        if newest > 0 {
            reporter.tell(FindingKind::Checkpoint, path, 0, "missing: a crash would have the whole log read");
        }
        return Ok(());
    };
    let len = fs::metadata(path).map_err(|e| StoreError::io("stat", path, e))?.len();
    if len != checkpoint::SIZE {
        let what = format!("{len} bytes, a checkpoint has {}", checkpoint::SIZE);
        reporter.tell(FindingKind::FileSize, path, len.min(checkpoint::SIZE), what);
    }
    for (i, (name, time)) in NAMES.into_iter().zip(times).enumerate() {
        if time < 0 || (newest > 0 && time > newest && !reporter.open) {
            let what = format!("{name} is {time}, the newest message was stored at {newest}");
            reporter.tell(FindingKind::Checkpoint, path, 8 * i as u64, what);
        }
    }
    Ok(())
}
