//! Who follows this master and how far: what `SYNC_MASTER` waits for.
//!
//! Owns the acknowledgements, counted by slave and not by connection: a slave that comes back twice holds a message once. A
//! slave of ours says its `brokerId`; the connections of a Java slave are known by their host only, so two on one host count as one.
//! Also owns who was found to have another log; such a slave does not count until it has followed past that. May not: wait
//! or touch a socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::sender::{Refused, Told};

/// Slaves that are remembered when they have gone; more than a master has, fewer than strangers can make.
const REMEMBERED: usize = 256;

/// Who a slave is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SlaveId {
    /// By its `brokerId`.
    Broker(u64),
    /// Where it connects from.
    Host(IpAddr),
}

impl std::fmt::Display for SlaveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broker(id) => write!(f, "brokerId {id}"),
            Self::Host(ip) => write!(f, "{ip}"),
        }
    }
}

/// A connected slave as its last report shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Follower {
    /// Who it is.
    pub(crate) id: SlaveId,
    /// Where it connects from.
    pub(crate) remote: SocketAddr,
    /// Up to where it has our log, by its own word.
    pub(crate) reported: u64,
    /// Since when it was not at the log's end, ms since 1970; `None` while it is.
    pub(crate) behind_since: Option<i64>,
}

/// A slave whose log is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DivergedSlave {
    /// Where it connected from last.
    pub(crate) remote: SocketAddr,
    /// The first offset that the two logs do not share.
    pub(crate) at: u64,
    /// In words.
    pub(crate) reason: Refused,
}

#[derive(Debug, Default)]
struct State {
    connected: BTreeMap<SocketAddr, Follower>,
    /// The furthest that each slave has acknowledged, also when it has gone: what it has is there.
    held: BTreeMap<SlaveId, u64>,
    diverged: BTreeMap<SlaveId, DivergedSlave>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Followers {
    state: Mutex<State>,
    /// What the slaves hold, the furthest first.
    furthest: watch::Sender<Vec<u64>>,
}

impl Default for Followers {
    fn default() -> Self {
        Self { state: Mutex::default(), furthest: watch::Sender::new(Vec::new()) }
    }
}

impl Followers {
    /// Takes what a connected slave told; `end` is where our log ends, `now` the clock in ms.
    pub(crate) fn told(&self, remote: SocketAddr, told: Told, end: u64, now: i64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let unknown = SlaveId::Host(remote.ip());
        match told {
            Told::Begins { asked: reported, .. } => {
                let behind_since = (reported < end).then_some(now);
                state.connected.insert(remote, Follower { id: unknown, remote, reported, behind_since });
            }
            Told::Identity(id) => {
                if let Some(follower) = state.connected.get_mut(&remote) {
                    follower.id = SlaveId::Broker(id);
                }
            }
            Told::Holds(position) => {
                let Some(follower) = state.connected.get_mut(&remote) else { return };
                follower.reported = position;
                follower.behind_since = (position < end).then(|| follower.behind_since.unwrap_or(now));
                let id = follower.id;
                if state.diverged.get(&id).is_some_and(|diverged| position > diverged.at) {
                    state.diverged.remove(&id);
                    tracing::info!("slave {id} at /{remote} follows again: it has our log up to {position}");
                }
                let held = state.held.entry(id).or_default();
                if position > *held {
                    *held = position;
                    let mut furthest: Vec<u64> = state.held.values().copied().collect();
                    furthest.sort_unstable_by(|a, b| b.cmp(a));
                    self.furthest.send_replace(furthest);
                    state.forget_some();
                }
            }
            Told::Nothing => {}
        }
    }

    /// Notes why a slave was refused; says whether that is news about its log.
    pub(crate) fn refused(&self, remote: SocketAddr, reason: &Refused) -> bool {
        let Some(at) = reason.divergence() else { return false };
        let mut state = self.state.lock();
        let id = state.connected.get(&remote).map_or(SlaveId::Host(remote.ip()), |follower| follower.id);
        let known = state.diverged.insert(id, DivergedSlave { remote, at, reason: reason.clone() });
        while state.diverged.len() > REMEMBERED {
            state.diverged.pop_last();
        }
        known.is_none_or(|known| known.reason != *reason)
    }

    /// A connection has ended.
    pub(crate) fn left(&self, remote: SocketAddr) {
        self.state.lock().connected.remove(&remote);
    }

    /// Whether a slave that was ahead of us, and could not say who it is, ended there.
    pub(crate) fn suspect(&self, host: IpAddr, position: u64) -> Option<Refused> {
        let state = self.state.lock();
        let diverged = state.diverged.get(&SlaveId::Host(host))?;
        matches!(diverged.reason, Refused::Ahead { slave, .. } if slave == position).then(|| diverged.reason.clone())
    }

    /// Up to where at least `slaves` slaves have the log; it changes with every acknowledgement.
    pub(crate) fn furthest(&self) -> watch::Receiver<Vec<u64>> {
        self.furthest.subscribe()
    }

    /// Up to where at least `slaves` slaves have acknowledged the log.
    pub(crate) fn held_by(&self, slaves: usize) -> u64 {
        held_by(&self.furthest.borrow(), slaves)
    }

