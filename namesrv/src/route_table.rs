//! Which broker is alive, where it is, and what it serves. Pure: no I/O, and time is passed in.
//!
//! Everything hangs on one table: broker groups by name, their members by id. A member's address
//! stands in one place only, and clusters are read off the members, so that there is nothing that
//! could drift apart. Lookups for clients stand in `views`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use rocketmq_remoting::bodies::{DataVersion, PERM_READ, PERM_WRITE, QueueData, RegisterBroker, TopicConfig};

mod views;

pub use views::UnitTopics;

/// The id of a master.
pub const MASTER_ID: i64 = 0;
/// How long a broker may stay silent that does not say so itself.
pub const EXPIRY_DEFAULT: Duration = Duration::from_mins(2);

/// One registration, as it came.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The broker's cluster.
    pub cluster: String,
    /// The group it belongs to.
    pub broker_name: String,
    /// Its place in the group; 0 is the master.
    pub broker_id: i64,
    /// `host:port` where clients find it.
    pub addr: String,
    /// `host:port` where its slaves find it.
    pub ha_addr: String,
    /// How long it may stay silent.
    pub expiry: Duration,
    /// 5.x: whether a slave may stand in for the master; `None` from older brokers.
    pub acting_master: Option<bool>,
    /// The connection it came on.
    pub peer: u64,
    /// What it serves.
    pub body: RegisterBroker,
}

/// What a registration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Another member with a newer state (5.x `stateVersion`) holds the place: nothing was done.
    pub superseded: bool,
    /// The address was not at that place before.
    pub new_broker: bool,
    /// Topics that no broker served before.
    pub new_topics: Vec<(String, QueueData)>,
    /// For a slave whose master is there: the master's address, and that for its slaves.
    pub master: Option<(String, String)>,
}

/// A member that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its group.
    pub broker_name: String,
    /// Its id.
    pub broker_id: i64,
    /// Its address.
    pub addr: String,
    /// How long it could stay silent.
    pub expiry: Duration,
}

/// A broker's address, which is unique within its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// The cluster.
    pub cluster: String,
    /// `host:port`.
    pub addr: String,
}

/// One broker of a group.
#[derive(Clone, Debug)]
struct Member {
    address: BrokerAddress,
    ha_addr: String,
    data_version: DataVersion,
    last_update: Instant,
    expiry: Duration,
    peer: u64,
    acting_master: bool,
    filter_servers: Vec<String>,
}

/// A broker's group, and its id there.
type Place = (String, i64);

/// Brokers, clusters, topics.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Members by id, by broker name. No group is empty.
    groups: BTreeMap<String, BTreeMap<i64, Member>>,
    /// Where each address stands; exactly one entry a member.
    places: HashMap<BrokerAddress, Place>,
    /// Queues by broker name, by topic. No topic is empty.
    topics: HashMap<String, BTreeMap<String, QueueData>>,
}

