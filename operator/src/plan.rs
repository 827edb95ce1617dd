//! The plan: what a cluster shall consist of, what to do next, and what to say about it. Pure.
//!
//! Everything known of the world comes in by [`Observed`], the clock included, so that any state of a cluster can be
//! tried in a test. The same plan is walked on Kubernetes and on one machine.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::backlog::Backlog;
use crate::build::broker::{self, Role, group_name};
use crate::build::labels::{self, BROKER};
use crate::build::{self, Object, Sizes, namesrv};
use crate::conditions::{self, Wanted};
use crate::crd::{GroupState, GroupStatus, RocketMQClusterStatus};
use crate::topics::{self, Missing, Tables};
use crate::validate::{Invalid, ValidatedCluster};

mod drain;
mod rollout;

/// What was seen of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Pods the live stateful set of masters asks for; none when there is no such set.
    pub masters: Option<i32>,
    /// The same for each live stateful set of slaves, by slave index.
    pub slaves: BTreeMap<i32, i32>,
    /// Names of the pods that are ready.
    pub ready_pods: BTreeSet<String>,
    /// Names of the pods that exist, also while they end.
    pub pods: BTreeSet<String>,
    /// Those that were made from an earlier template than their set has now, and do not end yet. Empty while that is not
    /// known of every set.
    pub outdated: BTreeSet<String>,
    /// Those that will not become ready by themselves, and why.
    pub stuck: BTreeMap<String, String>,
    /// Whether the masters that were asked (see [`questions`]) take messages, by ordinal, or why they did not answer.
    pub access: BTreeMap<i32, Result<Access, String>>,
    /// What the masters that were asked still hold, by ordinal, or why they did not answer.
    pub backlogs: BTreeMap<i32, Result<Backlog, String>>,
    /// Tables of those masters that were asked (see [`questions`]), by ordinal, or why they did not answer.
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
            pods: BTreeSet::new(),
            outdated: BTreeSet::new(),
            stuck: BTreeMap::new(),
            access: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            tables: BTreeMap::new(),
            status: RocketMQClusterStatus::default(),
            now,
        }
    }
}

/// Which messages a master takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// All.
    Open,
    /// Its routes say that it takes none (`brokerPermission=4`). Clients that have not heard of it yet are still served.
    ReadOnly,
    /// None at all; who sends all the same is told to go elsewhere (`startAcceptSendRequestTimeStamp` far ahead).
    Sealed,
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
    /// Say to the master of group `of` which messages it takes. It forgets that with a restart, and is told again.
    SetAccess {
        /// Ordinal of the group.
        of: i32,
        /// What it shall take.
        access: Access,
    },
}

/// Which masters have to be asked before the next plan, by ordinal; all of them are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Their topics and consumer groups.
    pub tables: Vec<i32>,
    /// Whether they take messages.
    pub access: Vec<i32>,
    /// What they still hold.
    pub backlogs: Vec<i32>,
}

/// What to do, and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Objects that shall exist, in the order in which they are applied.
    pub objects: Vec<Object>,
    /// Stateful sets that shall go: slaves of an index that is no longer wanted.
    pub remove: Vec<String>,
    /// Pods to delete so that their sets make them anew from the current template: one at a time, unless they are down
    /// for good already.
    pub restart: Vec<String>,
    /// What to do by talking to brokers. It is compared anew at each pass, never remembered.
    pub actions: Vec<Action>,
    /// The status to publish.
    pub status: RocketMQClusterStatus,
    /// Whether nothing is left to do or to wait for.
    pub settled: bool,
}

/// Groups that exist, or shall: those that are scaled away are among them until they have gone.
pub fn groups(cluster: &ValidatedCluster, observed: &Observed) -> i32 {
    let live = observed.masters.into_iter().chain(observed.slaves.values().copied()).max();
    cluster.replicas.max(live.unwrap_or(0))
}

