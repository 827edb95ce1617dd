//! The calls by which the store touches its disk, all in one place.
//!
//! Owns: names, sizes, blocks and durability of files and directories, and the wording of their errors. Tests put
//! [`Faults`] between the store and the calls: to fail any of them, and to know at each moment what a power loss
//! would leave. May not: map files (`mapped_file` does) or know what the bytes mean.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;

use crate::error::StoreError;

/// Blocks are rewritten in pieces of this size where the file system has no call to allocate them.
const PIECE: usize = 64 << 10;

/// One call, as [`Faults`] sees it. Ranges are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    /// A directory is made; its parent is not synced yet.
    CreateDir(&'a Path),
    /// A file is opened, and made if it is missing.
    Open(&'a Path),
    /// The file gets this length.
    Resize(&'a Path, u64),
    /// Blocks are taken for the range; it may fail for want of room.
    Allocate(&'a Path, u64, u64),
    /// The range becomes zero.
    Zero(&'a Path, u64, u64),
    /// Bytes are written at the position.
    Write(&'a Path, u64, &'a [u8]),
    /// What a mapping changed in the range goes to the disk.
    SyncRange(&'a Path, u64, u64),
    /// The file's bytes and length go to the disk.
    SyncFile(&'a Path),
    /// The first path takes the second's place.
    Rename(&'a Path, &'a Path),
    /// The file's name goes.
    Remove(&'a Path),
    /// The empty directory goes.
    RemoveDir(&'a Path),
    /// Made, renamed and removed names in the directory become durable.
    SyncDir(&'a Path),
    /// The file is read or mapped, or the directory listed.
    Read(&'a Path),
}

/// Stands between the store and its disk.
pub(crate) trait Faults: Debug + Send + Sync {
    /// Runs the call by `run`, or fails it, or pretends that it was done (a sync only).
    fn call(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;
}

/// The disk under a store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    faults: Option<Arc<dyn Faults>>,
}

/// What a directory holds under a name.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Length in bytes, `None` for a directory.
    pub(crate) file_len: Option<u64>,
}

impl Disk {
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn with_faults(faults: Arc<dyn Faults>) -> Self {
        Self { faults: Some(faults) }
    }

    fn call<T>(&self, call: Call<'_>, run: impl FnOnce() -> io::Result<T>) -> io::Result<Option<T>> {
        let Some(faults) = &self.faults else { return run().map(Some) };
        let (mut run, mut done) = (Some(run), None);
        faults.call(call, &mut || {
            done = run.take().map(|run| run()).transpose()?;
            Ok(())
        })?;
        Ok(done)
    }

    fn run(
        &self,
        what: &'static str,
        path: &Path,
        call: Call<'_>,
        run: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.call(call, run).map(|_| ()).map_err(|e| StoreError::io(what, path, e))
    }

    fn read<T>(&self, what: &'static str, path: &Path, read: impl FnOnce() -> io::Result<T>) -> Result<T, StoreError> {
        let read = self.call(Call::Read(path), read).map_err(|e| StoreError::io(what, path, e))?;
        read.ok_or_else(|| StoreError::io(what, path, io::Error::other("the read was not run")))
    }

    /// Makes a directory with its parents, durably under its name.
    pub(crate) fn create_dir(&self, dir: &Path) -> Result<(), StoreError> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new(""));
        self.create_dir(parent)?;
        self.run("create", dir, Call::CreateDir(dir), || match fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        })?;
        self.sync_dir(parent)
    }

    /// Opens a file for reading and writing, made empty when it is missing.
    pub(crate) fn open(&self, path: &Path) -> Result<File, StoreError> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = self.call(Call::Open(path), open).map_err(|e| StoreError::io("open", path, e))?;
        file.ok_or_else(|| StoreError::io("open", path, io::Error::other("the file was not opened")))
    }

    /// Length of a file, `None` when there is none.
    pub(crate) fn len(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        match self.read("stat", path, || fs::metadata(path)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// When the file was last written, as the file system has it.
    pub(crate) fn modified(&self, path: &Path) -> Result<SystemTime, StoreError> {
        self.read("stat", path, || fs::metadata(path)?.modified())
    }

    /// Gives the file this length; what is added reads as zero.
    pub(crate) fn resize(&self, file: &File, path: &Path, len: u64) -> Result<(), StoreError> {
        self.run("resize", path, Call::Resize(path, len), || file.set_len(len))
    }

    /// Takes blocks for `from..to`; what is there stays.
    pub(crate) fn allocate(&self, file: &File, path: &Path, from: u64, to: u64) -> Result<(), StoreError> {
        self.run("allocate", path, Call::Allocate(path, from, to), || {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => rewrite(file, from, to),
                other => Ok(other?),
            }
        })
    }

    /// Zeroes `from..to`, with its blocks kept or given back, and brings that to the disk.
    pub(crate) fn zero(&self, path: &Path, from: u64, to: u64, keep_blocks: bool) -> Result<(), StoreError> {
        let file = self.open(path)?;
        let mode = if keep_blocks { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
        if from < to {
            self.run("zero", path, Call::Zero(path, from, to), || {
                match rustix::fs::fallocate(&file, mode | FallocateFlags::KEEP_SIZE, from, to - from) {
                    Err(_) => zero_what_is_not(&file, from, to),
                    Ok(()) => Ok(()),
                }
            })?;
        }
        self.sync_file(&file, path)
    }

    /// Writes at a position, all of it.
    pub(crate) fn write_at(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.run("write", path, Call::Write(path, at, bytes), || file.write_all_at(bytes, at))
    }

    /// Reads as many bytes as are there from a position; the rest of `into` stays.
    pub(crate) fn read_at(&self, path: &Path, at: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        self.read("read", path, || {
            let file = File::open(path)?;
            let mut done = 0;
            while done < into.len() {
                match file.read_at(&mut into[done..], at + done as u64)? {
                    0 => break,
                    n => done += n,
                }
            }
            Ok(done)
        })
    }

    /// The whole file, `None` when there is none.
    pub(crate) fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read("read", path, || fs::read(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Maps the file, which must have this length: touching a mapping behind the end of its file kills.
    pub(crate) fn map(&self, path: &Path, len: usize) -> Result<MmapRaw, StoreError> {
        self.read("map", path, || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let now = file.metadata()?.len();
            if now != len as u64 {
                return Err(io::Error::other(format!("the file has {now} bytes instead of {len}")));
            }
            MmapOptions::new().len(len).map_raw(&file)
        })
    }

    /// Brings what was written through a mapping of the file to the disk.
    pub(crate) fn sync_range(&self, map: &MmapRaw, path: &Path, from: usize, to: usize) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let call = Call::SyncRange(path, from as u64, to as u64);
        self.run("flush", path, call, || {
            map.flush_range(from, to - from)?;
            // A file system that turned read-only after an error of its own says yes to a sync and writes nothing
            // (`ext4_sync_file`).
            let stat = rustix::fs::statvfs(path)?;
            if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
            }
            Ok(())
        })
    }

    /// Brings a file's bytes and length to the disk.
    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        self.run("sync", path, Call::SyncFile(path), || file.sync_all())
    }

    /// Makes created, renamed and removed names of a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), StoreError> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        self.run("sync", dir, Call::SyncDir(dir), || File::open(dir)?.sync_all())
    }

    /// Moves a file; its directories are not synced.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.run("rename to", to, Call::Rename(from, to), || fs::rename(from, to))
    }

    /// Deletes a file that may be gone already.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.run("delete", path, Call::Remove(path), || gone(fs::remove_file(path)))
    }

    /// Deletes an empty directory that may be gone already.
    pub(crate) fn remove_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.run("delete", path, Call::RemoveDir(path), || gone(fs::remove_dir(path)))
    }

    /// What a directory holds, by name; nothing when there is none. Names that are no UTF-8 are not the store's.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<Entry>, StoreError> {
        let list = || {
            let mut found = Vec::new();
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let mut meta = entry.metadata()?;
                if meta.is_symlink() {
                    // A file or directory that was moved to another disk; without it the link is one of the odd files.
                    meta = fs::metadata(entry.path()).unwrap_or(meta);
                }
                found.push(Entry { name, file_len: (!meta.is_dir()).then_some(meta.len()) });
            }
            found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        };
        match self.read("list", dir, list) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }
}

