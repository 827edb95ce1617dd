//! The consumers that are connected, and what their groups subscribe to (`ConsumerManager` in Java).
//!
//! Says what changed and tells the members of a group when asked to; whether they are to be told
//! is for the handlers, who know the settings. A pull looks its group up by a read lock that is
//! held only for the look-up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rocketmq_remoting::bodies::{
    ConsumeFromWhere, ConsumeType, ConsumerConnection, ConsumerData, MessageModel, SubscriptionData,
};
use rocketmq_remoting::header::broker::ConsumerGroupRequest;
use rocketmq_remoting::{Command, RequestCode};

use crate::client_channel::ClientChannel;

/// What a group is at present; replaced as a whole by a heartbeat that changes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupState {
    /// Push or pull.
    pub(crate) consume_type: ConsumeType,
    /// Clustering or broadcasting.
    pub(crate) message_model: MessageModel,
    /// Where the group begins.
    pub(crate) consume_from_where: ConsumeFromWhere,
    /// By topic.
    pub(crate) subscriptions: BTreeMap<String, Arc<SubscriptionData>>,
    /// The members, by connection.
    pub(crate) channels: BTreeMap<u64, Arc<ClientChannel>>,
}

/// A snapshot of a group.
pub(crate) type Group = Arc<GroupState>;

/// Consumer groups and their members.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    groups: RwLock<HashMap<String, Group>>,
    /// Groups of each connection, so that its end costs no walk over all groups. Locked before
    /// `groups`, and by all who change either.
    connections: Mutex<HashMap<u64, BTreeSet<String>>>,
}

impl Consumers {
    /// Takes over what a member's heartbeat says of one group. True where the members should
    /// rebalance: a member is new or has another name, or a topic came or went.
    pub(crate) fn register(&self, data: ConsumerData, channel: ClientChannel, now_ms: i64) -> bool {
        let id = channel.peer.id();
        let mut connections = self.connections.lock();
        // Under the lock: who is not closed here is removed later by `disconnected`.
        if channel.peer.is_closed() {
            return false;
        }
        connections.entry(id).or_default().insert(data.group_name.clone());
        let known = self.group(&data.group_name);
        let member = known.as_ref().and_then(|group| group.channels.get(&id));
        if let (Some(group), Some(member)) = (&known, member)
            && member.client_id == channel.client_id
            && group.is_as(&data)
        {
            member.heard_at(now_ms);
            return false;
        }
        let mut group = known.as_deref().cloned().unwrap_or_default();
        let is_new = group.join(&data.group_name, channel, now_ms);
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from_where = data.consume_from_where;
        let is_changed = group.subscribe(&data.group_name, data.subscription_data_set);
        self.groups.write().insert(data.group_name, Arc::new(group));
        is_new || is_changed
    }

    /// Removes a member. True where the others should rebalance.
    pub(crate) fn unregister(&self, group: &str, peer_id: u64) -> bool {
        let mut connections = self.connections.lock();
        if let Some(groups) = connections.get_mut(&peer_id) {
            groups.remove(group);
            if groups.is_empty() {
                connections.remove(&peer_id);
            }
        }
        self.leave(group, peer_id)
    }

    /// Removes a connection from all its groups, and says which they were.
    pub(crate) fn disconnected(&self, peer_id: u64) -> Vec<String> {
        let mut connections = self.connections.lock();
        let mut groups: Vec<String> = connections.remove(&peer_id).unwrap_or_default().into_iter().collect();
        groups.retain(|group| self.leave(group, peer_id));
        groups
    }

    /// Closes the connections of members that are silent too long; the end of each connection then
    /// removes it from its groups, and the others hear of it.
    pub(crate) fn expire(&self, now_ms: i64) {
        for (name, group) in &*self.groups.read() {
            for channel in group.channels.values().filter(|channel| channel.is_silent(now_ms)) {
                tracing::warn!(group = name, client = %channel.client_id, "a silent consumer is closed");
                channel.peer.close();
            }
        }
    }

    /// The group as it is now; `None` where it has no member.
    pub(crate) fn group(&self, group: &str) -> Option<Group> {
        self.groups.read().get(group).cloned()
    }

