//! Files that are named after the offset of their first byte, and a window that slides over one file.
//!
//! Owns listing and chunked reading. May not: know what the bytes mean. No file stays open between two reads, so
//! thousands of queues need no descriptors, and a file that retention deletes is not kept alive.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// One file of a log or a queue, as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Offset of its first byte: its name.
    pub start: u64,
    /// Its size, bytes.
    pub len: u64,
}

impl SegmentFile {
    /// Offset behind its last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Where in `dir` the file that starts at `start` lies.
    pub(crate) fn path_in(dir: &Path, start: u64) -> PathBuf {
        dir.join(format!("{start:020}"))
    }
}

/// The files of `dir` whose names are 20 digits, by start, and the names of other files. A missing directory has none.
pub fn segment_files(dir: &Path) -> Result<(Vec<SegmentFile>, Vec<PathBuf>), StoreError> {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for path in list(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let digits = name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit());
        let start = digits.then(|| name.parse::<u64>().ok()).flatten();
        match (start, fs::metadata(&path)) {
            (Some(start), Ok(meta)) if meta.is_file() => files.push(SegmentFile { path, start, len: meta.len() }),
            (_, Ok(_)) => others.push(path),
            // Deleted meanwhile by retention.
            (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
            (_, Err(e)) => return Err(StoreError::io("stat", &path, e)),
        }
    }
    files.sort_unstable_by_key(|f| f.start);
    others.sort_unstable();
    Ok((files, others))
}

/// The size that most of the files have, the larger where two are as frequent; `None` without files.
pub fn usual_size<'a>(files: impl IntoIterator<Item = &'a SegmentFile>) -> Option<u64> {
    let mut counts = HashMap::<u64, usize>::new();
    for file in files {
        *counts.entry(file.len).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(len, count)| (*count, *len)).map(|(len, _)| len)
}

/// Everything in a directory, which may be missing, by name.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("list", dir, e)),
    };
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths.map_err(|e| StoreError::io("list", dir, e))?;
    paths.sort_unstable();
    Ok(paths)
}

/// Bytes of one file, kept from read to read.
#[derive(Debug)]
pub(crate) struct Window {
    path: PathBuf,
    /// Least bytes a read asks for.
    chunk: usize,
    bytes: Vec<u8>,
    /// Position in the file of the first byte kept.
    at: u64,
}

impl Window {
    pub(crate) fn new(path: &Path, chunk: usize) -> Self {
        Self { path: path.to_owned(), chunk, bytes: Vec::new(), at: 0 }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Up to `want` bytes at `at`; fewer only where the file ends.
    pub(crate) fn get(&mut self, at: u64, want: usize) -> Result<&[u8], StoreError> {
        let kept = at >= self.at && at.saturating_add(want as u64) <= self.at.saturating_add(self.bytes.len() as u64);
        if !kept {
            self.fill(at, want.max(self.chunk))?;
        }
        let from = ((at - self.at) as usize).min(self.bytes.len());
        let to = from.saturating_add(want).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    /// Reads anew next time: somebody may have written meanwhile.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
    }

    fn fill(&mut self, at: u64, want: usize) -> Result<(), StoreError> {
        let path = &self.path;
        let file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
        // No more room than the file has bytes: clearing it costs as much as reading.
        let len = file.metadata().map_err(|e| StoreError::io("stat", path, e))?.len();
        let want = want.min(usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX));
        self.at = at;
        self.bytes.resize(want, 0);
        let mut filled = 0;
        while filled < want {
            match file.read_at(&mut self.bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.bytes.clear();
                    return Err(StoreError::io("read", path, e));
                }
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_by_start_and_strangers_apart() {
        let dir = tempfile::tempdir().unwrap();
        for (name, len) in [("00000000000000000400", 400), ("00000000000000000000", 400), ("00000000000000000800", 9)] {
            fs::write(dir.path().join(name), vec![0; len]).unwrap();
        }
        fs::write(dir.path().join("1"), "").unwrap();
        fs::write(dir.path().join("+0000000000000000001"), "").unwrap();
        let (files, others) = segment_files(dir.path()).unwrap();
        assert_eq!(files.iter().map(|f| (f.start, f.len)).collect::<Vec<_>>(), [(0, 400), (400, 400), (800, 9)]);
        assert_eq!((others.len(), usual_size(&files)), (2, Some(400)));
        assert_eq!(usual_size(&files[1..]), Some(400), "the larger of two");
        assert_eq!(segment_files(&dir.path().join("none")).unwrap(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_window_slides_and_ends_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, (0..=255).collect::<Vec<u8>>()).unwrap();
        let mut window = Window::new(&path, 16);
        assert_eq!(window.get(10, 3).unwrap(), [10, 11, 12]);
        assert_eq!(window.get(20, 100).unwrap().len(), 100);
        assert_eq!(window.get(250, 100).unwrap(), [250, 251, 252, 253, 254, 255]);
        assert!(window.get(256, 1).unwrap().is_empty() && window.get(u64::MAX - 5, 9).unwrap().is_empty());
        assert_eq!(window.get(250, 1).unwrap(), [250]);
        fs::write(&path, [7; 256]).unwrap();
        assert_eq!(window.get(250, 1).unwrap(), [250], "kept");
        window.forget();
        assert_eq!(window.get(250, 1).unwrap(), [7]);
    }
}
