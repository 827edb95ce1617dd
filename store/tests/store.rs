//! The store through its public face: appending, reading, querying, replicating, deleting.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rocketmq_store::{
    GetStatus, MessageStore, NewMessage, SCHEDULE_TOPIC, StoreConfig, StoreError, TimeBoundary, Wanted, decode_message,
    java_string_hash, sys_flag,
};
use support::{config, log_bytes, message, pull, settle, view_of_queues, wait_flushed};

#[test]
fn what_is_appended_is_pulled_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    store.set_arrival_listener(Box::new(move |a| {
        assert_eq!((a.topic, a.tags_code), ("T", i64::from(java_string_hash("TagA"))));
        count.fetch_add(1, Ordering::Relaxed);
    }));
    for i in 0..100 {
        let body = format!("body {i}");
        let a = store.append(&message("T", 1, body.as_bytes(), b"TAGS\x01TagA\x02")).unwrap();
        assert_eq!((a.queue_offset, a.count), (i, 1));
        let unit = store.message_at(a.offset).unwrap();
        assert_eq!(decode_message(&unit).unwrap().body, body.as_bytes());
        assert_eq!(a.end - a.offset, unit.len() as u64);
    }
    settle(&store);
    let bodies = pull(&store, "T", 1);
    assert_eq!(bodies.len(), 100);
    assert!(bodies.iter().enumerate().all(|(i, b)| *b == format!("body {i}").into_bytes()));
    assert_eq!(arrived.load(Ordering::Relaxed), 100);
    assert_eq!(store.stats().put_times_total, 100);
}

#[test]
fn who_appends_dispatches_and_leaves_to_another_thread_what_needs_a_file() {
    let dir = tempfile::tempdir().unwrap();
    // Units of a file: 20.
    let store = MessageStore::open(config(dir.path())).unwrap();
    let mine = Arc::new(AtomicUsize::new(0));
    let (count, me) = (Arc::clone(&mine), std::thread::current().id());
    store.set_arrival_listener(Box::new(move |_| {
        count.fetch_add(usize::from(std::thread::current().id() == me), Ordering::Relaxed);
    }));
    for i in 0..400 {
        store.append(&message("T", 0, &[1; 100], b"")).unwrap();
        if i % 20 == 0 {
            settle(&store);
        }
    }
    settle(&store);
    assert_eq!(pull(&store, "T", 0).len(), 400);
    // The first one of each file is the other thread's, and what comes while that one is at it.
    let mine = mine.load(Ordering::Relaxed);
    assert!((100..=380).contains(&mine), "{mine} of 400");
}

#[test]
fn every_status_of_a_pull() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    for _ in 0..10 {
        store.append(&message("T", 0, &[1; 100], b"")).unwrap();
    }
    settle(&store);
    let get = |offset, count, bytes| store.get_messages("T", 0, offset, count, bytes, &mut |_| true);
    let seen = |r: &rocketmq_store::GetResult| (r.status, r.next_begin_offset);
    let none = store.get_messages("T", 1, 0, 32, 1 << 20, &mut |_| true);
    assert_eq!(seen(&none), (GetStatus::NoMatchedLogicQueue, 0));
    assert_eq!(seen(&get(-1, 32, 1000)), (GetStatus::OffsetTooSmall, 0));
    assert_eq!(seen(&get(10, 32, 1000)), (GetStatus::OffsetOverflowOne, 10));
    assert_eq!(seen(&get(11, 32, 1000)), (GetStatus::OffsetOverflowBadly, 10));
    let r = get(3, 4, 1 << 20);
    assert_eq!((seen(&r), r.message_count), ((GetStatus::Found, 7), 4));
    assert_eq!((r.min_offset, r.max_offset, r.messages.len()), (0, 10, 1), "neighbours are one slice");
    assert_eq!(get(0, 32, 1).message_count, 1, "the first always fits");
    assert_eq!(get(0, 32, 450).message_count, 2);
    let r = store.get_messages("T", 0, 2, 32, 1 << 20, &mut |e| e.queue_offset % 3 == 0);
    assert_eq!((seen(&r), r.message_count, r.messages.len()), ((GetStatus::Found, 10), 3, 3));
    let r = store.get_messages("T", 0, 2, 32, 1 << 20, &mut |_| false);
    assert_eq!(seen(&r), (GetStatus::NoMatchedMessage, 10));
}

