//! Whose turn it is to do work that several threads may do: one at a time, nobody waits, and nothing is left undone.
//!
//! Who finds that it is another's turn goes away: that one sees that somebody asked, and does the work once more. Owns the
//! orderings that make this safe. May not: know the work. `tests/published.rs` compiles this very file against loom.

use super::sync::{AtomicBool, AtomicUsize, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// How often somebody wanted the turn. Both are only ever read by changing them, so that either the one who has the turn
    /// sees who asked, or who asks sees that the turn was given back.
    asked: AtomicUsize,
    taken: AtomicBool,
}

impl Turn {
    /// Does `work`, and again when somebody asked meanwhile; `None` when it is another's turn. What was published before this
    /// call is seen by a `work` that ends later, here or there.
    pub(crate) fn run<R>(&self, mut work: impl FnMut() -> R) -> Option<R> {
        let mut asked = self.asked.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        loop {
            if self.taken.swap(true, Ordering::AcqRel) {
                return None;
            }
            let done = {
                let _given_back = GiveBack(self);
                work()
            };
            let now = self.asked.fetch_add(0, Ordering::AcqRel);
            if now == asked {
                return Some(done);
            }
            asked = now;
        }
    }
}

/// Gives the turn back, by a panic too.
struct GiveBack<'a>(&'a Turn);

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        self.0.taken.swap(false, Ordering::AcqRel);
    }
}
