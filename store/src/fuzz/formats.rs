//! Targets that are one piece of bytes: messages, properties, ids, and the store's small files.

use std::fs;
use std::time::Duration;

use super::{inputs, tempdir};
use crate::checkpoint::Checkpoint;
use crate::commit_log::store_timestamp_of;
use crate::config_file::ConfigFile;
use crate::consume_queue::ConsumeQueue;
use crate::disk::Disk;
use crate::flushed_mark::FlushedMark;
use crate::manifest::Manifest;
use crate::message::{
    self, AT_BORN_HOST, Head, MAGIC_V2, MessageView, NewMessage, PROPERTIES_MAX, TOPIC_MAX_V1, decode_message, encode,
    head, patch, store_timestamp_at, sys_flag,
};
use crate::message_id::{message_id, parse_message_id};
use crate::properties::{DispatchProperties, SCHEDULE_TOPIC, properties, property, push_property};
use crate::recovery::LastStop;

/// The bytes of a decoded message, by the encoder; `None` for one that it would refuse or write in the other version.
fn encoded_again(view: &MessageView<'_>) -> Option<Vec<u8>> {
    let m = NewMessage {
        topic: view.topic,
        queue_id: view.queue_id,
        flag: view.flag,
        sys_flag: view.sys_flag,
        born_timestamp: view.born_timestamp,
        born_host: view.born_host,
        store_host: view.store_host,
        reconsume_times: view.reconsume_times,
        prepared_transaction_offset: view.prepared_transaction_offset,
        body: view.body,
        properties: view.properties,
    };
    let mut bytes = Vec::new();
    let encoded = encode(&m, true, &mut bytes);
    if (view.magic == MAGIC_V2) != (view.topic.len() > TOPIC_MAX_V1) {
        return None;
    }
    let refused = view.queue_id < 0
        || view.properties.len() > PROPERTIES_MAX
        || view.topic.len() > 255
        || !message::is_directory_name(view.topic);
    assert_eq!(encoded.is_err(), refused, "{view:?}");
    encoded.ok()?;
    patch(&mut bytes, view.queue_offset, view.physical_offset, view.store_timestamp);
    bytes[8..12].copy_from_slice(&view.body_crc.to_be_bytes());
    Some(bytes)
}

/// Ports are kept as 16 of the 32 bits that they have on disk.
fn clear_high_halves_of_ports(unit: &mut [u8], flags: i32) {
    let store_host = store_timestamp_at(flags) + 8;
    for (host, v6) in [(AT_BORN_HOST, sys_flag::BORN_HOST_V6), (store_host, sys_flag::STORE_HOST_V6)] {
        let port = host + if flags & v6 == 0 { 4 } else { 16 };
        unit[port..port + 2].fill(0);
    }
}

#[test]
fn messages() {
    inputs("message", |bytes| {
        let found = head(bytes);
        assert_eq!(found == Head::Short, bytes.len() < 8);
        let Ok(view) = decode_message(bytes) else { return };
        let size = view.total_size as usize;
        assert_eq!(found, Head::Message(size));
        let mut unit = bytes[..size].to_vec();
        assert_eq!(store_timestamp_of(&unit), Some(view.store_timestamp));
        assert!(decode_message(&unit[..size - 1]).is_err(), "one byte less is a message too");
        let inside = |part: &[u8]| bytes[..size].as_ptr_range().start <= part.as_ptr();
        assert!(inside(view.body) && inside(view.topic.as_bytes()) && inside(view.properties));
        assert!(view.body.len() + view.topic.len() + view.properties.len() < size);
        if let Some(again) = encoded_again(&view) {
            clear_high_halves_of_ports(&mut unit, view.sys_flag);
            assert_eq!(again, unit, "{view:?}");
        }
    });
}

#[test]
fn property_texts() {
    let levels = [Duration::from_secs(1), Duration::MAX];
    inputs("properties", |text| {
        let pairs: Vec<_> = properties(text).collect();
        let mut pushed = Vec::new();
        for (name, value) in &pairs {
            assert_eq!(property(text, name), pairs.iter().rfind(|(n, _)| n == name).map(|(_, value)| *value));
            push_property(&mut pushed, name, value);
        }
        assert_eq!(properties(&pushed).collect::<Vec<_>>(), pairs);
        let (before, after) = (DispatchProperties::scan(text), DispatchProperties::scan(&pushed));
        assert_eq!((before.keys, before.uniq_key), (after.keys, after.uniq_key));
        for (topic, time) in [("T", 0), (SCHEDULE_TOPIC, i64::MAX), (SCHEDULE_TOPIC, i64::MIN)] {
            for levels in [&levels[..], &levels[..1], &[]] {
                assert_eq!(before.tags_code(topic, time, levels), after.tags_code(topic, time, levels));
            }
        }
    });
}