#[test]
fn a_reader_may_look_at_the_message_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    for n in 0..10 {
        store.append(&message("T", 0, &[n; 100], b"")).unwrap();
    }
    settle(&store);
    let get = |count, bytes, wanted: &[u8]| {
        let mut asked = Vec::new();
        let found = store.get_messages_where(
            "T",
            0,
            1,
            count,
            bytes,
            Wanted {
                entry: &mut |entry| entry.queue_offset != 4,
                message: &mut |unit| {
                    let body = unit.body[0];
                    asked.push(body);
                    wanted.contains(&body)
                },
            },
        );
        (found.status, found.next_begin_offset, found.message_count, found.messages.len(), asked)
    };
    // 4 is refused by its entry and not read; 5 and 6 are neighbours.
    let asked = vec![1, 2, 3, 5, 6, 7, 8, 9];
    assert_eq!(get(32, 1 << 20, &[0, 2, 4, 5, 6]), (GetStatus::Found, 10, 3, 2, asked.clone()));
    assert_eq!(get(32, 1 << 20, &[]), (GetStatus::NoMatchedMessage, 10, 0, 0, asked));
    assert_eq!(get(1, 1 << 20, &[3, 5]), (GetStatus::Found, 4, 1, 1, vec![1, 2, 3]));
    assert_eq!(
        get(32, 1, &[9]),
        (GetStatus::Found, 10, 1, 1, vec![1, 2, 3, 5, 6, 7, 8, 9]),
        "limits count what is given"
    );
}

#[test]
fn a_batch_is_one_run_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let file = store.config().mapped_file_size_commit_log;
    for round in 0..30 {
        let batch = [message("T", 0, &[1; 300], b""); 5];
        let a = store.append_batch(&batch).unwrap();
        assert_eq!((a.queue_offset, a.count), (round * 5, 5));
        assert_eq!(a.offset / file, (a.end - 1) / file, "split over files");
    }
    settle(&store);
    let offsets: Vec<i64> = store.queue_entries("T", 0, 0, 1000).iter().map(|e| e.queue_offset).collect();
    assert_eq!(offsets, (0..150).collect::<Vec<_>>());
    let other = [message("T", 0, b"", b""), message("T", 1, b"", b"")];
    assert!(matches!(store.append_batch(&other), Err(StoreError::Batch { .. })));
    assert!(matches!(store.append_batch(&[]), Err(StoreError::Batch { .. })));
    let big = vec![1; file as usize];
    assert!(matches!(store.append(&message("T", 0, &big, b"")), Err(StoreError::MessageTooLarge { .. })));
    assert!(matches!(store.append(&message("../T", 0, b"", b"")), Err(StoreError::TopicName { .. })));
}

#[test]
fn half_messages_enter_no_queue() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    for (kind, offset) in [
        (sys_flag::TRANSACTION_PREPARED, 0),
        (0, 0),
        (sys_flag::TRANSACTION_ROLLBACK, 0),
        (sys_flag::TRANSACTION_COMMIT, 1),
    ] {
        let m = NewMessage { sys_flag: kind, ..message("T", 0, b"x", b"") };
        assert_eq!(store.append(&m).unwrap().queue_offset, offset);
    }
    settle(&store);
    assert_eq!(store.max_offset("T", 0), 2);
}

#[test]
fn the_schedule_queues_carry_delivery_times() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let a = store.append(&message(SCHEDULE_TOPIC, 2, b"x", b"DELAY\x013\x02TAGS\x01TagA\x02")).unwrap();
    settle(&store);
    let entry = store.queue_entries(SCHEDULE_TOPIC, 2, 0, 1)[0];
    assert_eq!(entry.tags_code, a.store_timestamp + 10_000);
}

