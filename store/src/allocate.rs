//! The next log file, made ready before the writer needs it (`AllocateMappedFileService`), and pages faulted in
//! ahead of the writer.
//!
//! Owns one helper thread and the one file that waits to be used. May not: put a file into the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::mapped_file::MappedFile;
use crate::mapped_file_queue::MappedFileQueue;
use crate::worker::Signal;

/// Pages at least this far ahead of the writer are made present; twice as far each time that it gets ahead of them.
const TOUCH_WINDOW: u64 = 4 << 20;
const TOUCH_WINDOW_MAX: u64 = 64 << 20;
/// One step of touching: short enough that the thread notices newer orders.
const TOUCH_STEP: u64 = 1 << 20;

/// Shared between the log's writer and the helper thread.
#[derive(Debug)]
pub(crate) struct Allocator {
    warm: bool,
    /// Start of the file that should exist next, [`NONE`] without order.
    wanted: AtomicU64,
    ready: Mutex<Option<Arc<MappedFile>>>,
    /// The writer's file, for touching.
    current: Mutex<Option<Arc<MappedFile>>>,
    touch_to: AtomicU64,
    /// Pages below are present.
    touched: AtomicU64,
    window: AtomicU64,
}

const NONE: u64 = u64::MAX;

impl Allocator {
    pub(crate) fn new(warm: bool) -> Self {
        Self {
            warm,
            wanted: AtomicU64::new(NONE),
            ready: Mutex::new(None),
            current: Mutex::new(None),
            touch_to: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            window: AtomicU64::new(TOUCH_WINDOW),
        }
    }

    /// Orders the file that starts at `start`; the helper thread must be woken.
    pub(crate) fn order(&self, start: u64) {
        self.wanted.store(start, Ordering::Release);
    }

    /// The file that starts at `start`: the ready one, or made now.
    pub(crate) fn take(&self, files: &MappedFileQueue, start: u64) -> Result<Arc<MappedFile>, StoreError> {
        let _ = self.wanted.compare_exchange(start, NONE, Ordering::AcqRel, Ordering::Relaxed);
        let mut ready = self.ready.lock();
        match ready.take() {
            Some(file) if file.start == start => Ok(file),
            // A file made for another offset is not used: its name is wrong. It is on disk all the same.
            _ => files.create(start).map(Arc::new),
        }
    }

    /// Tells which file is written and up to where; returns whether the helper has something to do.
    pub(crate) fn written(&self, file: &Arc<MappedFile>, pos: u64) -> bool {
        let ordered = self.touch_to.load(Ordering::Relaxed);
        let mut window = self.window.load(Ordering::Relaxed);
        if ordered >= pos + window / 2 || ordered >= file.end() {
            return false;
        }
        if (file.start..pos).contains(&self.touched.load(Ordering::Relaxed)) {
            window = (window * 2).min(TOUCH_WINDOW_MAX);
            self.window.store(window, Ordering::Relaxed);
        }
        *self.current.lock() = Some(Arc::clone(file));
        self.touch_to.store((pos + window).min(file.end()), Ordering::Release);
        true
    }

    /// The helper thread's work, until it is stopped.
    pub(crate) fn run(&self, files: &MappedFileQueue, signal: &Signal) {
        while !signal.stopped() {
            let made = self.make_wanted(files);
            let more = self.touch();
            if !made && !more {
                signal.wait(Duration::from_secs(1));
            }
        }
    }

    fn make_wanted(&self, files: &MappedFileQueue) -> bool {
        let mut ready = self.ready.lock();
        let start = self.wanted.swap(NONE, Ordering::AcqRel);
        if start == NONE || ready.as_ref().is_some_and(|f| f.start == start) {
            return false;
        }
        match files.create(start) {
            Ok(file) => {
                if self.warm {
                    file.populate(0, file.len());
                }
                *ready = Some(Arc::new(file));
                true
            }
            Err(e) => {
                // The writer tries again itself when it gets there, and then the error is the sender's.
                tracing::error!(error = %e, "the next log file could not be made ahead");
                false
            }
        }
    }

    fn touch(&self) -> bool {
        let (touched, target) = (self.touched.load(Ordering::Relaxed), self.touch_to.load(Ordering::Acquire));
        if touched >= target {
            return false;
        }
        let Some(file) = self.current.lock().clone() else { return false };
        let from = touched.max(file.start + file.published() as u64);
        let to = (from + TOUCH_STEP).min(target);
        if from < to {
            file.populate((from - file.start) as usize, (to - file.start) as usize);
        }
        let touched = to.max(from).min(target);
        self.touched.store(touched, Ordering::Relaxed);
        touched < target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::hot_files::HotFiles;
    use crate::mapped_file::Allocation;
    use crate::mapped_file_queue::Layout;

    fn files(dir: &std::path::Path, file_size: u64) -> MappedFileQueue {
        let (disk, hot) = (Disk::default(), HotFiles::new(2));
        let layout = Layout { dir: dir.to_owned(), file_size, allocation: Allocation::Full, disk, hot };
        MappedFileQueue::new(layout, Vec::new())
    }

    #[test]
    fn the_ordered_file_is_ready_and_others_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), 4096);
        let allocator = Allocator::new(true);
        allocator.order(4096);
        assert!(allocator.make_wanted(&files));
        assert!(dir.path().join("00000000000000004096").exists());
        assert!(!allocator.make_wanted(&files), "made twice");
        assert_eq!(allocator.take(&files, 4096).unwrap().start, 4096);
        assert_eq!(allocator.take(&files, 8192).unwrap().start, 8192);
    }

    #[test]
    fn touching_runs_ahead_of_the_writer_and_stops_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let size = 20 << 20;
        let files = files(dir.path(), size);
        let file = Arc::new(files.create(0).unwrap());
        let allocator = Allocator::new(false);
        assert!(allocator.written(&file, 0));
        assert!(!allocator.written(&file, 1000), "inside the window");
        while allocator.touch() {}
        let touched = || allocator.touched.load(Ordering::Relaxed);
        assert_eq!(touched(), TOUCH_WINDOW);
        assert!(allocator.written(&file, 8 << 20), "the writer was faster");
        while allocator.touch() {}
        assert_eq!(touched(), (8 << 20) + 2 * TOUCH_WINDOW, "the window has grown");
        assert!(allocator.written(&file, 14 << 20));
        while allocator.touch() {}
        assert_eq!(touched(), size);
        assert!(!allocator.written(&file, size));
    }
}
