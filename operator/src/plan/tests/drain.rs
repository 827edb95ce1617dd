//! Groups that are scaled away.

use super::*;

fn with_policy(replicas: i32, policy: &str, deadline: Option<i64>) -> ValidatedCluster {
    let mut scale_down = serde_json::json!({ "policy": policy });
    if let Some(deadline) = deadline {
        scale_down["deadlineSeconds"] = deadline.into();
    }
    cluster(serde_json::json!({
        "replicas": replicas, "slaves": 1, "nameServers": { "replicas": 1 }, "scaleDown": scale_down,
    }))
}

/// Sizes of the sets of masters and slaves.
fn sizes(plan: &Plan) -> (i32, i32) {
    let of = |name: &str| {
        let set = sets(plan).into_iter().find(|set| set.metadata.name.as_deref() == Some(name));
        set.unwrap().spec.as_ref().unwrap().replicas.unwrap()
    };
    (of("demo-broker-master"), of("demo-broker-slave-1"))
}

fn waiting_for(plan: &Plan, ordinal: usize) -> &str {
    &plan.status.groups[ordinal].drain.as_ref().unwrap().waiting_for
}

#[test]
fn a_group_is_closed_emptied_sealed_and_then_goes_slave_first() {
    let mut world = World::new();
    world.settle(&sized(2, 1));
    world.broker(1).messages = 7;
    let cluster = sized(1, 1);
    let plan = world.step(&cluster);
    assert_eq!(plan.actions, [Action::SetAccess { of: 1, access: Access::ReadOnly }]);
    assert_eq!(states(&plan), [GroupState::Serving, GroupState::Draining]);
    assert_eq!(plan.status.groups[1].drain.as_ref().unwrap().remaining, Some(7));
    let reconciling = condition(&plan, "Reconciling");
    assert_eq!((reconciling.status.as_str(), reconciling.reason.as_str()), ("True", "Draining"));
    assert!(
        reconciling.message.contains("broker-1: 7 messages to be consumed (7 of timed messages)"),
        "{reconciling:?}"
    );
    assert_eq!(condition(&plan, "Ready").status, "True", "what is wanted serves");
    assert!(!plan.settled);

    world.wait(3600);
    let plan = world.step(&cluster);
    assert_eq!((plan.actions.len(), sizes(&plan)), (0, (2, 2)), "an hour is nothing to a group that waits");
    world.broker(1).messages = 0;
    let plan = world.step(&cluster);
    assert_eq!((plan.actions.len(), waiting_for(&plan, 1)), (0, "clients to learn that it takes no more messages"));
    world.wait(45);
    let plan = world.step(&cluster);
    assert_eq!(plan.actions, [Action::SetAccess { of: 1, access: Access::Sealed }]);
    assert_eq!(sizes(&plan), (2, 2));
    let plan = world.step(&cluster);
    assert_eq!((sizes(&plan), waiting_for(&plan, 1)), ((2, 1), "its slaves to end"));
    assert_eq!(plan.status.replicas, 2);
    let plan = world.step(&cluster);
    assert_eq!((sizes(&plan), plan.status.groups.len(), plan.status.replicas), ((1, 1), 1, 1));
    assert!(world.step(&cluster).settled);
    assert!(!world.pods.contains_key("demo-broker-master-1"));
}

#[test]
fn a_message_that_comes_late_keeps_the_group() {
    let mut world = World::new();
    world.settle(&sized(2, 1));
    let cluster = sized(1, 1);
    world.step(&cluster);
    world.step(&cluster);
    world.wait(45);
    world.send(1);
    assert_eq!(world.broker(1).messages, 1, "who has not heard yet is served");
    let plan = world.step(&cluster);
    assert_eq!((plan.actions.len(), sizes(&plan)), (0, (2, 2)));
}

#[test]
fn a_master_that_restarts_is_closed_again_and_begins_anew() {
    let mut world = World::new();
    world.settle(&sized(2, 1));
    let cluster = sized(1, 1);
    world.step(&cluster);
    world.step(&cluster);
    world.wait(45);
    world.step(&cluster);
    world.fail("demo-broker-master-1");
    let plan = world.step(&cluster);
    assert!(waiting_for(&plan, 1).starts_with("its master to be ready"), "{}", waiting_for(&plan, 1));
    assert_eq!(sizes(&plan), (2, 2));
    world.all_ready();
    let plan = world.step(&cluster);
    assert_eq!(plan.actions, [Action::SetAccess { of: 1, access: Access::ReadOnly }]);
    let plan = world.step(&cluster);
    assert_eq!((plan.actions.len(), sizes(&plan)), (0, (2, 2)), "it is quiet for too short a time");
    world.wait(45);
    assert_eq!(world.step(&cluster).actions, [Action::SetAccess { of: 1, access: Access::Sealed }]);
}

#[test]
fn scaling_up_again_opens_the_group_also_when_its_slave_has_gone() {
    let mut world = World::new();
    world.settle(&sized(2, 1));
    world.broker(0).tables = tables(&["made-before"]);
    world.broker(1).tables = tables(&["made-before"]);
    let cluster = sized(1, 1);
    world.step(&cluster);
    world.step(&cluster);
    world.wait(45);
    world.step(&cluster);
    assert_eq!(sizes(&world.step(&cluster)), (2, 1));
    world.broker(0).tables = tables(&["made-before", "made-meanwhile"]);
    let cluster = sized(2, 1);
    let plan = world.step(&cluster);
    assert_eq!(sizes(&plan), (2, 2));
    assert_eq!(states(&plan), [GroupState::Serving, GroupState::CopyingTopics]);
    assert_eq!(world.broker(1).access, Access::Sealed, "it has topics to get first");
    let plan = world.step(&cluster);
    assert_eq!(plan.actions, [Action::SetAccess { of: 1, access: Access::Open }]);
    let plan = world.settle(&cluster);
    assert_eq!((world.broker(1).access, states(&plan)), (Access::Open, vec![GroupState::Serving; 2]));
    assert!(world.broker(1).tables.topics.contains_key("made-meanwhile"));
}

