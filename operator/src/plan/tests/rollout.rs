//! Rolling changes.

use super::world::BAD_IMAGE;
use super::*;

fn with_image(replicas: i32, slaves: i32, image: &str) -> ValidatedCluster {
    cluster(serde_json::json!({
        "replicas": replicas, "slaves": slaves, "nameServers": { "replicas": 1 }, "image": { "broker": image },
    }))
}

/// Walks on while everything becomes ready at once; the pods in the order in which they are restarted.
fn restarts(world: &mut World, cluster: &ValidatedCluster) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..50 {
        let plan = world.step(cluster);
        all.extend(plan.restart.clone());
        world.all_ready();
    }
    all
}

#[test]
fn slaves_go_before_their_master_and_groups_after_each_other() {
    let mut world = World::new();
    world.settle(&with_image(2, 2, "old"));
    let cluster = with_image(2, 2, "new");
    let pods = ["slave-1-0", "slave-2-0", "master-0", "slave-1-1", "slave-2-1", "master-1"];
    let expected = pods.map(|pod| format!("demo-broker-{pod}"));
    assert_eq!(restarts(&mut world, &cluster), expected);
    assert!(world.plan(&cluster).settled);
}

#[test]
fn nothing_goes_while_something_is_not_ready() {
    let mut world = World::new();
    world.settle(&with_image(2, 1, "old"));
    let cluster = with_image(2, 1, "new");
    world.step(&cluster);
    let plan = world.step(&cluster);
    assert_eq!(plan.restart, ["demo-broker-slave-1-0"]);
    for _ in 0..3 {
        let plan = world.step(&cluster);
        assert!(plan.restart.is_empty() && !plan.settled, "{:?}", plan.restart);
        let reconciling = condition(&plan, "Reconciling");
        assert_eq!(reconciling.reason, "RollingOut");
        assert!(reconciling.message.contains("3 of 4 brokers"), "{}", reconciling.message);
        assert!(
            reconciling.message.ends_with("waits for demo-broker-slave-1-0 to be ready"),
            "{}",
            reconciling.message
        );
    }
}

#[test]
fn a_bad_image_stops_at_the_first_pod_and_reverting_heals() {
    let mut world = World::new();
    world.settle(&with_image(3, 1, "good"));
    assert_eq!(restarts(&mut world, &with_image(3, 1, BAD_IMAGE)), ["demo-broker-slave-1-0"]);
    let plan = world.plan(&with_image(3, 1, BAD_IMAGE));
    let stalled = condition(&plan, "Stalled");
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "PodFails"));
    assert!(stalled.message.contains("demo-broker-slave-1-0: ImagePullBackOff"), "{}", stalled.message);
    assert_eq!(restarts(&mut world, &with_image(3, 1, "good")), ["demo-broker-slave-1-0"]);
    let plan = world.plan(&with_image(3, 1, "good"));
    assert!(plan.settled);
    assert_eq!(condition(&plan, "Stalled").status, "False");
}

#[test]
fn a_pod_that_fails_elsewhere_meanwhile_is_not_given_the_bad_image() {
    let mut world = World::new();
    world.settle(&with_image(2, 1, "good"));
    let bad = with_image(2, 1, BAD_IMAGE);
    restarts(&mut world, &bad);
    for pod in ["demo-broker-slave-1-1", "demo-broker-master-0"] {
        world.fail(pod);
        assert!(world.step(&bad).restart.is_empty(), "{pod}");
        world.all_ready();
    }
}

#[test]
fn a_cluster_that_never_came_up_heals() {
    let mut world = World::new();
    for _ in 0..3 {
        world.step(&with_image(2, 1, BAD_IMAGE));
    }
    let order = restarts(&mut world, &with_image(2, 1, "good"));
    assert_eq!(order[0], "demo-broker-master-0", "a slave is not ready without it");
    assert_eq!(order.len(), 4);
    assert!(world.plan(&with_image(2, 1, "good")).settled);
}

#[test]
fn groups_that_are_scaled_away_go_as_they_are() {
    let mut world = World::new();
    world.settle(&with_image(2, 0, "old"));
    world.broker(1).messages = 1;
    assert_eq!(restarts(&mut world, &with_image(1, 0, "new")), ["demo-broker-master-0"]);
}
