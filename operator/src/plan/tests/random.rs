//! Random histories: specs that change, pods that come and go, masters that restart or are silent, messages, an operator
//! that stops half way or loses its status. Whatever happens, nothing is taken away that holds messages, no two pods of one
//! group are taken down, and once the disturbance ends all is as it shall be.

use super::world::BAD_IMAGE;
use super::*;
use crate::crd::ScaleDownPolicy;

/// Histories; the states tried are fifty times as many.
const HISTORIES: u64 = 600;
const STEPS: usize = 50;

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

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

fn random_cluster(dice: &mut Dice) -> ValidatedCluster {
    let scale_down = dice.one_of(&[
        r#"{ "policy": "Wait" }"#,
        r#"{ "policy": "Wait" }"#,
        r#"{ "policy": "Retain", "deadlineSeconds": 60 }"#,
        r#"{ "policy": "Discard", "deadlineSeconds": 60 }"#,
    ]);
    cluster(serde_json::json!({
        "replicas": dice.roll(5), "slaves": dice.roll(3), "nameServers": { "replicas": 1 },
        "image": { "broker": dice.one_of(&["a", "a", "b", BAD_IMAGE]) },
        "scaleDown": serde_json::from_str::<serde_json::Value>(scale_down).unwrap(),
    }))
}

fn disturb(world: &mut World, dice: &mut Dice, cluster: &mut ValidatedCluster) {
    let ordinal = dice.roll(5) as i32;
    match dice.roll(12) {
        0 => *cluster = random_cluster(dice),
        1 => {
            let topic = format!("t{}", dice.roll(9));
            let config = TopicConfig::new(&topic, 4, 6);
            world.broker(ordinal).tables.topics.insert(topic, config);
        }
        2 if dice.roll(4) == 0 => world.observed.status = RocketMQClusterStatus::default(),
        3..=4 => world.send(ordinal),
        5..=6 => world.broker(ordinal).messages = 0,
        7 => world.broker(ordinal).silent = dice.roll(2) == 0,
        8..=9 => world.wait(20),
        10 => {
            let names: Vec<String> = world.pods.keys().cloned().collect();
            if !names.is_empty() {
                world.fail(&names[dice.roll(names.len() as u64) as usize]);
            }
        }
        _ => world.all_ready(),
    }
    // Some of those that are not ready become so.
    for pod in world.pods.values_mut().filter(|pod| pod.image != BAD_IMAGE && !pod.ready) {
        pod.ready = dice.roll(3) == 0;
    }
}

