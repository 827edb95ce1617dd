//! A pretend cluster: sets that make pods, masters that hold messages and forget what they were told when they restart,
//! volumes that stay. It does what a plan says, as far as the test lets it.

use super::*;

/// Pods of this image never become ready.
pub(super) const BAD_IMAGE: &str = "bad";

/// A master's volume, and what the process on it has been told.
pub(super) struct Broker {
    pub(super) tables: Tables,
    /// Messages that somebody has still to consume.
    pub(super) messages: i64,
    /// Whether it took one since its group was added.
    pub(super) touched: bool,
    pub(super) access: Access,
    /// It does not answer.
    pub(super) silent: bool,
}

impl Default for Broker {
    fn default() -> Self {
        Self { tables: Tables::default(), messages: 0, touched: false, access: Access::Open, silent: false }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pod {
    pub(super) image: String,
    pub(super) ready: bool,
}

#[derive(Clone)]
struct Set {
    replicas: i32,
    image: String,
}

pub(super) struct World {
    pub(super) observed: Observed,
    pub(super) brokers: BTreeMap<i32, Broker>,
    pub(super) pods: BTreeMap<String, Pod>,
    sets: BTreeMap<String, Set>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            observed: Observed::nothing(Timestamp::UNIX_EPOCH),
            brokers: BTreeMap::new(),
            pods: BTreeMap::new(),
            sets: BTreeMap::new(),
        }
    }

    pub(super) fn broker(&mut self, ordinal: i32) -> &mut Broker {
        self.brokers.entry(ordinal).or_default()
    }

    /// Looks and plans.
    pub(super) fn plan(&mut self, cluster: &ValidatedCluster) -> Plan {
        self.look();
        let Questions { tables, access, backlogs } = questions(cluster, &self.observed);
        for ordinal in tables {
            let broker = self.broker(ordinal);
            let answer = if broker.silent { Err("refused".to_owned()) } else { Ok(broker.tables.clone()) };
            self.observed.tables.insert(ordinal, answer);
        }
        for ordinal in access {
            let broker = self.broker(ordinal);
            let answer = if broker.silent { Err("refused".to_owned()) } else { Ok(broker.access) };
            self.observed.access.insert(ordinal, answer);
        }
        for ordinal in backlogs {
            let broker = self.broker(ordinal);
            let answer = if broker.silent { Err("refused".to_owned()) } else { Ok(holding(broker.messages)) };
            self.observed.backlogs.insert(ordinal, answer);
        }
        plan(cluster, &self.observed)
    }

    fn look(&mut self) {
        let observed = &mut self.observed;
        observed.masters = self.sets.get("demo-broker-master").map(|set| set.replicas);
        let slaves = self
            .sets
            .iter()
            .filter_map(|(name, set)| Some((name.strip_prefix("demo-broker-slave-")?.parse().ok()?, set.replicas)));
        observed.slaves = slaves.collect();
        let of = |holds: &dyn Fn(&str, &Pod) -> bool| -> BTreeSet<String> {
            self.pods.iter().filter(|(name, pod)| holds(name, pod)).map(|(name, _)| name.clone()).collect()
        };
        observed.pods = of(&|_, _| true);
        observed.ready_pods = of(&|_, pod| pod.ready);
        observed.outdated = of(&|name, pod| name.contains("broker") && self.sets[set_of(name)].image != pod.image);
        let stuck = of(&|_, pod| pod.image == BAD_IMAGE);
        observed.stuck = stuck.into_iter().map(|name| (name, "ImagePullBackOff".to_owned())).collect();
        observed.tables.clear();
        observed.access.clear();
        observed.backlogs.clear();
    }

    /// Applies the plan's objects, restarts what it names, publishes its status and does what it says.
    pub(super) fn carry_out(&mut self, plan: &Plan) {
        for set in sets(plan) {
            let spec = set.spec.as_ref().unwrap();
            let image = spec.template.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            let name = set.metadata.name.clone().unwrap();
            self.sets.insert(name, Set { replicas: spec.replicas.unwrap(), image });
        }
        for name in &plan.remove {
            self.sets.remove(name);
        }
        let sets = self.sets.clone();
        let ended: Vec<String> = self
            .pods
            .keys()
            .filter(|name| {
                let ordinal: i32 = name.rsplit_once('-').unwrap().1.parse().unwrap();
                plan.restart.contains(name) || sets.get(set_of(name)).is_none_or(|set| set.replicas <= ordinal)
            })
            .cloned()
            .collect();
        for name in &ended {
            self.fail(name);
            self.pods.remove(name);
        }
        for (name, set) in &sets {
            for ordinal in 0..set.replicas {
                let pod = format!("{name}-{ordinal}");
                if !self.pods.contains_key(&pod) {
                    if name == "demo-broker-master" && !plan.restart.contains(&pod) {
                        self.broker(ordinal).touched = false;
                    }
                    self.pods.insert(pod, Pod { image: set.image.clone(), ready: false });
                }
            }
        }
        for action in &plan.actions {
            match action {
                Action::CopyTopics { to, missing } => {
                    let target = self.broker(*to);
                    for topic in &missing.topics {
                        target.tables.topics.insert(topic.topic_name.clone(), topic.clone());
                    }
                }
                Action::SetAccess { of, access } => {
                    if self.is_ready(&format!("demo-broker-master-{of}")) && !self.broker(*of).silent {
                        self.broker(*of).access = *access;
                    }
                }
            }
        }
        self.observed.status = plan.status.clone();
    }

    fn is_ready(&self, pod: &str) -> bool {
        self.pods.get(pod).is_some_and(|pod| pod.ready)
    }

    /// A pod is not ready any more; a master forgets what it was told.
    pub(super) fn fail(&mut self, name: &str) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.ready = false;
        }
        if let Some(ordinal) = name.strip_prefix("demo-broker-master-") {
            self.broker(ordinal.parse().unwrap()).access = Access::Open;
        }
    }

    /// Makes every pod ready that can be.
    pub(super) fn all_ready(&mut self) {
        for pod in self.pods.values_mut().filter(|pod| pod.image != BAD_IMAGE) {
            pod.ready = true;
        }
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.observed.now = self.observed.now.checked_add(jiff::Span::new().seconds(seconds)).unwrap();
    }

    /// A client sends a message to a group, if its master takes it.
    pub(super) fn send(&mut self, ordinal: i32) {
        if self.is_ready(&format!("demo-broker-master-{ordinal}")) && self.broker(ordinal).access != Access::Sealed {
            self.broker(ordinal).messages += 1;
            self.broker(ordinal).touched = true;
        }
    }

    pub(super) fn step(&mut self, cluster: &ValidatedCluster) -> Plan {
        let plan = self.plan(cluster);
        self.carry_out(&plan);
        plan
    }

    /// Lets everything become ready and be consumed, and walks on until nothing changes any more.
    pub(super) fn settle(&mut self, cluster: &ValidatedCluster) -> Plan {
        for _ in 0..100 {
            let plan = self.step(cluster);
            self.all_ready();
            self.wait(10);
            for broker in self.brokers.values_mut() {
                (broker.messages, broker.silent) = (0, false);
            }
            if plan.settled && self.plan(cluster) == plan {
                return plan;
            }
        }
        panic!("does not settle: {cluster:?}\n{:?}", self.observed);
    }
}

fn set_of(pod: &str) -> &str {
    pod.rsplit_once('-').unwrap().0
}

fn holding(messages: i64) -> Backlog {
    let holdings = crate::backlog::Holdings { timed: messages, ..crate::backlog::Holdings::default() };
    Backlog::of("demo", &holdings)
}
