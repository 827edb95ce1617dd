//! What can go wrong on the wire, and whose fault it is.

use std::time::Duration;

/// A peer's bytes are no frame; the connection cannot be understood any further and is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame announces more bytes than are accepted.
    #[error("frame of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Bytes announced, the four of the length word included.
        size: u64,
        /// The limit that was met.
        limit: usize,
    },
    /// The header announces more bytes than are accepted.
    #[error("header of {size} bytes is larger than the limit of {limit} bytes")]
    HeaderTooLarge {
        /// Bytes announced.
        size: usize,
        /// The limit that was met.
        limit: usize,
    },
    /// The lengths of frame and header contradict each other, or are negative.
    #[error("frame of {frame} bytes cannot hold a header of {header} bytes")]
    Length {
        /// The frame's length word.
        frame: i64,
        /// The header's length.
        header: i64,
    },
    /// The serialize type is neither JSON (0) nor ROCKETMQ (1).
    #[error("serialize type {0} is unknown; known are 0 (JSON) and 1 (ROCKETMQ)")]
    SerializeType(u8),
    /// The header's bytes do not parse.
    #[error("header does not parse: {0}")]
    Header(&'static str),
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemotingError {
    /// The address cannot be resolved or reached.
    #[error("connect to {address} failed: {reason}")]
    Connect {
        /// `host:port` as given.
        address: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// No answer came in time. The peer may have done what was asked.
    #[error("no answer from {address} within {timeout:?}")]
    Timeout {
        /// The peer's address.
        address: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The connection closed before an answer came. The peer may have done what was asked.
    #[error("connection to {address} closed before the answer{}", .refusal.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Closed {
        /// The peer's address.
        address: String,
        /// What TLS had against it, such as a certificate that the peer does not believe.
        refusal: Option<String>,
    },
    /// The peer reads so slowly that its queue of outgoing commands is full.
    #[error("{address} does not read: {limit} commands wait to be sent to it")]
    Backlog {
        /// The peer's address.
        address: String,
        /// The queue's limit.
        limit: usize,
    },
}
