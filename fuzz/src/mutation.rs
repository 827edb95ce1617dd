//! Changes of an input: bits flipped, lengths made extreme, pieces cut, doubled and put together.

use rand::RngExt as _;
use rand::rngs::StdRng;

/// No input becomes longer.
const INPUT_MAX: usize = 16 << 10;
/// Values that lengths, counts and offsets are off by one at, or overflow from.
const EXTREMES: [u64; 12] =
    [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0x7FFF_FFFF_FFFF_FFFF, u64::MAX];

/// One of the corpus, changed in one to four ways.
///
/// # Panics
/// The corpus is empty.
pub fn mutated(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..5) {
        mutate(rng, &mut bytes, corpus);
    }
    bytes.truncate(INPUT_MAX);
    bytes
}

/// One change.
pub fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
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
