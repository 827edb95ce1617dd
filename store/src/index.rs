//! The key index: index files from oldest to newest, written by the dispatcher, searched by queries.
//!
//! Owns the `index` directory. May not: read the log; it answers with log offsets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::hot_files::HotFiles;
use crate::index_checksums::{self, HeldIndexFile, Scope};
use crate::index_file::{IndexFile, IndexShape, key_hash};
use crate::properties::{java_hash_onto, java_string_hash};

/// Index files that stay mapped: the one being written and those that queries look into.
const MAPPED_FILES: usize = 4;
/// Keys that a message has at most, nearly always.
const KEYS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    dir: PathBuf,
    shape: IndexShape,
    disk: Disk,
    hot: Arc<HotFiles>,
    files: ArcSwap<Vec<Arc<IndexFile>>>,
    /// While files are written, deleted or replaced.
    changing: Mutex<()>,
}

/// What of the index on disk is known to be there as it was written: a power loss may leave anything of the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trusted {
    /// Entries of messages up to this log offset.
    pub(crate) offset: u64,
    /// Files whose newest message was stored up to this time, ms.
    pub(crate) timestamp: i64,
}

impl Trusted {
    /// Everything: the store was closed.
    pub(crate) const ALL: Self = Self { offset: u64::MAX, timestamp: i64::MAX };
}

/// What the manifest says of the index.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeldIndex<'a> {
    /// Oldest first.
    pub(crate) files: &'a [HeldIndexFile],
    /// Nobody wrote since.
    pub(crate) is_final: bool,
    /// How many bytes, of the newest, are compared.
    pub(crate) checked: usize,
}

impl HeldIndex<'_> {
    fn is_as_held(self, file: &IndexFile, scopes: &[Scope], disk: &Disk) -> Result<bool, StoreError> {
        let name = file.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(number) = self.files.iter().position(|held| held.name == name) else { return Ok(true) };
        // Entries are added to the newest one only.
        let is_full = number + 1 < self.files.len();
        if is_full {
            file.believe_table(self.files[number].table);
        }
        let is_final = self.is_final || is_full;
        file.is_as_held(&self.files[number], scopes[number], is_final, disk)
    }
}

impl Index {
    /// Loads the files. Those of another shape, not trusted, or other than the manifest `held` them are deleted; the newest
    /// is made consistent again and cut behind what is trusted and what the log has. Older ones were complete on disk
    /// before the next was begun.
    pub(crate) fn recover(
        dir: PathBuf,
        shape: IndexShape,
        log_end: u64,
        trusted: Trusted,
        held: HeldIndex<'_>,
        disk: Disk,
    ) -> Result<Self, StoreError> {
        let scopes = index_checksums::scopes(held.files, shape, held.checked);
        let hot = HotFiles::new(MAPPED_FILES);
        let mut files: Vec<Arc<IndexFile>> = Vec::new();
        let end = log_end.min(trusted.offset.saturating_add(1));
        let mut intact = true;
        for (path, len) in index_paths(&dir, &disk)? {
            // Behind a file that had to go, or whose header is damaged, later ones go too: what they hold is
            // dispatched again.
            let before = files.last().map_or(0, |f| f.end_physical());
            intact &= len == shape.file_len() as u64 && (before < end || files.is_empty());
            if intact {
                let file = IndexFile::open(path.clone(), shape, &disk, &hot)?;
                if trusted.offset == u64::MAX {
                    file.settle_end(&disk)?;
                }
                intact = file.count() > 1
                    && (before..u64::MAX / 2).contains(&file.end_physical())
                    && file.end_timestamp() <= trusted.timestamp
                    && held.is_as_held(&file, &scopes, &disk)?;
                if intact {
                    files.push(Arc::new(file));
                    continue;
                }
            }
            tracing::warn!(file = %path.display(), "the index file is damaged or empty and is deleted");
            disk.remove(&path)?;
        }
        while let Some(last) = files.last() {
            if trusted.offset != u64::MAX || last.end_physical() >= end {
                last.repair(end)?;
            }
            let before = files.len().checked_sub(2).map_or(0, |i| files[i].end_physical());
            if last.count() > 1 && last.end_physical() >= before {
                break;
            }
            disk.remove(last.path())?;
            files.pop();
        }
        Ok(Self { dir, shape, disk, hot, files: ArcSwap::from_pointee(files), changing: Mutex::new(()) })
    }