#[test]
fn message_ids() {
    inputs("message_id", |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Some((host, offset)) = parse_message_id(text) {
            assert_eq!(message_id(host, offset), text.to_ascii_uppercase());
        }
    });
}

#[test]
fn checkpoints() {
    let dir = tempdir();
    let path = dir.path().join("checkpoint");
    inputs("checkpoint", |bytes| {
        fs::write(&path, bytes).unwrap();
        let checkpoint = Checkpoint::open(&path, Disk::default()).unwrap();
        let found = checkpoint.get();
        assert!(found.safe(true) >= 0 && found.safe(true) <= found.safe(false));
        checkpoint.note_physic(5);
        checkpoint.update(|t| t.index = t.index.max(7)).unwrap();
        let again = Checkpoint::open(&path, Disk::default()).unwrap().get();
        assert_eq!((again.physic, again.logics, again.index), (found.physic.max(5), found.logics, found.index.max(7)));
        let disk = fs::read(&path).unwrap();
        assert_eq!(disk.len(), 4096);
        let rest = bytes.get(24..bytes.len().min(4096)).unwrap_or_default();
        assert!(disk[24..].starts_with(rest), "what 5.x keeps there was changed");
    });
}

#[test]
fn flushed_marks() {
    let dir = tempdir();
    let good = super::corpus::committed().read("flushed_mark");
    inputs("flushed_mark", |bytes| {
        fs::write(dir.path().join("flushed"), bytes).unwrap();
        let (mark, noted) = FlushedMark::open(dir.path(), Disk::default()).unwrap();
        // An older mark is as good as none; one that nobody wrote would make damage of what was torn.
        let known = good.iter().any(|good| bytes.starts_with(good));
        assert_eq!(noted, if known { 0x0102_0304 } else { 0 });
        mark.note(noted + 1).unwrap();
        assert_eq!(FlushedMark::open(dir.path(), Disk::default()).unwrap().1, noted + 1);
    });
}

#[test]
fn manifests() {
    let dir = tempdir();
    let queue_dir = dir.path().join("queue");
    let good = super::corpus::committed().read("manifest");
    let [good] = good.as_slice() else { panic!("one manifest") };
    drop(super::corpus::queue(&queue_dir, false));
    inputs("manifest", |bytes| {
        let file = dir.path().join("derived.manifest");
        let _ = fs::remove_file(dir.path().join("derived.manifest.bak"));
        fs::write(&file, bytes).unwrap();
        let Some(found) = Manifest::load(dir.path(), &Disk::default()) else {
            assert_ne!(bytes, good);
            return;
        };
        // It says which offsets were given out: one changed digit would give them out twice, or leave a hole.
        fs::write(&file, good).unwrap();
        assert_eq!(Some(&found), Manifest::load(dir.path(), &Disk::default()).as_ref());
        let held = &found.queues["T"][&0];
        let layout = super::files::queue_layout(&queue_dir);
        let held = Some((held, usize::MAX));
        let r = ConsumeQueue::recover("T".into(), 0, layout, 4500, LastStop::Crash, held).unwrap();
        assert_eq!((r.damaged, r.queue.max_offset()), (false, 45));
    });
}

#[test]
fn config_files() {
    type Json = serde_json::Value;
    let parse = |text: &str| serde_json::from_str::<Json>(text);
    let dir = tempdir();
    let [file, backup] = ["topics.json", "topics.json.bak"].map(|name| dir.path().join(name));
    let config = ConfigFile::new(&file);
    inputs("config_file", |bytes| {
        let own = std::str::from_utf8(bytes).ok().and_then(|text| parse(text).ok());
        for (damaged, other) in [(&file, &backup), (&backup, &file)] {
            fs::write(other, r#"{"old":1}"#).unwrap();
            fs::write(damaged, bytes).unwrap();
            let old = serde_json::json!({"old": 1});
            let expected = if damaged == &file { own.as_ref().unwrap_or(&old) } else { &old };
            assert_eq!(config.load(parse).unwrap().as_ref(), Some(expected));
        }
        fs::remove_file(&file).unwrap();
        fs::write(&backup, bytes).unwrap();
        match config.load(parse) {
            Ok(found) => assert_eq!(found, own),
            Err(e) => assert!(own.is_none() && e.to_string().contains("topics.json.bak"), "{e}"),
        }
        config.persist(r#"{"new":2}"#).unwrap();
        assert_eq!(config.load(parse).unwrap(), Some(serde_json::json!({"new": 2})));
    });
}
