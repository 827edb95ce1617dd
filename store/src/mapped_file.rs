//! Memory-mapped files: the only module of the store with `unsafe`.
//!
//! Owns creation (allocated before it is mapped, so a full disk is an error here and never a SIGBUS later), mapping
//! on demand ([`HotFiles`] says which stay mapped), and the two disciplines under which mappings are shared:
//! * [`MappedFile`] is append-only. One [`MappedWriter`] writes behind the published position, readers see only what
//!   is before it, and published bytes never change. A [`Slice`] keeps its mapping alive, so a file may be deleted
//!   or unmapped under a reader.
//! * [`MappedWords`] is a table of big-endian 32-bit words, each read and written atomically (the index).
//!
//! May not: know what the bytes mean. Nobody else may change the files: the store's lock file sees to that.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::{Advice, MmapRaw};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::hot_files::{HotFiles, Slot};
use crate::published::Published;

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

/// A file that is mapped while it is used.
#[derive(Debug)]
struct Mapping {
    path: PathBuf,
    len: usize,
    disk: Disk,
    hot: Arc<HotFiles>,
    slot: Arc<Slot>,
    /// How it is read: reading ahead of a table's random look-ups is wasted.
    advice: Advice,
    /// Blocks are allocated from the page of the write position up to here.
    allocated: AtomicUsize,
}

impl Mapping {
    /// A file of `len` bytes that is there already.
    fn of(path: PathBuf, len: usize, advice: Advice, disk: &Disk, hot: &Arc<HotFiles>) -> Self {
        let (disk, hot) = (disk.clone(), Arc::clone(hot));
        Self { path, len, disk, hot, slot: Arc::default(), advice, allocated: AtomicUsize::new(0) }
    }

    /// Makes the file, or brings one that is there to its length, with blocks for the first `eager` bytes.
    fn create(&self, eager: usize) -> Result<(), StoreError> {
        let file = self.disk.open(&self.path)?;
        self.disk.resize(&file, &self.path, self.len as u64)?;
        self.allocate(&file, eager)?;
        self.disk.sync_file(&file, &self.path)
    }

    fn allocate(&self, file: &std::fs::File, to: usize) -> Result<(), StoreError> {
        self.disk.allocate(file, &self.path, 0, to.max(1) as u64)?;
        self.allocated.store(to, Ordering::Relaxed);
        Ok(())
    }

    fn get(&self) -> Result<Arc<MmapRaw>, StoreError> {
        match self.slot.get() {
            Some(map) => Ok(map),
            None => self.hot.admit(&self.slot, || {
                let map = self.disk.map(&self.path, self.len)?;
                // Refused advice costs speed only.
                let _ = map.advise(self.advice);
                Ok(map)
            }),
        }
    }

