//! Tests of the plan: snapshots of the examples, single situations, and random histories.

use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use rocketmq_remoting::bodies::TopicConfig;

use super::*;
use crate::crd::{RocketMQCluster, RocketMQClusterSpec};
use crate::manifest;
use crate::validate::Defaults;

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

/// A pretend cluster: does at once what the plan says, as far as the test lets it.
struct World {
    observed: Observed,
    brokers: BTreeMap<i32, Tables>,
}

impl World {
    fn new() -> Self {
        Self { observed: Observed::nothing(Timestamp::UNIX_EPOCH), brokers: BTreeMap::new() }
    }

    /// Looks and plans.
    fn plan(&mut self, cluster: &ValidatedCluster) -> Plan {
        self.observed.tables = wants_tables(cluster, &self.observed)
            .into_iter()
            .map(|ordinal| (ordinal, Ok(self.brokers.entry(ordinal).or_default().clone())))
            .collect();
        plan(cluster, &self.observed)
    }

    /// Applies the plan's objects, publishes its status and does what it says.
    fn carry_out(&mut self, plan: &Plan) {
        for set in sets(plan) {
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap();
            let role = set.metadata.labels.as_ref().unwrap()[labels::ROLE].clone();
            if role == "master" {
                self.observed.masters = Some(replicas);
            } else if let Some(index) = role.strip_prefix("slave-") {
                self.observed.slaves.insert(index.parse().unwrap(), replicas);
            }
        }
        for name in &plan.remove {
            self.observed.slaves.retain(|index, _| !name.ends_with(&format!("-slave-{index}")));
        }
        for Action::CopyTopics { to, missing } in &plan.actions {
            let target = self.brokers.entry(*to).or_default();
            for topic in &missing.topics {
                target.topics.insert(topic.topic_name.clone(), topic.clone());
            }
        }
        self.observed.status = plan.status.clone();
    }

    /// Makes every pod of the plan ready.
    fn all_ready(&mut self, plan: &Plan) {
        self.observed.ready_pods = pods(plan);
    }

    fn step(&mut self, cluster: &ValidatedCluster) -> Plan {
        let plan = self.plan(cluster);
        self.carry_out(&plan);
        plan
    }

    /// Lets everything become ready and walks on until nothing changes any more.
    fn settle(&mut self, cluster: &ValidatedCluster) -> Plan {
        for _ in 0..10 {
            let plan = self.step(cluster);
            self.all_ready(&plan);
            if plan.settled && self.plan(cluster) == plan {
                return plan;
            }
        }
        panic!("does not settle: {:?}", self.observed);
    }
}

fn pods(plan: &Plan) -> BTreeSet<String> {
    sets(plan)
        .into_iter()
        .flat_map(|set| {
            let name = set.metadata.name.clone().unwrap();
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap();
            (0..replicas).map(move |ordinal| format!("{name}-{ordinal}"))
        })
        .collect()
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
    assert!(wants_tables(&cluster, &world.observed).is_empty(), "a settled cluster is not asked");
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
    world.brokers.insert(0, tables(&["TBW102", "orders", "on-0-only"]));
    world.brokers.insert(1, tables(&["orders", "%RETRY%g"]));
    let cluster = sized(3, 0);
    let plan = world.step(&cluster);
    world.all_ready(&plan);
    let plan = world.step(&cluster);
    assert_eq!(states(&plan)[2], GroupState::CopyingTopics);
    assert_eq!(condition(&plan, "Reconciling").reason, "CopyingTopics");
    let Action::CopyTopics { to, missing } = &plan.actions[0];
    let names: Vec<&str> = missing.topics.iter().map(|topic| topic.topic_name.as_str()).collect();
    assert_eq!((*to, names), (2, vec!["%RETRY%g", "on-0-only", "orders"]));
    let plan = world.step(&cluster);
    assert_eq!((plan.actions.len(), states(&plan)[2]), (0, GroupState::Serving));
    // Groups that serve are never made alike.
    assert!(!world.brokers[&1].topics.contains_key("on-0-only"));
}

#[test]
fn copying_goes_on_where_it_was_after_a_restart_of_the_operator() {
    let mut world = World::new();
    world.settle(&sized(1, 0));
    world.brokers.insert(0, tables(&["a", "b"]));
    let cluster = sized(2, 0);
    let plan = world.step(&cluster);
    world.all_ready(&plan);
    // It ended after the first of two topics.
    world.brokers.insert(1, tables(&["a"]));
    let plan = world.step(&cluster);
    let Action::CopyTopics { missing, .. } = &plan.actions[0];
    assert_eq!(missing.topics.len(), 1);
    assert_eq!(missing.topics[0].topic_name, "b");
}

#[test]
fn a_group_does_not_count_while_one_that_may_know_more_is_silent() {
    let mut world = World::new();
    world.settle(&sized(2, 0));
    world.brokers.insert(0, tables(&["a"]));
    let cluster = sized(3, 0);
    let plan = world.step(&cluster);
    world.all_ready(&plan);
    world.observed.ready_pods.remove("demo-broker-master-1");
    let plan = world.step(&cluster);
    assert_eq!(plan.actions.len(), 1, "what is known is copied at once");
    let plan = world.step(&cluster);
    assert_eq!(states(&plan)[1..], [GroupState::MasterDown, GroupState::CopyingTopics]);
    let message = &condition(&plan, "Reconciling").message;
    assert!(message.contains("waits for broker-1 to be ready"), "{message}");
    world.all_ready(&plan);
    assert_eq!(states(&world.step(&cluster)), [GroupState::Serving; 3]);
}

