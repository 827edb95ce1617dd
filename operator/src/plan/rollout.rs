//! Bringing pods of brokers to the current template: which of them is deleted next, so that its set makes it anew. Pure.
//!
//! A pod that works goes only while all others work, slaves before their master, group after group: so never two of one
//! group, and a template that does not work stops at the first pod. A pod that does not work anyway is replaced without
//! waiting for others, so that a template which is put right heals by itself.

use super::{Observed, Role, broker};
use crate::build::Sizes;
use crate::validate::ValidatedCluster;

/// What a rolling change does next.
pub(super) struct Rollout {
    /// Pods to delete now.
    pub(super) restart: Vec<String>,
    /// Where it stands, for people; empty when nothing is outdated.
    pub(super) message: String,
    /// A pod that will not become ready unless something is changed.
    pub(super) failure: Option<String>,
}

impl Rollout {
    /// Whether every pod is of the current template.
    pub(super) fn is_done(&self) -> bool {
        self.message.is_empty()
    }
}

/// A pod that shall exist.
struct Member {
    name: String,
    group: i32,
    role: Role,
    ready: bool,
    outdated: bool,
    stuck: bool,
}

pub(super) fn rollout(cluster: &ValidatedCluster, observed: &Observed, sizes: Sizes) -> Rollout {
    let members = members(cluster, observed, sizes);
    let outdated = members.iter().filter(|member| member.outdated).count();
    let failure = observed.stuck.iter().find(|(name, _)| !observed.outdated.contains(*name));
    let failure = failure.map(|(name, why)| format!("{name}: {why}"));
    if outdated == 0 {
        return Rollout { restart: Vec::new(), message: String::new(), failure };
    }
    let restart = next(cluster, &members);
    let doing = match (restart.as_slice(), members.iter().find(|member| !member.ready)) {
        ([], Some(member)) => format!("waits for {} to be ready", member.name),
        ([], None) => "the rest goes with its group".to_owned(),
        (names, _) => format!("restarts {}", names.join(", ")),
    };
    let message = format!("{outdated} of {} brokers are of an earlier template; {doing}", members.len());
    Rollout { restart, message, failure }
}

/// Group by group, slaves before their master.
fn members(cluster: &ValidatedCluster, observed: &Observed, sizes: Sizes) -> Vec<Member> {
    let member = |role: Role, group: i32| {
        let name = broker::pod_name(cluster, role, group);
        Member {
            group,
            role,
            ready: observed.ready_pods.contains(&name),
            outdated: observed.outdated.contains(&name),
            stuck: observed.stuck.contains_key(&name),
            name,
        }
    };
    let group = |ordinal: i32| {
        let slaves = (1..=cluster.slaves).filter(move |_| ordinal < sizes.slaves).map(Role::Slave);
        slaves.chain(std::iter::once(Role::Master)).map(move |role| member(role, ordinal))
    };
    (0..sizes.masters).flat_map(group).collect()
}

fn next(cluster: &ValidatedCluster, members: &[Member]) -> Vec<String> {
    // Groups on which the current template has not proved itself yet.
    let unproved: Vec<i32> =
        members.iter().filter(|member| !member.ready && !member.outdated).map(|member| member.group).collect();
    // A slave is not ready without its master, so where a whole group is down the master comes first.
    let turn = |member: &Member| {
        let master_lives =
            members.iter().any(|other| other.group == member.group && other.role == Role::Master && other.ready);
        (member.role == Role::Master) == master_lives
    };
    let mut down: Vec<&Member> = members.iter().filter(|member| member.outdated && !member.ready).collect();
    down.sort_by_key(|member| (member.group, turn(member)));
    let replaceable = |member: &&&Member| {
        if member.stuck { unproved.iter().all(|group| *group == member.group) } else { unproved.is_empty() }
    };
    if let Some(member) = down.iter().find(replaceable) {
        return vec![member.name.clone()];
    }
    if members.iter().any(|member| !member.ready) {
        return Vec::new();
    }
    // A group that is scaled away goes as it is: a restart would open it again.
    let turn = members.iter().find(|member| member.outdated && member.group < cluster.replicas);
    turn.map(|member| member.name.clone()).into_iter().collect()
}
