//! The store's settings, with the defaults of RocketMQ's `MessageStoreConfig` (4.9).
//!
//! Owns: names, units, defaults and their validation. May not: read files or know `broker.conf`; the broker
//! translates its keys into this struct.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::StoreError;

/// What `SEND_OK` waits for (`flushDiskType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlushDiskType {
    /// A message is acknowledged when it is in the page cache: a killed process loses nothing, a power loss may.
    #[default]
    AsyncFlush,
    /// A message is acknowledged when it has reached the disk.
    SyncFlush,
}

/// Everything the store can be told. Each field names its `broker.conf` key where one exists.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of broker.conf")]
pub struct StoreConfig {
    /// `storePathRootDir`: the directory that holds everything else.
    pub store_path_root_dir: PathBuf,
    /// `storePathCommitLog`; `None` is `<root>/commitlog`.
    pub store_path_commit_log: Option<PathBuf>,
    /// `mappedFileSizeCommitLog`, bytes.
    pub mapped_file_size_commit_log: u64,
    /// `mappedFileSizeConsumeQueue`, bytes; rounded up to whole 20-byte units.
    pub mapped_file_size_consume_queue: u64,
    /// `flushDiskType`.
    pub flush_disk_type: FlushDiskType,
    /// `flushIntervalCommitLog`: period of the background flush of the log.
    pub flush_interval_commit_log: Duration,
    /// `flushCommitLogLeastPages`: fewer dirty 4 KiB pages wait for the thorough flush.
    pub flush_commit_log_least_pages: u32,
    /// `flushCommitLogThoroughInterval`: at least this often everything is flushed.
    pub flush_commit_log_thorough_interval: Duration,
    /// `flushIntervalConsumeQueue`: period of the background flush of the queues.
    pub flush_interval_consume_queue: Duration,
    /// `flushConsumeQueueLeastPages`.
    pub flush_consume_queue_least_pages: u32,
    /// `flushConsumeQueueThoroughInterval`: also the period of the checkpoint.
    pub flush_consume_queue_thorough_interval: Duration,
    /// `syncFlushTimeout`: how long [`crate::MessageStore::flushed`] waits.
    pub sync_flush_timeout: Duration,
    /// `maxMessageSize`: limit of one body, and of the bodies of one batch together, bytes.
    pub max_message_size: usize,
    /// `autoMessageVersionOnTopicLen` (5.x): topics longer than 127 bytes are written in message version 2.
    /// 4.x readers reject such files.
    pub auto_message_version_on_topic_len: bool,
    /// `checkCRCOnRecover`.
    pub check_crc_on_recover: bool,
    /// `messageIndexEnable`.
    pub message_index_enable: bool,
    /// `messageIndexSafe`: the index takes part in choosing where recovery starts.
    pub message_index_safe: bool,
    /// `maxHashSlotNum`.
    pub max_hash_slot_num: u32,
    /// `maxIndexNum`.
    pub max_index_num: u32,
    /// `maxMsgsNumBatch`: cap of one query's answers.
    pub max_msgs_num_batch: usize,
    /// `maxTransferBytesOnMessageInMemory`.
    pub max_transfer_bytes_on_message_in_memory: usize,
    /// `maxTransferCountOnMessageInMemory`.
    pub max_transfer_count_on_message_in_memory: usize,
    /// `maxTransferBytesOnMessageInDisk`.
    pub max_transfer_bytes_on_message_in_disk: usize,
    /// `maxTransferCountOnMessageInDisk`.
    pub max_transfer_count_on_message_in_disk: usize,
    /// `accessMessageInMemoryMaxRatio`: percent of RAM behind the tail that counts as "in memory".
    pub access_message_in_memory_max_ratio: u8,
    /// `fileReservedTime`.
    pub file_reserved_time: Duration,
    /// `deleteWhen`: hours of the day (0-23, local time) in which expired files go.
    pub delete_when: Vec<u8>,
    /// `diskMaxUsedSpaceRatio`, percent: from here on expired files go at any hour.
    pub disk_max_used_space_ratio: u8,
    /// `rocketmq.broker.diskSpaceCleanForciblyRatio`, percent: from here on the oldest files go whatever their age.
    pub disk_space_clean_forcibly_ratio: u8,
    /// `rocketmq.broker.diskSpaceWarningLevelRatio`, percent: from here on the store is not writable.
    pub disk_space_warning_level_ratio: u8,
    /// `cleanFileForciblyEnable`.
    pub clean_file_forcibly_enable: bool,
    /// `cleanResourceInterval`: period of the retention round.
    pub clean_resource_interval: Duration,
    /// `deleteCommitLogFilesInterval`: pause between two deletions of log files.
    pub delete_commit_log_files_interval: Duration,
    /// `messageDelayLevel`, level 1 first: the `SCHEDULE_TOPIC_XXXX` queues keep delivery times as tags codes.
    pub message_delay_levels: Vec<Duration>,
    /// `warmMapedFileEnable`: touch a log file in full when it is created instead of a window ahead of the writer.
    pub warm_mapped_file_enable: bool,
    /// Bytes at the end of each consume queue, and of the index, that are compared with their checksums when the store
    /// is opened; older files are compared in the background. No key of `broker.conf`.
    pub derived_checked_at_open: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            store_path_root_dir: PathBuf::from("store"),
            store_path_commit_log: None,
            mapped_file_size_commit_log: 1 << 30,
            mapped_file_size_consume_queue: 6_000_000,
            flush_disk_type: FlushDiskType::AsyncFlush,
            flush_interval_commit_log: Duration::from_millis(500),
            flush_commit_log_least_pages: 4,
            flush_commit_log_thorough_interval: Duration::from_secs(10),
            flush_interval_consume_queue: Duration::from_secs(1),
            flush_consume_queue_least_pages: 2,
            flush_consume_queue_thorough_interval: Duration::from_mins(1),
            sync_flush_timeout: Duration::from_secs(5),
            max_message_size: 4 << 20,
            auto_message_version_on_topic_len: true,
            check_crc_on_recover: true,
            message_index_enable: true,
            message_index_safe: false,
            max_hash_slot_num: 5_000_000,
            max_index_num: 20_000_000,
            max_msgs_num_batch: 64,
            max_transfer_bytes_on_message_in_memory: 256 << 10,
            max_transfer_count_on_message_in_memory: 32,
            max_transfer_bytes_on_message_in_disk: 64 << 10,
            max_transfer_count_on_message_in_disk: 8,
            access_message_in_memory_max_ratio: 40,
            file_reserved_time: Duration::from_hours(72),
            delete_when: vec![4],
            disk_max_used_space_ratio: 75,
            disk_space_clean_forcibly_ratio: 85,
            disk_space_warning_level_ratio: 90,
            clean_file_forcibly_enable: true,
            clean_resource_interval: Duration::from_secs(10),
            delete_commit_log_files_interval: Duration::from_millis(100),
            message_delay_levels: [
                1,
                5,
                10,
                30,
                MINUTE,
                2 * MINUTE,
                3 * MINUTE,
                4 * MINUTE,
                5 * MINUTE,
                6 * MINUTE,
                7 * MINUTE,
                8 * MINUTE,
                9 * MINUTE,
                10 * MINUTE,
                20 * MINUTE,
                30 * MINUTE,
                60 * MINUTE,
                120 * MINUTE,
            ]
            .map(Duration::from_secs)
            .to_vec(),
            warm_mapped_file_enable: false,
            derived_checked_at_open: 64 << 20,
        }
    }
}