    /// What a group wants of a topic.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>> {
        self.groups.read().get(group)?.subscriptions.get(topic).cloned()
    }

    /// The connection of a group's member by its name.
    pub(crate) fn find(&self, group: &str, client_id: &str) -> Option<Arc<ClientChannel>> {
        let group = self.group(group)?;
        group.channels.values().find(|channel| &*channel.client_id == client_id).cloned()
    }

    /// The groups whose members subscribe to a topic.
    pub(crate) fn groups_of_topic(&self, topic: &str) -> BTreeSet<String> {
        let groups = self.groups.read();
        groups
            .iter()
            .filter(|(_, group)| group.subscriptions.contains_key(topic))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Distinct connections that consume.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Tells every member of a group to rebalance (`NOTIFY_CONSUMER_IDS_CHANGED`).
    pub(crate) fn notify(&self, group: &str) {
        let Some(members) = self.group(group) else { return };
        let header = ConsumerGroupRequest { consumer_group: group.into() };
        let notice = Command::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED).with_header(&header);
        for channel in members.channels.values() {
            if let Err(error) = channel.peer.oneway(notice.clone()) {
                tracing::warn!(group, client = %channel.client_id, %error, "a consumer does not hear that its group changed");
            }
        }
    }

    /// Takes a member out of a group, and the group away with its last one.
    fn leave(&self, name: &str, peer_id: u64) -> bool {
        let mut groups = self.groups.write();
        let Some(group) = groups.get_mut(name) else { return false };
        let Some(channel) = Arc::make_mut(group).channels.remove(&peer_id) else { return false };
        tracing::info!(group = name, client = %channel.client_id, peer = %channel.peer.remote(), "consumer removed");
        if group.channels.is_empty() {
            groups.remove(name);
        }
        true
    }
}

impl GroupState {
    /// The client ids of the members.
    pub(crate) fn client_ids(&self) -> Vec<String> {
        self.channels.values().map(|channel| channel.client_id.to_string()).collect()
    }

    /// The form in which tools ask for it.
    pub(crate) fn connection(&self) -> ConsumerConnection {
        let subscriptions = self.subscriptions.iter();
        ConsumerConnection {
            connection_set: self.channels.values().map(|channel| channel.connection()).collect(),
            consume_from_where: self.consume_from_where,
            consume_type: self.consume_type,
            message_model: self.message_model,
            subscription_table: subscriptions.map(|(topic, data)| (topic.clone(), (**data).clone())).collect(),
        }
    }

    /// Whether a heartbeat says nothing new.
    fn is_as(&self, data: &ConsumerData) -> bool {
        let topics: BTreeSet<&str> = data.subscription_data_set.iter().map(|wanted| wanted.topic.as_str()).collect();
        self.consume_type == data.consume_type
            && self.message_model == data.message_model
            && self.consume_from_where == data.consume_from_where
            && self.subscriptions.keys().map(String::as_str).eq(topics)
            && data.subscription_data_set.iter().all(|wanted| {
                self.subscriptions.get(&wanted.topic).is_some_and(|known| known.sub_version >= wanted.sub_version)
            })
    }

    /// Adds a member; true where it is new or has a new name.
    fn join(&mut self, group: &str, channel: ClientChannel, now_ms: i64) -> bool {
        let known = self.channels.get(&channel.peer.id());
        if let Some(known) = known.filter(|known| known.client_id == channel.client_id) {
            known.heard_at(now_ms);
            return false;
        }
        tracing::info!(group, client = %channel.client_id, peer = %channel.peer.remote(), "new consumer connected");
        self.channels.insert(channel.peer.id(), Arc::new(channel));
        true
    }

    /// Takes over a member's subscriptions: newer ones replace older ones of the same topic, and
    /// topics that it does not name are dropped. True where a topic came or went.
    fn subscribe(&mut self, group: &str, wanted: Vec<SubscriptionData>) -> bool {
        let mut is_changed = false;
        let topics: BTreeSet<String> = wanted.iter().map(|data| data.topic.clone()).collect();
        for data in wanted {
            let known = self.subscriptions.get(&data.topic);
            if known.is_none() {
                tracing::info!(group, topic = data.topic, expression = data.sub_string, "a topic is subscribed");
                is_changed = true;
            }
            if known.is_none_or(|known| data.sub_version > known.sub_version) {
                self.subscriptions.insert(data.topic.clone(), Arc::new(data));
            }
        }
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| topics.contains(topic));
        is_changed || self.subscriptions.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_channel::testing::{Connected, Harness};
    use std::time::Duration;

