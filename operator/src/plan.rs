//! The plan: what a cluster shall consist of, what to do next, and what to say about it. Pure.
//!
//! Everything known of the world comes in by [`Observed`], the clock included, so that any state of a cluster can be
//! tried in a test. The same plan is walked on Kubernetes and on one machine.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::build::broker::{self, Role, group_name};
use crate::build::labels::{self, BROKER};
use crate::build::{self, Object, namesrv};
use crate::conditions::{self, Wanted};
use crate::crd::{GroupState, GroupStatus, RocketMQClusterStatus};
use crate::topics::{self, Missing, Tables};
use crate::validate::{Invalid, ValidatedCluster};

/// What was seen of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Pods the live stateful set of masters asks for; none when there is no such set.
    pub masters: Option<i32>,
    /// The same for each live stateful set of slaves, by slave index.
    pub slaves: BTreeMap<i32, i32>,
    /// Names of the pods that are ready.
    pub ready_pods: BTreeSet<String>,
    /// Tables of those masters that were asked (see [`wants_tables`]), by ordinal, or why they did not answer.
    pub tables: BTreeMap<i32, Result<Tables, String>>,
    /// The status written last.
    pub status: RocketMQClusterStatus,
    /// Now.
    pub now: Timestamp,
}

impl Observed {
    /// Nothing exists yet.
    pub fn nothing(now: Timestamp) -> Self {
        Self {
            masters: None,
            slaves: BTreeMap::new(),
            ready_pods: BTreeSet::new(),
            tables: BTreeMap::new(),
            status: RocketMQClusterStatus::default(),
            now,
        }
    }
}

/// Something to do by talking to a broker.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create on the master of group `to` what it lacks of what the other groups have.
    CopyTopics {
        /// Ordinal of the new group.
        to: i32,
        /// What to create.
        missing: Missing,
    },
}

/// What to do, and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Objects that shall exist, in the order in which they are applied.
    pub objects: Vec<Object>,
    /// Stateful sets that shall go: slaves of an index that is no longer wanted.
    pub remove: Vec<String>,
    /// What to do by talking to brokers. It is compared anew at each pass, never remembered.
    pub actions: Vec<Action>,
    /// The status to publish.
    pub status: RocketMQClusterStatus,
    /// Whether nothing is left to do or to wait for.
    pub settled: bool,
}

/// Groups that shall exist: never fewer than there are, because a group that goes takes its messages along.
pub fn groups(cluster: &ValidatedCluster, observed: &Observed) -> i32 {
    let live = observed.masters.into_iter().chain(observed.slaves.values().copied()).max();
    cluster.replicas.max(live.unwrap_or(0))
}

/// Ordinals of the masters whose topics and consumer groups must be known for the next plan: all that are ready while
/// any of those has not joined, and none in a settled cluster.
pub fn wants_tables(cluster: &ValidatedCluster, observed: &Observed) -> Vec<i32> {
    let ready: Vec<i32> =
        (0..groups(cluster, observed)).filter(|ordinal| is_ready(cluster, observed, Role::Master, *ordinal)).collect();
    if ready.iter().all(|ordinal| has_joined(observed, *ordinal)) { Vec::new() } else { ready }
}

