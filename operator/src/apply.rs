//! Writes a plan to the API server by server-side apply, under one field manager.
//!
//! Applying the same object again changes nothing there, not even its resource version.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
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

/// Applies the plan's objects and removes what it says shall go.
pub async fn apply(client: &Client, cluster: &ValidatedCluster, plan: &Plan) -> Result<(), kube::Error> {
    for object in &plan.objects {
        let namespace = &cluster.namespace;
        match object {
            Object::ConfigMap(object) => apply_one(client, namespace, object.as_ref()).await?,
            Object::Service(object) => apply_one(client, namespace, object.as_ref()).await?,
            Object::StatefulSet(object) => apply_one(client, namespace, object.as_ref()).await?,
        }
    }
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    for name in &plan.remove {
        match sets.delete(name, &DeleteParams::background()).await {
            Ok(_) => tracing::info!(cluster = cluster.name, set = name, "removed"),
            Err(kube::Error::Api(fault)) if fault.is_not_found() => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

async fn apply_one<K>(client: &Client, namespace: &str, object: &K) -> Result<(), kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.meta().name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await?;
    Ok(())
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
