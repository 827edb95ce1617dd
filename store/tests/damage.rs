//! Damage that once cost more than what was damaged. The fuzz targets found it; each case is a test here.

mod support;

use std::fs;
use std::path::Path;

use rocketmq_store::{MessageStore, StoreConfig, decode_message};
use support::{config, copy_dir, log_bytes, message, pull, settle, tempdir};

const COUNT: u8 = 24;

/// A store that was killed before it noted what its queues hold, everything flushed.
fn killed(dir: &Path) -> StoreConfig {
    let config = StoreConfig { mapped_file_size_commit_log: 2048, ..config(dir) };
    let store = MessageStore::open(config.clone()).unwrap();
    for i in 0..COUNT {
        store.append(&message("T", 0, &vec![i; 100 + usize::from(i)], b"TAGS\x01a\x02")).unwrap();
    }
    settle(&store);
    let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    rt.block_on(store.flushed(store.max_physical_offset())).unwrap();
    drop(store);
    config
}

/// What is pulled from a damaged copy, and the offset that the next message gets.
fn open_copy(from: &Path, config: &StoreConfig, damage: impl FnOnce(&Path)) -> (Vec<Vec<u8>>, i64) {
    let copy = tempdir();
    copy_dir(from, copy.path());
    damage(copy.path());
    let config = StoreConfig { store_path_root_dir: copy.path().to_owned(), ..config.clone() };
    let first = pull(&MessageStore::open(config.clone()).unwrap(), "T", 0);
    let store = MessageStore::open(config).unwrap();
    assert_eq!(pull(&store, "T", 0), first, "not the same when opened again");
    (first, store.append(&message("T", 0, b"x", b"")).unwrap().queue_offset)
}

/// The unit was rewritten, and the queue before it left empty; or it hid the messages up to where it wrongly pointed.
#[test]
fn a_damaged_unit_hides_no_message_of_a_store_killed_young() {
    let dir = tempdir();
    let config = killed(dir.path());
    let expected: Vec<Vec<u8>> = (0..COUNT).map(|i| vec![i; 100 + usize::from(i)]).collect();
    let file = "consumequeue/T/0/00000000000000000000";
    for at in 0..400 {
        let (found, next) = open_copy(dir.path(), &config, |copy| {
            let mut bytes = fs::read(copy.join(file)).unwrap();
            bytes[at] ^= 1 << (at % 8);
            fs::write(copy.join(file), bytes).unwrap();
        });
        assert!(found == expected, "byte {at}: {} of {COUNT}", found.len());
        assert_eq!(next, i64::from(COUNT));
    }
}