    /// Log offset of the newest indexed message, `None` when nothing is indexed.
    pub(crate) fn end_physical(&self) -> Option<u64> {
        self.files.load().last().map(|f| f.end_physical())
    }

    /// Store time (ms) of the newest indexed message, 0 when nothing is indexed.
    pub(crate) fn end_timestamp(&self) -> i64 {
        self.files.load().last().map_or(0, |f| f.end_timestamp())
    }

    /// Store time (ms) of the newest message of the files that are full, 0 without one. That is what the checkpoint
    /// may say: after a crash Java deletes files that end later and does not index their older messages again
    /// (`IndexService.load`).
    pub(crate) fn full_until(&self) -> i64 {
        self.files.load().iter().rev().nth(1).map_or(0, |f| f.end_timestamp())
    }

    /// Adds a message under a key. Only the dispatcher's thread calls this.
    pub(crate) fn put(&self, topic: &str, key: &str, physical: u64, timestamp: i64) -> Result<(), StoreError> {
        let hash = hash_of(topic, key);
        let _one = self.changing.lock();
        if let Some(file) = self.files.load().last()
            && file.put(hash, physical, timestamp)?
        {
            return Ok(());
        }
        self.next_file()?.put(hash, physical, timestamp)?;
        Ok(())
    }

    /// Whether as many keys fit into the newest file. They are not counted where more than a message has nearly always do.
    pub(crate) fn has_room(&self, keys: impl FnOnce() -> usize) -> bool {
        let left = self.files.load().last().map_or(0, |file| self.shape.entries.saturating_sub(file.count()) as usize);
        left >= KEYS || keys() <= left
    }

    fn next_file(&self) -> Result<Arc<IndexFile>, StoreError> {
        self.disk.create_dir(&self.dir)?;
        if let Some(full) = self.files.load().last() {
            full.sync()?;
        }
        let mut now = jiff::Zoned::now();
        let path = loop {
            let path = self.dir.join(now.strftime("%Y%m%d%H%M%S%3f").to_string());
            if !path.exists() {
                break path;
            }
            now = now.saturating_add(jiff::SignedDuration::from_millis(1));
        };
        let file = Arc::new(IndexFile::create(path, self.shape, &self.disk, &self.hot)?);
        self.disk.sync_dir(&self.dir)?;
        self.files.rcu(|files| {
            let mut files = Vec::clone(files);
            files.push(Arc::clone(&file));
            files
        });
        Ok(file)
    }

    /// Visits log offsets indexed under the key between the two times (ms), newest first, until `visit` says
    /// `false`. The same offset may come twice, and a foreign one of the same hash.
    pub(crate) fn search(&self, topic: &str, key: &str, begin: i64, end: i64, visit: &mut dyn FnMut(u64) -> bool) {
        let hash = hash_of(topic, key);
        let mut more = true;
        for file in self.files.load().iter().rev() {
            if file.overlaps(begin, end) {
                let searched = file.search(hash, begin, end, &mut |physical| {
                    more = visit(physical);
                    more
                });
                if let Err(error) = searched {
                    tracing::error!(%error, "an index file cannot be searched");
                }
            }
            if !more || file.begin_timestamp() < begin {
                return;
            }
        }
    }

