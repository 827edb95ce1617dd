//! Damage that once cost more than what was damaged. The fuzz targets found it; each case is a test here.

mod support;

use std::fs;
use std::path::Path;

use rocketmq_store::{MessageStore, StoreConfig};
use support::{config, copy_dir, message, pull, settle, tempdir};

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

fn open_copy(from: &Path, config: &StoreConfig, damage: impl FnOnce(&Path)) -> Vec<Vec<u8>> {
    let copy = tempdir();
    copy_dir(from, copy.path());
    damage(copy.path());
    let config = StoreConfig { store_path_root_dir: copy.path().to_owned(), ..config.clone() };
    let first = pull(&MessageStore::open(config.clone()).unwrap(), "T", 0);
    let store = MessageStore::open(config).unwrap();
    assert_eq!(pull(&store, "T", 0), first, "not the same when opened again");
    assert_eq!(store.append(&message("T", 0, b"x", b"")).unwrap().queue_offset, i64::from(COUNT));
    first
}

/// The unit was rewritten, and the queue before it left empty; or it hid the messages up to where it wrongly pointed.
#[test]
fn a_damaged_unit_hides_no_message_of_a_store_killed_young() {
    let dir = tempdir();
    let config = killed(dir.path());
    let expected: Vec<Vec<u8>> = (0..COUNT).map(|i| vec![i; 100 + usize::from(i)]).collect();
    let file = "consumequeue/T/0/00000000000000000000";
    for at in 0..400 {
        let found = open_copy(dir.path(), &config, |copy| {
            let mut bytes = fs::read(copy.join(file)).unwrap();
            bytes[at] ^= 1 << (at % 8);
            fs::write(copy.join(file), bytes).unwrap();
        });
        assert!(found == expected, "byte {at}: {} of {COUNT}", found.len());
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
        let found = open_copy(dir.path(), &config, |copy| {
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
    }
}

/// What takes the place of a damaged message had queue offset 0, and was pulled as the queue's first one.
#[test]
fn what_replaces_a_damaged_message_is_not_given_to_consumers() {
    let dir = tempdir();
    let config = killed(dir.path());
    let found = open_copy(dir.path(), &config, |copy| {
        let file = copy.join("commitlog/00000000000000000000");
        let mut bytes = fs::read(&file).unwrap();
        bytes[4] ^= 0xFF;
        fs::write(file, bytes).unwrap();
    });
    assert_eq!(found.len(), usize::from(COUNT) - 1);
    assert_eq!(found[0], vec![1; 101]);
}