/// Plans the cluster.
pub fn plan(cluster: &ValidatedCluster, observed: &Observed) -> Plan {
    let count = groups(cluster, observed);
    let joining = join(cluster, observed, count);
    let groups: Vec<GroupStatus> =
        (0..count).map(|ordinal| group_status(cluster, observed, ordinal, joining.done.contains(&ordinal))).collect();
    let name_servers_ready = (0..cluster.name_servers)
        .filter(|ordinal| observed.ready_pods.contains(&format!("{}-{ordinal}", namesrv::name(cluster))))
        .count() as i32;
    let serving = groups.iter().filter(|group| group.state == GroupState::Serving).count() as i32;
    let ready = serving == count && name_servers_ready == cluster.name_servers;
    let wanted = vec![
        ready_condition(cluster, &groups, name_servers_ready, ready),
        reconciling_condition(&groups, &joining, name_servers_ready, cluster.name_servers),
        stalled_condition(cluster, count),
    ];
    Plan {
        objects: build::objects(cluster, count),
        remove: observed
            .slaves
            .keys()
            .filter(|index| **index > cluster.slaves)
            .map(|index| broker::set_name(cluster, Role::Slave(*index)))
            .collect(),
        actions: joining.actions,
        status: RocketMQClusterStatus {
            observed_generation: cluster.generation,
            replicas: count,
            ready_replicas: serving,
            selector: Some(labels::query(&labels::role_selector(cluster, BROKER, &Role::Master.label()))),
            conditions: conditions::merge(&observed.status.conditions, wanted, cluster.generation, observed.now),
            groups,
        },
        settled: ready,
    }
}

/// Says in the status what went wrong with the plan's actions. Each is tried again with the next pass.
pub fn note_faults(status: &mut RocketMQClusterStatus, faults: &[String]) {
    let reconciling = status.conditions.iter_mut().find(|condition| condition.type_ == "Reconciling");
    if let Some(condition) = reconciling
        && !faults.is_empty()
    {
        condition.message = format!("{}; {}", condition.message, faults.join("; "));
    }
}

/// The status of a cluster whose spec cannot be planned: what was said of its groups stays.
pub fn invalid_status(
    fault: &Invalid,
    generation: Option<i64>,
    previous: &RocketMQClusterStatus,
    now: Timestamp,
) -> RocketMQClusterStatus {
    let wanted = vec![
        Wanted::ready(false, "InvalidSpec", fault.to_string()),
        Wanted::reconciling(false, "InvalidSpec", "nothing is done until the spec is corrected"),
        Wanted::stalled(true, "InvalidSpec", fault.to_string()),
    ];
    RocketMQClusterStatus {
        observed_generation: generation,
        conditions: conditions::merge(&previous.conditions, wanted, generation, now),
        ..previous.clone()
    }
}

/// How far new groups have come in getting the topics of the others.
struct Joining {
    /// Ordinals of groups that have them all, those included that had before.
    done: BTreeSet<i32>,
    actions: Vec<Action>,
    /// What new groups wait for, for people.
    waits: Vec<String>,
}

/// A group has joined when its master has every topic and consumer group of those that joined before. While nobody has
/// (a new cluster, or a status that was lost), the masters that are ready take that part for each other.
///
/// The topics of groups that have joined are left alone: what a user made on one of them, or deletes from one after
/// the other, is the user's.
fn join(cluster: &ValidatedCluster, observed: &Observed, count: i32) -> Joining {
    let ready = |ordinal: &i32| is_ready(cluster, observed, Role::Master, *ordinal);
    let (joined, new): (Vec<i32>, Vec<i32>) = (0..count).partition(|ordinal| has_joined(observed, *ordinal));
    let new: Vec<i32> = new.into_iter().filter(ready).collect();
    let sources = if joined.is_empty() { &new } else { &joined };
    let mut result = Joining { done: joined.iter().copied().collect(), actions: Vec::new(), waits: Vec::new() };
    if new.is_empty() {
        return result;
    }
    let mut known = Vec::new();
    for ordinal in sources {
        match observed.tables.get(ordinal) {
            Some(Ok(tables)) => known.push(tables),
            Some(Err(fault)) => result.waits.push(format!("{}: {fault}", group_name(*ordinal))),
            None => result.waits.push(format!("{} to be ready", group_name(*ordinal))),
        }
    }
    let complete = known.len() == sources.len();
    let source = topics::union(known);
    for to in new {
        let Some(Ok(target)) = observed.tables.get(&to) else { continue };
        let missing = topics::missing(&cluster.name, &source, target);
        if !missing.is_empty() {
            result.actions.push(Action::CopyTopics { to, missing });
        } else if complete {
            result.done.insert(to);
        }
    }
    result
}

