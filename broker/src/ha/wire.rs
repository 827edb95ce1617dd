//! The bytes of the replication stream, which are Java's (`HAService` of 4.9, the default of 5.x), and two words of our own.
//!
//! ```text
//! master → slave   i64 offset of the first byte | i32 number of bytes | bytes;   no bytes: a heartbeat
//! slave → master   i64 up to where the slave has the log
//! ```
//!
//! Big-endian. A Java broker never reports a negative offset, and one that receives it takes it for a slave that has nothing,
//! until the next report. Ours says two things by negative numbers that its reports cannot say: who it is, and that its log
//! is not the master's. May not: know the store or a socket.

use bytes::{Buf as _, BytesMut};

/// Bytes before those of the log in a frame.
pub(crate) const FRAME_HEADER: usize = 12;
/// Bytes of a report.
pub(crate) const REPORT: usize = 8;
/// A larger frame is not a master's: Java reads at most 4 MiB at once.
const FRAME_MAX: usize = 16 << 20;
/// What an aside says is in the bits from here on, its number in those below.
const ASIDE_BITS: u32 = 56;

/// What a slave tells its master in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Its log is the master's up to there, or, as its first word: this is where to begin.
    Position(u64),
    /// Our own word: its `brokerId`.
    Identity(u64),
    /// Our own word, and the last of a connection: its log is not the master's from this offset on.
    Diverged(u64),
    /// Nobody who speaks this language says that.
    Unknown(i64),
}

impl Report {
    /// The number that stands for it. Numbers that do not fit are cut: no log is as long, and no `brokerId` need be.
    pub(crate) fn encode(self) -> i64 {
        let aside = |kind: i64, number: u64| !(kind << ASIDE_BITS | (number & ((1 << ASIDE_BITS) - 1)) as i64);
        match self {
            Self::Position(offset) => offset as i64,
            Self::Identity(id) => aside(1, id),
            Self::Diverged(offset) => aside(2, offset),
            Self::Unknown(number) => number,
        }
    }

    /// The other way round, for any number.
    pub(crate) fn decode(number: i64) -> Self {
        if let Ok(offset) = u64::try_from(number) {
            return Self::Position(offset);
        }
        let content = (!number) as u64 & ((1 << ASIDE_BITS) - 1);
        match !number >> ASIDE_BITS {
            1 => Self::Identity(content),
            2 => Self::Diverged(content),
            _ => Self::Unknown(number),
        }
    }

    /// Takes the next whole report off `buffer`.
    pub(crate) fn take(buffer: &mut BytesMut) -> Option<Self> {
        (buffer.len() >= REPORT).then(|| Self::decode(buffer.get_i64()))
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Log offset of the first byte.
    pub(crate) offset: i64,
    /// Bytes of the log.
    pub(crate) size: usize,
}

impl FrameHead {
    /// Its bytes.
    pub(crate) fn encode(offset: u64, size: usize) -> [u8; FRAME_HEADER] {
        let mut head = [0; FRAME_HEADER];
        head[..8].copy_from_slice(&offset.to_be_bytes());
        head[8..].copy_from_slice(&(size as i32).to_be_bytes());
        head
    }

    /// The head that `bytes` begin with, `None` where they are too few; the size where it is no frame's.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, i32> {
        let Some(mut head) = bytes.get(..FRAME_HEADER) else { return Ok(None) };
        let (offset, size) = (head.get_i64(), head.get_i32());
        match usize::try_from(size) {
            Ok(size) if size <= FRAME_MAX => Ok(Some(Self { offset, size })),
            _ => Err(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_go_there_and_back_and_any_number_is_one() {
        for report in [
            Report::Position(0),
            Report::Position(i64::MAX as u64),
            Report::Identity(0),
            Report::Identity((1 << ASIDE_BITS) - 1),
            Report::Diverged(0),
            Report::Diverged(123_456_789),
        ] {
            let number = report.encode();
            assert_eq!(Report::decode(number), report);
            assert_eq!(number < 0, !matches!(report, Report::Position(_)), "Java takes it for nothing");
        }
        for number in [-1, i64::MIN, i64::MIN + 1, -(1 << 55)] {
            assert_eq!(Report::decode(number), Report::Unknown(number));
        }
    }

    #[test]
    fn frames_of_a_wrong_size_are_refused() {
        let head = FrameHead::encode(7, 9);
        assert_eq!(FrameHead::decode(&head), Ok(Some(FrameHead { offset: 7, size: 9 })));
        assert_eq!(FrameHead::decode(&head[..11]), Ok(None));
        assert_eq!(FrameHead::decode(&[0xFF; 12]), Err(-1));
        assert_eq!(FrameHead::decode(&FrameHead::encode(0, FRAME_MAX + 1)), Err(FRAME_MAX as i32 + 1));
    }
}