#[test]
fn a_master_that_cannot_be_asked_is_named() {
    let cluster = sized(1, 0);
    let mut world = World::new();
    let plan = world.step(&cluster);
    world.all_ready(&plan);
    world.observed.tables.insert(0, Err("refused".to_owned()));
    let plan = super::plan(&cluster, &world.observed);
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
fn a_lost_status_costs_no_topic() {
    let mut world = World::new();
    world.settle(&sized(1, 0));
    world.brokers.insert(0, tables(&["a"]));
    world.observed.status = RocketMQClusterStatus::default();
    world.settle(&sized(2, 0));
    assert!(world.brokers[&1].topics.contains_key("a"));
}

#[test]
fn fewer_groups_are_refused_and_said() {
    let mut world = World::new();
    world.settle(&sized(3, 1));
    let plan = world.step(&sized(1, 1));
    assert_eq!(plan.status.replicas, 3);
    assert!(sets(&plan)[1..].iter().all(|set| set.spec.as_ref().unwrap().replicas == Some(3)));
    let stalled = condition(&plan, "Stalled");
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "ScaleDownNotSupported"));
    assert!(stalled.message.contains("broker-1, broker-2"), "{}", stalled.message);
    assert_eq!(condition(&plan, "Ready").status, "True", "what there is serves");
    assert_eq!(condition(&world.step(&sized(3, 1)), "Stalled").status, "False");
}

#[test]
fn a_master_that_is_away_has_still_joined() {
    let cluster = sized(2, 1);
    let mut world = World::new();
    world.settle(&cluster);
    world.observed.ready_pods.remove("demo-broker-master-1");
    world.observed.ready_pods.remove("demo-broker-slave-1-0");
    let plan = world.step(&cluster);
    assert_eq!(states(&plan), [GroupState::SlaveMissing, GroupState::MasterDown]);
    world.all_ready(&plan);
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

/// splitmix64, so that a seed says all.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Random specs, pods that come and go, topics that appear, an operator that loses its status: whatever happens,
/// nothing that holds messages is removed, no two sets claim one pod, and once the disturbance ends all is well.
#[test]
fn random_histories_keep_what_must_be_kept() {
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut world = World::new();
        let mut cluster = sized(1, 1);
        for _ in 0..40 {
            match dice.roll(6) {
                0 => cluster = sized(dice.roll(6) as i32, dice.roll(4) as i32),
                1 => {
                    let topic = format!("t{}", dice.roll(9));
                    let ordinal = dice.roll(3) as i32;
                    let config = TopicConfig::new(&topic, 4, 6);
                    world.brokers.entry(ordinal).or_default().topics.insert(topic, config);
                }
                2 if dice.roll(4) == 0 => world.observed.status = RocketMQClusterStatus::default(),
                _ => {}
            }
            let plan = world.plan(&cluster);
            check(&world, &plan, seed);
            if dice.roll(3) != 0 {
                world.carry_out(&plan);
            }
            let pods = pods(&plan);
            world.observed.ready_pods = pods.into_iter().filter(|_| dice.roll(4) != 0).collect();
        }
        let plan = world.settle(&cluster);
        let count = plan.status.replicas;
        assert!(count >= cluster.replicas, "seed {seed}");
        assert_eq!(plan.status.ready_replicas, count, "seed {seed}");
    }
}

fn check(world: &World, plan: &Plan, seed: u64) {
    let observed = &world.observed;
    let sets = sets(plan);
    for set in &sets {
        let spec = set.spec.as_ref().unwrap();
        let name = set.metadata.name.as_deref().unwrap();
        let live = if name.ends_with("-master") {
            observed.masters
        } else {
            name.rsplit_once("-slave-").and_then(|(_, index)| observed.slaves.get(&index.parse().ok()?).copied())
        };
        assert!(spec.replicas >= live, "seed {seed}: {name} shrinks from {live:?} to {:?}", spec.replicas);
        let labels = spec.template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        let claims = sets.iter().filter(|other| {
            let selector = other.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap();
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        assert_eq!(claims.count(), 1, "seed {seed}: the pods of {name} belong to one set");
    }
    assert!(plan.remove.iter().all(|name| name.contains("-slave-")), "seed {seed}: {:?}", plan.remove);
    let names: BTreeSet<&str> = sets.iter().filter_map(|set| set.metadata.name.as_deref()).collect();
    assert!(plan.remove.iter().all(|name| !names.contains(name.as_str())), "seed {seed}");
    for Action::CopyTopics { to, missing } in &plan.actions {
        assert!(!missing.is_empty() && *to < plan.status.replicas, "seed {seed}");
        assert!(!has_joined(observed, *to), "seed {seed}: a group that serves is left alone");
    }
}