    fn wants(topics: &[(&str, i64)]) -> ConsumerData {
        let subscribe = |(topic, version): &(&str, i64)| SubscriptionData {
            topic: (*topic).into(),
            sub_version: *version,
            sub_string: format!("v{version}"),
            ..SubscriptionData::default()
        };
        ConsumerData {
            group_name: "g".into(),
            subscription_data_set: topics.iter().map(subscribe).collect(),
            ..ConsumerData::default()
        }
    }

    fn channel(connected: &Connected, client_id: &str) -> ClientChannel {
        ClientChannel::new(&connected.peer, client_id, &Command::default(), 0)
    }

    #[tokio::test]
    async fn a_group_changes_with_members_and_topics_and_not_with_versions() {
        let harness = Harness::start();
        let (one, two) = (harness.connect().await, harness.connect().await);
        let consumers = Consumers::default();
        assert!(consumers.register(wants(&[("T", 1)]), channel(&one, "a"), 0), "the first member");
        assert!(!consumers.register(wants(&[("T", 1)]), channel(&one, "a"), 1), "the same again");
        assert!(consumers.register(wants(&[("T", 1)]), channel(&two, "b"), 2), "one more member");
        assert!(!consumers.register(wants(&[("T", 5)]), channel(&one, "a"), 3), "a newer expression");
        assert_eq!(consumers.subscription("g", "T").unwrap().sub_string, "v5");
        assert!(!consumers.register(wants(&[("T", 4)]), channel(&two, "b"), 4), "an older expression");
        assert_eq!(consumers.subscription("g", "T").unwrap().sub_string, "v5");
        assert!(consumers.register(wants(&[("T", 5), ("U", 1)]), channel(&one, "a"), 5), "one more topic");
        assert_eq!(consumers.groups_of_topic("U"), BTreeSet::from(["g".to_owned()]));
        assert!(consumers.register(wants(&[("T", 5)]), channel(&two, "b"), 6), "one topic less");
        assert!(consumers.subscription("g", "U").is_none());
        assert!(consumers.register(wants(&[("T", 5)]), channel(&two, "c"), 7), "another name");
        assert_eq!(consumers.group("g").unwrap().client_ids(), ["a", "c"]);
        let silent = consumers.group("g").unwrap().channels[&one.peer.id()].is_silent(120_006);
        assert!(silent, "heard last at 5");
    }

    #[tokio::test]
    async fn a_member_goes_with_its_connection_and_the_group_with_its_last_member() {
        let harness = Harness::start();
        let (one, two) = (harness.connect().await, harness.connect().await);
        let consumers = Consumers::default();
        consumers.register(wants(&[("T", 1)]), channel(&one, "a"), 0);
        consumers.register(wants(&[("T", 1)]), channel(&two, "b"), 0);
        assert_eq!(consumers.disconnected(one.peer.id()), ["g"]);
        assert_eq!(consumers.disconnected(one.peer.id()), Vec::<String>::new());
        assert!(consumers.find("g", "a").is_none());
        assert!(consumers.unregister("g", two.peer.id()));
        assert!(!consumers.unregister("g", two.peer.id()));
        assert!(consumers.group("g").is_none());
        assert_eq!(consumers.connection_count(), 0);
    }

    #[tokio::test]
    async fn all_members_are_told_and_the_newcomer_too() {
        let harness = Harness::start();
        let (one, two) = (harness.connect().await, harness.connect().await);
        let consumers = Consumers::default();
        consumers.register(wants(&[("T", 1)]), channel(&one, "a"), 0);
        consumers.register(wants(&[("T", 1)]), channel(&two, "b"), 0);
        consumers.notify("g");
        for connected in [&one, &two] {
            tokio::time::timeout(Duration::from_secs(5), async {
                while connected.inbox.0.lock().is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
            let notice = connected.inbox.0.lock().pop().unwrap();
            assert_eq!(notice.request_code(), RequestCode::NOTIFY_CONSUMER_IDS_CHANGED);
            assert!(notice.is_oneway());
            assert_eq!(notice.ext_fields.get("consumerGroup").unwrap(), "g");
        }
    }

    #[tokio::test]
    async fn silent_members_are_closed() {
        let harness = Harness::start();
        let (one, two) = (harness.connect().await, harness.connect().await);
        let consumers = Consumers::default();
        consumers.register(wants(&[("T", 1)]), channel(&one, "a"), 0);
        consumers.register(wants(&[("T", 1)]), channel(&two, "b"), 0);
        consumers.register(wants(&[("T", 1)]), channel(&two, "b"), 60_000);
        consumers.expire(120_001);
        assert!(one.peer.is_closed());
        assert!(!two.peer.is_closed());
    }
}