/// Beside a file: `<path>.<suffix>`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Allocation where the file system has no call for it: write back what is there.
fn rewrite(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    for at in (from..to).step_by(PIECE) {
        let part = &mut piece[..PIECE.min((to - at) as usize)];
        file.read_exact_at(part, at)?;
        file.write_all_at(part, at)?;
    }
    Ok(())
}

/// Zeroes what is not zero, without allocating holes.
fn zero_what_is_not(file: &File, from: u64, to: u64) -> io::Result<()> {
    const ZERO: [u8; 4096] = [0; 4096];
    let mut page = ZERO;
    let mut at = from;
    while at < to {
        let page = &mut page[..(4096 - at % 4096).min(to - at) as usize];
        file.read_exact_at(page, at)?;
        if page.iter().any(|b| *b != 0) {
            file.write_all_at(&ZERO[..page.len()], at)?;
        }
        at += page.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_without_the_call_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, [7; 9000]).unwrap();
        let file = Disk::default().open(&path).unwrap();
        zero_what_is_not(&file, 4999, 8999).unwrap();
        rewrite(&file, 0, 9000).unwrap();
        let disk = fs::read(&path).unwrap();
        assert!(disk[..4999].iter().chain(&disk[8999..]).all(|b| *b == 7));
        assert!(disk[4999..8999].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_missing_file_has_no_length_and_may_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let path = dir.path().join("a/b/c");
        assert_eq!(disk.len(&path).unwrap(), None);
        disk.remove(&path).unwrap();
        disk.create_dir(&path).unwrap();
        disk.create_dir(&path).unwrap();
        assert!(disk.list(&dir.path().join("a")).unwrap()[0].file_len.is_none());
        assert!(disk.list(&dir.path().join("none")).unwrap().is_empty());
        let refused = disk.map(&dir.path().join("nothing"), 5).unwrap_err().to_string();
        assert!(refused.contains("map") && refused.contains("nothing"), "{refused}");
    }
}
