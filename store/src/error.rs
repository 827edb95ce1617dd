//! The store's one error type: each variant says what failed and where.
//!
//! May not know response codes: the broker maps variants to the wire.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// The action, e.g. `create`.
        what: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Another broker, Java or ours, has the store open.
    #[error("{} is locked: another broker uses this store", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A setting the store cannot work with.
    #[error("{key}={value} is not accepted: {accepts}")]
    Config {
        /// The `broker.conf` key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be accepted.
        accepts: &'static str,
    },
    /// A log file is neither of the configured size nor a torn last file.
    #[error(
        "{} is {size} bytes, mappedFileSizeCommitLog is {expected}: if the setting was changed, set it back; if the file \
         was cut, bring it back from a copy, or to this size (truncate -s) without the messages that it lost",
        path.display()
    )]
    WrongFileSize {
        /// The file.
        path: PathBuf,
        /// Its size, bytes.
        size: u64,
        /// The configured size, bytes.
        expected: u64,
    },
    /// A log file does not continue the one before it.
    #[error(
        "{}: the log continues at offset {expected}, a file in between is missing: bring {expected:020} back, or move the \
         files before this one elsewhere and their messages with them",
        path.display()
    )]
    MissingFile {
        /// The file after the hole.
        path: PathBuf,
        /// Start offset of the file that should be there.
        expected: u64,
    },
    /// The log has no file left, though messages were stored in it: another directory, or a volume that is not there.
    #[error(
        "{} has no file of the log, though messages were stored until {until} ms: see that storePathCommitLog and its \
         volume are right, bring the files back, or delete {} to begin without them",
        dir.display(),
        checkpoint.display()
    )]
    NoLog {
        /// The log's directory.
        dir: PathBuf,
        /// The file that tells of the messages.
        checkpoint: PathBuf,
        /// Store time of the newest of them.
        until: i64,
    },
    /// Topic name empty, or longer than the message version can carry.
    #[error("topic of {len} bytes, 1 to {max} are accepted")]
    TopicLength {
        /// Bytes given.
        len: usize,
        /// Most bytes accepted.
        max: usize,
    },
    /// A topic that cannot name a directory.
    #[error("topic {topic:?} cannot name a directory")]
    TopicName {
        /// The topic given.
        topic: String,
    },
    /// Properties text longer than its signed 16-bit length field.
    #[error("properties of {len} bytes, at most 32767 are accepted")]
    PropertiesTooLong {
        /// Bytes given.
        len: usize,
    },
    /// Body (or batch of bodies, or the whole unit) over a limit.
    #[error("message of {size} bytes, at most {max} are accepted")]
    MessageTooLarge {
        /// Bytes given.
        size: usize,
        /// Most bytes accepted.
        max: usize,
    },
    /// Negative queue id.
    #[error("queue id {queue_id} is negative")]
    QueueId {
        /// The id given.
        queue_id: i32,
    },
    /// A batch without messages, or with several topics or queues.
    #[error("batch refused: {reason}")]
    Batch {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Replicated bytes that do not continue this log.
    #[error("bytes for offset {offset} do not continue the log, which ends at {expected}")]
    NotContiguous {
        /// Offset the bytes belong to.
        offset: u64,
        /// Where the log ends.
        expected: u64,
    },
    /// Replicated bytes for an empty log that do not begin a file.
    #[error("an empty log cannot start at {offset}: files are {file_size} bytes (mappedFileSizeCommitLog differs?)")]
    UnalignedStart {
        /// Offset the bytes belong to.
        offset: u64,
        /// Configured size of a log file.
        file_size: u64,
    },
    /// A log is to be cut where no message begins behind another one.
    #[error("the log cannot be cut at {at}: no message begins there behind another one")]
    NoBoundary {
        /// The offset given.
        at: u64,
    },
    /// `flushed` waited for `syncFlushTimeout`.
    #[error("flush up to offset {end} timed out")]
    FlushTimeout {
        /// The offset waited for.
        end: u64,
    },
    /// A flush or another write failed before: what is on disk is unknown, so nothing more is accepted.
    #[error("the store is poisoned: {reason}")]
    Poisoned {
        /// The first failure.
        reason: Arc<str>,
    },
    /// The last append failed at the disk; the next one is tried all the same.
    #[error("the last message could not be stored: {reason}")]
    Failing {
        /// The failure.
        reason: Arc<str>,
    },
    /// The partition is over `diskSpaceWarningLevelRatio`.
    #[error("disk full: {percent} % of the partition is used, diskSpaceWarningLevelRatio={limit}")]
    DiskFull {
        /// Used share of the partition.
        percent: u8,
        /// The share from which nothing is stored.
        limit: u8,
    },
    /// The consume queues did not catch up with the log in time.
    #[error("dispatch is behind at {dispatched}, the log ends at {end}")]
    DispatchBehind {
        /// Where the dispatcher is.
        dispatched: u64,
        /// Where the log ends.
        end: u64,
    },
    /// The store was shut down.
    #[error("the store is shut down")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { what, path: path.to_owned(), source: source.into() }
    }

    /// The variant's name, for the label of a metric.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Io { .. } => "Io",
            Self::Locked { .. } => "Locked",
            Self::Config { .. } => "Config",
            Self::WrongFileSize { .. } => "WrongFileSize",
            Self::MissingFile { .. } => "MissingFile",
            Self::NoLog { .. } => "NoLog",
            Self::TopicLength { .. } => "TopicLength",
            Self::TopicName { .. } => "TopicName",
            Self::PropertiesTooLong { .. } => "PropertiesTooLong",
            Self::MessageTooLarge { .. } => "MessageTooLarge",
            Self::QueueId { .. } => "QueueId",
            Self::Batch { .. } => "Batch",
            Self::NotContiguous { .. } => "NotContiguous",
            Self::UnalignedStart { .. } => "UnalignedStart",
            Self::NoBoundary { .. } => "NoBoundary",
            Self::FlushTimeout { .. } => "FlushTimeout",
            Self::Poisoned { .. } => "Poisoned",
            Self::Failing { .. } => "Failing",
            Self::DiskFull { .. } => "DiskFull",
            Self::DispatchBehind { .. } => "DispatchBehind",
            Self::Closed => "Closed",
        }
    }
}
