//! `derived.manifest`: what consume queues and index held when they were last on disk in full.
//!
//! A queue whose files vanished leaves no trace, and the log is too long to read whole at each start; this file is
//! the trace. RocketMQ has no such file and ignores it. A store without one (a Java broker's) is believed as Java
//! believes it. May not: be needed for correctness of a store whose files are intact.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config_file::ConfigFile;
use crate::error::StoreError;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Everything below this log offset is in queues and index.
    pub(crate) dispatched: u64,
    /// Offset of the newest indexed message.
    pub(crate) index_end: Option<u64>,
    /// Index files.
    pub(crate) index_files: usize,
    /// Topic → queue id → what it held.
    pub(crate) queues: BTreeMap<String, BTreeMap<i32, Held>>,
}

/// The units of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// First unit of the first file.
    pub(crate) first: i64,
    /// Next queue offset.
    pub(crate) max: i64,
}

impl Manifest {
    pub(crate) fn load(root: &Path) -> Option<Self> {
        // Unreadable is as good as missing: the file only says what may be missing elsewhere.
        file(root).load(|text| serde_json::from_str(text)).ok().flatten()
    }

    pub(crate) fn persist(&self, root: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_string(self).map_err(|e| StoreError::io("encode", file(root).path(), e))?;
        file(root).persist(&text)
    }
}

fn file(root: &Path) -> ConfigFile {
    ConfigFile::new(root.join("derived.manifest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_to_disk_and_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path()), None);
        let mut m = Manifest { dispatched: 7, index_end: Some(3), ..Manifest::default() };
        m.queues.entry("%RETRY%g".into()).or_default().insert(2, Held { first: 0, max: 9 });
        m.persist(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()), Some(m));
        std::fs::write(dir.path().join("derived.manifest"), "{").unwrap();
        assert_eq!(Manifest::load(dir.path()), None);
    }
}