#[test]
fn concurrent_appends_give_each_offset_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let mut given: Vec<(i32, i64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|t| {
                let store = &store;
                scope.spawn(move || {
                    (0..500)
                        .map(|i| {
                            let queue = (t + i) % 3;
                            let body = vec![t as u8; (i % 97) as usize];
                            (queue, store.append(&message("T", queue, &body, b"")).unwrap().queue_offset)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    given.sort_unstable();
    for queue in 0..3 {
        let offsets: Vec<i64> = given.iter().filter(|g| g.0 == queue).map(|g| g.1).collect();
        assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>());
    }
    settle(&store);
    assert_eq!((0..3).map(|q| pull(&store, "T", q).len()).sum::<usize>(), 2000);
    let mut last = 0;
    for entry in store.queue_entries("T", 0, 0, 10_000) {
        let time = store.store_time("T", 0, entry.queue_offset).unwrap();
        assert!(time >= last, "store times go back");
        last = time;
    }
}

#[test]
fn queues_are_searched_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let mut times = Vec::new();
    for _ in 0..6 {
        for _ in 0..3 {
            times.push(store.append(&message("T", 0, b"x", b"")).unwrap().store_timestamp);
        }
        std::thread::sleep(Duration::from_millis(12));
    }
    settle(&store);
    assert_eq!(store.offset_by_time("T", 9, times[0], TimeBoundary::Nearest), 0);
    assert_eq!(store.offset_by_time("T", 0, 0, TimeBoundary::Nearest), 0);
    assert_eq!(store.offset_by_time("T", 0, i64::MAX / 2, TimeBoundary::Nearest), 17, "the last one is the nearest");
    for time in times[0] - 20..times[17] + 20 {
        let found = store.offset_by_time("T", 0, time, TimeBoundary::Nearest) as usize;
        let distance = |t: i64| (t - time).abs();
        let nearest = times.iter().map(|t| distance(*t)).min().unwrap();
        assert_eq!(distance(times[found]), nearest, "at {time}");
        let first = store.offset_by_time("T", 0, time, TimeBoundary::First) as usize;
        assert_eq!(first, times.iter().position(|t| *t >= time).unwrap_or(18), "at {time}");
        let last = store.offset_by_time("T", 0, time, TimeBoundary::Last) as usize;
        assert_eq!(last, times.iter().rposition(|t| *t <= time).unwrap_or(0), "at {time}");
        if times[found] == time {
            assert_eq!(found, times.iter().position(|t| *t == time).unwrap(), "the first of that time");
        }
    }
    assert_eq!(store.earliest_store_time("T", 0), times[0]);
    assert_eq!(store.earliest_message_time(), times[0]);
    assert_eq!(store.earliest_store_time("T", 5), -1);
}

#[test]
fn keys_find_their_messages() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    for i in 0..200 {
        let properties = format!("KEYS\u{1}order{} all\u{2}UNIQ_KEY\u{1}U{i}\u{2}", i % 10);
        let body = i.to_string();
        store.append(&message("T", 0, body.as_bytes(), properties.as_bytes())).unwrap();
    }
    let last = store.append(&message("Other", 0, b"x", b"KEYS\x01order3")).unwrap();
    settle(&store);
    let bodies = |key: &str, max, begin, end| -> Vec<String> {
        let found = store.query("T", key, max, begin, end);
        assert_eq!(found.index_last_update_phyoffset, last.offset as i64);
        assert_eq!(found.index_last_update_timestamp, last.store_timestamp);
        let body = |m: &bytes::Bytes| String::from_utf8(decode_message(m).unwrap().body.to_vec()).unwrap();
        found.messages.iter().map(body).collect()
    };
    assert_eq!(bodies("U77", 32, 0, i64::MAX), ["77"]);
    assert_eq!(bodies("order3", 3, 0, i64::MAX), ["173", "183", "193"], "the newest, oldest first");
    assert_eq!(bodies("order3", 64, 0, i64::MAX).len(), 20);
    assert_eq!(bodies("all", 1000, 0, i64::MAX).len(), 64, "maxMsgsNumBatch");
    assert!(bodies("order3", 64, 0, 1000).is_empty() && bodies("none", 64, 0, i64::MAX).is_empty());
}

#[test]
fn a_replica_is_the_same_byte_for_byte() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let master = MessageStore::open(config(one.path())).unwrap();
    let slave = MessageStore::open(config(two.path())).unwrap();
    let ends = master.appended();
    for i in 0..300_usize {
        let tag = format!("TAGS\u{1}t{}\u{2}", i % 3);
        master.append(&message("T", (i % 2) as i32, &vec![b'x'; i], tag.as_bytes())).unwrap();
    }
    assert_eq!(*ends.borrow(), master.max_physical_offset());
    let mut sizes = [1, 7, 100, 4096, 33, 32_768].into_iter().cycle();
    let mut offset = 0;
    while let Some(chunk) = master.read_raw(offset, sizes.next().unwrap()) {
        slave.append_raw(offset, &chunk).unwrap();
        offset += chunk.len() as u64;
    }
    assert_eq!(offset, master.max_physical_offset());
    assert!(matches!(slave.append_raw(offset + 1, b"x"), Err(StoreError::NotContiguous { .. })));
    settle(&master);
    settle(&slave);
    assert_eq!(view_of_queues(&slave), view_of_queues(&master));
    assert_eq!(log_bytes(two.path()), log_bytes(one.path()));
    slave.shutdown();
    let again = MessageStore::open(config(two.path())).unwrap();
    assert_eq!(view_of_queues(&again), view_of_queues(&master));
}

#[test]
fn a_replica_may_begin_at_a_later_file_and_end_inside_a_message() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let master = MessageStore::open(config(one.path())).unwrap();
    while master.max_physical_offset() < 40_000 {
        master.append(&message("T", 0, &[1; 200], b"")).unwrap();
    }
    let file = master.config().mapped_file_size_commit_log;
    let start = master.max_physical_offset() / file * file;
    let whole = master.read_raw(start, 1 << 20).unwrap();
    let slave = MessageStore::open(config(two.path())).unwrap();
    slave.append_raw(start, &whole[..whole.len() - 10]).unwrap();
    settle(&master);
    slave.shutdown();
    let slave = MessageStore::open(config(two.path())).unwrap();
    let end = slave.max_physical_offset();
    assert_eq!(end, start + whole.len() as u64 - 292, "the half message is cut");
    assert_eq!(slave.min_physical_offset(), start);
    slave.append_raw(end, &whole[whole.len() - 292..]).unwrap();
    settle(&slave);
    assert_eq!(slave.max_offset("T", 0), master.max_offset("T", 0));
    let first = slave.min_offset("T", 0);
    assert_eq!(slave.queue_entries("T", 0, 0, 9999), master.queue_entries("T", 0, first, 9999));
}

