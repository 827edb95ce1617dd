//! Appends of one thread that are announced together: whoever follows the log is woken once for all of them.
//!
//! May not outlive the call that gathers: when that ends, by a panic too, everything is announced.

use std::cell::Cell;

/// The appends that this thread gathers.
#[derive(Clone, Copy)]
struct Gathered {
    /// Which store's.
    store: usize,
    /// Where they end so far; 0 before the first.
    end: u64,
}

thread_local! {
    static GATHERED: Cell<Option<Gathered>> = const { Cell::new(None) };
}

/// Notes an append to `store` that ends there, where its appends are being gathered; else it must be announced now.
pub(crate) fn note(store: usize, end: u64) -> bool {
    GATHERED.with(|gathered| match gathered.get() {
        Some(now) if now.store == store => {
            gathered.set(Some(Gathered { end: now.end.max(end), ..now }));
            true
        }
        _ => false,
    })
}

/// Runs `run`; what it appends to `store` is announced when it has ended.
pub(crate) fn gather<R>(store: usize, announce: impl Fn(u64), run: impl FnOnce() -> R) -> R {
    struct End<A: Fn(u64)> {
        before: Option<Gathered>,
        announce: A,
    }
    impl<A: Fn(u64)> Drop for End<A> {
        fn drop(&mut self) {
            let gathered = GATHERED.replace(self.before);
            if let Some(Gathered { end, .. }) = gathered.filter(|gathered| gathered.end > 0) {
                (self.announce)(end);
            }
        }
    }
    let _end = End { before: GATHERED.replace(Some(Gathered { store, end: 0 })), announce };
    run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn what_was_gathered_is_announced_once_whatever_happens() {
        let told = RefCell::new(Vec::new());
        let tell = |store: &'static str| {
            let told = &told;
            move |end| told.borrow_mut().push((store, end))
        };
        assert!(!note(1, 5), "nobody gathers");
        gather(1, tell("a"), || {
            assert!(note(1, 7) && note(1, 6) && !note(2, 9));
            gather(2, tell("b"), || assert!(note(2, 3) && !note(1, 8)));
            assert_eq!(*told.borrow(), [("b", 3)]);
        });
        gather(1, tell("a"), || ());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            gather(1, tell("c"), || {
                assert!(note(1, 10));
                panic!("on purpose");
            })
        }));
        assert!(panicked.is_err() && !note(1, 11));
        assert_eq!(*told.borrow(), [("b", 3), ("a", 7), ("c", 10)]);
    }
}
