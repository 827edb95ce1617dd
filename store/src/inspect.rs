//! Looks into the files of a store without opening it: dump, verification, and building derived files anew.
//!
//! Works on a store of ours or of a Java broker (4.9, 5.x), stopped or running. Everything but [`rebuild`] reads by
//! ordinary reads, takes no lock and changes nothing; the tail of a running store is in motion, so each reader says
//! up to where it has seen. Sizes of log and queue files are taken from the files, the shape of the index from
//! [`crate::StoreConfig`].
//!
//! * `segment`: files that are named after their start offset, and reading them in chunks;
//! * `commit_log`, `consume_queue`, `index`: one reader for each kind of file;
//! * `verify` reads all of it and holds one against the other: `verify_queues`, `verify_index`, `finding`;
//! * `rebuild` is the only one that writes, under the store's lock.
//!
//! May not: map files, repair anything, or know the running store's memory.

mod commit_log;
mod consume_queue;
mod finding;
mod index;
mod rebuild;
mod segment;
mod verify;
mod verify_index;
mod verify_queues;

pub use commit_log::{LogLookup, LogReader, PassedOver, Record};
pub use consume_queue::{QueueReader, UnitKind, queue_dirs};
pub use finding::{Finding, FindingKind};
pub use index::{IndexEntry, IndexHeader, IndexReader, index_files, key_hash_of};
pub use rebuild::{QueueCounts, RebuildError, Rebuilt, rebuild};
pub use segment::{SegmentFile, segment_files, usual_size};
pub use verify::{Summary, verify};
