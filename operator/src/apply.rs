//! Writes a plan to the API server by server-side apply, under one field manager.
//!
//! Applying the same object again changes nothing there, not even its resource version.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::build::Object;
use crate::crd::{RocketMQCluster, RocketMQClusterStatus};
use crate::plan::Plan;
use crate::validate::ValidatedCluster;

/// Owner of the fields the operator writes.
pub const FIELD_MANAGER: &str = "rocketmq-operator";

/// Applies the plan's objects, removes the sets that it says shall go, and restarts the pods that it names.
///
/// `generations` are those of the sets by which the plan knows that the pods are outdated. Where applying has changed a set
/// since, pods are left for the next pass: a set that has not seen its new template makes a pod from the old one.
pub async fn apply(
    client: &Client,
    cluster: &ValidatedCluster,
    plan: &Plan,
    generations: &BTreeMap<String, i64>,
) -> Result<(), kube::Error> {
    let mut unchanged = true;
    for object in &plan.objects {
        let namespace = &cluster.namespace;
        match object {
            Object::ConfigMap(object) => apply_one(client, namespace, object.as_ref()).await?,
            Object::Service(object) => apply_one(client, namespace, object.as_ref()).await?,
            Object::PodDisruptionBudget(object) => apply_one(client, namespace, object.as_ref()).await?,
            Object::StatefulSet(object) => {
                let applied = apply_one(client, namespace, object.as_ref()).await?;
                let seen = applied.name.as_ref().and_then(|name| generations.get(name));
                unchanged &= seen.is_some() && seen == applied.generation.as_ref();
                continue;
            }
        };
    }
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    for name in &plan.remove {
        if done(sets.delete(name, &DeleteParams::background()).await.map(drop))? {
            tracing::info!(cluster = cluster.name, set = name, "removed");
        }
    }
    if !unchanged {
        return Ok(());
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    for name in &plan.restart {
        if done(pods.delete(name, &DeleteParams::default()).await.map(drop))? {
            tracing::info!(cluster = cluster.name, pod = name, "restarted");
        }
    }
    Ok(())
}

/// Whether there was anything to delete.
fn done(result: Result<(), kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(fault)) if fault.is_not_found() => Ok(false),
        Err(fault) => Err(fault),
    }
}

async fn apply_one<K>(client: &Client, namespace: &str, object: &K) -> Result<ObjectMeta, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.meta().name.as_deref().unwrap_or_default();
    let applied = api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await?;
    Ok(applied.meta().clone())
}

/// Publishes the status, unless `published` says it already.
pub async fn publish(
    client: &Client,
    cluster: &RocketMQCluster,
    status: &RocketMQClusterStatus,
) -> Result<(), kube::Error> {
    if cluster.status.as_ref() == Some(status) {
        return Ok(());
    }
    let (Some(namespace), Some(name)) = (&cluster.metadata.namespace, &cluster.metadata.name) else {
        return Ok(());
    };
    let api: Api<RocketMQCluster> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "apiVersion": RocketMQCluster::api_version(&()),
        "kind": RocketMQCluster::kind(&()),
        "metadata": { "name": name },
        "status": status,
    });
    api.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&patch)).await?;
    Ok(())
}
