//! The bloom filter's bits of a consumer group, as they stand in `consumerFilter.json`.
//!
//! Java may note in an extended consume queue which groups a message passes; here nothing reads such notes. The bits
//! are written all the same: a Java broker that finds none of them, or others, drops the whole file.

use serde::{Deserialize, Serialize};

/// Size of the filter (`BloomFilter.createByFn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BloomFilter {
    hashes: i32,
    bits: i32,
}

/// `BloomFilterData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BloomBits {
    bit_num: i32,
    bit_pos: Vec<i32>,
}

impl BloomFilter {
    /// The filter for so many groups, of which `error_percent` (1 to 99) in a hundred are taken for another one.
    pub(crate) fn new(error_percent: i32, groups: i32) -> Self {
        let rate = f64::from(error_percent) / 100.0;
        let hashes = log(0.5, rate).ceil() as i32;
        let bits = (f64::from(groups) * log(2.0, 1.0 / rate) * log(2.0, std::f64::consts::E)).ceil();
        Self { hashes, bits: 8 * (bits / 8.0).ceil() as i32 }
    }

    /// The bits of a group that reads a topic.
    pub(super) fn bits_of(self, group: &str, topic: &str) -> BloomBits {
        let hash = murmur3_low(format!("{group}#{topic}").as_bytes());
        let (first, second) = (hash as i32, (hash >> 32) as i32);
        let bit_pos = (1..=self.hashes).map(|nth| {
            let combined = first.wrapping_add(nth.wrapping_mul(second));
            (if combined < 0 { !combined } else { combined }) % self.bits
        });
        BloomBits { bit_num: self.bits, bit_pos: bit_pos.collect() }
    }
}

fn log(base: f64, number: f64) -> f64 {
    number.ln() / base.ln()
}

/// The first half of `MurmurHash3` (x64, 128 bits, seed 0), the public domain algorithm behind Guava's `murmur3_128`.
fn murmur3_low(bytes: &[u8]) -> u64 {
    const C1: u64 = 0x87C3_7B91_1142_53D5;
    const C2: u64 = 0x4CF5_AD43_2745_937F;
    let mix_first = |word: u64| word.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix_second = |word: u64| word.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut one, mut two) = (0_u64, 0_u64);
    let (blocks, tail) = bytes.as_chunks::<16>();
    for block in blocks {
        let (first, second) = words(block);
        one = (one ^ mix_first(first)).rotate_left(27).wrapping_add(two).wrapping_mul(5).wrapping_add(0x52DC_E729);
        two = (two ^ mix_second(second)).rotate_left(31).wrapping_add(one).wrapping_mul(5).wrapping_add(0x3849_5AB5);
    }
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let (first, second) = words(&last);
    one ^= mix_first(first);
    two ^= mix_second(second);
    one ^= bytes.len() as u64;
    two ^= bytes.len() as u64;
    one = one.wrapping_add(two);
    two = two.wrapping_add(one);
    finish(one).wrapping_add(finish(two))
}

fn words(block: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*block);
    (both as u64, (both >> 64) as u64)
}

fn finish(mut word: u64) -> u64 {
    word = (word ^ (word >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    word = (word ^ (word >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    word ^ (word >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked of `BloomFilter` of 4.9.7.
    #[test]
    fn bits_are_javas() {
        for (percent, groups, hashes, bits) in [
            (20, 32, 3, 112),
            (20, 64, 3, 216),
            (1, 100, 7, 960),
            (50, 1, 1, 8),
            (99, 3, 1, 8),
            (10, 1_000_000, 4, 4_792_536),
        ] {
            assert_eq!(BloomFilter::new(percent, groups), BloomFilter { hashes, bits });
        }
        let bits = |group, topic| BloomFilter::new(20, 32).bits_of(group, topic).bit_pos;
        assert_eq!(bits("g", "T"), [90, 68, 28]);
        assert_eq!(bits("please-rename-unique-group", "TopicTest"), [60, 104, 98]);
        assert_eq!(bits("ünï", "%RETRY%x"), [15, 38, 92]);
        assert_eq!(murmur3_low(b""), 0);
    }
}
