//! RocketMQ's message store: its files, byte for byte.
//!
//! Knows no network. Layout, from the outside in:
//!
//! * [`MessageStore`] (`store`) is what the broker holds; `core` is what its threads share.
//! * `commit_log` takes messages under one short lock, `allocate` makes files and pages ready ahead of it,
//!   `message`, `properties` and `message_id` are the formats.
//! * `dispatcher` follows the log into `consume_queue`s (table: `consume_queues`) and the `index` (`index_file`).
//! * `get` and `query` read, without locks.
//! * `flush`, `flushed_mark`, `checkpoint` and `manifest` (with `unit_checksums`) say what is on disk; `recovery` brings
//!   a store back from it by `log_reader`, which finds its way past damage; `health` says when nothing more may be
//!   written.
//! * `retention` deletes what is old; `check` finds what rotted, and `mend` makes it anew from the log.
//! * `mapped_file` is the only module with `unsafe`; `mapped_file_queue` is a run of such files, `hot_files` says which
//!   stay mapped; `published` is how a writer and readers share one without a lock.
//! * `disk` is every call to the operating system; `simulation` plays the store on a `simulated_disk`, which forgets.
//! * `replicated` is what replication asks besides; `truncation` cuts the log of a slave that is not its master's.
//! * [`inspect`] looks into the files of a store, running or not, without opening it.
//! * [`ConfigFile`] (`config_file`) is the atomic text file the broker keeps its tables in.

mod allocate;
mod check;
mod checkpoint;
mod commit_log;
mod config;
mod config_file;
mod consume_queue;
mod consume_queues;
mod core;
mod disk;
mod dispatcher;
mod error;
#[cfg(test)]
mod failing_disk;
mod flush;
mod flushed_mark;
#[cfg(test)]
mod fuzz;
mod gathering;
mod get;
mod health;
mod hot_files;
mod index;
mod index_checksums;
mod index_file;
pub mod inspect;
#[cfg(test)]
mod known_bugs;
mod log_reader;
mod manifest;
mod mapped_file;
mod mapped_file_queue;
mod mend;
mod message;
mod message_id;
mod properties;
mod published;
mod query;
mod recovery;
mod replicated;
mod results;
mod retention;
#[cfg(any(test, feature = "simulation"))]
mod simulated_disk;
#[cfg(feature = "simulation")]
mod simulated_store;
#[cfg(test)]
mod simulation;
mod stats;
mod store;
mod store_lock;
mod sync;
mod topic_deletion;
mod truncation;
mod turn;
mod unit_checksums;
mod worker;

pub use config::{FlushDiskType, StoreConfig};
pub use config_file::{ConfigFile, LoadError};
pub use dispatcher::{Arrival, ArrivalListener};
pub use error::StoreError;
pub use get::Wanted;
pub use message::{
    Appended, BLANK_MIN, DecodeError, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, MessageView, NewMessage, PROPERTIES_MAX,
    TOPIC_MAX_V1, UNIT_MIN, body_crc, decode_message, sys_flag,
};
pub use message_id::{message_id, parse_message_id};
pub use properties::{
    DELAY, KEYS, NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR, Properties, SCHEDULE_TOPIC, TAGS, UNIQ_KEY,
    java_string_hash, properties, property, push_property,
};
pub use results::{GetResult, GetStatus, QueryResult, QueueEntry, QueueRange, TimeBoundary, TopicQueues};
#[cfg(feature = "simulation")]
pub use simulated_store::SimulatedStore;
pub use stats::{PUT_LATENCY_BOUNDS_MS, PUT_LATENCY_NAMES, StoreStats};
pub use store::MessageStore;
pub use truncation::{CutOff, truncate};
