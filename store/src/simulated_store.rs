//! A store on a disk that forgets, without threads, for the simulations of other crates: whoever plays it does each step.
//!
//! May not: be part of a program; it is compiled with the feature `simulation` only.

use std::path::Path;
use std::sync::Arc;

use crate::check;
use crate::config::StoreConfig;
use crate::disk::{Disk, Faults};
use crate::dispatcher;
use crate::error::StoreError;
use crate::simulated_disk::SimulatedDisk;
use crate::store::MessageStore;
use crate::truncation::{self, CutOff};
use crate::worker::Signal;

/// See the module.
#[derive(Debug)]
pub struct SimulatedStore {
    config: StoreConfig,
    disk: Arc<SimulatedDisk>,
    store: Option<Arc<MessageStore>>,
}

impl SimulatedStore {
    /// A disk without a store; `root` is an empty directory.
    pub fn new(config: StoreConfig, root: &Path, seed: u64) -> Self {
        Self { config, disk: Arc::new(SimulatedDisk::new(root, seed)), store: None }
    }

    fn disk(&self) -> Disk {
        Disk::with_faults(Arc::clone(&self.disk) as Arc<dyn Faults>)
    }

    /// The store, while it is open.
    pub fn store(&self) -> Option<&Arc<MessageStore>> {
        self.store.as_ref()
    }

    /// Opens the store.
    ///
    /// # Errors
    /// As [`MessageStore::open`].
    pub fn open(&mut self) -> Result<(), StoreError> {
        self.store = Some(Arc::new(MessageStore::recover(self.config.clone(), self.disk())?));
        Ok(())
    }

    /// Cuts the closed store's log, see [`crate::truncate`].
    ///
    /// # Errors
    /// As there.
    pub fn truncate(&self, at: u64) -> Result<CutOff, StoreError> {
        truncation::truncate_on(&self.config, at, &self.disk())
    }

    /// What the flusher would do; whether it succeeded.
    pub fn flush(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.core().flush_log(0).is_ok())
    }

    /// What the dispatcher would do, to the end.
    pub fn dispatch(&self) {
        let signal = Signal::never();
        if let Some(store) = &self.store {
            while dispatcher::advance(store.core(), &signal).unwrap_or(false) {}
        }
    }

    /// Writes checkpoint and manifest; whether that succeeded.
    pub fn checkpoint(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.core().checkpoint_all().is_ok())
    }

    /// Compares queues and index with what was noted of them; whether nothing is left to compare.
    pub fn compare(&self) -> bool {
        self.store.as_ref().is_some_and(|store| check::round(store.core(), &Signal::never()))
    }

    /// Closes the store cleanly.
    pub fn close(&mut self) {
        self.flush();
        self.dispatch();
        if let Some(store) = self.store.take() {
            store.shutdown();
        }
    }

    /// The process is killed: nothing that it wrote is lost.
    pub fn kill(&mut self) {
        self.store = None;
        if self.disk.is_off() {
            self.disk.power_on();
        } else {
            self.disk.process_ended();
        }
    }

    /// The power goes and comes again: what was not synced may be lost.
    pub fn lose_power(&mut self) {
        if !self.disk.is_off() {
            self.disk.power_off();
        }
        self.kill();
    }

    /// Lets the power go at one of the next `within` calls that change the disk.
    pub fn lose_power_within(&self, within: u64) {
        self.disk.power_off_within(within);
    }

    /// Whether the power is off: the store is of no more use until [`SimulatedStore::kill`].
    pub fn is_off(&self) -> bool {
        self.disk.is_off()
    }

    /// Fails one of the next calls that change the disk.
    pub fn fail_within(&self, within: u64) {
        self.disk.fail_within(within);
    }

    /// Makes everything that needs room fail, or not.
    pub fn set_full(&self, full: bool) {
        self.disk.set_full(full);
    }
}
