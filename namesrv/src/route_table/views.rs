//! What clients, tools and brokers ask of the route table. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use rocketmq_remoting::bodies::{
    BrokerData, BrokerMemberGroup, ClusterInfo, PERM_WRITE, QueueData, TopicList, TopicRoute,
};

use super::{MASTER_ID, Member, RouteTable, is_in};

/// 5.x: topics of this prefix are between the brokers of a group; nobody acts as master there.
const SYNC_MEMBER_TOPIC_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
/// `topicSysFlag`: a topic of a unit.
const FLAG_UNIT: i32 = 1;
/// `topicSysFlag`: subscribed to from a unit.
const FLAG_UNIT_SUB: i32 = 2;

/// Which topics of units are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitTopics {
    /// Those of units.
    Unit,
    /// Those subscribed to from units.
    HasUnitSub,
    /// Those subscribed to from units that are of no unit.
    HasUnitSubUnunit,
}

impl RouteTable {
    /// Where a topic lives; `None` if no broker that is alive serves it. With `acting_master`, a
    /// slave whose group has lost its master, and takes no messages, stands at the master's place.
    pub fn route(&self, topic: &str, acting_master: bool) -> Option<TopicRoute> {
        let queues = self.topics.get(topic)?;
        let mut route = TopicRoute { queue_datas: queues.values().cloned().collect(), ..TopicRoute::default() };
        for (broker_name, data) in queues {
            let Some(group) = self.groups.get(broker_name) else { continue };
            let mut broker = broker_data(broker_name, group);
            if acting_master && data.perm & PERM_WRITE == 0 && !topic.starts_with(SYNC_MEMBER_TOPIC_PREFIX) {
                promote(&mut broker, group);
            }
            route.broker_datas.push(broker);
            for member in group.values().filter(|member| !member.filter_servers.is_empty()) {
                route.filter_server_table.insert(member.address.addr.clone(), member.filter_servers.clone());
            }
        }
        (!route.broker_datas.is_empty()).then_some(route)
    }

    /// All brokers, and which cluster they are in.
    pub fn cluster_info(&self) -> ClusterInfo {
        let mut clusters: BTreeMap<String, BTreeSet<&String>> = BTreeMap::new();
        for (name, group) in &self.groups {
            for member in group.values() {
                clusters.entry(member.address.cluster.clone()).or_default().insert(name);
            }
        }
        ClusterInfo {
            broker_addr_table: self
                .groups
                .iter()
                .map(|(name, group)| (name.clone(), broker_data(name, group)))
                .collect(),
            cluster_addr_table: clusters
                .into_iter()
                .map(|(cluster, names)| (cluster, names.into_iter().cloned().collect()))
                .collect(),
        }
    }

    /// The members of one group; none if it is not known in that cluster.
    pub fn member_group(&self, cluster: &str, broker_name: &str) -> BrokerMemberGroup {
        let group = self.groups.get(broker_name).filter(|group| is_in(group, cluster));
        BrokerMemberGroup {
            broker_addrs: group.map(addresses).unwrap_or_default(),
            broker_name: broker_name.to_owned(),
            cluster: cluster.to_owned(),
        }
    }

    /// All topics.
    pub fn topics(&self) -> TopicList {
        self.topics_where(|_| true)
    }

    /// Topics that the brokers of a cluster serve.
    pub fn topics_of_cluster(&self, cluster: &str) -> TopicList {
        let in_cluster = |name: &String| self.groups.get(name).is_some_and(|group| is_in(group, cluster));
        self.topics_where(|queues| queues.keys().any(in_cluster))
    }

    /// Topics of units.
    pub fn unit_topics(&self, wanted: UnitTopics) -> TopicList {
        self.topics_where(|queues| {
            let flag = queues.values().next().map_or(0, |data| data.topic_sys_flag);
            match wanted {
                UnitTopics::Unit => flag & FLAG_UNIT != 0,
                UnitTopics::HasUnitSub => flag & FLAG_UNIT_SUB != 0,
                UnitTopics::HasUnitSubUnunit => flag & FLAG_UNIT == 0 && flag & FLAG_UNIT_SUB != 0,
            }
        })
    }

    /// The topics that each broker has without anybody's doing: named after clusters and brokers.
    /// One broker's address comes with them, for it knows the others.
    pub fn system_topics(&self) -> TopicList {
        let mut topic_list: Vec<String> = self.cluster_info().cluster_addr_table.into_keys().collect();
        topic_list.extend(self.groups.keys().cloned());
        let first = self.groups.values().flat_map(BTreeMap::values).next();
        TopicList { broker_addr: first.map(|member| member.address.addr.clone()), topic_list }
    }

    fn topics_where(&self, wanted: impl Fn(&BTreeMap<String, QueueData>) -> bool) -> TopicList {
        let mut topic_list: Vec<String> =
            self.topics.iter().filter(|(_, queues)| wanted(queues)).map(|(topic, _)| topic.clone()).collect();
        topic_list.sort_unstable();
        TopicList { broker_addr: None, topic_list }
    }
}

fn addresses(group: &BTreeMap<i64, Member>) -> BTreeMap<i64, String> {
    group.iter().map(|(id, member)| (*id, member.address.addr.clone())).collect()
}

fn broker_data(name: &str, group: &BTreeMap<i64, Member>) -> BrokerData {
    BrokerData {
        broker_addrs: addresses(group),
        broker_name: name.to_owned(),
        cluster: group.values().next().map(|member| member.address.cluster.clone()).unwrap_or_default(),
    }
}

/// Reports the smallest id as the master, if there is none and its group wants that.
fn promote(broker: &mut BrokerData, group: &BTreeMap<i64, Member>) {
    if !group.contains_key(&MASTER_ID)
        && let Some((id, member)) = group.first_key_value()
        && member.acting_master
    {
        broker.broker_addrs.remove(id);
        broker.broker_addrs.insert(MASTER_ID, member.address.addr.clone());
    }
}