    /// Deletes everything, to be indexed again.
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        for file in self.files.swap(Arc::default()).iter() {
            self.disk.remove(file.path())?;
        }
        Ok(())
    }

    /// Deletes files whose messages the log has no more; the newest stays.
    pub(crate) fn delete_expired(&self, log_min: u64) -> Result<usize, StoreError> {
        let _one = self.changing.lock();
        let files = self.files.load_full();
        let expired =
            files.iter().take(files.len().saturating_sub(1)).take_while(|f| f.end_physical() < log_min).count();
        if expired > 0 {
            self.files.rcu(|files| files[expired.min(files.len())..].to_vec());
            for file in &files[..expired] {
                self.disk.remove(file.path())?;
            }
        }
        Ok(expired)
    }

    /// Brings the newest file to the disk; the older ones are there.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        match self.files.load().last() {
            Some(file) => file.sync(),
            None => Ok(()),
        }
    }

    /// What the manifest notes of each file, oldest first; `is_closed` when nobody writes any more.
    pub(crate) fn held(&self, is_closed: bool) -> Vec<HeldIndexFile> {
        let files = self.files.load();
        let held = files.iter().enumerate().map(|(i, file)| file.held(is_closed || i + 1 < files.len(), &self.disk));
        // What cannot be read now cannot be compared later.
        held.filter_map(|held| held.inspect_err(|error| tracing::error!(%error, "no checksum of an index file")).ok())
            .collect()
    }

    /// The files, oldest first.
    pub(crate) fn files(&self) -> Arc<Vec<Arc<IndexFile>>> {
        self.files.load_full()
    }

    /// Whether a file still is one of the index.
    pub(crate) fn has(&self, file: &Arc<IndexFile>) -> bool {
        self.files.load().iter().any(|one| Arc::ptr_eq(one, file))
    }

    /// The file that ought to have an entry of a message under a key, and has none. What was indexed before the first file
    /// or is not indexed yet is not missed.
    pub(crate) fn lacks(
        &self,
        topic: &str,
        key: &str,
        physical: u64,
        timestamp: i64,
    ) -> Result<Option<Arc<IndexFile>>, StoreError> {
        let files = self.files.load();
        let at = files.partition_point(|file| file.end_physical() < physical);
        let Some(file) = files.get(at) else { return Ok(None) };
        if at == 0 && file.ends()?.is_none_or(|ends| physical < *ends.first.start()) {
            return Ok(None);
        }
        // The entries of one message may lie in two files.
        for file in files[at..].iter().take(2) {
            let mut is_there = false;
            if !file.overlaps(timestamp, timestamp) && file.begin_timestamp() < file.end_timestamp() {
                continue;
            }
            // Times are kept in seconds since the file's first.
            let until = timestamp.max(file.begin_timestamp());
            file.search(hash_of(topic, key), timestamp.saturating_sub(999), until, &mut |found| {
                is_there = found == physical;
                !is_there
            })?;
            if is_there {
                return Ok(None);
            }
        }
        Ok(Some(Arc::clone(file)))
    }

    /// An empty file in the directory `aside` that is to take the place of `old`.
    pub(crate) fn make_aside(&self, old: &IndexFile, aside: &Path) -> Result<IndexFile, StoreError> {
        self.disk.create_dir(aside)?;
        let path = aside.join(old.path().file_name().unwrap_or_default());
        self.disk.remove(&path)?;
        IndexFile::create(path, self.shape, &self.disk, &HotFiles::new(1))
    }

    /// Adds a message under a key to a file that was made aside; `false` when it is full.
    pub(crate) fn put_aside(
        file: &IndexFile,
        topic: &str,
        key: &str,
        physical: u64,
        timestamp: i64,
    ) -> Result<bool, StoreError> {
        file.put(hash_of(topic, key), physical, timestamp)
    }

    /// Puts a file that was made aside into the place of `old`, once `finish` has added what `old` got meanwhile. `false`
    /// when `old` is gone.
    pub(crate) fn replace(
        &self,
        old: &Arc<IndexFile>,
        new: &IndexFile,
        finish: &mut dyn FnMut(&IndexFile) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        // Most of it goes to the disk while others may write.
        new.sync()?;
        self.disk.sync_dir(new.path().parent().unwrap_or(&self.dir))?;
        let _one = self.changing.lock();
        if !self.has(old) {
            return Ok(false);
        }
        finish(new)?;
        new.sync()?;
        self.disk.rename(new.path(), old.path())?;
        let reopened = Arc::new(new.renamed(old.path().to_owned(), &self.disk, &self.hot));
        self.files.rcu(|files| {
            let new_or_same = |file| Arc::clone(if Arc::ptr_eq(file, old) { &reopened } else { file });
            files.iter().map(new_or_same).collect::<Vec<_>>()
        });
        self.disk.sync_dir(&self.dir)?;
        Ok(true)
    }

    /// How many files there are.
    pub(crate) fn file_count(&self) -> usize {
        self.files.load().len()
    }
}

fn hash_of(topic: &str, key: &str) -> u32 {
    key_hash(java_hash_onto(java_hash_onto(java_string_hash(topic), "#"), key))
}