#[test]
fn garbage_from_a_master_stops_the_store_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    store.append_raw(0, &[0x55; 500]).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !store.is_poisoned() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(store.append_raw(500, b"x"), Err(StoreError::Poisoned { .. })));
    drop(store);
    let store = MessageStore::open(config(dir.path())).unwrap();
    assert_eq!(store.max_physical_offset(), 0);
    assert_eq!(store.append(&message("T", 0, b"x", b"")).unwrap().offset, 0);
}

#[test]
fn expired_files_go_and_offsets_stay() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let store = MessageStore::open(config.clone()).unwrap();
    for i in 0..400 {
        let key = format!("UNIQ_KEY\u{1}U{i}\u{2}");
        store.append(&message("T", 0, &[1; 200], key.as_bytes())).unwrap();
    }
    settle(&store);
    let held = store.get_messages("T", 0, 0, 1, 1 << 20, &mut |_| true).messages[0].clone();
    wait_flushed(&store, store.max_physical_offset());
    assert_eq!(store.clean_expired().unwrap(), 0, "nothing is as old as fileReservedTime");
    store.set_file_reserved_time(Duration::ZERO);
    assert!(store.clean_expired().unwrap() > 0);
    let min = store.min_physical_offset();
    assert!(min > 0 && min < store.max_physical_offset());
    assert_eq!(decode_message(&held).unwrap().body, [1; 200], "a reader keeps what it holds");
    let first = store.min_offset("T", 0);
    assert!(first > 0 && store.queue_entries("T", 0, first, 1)[0].offset >= min);
    let r = store.get_messages("T", 0, 0, 1, 1 << 20, &mut |_| true);
    assert_eq!((r.status, r.next_begin_offset), (GetStatus::OffsetTooSmall, first));
    assert_eq!(store.max_offset("T", 0), 400);
    assert!(store.query("T", "U0", 32, 0, i64::MAX).messages.is_empty());
    store.shutdown();
    let again = MessageStore::open(config).unwrap();
    assert_eq!((again.min_offset("T", 0), again.max_offset("T", 0)), (first, 400));
    assert_eq!(again.append(&message("T", 0, b"x", b"")).unwrap().queue_offset, 400);
}

