//! Bugs by which other brokers lost or spoilt messages: one test each, with what went wrong there.
//!
//! Numbers are of apache/rocketmq where nothing else is said. Those that need a disk which fails are in
//! `src/known_bugs.rs`. These had a test already:
//!
//! | bug | test |
//! |---|---|
//! | #2706, #3382, #4306, #9713: a flush failed and was acknowledged | `flush::a_failed_sync_poisons_for_good` |
//! | #3401, #1498, #6096: a torn config file, with its backup | `config_file::every_torn_length_falls_back_to_the_backup` |
//! | iggy #3975: an offset given out again after a kill | `recovery::a_kill_loses_nothing`, `simulation` |
//! | iggy #2958: reads miss what is on disk after a restart | `recovery::a_kill_loses_nothing` |
//! | iggy #3946: a torn tail came back | `recovery::a_page_that_never_reached_the_disk`, `recovery::the_log_cut_at_every_byte_after_a_kill` |
//! | NATS (Jepsen): one flipped bit lost acknowledged messages | `fuzz::whole_store::one_bit_in_each_file` |
//! | rocketmq-rust #4693: entries read from too long a buffer | `consume_queue::units_lie_where_rocketmq_has_them` |
//! | rocketmq-rust #2871: the index was built wrongly | `store::keys_find_their_messages` |
//! | rocketmq-rust #423: queue offsets counted wrongly | `store::concurrent_appends_give_each_offset_once` |

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rocketmq_store::{FlushDiskType, MessageStore, StoreConfig, decode_message, java_string_hash};
use support::{config, copy_dir, message, pull, settle, tempdir, view_of_queues, wait_flushed};

/// ROCKETMQ-320: a shutdown did not wait for the dispatcher, and the next start took the stop for a clean one.
#[test]
fn rocketmq_320_shutdown_with_dispatch_behind() {
    let dir = tempdir();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let acknowledged: Vec<i64> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|queue| {
                let store = &store;
                scope.spawn(move || {
                    let mut taken = 0;
                    while store.append(&message("T", queue, &[1; 100], b"")).is_ok() {
                        taken += 1;
                    }
                    taken
                })
            })
            .collect();
        while store.max_physical_offset() < 200_000 {
            std::thread::yield_now();
        }
        store.shutdown();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    assert!(!dir.path().join("abort").exists(), "not a clean stop");
    drop(store);
    let store = MessageStore::open(config(dir.path())).unwrap();
    for (queue, taken) in (0..3).zip(acknowledged) {
        assert_eq!(pull(&store, "T", queue).len() as i64, taken, "queue {queue}");
    }
}

