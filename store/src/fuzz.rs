//! Everything in the store that reads bytes from a disk, fed with bytes that no store wrote.
//!
//! Owns what the inputs have in common; they lie in `corpus/<target>` (see `corpus`), and mutations make more of them (see
//! `rocketmq_fuzz`). May not: know what a target expects of its input.

mod corpus;
mod files;
mod formats;
mod whole_store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::simulation::shared_memory;

/// How long a target plays in an ordinary test run.
const MOMENT: Duration = Duration::from_millis(400);

/// Feeds `check` with the target's corpus and with what mutations make of it.
fn inputs(target: &str, check: impl Fn(&[u8])) {
    corpus::committed().feed(target, MOMENT, check);
}

/// Directory for files that come and go by the thousand.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in(shared_memory()).expect("a directory")
}

/// Writes a run of files of equal size: what a target takes from one input. The last one may be short.
fn write_run(paths: impl Iterator<Item = PathBuf>, bytes: &[u8], size: usize) -> usize {
    let pieces = bytes.chunks(size);
    let count = pieces.len();
    for (path, piece) in paths.zip(pieces) {
        std::fs::write(path, piece).expect("room for the files");
    }
    count
}

/// Deletes whatever an input before left in a directory.
fn empty(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("ours");
    std::fs::create_dir(dir).expect("ours");
}
