//! Inputs that nobody would write, for whatever reads bytes or text from outside. For tests only.
//!
//! A target takes its inputs one after the other for a moment in an ordinary test run. Each input has a number:
//! `FUZZ_SEED=n` begins with that one, `FUZZ_SECONDS=s` goes on for so long with each target. May not: know what a target
//! expects of its input.

mod corpus;
mod mutation;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng as _;
pub use rand::rngs::StdRng;

pub use corpus::Corpus;
pub use mutation::{mutate, mutated};

/// The first input of an ordinary test run; a long run begins elsewhere each time.
const FIRST_SEED: u64 = 1;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name}={n} is no number")))
}

/// Plays one input after the other for `moment`, or as long as was asked for. `play` makes its input by the generator.
///
/// # Panics
/// As `play` does, after it has said which number plays the input again.
pub fn rounds(target: &str, moment: Duration, play: impl Fn(&mut StdRng)) {
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