/// Tells the other threads to stop, also when this one fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// ROCKETMQ-332: `findMappedFileByOffset` looked into the list of files while it changed and found the wrong one.
#[test]
fn rocketmq_332_files_are_found_while_the_log_rolls_and_expires() {
    let dir = tempdir();
    let config = StoreConfig { mapped_file_size_commit_log: 2048, ..config(dir.path()) };
    let store = MessageStore::open(config).unwrap();
    store.set_file_reserved_time(Duration::ZERO);
    let (done, found) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _done = Done(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                let _done = Done(&done);
                while !done.load(Ordering::Relaxed) {
                    for queue_offset in store.min_offset("T", 0)..store.max_offset("T", 0) {
                        let Some(entry) = store.queue_entries("T", 0, queue_offset, 1).first().copied() else {
                            continue;
                        };
                        // It may have expired meanwhile, but it is never another.
                        let Some(unit) = store.message_at(entry.offset) else { continue };
                        let m = decode_message(&unit).unwrap();
                        assert_eq!((m.physical_offset, m.queue_offset), (entry.offset, entry.queue_offset));
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 0..30_u8 {
            for _ in 0..20 {
                store.append(&message("T", 0, &[round; 500], b"")).unwrap();
            }
            settle(&store);
            wait_flushed(&store, store.max_physical_offset());
            store.clean_expired().unwrap();
        }
        while found.load(Ordering::Relaxed) < 100 && !done.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    });
    assert!(store.min_physical_offset() > 100_000, "nothing expired");
}

/// #9728, #10108: the last file of a consume queue held nothing after a crash, `correctMinOffset` threw, and the broker
/// did not start.
#[test]
fn rocketmq_9728_10108_the_last_consume_queue_file_is_empty() {
    let units = 20;
    for clean in [true, false] {
        let dir = tempdir();
        let store = MessageStore::open(config(dir.path())).unwrap();
        for i in 0..2 * units {
            store.append(&message("T", 0, &[i], b"")).unwrap();
        }
        settle(&store);
        if clean {
            store.shutdown();
        }
        drop(store);
        for len in [0, 1, 20, 399, 400] {
            let copy = tempdir();
            copy_dir(dir.path(), copy.path());
            fs::write(copy.path().join("consumequeue/T/0/00000000000000000800"), vec![0; len]).unwrap();
            let store = MessageStore::open(config(copy.path())).unwrap();
            assert_eq!(pull(&store, "T", 0).len(), 40, "{len} bytes, clean {clean}");
            assert_eq!(store.append(&message("T", 0, b"x", b"")).unwrap().queue_offset, 40);
            settle(&store);
            assert_eq!(pull(&store, "T", 0).len(), 41);
        }
    }
}

/// #7355, #354, #358: after a crash consume queues pointed behind the end of the log, and what came next was "[BUG]logic
/// queue order maybe wrong".
#[test]
fn rocketmq_7355_queues_and_index_longer_than_the_log() {
    let dir = tempdir();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let mut ends = Vec::new();
    for i in 0..60 {
        let key = format!("UNIQ_KEY\u{1}K{i}\u{2}");
        ends.push(store.append(&message("T", i % 2, &[1; 700], key.as_bytes())).unwrap());
    }
    settle(&store);
    drop(store);
    // The two last files of the log are gone, and part of the one before.
    let size = config(dir.path()).mapped_file_size_commit_log;
    let last = ends[59].end / size;
    // And the file that was made ahead.
    for file in [last - 1, last, last + 1] {
        let _ = fs::remove_file(dir.path().join(format!("commitlog/{:020}", file * size)));
    }
    let path = dir.path().join(format!("commitlog/{:020}", (last - 2) * size));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let end = (last - 2) * size + size / 2;
    let kept = ends.iter().filter(|a| a.end <= end).count();
    assert!((10..50).contains(&kept));

    let store = MessageStore::open(config(dir.path())).unwrap();
    assert_eq!((0..2).map(|queue| store.max_offset("T", queue) as usize).sum::<usize>(), kept);
    for i in 0..60 {
        let found = store.query("T", &format!("K{i}"), 8, 0, i64::MAX).messages.len();
        assert_eq!(found, usize::from(i < kept), "K{i}");
    }
    for i in 0..20 {
        store.append(&message("T", i % 2, b"new", b"UNIQ_KEY\x01N\x02")).unwrap();
    }
    settle(&store);
    assert_eq!(store.stats().dispatch_conflicts, 0);
    assert_eq!(pull(&store, "T", 0).len() + pull(&store, "T", 1).len(), kept + 20);
}

/// #7523: one switch together with synchronous flush made every send time out.
#[test]
fn rocketmq_7523_every_pair_of_switches_flushes() {
    for switches in 0..32_u8 {
        let on = |bit: u8| switches & (1 << bit) != 0;
        let dir = tempdir();
        let config = StoreConfig {
            flush_disk_type: if on(0) { FlushDiskType::SyncFlush } else { FlushDiskType::AsyncFlush },
            warm_mapped_file_enable: on(1),
            message_index_enable: on(2),
            message_index_safe: on(3),
            check_crc_on_recover: on(4),
            // What does not flush by itself must be woken.
            flush_interval_commit_log: Duration::from_hours(1),
            flush_commit_log_thorough_interval: Duration::from_hours(1),
            ..config(dir.path())
        };
        let store = MessageStore::open(config.clone()).unwrap();
        for i in 0..5 {
            let end = store.append(&message("T", 0, &[1; 5000], b"UNIQ_KEY\x01K\x02")).unwrap().end;
            wait_flushed(&store, end);
            assert!(store.flushed_offset() >= end, "{config:?}");
            settle(&store);
            assert_eq!(store.max_offset("T", 0), i + 1, "{config:?}");
        }
        drop(store);
        assert_eq!(pull(&MessageStore::open(config).unwrap(), "T", 0).len(), 5);
    }
}

/// #7279, #1100: a broker with much data mapped all of it, until the machine had no page tables or mappings left.
#[test]
fn rocketmq_7279_1100_mappings_and_descriptors_stay_bounded() {
    const FILES: usize = 2000;
    let dir = tempdir();
    let config = StoreConfig { mapped_file_size_commit_log: 1024, ..config(dir.path()) };
    let log_dir = config.commit_log_dir();
    let store = MessageStore::open(config.clone()).unwrap();
    for i in 0..FILES {
        store.append(&message("T", (i % 50) as i32, &[1; 800], b"")).unwrap();
    }
    settle(&store);
    assert!(fs::read_dir(&log_dir).unwrap().count() >= FILES);
    let check = |store: &MessageStore| {
        let read: usize = (0..50).map(|queue| pull(store, "T", queue).len()).sum();
        assert_eq!(read, FILES);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let of_log = maps.lines().filter(|line| line.contains(log_dir.to_str().unwrap())).count();
        assert!((1..=20).contains(&of_log), "{of_log} log files are mapped");
        let of_store = maps.lines().filter(|line| line.contains(dir.path().to_str().unwrap())).count();
        let queues = 50 * (FILES / 50).div_ceil(20);
        assert!(of_store <= of_log + queues + 4, "{of_store} files are mapped, {of_log} of the log");
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let open = open.filter(|path| path.starts_with(dir.path())).count();
        assert!(open <= 8, "{open} files are open");
    };
    check(&store);
    store.shutdown();
    drop(store);
    check(&MessageStore::open(config).unwrap());
}

/// rocketmq-rust #2890: `abs` of a key's hash overflowed for the smallest number, and the entry was put outside the slots.
#[test]
fn rocketmq_rust_2890_a_key_of_the_smallest_hash_is_found() {
    let key = (0_u32..)
        .find_map(|i| {
            let before = format!("T#{i}");
            let last = i32::MIN.wrapping_sub(java_string_hash(&before).wrapping_mul(31)) as u32;
            let last = Some(last).filter(|c| (0x4E00..0x9FFF).contains(c)).and_then(char::from_u32)?;
            Some(format!("{i}{last}"))
        })
        .unwrap();
    assert_eq!(java_string_hash(&format!("T#{key}")), i32::MIN);
    let dir = tempdir();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let properties = format!("KEYS\u{1}{key}\u{2}");
    let at = store.append(&message("T", 0, b"x", properties.as_bytes())).unwrap();
    settle(&store);
    let found = store.query("T", &key, 8, 0, i64::MAX).messages;
    assert_eq!(found.len(), 1);
    assert_eq!(decode_message(&found[0]).unwrap().physical_offset, at.offset);
}

fn without_derived(from: &Path, to: &Path) {
    copy_dir(from, to);
    for name in ["consumequeue", "index"] {
        let _ = fs::remove_dir_all(to.join(name));
    }
    for name in ["checkpoint", "derived.manifest", "derived.manifest.bak"] {
        let _ = fs::remove_file(to.join(name));
    }
}

/// #467, #1434, #405: what was not dispatched before a crash was never dispatched, in the second-last file above all.
#[test]
fn rocketmq_467_1434_405_a_kill_anywhere_between_append_and_dispatch() {
    for kill_after in 0..40 {
        let dir = tempdir();
        let config = StoreConfig { mapped_file_size_commit_log: 4096, ..config(dir.path()) };
        let store = MessageStore::open(config.clone()).unwrap();
        for i in 0..40 {
            let key = format!("UNIQ_KEY\u{1}K{i}\u{2}");
            store.append(&message("T", i % 3, &[1; 300], key.as_bytes())).unwrap();
            if i == kill_after {
                settle(&store);
            }
            if i == kill_after + 1 {
                break;
            }
        }
        // The dispatcher may be anywhere in what follows now: the copy is of a moment in between.
        for i in 0..20 {
            store.append(&message("T", i % 3, &[2; 700], b"")).unwrap();
        }
        let (copy, scanned) = (tempdir(), tempdir());
        copy_dir(dir.path(), copy.path());
        drop(store);
        without_derived(copy.path(), scanned.path());
        let at = |dir: &Path| StoreConfig { store_path_root_dir: dir.to_owned(), ..config.clone() };
        let (killed, rebuilt) =
            (MessageStore::open(at(copy.path())).unwrap(), MessageStore::open(at(scanned.path())).unwrap());
        assert_eq!(view_of_queues(&killed), view_of_queues(&rebuilt), "killed after {kill_after}");
        let mut counts = BTreeMap::new();
        for (queue, (_, max, entries)) in view_of_queues(&killed) {
            assert_eq!(max, entries.len() as i64, "{queue:?}");
            counts.insert(queue, max);
        }
        assert!(counts.values().sum::<i64>() >= i64::from(kill_after.min(38)) + 2, "{counts:?}");
    }
}
