//! The atomics under `published` and `turn`: the machine's here, loom's where a test plays every order of threads.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