/// Largest log or queue file: positions inside a file are i32 in RocketMQ.
const MAX_FILE_SIZE: u64 = i32::MAX as u64;

impl StoreConfig {
    /// Where the commit log lies.
    pub fn commit_log_dir(&self) -> PathBuf {
        self.store_path_commit_log.clone().unwrap_or_else(|| self.store_path_root_dir.join("commitlog"))
    }

    /// Where the consume queues lie.
    pub fn consume_queue_dir(&self) -> PathBuf {
        self.store_path_root_dir.join("consumequeue")
    }

    /// Where the index files lie.
    pub fn index_dir(&self) -> PathBuf {
        self.store_path_root_dir.join("index")
    }

    /// Bytes of one consume queue file: the configured size rounded up to whole units.
    pub fn consume_queue_file_size(&self) -> u64 {
        self.mapped_file_size_consume_queue.div_ceil(20) * 20
    }

    /// Refuses values the store cannot work with, naming key, value and what is accepted.
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        let bad = |key, value: u64, accepts| Err(StoreError::Config { key, value: value.to_string(), accepts });
        let log = self.mapped_file_size_commit_log;
        if !(1024..=MAX_FILE_SIZE).contains(&log) {
            return bad("mappedFileSizeCommitLog", log, "1024 to 2147483647 bytes");
        }
        let queue = self.mapped_file_size_consume_queue;
        if !(20..=MAX_FILE_SIZE - 20).contains(&queue) {
            return bad("mappedFileSizeConsumeQueue", queue, "20 to 2147483627 bytes");
        }
        if !(1..=100_000_000).contains(&self.max_hash_slot_num) {
            return bad("maxHashSlotNum", self.max_hash_slot_num.into(), "1 to 100000000");
        }
        if !(2..=100_000_000).contains(&self.max_index_num) {
            return bad("maxIndexNum", self.max_index_num.into(), "2 to 100000000");
        }
        if self.max_message_size > (1 << 30) {
            return bad("maxMessageSize", self.max_message_size as u64, "at most 1073741824 bytes");
        }
        if let Some(hour) = self.delete_when.iter().find(|h| **h > 23) {
            return bad("deleteWhen", (*hour).into(), "hours 0 to 23");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_rocketmqs() {
        let c = StoreConfig::default();
        c.validate().unwrap();
        assert_eq!(c.message_delay_levels.len(), 18);
        assert_eq!(c.message_delay_levels[17], Duration::from_hours(2));
        assert_eq!(c.consume_queue_file_size(), 6_000_000);
    }

    #[test]
    fn a_bad_value_names_its_key() {
        let c = StoreConfig { mapped_file_size_commit_log: 10, ..StoreConfig::default() };
        assert!(c.validate().unwrap_err().to_string().contains("mappedFileSizeCommitLog"));
        let c = StoreConfig { delete_when: vec![4, 24], ..StoreConfig::default() };
        assert!(c.validate().unwrap_err().to_string().contains("deleteWhen"));
    }
}