/// Whom to ask: masters of new groups and those that these copy from, and masters that are being emptied or opened
/// again. Nobody in a settled cluster.
pub fn questions(cluster: &ValidatedCluster, observed: &Observed) -> Questions {
    let ready = |ordinal: &i32| is_ready(cluster, observed, Role::Master, *ordinal);
    let wanted: Vec<i32> = (0..cluster.replicas).filter(ready).collect();
    let going: Vec<i32> = (cluster.replicas..groups(cluster, observed)).filter(ready).collect();
    let new: Vec<i32> = wanted.iter().copied().filter(|ordinal| !has_joined(observed, *ordinal)).collect();
    Questions {
        tables: if new.is_empty() { Vec::new() } else { wanted },
        access: new.into_iter().chain(going.iter().copied()).collect(),
        backlogs: going,
    }
}

/// Plans the cluster.
pub fn plan(cluster: &ValidatedCluster, observed: &Observed) -> Plan {
    let count = groups(cluster, observed);
    let mut joining = join(cluster, observed);
    let leaving = drain::drain(cluster, observed, count);
    let rollout = rollout::rollout(cluster, observed, leaving.sizes);
    let mut groups: Vec<GroupStatus> = (0..cluster.replicas)
        .map(|ordinal| group_status(cluster, observed, ordinal, joining.done.contains(&ordinal)))
        .collect();
    let name_servers_ready = (0..cluster.name_servers)
        .filter(|ordinal| observed.ready_pods.contains(&format!("{}-{ordinal}", namesrv::name(cluster))))
        .count() as i32;
    let serving = groups.iter().filter(|group| group.state == GroupState::Serving).count() as i32;
    let ready = serving == cluster.replicas && name_servers_ready == cluster.name_servers;
    let settled = ready && leaving.groups.is_empty() && rollout.is_done();
    let wanted = vec![
        ready_condition(cluster, &groups, name_servers_ready, ready),
        reconciling_condition(cluster, &groups, &joining, &leaving, &rollout, name_servers_ready),
        stalled_condition(&rollout),
    ];
    groups.extend(leaving.groups);
    joining.actions.extend(leaving.actions);
    Plan {
        objects: build::objects(cluster, leaving.sizes),
        remove: observed
            .slaves
            .keys()
            .filter(|index| **index > cluster.slaves)
            .map(|index| broker::set_name(cluster, Role::Slave(*index)))
            .collect(),
        restart: rollout.restart,
        actions: joining.actions,
        status: RocketMQClusterStatus {
            observed_generation: cluster.generation,
            replicas: leaving.sizes.masters.max(leaving.sizes.slaves),
            ready_replicas: serving,
            selector: Some(labels::query(&labels::role_selector(cluster, BROKER, &Role::Master.label()))),
            conditions: conditions::merge(&observed.status.conditions, wanted, cluster.generation, observed.now),
            groups,
        },
        settled,
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

/// The status of a cluster that is left alone because its annotation says so: what was said of its groups stays.
pub fn paused_status(
    generation: Option<i64>,
    previous: &RocketMQClusterStatus,
    now: Timestamp,
) -> RocketMQClusterStatus {
    let ready = previous.conditions.iter().find(|condition| condition.type_ == "Ready");
    let wanted = vec![
        Wanted::ready(
            ready.is_some_and(|ready| ready.status == "True"),
            "Paused",
            ready.map(|ready| ready.message.clone()).unwrap_or_default(),
        ),
        Wanted::reconciling(false, "Paused", "nothing is done while the annotation rocketmq.rs/pause is \"true\""),
        Wanted::stalled(false, "NotStalled", ""),
    ];
    RocketMQClusterStatus {
        observed_generation: generation,
        conditions: conditions::merge(&previous.conditions, wanted, generation, now),
        ..previous.clone()
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

/// A group has joined when its master takes messages and has every topic and consumer group of those that joined
/// before. While nobody has (a new cluster, or a status that was lost), the masters that are ready take that part for
/// each other.
///
/// The topics of groups that have joined are left alone: what a user made on one of them, or deletes from one after
/// the other, is the user's.
fn join(cluster: &ValidatedCluster, observed: &Observed) -> Joining {
    let ready = |ordinal: &i32| is_ready(cluster, observed, Role::Master, *ordinal);
    let (joined, new): (Vec<i32>, Vec<i32>) = (0..cluster.replicas).partition(|ordinal| has_joined(observed, *ordinal));
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
            continue;
        }
        match observed.access.get(&to) {
            // It was being emptied before it was wanted again.
            Some(Ok(Access::ReadOnly | Access::Sealed)) if complete => {
                result.actions.push(Action::SetAccess { of: to, access: Access::Open });
            }
            Some(Ok(Access::Open)) if complete => {
                result.done.insert(to);
            }
            Some(Err(fault)) => result.waits.push(format!("{}: {fault}", group_name(to))),
            _ => {}
        }
    }
    result
}

/// What the status says of a group.
fn known(observed: &Observed, ordinal: i32) -> Option<&GroupStatus> {
    let name = group_name(ordinal);
    observed.status.groups.iter().find(|group| group.broker_name == name)
}

fn has_joined(observed: &Observed, ordinal: i32) -> bool {
    known(observed, ordinal).is_some_and(|group| group.state.has_joined())
}

/// Whether nobody can have sent anything to the group yet. That is known only of groups that are being added now or were
/// since the status began: of any other, volumes may hold messages although no master was seen.
fn is_untouched(cluster: &ValidatedCluster, observed: &Observed, ordinal: i32) -> bool {
    let never_ready = !is_ready(cluster, observed, Role::Master, ordinal);
    never_ready
        && match known(observed, ordinal) {
            Some(group) => group.untouched,
            None => observed.masters.unwrap_or(0) <= ordinal,
        }
}

fn is_ready(cluster: &ValidatedCluster, observed: &Observed, role: Role, ordinal: i32) -> bool {
    observed.ready_pods.contains(&broker::pod_name(cluster, role, ordinal))
}

fn group_status(cluster: &ValidatedCluster, observed: &Observed, ordinal: i32, joined: bool) -> GroupStatus {
    let master_ready = is_ready(cluster, observed, Role::Master, ordinal);
    let slaves_ready = slaves_ready(cluster, observed, ordinal);
    let state = match (master_ready, joined) {
        (false, false) => GroupState::Starting,
        (false, true) => GroupState::MasterDown,
        (true, false) => GroupState::CopyingTopics,
        (true, true) if slaves_ready < cluster.slaves => GroupState::SlaveMissing,
        (true, true) => GroupState::Serving,
    };
    let untouched = is_untouched(cluster, observed, ordinal);
    GroupStatus { broker_name: group_name(ordinal), master_ready, slaves_ready, state, drain: None, untouched }
}

fn slaves_ready(cluster: &ValidatedCluster, observed: &Observed, ordinal: i32) -> i32 {
    (1..=cluster.slaves).filter(|index| is_ready(cluster, observed, Role::Slave(*index), ordinal)).count() as i32
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
    cluster: &ValidatedCluster,
    groups: &[GroupStatus],
    joining: &Joining,
    leaving: &drain::Leaving,
    rollout: &rollout::Rollout,
    name_servers_ready: i32,
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
    if !leaving.groups.is_empty() {
        return Wanted::reconciling(true, "Draining", leaving.message());
    }
    if !rollout.is_done() {
        return Wanted::reconciling(true, "RollingOut", rollout.message.clone());
    }
    let waiting = unready(groups);
    if !waiting.is_empty() || name_servers_ready < cluster.name_servers {
        let message = if waiting.is_empty() { "name servers are not ready".to_owned() } else { waiting };
        return Wanted::reconciling(true, "WaitingForPods", message);
    }
    Wanted::reconciling(false, "Settled", "nothing is left to do")
}

fn stalled_condition(rollout: &rollout::Rollout) -> Wanted {
    match &rollout.failure {
        Some(failure) => Wanted::stalled(true, "PodFails", failure.clone()),
        None => Wanted::stalled(false, "NotStalled", ""),
    }
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
    build::objects(cluster, Sizes::of(cluster.replicas))
}

#[cfg(test)]
mod tests;
