//! The commands that read a store's files, run as a user runs them: what they print and how they end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rocketmq_store::{MessageStore, NewMessage, StoreConfig};

const SHAPE: [&str; 4] = ["--maxHashSlotNum", "50", "--maxIndexNum", "200"];

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

/// `mqadmin` with arguments, `-p ROOT` behind the command.
fn mqadmin(command: &str, root: &Path, arguments: &[&str]) -> Ended {
    let mut process = Command::new(env!("CARGO_BIN_EXE_mqadmin"));
    process.arg(command).arg("-p").arg(root).args(arguments);
    // These commands ask nobody: a wrong address does not matter.
    let output = process.env("NAMESRV_ADDR", "no address").env("TZ", "UTC").output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn config(root: &Path) -> StoreConfig {
    StoreConfig {
        store_path_root_dir: root.to_owned(),
        mapped_file_size_commit_log: 16 << 10,
        mapped_file_size_consume_queue: 400,
        max_hash_slot_num: 50,
        max_index_num: 200,
        ..StoreConfig::default()
    }
}

fn append(store: &MessageStore, topic: &str, queue_id: i32, number: usize) {
    let properties = format!("TAGS\u{1}Tag{}\u{2}KEYS\u{1}k{number}\u{2}UNIQ_KEY\u{1}ID{number}\u{2}", number % 3);
    let message = NewMessage {
        topic,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: "127.0.0.1:1000".parse().unwrap(),
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"hello\x1b[0m",
        properties: properties.as_bytes(),
    };
    store.append(&message).unwrap();
}

/// A stopped store of 200 messages in four queues.
fn build(root: &Path) {
    let store = MessageStore::open(config(root)).unwrap();
    for number in 0..200 {
        append(&store, if number % 4 == 3 { "Other" } else { "Orders" }, (number % 4 % 3) as i32, number);
    }
    store.shutdown();
    fs::create_dir_all(root.join("config")).unwrap();
    let topics = "{\"topicConfigTable\":{\"Orders\":{\"perm\":6},\"Other\":{}}}";
    fs::write(root.join("config/topics.json"), topics).unwrap();
    // fastjson's dialect: keys that are bare numbers.
    fs::write(root.join("config/consumerOffset.json"), "{\"offsetTable\":{\"Orders@g\":{0:3,1:3}}}").unwrap();
}

/// The value of a line `name : value`.
fn value<'a>(ended: &'a Ended, name: &str) -> &'a str {
    let line = ended.stdout.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
}

#[test]
fn dumps_show_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());

    let all = mqadmin("dumpCommitLog", dir.path(), &[]);
    assert_eq!((all.code, all.stderr.as_str()), (0, ""));
    assert_eq!(all.stdout.lines().filter(|line| !line.starts_with('#')).count(), 200);
    let one = mqadmin("dumpCommitLog", dir.path(), &["-t", "Orders", "-q", "1", "-c", "1", "-b"]);
    let lines: Vec<&str> = one.stdout.lines().collect();
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    let size = 91 + 9 + 6 + "TAGS_Tag1_KEYS_k1_UNIQ_KEY_ID1_".len();
    assert_eq!(row[..5], [&size.to_string(), &size.to_string(), "Orders", "1", "0"]);
    assert_eq!(row[7..], ["Tag1", "ID1", "k1"]);
    assert_eq!(lines[2], "    hello\\u{1b}[0m");
    let later = mqadmin("dumpCommitLog", dir.path(), &["-o", "7", "-c", "1"]);
    assert!(later.stdout.contains(&format!("# log offset 7 to {size}: ")), "{}", later.stdout);
    assert!(later.stdout.contains(&format!("\n{size} ")), "{}", later.stdout);

    let units = mqadmin("dumpConsumeQueue", dir.path(), &["-t", "Orders", "-q", "1", "-o", "2", "-c", "2"]);
    let rows: Vec<&str> = units.stdout.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!((units.code, rows.len()), (0, 2));
    assert!(rows[0].starts_with("2 ") && rows[0].ends_with(" 2598902"), "hash of Tag0: {}", rows[0]);
    assert!(units.stdout.ends_with("# 2 unit(s); queue 1 of topic Orders was seen from offset 0 up to 50\n"));

    let files = mqadmin("dumpIndex", dir.path(), &SHAPE);
    let names: Vec<&str> = files.stdout.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!((files.code, names.len()), (0, 3), "{}", files.stdout);
    let entries = mqadmin("dumpIndex", dir.path(), &[&SHAPE[..], &["-f", names[0], "-c", "3"]].concat());
    assert!(entries.stdout.ends_with("# 3 of 199 entries\n"), "{}", entries.stdout);
    let found = mqadmin("dumpIndex", dir.path(), &[&SHAPE[..], &["-k", "Orders#k100"]].concat());
    assert!(found.stdout.contains("topic Orders, queue 0, queue offset 25\n"), "{}", found.stdout);
}

