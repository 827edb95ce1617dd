//! Bugs by which other brokers lost messages when a disk failed: one test each, with what went wrong there.
//!
//! Those that need no failing disk are in `tests/known_bugs.rs`, with the list of those tested elsewhere. Numbers are of
//! apache/rocketmq where nothing else is said.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::config_file::ConfigFile;
use crate::disk::{Call, Disk, Faults};
use crate::dispatcher;
use crate::failing_disk::FailingDisk;
use crate::simulated_disk::SimulatedDisk;
use crate::simulation::shared_memory;
use crate::worker::Signal;
use crate::{FlushDiskType, MessageStore, NewMessage, StoreConfig, StoreError, decode_message};

const EIO: i32 = 5;
const EROFS: i32 = 30;

fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        store_path_root_dir: dir.to_owned(),
        mapped_file_size_commit_log: 4096,
        mapped_file_size_consume_queue: 400,
        max_hash_slot_num: 20,
        max_index_num: 40,
        flush_disk_type: FlushDiskType::SyncFlush,
        sync_flush_timeout: Duration::from_millis(300),
        ..StoreConfig::default()
    }
}

fn message(body: &[u8]) -> NewMessage<'_> {
    NewMessage { body, properties: b"UNIQ_KEY\x01K\x02", ..NewMessage::sample() }
}

fn dispatch(store: &MessageStore) {
    while dispatcher::advance(store.core(), &Signal::never()).unwrap_or(false) {}
}

fn bodies(store: &MessageStore) -> Vec<Vec<u8>> {
    let entries = store.queue_entries("T", 0, 0, usize::MAX);
    let body = |offset| decode_message(&store.message_at(offset).unwrap()).unwrap().body.to_vec();
    entries.iter().map(|entry| body(entry.offset)).collect()
}

/// #3129, #5235: a file system turned read-only under the broker; it went on acknowledging until the power went.
#[test]
fn rocketmq_3129_5235_a_disk_that_becomes_read_only() {
    let dir = tempfile::tempdir_in(shared_memory()).unwrap();
    let (faults, disk) = FailingDisk::new(|call| (!matches!(call, Call::Read(_) | Call::SyncDir(_))).then_some(EROFS));
    let store = MessageStore::recover(config(dir.path()), disk.clone()).unwrap();
    store.append(&message(b"before")).unwrap();
    store.core().flush_log(0).unwrap();
    dispatch(&store);
    faults.set(true);
    // It is in memory, but nobody is told that it is on disk.
    let end = store.append(&message(b"unflushed")).unwrap().end;
    let refused = store.core().flush_log(0).unwrap_err().to_string();
    assert!(refused.contains("commitlog/00000000000000000000"), "{refused}");
    assert!(store.flushed_offset() < end && store.is_poisoned());
    assert!(matches!(store.append(&message(b"later")), Err(StoreError::Poisoned { .. })));
    dispatch(&store);
    assert_eq!(bodies(&store), [b"before"], "what may be lost was given to a consumer, or what is safe was not");
    store.shutdown();
    drop(store);
    let refused = MessageStore::recover(config(dir.path()), disk.clone()).unwrap_err().to_string();
    assert!(refused.contains(dir.path().to_str().unwrap()), "{refused}");
    faults.set(false);
    let store = MessageStore::recover(config(dir.path()), disk).unwrap();
    assert_eq!(bodies(&store)[0], b"before");
}

/// #8239: with synchronous flush a consumer read a message before it was on disk; after a power loss its offset went to
/// another message, which that consumer never saw.
#[test]
fn rocketmq_8239_consumers_see_only_what_is_flushed() {
    let dir = tempfile::tempdir_in(shared_memory()).unwrap();
    let store = MessageStore::recover(config(dir.path()), Disk::default()).unwrap();
    for i in 0..20_u8 {
        let at = store.append(&message(&[i; 300])).unwrap();
        dispatch(&store);
        assert!(store.max_offset("T", 0) == i64::from(i) && store.dispatched_offset() <= at.offset);
        assert_eq!(store.query("T", "K", 64, 0, i64::MAX).messages.len(), usize::from(i));
        store.core().flush_log(0).unwrap();
        dispatch(&store);
        assert_eq!((store.max_offset("T", 0), store.flushed_offset()), (i64::from(i) + 1, at.end));
    }
}

/// #678: the index thread noted its time in the checkpoint for the consume queues too, which were not flushed; after a
/// crash recovery began too late.
#[test]
fn rocketmq_678_the_checkpoint_waits_for_the_queues() {
    let dir = tempfile::tempdir_in(shared_memory()).unwrap();
    let of_queue = |call: &Call<'_>| match call {
        Call::SyncRange(path, ..) if path.components().any(|c| c.as_os_str() == "consumequeue") => Some(EIO),
        _ => None,
    };
    let (faults, disk) = FailingDisk::new(of_queue);
    let store = MessageStore::recover(config(dir.path()), disk).unwrap();
    let mut noted = None;
    for i in 0..10_u8 {
        store.append(&message(&[i])).unwrap();
        store.core().flush_log(0).unwrap();
        dispatch(&store);
        // What failed once may be lost although the next sync succeeds.
        faults.set(i == 5);
        assert_eq!(store.core().checkpoint_all().is_err(), i == 5);
        let now = (store.core().checkpoint.get().logics, store.core().checkpoint.get().index);
        let manifest = std::fs::read_to_string(dir.path().join("derived.manifest")).unwrap();
        if i < 5 {
            noted = Some((now, manifest));
            std::thread::sleep(Duration::from_millis(2));
        } else {
            assert_eq!(Some((now, manifest)), noted, "noted although the queues are not on disk");
        }
    }
    assert!(!faults.failed.lock().is_empty());
}