#[test]
fn random_histories_keep_what_must_be_kept() {
    let chosen = std::env::var("PLAN_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = chosen.map_or(0..HISTORIES, |seed| seed..seed + 1);
    let (mut states, mut removed, mut restarted) = (0, 0, 0);
    for seed in seeds {
        let mut dice = Dice(seed);
        let mut world = World::new();
        let mut cluster = sized(1, 1);
        for _ in 0..STEPS {
            disturb(&mut world, &mut dice, &mut cluster);
            let plan = world.plan(&cluster);
            removed += check(&world, &cluster, &plan, seed);
            states += 1;
            restarted += plan.restart.len();
            if dice.roll(4) != 0 {
                world.carry_out(&plan);
            }
        }
        cluster.broker_image = "a".to_owned();
        let plan = world.settle(&cluster);
        assert_eq!(plan.status.replicas, cluster.replicas, "PLAN_SEED={seed}");
        assert_eq!(plan.status.ready_replicas, cluster.replicas, "PLAN_SEED={seed}");
        assert!(world.observed.outdated.is_empty(), "PLAN_SEED={seed}");
        for ordinal in 0..cluster.replicas {
            assert_eq!(world.broker(ordinal).access, Access::Open, "PLAN_SEED={seed}: broker-{ordinal}");
        }
    }
    eprintln!("{states} states, {removed} groups removed, {restarted} restarts");
    // A test in which nothing happens would show nothing.
    assert!(chosen.is_some() || (removed > 100 && restarted > 100));
}

/// What holds of every plan. Returns how many groups it removes.
fn check(world: &World, cluster: &ValidatedCluster, plan: &Plan, seed: u64) -> usize {
    let observed = &world.observed;
    let sets = sets(plan);
    let size = |name: &str| {
        let set = sets.iter().find(|set| set.metadata.name.as_deref() == Some(name));
        set.map(|set| set.spec.as_ref().unwrap().replicas.unwrap())
    };
    let masters = size("demo-broker-master").unwrap();
    let removed = masters..observed.masters.unwrap_or(0).max(masters);
    for (name, live) in observed.slaves.iter().map(|(index, live)| (format!("demo-broker-slave-{index}"), *live)) {
        let Some(wanted) = size(&name) else { continue };
        for ordinal in wanted..live {
            leaves_nothing(world, cluster, ordinal, seed);
        }
    }
    for ordinal in removed.clone() {
        assert!(ordinal >= cluster.replicas, "PLAN_SEED={seed}: broker-{ordinal} is wanted");
        leaves_nothing(world, cluster, ordinal, seed);
        let slaves = observed.pods.iter().filter(|name| name.contains("-slave-"));
        let left = slaves.filter(|name| name.ends_with(&format!("-{ordinal}"))).count();
        assert_eq!(left, 0, "PLAN_SEED={seed}: broker-{ordinal} loses its master before its slaves");
    }
    takes_down_no_two(observed, cluster, plan, seed);
    one_set_for_each_pod(&sets, seed);
    assert!(plan.remove.iter().all(|name| name.contains("-slave-")), "PLAN_SEED={seed}: {:?}", plan.remove);
    assert!(plan.remove.iter().all(|name| size(name).is_none()), "PLAN_SEED={seed}");
    for action in &plan.actions {
        match action {
            Action::CopyTopics { to, missing } => {
                assert!(!missing.is_empty() && *to < cluster.replicas, "PLAN_SEED={seed}");
                assert!(!has_joined(observed, *to), "PLAN_SEED={seed}: a group that serves is left alone");
            }
            Action::SetAccess { of, access } => {
                assert_eq!(*of < cluster.replicas, *access == Access::Open, "PLAN_SEED={seed}: {action:?}");
            }
        }
    }
    removed.len()
}

/// A group that loses pods is empty and takes nothing more, or was never sent anything, or its time is up.
fn leaves_nothing(world: &World, cluster: &ValidatedCluster, ordinal: i32, seed: u64) {
    let Some(broker) = world.brokers.get(&ordinal) else { return };
    let ready = world.observed.ready_pods.contains(&format!("demo-broker-master-{ordinal}"));
    let sealed = ready && broker.access == Access::Sealed;
    let never_used = !ready && !broker.touched;
    let allowed = match cluster.scale_down {
        ScaleDownPolicy::Wait => (sealed && broker.messages == 0) || never_used,
        ScaleDownPolicy::Retain | ScaleDownPolicy::Discard => sealed || !ready,
    };
    assert!(
        allowed,
        "PLAN_SEED={seed}: broker-{ordinal} is taken away with {} messages, {:?}, ready {ready}",
        broker.messages, broker.access
    );
}

/// A pod that is ready is restarted only while every other one is; and only one.
fn takes_down_no_two(observed: &Observed, cluster: &ValidatedCluster, plan: &Plan, seed: u64) {
    assert!(plan.restart.len() <= 1, "PLAN_SEED={seed}: {:?}", plan.restart);
    for pod in &plan.restart {
        assert!(observed.outdated.contains(pod), "PLAN_SEED={seed}: {pod} is current");
        if observed.ready_pods.contains(pod) {
            let roles = std::iter::once(Role::Master).chain((1..=cluster.slaves).map(Role::Slave));
            for other in roles.flat_map(|role| (0..cluster.replicas).map(move |at| broker::pod_name(cluster, role, at)))
            {
                assert!(observed.ready_pods.contains(&other), "PLAN_SEED={seed}: {pod} goes, {other} is down");
            }
        }
    }
}

fn one_set_for_each_pod(sets: &[&StatefulSet], seed: u64) {
    for set in sets {
        let spec = set.spec.as_ref().unwrap();
        let labels = spec.template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        let claims = sets.iter().filter(|other| {
            let selector = other.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap();
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        assert_eq!(claims.count(), 1, "PLAN_SEED={seed}: the pods of {:?} belong to one set", set.metadata.name);
    }
}
