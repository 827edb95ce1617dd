//! The files of one log or queue, side by side: offset → file, without a lock for readers.
//!
//! Owns the list (copy on write) and the names in the directory. May not: decide when files come or go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config_file::sync_dir;
use crate::error::StoreError;
use crate::mapped_file::{Allocation, MappedFile};

/// A run of equally large files.
#[derive(Debug)]
pub(crate) struct MappedFileQueue {
    dir: PathBuf,
    file_size: u64,
    allocation: Allocation,
    files: ArcSwap<Vec<Arc<MappedFile>>>,
}

impl MappedFileQueue {
    pub(crate) fn new(dir: PathBuf, file_size: u64, allocation: Allocation, files: Vec<MappedFile>) -> Self {
        let files = ArcSwap::from_pointee(files.into_iter().map(Arc::new).collect());
        Self { dir, file_size, allocation, files }
    }

    /// Start offset and size on disk of each file in `dir`, by offset. Other names are left alone.
    pub(crate) fn scan(dir: &Path) -> Result<Vec<(u64, u64)>, StoreError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(StoreError::io("list", dir, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| StoreError::io("list", dir, e))?;
            let name = entry.file_name();
            let start = name.to_str().filter(|n| n.len() == 20).and_then(|n| n.parse::<u64>().ok());
            let meta = entry.metadata().map_err(|e| StoreError::io("stat", &entry.path(), e))?;
            match start {
                Some(start) if meta.is_file() => found.push((start, meta.len())),
                _ => tracing::warn!(file = %entry.path().display(), "not a file of the store, left alone"),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn file_size(&self) -> u64 {
        self.file_size
    }

    pub(crate) fn all(&self) -> Arc<Vec<Arc<MappedFile>>> {
        self.files.load_full()
    }

    /// The file that holds `offset`.
    pub(crate) fn find(&self, offset: u64) -> Option<Arc<MappedFile>> {
        let files = self.files.load();
        let first = files.first()?.start;
        let index = usize::try_from(offset.checked_sub(first)? / self.file_size).ok()?;
        files.get(index).map(Arc::clone)
    }

    /// Start of the oldest file.
    pub(crate) fn first_start(&self) -> Option<u64> {
        self.files.load().first().map(|f| f.start)
    }

    /// Creates the file that starts at `start`; it joins the list by [`MappedFileQueue::push`].
    pub(crate) fn create(&self, start: u64) -> Result<MappedFile, StoreError> {
        fs::create_dir_all(&self.dir).map_err(|e| StoreError::io("create", &self.dir, e))?;
        MappedFile::create(&self.dir, start, self.file_size as usize, self.allocation)
    }

    pub(crate) fn push(&self, file: &Arc<MappedFile>) {
        self.files.rcu(|files| {
            let mut files = Vec::clone(files);
            files.push(Arc::clone(file));
            files
        });
    }

    /// Takes the `count` oldest files out of the list and deletes them; readers keep what they hold.
    pub(crate) fn remove_oldest(&self, count: usize) -> Result<(), StoreError> {
        let removed = self.files.rcu(|files| files[count.min(files.len())..].to_vec());
        self.unlink(&removed[..count.min(removed.len())])
    }

    /// Deletes all files.
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        let removed = self.files.swap(Arc::new(Vec::new()));
        self.unlink(&removed)
    }

    fn unlink(&self, files: &[Arc<MappedFile>]) -> Result<(), StoreError> {
        if files.is_empty() {
            return Ok(());
        }
        for file in files {
            remove_if_there(file.path())?;
        }
        sync_dir(&self.dir)
    }
}

/// Deletes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StoreError::io("delete", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_find_their_file_also_after_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let queue = MappedFileQueue::new(dir.path().to_owned(), 100, Allocation::Full, Vec::new());
        assert!(queue.find(0).is_none());
        for start in [200, 300, 400] {
            queue.push(&Arc::new(queue.create(start).unwrap()));
        }
        assert_eq!(queue.find(399).unwrap().start, 300);
        assert!(queue.find(199).is_none() && queue.find(500).is_none());
        queue.remove_oldest(1).unwrap();
        assert!(queue.find(299).is_none());
        assert_eq!(queue.find(499).unwrap().start, 400);
        std::fs::write(dir.path().join("other"), "x").unwrap();
        assert_eq!(MappedFileQueue::scan(dir.path()).unwrap(), [(300, 100), (400, 100)]);
    }
}
