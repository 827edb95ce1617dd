//! The `lock` file: one broker per store, Java's included.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::process::{Flock, FlockType};

use crate::error::StoreError;

/// Held while the store is open.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock or fails at once.
    pub(crate) fn take(path: &Path) -> Result<Self, StoreError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| StoreError::io("open", path, e))?;
        // Java takes a POSIX record lock, which does not keep two stores of one process apart; flock does.
        let operation = FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&file, operation).and_then(|()| rustix::fs::fcntl_lock(&file, operation)).map_err(
            |e| match e {
                rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS => StoreError::Locked { path: path.to_owned() },
                e => StoreError::io("lock", path, e),
            },
        )?;
        file.set_len(0)
            .and_then(|()| file.write_all(b"lock"))
            .and_then(|()| file.sync_all())
            .map_err(|e| StoreError::io("write", path, e))?;
        Ok(Self { _file: file })
    }
}

/// Whether another process holds the lock. Takes none; a lock that this very process holds is not seen, and is
/// given up by the look, as POSIX has it for record locks.
pub(crate) fn is_held_elsewhere(path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(StoreError::io("open", path, e)),
    };
    let holder = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
    Ok(holder.map_err(|e| StoreError::io("look at the lock of", path, e))?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = StoreLock::take(&path).unwrap();
        assert!(matches!(StoreLock::take(&path), Err(StoreError::Locked { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"lock");
        drop(held);
        StoreLock::take(&path).unwrap();
    }
}
