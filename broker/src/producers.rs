//! The producers that are connected (`ProducerManager` in Java).
//!
//! Knows groups and connections. Sends nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rocketmq_remoting::bodies::Connection;

use crate::client_channel::ClientChannel;

/// Channels of a group, by connection.
type Channels = BTreeMap<u64, Arc<ClientChannel>>;

/// Producer groups and their members.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    state: Mutex<State>,
    /// How often a member was asked for.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<String, Channels>,
    /// Groups of each connection, so that its end costs no walk over all groups.
    connections: HashMap<u64, Vec<String>>,
    /// Memberships of each client, the newest last, so that a reply finds its asker at once.
    clients: HashMap<Box<str>, Vec<Arc<ClientChannel>>>,
}

impl Producers {
    /// Adds a member, or notes its heartbeat.
    pub(crate) fn register(&self, group: &str, channel: ClientChannel, now_ms: i64) {
        let id = channel.peer.id();
        let mut state = self.state.lock();
        let state = &mut *state;
        // Under the lock: who is not closed here is removed later by `disconnected`.
        if channel.peer.is_closed() {
            return;
        }
        if let Some(known) = state.groups.get(group).and_then(|channels| channels.get(&id))
            && known.client_id == channel.client_id
        {
            known.heard_at(now_ms);
            return;
        }
        tracing::info!(group, client = %channel.client_id, peer = %channel.peer.remote(), "new producer connected");
        let groups = state.connections.entry(id).or_default();
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
        let channel = Arc::new(channel);
        state.clients.entry(channel.client_id.clone()).or_default().push(Arc::clone(&channel));
        if let Some(renamed) = state.groups.entry(group.to_owned()).or_default().insert(id, channel) {
            state.forget_client(&renamed);
        }
    }

    /// The newest connection of the client of that name, in whatever group (Java's `findChannel`).
    pub(crate) fn find(&self, client_id: &str) -> Option<Arc<ClientChannel>> {
        self.state.lock().clients.get(client_id)?.last().cloned()
    }

    /// Removes a member, whether or not it is there.
    pub(crate) fn unregister(&self, group: &str, peer_id: u64) {
        self.state.lock().remove(group, peer_id);
    }

    /// Removes a connection from all its groups.
    pub(crate) fn disconnected(&self, peer_id: u64) {
        let mut state = self.state.lock();
        for group in state.connections.remove(&peer_id).unwrap_or_default() {
            state.remove(&group, peer_id);
        }
    }

    /// Removes the members that are silent too long, and closes their connections.
    pub(crate) fn expire(&self, now_ms: i64) {
        let mut state = self.state.lock();
        let silent: Vec<(String, Arc<ClientChannel>)> = state
            .groups
            .iter()
            .flat_map(|(group, channels)| channels.values().map(move |channel| (group, channel)))
            .filter(|(_, channel)| channel.is_silent(now_ms))
            .map(|(group, channel)| (group.clone(), Arc::clone(channel)))
            .collect();
        for (group, channel) in silent {
            tracing::warn!(group, client = %channel.client_id, "a silent producer is removed");
            state.remove(&group, channel.peer.id());
            channel.peer.close();
        }
    }

    /// The members of a group; `None` where there is none.
    pub(crate) fn connections(&self, group: &str) -> Option<Vec<Connection>> {
        let state = self.state.lock();
        state.groups.get(group).map(|channels| channels.values().map(|channel| channel.connection()).collect())
    }

    /// A connected member of a group, another one each time.
    pub(crate) fn next_member(&self, group: &str) -> Option<Arc<ClientChannel>> {
        let state = self.state.lock();
        let open =
            || state.groups.get(group).into_iter().flat_map(BTreeMap::values).filter(|one| !one.peer.is_closed());
        let count = open().count().max(1);
        open().nth(self.turn.fetch_add(1, Ordering::Relaxed) % count).cloned()
    }

    /// All groups with their members.
    pub(crate) fn all(&self) -> BTreeMap<String, Vec<Arc<ClientChannel>>> {
        let state = self.state.lock();
        state.groups.iter().map(|(group, channels)| (group.clone(), channels.values().cloned().collect())).collect()
    }

