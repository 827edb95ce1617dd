//! What reading from the store gives back.

use bytes::Bytes;

/// One entry of a consume queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEntry {
    /// Index in the queue: the message's queue offset.
    pub queue_offset: i64,
    /// Offset of the message in the commit log.
    pub offset: u64,
    /// Bytes of the message.
    pub size: u32,
    /// Java hash of TAGS, 0 without; delivery time (ms) in the schedule topic.
    pub tags_code: i64,
}

/// How a pull went (`GetMessageStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetStatus {
    /// At least one message.
    Found,
    /// Entries were there, the filter took none.
    NoMatchedMessage,
    /// The log file is gone or going.
    MessageWasRemoving,
    /// No such queue.
    NoMatchedLogicQueue,
    /// The queue has never had a message.
    NoMessageInQueue,
    /// A queue file is missing or unwritten in the middle.
    OffsetFoundNull,
    /// Asked for the next message to come.
    OffsetOverflowOne,
    /// Asked beyond that.
    OffsetOverflowBadly,
    /// Asked below the queue's minimum.
    OffsetTooSmall,
}

impl GetStatus {
    /// RocketMQ's name, which goes out as the remark of a pull.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
            Self::NoMatchedLogicQueue => "NO_MATCHED_LOGIC_QUEUE",
            Self::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
            Self::OffsetFoundNull => "OFFSET_FOUND_NULL",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
        }
    }
}

/// Which of the messages around a time is meant (5.x's `BoundaryType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeBoundary {
    /// The nearest; of several of that very time the first; the earlier one of two equally near. As 4.9 answers.
    Nearest,
    /// The first that was not stored before; the maximum offset when all were.
    First,
    /// The last that was not stored after; the minimum offset when all were.
    Last,
}

/// Answer of [`crate::MessageStore::get_messages`].
#[derive(Debug, Clone)]
pub struct GetResult {
    /// How it went.
    pub status: GetStatus,
    /// Where the next pull goes on. Corrected as a master corrects it (`nextOffsetCorrection`).
    pub next_begin_offset: i64,
    /// The queue's minimum offset.
    pub min_offset: i64,
    /// The queue's maximum offset: the next one to be given out.
    pub max_offset: i64,
    /// Stored units, in order, sliced from the mapped log without a copy; a slice may hold several units.
    pub messages: Vec<Bytes>,
    /// Messages in `messages`.
    pub message_count: u32,
    /// Bytes in `messages`.
    pub bytes: usize,
    /// Log offset of the last entry looked at, 0 when none was: for the advice to read from a slave.
    pub max_physical_offset_pulling: u64,
    /// Whether the last entry looked at lies so far behind the tail that RAM may not hold it.
    pub suggest_pulling_from_slave: bool,
}

impl GetResult {
    /// Reads a byte of each page, so that whoever sends the messages does not wait for the disk.
    pub fn touch(&self) {
        for run in &self.messages {
            for page in run.chunks(4096) {
                std::hint::black_box(page[0]);
            }
        }
    }
}

/// Answer of [`crate::MessageStore::query`].
#[derive(Debug, Clone, Default)]
pub struct QueryResult {
    /// Stored units, by rising log offset.
    pub messages: Vec<Bytes>,
    /// Store time (ms) of the newest indexed message, 0 without index.
    pub index_last_update_timestamp: i64,
    /// Log offset of the newest indexed message.
    pub index_last_update_phyoffset: i64,
}

/// A topic and the range of each of its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicQueues {
    /// The topic.
    pub topic: String,
    /// Its queues, by id.
    pub queues: Vec<QueueRange>,
}

/// The offsets a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRange {
    /// Queue of the topic.
    pub queue_id: i32,
    /// First readable offset.
    pub min_offset: i64,
    /// Next offset to come.
    pub max_offset: i64,
}