/// Index files in `dir` and their lengths, oldest first: names of 17 digits.
fn index_paths(dir: &Path, disk: &Disk) -> Result<Vec<(PathBuf, u64)>, StoreError> {
    let is_ours = |name: &str| name.len() == 17 && name.bytes().all(|b| b.is_ascii_digit());
    let entries = disk.list(dir)?.into_iter();
    Ok(entries.filter_map(|e| e.file_len.filter(|_| is_ours(&e.name)).map(|len| (dir.join(&e.name), len))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: IndexShape = IndexShape { slots: 8, entries: 4 };

    fn found(index: &Index, key: &str, begin: i64, end: i64) -> Vec<u64> {
        let mut found = Vec::new();
        index.search("T", key, begin, end, &mut |p| {
            found.push(p);
            true
        });
        found
    }

    #[test]
    fn files_follow_each_other_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let index =
            Index::recover(dir.path().join("index"), SHAPE, 0, Trusted::ALL, HeldIndex::default(), Disk::default())
                .unwrap();
        for i in 1..=8 {
            index.put("T", if i % 2 == 0 { "even" } else { "odd" }, i * 100, i as i64 * 1000).unwrap();
        }
        assert_eq!(index.file_count(), 3);
        assert_eq!(found(&index, "even", 0, i64::MAX), [800, 600, 400, 200]);
        assert_eq!(found(&index, "odd", 3000, 5000), [500, 300]);
        drop(index);
        let index =
            Index::recover(dir.path().join("index"), SHAPE, 750, Trusted::ALL, HeldIndex::default(), Disk::default())
                .unwrap();
        assert_eq!(found(&index, "even", 0, i64::MAX), [600, 400, 200], "cut at the log's end");
        assert_eq!(index.end_physical(), Some(700));
        drop(index);
        let trusted = Trusted { offset: 600, timestamp: i64::MAX };
        let index =
            Index::recover(dir.path().join("index"), SHAPE, 750, trusted, HeldIndex::default(), Disk::default())
                .unwrap();
        assert_eq!(index.end_physical(), Some(600), "cut behind what is trusted");
        assert_eq!(index.delete_expired(350).unwrap(), 1);
        assert_eq!(found(&index, "even", 0, i64::MAX), [600, 400]);
    }

    #[test]
    fn a_damaged_file_goes_and_takes_the_later_ones_along() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("index");
        let index =
            Index::recover(root.clone(), SHAPE, 0, Trusted::ALL, HeldIndex::default(), Disk::default()).unwrap();
        for i in 1..=8 {
            index.put("T", "k", i * 100, 1000).unwrap();
        }
        let second = index_paths(&root, &Disk::default()).unwrap()[1].0.clone();
        drop(index);
        std::fs::write(&second, "short").unwrap();
        let index =
            Index::recover(root.clone(), SHAPE, 9999, Trusted::ALL, HeldIndex::default(), Disk::default()).unwrap();
        assert_eq!((index.file_count(), index.end_physical()), (1, Some(300)));
    }

    #[test]
    fn a_damaged_header_of_an_older_file_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("index");
        let recover =
            || Index::recover(root.clone(), SHAPE, 9999, Trusted::ALL, HeldIndex::default(), Disk::default()).unwrap();
        let index = recover();
        for i in 1..=8 {
            index.put("T", "k", i * 100, 1000).unwrap();
        }
        drop(index);
        // The end of the second file lies behind that of the log: its last entry says otherwise.
        let second = index_paths(&root, &Disk::default()).unwrap()[1].0.clone();
        let mut bytes = std::fs::read(&second).unwrap();
        bytes[24] = 0x10;
        std::fs::write(&second, bytes).unwrap();
        for _ in 0..2 {
            let index = recover();
            assert_eq!((index.file_count(), index.end_physical()), (3, Some(800)));
            assert_eq!(found(&index, "k", 0, i64::MAX), [800, 700, 600, 500, 400, 300, 200, 100]);
        }
        // Its entries begin anew below the file before.
        let mut bytes = std::fs::read(&second).unwrap();
        for entry in 1..4 {
            let at = SHAPE.file_len() - (4 - entry) * 20 + 4;
            bytes[at..at + 8].copy_from_slice(&(entry as u64).to_be_bytes());
        }
        bytes[24] = 0x10;
        std::fs::write(&second, bytes).unwrap();
        for _ in 0..2 {
            assert_eq!(recover().end_physical(), Some(300));
        }
    }
}
