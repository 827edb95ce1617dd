//! Whether the store may accept messages, and if not, why.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::error::StoreError;

/// Shared by everything that writes.
#[derive(Debug, Default)]
pub(crate) struct Health {
    poisoned: OnceLock<Arc<str>>,
    /// Percent used of the partition while it is too full to write, else 0.
    disk_full: AtomicU16,
    /// Why the last append failed at the disk; appends are tried all the same.
    failing: ArcSwapOption<String>,
    /// Why messages do not reach their queues; none are accepted meanwhile.
    undispatchable: ArcSwapOption<String>,
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

    /// Notes whether the partition is over its limit, and by how much: used percent and the limit's.
    pub(crate) fn set_disk_full(&self, full: Option<(u8, u8)>) {
        let packed = full.map_or(0, |(percent, limit)| u16::from_be_bytes([percent, limit]));
        self.disk_full.store(packed, Ordering::Relaxed);
    }

    /// Notes that the disk refused an append, until [`Health::recovered`].
    pub(crate) fn set_failing(&self, reason: &StoreError) {
        self.failing.store(Some(Arc::new(reason.to_string())));
    }

    /// An append succeeded, or there is room for one again.
    pub(crate) fn recovered(&self) {
        if self.is_failing() {
            self.failing.store(None);
        }
    }

    /// Notes that stored messages cannot be entered into their queues now, or can again.
    pub(crate) fn set_undispatchable(&self, reason: Option<&StoreError>) {
        if reason.is_some() || self.undispatchable.load().is_some() {
            self.undispatchable.store(reason.map(|reason| Arc::new(reason.to_string())));
        }
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load().is_some()
    }

    /// As [`Health::writable`], and an error while the disk refuses appends.
    pub(crate) fn appendable(&self) -> Result<(), StoreError> {
        self.writable()?;
        not_failing(&self.failing)
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
        not_failing(&self.undispatchable)?;
        match self.disk_full.load(Ordering::Relaxed) {
            0 => Ok(()),
            packed => {
                let [percent, limit] = packed.to_be_bytes();
                Err(StoreError::DiskFull { percent, limit })
            }
        }
    }
}

fn not_failing(reason: &ArcSwapOption<String>) -> Result<(), StoreError> {
    match &*reason.load() {
        Some(reason) => Err(StoreError::Failing { reason: reason.as_str().into() }),
        None => Ok(()),
    }
}
