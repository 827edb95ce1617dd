//! Everything in the store that reads bytes from a disk, fed with bytes that no store wrote.
//!
//! Owns the inputs: what lies in `corpus/<target>` (see `corpus`), and from it bits flipped, lengths made extreme, pieces
//! cut, doubled and put together. Each input has a number: `FUZZ_SEED=n` begins with that one, `FUZZ_SECONDS=s` goes
//! on for so long with each target instead of a moment. May not: know what a target expects of its input.

mod corpus;
mod files;
mod formats;
mod whole_store;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::simulation::shared_memory;

/// How long a target plays in an ordinary test run.
const MOMENT: Duration = Duration::from_millis(400);
/// The first input of an ordinary test run; a long run begins elsewhere each time.
const FIRST_SEED: u64 = 1;
/// No input becomes longer.
const INPUT_MAX: usize = 16 << 10;
/// Values that lengths, counts and offsets are off by one at, or overflow from.
const EXTREMES: [u64; 12] =
    [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0x7FFF_FFFF_FFFF_FFFF, u64::MAX];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name}={n} is no number")))
}

/// Plays one input after the other for `moment`, or as long as was asked for. `play` makes its input by the generator.
fn rounds(target: &str, moment: Duration, play: impl Fn(&mut StdRng)) {
    let seconds = number("FUZZ_SECONDS");
    let elsewhere = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let first = number("FUZZ_SEED").unwrap_or_else(|| seconds.map_or(FIRST_SEED, |_| elsewhere()));
    let end = Instant::now() + seconds.map_or(moment, Duration::from_secs);
    let mut seed = first;
    loop {
        let played = catch_unwind(AssertUnwindSafe(|| play(&mut StdRng::seed_from_u64(seed))));
        if let Err(panic) = played {
            eprintln!("{target}: FUZZ_SEED={seed} plays this input again");
            resume_unwind(panic);
        }
        seed = seed.wrapping_add(1);
        if Instant::now() >= end {
            break;
        }
    }
    println!("{target}: {} inputs from FUZZ_SEED={first} on", seed.wrapping_sub(first));
}

/// Feeds `check` with the target's corpus and with what mutations make of it.
fn inputs(target: &str, check: impl Fn(&[u8])) {
    let corpus: Vec<Vec<u8>> = corpus::read(target);
    for bytes in &corpus {
        check(bytes);
    }
    rounds(target, MOMENT, |rng| check(&mutated(rng, &corpus)));
}

/// One of the texts, changed in one to four ways.
fn mutated(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..5) {
        mutate(rng, &mut bytes, corpus);
    }
    bytes.truncate(INPUT_MAX);
    bytes
}

/// One change.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let len = bytes.len();
    let at = rng.random_range(0..=len);
    let to = (at + rng.random_range(0..64)).min(len);
    match rng.random_range(0..10) {
        0..=2 if at < len => bytes[at] ^= 1 << rng.random_range(0..8),
        3 if at < len => bytes[at] = rng.random(),
        4 | 5 => {
            let value = match rng.random_range(0..3) {
                0 => EXTREMES[rng.random_range(0..EXTREMES.len())],
                1 => len as u64,
                _ => EXTREMES[rng.random_range(0..EXTREMES.len())].wrapping_add(rng.random_range(0..9)).wrapping_sub(4),
            };
            let width = [1, 2, 4, 8][rng.random_range(0..4_usize)];
            if at + width <= len {
                bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
            }
        }
        6 => bytes.truncate(at),
        7 => bytes[at..to].fill([0, 0xFF, b'9'][rng.random_range(0..3_usize)]),
        8 => {
            let other = &corpus[rng.random_range(0..corpus.len())];
            let from = rng.random_range(0..=other.len());
            let piece = &other[from..(from + rng.random_range(0..300)).min(other.len())];
            // In place keeps everything behind it where it was.
            let replaced = if rng.random_bool(0.5) { (at + piece.len()).min(len) } else { to };
            bytes.splice(at..replaced, piece.iter().copied());
        }
        _ => {
            let piece = bytes[at..to].to_vec();
            bytes.splice(at..at, piece);
        }
    }
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
