//! The files of one log or queue, side by side: offset → file, without a lock for readers.
//!
//! Owns the list (copy on write) and the names in the directory. May not: decide when files come or go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::hot_files::HotFiles;
use crate::mapped_file::{Allocation, MappedFile};

/// What the files of a queue have in common.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    /// Bytes of each file.
    pub(crate) file_size: u64,
    pub(crate) allocation: Allocation,
    pub(crate) disk: Disk,
    pub(crate) hot: Arc<HotFiles>,
}

impl Layout {
    /// Start offset and size on disk of each file, by offset. Other names are left alone.
    pub(crate) fn scan(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.disk.list(&self.dir)? {
            let start = Some(&entry.name).filter(|n| n.len() == 20).and_then(|n| n.parse::<u64>().ok());
            if let (Some(start), Some(len)) = (start, entry.file_len) {
                found.push((start, len));
            } else {
                let file = self.dir.join(entry.name);
                tracing::warn!(file = %file.display(), "not a file of the store, left alone");
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// A file that is there, see [`MappedFile::open`].
    pub(crate) fn open(&self, start: u64) -> MappedFile {
        MappedFile::open(&self.dir, start, self.file_size as usize, self.allocation, &self.disk, &self.hot)
    }

    /// Path of the file that starts at `start`.
    pub(crate) fn path(&self, start: u64) -> PathBuf {
        MappedFile::path_in(&self.dir, start)
    }
}

/// A run of equally large files.
#[derive(Debug)]
pub(crate) struct MappedFileQueue {
    layout: Layout,
    files: ArcSwap<Vec<Arc<MappedFile>>>,
    /// Names are taken away, and given to other files, by one at a time: a queue that starts over uses them again.
    removing: Mutex<()>,
}

impl MappedFileQueue {
    pub(crate) fn new(layout: Layout, files: Vec<MappedFile>) -> Self {
        let files = ArcSwap::from_pointee(files.into_iter().map(Arc::new).collect());
        Self { layout, files, removing: Mutex::new(()) }
    }

    /// Takes the queue apart again, which nobody else uses any more or yet.
    pub(crate) fn into_parts(self) -> (Layout, Vec<MappedFile>) {
        let files = Arc::unwrap_or_clone(self.files.into_inner());
        (self.layout, files.into_iter().filter_map(Arc::into_inner).collect())
    }

    pub(crate) fn file_size(&self) -> u64 {
        self.layout.file_size
    }

    pub(crate) fn all(&self) -> Arc<Vec<Arc<MappedFile>>> {
        self.files.load_full()
    }

    /// The file that holds `offset`.
    pub(crate) fn find(&self, offset: u64) -> Option<Arc<MappedFile>> {
        let files = self.files.load();
        let first = files.first()?.start;
        let index = usize::try_from(offset.checked_sub(first)? / self.layout.file_size).ok()?;
        files.get(index).map(Arc::clone)
    }

    /// Start of the oldest file.
    pub(crate) fn first_start(&self) -> Option<u64> {
        self.files.load().first().map(|f| f.start)
    }

    /// Creates the file that starts at `start`; it joins the list by [`MappedFileQueue::push`].
    pub(crate) fn create(&self, start: u64) -> Result<MappedFile, StoreError> {
        let Layout { dir, file_size, allocation, disk, hot } = &self.layout;
        disk.create_dir(dir)?;
        MappedFile::create(dir, start, *file_size as usize, *allocation, disk, hot)
    }

    pub(crate) fn push(&self, file: &Arc<MappedFile>) {
        self.files.rcu(|files| {
            let mut files = Vec::clone(files);
            files.push(Arc::clone(file));
            files
        });
    }

    /// Deletes those of these files that are still there and takes them out of the list; readers keep what they hold.
    pub(crate) fn remove(&self, files: &[Arc<MappedFile>]) -> Result<(), StoreError> {
        let _one = self.removing.lock();
        let listed = self.all();
        let gone: Vec<_> = files.iter().filter(|file| holds(&listed, file)).map(Arc::clone).collect();
        self.unlink(&gone)?;
        self.files.rcu(|files| files.iter().filter(|file| !holds(&gone, file)).map(Arc::clone).collect::<Vec<_>>());
        Ok(())
    }

    /// Deletes all files.
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        let _one = self.removing.lock();
        let removed = self.files.swap(Arc::new(Vec::new()));
        self.unlink(&removed)
    }

    /// Puts a file of these bytes, all of them published, into the place of `old`: made in the directory `aside`, on disk
    /// before it takes the name. Readers keep what they hold. `None` when `old` is gone meanwhile.
    pub(crate) fn replace(
        &self,
        old: &Arc<MappedFile>,
        bytes: &[u8],
        aside: &Path,
    ) -> Result<Option<Arc<MappedFile>>, StoreError> {
        let _one = self.removing.lock();
        if !holds(&self.files.load(), old) {
            return Ok(None);
        }
        let disk = &self.layout.disk;
        disk.create_dir(aside)?;
        let made = MappedFile::path_in(aside, old.start);
        disk.remove(&made)?;
        let file = disk.open(&made)?;
        disk.resize(&file, &made, old.len() as u64)?;
        disk.write_at(&file, &made, 0, bytes)?;
        disk.sync_file(&file, &made)?;
        disk.sync_dir(aside)?;
        disk.rename(&made, old.path())?;
        // From here on the old file has no name: nobody may write to it, whatever else fails.
        let mut new = self.layout.open(old.start);
        new.reopen_at(bytes.len());
        let new = Arc::new(new);
        self.files.rcu(|files| {
            let new_or_same = |file| Arc::clone(if Arc::ptr_eq(file, old) { &new } else { file });
            files.iter().map(new_or_same).collect::<Vec<_>>()
        });
        disk.sync_dir(&self.layout.dir)?;
        Ok(Some(new))
    }

    /// Whether a file still is one of these, and has its name.
    pub(crate) fn has(&self, file: &Arc<MappedFile>) -> bool {
        let _one = self.removing.lock();
        holds(&self.files.load(), file)
    }

    /// Deletes the emptied directory.
    pub(crate) fn remove_dir(&self) -> Result<(), StoreError> {
        self.layout.disk.remove_dir(&self.layout.dir)
    }

    fn unlink(&self, files: &[Arc<MappedFile>]) -> Result<(), StoreError> {
        if files.is_empty() {
            return Ok(());
        }
        for file in files {
            self.layout.disk.remove(file.path())?;
        }
        self.layout.disk.sync_dir(&self.layout.dir)
    }
}

fn holds(files: &[Arc<MappedFile>], file: &Arc<MappedFile>) -> bool {
    files.iter().any(|one| Arc::ptr_eq(one, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_find_their_file_also_after_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout {
            dir: dir.path().to_owned(),
            file_size: 100,
            allocation: Allocation::Full,
            disk: Disk::default(),
            hot: HotFiles::new(2),
        };
        let queue = MappedFileQueue::new(layout.clone(), Vec::new());
        assert!(queue.find(0).is_none());
        for start in [200, 300, 400] {
            queue.push(&Arc::new(queue.create(start).unwrap()));
        }
        assert_eq!(queue.find(399).unwrap().start, 300);
        assert!(queue.find(199).is_none() && queue.find(500).is_none());
        queue.remove(&queue.all()[..1]).unwrap();
        assert!(queue.find(299).is_none());
        assert_eq!(queue.find(499).unwrap().start, 400);
        std::fs::write(dir.path().join("other"), "x").unwrap();
        assert_eq!(layout.scan().unwrap(), [(300, 100), (400, 100)]);

        // Who looked before somebody else deleted takes no newer file along, not even one of the same name.
        let seen = queue.all();
        queue.remove(&seen[..1]).unwrap();
        queue.remove(&seen[..1]).unwrap();
        assert_eq!(layout.scan().unwrap(), [(400, 100)]);
        queue.clear().unwrap();
        queue.push(&Arc::new(queue.create(400).unwrap()));
        queue.remove(&seen).unwrap();
        assert_eq!((layout.scan().unwrap(), queue.all().len()), (vec![(400, 100)], 1));
    }
}
