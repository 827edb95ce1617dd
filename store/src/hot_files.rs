//! Which files stay mapped: those in use, up to a limit.
//!
//! A store of thousands of files has few that are read or written. A file is mapped when it is touched and unmapped
//! when too many others were touched since ("second chance"): address space, page tables and the kernel's limit on
//! mappings are bounded by the limit, whatever the store holds. Whoever holds a mapping keeps it. May not: map.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use memmap2::MmapRaw;
use parking_lot::Mutex;

/// A file's mapping while it has one.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    map: ArcSwapOption<MmapRaw>,
    /// Touched since the last look at it.
    used: AtomicBool,
}

impl Slot {
    /// The mapping, if there is one now.
    pub(crate) fn get(&self) -> Option<Arc<MmapRaw>> {
        let map = self.map.load_full()?;
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(map)
    }

    /// Takes the mapping out.
    pub(crate) fn take(&self) -> Option<Arc<MmapRaw>> {
        self.map.swap(None)
    }
}

/// The mapped files of one kind.
#[derive(Debug)]
pub(crate) struct HotFiles {
    limit: usize,
    ring: Mutex<VecDeque<Weak<Slot>>>,
}

impl HotFiles {
    /// At most `limit` files stay mapped.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, ring: Mutex::default() })
    }

    /// The slot's mapping: the one it has, or the one that `map` makes. May unmap another file.
    pub(crate) fn admit<E>(
        &self,
        slot: &Arc<Slot>,
        map: impl FnOnce() -> Result<MmapRaw, E>,
    ) -> Result<Arc<MmapRaw>, E> {
        let mut ring = self.ring.lock();
        // Another thread may have been faster.
        if let Some(map) = slot.get() {
            return Ok(map);
        }
        let map = Arc::new(map()?);
        slot.map.store(Some(Arc::clone(&map)));
        ring.push_back(Arc::downgrade(slot));
        let mut second_chances = ring.len();
        while ring.len() > self.limit {
            let Some(oldest) = ring.pop_front() else { break };
            let Some(old) = oldest.upgrade().filter(|old| old.map.load().is_some()) else { continue };
            if second_chances > 0 && old.used.swap(false, Ordering::Relaxed) {
                second_chances -= 1;
                ring.push_back(oldest);
            } else {
                old.take();
            }
        }
        Ok(map)
    }

    /// How many files are mapped.
    #[cfg(test)]
    pub(crate) fn mapped(&self) -> usize {
        self.ring.lock().iter().filter_map(Weak::upgrade).filter(|slot| slot.map.load().is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous() -> Result<MmapRaw, std::io::Error> {
        memmap2::MmapOptions::new().len(4096).map_anon().map(Into::into)
    }

    #[test]
    fn the_limit_holds_and_what_is_used_stays() {
        let hot = HotFiles::new(3);
        let slots: Vec<Arc<Slot>> = (0..10).map(|_| Arc::default()).collect();
        for slot in &slots {
            hot.admit(slot, anonymous).unwrap();
            slots[0].get().expect("used each time");
            assert!(hot.mapped() <= 3);
        }
        assert!(slots[9].get().is_some() && slots[1].get().is_none());
        drop(slots);
        assert_eq!(hot.mapped(), 0);
    }

    #[test]
    fn who_holds_a_mapping_keeps_it_and_a_failure_changes_nothing() {
        let hot = HotFiles::new(1);
        let (one, two) = (Arc::<Slot>::default(), Arc::<Slot>::default());
        let held = hot.admit(&one, anonymous).unwrap();
        hot.admit(&two, anonymous).unwrap();
        assert!(one.get().is_none());
        assert_eq!(held.len(), 4096);
        assert!(hot.admit(&one, || Err("no")).is_err() && one.get().is_none());
        assert!(two.get().is_some());
    }
}
