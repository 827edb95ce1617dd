//! The bounds at which the broker refuses: what each is called, what a refusal says, how often each was met, and the gates before
//! what waits. docs/overload.md tells users.
//!
//! A refusal names its limit and is counted where it becomes a response. What the network itself refuses is counted there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocketmq_remoting::{Rejections, ResponseCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::BrokerConfig;
use crate::refusal::Refusal;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal;)+) => {
        /// A bound of the broker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Limit {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Limit {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            /// The metric's label: the key of `broker.conf` that sets it, where one does.
            pub(crate) fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

limits! {
    /// Connections of clients that are open.
    Connections = "serverConnectionsMax";
    /// Requests of one connection that wait for their answers.
    ConnectionRequests = "serverConnectionRequestsMax";
    /// Bytes of a frame or of its header.
    Frame = "frameMaxLength";
    /// Time without a byte in which a peer has read nothing of what waits for it.
    Unread = "serverChannelMaxIdleTimeSeconds";
    /// Connections of slaves that are open.
    SlaveConnections = "haConnectionsMax";
    /// Sends that wait for flush or slaves.
    Sends = "sendThreadPoolQueueCapacity";
    /// Pulls that wait for messages or for the disk.
    Pulls = "pullThreadPoolQueueCapacity";
    /// Requests that touch the disk and wait for their turn.
    Queries = "queryThreadPoolQueueCapacity";
    /// Memory of the replies that wait for their askers.
    ReplyKib = "replyKib";
    /// Bytes of a message.
    MessageSize = "maxMessageSize";
    /// Used share of the disk.
    DiskSpace = "diskSpaceWarningLevelRatio";
    /// None: the store has failed, or the disk refuses what is written.
    Store = "store";
    /// Time that a flush may take.
    FlushTime = "syncFlushTimeout";
    /// Time that a slave may take.
    SlaveTime = "slaveTimeout";
    /// Bytes that the nearest slave may be behind.
    SlaveBehind = "haSlaveFallbehindMax";
}

/// All bounds of a running broker.
#[derive(Debug)]
pub(crate) struct Limits {
    met: [AtomicU64; Limit::ALL.len()],
    network: Arc<Rejections>,
    /// See [`Limit::Sends`].
    pub(crate) sends: Gate,
    /// See [`Limit::Pulls`].
    pub(crate) pulls: Gate,
    /// See [`Limit::Queries`].
    pub(crate) queries: Gate,
}

impl Limits {
    /// `network`: where the servers count.
    pub(crate) fn new(config: &BrokerConfig, network: Arc<Rejections>) -> Self {
        Self {
            met: std::array::from_fn(|_| AtomicU64::new(0)),
            network,
            sends: Gate::new(Limit::Sends, "sends that wait for flush or slaves", config.send_in_flight_max),
            pulls: Gate::new(Limit::Pulls, "pulls that wait", config.pull_held_max),
            queries: Gate::new(Limit::Queries, "requests that wait for the disk", config.queries_max),
        }
    }

    /// A limit was met.
    pub(crate) fn met(&self, limit: Limit) {
        self.met[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each limit was met since the start.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Limit, u64)> {
        Limit::ALL.iter().map(|limit| {
            let count = match limit {
                Limit::Connections => self.network.connections(),
                Limit::ConnectionRequests => self.network.requests(),
                Limit::Frame => self.network.frames(),
                Limit::Unread => self.network.unread(),
                _ => self.met[*limit as usize].load(Ordering::Relaxed),
            };
            (*limit, count)
        })
    }
}

/// Lets so many through at once and refuses the others; nobody waits at it.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: Limit,
    what: &'static str,
    max: usize,
    free: Arc<Semaphore>,
}

/// A way through a gate; dropping it makes room for the next one.
pub(crate) type Pass = OwnedSemaphorePermit;

impl Gate {
    fn new(limit: Limit, what: &'static str, max: usize) -> Self {
        Self { limit, what, max, free: Arc::new(Semaphore::new(max)) }
    }

    /// # Errors
    /// Too many are through.
    pub(crate) fn enter(&self) -> Result<Pass, Refusal> {
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| busy(self.limit, self.what, self.max))
    }
}

/// `SYSTEM_BUSY` in Java's words, with the limit.
pub(crate) fn busy(limit: Limit, what: &str, max: usize) -> Refusal {
    let remark = format!(
        "[OVERLOAD]system busy, start flow control for a while, {what} reached the limit {}={max}",
        limit.label()
    );
    Refusal::new(ResponseCode::SYSTEM_BUSY, remark).at(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_as_many_through_as_its_limit_says() {
        let gate = Gate::new(Limit::Sends, "sends", 2);
        let (first, _second) = (gate.enter().unwrap(), gate.enter().unwrap());
        let refusal = gate.enter().unwrap_err();
        assert_eq!((refusal.code, refusal.limit), (ResponseCode::SYSTEM_BUSY, Some(Limit::Sends)));
        assert!(refusal.remark.ends_with("sends reached the limit sendThreadPoolQueueCapacity=2"), "{refusal}");
        drop(first);
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn each_limit_has_a_count_and_a_name_of_its_own() {
        let limits = Limits::new(&BrokerConfig::built_in(), Arc::default());
        limits.met(Limit::DiskSpace);
        let met: Vec<_> = limits.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(met, [(Limit::DiskSpace, 1)]);
        let names: std::collections::HashSet<_> = Limit::ALL.iter().map(|limit| limit.label()).collect();
        assert_eq!(names.len(), Limit::ALL.len());
    }
}