/// iggy #4128: a directory that could not be synced was passed over, and the new segment was gone after a power loss.
#[test]
fn iggy_4128_a_directory_that_cannot_be_synced_is_an_error() {
    let dir = tempfile::tempdir_in(shared_memory()).unwrap();
    let (faults, disk) = FailingDisk::new(|call| matches!(call, Call::SyncDir(_)).then_some(EIO));
    let store = MessageStore::recover(config(dir.path()), disk.clone()).unwrap();
    let last = store.append(&message(&[1; 3000])).unwrap();
    faults.set(true);
    // The next one needs the next file.
    let refused = store.append(&message(&[2; 3000])).unwrap_err().to_string();
    assert!(refused.contains("sync") && refused.contains("commitlog"), "{refused}");
    let config_file = ConfigFile::on(disk.clone(), dir.path().join("topics.json"));
    assert!(config_file.persist("{}").is_err());
    faults.set(false);
    let next = store.append(&message(&[3; 3000])).unwrap();
    assert_eq!((next.offset, next.queue_offset), (4096, last.queue_offset + 1), "an offset was lost to the failure");
    store.core().flush_log(0).unwrap();
    drop(store);
    let store = MessageStore::recover(config(dir.path()), disk).unwrap();
    assert_eq!(bodies(&store), [[1; 3000], [3; 3000]]);
}

/// #9705, #9706, #3401: `topics.json` was garbage after a power loss, its backup too, and the broker did not start.
#[test]
fn rocketmq_9705_9706_a_config_file_when_the_power_goes() {
    let parse = |text: &str| text.strip_suffix('.').and_then(|number| number.parse::<u64>().ok()).ok_or("torn");
    for seed in 0..300 {
        let dir = tempfile::tempdir_in(shared_memory()).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let simulated = Arc::new(SimulatedDisk::new(dir.path(), seed));
        let disk = Disk::with_faults(Arc::clone(&simulated) as Arc<dyn Faults>);
        let file = ConfigFile::on(disk, dir.path().join("topics.json"));
        let mut done = None;
        for _ in 0..3 {
            simulated.power_off_within(rng.random_range(1..40));
            let mut tried = done;
            for number in done.map_or(0, |done| done + 1).. {
                tried = Some(number);
                // Longer than a sector, so that it can tear.
                if file.persist(&format!("{number:01000}.")).is_err() {
                    break;
                }
                done = tried;
            }
            simulated.power_on();
            let found = file.load(parse).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(found == done || found == tried, "seed {seed}: {found:?} instead of {done:?} or {tried:?}");
            done = found;
        }
    }
}

/// #9706: the damaged file became its own backup, and what went wrong next left neither.
#[test]
fn rocketmq_9706_a_damaged_config_file_does_not_replace_its_backup_first() {
    let parse = |text: &str| text.strip_suffix('.').and_then(|number| number.parse::<u64>().ok()).ok_or("torn");
    let mut failures = 0;
    for call in 1..30 {
        let dir = tempfile::tempdir_in(shared_memory()).unwrap();
        let simulated = Arc::new(SimulatedDisk::new(dir.path(), call));
        let disk = Disk::with_faults(Arc::clone(&simulated) as Arc<dyn Faults>);
        let file = ConfigFile::on(disk, dir.path().join("topics.json"));
        file.persist("1.").unwrap();
        file.persist("2.").unwrap();
        std::fs::write(file.path(), "garbage").unwrap();
        simulated.fail_within(call);
        failures += u64::from(file.persist("3.").is_err());
        let found = file.load(parse).unwrap_or_else(|e| panic!("call {call}: {e}"));
        assert!(found == Some(1) || found == Some(3), "call {call}: {found:?}");
    }
    assert!((5..29).contains(&failures), "{failures} calls failed");
}

/// #467, #1434, #405 once more, at every message and over several files: what the kill left undispatched is dispatched by
/// the next start, with a note of how far the queues had got and without.
#[test]
fn rocketmq_467_a_kill_after_each_dispatched_message() {
    const COUNT: u8 = 30;
    for noted in [false, true] {
        for dispatched in 0..COUNT {
            let dir = tempfile::tempdir_in(shared_memory()).unwrap();
            let store = MessageStore::recover(config(dir.path()), Disk::default()).unwrap();
            for i in 0..COUNT {
                store.append(&message(&[i; 350])).unwrap();
                if i < dispatched {
                    store.core().flush_log(0).unwrap();
                    dispatch(&store);
                }
            }
            assert_eq!(store.max_offset("T", 0), i64::from(dispatched));
            if noted {
                store.core().checkpoint_all().unwrap();
            }
            drop(store);
            let store = MessageStore::recover(config(dir.path()), Disk::default()).unwrap();
            let expected: Vec<Vec<u8>> = (0..COUNT).map(|i| vec![i; 350]).collect();
            assert!(bodies(&store) == expected, "{dispatched} dispatched, noted {noted}");
            assert_eq!(store.query("T", "K", 64, 0, i64::MAX).messages.len(), usize::from(COUNT));
        }
    }
}
