//! One connection to a slave, without its socket: what the slave says is judged, and the next frame made.
//!
//! Owns what this slave was sent. Whoever connects is believed as little as possible: a report that cannot be true ends its
//! connection and counts for nothing. May not: wait, or touch a socket or a clock.

use bytes::Bytes;
use rocketmq_store::MessageStore;

use super::wire::{FRAME_HEADER, FrameHead, Report};

/// Heartbeats that greet a slave, before anything else is sent: whoever answers can be counted on even while nothing is
/// written, and a slave of ours knows by two of them that its master hears its asides.
pub(crate) const GREETINGS: u32 = 2;

/// Why a slave is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Its log goes on where ours ends, or went on there when it came first.
    #[error(
        "the slave is ahead of this master: its log ends at {slave}, ours ended at {master}; one of them has messages that \
         the other never had, and nothing is sent until its store is cut or emptied"
    )]
    Ahead {
        /// Where its log ends.
        slave: u64,
        /// Where ours did.
        master: u64,
    },
    /// It says so itself.
    #[error("the slave's log differs from ours at offset {at}: nothing is sent until its store is cut or emptied")]
    Diverged {
        /// Where the first difference is.
        at: u64,
    },
    /// Messages between its end and our beginning have expired.
    #[error(
        "the slave's log ends at {slave}, before our oldest byte {min}: there is a hole between them, its store must be emptied"
    )]
    Hole {
        /// Where its log ends.
        slave: u64,
        /// Where ours begins.
        min: u64,
    },
    /// It cannot have what it says.
    #[error("it reports offset {reported}, but was sent the log up to {sent} only")]
    NotSent {
        /// What it says.
        reported: u64,
        /// What it was sent.
        sent: u64,
    },
    /// No slave says that.
    #[error("it reports the negative offset {0}")]
    Negative(i64),
    /// The bytes that it is to get are gone.
    #[error("the log cannot be read at {next}: it begins at {min}")]
    Unreadable {
        /// Where it would go on.
        next: u64,
        /// Where our log begins.
        min: u64,
    },
}

impl Refused {
    /// Where the two logs part, if that is why: then the slave must not count until it is mended.
    pub(crate) fn divergence(&self) -> Option<u64> {
        match self {
            Self::Ahead { master, .. } => Some(*master),
            Self::Diverged { at } => Some(*at),
            Self::Hole { .. } | Self::NotSent { .. } | Self::Negative(_) | Self::Unreadable { .. } => None,
        }
    }
}

/// What a report tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Where it wants to begin, and where it will.
    Begins { asked: u64, start: u64 },
    /// Up to where it has our log.
    Holds(u64),
    /// Who it is.
    Identity(u64),
    /// Nothing that counts.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    /// Offset of the next byte to send; `None` before the first report.
    next: Option<u64>,
    /// What it asked for: it has that, it says, but nobody has compared it.
    asked: u64,
    frame: Option<Frame>,
    /// Heartbeats to send before anything else.
    greetings: u32,
    /// Whole frames that have left.
    sent: u64,
    /// It ended where a slave ended that was ahead of us: it must say that it is one of ours, which compares.
    suspected: Option<Refused>,
}

/// Bytes on their way.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: [u8; FRAME_HEADER],
    pub(crate) body: Bytes,
    pub(crate) written: usize,
}

impl Sender {
    /// Judges a report by what was sent and what the log holds. `suspect` says for an offset whether a slave that was ahead
    /// of us ended there: it has messages that we never had, though by now our log is as long.
    pub(crate) fn told(
        &mut self,
        report: Report,
        store: &MessageStore,
        suspect: impl FnOnce(u64) -> Option<Refused>,
    ) -> Result<Told, Refused> {
        let position = match report {
            Report::Position(position) => position,
            Report::Identity(id) => {
                self.suspected = None;
                return Ok(Told::Identity(id));
            }
            // It cannot know of a difference in what it was not sent.
            Report::Diverged(at) => return Err(Refused::Diverged { at: at.min(self.next.unwrap_or(0)) }),
            Report::Unknown(number) => return Err(Refused::Negative(number)),
        };
        if let Some(suspected) = self.suspected.take_if(|_| self.sent > u64::from(GREETINGS)) {
            return Err(suspected);
        }
        let Some(next) = self.next else { return self.begin(position, store, suspect) };
        if position > next {
            return Err(Refused::NotSent { reported: position, sent: next });
        }
        // Only who answers a frame acknowledges: eight bytes of a stranger do not, nor does what a slave said before it was sent
        // anything.
        Ok(if self.sent > 0 && position > self.asked && self.suspected.is_none() {
            Told::Holds(position)
        } else {
            Told::Nothing
        })
    }

    fn begin(
        &mut self,
        position: u64,
        store: &MessageStore,
        suspect: impl FnOnce(u64) -> Option<Refused>,
    ) -> Result<Told, Refused> {
        let (min, max) = (store.min_physical_offset(), store.max_physical_offset());
        if position > max {
            return Err(Refused::Ahead { slave: position, master: max });
        }
        // An empty slave gets the whole log. Java's master would send its last file only, and after a fail-over the older
        // messages would be gone; a slave of either kind takes any start while its log is empty.
        let start = if position == 0 { min } else { position };
        if start < min {
            return Err(Refused::Hole { slave: position, min });
        }
        self.suspected = suspect(position);
        self.asked = position;
        self.next = Some(start);
        self.greetings = GREETINGS;
        Ok(Told::Begins { asked: position, start })
    }

    /// Makes the next frame where there is something to say.
    pub(crate) fn load(&mut self, store: &MessageStore, batch: usize) -> Result<(), Refused> {
        let Some(next) = self.next.filter(|_| self.frame.is_none()) else { return Ok(()) };
        if self.greetings > 0 {
            self.greetings -= 1;
            self.heartbeat();
            return Ok(());
        }
        if next >= store.max_physical_offset() || self.suspected.is_some() {
            return Ok(());
        }
        let body = store.read_raw(next, batch).filter(|body| !body.is_empty());
        let body = body.ok_or_else(|| Refused::Unreadable { next, min: store.min_physical_offset() })?;
        self.next = Some(next + body.len() as u64);
        self.frame = Some(Frame { header: FrameHead::encode(next, body.len()), body, written: 0 });
        Ok(())
    }

    /// An empty frame, where nothing else is on its way.
    pub(crate) fn heartbeat(&mut self) {
        if let (Some(next), None) = (self.next, &self.frame) {
            self.frame = Some(Frame { header: FrameHead::encode(next, 0), body: Bytes::new(), written: 0 });
        }
    }

    /// Whether it said where to begin.
    pub(crate) fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    /// What is to be written.
    pub(crate) fn frame(&mut self) -> Option<&mut Frame> {
        self.frame.as_mut()
    }

    /// Notes that so many bytes of the frame have left.
    pub(crate) fn written(&mut self, bytes: usize) {
        let Some(frame) = &mut self.frame else { return };
        frame.written += bytes;
        if frame.written >= FRAME_HEADER + frame.body.len() {
            self.frame = None;
            self.sent += 1;
        }
    }
}

impl Frame {
    /// What has not left yet: of the header, and of the log.
    pub(crate) fn rest(&self) -> (&[u8], &[u8]) {
        let header = &self.header[self.written.min(FRAME_HEADER)..];
        (header, &self.body[self.written.saturating_sub(FRAME_HEADER)..])
    }
}
