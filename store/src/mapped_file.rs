//! Memory-mapped files: the only module of the store with `unsafe`.
//!
//! Owns creation (allocated before it is mapped, so a full disk is an error here and never a SIGBUS later), the
//! mapping, and the two disciplines under which it is shared:
//! * [`MappedFile`] is append-only. One [`MappedWriter`] writes behind the published position, readers see only what
//!   is before it, and published bytes never change. [`Bytes`] slices keep the mapping alive, so a file may be
//!   deleted under a reader.
//! * [`MappedWords`] is a table of big-endian 32-bit words, each read and written atomically (the index).
//!
//! May not: know what the bytes mean. Nobody else may change the files: the store's lock file sees to that.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;

use crate::config_file::sync_dir;
use crate::error::StoreError;

/// How disk blocks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allocation {
    /// All when the file is created: the log.
    Full,
    /// In steps ahead of the writer: files of which there are many, mostly empty.
    OnDemand,
}

/// Step of [`Allocation::OnDemand`].
const ALLOCATION_STEP: usize = 64 << 10;
const PAGE: usize = 4096;

#[derive(Debug)]
struct Mapping {
    path: PathBuf,
    file: File,
    map: MmapRaw,
    /// Blocks are allocated from the page of the write position up to here.
    allocated: AtomicUsize,
}

impl Mapping {
    /// Opens or creates the file, brings it to `len` bytes and maps it.
    fn open(path: &Path, len: usize) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| StoreError::io("open", path, e))?;
        let now = file.metadata().map_err(|e| StoreError::io("stat", path, e))?.len();
        if now != len as u64 {
            file.set_len(len as u64).map_err(|e| StoreError::io("resize", path, e))?;
        }
        let map = MmapOptions::new().len(len).map_raw(&file).map_err(|e| StoreError::io("map", path, e))?;
        Ok(Self { path: path.to_owned(), file, map, allocated: AtomicUsize::new(0) })
    }

    /// Allocates blocks for `from..to`; what is there stays.
    fn allocate(&self, from: usize, to: usize) -> Result<(), StoreError> {
        let result = rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from as u64, (to - from) as u64);
        match result {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                self.rewrite(from, to).map_err(|e| StoreError::io("allocate", &self.path, e))
            }
            Err(e) => Err(StoreError::io("allocate", &self.path, e)),
        }
    }

    /// Allocation where the file system has no call for it: write back what is there.
    fn rewrite(&self, from: usize, to: usize) -> io::Result<()> {
        let mut block = vec![0; ALLOCATION_STEP];
        let mut at = from;
        while at < to {
            let part = &mut block[..ALLOCATION_STEP.min(to - at)];
            self.file.read_exact_at(part, at as u64)?;
            self.file.write_all_at(part, at as u64)?;
            at += part.len();
        }
        Ok(())
    }

    /// Makes sure that blocks exist for `from..to`, in steps.
    fn ensure_allocated(&self, from: usize, to: usize) -> Result<(), StoreError> {
        let allocated = self.allocated.load(Ordering::Relaxed);
        if to <= allocated {
            return Ok(());
        }
        let from = allocated.max(from / PAGE * PAGE);
        let end = to.next_multiple_of(ALLOCATION_STEP).min(self.map.len());
        self.allocate(from, end)?;
        self.allocated.store(end, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self, from: usize, to: usize) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        self.map.flush_range(from, to - from)
    }
}

/// An append-only mapped file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    /// Offset (log bytes or queue bytes) of the file's first byte; its name.
    pub(crate) start: u64,
    mapping: Mapping,
    allocation: Allocation,
    /// Bytes before this position are written and final.
    published: AtomicUsize,
    has_writer: AtomicBool,
}

impl MappedFile {
    /// Name of the file that starts at `start`: 20 digits.
    pub(crate) fn path_in(dir: &Path, start: u64) -> PathBuf {
        dir.join(format!("{start:020}"))
    }

    /// Creates the file, durable under its name, nothing published.
    pub(crate) fn create(dir: &Path, start: u64, len: usize, allocation: Allocation) -> Result<Self, StoreError> {
        let file = Self::open(dir, start, len, allocation)?;
        file.mapping.file.sync_all().map_err(|e| StoreError::io("sync", &file.mapping.path, e))?;
        sync_dir(dir)?;
        file.published.store(0, Ordering::Relaxed);
        Ok(file)
    }

    /// Opens the file, everything published: recovery reads it and then truncates.
    pub(crate) fn open(dir: &Path, start: u64, len: usize, allocation: Allocation) -> Result<Self, StoreError> {
        let path = Self::path_in(dir, start);
        let mapping = Mapping::open(&path, len)?;
        if allocation == Allocation::Full {
            mapping.allocate(0, len)?;
        }
        Ok(Self { start, mapping, allocation, published: AtomicUsize::new(len), has_writer: AtomicBool::new(false) })
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.map.len()
    }

