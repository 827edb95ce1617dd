//! What a verification has to tell: one fault or one remark, with the file and the byte it is about.

use std::fmt;
use std::path::PathBuf;

/// What is wrong, or worth knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A file of a log or queue is missing between two others.
    MissingFile,
    /// A file is larger or smaller than its kind.
    FileSize,
    /// Bytes of the log that are no record.
    DamagedRegion,
    /// A message's body is not what was stored.
    CrcMismatch,
    /// A message that no queue could take.
    BadMessage,
    /// The log has a message and its queue has no unit for it.
    MissingUnit,
    /// A unit that is neither written whole, nor filler, nor unwritten; or an unwritten one between written ones.
    BadUnit,
    /// A unit points to no message.
    UnitTarget,
    /// A unit points to a message that is not the one of its queue offset.
    WrongMessage,
    /// A unit's size or tags code is not the message's.
    WrongField,
    /// A unit points before the one before it.
    OutOfOrder,
    /// The header of an index file does not fit its entries.
    IndexHeader,
    /// A slot or an entry of an index file does not lead to the entry it should.
    IndexChain,
    /// An index entry points to no message, or to one without that key.
    IndexTarget,
    /// A key of a message is not in the index.
    MissingKey,
    /// The checkpoint cannot be right.
    Checkpoint,
    /// The store was not shut down, and nobody has it open.
    Abort,
    /// A configuration table cannot be read.
    Config,
    /// Worth knowing, and no fault.
    Note,
}

impl FindingKind {
    /// Whether it is a fault.
    pub fn is_fault(self) -> bool {
        self != Self::Note
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One fault or one remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of fault.
    pub kind: FindingKind,
    /// The file or directory.
    pub path: PathBuf,
    /// The byte of the file where it begins; 0 for a fault of the whole.
    pub at: u64,
    /// What is wrong, in words.
    pub what: String,
}

impl Finding {
    /// One of `kind`.
    pub fn new(kind: FindingKind, path: impl Into<PathBuf>, at: u64, what: impl Into<String>) -> Self {
        Self { kind, path: path.into(), at, what: what.into() }
    }
}
