//! Taking groups away: each is made read-only, emptied by its consumers, sealed, and only then are its slaves and its
//! master removed. Pure; what has been reached is looked up anew at every pass.
//!
//! Only the highest ordinals can go. All groups that are scaled away are read-only at once, and leave from the top.

use jiff::{Span, Timestamp};

use super::{Access, Action, Observed, is_ready, is_untouched, known, slaves_ready};
use crate::backlog::Backlog;
use crate::build::Sizes;
use crate::build::broker::{self, Role, group_name};
use crate::crd::{Drain, GroupState, GroupStatus};
use crate::validate::ValidatedCluster;

/// How long a group is read-only before it is sealed. Clients ask for routes every 30 s; those that have not heard yet are
/// served until then.
pub(super) const QUIET_SECONDS: i64 = 45;

/// The groups that are scaled away.
pub(super) struct Leaving {
    pub(super) sizes: Sizes,
    pub(super) actions: Vec<Action>,
    /// Those that are still there.
    pub(super) groups: Vec<GroupStatus>,
}

impl Leaving {
    /// What they wait for, for people.
    pub(super) fn message(&self) -> String {
        let say = |group: &GroupStatus| {
            let waiting_for = group.drain.as_ref().map(|drain| drain.waiting_for.as_str()).unwrap_or_default();
            format!("{}: {waiting_for}", group.broker_name)
        };
        self.groups.iter().map(say).collect::<Vec<_>>().join("; ")
    }
}

/// How far one of them has come.
struct Step {
    drain: Drain,
    /// What its master shall be told.
    tell: Option<Access>,
    /// Nothing keeps it any more.
    may_go: bool,
}

pub(super) fn drain(cluster: &ValidatedCluster, observed: &Observed, count: i32) -> Leaving {
    let steps: Vec<(i32, Step)> =
        (cluster.replicas..count).map(|ordinal| (ordinal, step(cluster, observed, ordinal))).collect();
    let mut sizes = Sizes::of(count);
    for (ordinal, _) in steps.iter().rev().take_while(|(_, step)| step.may_go) {
        sizes.slaves = *ordinal;
    }
    let has_slaves = |ordinal: i32| {
        let asked_for = observed.slaves.values().any(|live| *live > ordinal);
        let indexes = observed.slaves.keys().copied().chain(1..=cluster.slaves);
        asked_for
            || indexes
                .into_iter()
                .any(|index| observed.pods.contains(&broker::pod_name(cluster, Role::Slave(index), ordinal)))
    };
    while sizes.masters > sizes.slaves && !has_slaves(sizes.masters - 1) {
        sizes.masters -= 1;
    }
    let mut leaving = Leaving { sizes, actions: Vec::new(), groups: Vec::new() };
    for (ordinal, mut step) in steps {
        if ordinal >= sizes.masters {
            continue;
        }
        if ordinal >= sizes.slaves {
            "its slaves to end".clone_into(&mut step.drain.waiting_for);
        } else if step.may_go {
            step.drain.waiting_for = format!("{} to go first", group_name(ordinal + 1));
        }
        leaving.actions.extend(step.tell.map(|access| Action::SetAccess { of: ordinal, access }));
        leaving.groups.push(GroupStatus {
            broker_name: group_name(ordinal),
            master_ready: is_ready(cluster, observed, Role::Master, ordinal),
            slaves_ready: slaves_ready(cluster, observed, ordinal),
            state: GroupState::Draining,
            drain: Some(step.drain),
            untouched: is_untouched(cluster, observed, ordinal),
        });
    }
    leaving
}

fn step(cluster: &ValidatedCluster, observed: &Observed, ordinal: i32) -> Step {
    let before = known(observed, ordinal).and_then(|group| group.drain.clone()).unwrap_or_default();
    let since = if before.since.is_empty() { observed.now.to_string() } else { before.since };
    let overdue = cluster.scale_down_deadline.is_some_and(|deadline| is_over(&since, deadline, observed.now));
    let mut step = Step { drain: Drain { since, ..Drain::default() }, tell: None, may_go: false };
    if is_untouched(cluster, observed, ordinal) {
        step.may_go = true;
        return step;
    }
    if !is_ready(cluster, observed, Role::Master, ordinal) {
        step.drain.remaining = before.remaining;
        "its master to be ready, for only that can say what it holds".clone_into(&mut step.drain.waiting_for);
        step.may_go = overdue;
        return step;
    }
    let (access, backlog) = match (observed.access.get(&ordinal), observed.backlogs.get(&ordinal)) {
        (Some(Ok(access)), Some(Ok(backlog))) => (*access, backlog),
        (Some(Err(fault)), _) | (_, Some(Err(fault))) => {
            step.drain.waiting_for = format!("its master to answer: {fault}");
            return step;
        }
        _ => {
            "its master to be asked".clone_into(&mut step.drain.waiting_for);
            return step;
        }
    };
    step.drain.remaining = Some(backlog.total());
    if access == Access::Open {
        step.tell = Some(Access::ReadOnly);
        step.drain.waiting_for = waiting_for(backlog, "its master to take no more messages");
        return step;
    }
    let read_only_since = before.read_only_since.unwrap_or_else(|| observed.now.to_string());
    let quiet = is_over(&read_only_since, QUIET_SECONDS, observed.now);
    step.drain.read_only_since = Some(read_only_since);
    let empty = backlog.total() == 0;
    if access == Access::ReadOnly {
        if quiet && (empty || overdue) {
            step.tell = Some(Access::Sealed);
        }
        step.drain.waiting_for = waiting_for(backlog, "clients to learn that it takes no more messages");
        return step;
    }
    step.may_go = empty || overdue;
    step.drain.waiting_for = waiting_for(backlog, "");
    step
}

fn waiting_for(backlog: &Backlog, otherwise: &str) -> String {
    match backlog.total() {
        0 => otherwise.to_owned(),
        total => format!("{total} messages to be consumed ({})", backlog.summary()),
    }
}

/// Whether so many seconds have passed. A time that cannot be read never began.
fn is_over(since: &str, seconds: i64, now: Timestamp) -> bool {
    let since = since.parse::<Timestamp>();
    since.is_ok_and(|since| since.checked_add(Span::new().seconds(seconds)).is_ok_and(|end| end <= now))
}
