//! A disk on which some calls fail, for tests: those that a rule names, from a moment on.
//!
//! May not: forget what was written, as `simulated_disk` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use parking_lot::Mutex;

use crate::disk::{Call, Disk, Faults};

/// Which calls fail, and with what.
pub(crate) type Rule = fn(&Call<'_>) -> Option<i32>;

/// A disk on which some calls fail from a moment on.
pub(crate) struct FailingDisk {
    rule: Rule,
    fails: AtomicBool,
    /// What failed, first to last.
    pub(crate) failed: Mutex<Vec<String>>,
}

impl fmt::Debug for FailingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingDisk").finish_non_exhaustive()
    }
}

impl Faults for FailingDisk {
    fn call(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        match Some(self.rule).filter(|_| self.fails.load(Ordering::Relaxed)).and_then(|rule| rule(&call)) {
            Some(errno) => {
                self.failed.lock().push(format!("{call:?}"));
                Err(io::Error::from_raw_os_error(errno))
            }
            None => run(),
        }
    }
}

impl FailingDisk {
    pub(crate) fn new(rule: Rule) -> (Arc<Self>, Disk) {
        let faults = Arc::new(Self { rule, fails: AtomicBool::new(false), failed: Mutex::default() });
        let disk = Disk::with_faults(Arc::clone(&faults) as Arc<dyn Faults>);
        (faults, disk)
    }

    /// From now on the calls fail, or they do not.
    pub(crate) fn set(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }
}
