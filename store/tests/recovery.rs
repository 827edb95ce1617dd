//! Opening what a stop, a kill or a damaged disk left behind.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rocketmq_store::{MessageStore, QueueEntry, StoreConfig, decode_message};
use support::{Queues, config, copy_dir, message, pull, settle, tempdir, view_of_queues};

/// Fills a store in two runs; the second ends by `shutdown` or by a kill.
fn build(dir: &Path, clean: bool) -> Queues {
    for (run, count) in [150, 60].into_iter().enumerate() {
        let store = MessageStore::open(config(dir)).unwrap();
        for i in 0..count {
            let text = format!("TAGS\u{1}t{i}\u{2}UNIQ_KEY\u{1}K{run}-{i}\u{2}");
            let (topic, queue) = if i % 5 == 0 { ("B", 0) } else { ("A", i % 2) };
            store.append(&message(topic, queue, &vec![7; 150 + i as usize], text.as_bytes())).unwrap();
        }
        // Only the first run knows this queue: nothing behind the recovery start mentions it.
        if run == 0 {
            store.append(&message("Old", 3, b"x", b"")).unwrap();
        }
        settle(&store);
        if run == 0 || clean {
            store.shutdown();
        } else {
            return view_of_queues(&store);
        }
    }
    let store = MessageStore::open(config(dir)).unwrap();
    let view = view_of_queues(&store);
    store.shutdown();
    view
}

fn summary(store: &MessageStore) -> String {
    format!("{:?}", store.topics_with_queues())
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_kill_loses_nothing() {
    let dir = tempdir();
    let mut appended = 0;
    for round in 0..5 {
        let store = MessageStore::open(config(dir.path())).unwrap();
        assert_eq!(store.max_offset("T", 0), appended, "round {round}");
        for _ in 0..40 {
            let a = store.append(&message("T", 0, &[1; 300], b"")).unwrap();
            assert_eq!(a.queue_offset, appended);
            appended += 1;
        }
        // No settling: what is not dispatched is dispatched by the next start.
    }
    let store = MessageStore::open(config(dir.path())).unwrap();
    assert_eq!(pull(&store, "T", 0).len() as i64, appended);
}

#[test]
fn a_copy_of_the_running_store_opens() {
    let (dir, copy) = (tempdir(), tempdir());
    let store = MessageStore::open(config(dir.path())).unwrap();
    for _ in 0..100 {
        store.append(&message("T", 0, &[1; 300], b"")).unwrap();
    }
    copy_dir(dir.path(), copy.path());
    assert!(copy.path().join("abort").exists());
    let again = MessageStore::open(config(copy.path())).unwrap();
    assert_eq!(pull(&again, "T", 0).len(), 100);
    assert_eq!(again.append(&message("T", 0, b"x", b"")).unwrap().queue_offset, 100);
}

/// Cuts the last log file at every byte, or breaks it there; what lies before must survive.
fn cut_everywhere(clean: bool, damage: fn(&mut Vec<u8>, usize)) {
    let dir = tempdir();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let ends: Vec<u64> = (0..4).map(|i| store.append(&message("T", 0, &[i; 3], b"TAGS\x01a")).unwrap().end).collect();
    settle(&store);
    if clean {
        store.shutdown();
    }
    drop(store);
    let log = "commitlog/00000000000000000000";
    let whole = fs::read(dir.path().join(log)).unwrap();
    for cut in 0..=ends[3] as usize {
        let copy = tempdir();
        copy_dir(dir.path(), copy.path());
        let mut bytes = whole.clone();
        damage(&mut bytes, cut);
        fs::write(copy.path().join(log), bytes).unwrap();
        let store = MessageStore::open(config(copy.path())).unwrap();
        let kept = ends.iter().filter(|end| **end as usize <= cut).count();
        assert_eq!(pull(&store, "T", 0).len(), kept, "cut at {cut}, clean {clean}");
        assert_eq!(store.max_physical_offset(), if kept == 0 { 0 } else { ends[kept - 1] });
        // After a clean stop the manifest knows which offsets were given out: none is given out again.
        let next = if clean { ends.len() } else { kept };
        assert_eq!(store.append(&message("T", 0, b"x", b"")).unwrap().queue_offset, next as i64, "cut at {cut}");
        drop(store);
        let store = MessageStore::open(config(copy.path())).unwrap();
        assert_eq!(pull(&store, "T", 0).len(), kept + 1, "nothing torn comes back at {cut}");
    }
}

#[test]
fn the_log_cut_at_every_byte_after_a_kill() {
    cut_everywhere(false, Vec::truncate);
}

#[test]
fn the_log_cut_at_every_byte_after_a_clean_stop() {
    cut_everywhere(true, Vec::truncate);
}

#[test]
fn a_page_that_never_reached_the_disk() {
    // The unit at the cut is lost, later ones are there: they must not come back.
    cut_everywhere(false, |bytes, cut| {
        let end = (cut + 95).min(bytes.len());
        bytes[cut..end].fill(0);
    });
}

#[test]
fn every_derived_file_lost_in_every_way() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("deleted", |p| fs::remove_file(p).unwrap()),
        ("zeroed", |p| fs::write(p, vec![0; fs::metadata(p).unwrap().len() as usize]).unwrap()),
        ("halved", |p| fs::write(p, &fs::read(p).unwrap()[..fs::metadata(p).unwrap().len() as usize / 2]).unwrap()),
        ("emptied", |p| fs::write(p, "").unwrap()),
        ("garbled", |p| fs::write(p, vec![0xA5; fs::metadata(p).unwrap().len() as usize]).unwrap()),
    ];
    for clean in [true, false] {
        let dir = tempdir();
        let expected = build(dir.path(), clean);
        assert_eq!(expected.len(), 4);
        let mut files = vec!["checkpoint".into(), "derived.manifest".into()];
        for sub in ["consumequeue", "index"] {
            let mut found = Vec::new();
            files_below(&dir.path().join(sub), &mut found);
            files.extend(found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_owned()));
        }
        assert!(files.len() > 10, "{files:?}");
        for file in files {
            for (name, damage) in damages {
                let what = format!("{} {name}, clean {clean}", file.display());
                let copy = tempdir();
                copy_dir(dir.path(), copy.path());
                damage(&copy.path().join(&file));
                let store = MessageStore::open(config(copy.path())).expect(&what);
                assert!(view_of_queues(&store) == expected, "{what}: {}", summary(&store));
                for key in ["K0-0", "K0-149", "K1-59"] {
                    assert_eq!(
                        store.query("A", key, 32, 0, i64::MAX).messages.len()
                            + store.query("B", key, 32, 0, i64::MAX).messages.len(),
                        1,
                        "{what}, {key}"
                    );
                }
                let next = expected[&("A".to_owned(), 0)].1;
                assert_eq!(store.append(&message("A", 0, b"x", b"")).unwrap().queue_offset, next, "{what}");
            }
        }
    }
}

