//! One connection to the master, without its socket: frames are compared with our log and what is new is appended.
//!
//! Owns how far our log is known to be the master's. Each connection begins before the end of our log, so that what the
//! master has there is compared with what we have: offsets alone would not show that the master lost its last messages
//! and has written others in their place, or is the master of another log. Where the logs part, nothing is written. May
//! not: wait, or touch a socket or a clock.

use anyhow::bail;
use bytes::{Buf as _, BytesMut};
use rocketmq_store::{FlushDiskType, MessageStore};

use super::sender::GREETINGS;
use super::wire::{FRAME_HEADER, FrameHead, Report};

/// Each connection begins this many bytes before the end of our log, and further back where its last message does.
const COMPARED: u64 = 64 << 10;
/// How many times as far back each further search for the common beginning goes.
const STEP: u32 = 4;
/// A master whose heartbeats stay before our end has nothing more: the first ones are a greeting.
const HEARTBEATS_OF_THE_END: u32 = GREETINGS + 1;

/// How many bytes before our end are compared when the common beginning was looked for `depth` times and lies further back.
pub(crate) fn compared(depth: u32) -> u64 {
    COMPARED.saturating_mul(u64::from(STEP.saturating_pow(depth)))
}

/// The master's log and ours are not the same log. Nothing is appended then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Diverged {
    /// The first words are Java's.
    #[error(
        "master pushed offset not equal the max phy offset in slave: the master sends from {pushed}, we asked for \
         {expected}, our log ends at {own}"
    )]
    Elsewhere { pushed: i64, expected: u64, own: u64 },
    #[error("the master's log differs from ours at offset {at}, our log ends at {own}")]
    Bytes { at: u64, own: u64 },
    #[error(
        "this slave is ahead of its master: our log ends at {own}, the master's at {master}; its next message will not \
         continue ours"
    )]
    Ahead { own: u64, master: u64 },
    #[error(
        "our log ends at {own}, before the master's oldest byte {min}: there is a hole between them, our store must be emptied"
    )]
    Hole { own: u64, min: u64 },
}

impl Diverged {
    /// The first offset that the two logs do not share.
    pub(crate) fn at(&self) -> u64 {
        match self {
            Self::Elsewhere { own, .. } | Self::Hole { own, .. } => *own,
            Self::Bytes { at, .. } => *at,
            Self::Ahead { master, .. } => *master,
        }
    }
}

/// Where a log that differs may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Common {
    /// The logs are the same up to there, where a message begins.
    Until(u64),
    /// They differ from where they were compared: it is further back.
    Further,
    /// They have nothing in common.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Where the master was asked to begin; `None` while our log is empty.
    start: Option<u64>,
    /// Up to here our log is the master's; `None` while it is empty.
    position: Option<u64>,
    /// Our log ended here when it began: before all of its end was compared nothing is acknowledged, for a few bytes may be
    /// alike by chance.
    proven_at: u64,
    /// Heartbeats since the last bytes.
    heartbeats: u32,
    frames: u64,
    /// The master is to be told who we are.
    to_introduce: bool,
    /// Further back than here nothing can be compared: one of the two logs begins here.
    floor: u64,
}

impl Receiver {
    /// Chooses where to begin: `back` bytes before our end (see [`compared`]), or somewhat further back, and as much before
    /// the master's end where that is nearer. `master` is where the master's log begins and ends, as far as that is known.
    ///
    /// # Errors
    /// The master's log begins behind our end.
    pub(crate) fn new(store: &MessageStore, back: u64, master: Option<(u64, u64)>) -> Result<Self, Diverged> {
        let own = store.max_physical_offset();
        // What it does not have any more it cannot send, and 0 says that we are empty.
        let floor = store.min_physical_offset().max(master.map_or(0, |(begin, _)| begin)).max(1);
        let start = if own == 0 {
            None
        } else {
            let shared = master.map_or(u64::MAX, |(_, end)| end.saturating_sub(back));
            let start = store.tail_start(back).min(shared).max(floor);
            if start > own {
                return Err(Diverged::Hole { own, min: start });
            }
            Some(start)
        };
        Ok(Self { start, position: start, proven_at: own, heartbeats: 0, frames: 0, to_introduce: false, floor })
    }

