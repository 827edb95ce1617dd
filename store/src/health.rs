//! Whether the store may accept messages, and if not, why.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::StoreError;

/// Shared by everything that writes.
#[derive(Debug, Default)]
pub(crate) struct Health {
    poisoned: OnceLock<Arc<str>>,
    /// Percent used of the partition while it is too full to write, else 0.
    disk_full: AtomicU8,
    closed: AtomicBool,
}

impl Health {
    /// Refuses all further writes. The first reason is kept: later failures are its consequences.
    pub(crate) fn poison(&self, reason: &dyn std::fmt::Display) {
        let reason: Arc<str> = reason.to_string().into();
        tracing::error!(%reason, "the store is poisoned and accepts no more messages");
        let _ = self.poisoned.set(reason);
    }

    pub(crate) fn poisoned(&self) -> Option<StoreError> {
        self.poisoned.get().map(|r| StoreError::Poisoned { reason: Arc::clone(r) })
    }

    pub(crate) fn set_disk_full(&self, percent: u8) {
        self.disk_full.store(percent, Ordering::Relaxed);
    }

    /// `true` for the first caller.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn writable(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        if let Some(e) = self.poisoned() {
            return Err(e);
        }
        match self.disk_full.load(Ordering::Relaxed) {
            0 => Ok(()),
            percent => Err(StoreError::DiskFull { percent }),
        }
    }
}
