//! Places of fixed width in an encoded frame that differ from one request to the next.
//!
//! A frame is encoded once, by the wire crate, with placeholders; these are found by their text and
//! written over for each request. Widths never change, so no length in the frame does.

use anyhow::{Context as _, Result};
use memchr::memmem;

/// The opaque that a frame is encoded with; all that are patched in have its ten digits.
pub const OPAQUE_PLACEHOLDER: i32 = 1_888_777_666;
/// The smallest number of ten digits; an `i32` has room for a thousand million above it.
pub const OPAQUE_BASE: i32 = 1_000_000_000;

/// A place in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    at: usize,
    width: usize,
}

impl Place {
    /// The opaque.
    ///
    /// # Errors
    /// It is not in the frame.
    pub fn of_opaque(frame: &[u8]) -> Result<Self> {
        Self::after(frame, "\"opaque\":", 10)
    }

    /// The `width` bytes behind the first `text`.
    ///
    /// # Errors
    /// It is not in the frame.
    pub fn after(frame: &[u8], text: &str, width: usize) -> Result<Self> {
        let at = memmem::find(frame, text.as_bytes()).with_context(|| format!("no {text} in the encoded frame"))?;
        anyhow::ensure!(at + text.len() + width <= frame.len(), "nothing behind {text} in the encoded frame");
        Ok(Self { at: at + text.len(), width })
    }

    /// Every place that holds `placeholder`.
    pub fn all(frame: &[u8], placeholder: &str) -> Vec<Self> {
        memmem::find_iter(frame, placeholder.as_bytes()).map(|at| Self { at, width: placeholder.len() }).collect()
    }

    /// Writes a number in decimal, with zeroes in front; Java's and our parsers take those.
    pub fn decimal(self, frame: &mut [u8], mut value: u64) {
        for byte in frame[self.at..self.at + self.width].iter_mut().rev() {
            *byte = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }

    /// Writes a number in hexadecimal, with zeroes in front.
    pub fn hexadecimal(self, frame: &mut [u8], mut value: u64) {
        for byte in frame[self.at..self.at + self.width].iter_mut().rev() {
            *byte = b"0123456789ABCDEF"[(value & 15) as usize];
            value >>= 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_width_of_their_place() {
        let mut frame = b"{\"opaque\":1888777666,\"x\":\"@@@@\",\"y\":\"@@@@\"}".to_vec();
        Place::of_opaque(&frame).unwrap().decimal(&mut frame, 1_000_000_007);
        let places = Place::all(&frame, "@@@@");
        assert_eq!(places.len(), 2);
        places[1].hexadecimal(&mut frame, 0x2AF);
        places[0].decimal(&mut frame, 42);
        assert_eq!(std::str::from_utf8(&frame).unwrap(), "{\"opaque\":1000000007,\"x\":\"0042\",\"y\":\"02AF\"}");
        assert!(Place::of_opaque(b"{}").is_err());
    }
}