/// Everything behind the cut was moved away with the files behind it, though they were whole and had been flushed.
#[test]
fn a_log_file_cut_short_costs_what_was_in_it() {
    let dir = tempdir();
    let config = killed(dir.path());
    let mut files: Vec<_> = fs::read_dir(config.commit_log_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    // One that has another file with messages behind it, and maybe the one made ahead.
    let file = Path::new("commitlog").join(&files[1]);
    files.truncate(4);
    for len in [0, 1, 500, 2047] {
        let (found, next) = open_copy(dir.path(), &config, |copy| {
            let bytes = fs::read(copy.join(&file)).unwrap();
            fs::write(copy.join(&file), &bytes[..len]).unwrap();
            for name in fs::read_dir(copy.join("commitlog")).unwrap().map(|e| e.unwrap().file_name()) {
                // Only of the last three files a short one is torn; another is refused.
                if !files.contains(&name) {
                    fs::remove_file(copy.join("commitlog").join(name)).unwrap();
                }
            }
        });
        assert_eq!(found.first(), Some(&vec![0; 100]), "cut to {len}");
        assert!(found.len() > 12, "cut to {len}: {} are left", found.len());
        assert_eq!(next, i64::from(COUNT));
    }
}

/// What takes the place of a damaged message had queue offset 0, and was pulled as the queue's first one.
#[test]
fn what_replaces_a_damaged_message_is_not_given_to_consumers() {
    let dir = tempdir();
    let config = killed(dir.path());
    let (found, next) = open_copy(dir.path(), &config, |copy| {
        let file = copy.join("commitlog/00000000000000000000");
        let mut bytes = fs::read(&file).unwrap();
        bytes[4] ^= 0xFF;
        fs::write(file, bytes).unwrap();
    });
    assert_eq!(found.len(), usize::from(COUNT) - 1);
    assert_eq!(found[0], vec![1; 101]);
    assert_eq!(next, i64::from(COUNT));
}

/// Where messages lie in the log, in order.
fn units(root: &Path) -> Vec<usize> {
    let log = log_bytes(root);
    let mut at = 0;
    let mut found = Vec::new();
    while at + 8 <= log.len() {
        let size = u32::from_be_bytes(log[at..at + 4].try_into().unwrap()) as usize;
        if log[at + 4..at + 8] == [0xDA, 0xA3, 0x20, 0xA7] {
            found.push(at);
        }
        at += size;
    }
    found
}

/// One bit of a message's queue offset made it the queue's first one, and those before it were gone; or it left a hole
/// that the messages behind it were not let into.
#[test]
fn a_damaged_queue_offset_costs_its_message_only() {
    const AT_QUEUE_OFFSET: usize = 20;
    let dir = tempdir();
    let config = killed(dir.path());
    for (number, unit) in units(dir.path()).into_iter().enumerate() {
        for bit in 0..64 {
            let at = unit + AT_QUEUE_OFFSET + 7 - bit / 8;
            let (found, next) = open_copy(dir.path(), &config, |copy| {
                fs::remove_dir_all(copy.join("consumequeue")).unwrap();
                let file = copy.join(format!("commitlog/{:020}", at / 2048 * 2048));
                let mut bytes = fs::read(&file).unwrap();
                bytes[at % 2048] ^= 1 << (bit % 8);
                fs::write(file, bytes).unwrap();
            });
            let expected: Vec<usize> = (0..usize::from(COUNT)).filter(|i| *i != number).collect();
            let numbers: Vec<usize> = found.iter().map(|body| usize::from(body[0])).collect();
            let is_last = number + 1 == usize::from(COUNT);
            // Nothing follows the last one: it may be right that messages before it are missing.
            let is_believed = is_last && numbers.len() == usize::from(COUNT);
            assert!(numbers == expected || is_believed, "bit {bit} of message {number}: {numbers:?}");
            assert!(next == i64::from(COUNT) || is_believed && next > i64::from(COUNT), "{next}");
        }
    }
}

/// A consumer was given a message whose inner lengths were damaged since the broker's start, could not decode it, and came
/// no further.
#[test]
fn a_consumer_gets_past_a_message_damaged_after_a_clean_stop() {
    const NUMBER: usize = 5;
    let dir = tempdir();
    let config = killed(dir.path());
    MessageStore::open(config.clone()).unwrap().shutdown();
    let unit = units(dir.path())[NUMBER];
    let log = log_bytes(dir.path());
    let size = u32::from_be_bytes(log[unit..unit + 4].try_into().unwrap()) as usize;
    let body_len = 100 + NUMBER;
    let body = (0..size).find(|at| log[unit + at..unit + at + body_len] == vec![NUMBER as u8; body_len]).unwrap();
    for at in (0..body).chain(body + body_len..size) {
        for bit in 0..8 {
            let copy = tempdir();
            copy_dir(dir.path(), copy.path());
            let file = copy.path().join(format!("commitlog/{:020}", (unit + at) / 2048 * 2048));
            let mut bytes = fs::read(&file).unwrap();
            bytes[(unit + at) % 2048] ^= 1 << bit;
            fs::write(&file, bytes).unwrap();
            let config = StoreConfig { store_path_root_dir: copy.path().to_owned(), ..config.clone() };
            let store = MessageStore::open(config).unwrap();
            let mut numbers = Vec::new();
            let mut offset = 0;
            while offset < i64::from(COUNT) {
                let got = store.get_messages("T", 0, offset, 32, 1 << 20, &mut |_| true);
                assert!(got.next_begin_offset > offset, "stuck at {offset}: {got:?}");
                offset = got.next_begin_offset;
                let mut rest = &got.messages.concat()[..];
                while !rest.is_empty() {
                    let message = decode_message(rest).unwrap();
                    numbers.push(message.queue_offset as usize);
                    rest = &rest[message.total_size as usize..];
                }
            }
            numbers.retain(|number| *number != NUMBER);
            let others: Vec<usize> = (0..usize::from(COUNT)).filter(|number| *number != NUMBER).collect();
            assert_eq!(numbers, others, "bit {bit} of byte {at}");
        }
    }
}

/// A queue takes no offset that is far behind its end, for it may be damaged; but so are messages behind lost ones, and they
/// were in no queue.
#[test]
fn what_follows_a_long_hole_is_in_its_queue() {
    const MANY: i64 = 120;
    let dir = tempdir();
    let config = config(dir.path());
    let store = MessageStore::open(config.clone()).unwrap();
    for _ in 0..MANY {
        store.append(&message("T", 0, &[7; 400], b"")).unwrap();
    }
    settle(&store);
    store.shutdown();
    drop(store);
    // More messages are gone than the 20 of a queue file: in the middle of the log, or at its end.
    let first = Path::new("commitlog/00000000000000016384");
    let opened = |damage: &dyn Fn(&Path)| {
        let copy = tempdir();
        copy_dir(dir.path(), copy.path());
        damage(copy.path());
        let config = StoreConfig { store_path_root_dir: copy.path().to_owned(), ..config.clone() };
        let store = MessageStore::open(config).unwrap();
        let appended = store.append(&message("T", 0, b"new", b"")).unwrap().queue_offset;
        settle(&store);
        assert_eq!((appended, store.max_offset("T", 0)), (MANY, MANY + 1));
        let has = |offset: i64| store.queue_entries("T", 0, offset, 1).iter().any(|entry| entry.queue_offset == offset);
        (0..=MANY).filter(|offset| has(*offset)).collect::<Vec<_>>()
    };
    let middle = opened(&|copy| {
        fs::write(copy.join(first), vec![0; 16 << 10]).unwrap();
        fs::remove_dir_all(copy.join("consumequeue")).unwrap();
        fs::remove_file(copy.join("derived.manifest")).unwrap();
    });
    assert!(middle.len() > 80 && middle.ends_with(&[MANY - 2, MANY - 1, MANY]), "{middle:?}");
    let end = opened(&|copy| {
        for file in fs::read_dir(copy.join("commitlog")).unwrap().map(|file| file.unwrap().path()) {
            if file >= copy.join(first) {
                fs::remove_file(file).unwrap();
            }
        }
    });
    assert!(end.len() > 30 && end.len() < 40 && end.ends_with(&[MANY]), "{end:?}");
}
