//! Tests of the plan: snapshots of the examples, a cluster that comes up and grows; `drain`, `rollout` and `random` below.

use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use rocketmq_remoting::bodies::TopicConfig;

use super::*;
use crate::crd::{RocketMQCluster, RocketMQClusterSpec};
use crate::manifest;
use crate::validate::Defaults;
use world::World;

mod drain;
mod random;
mod rollout;
mod world;

fn cluster(spec: serde_json::Value) -> ValidatedCluster {
    let spec: RocketMQClusterSpec = serde_json::from_value(spec).unwrap();
    ValidatedCluster::new(&RocketMQCluster::new("demo", spec), &Defaults::default()).unwrap()
}

fn sized(replicas: i32, slaves: i32) -> ValidatedCluster {
    cluster(serde_json::json!({ "replicas": replicas, "slaves": slaves, "nameServers": { "replicas": 1 } }))
}

fn sets(plan: &Plan) -> Vec<&StatefulSet> {
    plan.objects
        .iter()
        .filter_map(|object| match object {
            Object::StatefulSet(set) => Some(set.as_ref()),
            _ => None,
        })
        .collect()
}

fn tables(topics: &[&str]) -> Tables {
    let topics = topics.iter().map(|name| ((*name).to_owned(), TopicConfig::new(*name, 8, 6)));
    Tables { topics: topics.collect(), ..Tables::default() }
}

fn condition<'a>(plan: &'a Plan, type_: &str) -> &'a crate::crd::Condition {
    plan.status.conditions.iter().find(|condition| condition.type_ == type_).unwrap()
}

fn states(plan: &Plan) -> Vec<GroupState> {
    plan.status.groups.iter().map(|group| group.state).collect()
}

#[test]
fn the_examples_are_planned_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let defaults = Defaults { namesrv_image: "namesrv:test".to_owned(), broker_image: "broker:test".to_owned() };
    for name in ["minimal", "two-pairs-async", "two-pairs-sync", "multi-master"] {
        let cluster = manifest::read(&folder.join(name).with_extension("yaml")).unwrap();
        let cluster = ValidatedCluster::new(&cluster, &defaults).unwrap();
        insta::assert_snapshot!(name, manifest::objects_yaml(&from_spec(&cluster)).unwrap());
    }
}

#[test]
fn a_new_cluster_comes_up() {
    let cluster = sized(2, 1);
    let mut world = World::new();
    let plan = world.step(&cluster);
    assert_eq!(states(&plan), [GroupState::Starting; 2]);
    assert_eq!(condition(&plan, "Ready").status, "False");
    assert_eq!(condition(&plan, "Reconciling").reason, "WaitingForPods");
    let plan = world.settle(&cluster);
    assert_eq!(states(&plan), [GroupState::Serving; 2]);
    assert_eq!((plan.status.replicas, plan.status.ready_replicas), (2, 2));
    assert_eq!(condition(&plan, "Ready").status, "True");
    assert_eq!(condition(&plan, "Reconciling").status, "False");
    assert_eq!(condition(&plan, "Stalled").status, "False");
    assert!(questions(&cluster, &world.observed) == Questions::default(), "a settled cluster is not asked");
}

#[test]
fn no_groups_at_all_is_a_cluster_too() {
    let plan = World::new().settle(&sized(0, 1));
    assert_eq!(plan.status.replicas, 0);
}

#[test]
fn new_groups_get_the_topics_of_the_others_before_they_count() {
    let mut world = World::new();
    world.settle(&sized(2, 0));
    world.broker(0).tables = tables(&["TBW102", "orders", "on-0-only"]);
    world.broker(1).tables = tables(&["orders", "%RETRY%g"]);
    let cluster = sized(3, 0);
    world.step(&cluster);
    world.all_ready();
    let plan = world.step(&cluster);
    assert_eq!(states(&plan)[2], GroupState::CopyingTopics);
    assert_eq!(condition(&plan, "Reconciling").reason, "CopyingTopics");
    let [Action::CopyTopics { to, missing }] = plan.actions.as_slice() else { panic!("{:?}", plan.actions) };
    let names: Vec<&str> = missing.topics.iter().map(|topic| topic.topic_name.as_str()).collect();
    assert_eq!((*to, names), (2, vec!["%RETRY%g", "on-0-only", "orders"]));
    let plan = world.step(&cluster);
    assert_eq!((plan.actions.len(), states(&plan)[2]), (0, GroupState::Serving));
    // Groups that serve are never made alike.
    assert!(!world.broker(1).tables.topics.contains_key("on-0-only"));
}