impl RouteTable {
    /// Takes in a broker, or hears from it again.
    ///
    /// Topics are merged, as brokers send single ones after a change: those that the body does not
    /// name stay, unless `delete_absent_topics`. A topic that is there already is replaced only if
    /// the broker's data version has changed, which is how wiped permissions last.
    pub fn register(&mut self, registration: Registration, delete_absent_topics: bool, now: Instant) -> Registered {
        let Registration { cluster, broker_name, broker_id, addr, ha_addr, expiry, acting_master, peer, body } =
            registration;
        let topics = body.topic_config_serialize_wrapper.topic_config_table;
        let version = body.topic_config_serialize_wrapper.data_version;
        let address = BrokerAddress { cluster, addr };
        let place = (broker_name, broker_id);

        let before = self.groups.get(&place.0).and_then(|group| group.get(&broker_id));
        let before = before.map(|member| (member.address.clone(), member.data_version.clone()));
        let known_version = match &before {
            Some((there, known)) if *there == address => Some(known),
            Some((_, known)) if known.state_version > version.state_version => {
                return Registered { superseded: true, ..Registered::default() };
            }
            _ => None,
        };
        let new_broker = known_version.is_none();
        let changed = known_version != Some(&version);
        // A new broker with a single topic is one whose change came before its whole table: what
        // it has beside is not known, so its next registration must count as changed.
        let partial = new_broker && topics.len() == 1;
        let member = Member {
            address: address.clone(),
            ha_addr,
            data_version: if partial { DataVersion::default() } else { version },
            last_update: now,
            expiry,
            peer,
            acting_master: acting_master.unwrap_or(false),
            filter_servers: body.filter_server_list,
        };
        self.settle(place.clone(), member);
        if let Some((there, _)) = before
            && there != address
        {
            self.places.remove(&there);
        }

        let mut registered = Registered { new_broker, ..Registered::default() };
        let (broker_name, _) = place;
        let is_first = self.groups.get(&broker_name).and_then(|group| group.keys().next()) == Some(&broker_id);
        if broker_id == MASTER_ID || (acting_master.is_some() && is_first) {
            // A slave that speaks for its group does not take messages.
            let perm_mask = if broker_id != MASTER_ID && acting_master == Some(true) { !PERM_WRITE } else { !0 };
            if delete_absent_topics && changed && topics.len() != 1 {
                self.drop_topics_of(&broker_name, |topic| !topics.contains_key(topic));
            }
            registered.new_topics = self.merge_topics(&broker_name, topics, changed, perm_mask);
        }
        if broker_id != MASTER_ID {
            let master = self.groups.get(&broker_name).and_then(|group| group.get(&MASTER_ID));
            registered.master = master.map(|master| (master.address.addr.clone(), master.ha_addr.clone()));
        }
        registered
    }

    /// Puts a member at its place, and takes it away from where its address stood before.
    fn settle(&mut self, place: Place, member: Member) {
        let moved_from = self.places.insert(member.address.clone(), place.clone()).filter(|old| *old != place);
        if let Some((name, id)) = &moved_from
            && let Some(group) = self.groups.get_mut(name)
        {
            group.remove(id);
        }
        self.groups.entry(place.0).or_default().insert(place.1, member);
        // Only now: a group whose one member changes its id keeps its topics.
        if let Some((name, _)) = moved_from {
            self.prune(&name);
        }
    }

    fn merge_topics(
        &mut self,
        broker_name: &str,
        topics: BTreeMap<String, TopicConfig>,
        changed: bool,
        perm_mask: i32,
    ) -> Vec<(String, QueueData)> {
        let mut new_topics = Vec::new();
        for (topic, config) in topics {
            let queues = self.topics.entry(topic.clone()).or_default();
            if !changed && queues.contains_key(broker_name) {
                continue;
            }
            let data = QueueData {
                broker_name: broker_name.to_owned(),
                perm: config.perm & perm_mask,
                read_queue_nums: config.read_queue_nums,
                topic_sys_flag: config.topic_sys_flag,
                write_queue_nums: config.write_queue_nums,
            };
            if queues.is_empty() {
                new_topics.push((topic, data.clone()));
            }
            queues.insert(broker_name.to_owned(), data);
        }
        new_topics
    }

    /// A broker says that it leaves. Nothing happens if another one stands at that place by now.
    pub fn unregister(&mut self, address: &BrokerAddress, broker_name: &str, broker_id: i64) -> Option<Removed> {
        let (name, id) = self.places.get(address)?;
        if name != broker_name || *id != broker_id {
            return None;
        }
        self.remove(address)
    }

    /// Removes the brokers that were silent for too long.
    pub fn expire(&mut self, now: Instant) -> Vec<Removed> {
        self.remove_where(|member| now.saturating_duration_since(member.last_update) > member.expiry)
    }

    /// Removes the brokers that were last heard of on a connection that is closed now. Those that
    /// have registered on another one since stay.
    pub fn disconnected(&mut self, peer: u64) -> Vec<Removed> {
        self.remove_where(|member| member.peer == peer)
    }

