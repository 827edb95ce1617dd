//! How often a server's bounds were met.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one server, or of several that share them; since the start of the process.
#[derive(Debug, Default)]
pub struct Rejections {
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) unread: AtomicU64,
}

impl Rejections {
    /// Connections that were closed at once, because [`connections_max`](crate::ServerConfig::connections_max) were open.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests that were answered with `SYSTEM_BUSY`, because [`in_flight`](crate::peer::ConnectionLimits::in_flight) ones of their
    /// connection waited for their answers.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections that were closed because of a frame or a header longer than [`FrameLimits`](crate::frame::FrameLimits) allows.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Connections that were closed because nothing of what waited for their peers was read for
    /// [`idle`](crate::peer::ConnectionLimits::idle).
    pub fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
