//! Cuts a closed store's log short, keeping what is cut off: for a slave whose log is not its master's from some point on.
//!
//! What goes is first copied to `<root>/diverged/<offset>-<time, ms>/`, in files named by log offset as those of the log
//! are. A crash in between leaves a longer log, which can be cut again. Queues and index are cut by the next opening.
//! May not: run while the store is open.

use std::path::{Path, PathBuf};

use crate::commit_log::now_ms;
use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::flushed_mark::FlushedMark;
use crate::hot_files::HotFiles;
use crate::log_reader::LogReader;
use crate::manifest::Manifest;
use crate::mapped_file::{Allocation, MappedFile};
use crate::mapped_file_queue::{Layout, MappedFileQueue};
use crate::store_lock::StoreLock;

/// Bytes copied at once.
const COPIED_AT_ONCE: usize = 1 << 20;

/// What was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// Where the log ends now.
    pub end: u64,
    /// Bytes that it held behind that.
    pub bytes: u64,
    /// The directory that holds them.
    pub kept: PathBuf,
}

/// Cuts the log of the closed store at `at`, where a message begins that is not the log's first.
///
/// # Errors
/// The store is in use, no message begins there, or the disk fails; then the log is as it was, or longer than asked for.
pub fn truncate(config: &StoreConfig, at: u64) -> Result<CutOff, StoreError> {
    truncate_on(config, at, &Disk::default())
}

pub(crate) fn truncate_on(config: &StoreConfig, at: u64, disk: &Disk) -> Result<CutOff, StoreError> {
    let root = &config.store_path_root_dir;
    let _lock = StoreLock::take(&root.join("lock"))?;
    let layout = Layout {
        dir: config.commit_log_dir(),
        file_size: config.mapped_file_size_commit_log,
        allocation: Allocation::Full,
        disk: disk.clone(),
        hot: HotFiles::new(2),
    };
    let found = layout.scan()?;
    if let Some((start, size)) = found.iter().find(|(_, size)| *size != layout.file_size) {
        return Err(StoreError::WrongFileSize { path: layout.path(*start), size: *size, expected: layout.file_size });
    }
    let files = found.iter().map(|(start, _)| layout.open(*start)).collect();
    let files = MappedFileQueue::new(layout, files);
    if !is_boundary(&files, at) {
        return Err(StoreError::NoBoundary { at });
    }
    let (layout, mut files) = files.into_parts();
    let kept = root.join("diverged").join(format!("{at:020}-{}", now_ms()));
    let bytes = keep(&files, at, &kept, disk)?;
    disk.sync_dir(root)?;

    // Before the log is cut: neither may speak of more than there is.
    let (mark, flushed) = FlushedMark::open(root, disk.clone())?;
    mark.note(flushed.min(at))?;
    if Manifest::load(root, disk).is_some_and(|manifest| manifest.dispatched > at) {
        Manifest::remove(root, disk)?;
    }
    disk.sync_dir(root)?;

    while files.last().is_some_and(|file| file.start >= at) {
        let Some(file) = files.pop() else { break };
        disk.remove(file.path())?;
        disk.sync_dir(&layout.dir)?;
    }
    if let Some(last) = files.last_mut().filter(|last| at < last.end()) {
        last.restore_blocks()?;
        last.truncate((at - last.start) as usize)?;
    }
    tracing::warn!(end = at, bytes, kept = %kept.display(), "the commit log was cut, what was behind is kept aside");
    Ok(CutOff { end: at, bytes, kept })
}

/// Whether a record begins at `at`, behind another one.
fn is_boundary(files: &MappedFileQueue, at: u64) -> bool {
    let Some(first) = files.first_start().filter(|first| at > *first) else { return false };
    let file_start = at - at % files.file_size();
    if files.find(at).is_none() {
        return false;
    }
    let mut reader = LogReader::new(files, file_start.max(first));
    while reader.offset() < at && reader.next_record().is_some() {}
    reader.offset() == at
}

/// Copies what lies behind `at`, up to the last byte that is not zero; returns how much that is.
fn keep(files: &[MappedFile], at: u64, kept: &Path, disk: &Disk) -> Result<u64, StoreError> {
    if let Some(parent) = kept.parent() {
        disk.create_dir(parent)?;
    }
    disk.create_dir(kept)?;
    let mut total = 0;
    for source in files.iter().filter(|file| file.end() > at) {
        let from = at.max(source.start);
        let Some(bytes) = source.slice((from - source.start) as usize, source.len()) else { continue };
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used == 0 {
            continue;
        }
        let path = MappedFile::path_in(kept, from);
        let copy = disk.open(&path)?;
        for (part, chunk) in bytes[..used].chunks(COPIED_AT_ONCE).enumerate() {
            disk.write_at(&copy, &path, (part * COPIED_AT_ONCE) as u64, chunk)?;
        }
        disk.sync_file(&copy, &path)?;
        total += used as u64;
    }
    disk.sync_dir(kept)?;
    if let Some(parent) = kept.parent() {
        disk.sync_dir(parent)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MessageStore, NewMessage};

    fn config(dir: &Path) -> StoreConfig {
        StoreConfig {
            store_path_root_dir: dir.to_owned(),
            mapped_file_size_commit_log: 4096,
            mapped_file_size_consume_queue: 200,
            max_hash_slot_num: 20,
            max_index_num: 40,
            ..StoreConfig::default()
        }
    }

    #[test]
    fn a_log_is_cut_at_a_message_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let store = MessageStore::open(config.clone()).unwrap();
        let body = [7; 400];
        let message = NewMessage { body: &body, ..NewMessage::sample() };
        let appended: Vec<_> = (0..20).map(|_| store.append(&message).unwrap()).collect();
        let (cut, end) = (appended[9].offset, appended[19].end);
        let behind = store.read_raw(cut, 100_000).unwrap().to_vec();
        assert!(matches!(truncate(&config, cut), Err(StoreError::Locked { .. })), "it is open");
        store.shutdown();
        drop(store);

        for wrong in [0, cut + 1, end + 4096] {
            assert!(matches!(truncate(&config, wrong), Err(StoreError::NoBoundary { .. })), "{wrong}");
        }
        let off = truncate(&config, cut).unwrap();
        assert_eq!((off.end, off.bytes > 0), (cut, true));
        let kept = std::fs::read(MappedFile::path_in(&off.kept, cut)).unwrap();
        assert_eq!(kept[..300], behind[..300]);
        assert!(off.kept.read_dir().unwrap().count() > 1, "one for each file");

        // The queue goes on where the log was cut: the master gives the same offsets to other messages.
        let store = MessageStore::open(config).unwrap();
        assert_eq!((store.max_physical_offset(), store.max_offset("T", 0)), (cut, 9));
        let other = NewMessage { body: b"other", ..NewMessage::sample() };
        assert_eq!(store.append(&other).unwrap().queue_offset, 9);
        store.wait_dispatched().unwrap();
        assert_eq!(store.max_offset("T", 0), 10);
        store.shutdown();
    }
}
