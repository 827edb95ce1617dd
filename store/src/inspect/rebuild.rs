//! Builds consume queues and index anew from the log: the only part of `inspect` that writes.
//!
//! Under the store's lock the old ones are moved aside and the store is opened, which dispatches the whole log; when it
//! does not open, everything is put back. May not: touch the log. A log that is damaged in the middle is refused: a
//! start cuts it there or passes over the rest of the file, and that is not this tool's to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::commit_log::{LogReader, PassedOver, Record};
use super::consume_queue::{QueueReader, UnitKind, queue_dirs};
use super::index::{IndexReader, index_files};
use super::segment::{SegmentFile, list, segment_files, usual_size};
use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::results::TopicQueues;
use crate::store::MessageStore;
use crate::store_lock::StoreLock;

/// Nothing expires while the store is open for this.
const NEVER: Duration = Duration::from_hours(24 * 365 * 100);

/// The units of one queue, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCounts {
    /// The topic.
    pub topic: String,
    /// Queue of the topic.
    pub queue_id: i32,
    /// Units that point into the log, before.
    pub before: u64,
    /// The same, after.
    pub after: u64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Messages of the log.
    pub messages: u64,
    /// Log offset of the log's first byte.
    pub log_begin: u64,
    /// Log offset behind its last message.
    pub log_end: u64,
    /// Topics the broker knows no more and had no queues of: what the log still has of them was left out.
    pub deleted_topics: Vec<String>,
    /// Every queue there was or is.
    pub queues: Vec<QueueCounts>,
    /// Index entries, before and after.
    pub index_entries: (u64, u64),
    /// Where the old files lie; `None` when they were discarded.
    pub replaced: Option<PathBuf>,
}

/// Why nothing was rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The store could not be locked, read, written or opened. What had been moved was put back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no log to build from.
    #[error("{} holds no log, so there is nothing to build from", dir.display())]
    NoLog {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The log is damaged before its end. Nothing was changed.
    #[error("{} is damaged at byte {at}: {what}; what follows could be lost, so nothing was changed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The byte of the file.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// The new files are there and could not all be flushed; the `abort` file stays.
    #[error("not everything is on disk: the next start recovers the store; the old files are in {}", replaced.display())]
    NotFlushed {
        /// Where the old files lie.
        replaced: PathBuf,
    },
}

/// Builds consume queues and index anew. Of `config` the directories, the shape of the index, whether there is to be
/// one, and the delay levels count; file sizes are found from the files. The old files are kept in
/// `<root>/replaced-<time>` unless `discard` is given and no queue has fewer units than before.
///
/// `topics` are those the broker knows, if that can be said: others that had no queues before get none, for the log
/// keeps messages of deleted topics, and a topic of the same name would have them again.
pub fn rebuild(
    config: &StoreConfig,
    topics: Option<&BTreeSet<String>>,
    discard: bool,
) -> Result<Rebuilt, RebuildError> {
    let root = &config.store_path_root_dir;
    let (log_files, _) = segment_files(&config.commit_log_dir())?;
    let Some(log_file_size) = usual_size(&log_files) else {
        return Err(RebuildError::NoLog { dir: config.commit_log_dir() });
    };
    let lock = StoreLock::take(&root.join("lock"))?;
    let (log_begin, messages) = read_log(config, log_file_size)?;
    let before = count_queues(config, log_begin)?;
    let index_before = count_index(config)?;
    let config = StoreConfig {
        mapped_file_size_commit_log: log_file_size,
        mapped_file_size_consume_queue: queue_file_size(config)?,
        file_reserved_time: NEVER,
        clean_file_forcibly_enable: false,
        ..config.clone()
    };
    let was_aborted = root.join("abort").exists();
    let aside = root.join(format!("replaced-{}", jiff::Zoned::now().strftime("%Y%m%d%H%M%S%3f")));
    move_aside(root, &aside).inspect_err(|_| put_back(root, &aside))?;
    // The store takes it itself.
    drop(lock);
    let store = match MessageStore::open(config.clone()) {
        Ok(store) => store,
        Err(e) => {
            // Another broker may have come in between; then the files are its.
            if !matches!(e, StoreError::Locked { .. }) {
                put_back(root, &aside);
                if !was_aborted {
                    forget_file(&root.join("abort"));
                }
            }
            return Err(e.into());
        }
    };
    while store.dispatched_offset() < store.max_physical_offset() && !store.is_poisoned() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let log_end = store.max_physical_offset();
    let deleted_topics = delete_unknown(&store, topics, &before);
    store.shutdown();
    let deleted_topics = deleted_topics?;
    if root.join("abort").exists() {
        return Err(RebuildError::NotFlushed { replaced: aside });
    }
    let queues = compare(before, count_queues(&config, log_begin)?);
    let index_entries = (index_before, count_index(&config)?);
    let complete = queues.iter().all(|q| q.after >= q.before);
    let replaced = if discard && complete {
        fs::remove_dir_all(&aside).map_err(|e| StoreError::io("delete", &aside, e))?;
        None
    } else {
        Some(aside)
    };
    Ok(Rebuilt { messages, log_begin, log_end, deleted_topics, queues, index_entries, replaced })
}

/// Deletes the queues of topics that nobody knows and that had none before.
fn delete_unknown(
    store: &MessageStore,
    topics: Option<&BTreeSet<String>>,
    before: &Counts,
) -> Result<Vec<String>, StoreError> {
    let Some(topics) = topics else { return Ok(Vec::new()) };
    let mut deleted = Vec::new();
    for TopicQueues { topic, .. } in store.topics_with_queues() {
        if !topics.contains(&topic) && before.iter().all(|(had, ..)| *had != topic) {
            store.delete_topic(&topic)?;
            deleted.push(topic);
        }
    }
    Ok(deleted)
}