    /// Slaves that are connected, follow our log, and are less than `lag_max` bytes before `end`.
    pub(crate) fn near(&self, end: u64, lag_max: u64) -> usize {
        let state = self.state.lock();
        let near = |follower: &&Follower| {
            end.saturating_sub(follower.reported) < lag_max && !state.diverged.contains_key(&follower.id)
        };
        let mut ids: Vec<SlaveId> = state.connected.values().filter(near).map(|follower| follower.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    /// All connected slaves that have reported.
    pub(crate) fn connected(&self) -> Vec<Follower> {
        self.state.lock().connected.values().copied().collect()
    }

    /// Slaves whose log is not ours.
    pub(crate) fn diverged(&self) -> Vec<(SlaveId, DivergedSlave)> {
        self.state.lock().diverged.iter().map(|(id, diverged)| (*id, diverged.clone())).collect()
    }
}

impl State {
    /// Those that hold least of those that have gone.
    fn forget_some(&mut self) {
        while self.held.len() > REMEMBERED {
            let is_here = |id: &SlaveId| self.connected.values().any(|follower| follower.id == *id);
            let least = self.held.iter().filter(|(id, _)| !is_here(id)).min_by_key(|(_, held)| **held);
            let Some(least) = least.map(|(id, _)| *id) else { return };
            self.held.remove(&least);
        }
    }
}

/// Up to where `slaves` of them have it, by what each has, the furthest first; everything where none is asked for.
pub(crate) fn held_by(furthest: &[u64], slaves: usize) -> u64 {
    match slaves.checked_sub(1) {
        Some(last) => furthest.get(last).copied().unwrap_or(0),
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    fn begins(followers: &Followers, remote: SocketAddr) {
        followers.told(remote, Told::Begins { asked: 1, start: 1 }, 100, 0);
    }

    #[test]
    fn a_slave_that_comes_back_counts_once() {
        let followers = Followers::default();
        for port in [1, 2, 3] {
            begins(&followers, remote(1, port));
            followers.told(remote(1, port), Told::Identity(7), 100, 0);
            followers.told(remote(1, port), Told::Holds(50), 100, 0);
        }
        assert_eq!((followers.held_by(1), followers.held_by(2)), (50, 0));
        assert_eq!(followers.near(100, 60), 1);
        // Another one on the same host says that it is another one; a Java slave cannot, and counts with its host.
        begins(&followers, remote(1, 4));
        followers.told(remote(1, 4), Told::Identity(8), 100, 0);
        followers.told(remote(1, 4), Told::Holds(40), 100, 0);
        assert_eq!((followers.held_by(2), followers.held_by(3)), (40, 0));
        for port in [1, 2] {
            begins(&followers, remote(2, port));
            followers.told(remote(2, port), Told::Holds(30), 100, 0);
        }
        assert_eq!((followers.held_by(3), followers.held_by(4)), (30, 0));
        assert_eq!(followers.held_by(0), u64::MAX);
    }

    #[test]
    fn what_is_held_stays_so_when_the_slave_goes_or_goes_back() {
        let followers = Followers::default();
        begins(&followers, remote(1, 1));
        followers.told(remote(1, 1), Told::Holds(50), 100, 0);
        followers.told(remote(1, 1), Told::Holds(20), 100, 0);
        followers.left(remote(1, 1));
        assert_eq!((followers.held_by(1), followers.near(100, 1000)), (50, 0));
    }

    #[test]
    fn a_slave_with_another_log_does_not_count_until_it_has_followed_past_the_difference() {
        let followers = Followers::default();
        begins(&followers, remote(1, 1));
        followers.told(remote(1, 1), Told::Identity(7), 100, 0);
        assert!(followers.refused(remote(1, 1), &Refused::Diverged { at: 60 }));
        assert!(!followers.refused(remote(1, 1), &Refused::Diverged { at: 60 }), "no news");
        assert_eq!(followers.near(100, 1000), 0);
        followers.left(remote(1, 1));
        begins(&followers, remote(1, 2));
        followers.told(remote(1, 2), Told::Identity(7), 100, 0);
        followers.told(remote(1, 2), Told::Holds(60), 100, 0);
        assert_eq!((followers.near(100, 1000), followers.diverged().len()), (0, 1));
        followers.told(remote(1, 2), Told::Holds(61), 100, 0);
        assert_eq!((followers.near(100, 1000), followers.diverged().len()), (1, 0));
    }

    #[test]
    fn strangers_fill_no_memory() {
        let followers = Followers::default();
        for n in 0..2000_u32 {
            let stranger = SocketAddr::new(IpAddr::from(n.to_be_bytes()), 1);
            begins(&followers, stranger);
            followers.told(stranger, Told::Holds(u64::from(n)), 10_000, 0);
            followers.refused(stranger, &Refused::Ahead { slave: 9, master: 8 });
            followers.left(stranger);
        }
        let state = followers.state.lock();
        assert!(state.held.len() <= REMEMBERED + 1 && state.diverged.len() <= REMEMBERED);
    }
}