    /// Distinct connections that produce.
    pub(crate) fn connection_count(&self) -> usize {
        self.state.lock().connections.len()
    }
}

impl State {
    fn remove(&mut self, group: &str, peer_id: u64) {
        if let Some(groups) = self.connections.get_mut(&peer_id) {
            groups.retain(|known| known != group);
            if groups.is_empty() {
                self.connections.remove(&peer_id);
            }
        }
        let Some(channels) = self.groups.get_mut(group) else { return };
        let removed = channels.remove(&peer_id);
        if channels.is_empty() {
            self.groups.remove(group);
        }
        if let Some(channel) = removed {
            tracing::info!(group, client = %channel.client_id, peer = %channel.peer.remote(), "producer removed");
            self.forget_client(&channel);
        }
    }

    fn forget_client(&mut self, channel: &Arc<ClientChannel>) {
        let Some(known) = self.clients.get_mut(&channel.client_id) else { return };
        known.retain(|one| !Arc::ptr_eq(one, channel));
        if known.is_empty() {
            self.clients.remove(&channel.client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_channel::testing::{Connected, Harness};
    use rocketmq_remoting::Command;

    fn channel(connected: &Connected, client_id: &str, now_ms: i64) -> ClientChannel {
        ClientChannel::new(&connected.peer, client_id, &Command::default(), now_ms)
    }

    #[tokio::test]
    async fn members_go_with_their_connection() {
        let harness = Harness::start();
        let (one, two) = (harness.connect().await, harness.connect().await);
        let producers = Producers::default();
        producers.register("g", channel(&one, "a", 0), 0);
        producers.register("g", channel(&two, "b", 0), 0);
        producers.register("h", channel(&one, "a", 0), 0);
        assert_eq!(producers.connections("g").unwrap().len(), 2);
        producers.disconnected(one.peer.id());
        assert!(producers.connections("h").is_none());
        assert_eq!(producers.connections("g").unwrap().len(), 1);
        producers.unregister("g", two.peer.id());
        assert!(producers.connections("g").is_none());
        assert_eq!(producers.connection_count(), 0);
    }

    #[tokio::test]
    async fn a_client_is_found_by_name_while_it_is_in_any_group() {
        let harness = Harness::start();
        let (one, two) = (harness.connect().await, harness.connect().await);
        let producers = Producers::default();
        producers.register("g", channel(&one, "a", 0), 0);
        producers.register("h", channel(&one, "a", 0), 0);
        producers.register("g", channel(&two, "a", 0), 0);
        assert_eq!(producers.find("a").unwrap().peer.id(), two.peer.id(), "the newest");
        producers.unregister("g", two.peer.id());
        producers.unregister("g", one.peer.id());
        assert_eq!(producers.find("a").unwrap().peer.id(), one.peer.id(), "it is still in h");
        producers.register("h", channel(&one, "b", 0), 0);
        assert!(producers.find("a").is_none(), "the client is called b now");
        producers.disconnected(one.peer.id());
        assert!(producers.find("b").is_none());
        assert!(producers.state.lock().clients.is_empty());
    }

    #[tokio::test]
    async fn silent_members_are_closed() {
        let harness = Harness::start();
        let (one, two) = (harness.connect().await, harness.connect().await);
        let producers = Producers::default();
        producers.register("g", channel(&one, "a", 0), 0);
        producers.register("g", channel(&two, "b", 0), 0);
        producers.register("g", channel(&two, "b", 0), 60_000);
        producers.expire(120_001);
        assert!(one.peer.is_closed());
        assert!(!two.peer.is_closed());
        assert_eq!(producers.connections("g").unwrap()[0].client_id, "b");
    }

    #[tokio::test]
    async fn a_connection_that_ended_cannot_register() {
        let harness = Harness::start();
        let one = harness.connect().await;
        one.peer.close();
        let producers = Producers::default();
        producers.register("g", channel(&one, "a", 0), 0);
        assert!(producers.connections("g").is_none());
    }
}