#[test]
fn copying_goes_on_where_it_was_after_a_restart_of_the_operator() {
    let mut world = World::new();
    world.settle(&sized(1, 0));
    world.broker(0).tables = tables(&["a", "b"]);
    let cluster = sized(2, 0);
    world.step(&cluster);
    world.all_ready();
    // It ended after the first of two topics.
    world.broker(1).tables = tables(&["a"]);
    let plan = world.step(&cluster);
    let [Action::CopyTopics { missing, .. }] = plan.actions.as_slice() else { panic!("{:?}", plan.actions) };
    assert_eq!(missing.topics.len(), 1);
    assert_eq!(missing.topics[0].topic_name, "b");
}

#[test]
fn a_group_does_not_count_while_one_that_may_know_more_is_silent() {
    let mut world = World::new();
    world.settle(&sized(2, 0));
    world.broker(0).tables = tables(&["a"]);
    let cluster = sized(3, 0);
    world.step(&cluster);
    world.all_ready();
    world.fail("demo-broker-master-1");
    let plan = world.step(&cluster);
    assert_eq!(plan.actions.len(), 1, "what is known is copied at once");
    let plan = world.step(&cluster);
    assert_eq!(states(&plan)[1..], [GroupState::MasterDown, GroupState::CopyingTopics]);
    let message = &condition(&plan, "Reconciling").message;
    assert!(message.contains("waits for broker-1 to be ready"), "{message}");
    world.all_ready();
    assert_eq!(states(&world.step(&cluster)), [GroupState::Serving; 3]);
}

#[test]
fn a_master_that_cannot_be_asked_is_named() {
    let cluster = sized(1, 0);
    let mut world = World::new();
    world.step(&cluster);
    world.all_ready();
    world.broker(0).silent = true;
    let plan = world.step(&cluster);
    assert_eq!(states(&plan), [GroupState::CopyingTopics]);
    assert!(condition(&plan, "Reconciling").message.contains("broker-0: refused"));
}

#[test]
fn what_goes_wrong_is_said() {
    let mut plan = World::new().step(&sized(1, 0));
    let before = plan.status.clone();
    note_faults(&mut plan.status, &[]);
    assert_eq!(plan.status, before);
    note_faults(&mut plan.status, &["broker-0: refused".to_owned()]);
    assert!(condition(&plan, "Reconciling").message.ends_with("; broker-0: refused"));
}

#[test]
fn a_paused_cluster_says_so_and_keeps_what_was_said() {
    let mut world = World::new();
    let status = world.settle(&sized(2, 1)).status;
    let paused = paused_status(Some(7), &status, Timestamp::UNIX_EPOCH);
    assert_eq!((paused.groups.len(), paused.observed_generation), (2, Some(7)));
    let said: Vec<_> = paused.conditions.iter().map(|one| (one.status.as_str(), one.reason.as_str())).collect();
    assert_eq!(said, [("True", "Paused"), ("False", "Paused"), ("False", "NotStalled")]);
}

#[test]
fn a_lost_status_costs_no_topic() {
    let mut world = World::new();
    world.settle(&sized(1, 0));
    world.broker(0).tables = tables(&["a"]);
    world.observed.status = RocketMQClusterStatus::default();
    world.settle(&sized(2, 0));
    assert!(world.broker(1).tables.topics.contains_key("a"));
}

#[test]
fn a_master_that_is_away_has_still_joined() {
    let cluster = sized(2, 1);
    let mut world = World::new();
    world.settle(&cluster);
    world.fail("demo-broker-master-1");
    world.fail("demo-broker-slave-1-0");
    let plan = world.step(&cluster);
    assert_eq!(states(&plan), [GroupState::SlaveMissing, GroupState::MasterDown]);
    world.all_ready();
    let plan = world.step(&cluster);
    assert_eq!((states(&plan), plan.actions.len()), (vec![GroupState::Serving; 2], 0));
}

#[test]
fn slaves_of_an_index_that_is_not_wanted_go() {
    let mut world = World::new();
    world.settle(&sized(2, 2));
    let plan = world.step(&sized(2, 1));
    assert_eq!(plan.remove, ["demo-broker-slave-2"]);
    assert!(world.step(&sized(2, 1)).remove.is_empty());
}

#[test]
fn name_servers_change_no_broker() {
    let broker_sets = |name_servers: i32| {
        let cluster = cluster(serde_json::json!({ "nameServers": { "replicas": name_servers } }));
        let objects = from_spec(&cluster);
        objects.into_iter().filter(|object| object.name().contains("broker")).collect::<Vec<_>>()
    };
    assert_eq!(broker_sets(1), broker_sets(5));
}

#[test]
fn more_groups_change_no_pod_template() {
    let templates = |replicas: i32| {
        let plan = plan(&sized(replicas, 1), &Observed::nothing(Timestamp::UNIX_EPOCH));
        sets(&plan).iter().map(|set| set.spec.clone().unwrap().template).collect::<Vec<_>>()
    };
    assert_eq!(templates(1), templates(9));
}
