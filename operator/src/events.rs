//! What is told of a cluster as Kubernetes events: each change of a group's life and each restart, once. Pure: what is new
//! is what the status written last does not say yet.

use crate::crd::{GroupState, GroupStatus, RocketMQClusterStatus};
use crate::plan::Plan;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// One word for programs.
    pub reason: &'static str,
    /// One sentence for people.
    pub note: String,
}

impl Happening {
    fn new(reason: &'static str, note: String) -> Self {
        Self { warning: false, reason, note }
    }
}

/// What happens by `plan` to a cluster that `previous` was said of.
pub fn happenings(previous: &RocketMQClusterStatus, plan: &Plan) -> Vec<Happening> {
    let before = |name: &str| previous.groups.iter().find(|group| group.broker_name == name);
    let mut all: Vec<Happening> =
        plan.status.groups.iter().filter_map(|group| of_group(before(&group.broker_name), group)).collect();
    let gone = previous.groups.iter().filter(|old| {
        old.state == GroupState::Draining && plan.status.groups.iter().all(|group| group.broker_name != old.broker_name)
    });
    all.extend(gone.map(|group| {
        let left = group.drain.as_ref().and_then(|drain| drain.remaining).unwrap_or(0);
        Happening::new("GroupRemoved", format!("{} is removed, with {left} messages not consumed", group.broker_name))
    }));
    all.extend(
        plan.restart.iter().map(|pod| Happening::new("Restarting", format!("{pod}, for its template has changed"))),
    );
    all.extend(plan.remove.iter().map(|set| Happening::new("SlavesRemoved", format!("{set} is not wanted any more"))));
    let stalled = |status: &RocketMQClusterStatus| {
        let found =
            status.conditions.iter().find(|condition| condition.type_ == "Stalled" && condition.status == "True");
        found.map(|condition| condition.message.clone())
    };
    if let Some(note) = stalled(&plan.status).filter(|_| stalled(previous).is_none()) {
        all.push(Happening { warning: true, reason: "PodFails", note });
    }
    all
}

fn of_group(before: Option<&GroupStatus>, now: &GroupStatus) -> Option<Happening> {
    let name = &now.broker_name;
    let was = before.map(|group| group.state);
    if was == Some(now.state) {
        return None;
    }
    match (was, now.state) {
        (None, GroupState::Starting) => Some(Happening::new("GroupAdded", format!("{name} is started"))),
        (Some(GroupState::Draining), GroupState::Starting | GroupState::CopyingTopics) => {
            Some(Happening::new("DrainCancelled", format!("{name} is wanted again and will take messages")))
        }
        (_, GroupState::Draining) => {
            Some(Happening::new("Draining", format!("{name} takes no more messages and goes once it is empty")))
        }
        (Some(GroupState::Starting | GroupState::CopyingTopics), GroupState::Serving | GroupState::SlaveMissing) => {
            Some(Happening::new("GroupJoined", format!("{name} has all topics and consumer groups")))
        }
        (Some(_), GroupState::MasterDown) => {
            let note = format!("the master of {name} is not ready");
            Some(Happening { warning: true, reason: "MasterDown", note })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{Condition, Drain};

    fn group(name: &str, state: GroupState) -> GroupStatus {
        let drain = (state == GroupState::Draining).then(|| Drain { remaining: Some(4), ..Drain::default() });
        GroupStatus {
            broker_name: name.to_owned(),
            master_ready: true,
            slaves_ready: 1,
            state,
            drain,
            untouched: false,
        }
    }

    fn status(groups: &[(&str, GroupState)]) -> RocketMQClusterStatus {
        let groups = groups.iter().map(|(name, state)| group(name, *state)).collect();
        RocketMQClusterStatus { groups, ..RocketMQClusterStatus::default() }
    }

    fn plan(status: RocketMQClusterStatus) -> Plan {
        Plan {
            objects: Vec::new(),
            remove: Vec::new(),
            restart: Vec::new(),
            actions: Vec::new(),
            status,
            settled: true,
        }
    }

    fn reasons(before: &RocketMQClusterStatus, now: RocketMQClusterStatus) -> Vec<&'static str> {
        happenings(before, &plan(now)).iter().map(|happening| happening.reason).collect()
    }

    #[test]
    fn each_step_of_a_groups_life_is_told_once() {
        let life = [
            (GroupState::Starting, Some("GroupAdded")),
            (GroupState::CopyingTopics, None),
            (GroupState::Serving, Some("GroupJoined")),
            (GroupState::SlaveMissing, None),
            (GroupState::MasterDown, Some("MasterDown")),
            (GroupState::Serving, None),
            (GroupState::Draining, Some("Draining")),
            (GroupState::CopyingTopics, Some("DrainCancelled")),
            (GroupState::Serving, Some("GroupJoined")),
        ];
        let mut before = RocketMQClusterStatus::default();
        for (state, reason) in life {
            let now = status(&[("broker-0", state)]);
            assert_eq!(reasons(&before, now.clone()), reason.into_iter().collect::<Vec<_>>(), "{state:?}");
            assert!(reasons(&now, now.clone()).is_empty(), "{state:?} is told twice");
            before = now;
        }
    }

    #[test]
    fn what_a_removed_group_still_held_is_said() {
        let before = status(&[("broker-0", GroupState::Serving), ("broker-1", GroupState::Draining)]);
        let all = happenings(&before, &plan(status(&[("broker-0", GroupState::Serving)])));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].note, "broker-1 is removed, with 4 messages not consumed");
    }

    #[test]
    fn restarts_and_failures_are_told() {
        let mut failing = plan(RocketMQClusterStatus::default());
        failing.restart.push("demo-broker-slave-1-0".to_owned());
        failing.status.conditions.push(Condition {
            type_: "Stalled".to_owned(),
            status: "True".to_owned(),
            reason: "PodFails".to_owned(),
            message: "demo-broker-slave-1-0: ImagePullBackOff".to_owned(),
            last_transition_time: String::new(),
            observed_generation: None,
        });
        let all = happenings(&RocketMQClusterStatus::default(), &failing);
        let told: Vec<_> = all.iter().map(|happening| (happening.warning, happening.reason)).collect();
        assert_eq!(told, [(false, "Restarting"), (true, "PodFails")]);
        failing.restart.clear();
        assert!(happenings(&failing.status, &failing).is_empty());
    }
}