    /// Makes sure that blocks exist for `from..to`, in steps.
    fn ensure_allocated(&self, from: usize, to: usize) -> Result<(), StoreError> {
        let allocated = self.allocated.load(Ordering::Relaxed);
        if to <= allocated {
            return Ok(());
        }
        let from = allocated.max(from / PAGE * PAGE);
        let end = to.next_multiple_of(ALLOCATION_STEP).min(self.len);
        let file = self.disk.open(&self.path)?;
        self.disk.allocate(&file, &self.path, from as u64, end as u64)?;
        self.allocated.store(end, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self, from: usize, to: usize) -> Result<(), StoreError> {
        if from >= to { Ok(()) } else { self.disk.sync_range(&*self.get()?, &self.path, from, to) }
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
    published: Published,
}

impl MappedFile {
    /// Name of the file that starts at `start`: 20 digits.
    pub(crate) fn path_in(dir: &Path, start: u64) -> PathBuf {
        dir.join(format!("{start:020}"))
    }

    /// Creates the file, durable under its name, nothing published.
    pub(crate) fn create(
        dir: &Path,
        start: u64,
        len: usize,
        allocation: Allocation,
        disk: &Disk,
        hot: &Arc<HotFiles>,
    ) -> Result<Self, StoreError> {
        let mut file = Self::open(dir, start, len, allocation, disk, hot);
        let eager = if allocation == Allocation::Full { len } else { 0 };
        // Of a queue that could not be deleted in full.
        disk.remove(file.path())?;
        if let Err(error) = file.mapping.create(eager) {
            // Without its blocks it would stand in the way of the next start.
            if let Err(error) = disk.remove(file.path()) {
                tracing::error!(%error, "a file that could not be made is left behind");
            }
            return Err(error);
        }
        disk.sync_dir(dir)?;
        file.reopen_at(0);
        Ok(file)
    }

    /// A file that is there, of full length, everything published: recovery reads it and then truncates.
    pub(crate) fn open(
        dir: &Path,
        start: u64,
        len: usize,
        allocation: Allocation,
        disk: &Disk,
        hot: &Arc<HotFiles>,
    ) -> Self {
        let mapping = Mapping::of(Self::path_in(dir, start), len, Advice::Normal, disk, hot);
        Self { start, mapping, allocation, published: Published::new(len) }
    }

    /// Gives the file its full length: it may have been torn when it was made.
    pub(crate) fn restore_len(&mut self) -> Result<(), StoreError> {
        let file = self.mapping.disk.open(self.path())?;
        self.mapping.disk.resize(&file, self.path(), self.len() as u64)?;
        self.mapping.disk.sync_file(&file, self.path())
    }

    /// Takes all blocks of the file that is going to be written. On a full disk the writer takes them as it goes.
    pub(crate) fn restore_blocks(&mut self) -> Result<(), StoreError> {
        let file = self.mapping.disk.open(self.path())?;
        if let Err(error) = self.mapping.allocate(&file, self.len()) {
            tracing::error!(%error, "the log file has no blocks yet to be written to");
        }
        self.mapping.disk.sync_file(&file, self.path())
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.len
    }

    /// Offset behind the file's last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len() as u64
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mapping.path
    }

    pub(crate) fn published(&self) -> usize {
        self.published.position()
    }

    /// Published bytes `from..to`; `None` when not all of them are, or when the file cannot be mapped.
    pub(crate) fn slice(&self, from: usize, to: usize) -> Option<Slice> {
        if from > to || to > self.published() {
            return None;
        }
        match self.mapping.get() {
            Ok(map) => Some(Slice { map, from, to }),
            Err(error) => {
                tracing::error!(%error, "a file of the store cannot be read");
                None
            }
        }
    }

    /// The one writer, or `None` while there is one.
    pub(crate) fn writer(self: &Arc<Self>) -> Option<MappedWriter> {
        self.published.take_writer().then(|| MappedWriter { file: Arc::clone(self), map: None })
    }

    /// Makes sure that nobody reads the file: with the last mapping gone no slice is left that could see a change.
    fn unmap(&mut self) -> Result<(), StoreError> {
        if self.mapping.slot.take().is_some_and(|map| Arc::into_inner(map).is_none()) {
            let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
            return Err(StoreError::io("change", self.path(), busy));
        }
        Ok(())
    }

    /// Replaces bytes that turned out damaged, durably. Fails while anybody reads the file.
    pub(crate) fn replace(&mut self, at: usize, bytes: &[u8]) -> Result<(), StoreError> {
        self.unmap()?;
        let file = self.mapping.disk.open(self.path())?;
        self.mapping.disk.write_at(&file, self.path(), at as u64, bytes)?;
        self.mapping.disk.sync_file(&file, self.path())
    }

    /// Forgets everything from `at` on: zero on disk as if never written. Fails while anybody reads the file.
    pub(crate) fn truncate(&mut self, at: usize) -> Result<(), StoreError> {
        let at = at.min(self.len());
        self.unmap()?;
        let keep_blocks = self.allocation == Allocation::Full;
        self.mapping.disk.zero(self.path(), at as u64, self.len() as u64, keep_blocks)?;
        if !keep_blocks {
            self.mapping.allocated.store(0, Ordering::Relaxed);
        }
        self.reopen_at(at);
        Ok(())
    }

    /// Declares what is before `at` final and what is behind it free, without touching the disk: the tail is
    /// known to be zero.
    pub(crate) fn reopen_at(&mut self, at: usize) {
        self.published.publish(at.min(self.len()));
    }

    /// Makes pages of `from..to` present and writable, so that the append does not fault. Best effort.
    pub(crate) fn populate(&self, from: usize, to: usize) {
        let (from, to) = (from.min(self.len()), to.min(self.len()));
        if from < to
            && let Ok(map) = self.mapping.get()
        {
            // Old kernels do not know the advice; the append then faults the pages in itself.
            let _ = map.advise_range(Advice::PopulateWrite, from, to - from);
        }
    }

    /// Brings `from..to` to the disk.
    pub(crate) fn sync(&self, from: usize, to: usize) -> Result<(), StoreError> {
        self.mapping.sync(from, to)
    }

    /// When the file was last written, as the file system has it.
    pub(crate) fn modified(&self) -> Result<std::time::SystemTime, StoreError> {
        self.mapping.disk.modified(self.path())
    }

    #[cfg(test)]
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapping.slot.get().is_some()
    }
}

