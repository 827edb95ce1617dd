//! Appending allocates nothing: counted, not believed.

mod support;

use rocketmq_store::MessageStore;
use support::{config, message, tempdir};

#[test]
fn an_append_allocates_nothing() {
    let dir = tempdir();
    let config = rocketmq_store::StoreConfig { mapped_file_size_commit_log: 64 << 20, ..config(dir.path()) };
    let store = MessageStore::open(config).unwrap();
    let body = vec![b'x'; 1024];
    let properties = b"UNIQ_KEY\x01AC11000100002A9F0000000000000001\x02TAGS\x01TagA\x02KEYS\x01a b c\x02";
    let append = |count: i32| {
        for i in 0..count {
            store.append(&message("Topic", i % 8, &body, properties)).unwrap();
        }
        let batch = [message("Topic", 3, &body, properties); 4];
        store.append_batch(&batch).unwrap();
    };
    // The first ones make their queues and the thread's buffer.
    append(16);
    let counted = allocation_counter::measure(|| append(10_000));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
