//! Stored units for the tests of this room.

use std::net::SocketAddr;

use bytes::Bytes;
use rocketmq_store::{MessageStore, NewMessage, StoreConfig, push_property};

/// When every message was born, in milliseconds since 1970.
pub(super) const BORN_MS: i64 = 1_000;

/// Stores a message of queue 0, and returns it as it is stored.
pub(super) fn stored(
    topic: &str,
    body: &str,
    pairs: &[(&str, &str)],
) -> (tempfile::TempDir, std::sync::Arc<MessageStore>, Bytes) {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        store_path_root_dir: dir.path().to_owned(),
        mapped_file_size_commit_log: 1 << 20,
        mapped_file_size_consume_queue: 20_000,
        max_hash_slot_num: 100,
        max_index_num: 400,
        disk_max_used_space_ratio: 95,
        disk_space_warning_level_ratio: 100,
        disk_space_clean_forcibly_ratio: 100,
        ..StoreConfig::default()
    };
    let store = MessageStore::open(config).unwrap();
    let mut text = Vec::new();
    for (name, value) in pairs {
        push_property(&mut text, name, value);
    }
    let host = SocketAddr::from(([127, 0, 0, 1], 10_911));
    let message = NewMessage {
        topic,
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: BORN_MS,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: body.as_bytes(),
        properties: &text,
    };
    let appended = store.append(&message).unwrap();
    let unit = store.message_at(appended.offset).unwrap();
    (dir, store, unit)
}
