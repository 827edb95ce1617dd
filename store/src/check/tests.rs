//! The check while the disk fails, and while everybody else goes on.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::config::StoreConfig;
use crate::disk::{Call, Disk, Faults};
use crate::message::decode_message;
use crate::{MessageStore, NewMessage};

const OLD: &str = "consumequeue/T/0/00000000000000000200";

/// A disk that fails some calls for one file.
#[derive(Debug, Default)]
struct BadFile {
    /// How many of the next reads fail.
    reads: AtomicUsize,
    /// Whether nothing takes its name.
    renames: AtomicBool,
}

impl Faults for BadFile {
    fn call(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let broken = match call {
            Call::Read(path) if path.ends_with(OLD) => {
                self.reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            }
            Call::Rename(_, to) => to.ends_with(OLD) && self.renames.load(Ordering::Relaxed),
            _ => false,
        };
        if broken { Err(io::Error::from_raw_os_error(5)) } else { run() }
    }
}

fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        store_path_root_dir: dir.to_owned(),
        mapped_file_size_commit_log: 16 << 10,
        mapped_file_size_consume_queue: 200,
        max_hash_slot_num: 20,
        max_index_num: 40,
        derived_checked_at_open: 1,
        ..StoreConfig::default()
    }
}

fn append(store: &MessageStore, count: u32) {
    for _ in 0..count {
        store.append(&NewMessage { body: b"body", properties: b"TAGS\x01t\x02", ..NewMessage::sample() }).unwrap();
    }
}

/// A closed store of some old queue files, and what the second of them holds.
fn closed(dir: &Path) -> Vec<u8> {
    let store = MessageStore::open(config(dir)).unwrap();
    append(&store, 60);
    store.shutdown();
    std::fs::read(dir.join(OLD)).unwrap()
}

fn flip(file: &Path, at: usize) {
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at as u64).unwrap();
}

/// The queue offsets of what a consumer gets from `from` to `to`.
fn assert_readable(store: &MessageStore, from: i64, to: i64) {
    let mut next = from;
    while next < to {
        let got = store.get_messages("T", 0, next, 32, 1 << 20, &mut |_| true);
        assert!(got.message_count > 0, "{got:?} at {next}");
        for run in got.messages {
            let mut rest = &run[..];
            while !rest.is_empty() {
                let message = decode_message(rest).unwrap();
                assert_eq!(message.queue_offset, next);
                next += 1;
                rest = &rest[message.total_size as usize..];
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let good = closed(dir.path());
    // What is read now is wrong too: it must not be taken over.
    flip(&dir.path().join(OLD), 7);
    let disk = Arc::new(BadFile::default());
    let store =
        MessageStore::recover(config(dir.path()), Disk::with_faults(Arc::clone(&disk) as Arc<dyn Faults>)).unwrap();
    // By the comparison, and when it is made anew.
    disk.reads.store(2, Ordering::Relaxed);
    assert!(round(store.core(), &Signal::never()));
    assert_eq!(std::fs::read(dir.path().join(OLD)).unwrap(), good);
    assert_eq!((store.stats().mended_files, disk.reads.load(Ordering::Relaxed)), (1, 0));
    assert_readable(&store, 0, 60);
}

#[test]
fn what_cannot_be_made_anew_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let good = closed(dir.path());
    flip(&dir.path().join(OLD), 4);
    let disk = Arc::new(BadFile::default());
    let store =
        MessageStore::recover(config(dir.path()), Disk::with_faults(Arc::clone(&disk) as Arc<dyn Faults>)).unwrap();
    disk.renames.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(!round(store.core(), &Signal::never()));
        // Readers look for the message themselves.
        assert_readable(&store, 0, 60);
        store.writable().unwrap();
    }
    disk.renames.store(false, Ordering::Relaxed);
    assert!(round(store.core(), &Signal::never()));
    assert_eq!(std::fs::read(dir.path().join(OLD)).unwrap(), good);
}

/// Files are replaced, also the one that is written, while others read, append, flush and delete.
#[test]
fn readers_and_the_dispatcher_notice_nothing() {
    const ROUNDS: usize = 150;
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path()));
    let store = MessageStore::open(config(dir.path())).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let max = store.max_offset("T", 0);
                    assert_readable(&store, store.min_offset("T", 0).max(max - 200), max);
                }
            });
        }
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // No faster than they are dispatched.
                if store.dispatched_offset() == store.max_physical_offset() {
                    append(&store, 1);
                }
                std::thread::yield_now();
            }
        });
        let core = store.core();
        let queue = core.queues.find("T", 0).unwrap();
        for i in 0..ROUNDS {
            let files = queue.files();
            let file = &files[files.len() - 1 - i % files.len().min(4)];
            if file.published() < 20 {
                continue;
            }
            // Log offset or size.
            flip(file.path(), i % 12);
            mend::queue_file(core, &queue, file, &mut |_| true).unwrap();
            if i % 10 == 0 {
                core.checkpoint_all().unwrap();
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    store.shutdown();
    let max = store.max_offset("T", 0);
    drop(store);
    let store = MessageStore::recover(config(dir.path()), Disk::default()).unwrap();
    assert!(round(store.core(), &Signal::never()));
    assert_eq!((store.stats().mended_files, store.max_offset("T", 0)), (0, max));
    assert_readable(&store, 0, max);
}