#[test]
fn a_group_that_grows_again_has_its_volume_and_takes_messages() {
    let mut world = World::new();
    world.settle(&sized(2, 1));
    world.broker(1).tables = tables(&["kept"]);
    world.settle(&sized(1, 1));
    let plan = world.settle(&sized(2, 1));
    assert_eq!((world.broker(1).access, states(&plan)), (Access::Open, vec![GroupState::Serving; 2]));
    assert!(world.broker(1).tables.topics.contains_key("kept"));
}

#[test]
fn all_go_from_the_top_and_are_closed_at_once() {
    let mut world = World::new();
    world.settle(&sized(3, 1));
    world.broker(2).messages = 1;
    let cluster = sized(0, 1);
    assert_eq!(world.step(&cluster).actions.len(), 3);
    world.step(&cluster);
    world.wait(45);
    world.step(&cluster);
    let plan = world.step(&cluster);
    assert_eq!(sizes(&plan), (3, 3), "the highest holds something");
    assert_eq!(waiting_for(&plan, 1), "broker-2 to go first");
    world.broker(2).messages = 0;
    let plan = world.settle(&cluster);
    assert_eq!((sizes(&plan), plan.status.groups.len()), ((0, 0), 0));
}

#[test]
fn a_deadline_ends_the_wait_and_not_the_care() {
    for policy in ["Retain", "Discard"] {
        let mut world = World::new();
        world.settle(&with_policy(2, policy, Some(100)));
        world.broker(1).messages = 5;
        let cluster = with_policy(1, policy, Some(100));
        world.step(&cluster);
        world.step(&cluster);
        world.wait(99);
        assert_eq!(world.step(&cluster).actions.len(), 0);
        world.wait(1);
        let plan = world.step(&cluster);
        assert_eq!(plan.actions, [Action::SetAccess { of: 1, access: Access::Sealed }], "it is closed to all first");
        assert_eq!(sizes(&plan), (2, 2));
        assert_eq!(sizes(&world.step(&cluster)), (2, 1));
        let plan = world.step(&cluster);
        assert_eq!(sizes(&plan), (1, 1));
        let retention = sets(&plan)[1].spec.as_ref().unwrap().persistent_volume_claim_retention_policy.clone().unwrap();
        assert_eq!(retention.when_scaled.unwrap(), if policy == "Discard" { "Delete" } else { "Retain" });
    }
}

#[test]
fn a_group_that_is_sealed_with_messages_stays_once_the_policy_is_to_wait() {
    let mut world = World::new();
    world.settle(&with_policy(2, "Retain", Some(50)));
    world.broker(1).messages = 5;
    let cluster = with_policy(1, "Retain", Some(50));
    world.step(&cluster);
    world.step(&cluster);
    world.wait(50);
    world.step(&cluster);
    assert_eq!(world.broker(1).access, Access::Sealed);
    let cluster = with_policy(1, "Wait", None);
    assert_eq!(sizes(&world.step(&cluster)), (2, 2));
    world.broker(1).messages = 0;
    assert_eq!(sizes(&world.step(&cluster)), (2, 1));
}

#[test]
fn a_master_that_never_comes_back_goes_at_the_deadline_only() {
    for (policy, deadline, stays) in [("Wait", None, true), ("Retain", Some(60), false)] {
        let mut world = World::new();
        world.settle(&sized(2, 1));
        world.fail("demo-broker-master-1");
        let cluster = with_policy(1, policy, deadline);
        world.step(&cluster);
        world.wait(86_400);
        world.step(&cluster);
        let plan = world.step(&cluster);
        assert_eq!(sizes(&plan).0, if stays { 2 } else { 1 }, "{policy}");
    }
}

#[test]
fn a_group_that_never_came_up_goes_at_once() {
    let mut world = World::new();
    world.settle(&sized(1, 1));
    let plan = world.step(&sized(2, 1));
    assert!(plan.status.groups[1].untouched);
    let plan = world.step(&sized(1, 1));
    assert_eq!(sizes(&plan), (2, 1));
    assert_eq!(sizes(&world.step(&sized(1, 1))), (1, 1));
}

#[test]
fn a_group_nothing_is_known_of_is_not_taken_for_one_that_never_came_up() {
    let mut world = World::new();
    world.settle(&sized(2, 1));
    world.broker(1).messages = 3;
    world.fail("demo-broker-master-1");
    world.observed.status = RocketMQClusterStatus::default();
    for _ in 0..5 {
        let plan = world.step(&sized(1, 1));
        assert_eq!(sizes(&plan), (2, 2));
    }
}

#[test]
fn a_master_that_does_not_answer_is_waited_for() {
    let mut world = World::new();
    world.settle(&sized(2, 1));
    world.broker(1).silent = true;
    world.step(&sized(1, 1));
    let plan = world.step(&sized(1, 1));
    assert_eq!((waiting_for(&plan, 1), sizes(&plan)), ("its master to answer: refused", (2, 2)));
}
