//! `derived.manifest`: what consume queues and index held when they were last on disk in full.
//!
//! A queue whose files vanished leaves no trace, and the log is too long to read whole at each start; this file is
//! the trace. RocketMQ has no such file and ignores it. A store without one (a Java broker's) is believed as Java
//! believes it. May not: be needed for correctness of a store whose files are intact.
//!
//! JSON in one line, and in the next its CRC-32 in hex: one changed digit would give queue offsets out twice, or leave
//! a hole that no message can be behind.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config_file::ConfigFile;
use crate::disk::{Disk, beside};
use crate::error::StoreError;
use crate::index_checksums::HeldIndexFile;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Everything below this log offset is on disk, in the log as well as in queues and index.
    pub(crate) dispatched: u64,
    /// Log offset of the message that ends at `dispatched`: what proves that this is still the same log.
    #[serde(default)]
    pub(crate) last_message: Option<u64>,
    /// Offset of the newest indexed message.
    pub(crate) index_end: Option<u64>,
    /// Index files.
    pub(crate) index_files: usize,
    /// What each of them held, oldest first.
    #[serde(default)]
    pub(crate) index: Vec<HeldIndexFile>,
    /// Topics that were deleted, and below which log offset their messages belong to no queue any more.
    #[serde(default)]
    pub(crate) deleted: BTreeMap<String, u64>,
    /// The log, from here to there, that queues and index were not compared with: they were written by another broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unchecked: Option<(u64, u64)>,
    /// The file that was compared last with its checksum, below the store's directory: the next start goes on behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compared_last: Option<String>,
    /// Topic → queue id → what it held.
    pub(crate) queues: BTreeMap<String, BTreeMap<i32, Held>>,
}

/// The units of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// First unit of the first file.
    pub(crate) first: i64,
    /// Offset behind the last unit, 0 without units.
    pub(crate) max: i64,
    /// The offset that the next message gets: more than `max` when the queue lost units with the log they pointed to.
    #[serde(default)]
    pub(crate) next: i64,
    /// CRC-32 of each file's units below `max`, oldest file first.
    #[serde(default)]
    pub(crate) crcs: Vec<u32>,
}

impl Manifest {
    /// Every queue: topic, id, what it held.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&str, i32, &Held)> {
        self.queues.iter().flat_map(|(topic, queues)| queues.iter().map(move |(id, held)| (topic.as_str(), *id, held)))
    }

    pub(crate) fn load(root: &Path, disk: &Disk) -> Option<Self> {
        // Unreadable is as good as missing: the file only says what may be missing elsewhere.
        file(root, disk).load(decode).ok().flatten()
    }

    /// Takes the manifest away: the log is to be cut below what it speaks of.
    pub(crate) fn remove(root: &Path, disk: &Disk) -> Result<(), StoreError> {
        let path = file(root, disk).path().to_owned();
        disk.remove(&beside(&path, "bak"))?;
        disk.remove(&path)
    }

    pub(crate) fn persist(&self, root: &Path, disk: &Disk) -> Result<(), StoreError> {
        let file = file(root, disk);
        let json = serde_json::to_string(self).map_err(|e| StoreError::io("encode", file.path(), e))?;
        file.persist(&format!("{json}\n{}\n", checksum(&json)))
    }
}

fn checksum(json: &str) -> String {
    format!("{:08x}", crc32fast::hash(json.as_bytes()))
}

fn decode(text: &str) -> Result<Manifest, String> {
    let (json, noted) = text.split_once('\n').ok_or("it has no checksum")?;
    if noted.strip_suffix('\n') != Some(&checksum(json)) {
        return Err("the checksum is another".to_owned());
    }
    serde_json::from_str(json).map_err(|e| e.to_string())
}

fn file(root: &Path, disk: &Disk) -> ConfigFile {
    ConfigFile::on(disk.clone(), root.join("derived.manifest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_to_disk_and_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path(), &Disk::default()), None);
        let mut m = Manifest { dispatched: 7, index_end: Some(3), ..Manifest::default() };
        m.queues.entry("%RETRY%g".into()).or_default().insert(2, Held { first: 0, max: 9, next: 9, crcs: vec![7] });
        m.persist(dir.path(), &Disk::default()).unwrap();
        assert_eq!(Manifest::load(dir.path(), &Disk::default()), Some(m));
        let good = std::fs::read(dir.path().join("derived.manifest")).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            std::fs::write(dir.path().join("derived.manifest"), bytes).unwrap();
            assert_eq!(Manifest::load(dir.path(), &Disk::default()), None, "byte {at}");
        }
    }
}