    /// Offset behind the file's last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len() as u64
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mapping.path
    }

    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// Published bytes `from..to`, `None` when not all of them are.
    pub(crate) fn slice(&self, from: usize, to: usize) -> Option<&[u8]> {
        if from > to || to > self.published() {
            return None;
        }
        // SAFETY: `to` is at most `published`, which is at most the length of the mapping, and the mapping lives as
        // long as `self`. Bytes before `published` are not written again: a writer refuses positions before it, and
        // `truncate`, which lowers it, needs `&mut self`, hence no slice and no `Bytes` (those hold an `Arc`).
        Some(unsafe { std::slice::from_raw_parts(self.mapping.map.as_ptr().add(from), to - from) })
    }

    /// Like [`MappedFile::slice`], keeping the mapping alive.
    pub(crate) fn bytes(self: &Arc<Self>, from: usize, to: usize) -> Option<Bytes> {
        self.slice(from, to)?;
        Some(Bytes::from_owner(Window { file: Arc::clone(self), from, to }))
    }

    /// The one writer, or `None` while there is one.
    pub(crate) fn writer(self: &Arc<Self>) -> Option<MappedWriter> {
        let taken = self.has_writer.swap(true, Ordering::AcqRel);
        (!taken).then(|| MappedWriter { file: Arc::clone(self) })
    }

    /// Forgets everything from `at` on: zero on disk as if never written.
    pub(crate) fn truncate(&mut self, at: usize) -> Result<(), StoreError> {
        let at = at.min(self.len());
        let mode = match self.allocation {
            Allocation::Full => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
            Allocation::OnDemand => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        };
        let len = self.len() - at;
        if len > 0 && rustix::fs::fallocate(&self.mapping.file, mode, at as u64, len as u64).is_err() {
            self.zero_pages(at).map_err(|e| StoreError::io("zero", self.path(), e))?;
        }
        self.published.store(at, Ordering::Release);
        self.mapping.allocated.store(0, Ordering::Relaxed);
        self.mapping.file.sync_all().map_err(|e| StoreError::io("sync", self.path(), e))
    }

    /// Zeroes what is not zero from `at` on, without allocating holes.
    fn zero_pages(&self, at: usize) -> io::Result<()> {
        const ZERO: [u8; PAGE] = [0; PAGE];
        let mut page = [0; PAGE];
        let mut at = at;
        while at < self.len() {
            let part = &mut page[..(PAGE - at % PAGE).min(self.len() - at)];
            self.mapping.file.read_exact_at(part, at as u64)?;
            if part.iter().any(|b| *b != 0) {
                self.mapping.file.write_all_at(&ZERO[..part.len()], at as u64)?;
            }
            at += part.len();
        }
        Ok(())
    }

    /// Declares what is before `at` final and what is behind it free, without touching the disk: the tail is
    /// known to be zero.
    pub(crate) fn reopen_at(&mut self, at: usize) {
        self.published.store(at.min(self.len()), Ordering::Release);
    }

    /// Makes pages of `from..to` present and writable, so that the append does not fault. Best effort.
    pub(crate) fn populate(&self, from: usize, to: usize) {
        let (from, to) = (from.min(self.len()), to.min(self.len()));
        if from < to {
            // Old kernels do not know the advice; the append then faults the pages in itself.
            let _ = self.mapping.map.advise_range(Advice::PopulateWrite, from, to - from);
        }
    }

    /// Brings `from..to` to the disk.
    pub(crate) fn sync(&self, from: usize, to: usize) -> io::Result<()> {
        self.mapping.sync(from, to)
    }

    /// When the file was last written, as the file system has it.
    pub(crate) fn modified(&self) -> io::Result<std::time::SystemTime> {
        self.mapping.file.metadata()?.modified()
    }
}

/// Part of a mapping that a [`Bytes`] keeps alive.
struct Window {
    file: Arc<MappedFile>,
    from: usize,
    to: usize,
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        // Checked when the window was made; `published` cannot have gone down while this holds the file.
        self.file.slice(self.from, self.to).unwrap_or_default()
    }
}

/// The right to append to a [`MappedFile`].
#[derive(Debug)]
pub(crate) struct MappedWriter {
    file: Arc<MappedFile>,
}