#[test]
fn all_derived_files_at_once() {
    let dir = tempdir();
    let expected = build(dir.path(), true);
    for name in ["consumequeue", "index"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    for name in ["checkpoint", "derived.manifest", "derived.manifest.bak"] {
        let _ = fs::remove_file(dir.path().join(name));
    }
    let store = MessageStore::open(config(dir.path())).unwrap();
    assert_eq!(view_of_queues(&store), expected);
    assert_eq!(store.query("A", "K0-1", 32, 0, i64::MAX).messages.len(), 1);
}

#[test]
fn rot_in_a_cleanly_stopped_log_costs_one_message_only() {
    let dir = tempdir();
    let expected = build(dir.path(), true);
    let first = expected[&("A".to_owned(), 1)].2.last().copied().unwrap();
    let file = 16 << 10;
    let path = dir.path().join(format!("commitlog/{:020}", first.offset / file * file));
    let mut bytes = fs::read(&path).unwrap();
    bytes[(first.offset % file) as usize + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    assert_eq!(view_of_queues(&store), expected);
    assert!(!decode_message(&store.message_at(first.offset).unwrap()).unwrap().crc_matches());
}

#[test]
fn a_missing_log_file_is_named() {
    let dir = tempdir();
    build(dir.path(), true);
    fs::remove_file(dir.path().join("commitlog/00000000000000016384")).unwrap();
    let refused = MessageStore::open(config(dir.path())).unwrap_err().to_string();
    assert!(
        refused.contains("00000000000000032768") && refused.contains("bring 00000000000000016384 back"),
        "{refused}"
    );
    // The other thing that it says helps, too.
    fs::remove_file(dir.path().join("commitlog/00000000000000000000")).unwrap();
    assert_eq!(MessageStore::open(config(dir.path())).unwrap().min_physical_offset(), 32768);
}

/// The broker began an empty log beside the queues of the one that it did not find, and back with that believed its own.
#[test]
fn a_log_that_is_elsewhere_is_not_begun_anew() {
    let dir = tempdir();
    let expected = build(dir.path(), true);
    let elsewhere = tempdir();
    let moved = StoreConfig { store_path_commit_log: Some(elsewhere.path().join("log")), ..config(dir.path()) };
    let refused = MessageStore::open(moved.clone()).unwrap_err().to_string();
    assert!(refused.contains("storePathCommitLog") && refused.contains("/checkpoint"), "{refused}");
    fs::remove_dir(elsewhere.path().join("log")).unwrap();
    fs::rename(dir.path().join("commitlog"), elsewhere.path().join("log")).unwrap();
    assert_eq!(view_of_queues(&MessageStore::open(moved).unwrap()), expected);
    MessageStore::open(config(dir.path())).unwrap_err();
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    assert_eq!(view_of_queues(&store), Queues::new());
    let next = expected[&("A".to_owned(), 1)].1;
    assert_eq!(store.append(&message("A", 1, b"x", b"")).unwrap().queue_offset, next, "none is given out twice");
}

#[test]
fn files_and_directories_may_be_links() {
    for moved in ["commitlog/00000000000000000000", "commitlog/00000000000000016384", "consumequeue/A", "checkpoint"] {
        let dir = tempdir();
        let expected = build(dir.path(), true);
        let other = tempdir();
        fs::rename(dir.path().join(moved), other.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(other.path().join("moved"), dir.path().join(moved)).unwrap();
        let store = MessageStore::open(config(dir.path())).unwrap();
        assert_eq!(view_of_queues(&store), expected, "{moved}");
        assert_eq!(pull(&store, "A", 0).len() + pull(&store, "A", 1).len(), 168);
    }
}

/// The first file was brought to the wrong size before the next one was looked at, and no size was right any more.
#[test]
fn a_store_opened_with_another_file_size_is_refused_and_as_it_was() {
    for (clean, size) in [(true, 20 << 10), (false, 32 << 10), (true, 48 << 10), (false, 8 << 10)] {
        let dir = tempdir();
        let store = MessageStore::open(config(dir.path())).unwrap();
        while store.max_physical_offset() < 20 << 10 {
            store.append(&message("T", 0, &[7; 1000], b"")).unwrap();
        }
        settle(&store);
        let expected = view_of_queues(&store);
        if clean {
            store.shutdown();
        }
        drop(store);
        let other = StoreConfig { mapped_file_size_commit_log: size, ..config(dir.path()) };
        let refused = MessageStore::open(other).unwrap_err().to_string();
        assert!(refused.contains("set it back") && refused.contains("commitlog/0"), "{refused}");
        assert_eq!(view_of_queues(&MessageStore::open(config(dir.path())).unwrap()), expected, "{clean} {size}");
    }
}

/// Flips bits all over a file; what was stored must be read as it was, from the queue and by its key.
fn flip_everywhere(clean: bool, is_wanted: fn(&Path) -> bool, what_may_be_lost: usize) {
    let dir = tempdir();
    let store = MessageStore::open(config(dir.path())).unwrap();
    for i in 0..90 {
        let text = format!("TAGS\u{1}t{}\u{2}UNIQ_KEY\u{1}K{i}\u{2}", i % 3);
        store.append(&message("A", i % 2, &vec![i as u8; 300], text.as_bytes())).unwrap();
    }
    settle(&store);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(store.flushed(store.max_physical_offset())).unwrap();
    let expected = view_of_queues(&store);
    if clean {
        store.shutdown();
    }
    drop(store);
    let mut files = Vec::new();
    files_below(dir.path(), &mut files);
    files.retain(|file| is_wanted(file));
    assert!(!files.is_empty());
    for file in files {
        let relative = file.strip_prefix(dir.path()).unwrap();
        let good = fs::read(&file).unwrap();
        // All bytes of small files, and every so many of large ones.
        for at in (0..good.len()).step_by((good.len() / 60).max(1)) {
            let copy = tempdir();
            copy_dir(dir.path(), copy.path());
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(copy.path().join(relative), bytes).unwrap();
            let what = format!("{} byte {at}, clean {clean}", relative.display());
            let store = MessageStore::open(config(copy.path())).expect(&what);
            settle(&store);
            let (mut lost, mut unfound) = (0, 0);
            for ((topic, queue_id), (.., entries)) in &expected {
                let found = store.queue_entries(topic, *queue_id, 0, usize::MAX);
                let is_read = |entry: &&QueueEntry| {
                    let read = store.get_messages(topic, *queue_id, entry.queue_offset, 1, 1 << 20, &mut |_| true);
                    found.contains(entry) && read.message_count == 1 && read.messages[0].len() == entry.size as usize
                };
                lost += entries.len() - entries.iter().filter(is_read).count();
                unfound += entries.len();
            }
            for i in 0..90 {
                unfound -= store.query("A", &format!("K{i}"), 8, 0, i64::MAX).messages.len();
            }
            assert!(lost <= what_may_be_lost, "{what}: {lost} messages are lost");
            assert!(unfound <= what_may_be_lost, "{what}: {unfound} keys are lost");
        }
    }
}

fn is_queue(file: &Path) -> bool {
    file.to_str().unwrap().contains("consumequeue")
}

fn is_log(file: &Path) -> bool {
    file.to_str().unwrap().contains("commitlog")
}

fn is_small(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_str().unwrap();
    name == "checkpoint" || name == "flushed" || name.starts_with("derived.manifest") || name == "abort"
}

#[test]
fn a_bit_flipped_in_a_queue_is_mended() {
    flip_everywhere(true, is_queue, 0);
    flip_everywhere(false, is_queue, 0);
}

#[test]
fn a_bit_flipped_in_the_index_is_mended() {
    let is_index = |file: &Path| file.parent().unwrap().file_name().unwrap() == "index";
    flip_everywhere(true, is_index, 0);
    flip_everywhere(false, is_index, 0);
}

#[test]
fn a_bit_flipped_in_a_small_file_costs_nothing() {
    flip_everywhere(true, is_small, 0);
    flip_everywhere(false, is_small, 0);
}

#[test]
fn a_bit_flipped_in_the_log_costs_one_message() {
    flip_everywhere(true, is_log, 1);
    flip_everywhere(false, is_log, 1);
}