#[test]
fn several_that_delete_expired_files_at_once_take_no_newer_ones_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    store.set_file_reserved_time(Duration::ZERO);
    let mut sent = 0;
    for round in 0..40 {
        for _ in 0..200 {
            let key = format!("UNIQ_KEY\u{1}U{sent}\u{2}");
            store.append(&message("T", 0, &[1; 200], key.as_bytes())).unwrap();
            sent += 1;
        }
        settle(&store);
        wait_flushed(&store, store.max_physical_offset());
        let at_once = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    at_once.wait();
                    store.clean_expired().unwrap();
                });
            }
        });
        let first = store.min_offset("T", 0);
        let there = pull(&store, "T", 0).len();
        assert_eq!((store.max_offset("T", 0), there as i64), (sent, sent - first), "round {round}");
        for i in first..sent {
            let found = store.query("T", &format!("U{i}"), 32, 0, i64::MAX).messages.len();
            assert_eq!(found, 1, "round {round}: U{i}");
        }
    }
}

#[test]
fn a_deleted_topic_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    for _ in 0..50 {
        store.append(&message("T", 0, b"old", b"")).unwrap();
        store.append(&message("Stays", 0, b"s", b"")).unwrap();
    }
    store.delete_topic("T").unwrap();
    assert_eq!((store.max_offset("T", 0), store.max_offset("Stays", 0)), (0, 50));
    assert!(!dir.path().join("consumequeue/T").exists());
    for i in 0..3 {
        assert_eq!(store.append(&message("T", 0, b"new", b"")).unwrap().queue_offset, i);
    }
    settle(&store);
    assert_eq!(pull(&store, "T", 0), vec![b"new".to_vec(); 3]);
    drop(store);
    let store = MessageStore::open(config(dir.path())).unwrap();
    assert_eq!(pull(&store, "T", 0), vec![b"new".to_vec(); 3]);
    assert_eq!(store.append(&message("T", 0, b"x", b"")).unwrap().queue_offset, 3);
}

#[test]
fn one_store_per_directory_and_none_after_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    assert!(matches!(MessageStore::open(config(dir.path())), Err(StoreError::Locked { .. })));
    assert!(dir.path().join("abort").exists());
    store.shutdown();
    store.shutdown();
    assert!(!dir.path().join("abort").exists());
    assert!(matches!(store.append(&message("T", 0, b"x", b"")), Err(StoreError::Closed)));
    let other = StoreConfig { mapped_file_size_commit_log: 8192, ..config(dir.path()) };
    MessageStore::open(config(dir.path())).unwrap().append(&message("T", 0, b"x", b"")).unwrap();
    let refused = MessageStore::open(other).unwrap_err().to_string();
    assert!(refused.contains("mappedFileSizeCommitLog"), "{refused}");
}

#[test]
fn what_is_not_in_memory_is_known_before_it_is_read() {
    // Not in memory alone: pages must be able to leave.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = StoreConfig { mapped_file_size_commit_log: 32 << 20, ..config(dir.path()) };
    let store = MessageStore::open(config.clone()).unwrap();
    let body = vec![1; 1 << 20];
    for _ in 0..100 {
        store.append(&message("T", 0, &body, b"")).unwrap();
    }
    settle(&store);
    assert!(!store.reads_disk("T", 0, 99, 1000), "just written");
    assert!(!store.reads_disk("T", 0, 100, 1000) && !store.reads_disk("T", 7, 0, 1000), "nothing is there");
    store.shutdown();
    drop(store);
    let first = dir.path().join("commitlog/00000000000000000000");
    let file = std::fs::File::open(&first).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let store = MessageStore::open(config).unwrap();
    for bytes in [1, 1000, usize::MAX] {
        assert!(store.reads_disk("T", 0, 3, bytes), "its pages were given back");
    }
    let found = store.get_messages("T", 0, 3, 1, 2 << 20, &mut |_| true);
    found.touch();
    assert!(!store.reads_disk("T", 0, 3, 1000), "read meanwhile");
}