impl MappedWriter {
    pub(crate) fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// Writes `bytes` at the published position and publishes them with what `skip` bytes behind them hold.
    /// `false` when they do not fit: nothing is written then.
    pub(crate) fn append(&mut self, bytes: &[u8], skip: usize) -> Result<bool, StoreError> {
        let at = self.file.published();
        let Some(end) = at.checked_add(bytes.len()).and_then(|e| e.checked_add(skip)) else {
            return Ok(false);
        };
        if end > self.file.len() {
            return Ok(false);
        }
        if self.file.allocation == Allocation::OnDemand {
            self.file.mapping.ensure_allocated(at, end)?;
        }
        // SAFETY: `at + bytes.len()` is inside the mapping. No reader looks at bytes from `published` on, and this
        // is the only writer (`has_writer`), borrowed mutably. Source and target cannot overlap: `bytes` is either
        // private memory or a slice of published bytes.
        unsafe {
            let to = self.file.mapping.map.as_mut_ptr().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.file.published.store(end, Ordering::Release);
        Ok(true)
    }
}

impl Drop for MappedWriter {
    fn drop(&mut self) {
        self.file.has_writer.store(false, Ordering::Release);
    }
}

/// A mapped table of big-endian 32-bit words.
#[derive(Debug)]
pub(crate) struct MappedWords {
    mapping: Mapping,
}

impl MappedWords {
    /// Opens or creates the file with `len` bytes, the first `eager` of them allocated now.
    pub(crate) fn open(path: &Path, len: usize, eager: usize) -> Result<Self, StoreError> {
        let mapping = Mapping::open(path, len)?;
        mapping.allocate(0, eager.max(1))?;
        mapping.allocated.store(eager, Ordering::Relaxed);
        let _ = mapping.map.advise(Advice::Random);
        Ok(Self { mapping })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mapping.path
    }

    /// Allocates blocks for `from..to` if needed. Only the one writer calls this.
    pub(crate) fn ensure_allocated(&self, from: usize, to: usize) -> Result<(), StoreError> {
        self.mapping.ensure_allocated(from, to)
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.mapping.map.len(), "word {at} is outside the file");
        // SAFETY: inside the mapping (asserted), aligned (mappings start at a page, `at` is a multiple of 4), and
        // every access to these bytes within the process goes through this atomic.
        unsafe { AtomicU32::from_ptr(self.mapping.map.as_mut_ptr().add(at).cast()) }
    }

    pub(crate) fn get(&self, at: usize) -> u32 {
        u32::from_be(self.word(at).load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, at: usize, value: u32) {
        self.word(at).store(value.to_be(), Ordering::Release);
    }

    pub(crate) fn get_i64(&self, at: usize) -> i64 {
        (i64::from(self.get(at)) << 32) | i64::from(self.get(at + 4))
    }

    pub(crate) fn set_i64(&self, at: usize, value: i64) {
        self.set(at, (value >> 32) as u32);
        self.set(at + 4, value as u32);
    }

    pub(crate) fn sync(&self, from: usize, to: usize) -> io::Result<()> {
        self.mapping.sync(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_is_published_and_keep_it_after_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(MappedFile::create(dir.path(), 8192, 4096, Allocation::Full).unwrap());
        assert!(dir.path().join("00000000000000008192").exists());
        let mut writer = file.writer().unwrap();
        assert!(file.writer().is_none(), "a second writer");
        assert!(writer.append(b"hello", 0).unwrap());
        assert!(file.slice(0, 6).is_none());
        let kept = file.bytes(1, 5).unwrap();
        std::fs::remove_file(file.path()).unwrap();
        drop(writer);
        drop(file);
        assert_eq!(kept, &b"ello"[..]);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for allocation in [Allocation::Full, Allocation::OnDemand] {
            let file = Arc::new(MappedFile::create(dir.path(), 0, 100, allocation).unwrap());
            let mut writer = file.writer().unwrap();
            assert!(writer.append(&[1; 90], 0).unwrap());
            assert!(!writer.append(&[1; 11], 0).unwrap());
            assert!(!writer.append(&[1; 1], usize::MAX).unwrap());
            assert_eq!(file.published(), 90);
            assert!(writer.append(&[2; 5], 5).unwrap());
            assert_eq!(file.published(), 100);
        }
    }

    #[test]
    fn truncation_leaves_zeroes_behind() {
        let dir = tempfile::tempdir().unwrap();
        for allocation in [Allocation::Full, Allocation::OnDemand] {
            std::fs::write(MappedFile::path_in(dir.path(), 0), [7; 9000]).unwrap();
            let mut file = MappedFile::open(dir.path(), 0, 9000, allocation).unwrap();
            file.truncate(5000).unwrap();
            file.zero_pages(4999).unwrap();
            assert_eq!(file.published(), 5000);
            let disk = std::fs::read(file.path()).unwrap();
            assert_eq!(disk.len(), 9000);
            assert!(disk[..4999].iter().all(|b| *b == 7) && disk[4999..].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn words_are_big_endian_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let words = MappedWords::open(&path, 64, 16).unwrap();
        words.set(4, 0x0102_0304);
        words.set_i64(8, -2);
        words.ensure_allocated(16, 64).unwrap();
        assert_eq!((words.get(4), words.get_i64(8)), (0x0102_0304, -2));
        let disk = std::fs::read(&path).unwrap();
        assert_eq!(disk[4..16], [1, 2, 3, 4, 255, 255, 255, 255, 255, 255, 255, 254]);
    }
}