fn has_joined(observed: &Observed, ordinal: i32) -> bool {
    let name = group_name(ordinal);
    observed.status.groups.iter().any(|group| group.broker_name == name && group.state.has_joined())
}

fn is_ready(cluster: &ValidatedCluster, observed: &Observed, role: Role, ordinal: i32) -> bool {
    observed.ready_pods.contains(&broker::pod_name(cluster, role, ordinal))
}

fn group_status(cluster: &ValidatedCluster, observed: &Observed, ordinal: i32, joined: bool) -> GroupStatus {
    let master_ready = is_ready(cluster, observed, Role::Master, ordinal);
    let slaves_ready =
        (1..=cluster.slaves).filter(|index| is_ready(cluster, observed, Role::Slave(*index), ordinal)).count() as i32;
    let state = match (master_ready, joined) {
        (false, false) => GroupState::Starting,
        (false, true) => GroupState::MasterDown,
        (true, false) => GroupState::CopyingTopics,
        (true, true) if slaves_ready < cluster.slaves => GroupState::SlaveMissing,
        (true, true) => GroupState::Serving,
    };
    GroupStatus { broker_name: group_name(ordinal), master_ready, slaves_ready, state }
}

fn ready_condition(cluster: &ValidatedCluster, groups: &[GroupStatus], name_servers_ready: i32, ready: bool) -> Wanted {
    let name_servers = format!("{name_servers_ready} of {} name servers are ready", cluster.name_servers);
    if ready {
        return Wanted::ready(true, "AllReady", format!("{} groups serve, {name_servers}", groups.len()));
    }
    let waiting = unready(groups);
    if waiting.is_empty() {
        return Wanted::ready(false, "NameServersNotReady", name_servers);
    }
    Wanted::ready(false, "GroupsNotReady", format!("{waiting}; {name_servers}"))
}

fn reconciling_condition(
    groups: &[GroupStatus],
    joining: &Joining,
    name_servers_ready: i32,
    name_servers: i32,
) -> Wanted {
    if groups.iter().any(|group| group.state == GroupState::CopyingTopics) {
        let waits =
            if joining.waits.is_empty() { String::new() } else { format!("; waits for {}", joining.waits.join(", ")) };
        return Wanted::reconciling(
            true,
            "CopyingTopics",
            format!("topics and consumer groups are being created on new groups: {}{waits}", unready(groups)),
        );
    }
    let waiting = unready(groups);
    if !waiting.is_empty() || name_servers_ready < name_servers {
        let message = if waiting.is_empty() { "name servers are not ready".to_owned() } else { waiting };
        return Wanted::reconciling(true, "WaitingForPods", message);
    }
    Wanted::reconciling(false, "Settled", "nothing is left to do")
}

fn stalled_condition(cluster: &ValidatedCluster, count: i32) -> Wanted {
    if count > cluster.replicas {
        let going: Vec<String> = (cluster.replicas..count).map(group_name).collect();
        return Wanted::stalled(
            true,
            "ScaleDownNotSupported",
            format!(
                "spec.replicas is {}, but {count} groups exist and hold messages; {} would have to be drained first, \
                 which is not done yet: nothing is removed until spec.replicas is {count} again",
                cluster.replicas,
                going.join(", "),
            ),
        );
    }
    Wanted::stalled(false, "NotStalled", "")
}

/// Groups that do not fully serve, for people.
fn unready(groups: &[GroupStatus]) -> String {
    let groups: Vec<String> = groups
        .iter()
        .filter(|group| group.state != GroupState::Serving)
        .map(|group| format!("{} is {:?}", group.broker_name, group.state))
        .collect();
    groups.join(", ")
}

/// The objects that a spec alone stands for, where nothing exists yet.
pub fn from_spec(cluster: &ValidatedCluster) -> Vec<Object> {
    build::objects(cluster, cluster.replicas)
}

#[cfg(test)]
mod tests;
