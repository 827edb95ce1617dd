//! What replication asks of the store besides reading and appending bytes.
//!
//! May not: know the network.

use tokio::sync::watch;

use crate::log_reader::LogReader;
use crate::store::MessageStore;

impl MessageStore {
    /// A place `bytes` before the log's end, or further back where the last whole message begins there: what lies behind it
    /// tells this log from every other one, for a message carries its place, its time and a checksum.
    pub fn tail_start(&self, bytes: u64) -> u64 {
        let wide = self.max_physical_offset().saturating_sub(bytes);
        let last = self.core().last_dispatched.lock().map_or(wide, |last| last.offset);
        wide.min(last).max(self.min_physical_offset())
    }

    /// Where the record begins that holds the byte at `at`; `at` itself where one begins there. A record that is there in
    /// part counts. `None` outside of the log. Reads the heads of all records of the file before `at`.
    pub fn record_start(&self, at: u64) -> Option<u64> {
        if at < self.min_physical_offset() || at > self.max_physical_offset() {
            return None;
        }
        let files = &self.core().log.files;
        let mut reader = LogReader::new(files, (at - at % files.file_size()).max(self.min_physical_offset()));
        loop {
            let here = reader.offset();
            if here == at || reader.next_record().is_none() || reader.offset() > at {
                return Some(here);
            }
        }
    }

    /// Up to where the log is on disk, each time that moves.
    pub fn flushes(&self) -> watch::Receiver<u64> {
        self.core().flushed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use crate::{MessageStore, NewMessage, StoreConfig};

    #[test]
    fn records_are_found_by_any_of_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            store_path_root_dir: dir.path().to_owned(),
            mapped_file_size_commit_log: 4096,
            message_index_enable: false,
            ..StoreConfig::default()
        };
        let store = MessageStore::open(config).unwrap();
        let body = [1; 900];
        let message = NewMessage { body: &body, ..NewMessage::sample() };
        let appended: Vec<_> = (0..7).map(|_| store.append(&message).unwrap()).collect();
        for one in &appended {
            for at in [one.offset, one.offset + 1, one.end - 1] {
                assert_eq!(store.record_start(at), Some(one.offset));
            }
        }
        let end = store.max_physical_offset();
        assert_eq!((store.record_start(end), store.record_start(end + 1)), (Some(end), None));
        assert_eq!(store.record_start(4095), Some(appended[3].end), "the blank at a file's end");
        store.wait_dispatched().unwrap();
        assert_eq!(store.tail_start(10), appended[6].offset);
        assert_eq!(store.tail_start(2000), end - 2000);
        assert_eq!(store.tail_start(u64::MAX), 0);
        store.shutdown();
    }
}