/// Where the log begins and how many messages it has; refuses one that is damaged before its end.
fn read_log(config: &StoreConfig, file_size: u64) -> Result<(u64, u64), RebuildError> {
    let mut log = LogReader::open(&config.commit_log_dir())?;
    let begin = log.begin();
    for pair in log.files().windows(2) {
        let [file, next] = pair else { continue };
        if file.start.saturating_add(file_size) != next.start || file.len != file_size {
            let what = format!("a file is missing behind it, or its size {} is wrong", file.len);
            return Err(RebuildError::Damaged { path: file.path.clone(), at: file.len, what });
        }
    }
    let mut messages = 0;
    while let Some(record) = log.advance()? {
        match record {
            Record::Message(_) => messages += 1,
            Record::PassedOver(PassedOver { path, file_start, from, to, reason, at_end: false }) => {
                let what = format!("{} bytes are no message ({reason}), and messages follow", to - from);
                return Err(RebuildError::Damaged { path, at: from - file_start, what });
            }
            Record::Blank { .. } | Record::PassedOver(_) => {}
        }
    }
    Ok((begin, messages))
}

fn queue_file_size(config: &StoreConfig) -> Result<u64, StoreError> {
    let mut files: Vec<SegmentFile> = Vec::new();
    for path in queue_dirs(&config.consume_queue_dir())?.values().flat_map(|queues| queues.values()) {
        files.extend(segment_files(path)?.0);
    }
    Ok(usual_size(&files).unwrap_or(config.mapped_file_size_consume_queue))
}

type Counts = Vec<(String, i32, u64)>;

/// Units of each queue that point into the log.
fn count_queues(config: &StoreConfig, log_begin: u64) -> Result<Counts, StoreError> {
    let mut counts = Counts::new();
    for (topic, queues) in queue_dirs(&config.consume_queue_dir())? {
        for (id, path) in queues {
            let mut reader = QueueReader::open(&path, config.consume_queue_file_size())?;
            let mut units = 0;
            for offset in reader.first()..reader.end()? {
                let unit = reader.scan(offset)?;
                units +=
                    u64::from(unit.is_some_and(|u| UnitKind::of(&u) == UnitKind::Message && u.offset >= log_begin));
            }
            counts.push((topic.clone(), id, units));
        }
    }
    Ok(counts)
}

fn compare(before: Counts, after: Counts) -> Vec<QueueCounts> {
    let mut all = BTreeMap::<(String, i32), (u64, u64)>::new();
    for (topic, id, units) in before {
        all.entry((topic, id)).or_default().0 = units;
    }
    for (topic, id, units) in after {
        all.entry((topic, id)).or_default().1 = units;
    }
    let counts = all.into_iter();
    counts.map(|((topic, queue_id), (before, after))| QueueCounts { topic, queue_id, before, after }).collect()
}

fn count_index(config: &StoreConfig) -> Result<u64, StoreError> {
    let mut entries = 0;
    for path in index_files(&config.index_dir())?.0 {
        entries += u64::from(IndexReader::new(&path, config).count()? - 1);
    }
    Ok(entries)
}

/// What is derived from the log and made anew by a start that does not find it. The manifest stays: it shows that
/// they are missing, and it alone knows the offsets that were given out in queues whose messages have expired.
fn derived(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let is_derived = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name == "consumequeue" || name == "index"
    };
    Ok(list(dir)?.into_iter().filter(is_derived).collect())
}

fn move_aside(root: &Path, aside: &Path) -> Result<(), StoreError> {
    fs::create_dir(aside).map_err(|e| StoreError::io("create", aside, e))?;
    for path in derived(root)? {
        rename_into(&path, aside)?;
    }
    let checkpoint = root.join("checkpoint");
    if checkpoint.exists() {
        let copy = aside.join("checkpoint");
        fs::copy(&checkpoint, &copy).map_err(|e| StoreError::io("copy to", &copy, e))?;
        // Queues and index are nowhere on disk now: their two times say so, should this be interrupted.
        let file = OpenOptions::new().write(true).open(&checkpoint);
        let cleared = file.and_then(|file| file.write_all_at(&[0; 16], 8).and_then(|()| file.sync_all()));
        cleared.map_err(|e| StoreError::io("write", &checkpoint, e))?;
    }
    Disk::default().sync_dir(aside)?;
    Disk::default().sync_dir(root)
}

fn rename_into(path: &Path, dir: &Path) -> Result<(), StoreError> {
    let to = dir.join(path.file_name().unwrap_or_default());
    fs::rename(path, &to).map_err(|e| StoreError::io("move to", &to, e))
}

/// As it was before, as far as that goes; what fails is logged, and the files stay aside.
fn put_back(root: &Path, aside: &Path) {
    let restored = (|| {
        for path in list(aside)? {
            let to = root.join(path.file_name().unwrap_or_default());
            if to.is_dir() {
                fs::remove_dir_all(&to).map_err(|e| StoreError::io("delete", &to, e))?;
            }
            rename_into(&path, root)?;
        }
        fs::remove_dir(aside).map_err(|e| StoreError::io("delete", aside, e))?;
        Disk::default().sync_dir(root)
    })();
    if let Err(e) = restored {
        tracing::error!(error = %e, aside = %aside.display(), "the old files could not all be put back");
    }
}

fn forget_file(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::error!(error = %e, file = %path.display(), "could not be deleted");
        }
        _ => {}
    }
}
