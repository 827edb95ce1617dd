//! Counts by name.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{Arguments, Write as _};
use std::sync::Arc;

use parking_lot::RwLock;

use super::item::Item;

/// Messages and their bytes.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) nums: Item,
    pub(super) size: Item,
}

/// A read-mostly table: a name is added when it first counts.
#[derive(Debug, Default)]
pub(super) struct Table(RwLock<HashMap<String, Arc<Flow>>>);

thread_local! {
    /// Where names are put together, so that counting allocates nothing.
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Table {
    pub(super) fn add(&self, key: Arguments<'_>, nums: u64, size: u64) {
        KEY.with_borrow_mut(|text| {
            text.clear();
            // Writing into a string fails only if a value refuses to be formatted; texts do not.
            let _ = text.write_fmt(key);
            let found = self.0.read().get(text).map(|flow| flow.add(nums, size));
            if found.is_none() {
                self.0.write().entry(text.clone()).or_default().add(nums, size);
            }
        });
    }

    pub(super) fn find(&self, key: &str) -> Option<Arc<Flow>> {
        self.0.read().get(key).cloned()
    }

    /// Every name with what it has counted since the start: messages and their bytes.
    pub(super) fn totals(&self) -> Vec<(String, u64, u64)> {
        self.0.read().iter().map(|(key, flow)| (key.clone(), flow.nums.value(), flow.size.value())).collect()
    }

    pub(super) fn retain(&self, mut keeps: impl FnMut(&str) -> bool) {
        self.0.write().retain(|key, _| keeps(key));
    }

    pub(super) fn sample(&self, now_ms: i64) {
        for flow in self.0.read().values() {
            flow.nums.sample(now_ms);
            flow.size.sample(now_ms);
        }
    }
}

impl Flow {
    fn add(&self, nums: u64, size: u64) {
        self.nums.add(nums);
        self.size.add(size);
    }
}