/// Published bytes of a [`MappedFile`], readable as long as this is held.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    map: Arc<MmapRaw>,
    from: usize,
    to: usize,
}

impl Slice {
    /// Part of it, counted from the file's beginning; it must lie inside.
    pub(crate) fn part(&self, from: usize, to: usize) -> Self {
        assert!(self.from <= from && from <= to && to <= self.to, "{from}..{to} of {}..{}", self.from, self.to);
        Self { map: Arc::clone(&self.map), from, to }
    }

    /// Whether both are of one mapping.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.map, &other.map)
    }

    /// Whether reading it does not wait for the disk, as far as the kernel can tell now.
    pub(crate) fn is_resident(&self) -> bool {
        let (from, to) = (self.from / PAGE * PAGE, self.to.min(self.map.len()));
        let mut pages = vec![0_u8; (to - from).div_ceil(PAGE)];
        // SAFETY: `from..to` is inside the mapping, `from` lies at a page, and `pages` has a byte for each page.
        let result = unsafe { libc::mincore(self.map.as_mut_ptr().add(from).cast(), to - from, pages.as_mut_ptr()) };
        result == 0 && pages.iter().all(|page| page & 1 == 1)
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `to` was at most `published`, hence at most the length of the mapping, which `map` keeps alive.
        // Bytes before `published` are not written again: a writer refuses positions before it, and `truncate` and
        // `replace` refuse while anybody holds the mapping.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.from), self.to - self.from) }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The right to append to a [`MappedFile`].
#[derive(Debug)]
pub(crate) struct MappedWriter {
    file: Arc<MappedFile>,
    /// The log's writer keeps its mapping; queues are many, and most of them rest.
    map: Option<Arc<MmapRaw>>,
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
        self.file.mapping.ensure_allocated(at, end)?;
        let map = match self.map.take() {
            Some(map) => map,
            None => self.file.mapping.get()?,
        };
        // SAFETY: `at + bytes.len()` is inside the mapping. No reader looks at bytes from `published` on, and this
        // is the only writer (`take_writer`), borrowed mutably. Source and target cannot overlap: `bytes` is either
        // private memory or a slice of published bytes.
        unsafe {
            let to = map.as_mut_ptr().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.map = Some(map).filter(|_| self.file.allocation == Allocation::Full);
        self.file.published.publish(end);
        Ok(true)
    }
}

impl Drop for MappedWriter {
    fn drop(&mut self) {
        self.file.published.give_writer_back();
    }
}

/// A file that is a table of big-endian 32-bit words.
#[derive(Debug)]
pub(crate) struct WordFile {
    mapping: Mapping,
}

impl WordFile {
    /// A file of `len` bytes that is there already.
    pub(crate) fn of(path: PathBuf, len: usize, disk: &Disk, hot: &Arc<HotFiles>) -> Self {
        Self { mapping: Mapping::of(path, len, Advice::Random, disk, hot) }
    }

    /// Makes the file with `len` bytes, the first `eager` of them allocated now.
    pub(crate) fn create(
        path: PathBuf,
        len: usize,
        eager: usize,
        disk: &Disk,
        hot: &Arc<HotFiles>,
    ) -> Result<Self, StoreError> {
        let file = Self::of(path, len, disk, hot);
        file.mapping.create(eager)?;
        Ok(file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mapping.path
    }

    /// Allocates blocks for `from..to` if needed. Only the one writer calls this.
    pub(crate) fn ensure_allocated(&self, from: usize, to: usize) -> Result<(), StoreError> {
        self.mapping.ensure_allocated(from, to)
    }

    /// The words, mapped as long as they are held.
    pub(crate) fn words(&self) -> Result<MappedWords, StoreError> {
        Ok(MappedWords { map: self.mapping.get()? })
    }

    pub(crate) fn sync(&self, from: usize, to: usize) -> Result<(), StoreError> {
        self.mapping.sync(from, to)
    }
}

/// The words of a [`WordFile`].
#[derive(Debug)]
pub(crate) struct MappedWords {
    map: Arc<MmapRaw>,
}

impl MappedWords {
    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.map.len(), "word {at} is outside the file");
        // SAFETY: inside the mapping (asserted), aligned (mappings start at a page, `at` is a multiple of 4), and
        // every access to these bytes within the process goes through this atomic.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(dir: &Path, start: u64, len: usize, allocation: Allocation, hot: &Arc<HotFiles>) -> Arc<MappedFile> {
        Arc::new(MappedFile::create(dir, start, len, allocation, &Disk::default(), hot).unwrap())
    }

    #[test]
    fn readers_see_what_is_published_and_keep_it_after_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(dir.path(), 8192, 4096, Allocation::Full, &HotFiles::new(4));
        assert!(dir.path().join("00000000000000008192").exists());
        let mut writer = file.writer().unwrap();
        assert!(file.writer().is_none(), "a second writer");
        assert!(writer.append(b"hello", 0).unwrap());
        assert!(file.slice(0, 6).is_none());
        let kept = file.slice(1, 5).unwrap().into_bytes();
        std::fs::remove_file(file.path()).unwrap();
        drop(writer);
        drop(file);
        assert_eq!(kept, &b"ello"[..]);
    }

    #[test]
    fn an_unmapped_file_is_mapped_again_also_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let hot = HotFiles::new(1);
        let [one, two] = [0, 4096].map(|start| create(dir.path(), start, 4096, Allocation::OnDemand, &hot));
        let mut writers = [one.writer().unwrap(), two.writer().unwrap()];
        let mut held = Vec::new();
        for i in 0..20_u8 {
            for writer in &mut writers {
                assert!(writer.append(&[i; 10], 0).unwrap());
                held.push((i, writer.file().slice(usize::from(i) * 10, usize::from(i) * 10 + 10).unwrap()));
            }
            assert_eq!((hot.mapped(), one.is_mapped()), (1, false));
        }
        for (i, slice) in held {
            assert_eq!(slice[..], [i; 10]);
        }
        std::fs::remove_file(one.path()).unwrap();
        assert!(one.slice(0, 10).is_none(), "gone while it was not mapped");
    }

    #[test]
    fn what_readers_hold_stays_mapped_while_others_are_unmapped() {
        const FILES: usize = 6;
        let dir = tempfile::tempdir().unwrap();
        let hot = HotFiles::new(2);
        let files: Vec<_> =
            (0..FILES).map(|i| create(dir.path(), i as u64 * 4096, 4096, Allocation::Full, &hot)).collect();
        std::thread::scope(|scope| {
            let (files, hot) = (&files, &hot);
            for reader in 0..3 {
                scope.spawn(move || {
                    let mut held = std::collections::VecDeque::new();
                    for round in reader.. {
                        let file = &files[round % FILES];
                        let (at, number) = (file.published(), round % FILES);
                        held.push_back((number, file.slice(0, at).unwrap()));
                        if held.len() > 3 {
                            let (number, slice) = held.pop_front().unwrap();
                            assert!(slice.iter().all(|b| usize::from(*b) == number + 1), "file {number}");
                        }
                        assert!(hot.mapped() <= 2);
                        if files.iter().all(|f| f.published() == 4096) {
                            break;
                        }
                    }
                });
            }
            scope.spawn(move || {
                let mut writers: Vec<_> = files.iter().map(|f| f.writer().unwrap()).collect();
                for _ in 0..4096 / 16 {
                    for (number, writer) in writers.iter_mut().enumerate() {
                        assert!(writer.append(&[number as u8 + 1; 16], 0).unwrap());
                    }
                }
            });
        });
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for allocation in [Allocation::Full, Allocation::OnDemand] {
            let file = create(dir.path(), 0, 100, allocation, &HotFiles::new(4));
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
    fn truncation_leaves_zeroes_behind_and_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        for allocation in [Allocation::Full, Allocation::OnDemand] {
            std::fs::write(MappedFile::path_in(dir.path(), 0), [7; 9000]).unwrap();
            let mut file = MappedFile::open(dir.path(), 0, 9000, allocation, &Disk::default(), &HotFiles::new(1));
            let read = file.slice(0, 9000).unwrap();
            assert!(file.truncate(5000).unwrap_err().to_string().contains("busy"));
            drop(read);
            file.truncate(5000).unwrap();
            assert_eq!(file.published(), 5000);
            let disk = std::fs::read(file.path()).unwrap();
            assert_eq!(disk.len(), 9000);
            assert!(disk[..5000].iter().all(|b| *b == 7) && disk[5000..].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn words_are_big_endian_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let file = WordFile::create(path.clone(), 64, 16, &Disk::default(), &HotFiles::new(1)).unwrap();
        let words = file.words().unwrap();
        words.set(4, 0x0102_0304);
        words.set_i64(8, -2);
        file.ensure_allocated(16, 64).unwrap();
        assert_eq!((words.get(4), words.get_i64(8)), (0x0102_0304, -2));
        let disk = std::fs::read(&path).unwrap();
        assert_eq!(disk[4..16], [1, 2, 3, 4, 255, 255, 255, 255, 255, 255, 255, 254]);
    }
}