    /// Up to where the master is told that we have its log: with synchronous flush only what is on disk.
    pub(crate) fn report(&self, store: &MessageStore) -> Report {
        let (start, position) = (self.start.unwrap_or(0), self.position.unwrap_or(0));
        let held = match store.config().flush_disk_type {
            _ if position < self.proven_at => start,
            FlushDiskType::AsyncFlush => position,
            FlushDiskType::SyncFlush => position.min(store.flushed_offset()).max(start),
        };
        Report::Position(held)
    }

    /// Who we are, once, where the master hears it: one that greets with two heartbeats, as only ours does at once.
    pub(crate) fn introduction(&mut self, broker_id: u64) -> Option<Report> {
        std::mem::take(&mut self.to_introduce).then_some(Report::Identity(broker_id))
    }

    /// Up to where our log is known to be the master's.
    pub(crate) fn position(&self) -> Option<u64> {
        self.position
    }

    /// Whether anything was compared or appended.
    pub(crate) fn has_received(&self) -> bool {
        self.position != self.start
    }

    /// Whether the master, which has told nothing of its log, may end before we begin: then it is asked further back.
    pub(crate) fn begins_too_late(&self) -> bool {
        !self.has_received() && self.start.is_some_and(|start| start > self.floor)
    }

    /// Takes the next whole frame off `buffer`, a heartbeat included; whether there was one.
    ///
    /// # Errors
    /// [`Diverged`], or bytes that are not a master's, or our store refuses.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut, store: &MessageStore) -> anyhow::Result<bool> {
        let head = match FrameHead::decode(buffer) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(false),
            Err(size) => bail!("a frame of {size} bytes is not a master's"),
        };
        let expected = self.position.unwrap_or(head.offset.max(0) as u64);
        if head.offset != expected as i64 {
            let own = store.max_physical_offset();
            return Err(Diverged::Elsewhere { pushed: head.offset, expected, own }.into());
        }
        let whole = FRAME_HEADER + head.size;
        let Some(bytes) = buffer.get(FRAME_HEADER..whole) else {
            buffer.reserve(whole - buffer.len());
            return Ok(false);
        };
        self.frames += 1;
        if head.size == 0 {
            self.heartbeats += 1;
            self.to_introduce = self.frames == u64::from(GREETINGS) && self.heartbeats == GREETINGS;
        } else {
            compare_and_append(store, expected, bytes)?;
            self.position = Some(expected + head.size as u64);
            self.heartbeats = 0;
        }
        buffer.advance(whole);
        Ok(true)
    }

    /// Whether our log goes on where the master's ends.
    pub(crate) fn ahead(&self, store: &MessageStore) -> Option<Diverged> {
        let (own, master) = (store.max_physical_offset(), self.position?);
        (own > master && self.heartbeats >= HEARTBEATS_OF_THE_END).then_some(Diverged::Ahead { own, master })
    }

    /// Where our log may be cut, after the bytes differed at `at`.
    pub(crate) fn common(&self, store: &MessageStore, at: u64) -> Common {
        let start = self.start.unwrap_or(0);
        let first = store.record_start(at).unwrap_or(0);
        // A whole message before the difference must have been compared, for a few bytes may be alike by chance.
        let before = first.checked_sub(1).and_then(|last| store.record_start(last));
        match before {
            Some(before) if before >= start || (start == 1 && before == 0) => Common::Until(first),
            Some(_) if start > self.floor => Common::Further,
            _ => Common::Nothing,
        }
    }
}

/// Compares what we have already, appends the rest.
fn compare_and_append(store: &MessageStore, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let own = store.max_physical_offset();
    let mut done = 0;
    while done < bytes.len() && at + (done as u64) < own {
        let here = at + done as u64;
        let Some(ours) = store.read_raw(here, bytes.len() - done).filter(|ours| !ours.is_empty()) else {
            bail!("our own log cannot be read at {here}");
        };
        if let Some(same) = ours.iter().zip(&bytes[done..]).position(|(ours, theirs)| ours != theirs) {
            return Err(Diverged::Bytes { at: here + same as u64, own }.into());
        }
        done += ours.len();
    }
    if done < bytes.len() {
        store.append_raw(at + done as u64, &bytes[done..])?;
    }
    Ok(())
}
