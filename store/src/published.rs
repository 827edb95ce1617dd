//! Up to where a file is written: one writer moves the position, readers look only at what is before it, no lock.
//!
//! Owns the orderings that make this safe, and who may write. May not: know the bytes. `tests/published.rs` compiles
//! this very file against loom and plays every order that the memory model allows; hence `super::sync`.

use super::sync::{AtomicBool, AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Published {
    /// Bytes before it are written and final.
    position: AtomicUsize,
    has_writer: AtomicBool,
}

impl Published {
    pub(crate) fn new(position: usize) -> Self {
        Self { position: AtomicUsize::new(position), has_writer: AtomicBool::new(false) }
    }

    /// Whoever sees a position sees everything that was written before it was published.
    pub(crate) fn position(&self) -> usize {
        self.position.load(Ordering::Acquire)
    }

    /// Publishes what was written before `position`. Only for who has the right to write, or has the file alone.
    pub(crate) fn publish(&self, position: usize) {
        self.position.store(position, Ordering::Release);
    }

    /// The right to write, once until it is given back: the next writer sees all that this one wrote.
    pub(crate) fn take_writer(&self) -> bool {
        !self.has_writer.swap(true, Ordering::AcqRel)
    }

    /// Gives the right to write back.
    pub(crate) fn give_writer_back(&self) {
        self.has_writer.store(false, Ordering::Release);
    }
}