#[test]
fn a_whole_store_is_verified_with_0_and_a_damaged_one_with_1() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let whole = mqadmin("verifyStore", dir.path(), &SHAPE);
    assert_eq!((whole.code, whole.stderr.as_str()), (0, ""), "{}", whole.stdout);
    for (name, expected) in
        [("messages", "200"), ("queues", "4"), ("units", "200"), ("index entries", "400"), ("findings", "0")]
    {
        assert_eq!(value(&whole, name), expected, "{name}: {}", whole.stdout);
    }

    let log = dir.path().join("commitlog/00000000000000000000");
    let mut bytes = fs::read(&log).unwrap();
    bytes[90] ^= 1;
    fs::write(&log, bytes).unwrap();
    fs::write(dir.path().join("config/consumerOffset.json"), "{\"offsetTable\":{").unwrap();
    fs::remove_dir_all(dir.path().join("consumequeue/Other")).unwrap();
    let damaged = mqadmin("verifyStore", dir.path(), &SHAPE);
    assert_eq!((damaged.code, value(&damaged, "findings")), (1, "3"), "{}", damaged.stdout);
    for line in [
        "CrcMismatch     commitlog/00000000000000000000 at byte 0: the body of the message at log offset 0 ",
        "Config          config/consumerOffset.json at byte 0: not readable: ",
        "MissingUnit     consumequeue/Other/0 at byte 0: missing: topic Other, queue 0 has no files; ",
    ] {
        assert!(damaged.stdout.contains(line), "{line}: {}", damaged.stdout);
    }
    assert!(damaged.stderr.starts_with("mqadmin: 3 finding(s) in "), "{}", damaged.stderr);
}

#[test]
fn a_running_store_can_be_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let store = MessageStore::open(config(dir.path())).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        std::thread::spawn(move || {
            for number in 0..20_000 {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                append(&store, "Orders", (number % 3) as i32, number);
                std::thread::sleep(Duration::from_micros(200));
            }
        })
    };
    let mut seen = 0;
    for _ in 0..5 {
        let verified = mqadmin("verifyStore", dir.path(), &SHAPE);
        assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
        assert_eq!(value(&verified, "open in a broker"), "true");
        let now: u64 = value(&verified, "messages").parse().unwrap();
        assert!(now >= seen, "{now} after {seen}");
        seen = now;
        let dumped = mqadmin("dumpCommitLog", dir.path(), &[]);
        assert!(dumped.code == 0 && !dumped.stdout.contains("messages follow"), "{}", dumped.stdout);
    }
    let refused = mqadmin("rebuildStore", dir.path(), &[&SHAPE[..], &["--write"]].concat());
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("is locked: another broker uses this store"), "{}", refused.stderr);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    store.shutdown();
    let stopped = mqadmin("verifyStore", dir.path(), &SHAPE);
    assert_eq!((stopped.code, value(&stopped, "open in a broker")), (0, "false"), "{}", stopped.stdout);
}

#[test]
fn queues_and_index_are_built_anew_on_demand_only() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let asked = mqadmin("rebuildStore", dir.path(), &SHAPE);
    assert_eq!(asked.code, 2);
    assert!(asked.stderr.contains("--write"), "{}", asked.stderr);

    fs::remove_dir_all(dir.path().join("consumequeue/Orders/1")).unwrap();
    assert_eq!(mqadmin("verifyStore", dir.path(), &SHAPE).code, 1);
    let rebuilt = mqadmin("rebuildStore", dir.path(), &[&SHAPE[..], &["--write"]].concat());
    assert_eq!(rebuilt.code, 0, "{}", rebuilt.stderr);
    let row = rebuilt.stdout.lines().find(|line| line.starts_with("Orders") && line.contains("  1  ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["Orders", "1", "0", "50"]);
    assert!(Path::new(value(&rebuilt, "old files")).join("consumequeue/Orders/0").is_dir(), "{}", rebuilt.stdout);
    assert_eq!(mqadmin("verifyStore", dir.path(), &SHAPE).code, 0);
    let discarded = mqadmin("rebuildStore", dir.path(), &[&SHAPE[..], &["--write", "--discard"]].concat());
    assert_eq!((discarded.code, value(&discarded, "old files")), (0, "deleted"));
}

#[test]
fn wrong_input_is_told_with_option_value_and_what_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let nowhere = dir.path().join("nowhere");
    for (command, root, arguments, code, told) in [
        ("verifyStore", &*nowhere, &[][..], 1, "nowhere is not accepted: a store's directory"),
        (
            "dumpCommitLog",
            &dir.path().join("config"),
            &[],
            1,
            "config is not accepted: a directory with `commitlog` in it",
        ),
        ("dumpCommitLog", dir.path(), &["-o", "-1"], 2, "invalid value '-1' for '--offset <OFFSET>'"),
        (
            "dumpConsumeQueue",
            dir.path(),
            &["-t", "T", "-q", "0"],
            1,
            "-t T is not accepted: the store has queues of Orders, Other",
        ),
        (
            "dumpConsumeQueue",
            dir.path(),
            &["-t", "Orders", "-q", "9"],
            1,
            "-q 9 is not accepted: topic Orders has queues 0, 1, 2",
        ),
        ("dumpIndex", dir.path(), &["-k", "Orders"], 2, "topic#key is accepted"),
        ("dumpIndex", dir.path(), &["-f", "1"], 1, "-f 1 is not accepted: the index files are 2"),
        ("dumpIndex", dir.path(), &[], 1, "give --maxHashSlotNum and --maxIndexNum"),
        (
            "dumpIndex",
            dir.path(),
            &["--maxIndexNum", "1"],
            2,
            "'1' for '--maxIndexNum <MAX_INDEX_NUM>': 1 is not in 2..=100000000",
        ),
        ("verifyStore", dir.path(), &["--messageDelayLevel", "5x"], 2, "unit s, m, h or d"),
    ] {
        let ended = mqadmin(command, root, arguments);
        assert_eq!(ended.code, code, "{command} {arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{command} {arguments:?}: {}", ended.stderr);
    }
    for command in ["dumpCommitLog", "dumpConsumeQueue", "dumpIndex", "verifyStore", "rebuildStore"] {
        let help = Command::new(env!("CARGO_BIN_EXE_mqadmin")).args(["help", command]).output().unwrap();
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(help.status.success() && text.contains("--storePathRootDir <DIRECTORY>"), "{command}: {text}");
    }
}
