//! The controller: walks observe → validate → plan → act → apply → publish whenever a cluster or a child of it changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

use crate::apply;
use crate::broker_admin::BrokerAdmin;
use crate::build::broker::group_name;
use crate::build::labels;
use crate::crd::RocketMQCluster;
use crate::events::{self, Happening};
use crate::health::Metrics;
use crate::observe::{self, Dial, Seen};
use crate::plan;
use crate::validate::{Defaults, ValidatedCluster};

/// The annotation that makes the operator leave a cluster alone while it is `true`.
const PAUSE: &str = "rocketmq.rs/pause";
/// How long after a pass that waits for something the next one comes, if nothing changes before.
const WAITING: Duration = Duration::from_secs(5);
/// How long after a pass that acted the next one comes, to see what came of it.
const ACTED: Duration = Duration::from_millis(500);
/// How often a settled cluster is looked at though nothing was reported.
const SETTLED: Duration = Duration::from_mins(5);
/// How long after a pass that failed the next one comes.
const FAILED: Duration = Duration::from_secs(5);

/// What the controller is told to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The one namespace to look at, or all of them.
    pub namespace: Option<String>,
    /// Images for clusters that name none.
    pub defaults: Defaults,
    /// By what brokers are reached.
    pub dial: Dial,
}

struct Context {
    client: Client,
    admin: BrokerAdmin,
    /// For clusters with TLS.
    tls_admin: BrokerAdmin,
    recorder: Recorder,
    options: Options,
    metrics: Arc<Metrics>,
}

impl Context {
    fn admin(&self, cluster: &ValidatedCluster) -> &BrokerAdmin {
        if cluster.tls.is_some() { &self.tls_admin } else { &self.admin }
    }
}

/// How the operator reaches brokers.
#[derive(Debug)]
pub struct Admins {
    /// Those of clusters without TLS of their own.
    pub plain: BrokerAdmin,
    /// Those of clusters with TLS.
    pub tls: BrokerAdmin,
}

/// Runs until the process is told to end.
pub async fn run(client: Client, admins: Admins, options: Options, metrics: Arc<Metrics>) {
    fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
    let namespace = options.namespace.clone();
    let namespace = namespace.as_deref();
    let clusters: Api<DeserializeGuard<RocketMQCluster>> = api(&client, namespace);
    let sets: Api<StatefulSet> = api(&client, namespace);
    let services: Api<Service> = api(&client, namespace);
    let config_maps: Api<ConfigMap> = api(&client, namespace);
    let children = watcher::Config::default().labels(labels::MANAGED);
    let reporter = Reporter { controller: apply::FIELD_MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
    let recorder = Recorder::new(client.clone(), reporter);
    let Admins { plain: admin, tls: tls_admin } = admins;
    let context = Arc::new(Context { client, admin, tls_admin, recorder, options, metrics });
    Controller::new(clusters, watcher::Config::default())
        .owns(sets, children.clone())
        .owns(services, children.clone())
        .owns(config_maps, children)
        .with_config(Config::default().debounce(Duration::from_millis(100)).concurrency(8))
        .shutdown_on_signal()
        .run(pass, after_error, context)
        .for_each(|result| async move {
            if let Err(fault) = result {
                tracing::warn!("{fault}");
            }
        })
        .await;
}

async fn pass(cluster: Arc<DeserializeGuard<RocketMQCluster>>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let started = Instant::now();
    let result = reconcile(&cluster, &context).await;
    context.metrics.passed(result.is_ok(), started.elapsed());
    result
}

async fn reconcile(cluster: &DeserializeGuard<RocketMQCluster>, context: &Context) -> Result<Action, kube::Error> {
    let cluster = match &cluster.0 {
        Ok(cluster) => cluster,
        Err(fault) => {
            // It is older than its definition. Nothing can be planned, and nothing of it is touched.
            tracing::error!(cluster = cluster.name_any(), "cannot be read: {fault}");
            return Ok(Action::await_change());
        }
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        // Everything is owned by it and goes with it.
        return Ok(Action::await_change());
    }
    let client = &context.client;
    let previous = cluster.status.clone().unwrap_or_default();
    let valid = match ValidatedCluster::new(cluster, &context.options.defaults) {
        Ok(valid) => valid,
        Err(fault) => {
            let generation = cluster.metadata.generation;
            let status = plan::invalid_status(&fault, generation, &previous, Timestamp::now());
            apply::publish(client, cluster, &status).await?;
            return Ok(Action::await_change());
        }
    };
    if cluster.annotations().get(PAUSE).is_some_and(|value| value == "true") {
        let status = plan::paused_status(cluster.metadata.generation, &previous, Timestamp::now());
        apply::publish(client, cluster, &status).await?;
        return Ok(Action::await_change());
    }
    let dial = context.options.dial;
    let seen = observe::observe(client, context.admin(&valid), dial, &valid, previous).await?;
    let mut plan = plan::plan(&valid, &seen.observed);
    apply::apply(client, &valid, &plan, &seen.generations).await?;
    tell(context, cluster, &events::happenings(&seen.observed.status, &plan)).await;
    let faults = act(context, &valid, &seen, &plan).await;
    plan::note_faults(&mut plan.status, &faults);
    apply::publish(client, cluster, &plan.status).await?;
    Ok(Action::requeue(match (plan.actions.is_empty(), plan.settled) {
        (false, _) if faults.is_empty() => ACTED,
        (true, true) => SETTLED,
        _ => WAITING,
    }))
}

/// Does what the plan says to do with brokers; returns what went wrong.
async fn act(context: &Context, cluster: &ValidatedCluster, seen: &Seen, plan: &plan::Plan) -> Vec<String> {
    let mut faults = Vec::new();
    for action in &plan.actions {
        let (of, result) = match action {
            plan::Action::CopyTopics { to, missing } => {
                let Some(address) = seen.masters.get(to) else { continue };
                let count = missing.topics.len() + missing.groups.len();
                tracing::info!(cluster = cluster.name, address, count, "creating topics and consumer groups");
                let result = context.admin(cluster).create(address, missing).await;
                if result.is_ok() {
                    context.metrics.copied(count);
                }
                (*to, result)
            }
            plan::Action::SetAccess { of, access } => {
                let Some(address) = seen.masters.get(of) else { continue };
                tracing::info!(cluster = cluster.name, address, ?access, "telling which messages to take");
                (*of, context.admin(cluster).set_access(address, *access).await)
            }
        };
        if let Err(fault) = result {
            tracing::warn!(cluster = cluster.name, group = group_name(of), "{fault}");
            faults.push(format!("{}: {fault}", group_name(of)));
        }
    }
    faults
}

/// Publishes events. One that cannot be written is not worth a pass.
async fn tell(context: &Context, cluster: &RocketMQCluster, happenings: &[Happening]) {
    for happening in happenings {
        let event = Event {
            type_: if happening.warning { EventType::Warning } else { EventType::Normal },
            reason: happening.reason.to_owned(),
            note: Some(happening.note.clone()),
            action: happening.reason.to_owned(),
            secondary: None,
        };
        if let Err(fault) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
            tracing::warn!(cluster = cluster.name_any(), reason = happening.reason, "no event: {fault}");
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the controller calls it with these")]
fn after_error(cluster: Arc<DeserializeGuard<RocketMQCluster>>, fault: &kube::Error, _: Arc<Context>) -> Action {
    tracing::warn!(cluster = cluster.name_any(), "{fault}");
    Action::requeue(FAILED)
}