    fn remove_where(&mut self, gone: impl Fn(&Member) -> bool) -> Vec<Removed> {
        let members = self.groups.values().flat_map(BTreeMap::values);
        let gone: Vec<BrokerAddress> =
            members.filter(|member| gone(member)).map(|member| member.address.clone()).collect();
        gone.iter().filter_map(|address| self.remove(address)).collect()
    }

    fn remove(&mut self, address: &BrokerAddress) -> Option<Removed> {
        let (broker_name, broker_id) = self.places.remove(address)?;
        let member = self.groups.get_mut(&broker_name)?.remove(&broker_id)?;
        self.prune(&broker_name);
        Some(Removed { broker_name, broker_id, addr: member.address.addr, expiry: member.expiry })
    }

    /// A group without members goes, and its queues with it.
    fn prune(&mut self, broker_name: &str) {
        if self.groups.get(broker_name).is_some_and(BTreeMap::is_empty) {
            self.groups.remove(broker_name);
            self.drop_topics_of(broker_name, |_| true);
        }
    }

    fn drop_topics_of(&mut self, broker_name: &str, gone: impl Fn(&str) -> bool) {
        self.topics.retain(|topic, queues| {
            if gone(topic) {
                queues.remove(broker_name);
            }
            !queues.is_empty()
        });
    }

    /// The data version of a broker that is alive.
    pub fn data_version(&self, address: &BrokerAddress) -> Option<&DataVersion> {
        self.member(address).map(|member| &member.data_version)
    }

    /// A broker gives a sign of life without registering.
    pub fn touch(&mut self, address: &BrokerAddress, now: Instant) {
        if let Some((name, id)) = self.places.get(address)
            && let Some(member) = self.groups.get_mut(name).and_then(|group| group.get_mut(id))
        {
            member.last_update = now;
        }
    }

    fn member(&self, address: &BrokerAddress) -> Option<&Member> {
        let (name, id) = self.places.get(address)?;
        self.groups.get(name)?.get(id)
    }

    /// Takes the permission to write from all topics of a broker, until it registers a change.
    /// Answers with the number of its topics.
    pub fn wipe_write_perm(&mut self, broker_name: &str) -> i32 {
        self.edit_perm(broker_name, |perm| perm & !PERM_WRITE)
    }

    /// Gives all topics of a broker the permissions to read and write, whatever they had before
    /// (Java: also those that were inheritable, or meant to be closed).
    pub fn add_write_perm(&mut self, broker_name: &str) -> i32 {
        self.edit_perm(broker_name, |_| PERM_READ | PERM_WRITE)
    }

    fn edit_perm(&mut self, broker_name: &str, edit: impl Fn(i32) -> i32) -> i32 {
        let mut count = 0;
        for data in self.topics.values_mut().filter_map(|queues| queues.get_mut(broker_name)) {
            data.perm = edit(data.perm);
            count += 1;
        }
        count
    }

    /// Forgets a topic, on the brokers of one cluster or on all.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(cluster) = cluster else {
            self.topics.remove(topic);
            return;
        };
        let brokers: HashSet<&String> =
            self.groups.iter().filter(|(_, group)| is_in(group, cluster)).map(|(name, _)| name).collect();
        if let Some(queues) = self.topics.get_mut(topic) {
            queues.retain(|broker, _| !brokers.contains(broker));
            if queues.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// Sets the queues of a topic on some brokers (5.x brokers, one topic at a time).
    ///
    /// # Errors
    /// A broker is not known, which is named; nothing has changed then.
    pub fn register_topic(&mut self, topic: &str, queues: Vec<QueueData>) -> Result<(), String> {
        if let Some(stranger) = queues.iter().find(|data| !self.groups.contains_key(&data.broker_name)) {
            return Err(stranger.broker_name.clone());
        }
        if !queues.is_empty() {
            let table = self.topics.entry(topic.to_owned()).or_default();
            table.extend(queues.into_iter().map(|data| (data.broker_name.clone(), data)));
        }
        Ok(())
    }
}

/// Whether a member of the group belongs to the cluster.
fn is_in(group: &BTreeMap<i64, Member>, cluster: &str) -> bool {
    group.values().any(|member| member.address.cluster == cluster)
}

#[cfg(test)]
mod tests;
