//! Reads a `RocketMQCluster` from a YAML file and checks it as an API server would: defaults, schema, CEL rules.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kube::Resource;
use kube::core::cel::ValidationError;
use serde::Serialize;
use serde_json::Value;

use crate::build::Object;
use crate::crd::{self, RocketMQCluster};
use crate::schema;

/// Reads the manifest in `path`. The error names each field that is wrong.
pub fn read(path: &Path) -> Result<RocketMQCluster> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not a valid RocketMQCluster", path.display()))
}

/// Reads a manifest from its text.
pub fn parse(text: &str) -> Result<RocketMQCluster> {
    let mut value: Value = serde_saphyr::from_str(text).context("not one YAML document")?;
    let api_version = RocketMQCluster::api_version(&());
    let kind = RocketMQCluster::kind(&());
    if value["apiVersion"] != *api_version || value["kind"] != *kind {
        bail!(
            "apiVersion and kind are {} and {}, wanted are {api_version} and {kind}",
            value["apiVersion"],
            value["kind"],
        );
    }
    if !value["metadata"]["name"].is_string() {
        bail!("metadata.name: is required");
    }
    if value["spec"].is_null() {
        value["spec"] = Value::Object(serde_json::Map::new());
    }
    let faults = schema::faults(&open_api_schema()?, &value);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let cluster: RocketMQCluster = serde_json::from_value(value)?;
    check_rules(&cluster)?;
    Ok(cluster)
}

/// Runs the CEL rules of the resource, without those that compare with an earlier state.
pub fn check_rules(cluster: &RocketMQCluster) -> Result<()> {
    cluster.validate_cel().map_err(|faults| lines(&faults))
}

/// Runs all CEL rules of the resource, with `old` as the state before.
pub fn check_change(new: &RocketMQCluster, old: &RocketMQCluster) -> Result<()> {
    if new.metadata.name != old.metadata.name {
        bail!("metadata.name: a cluster cannot be renamed");
    }
    new.validate_cel_update(old).map_err(|faults| lines(&faults))
}

fn lines(faults: &[ValidationError]) -> anyhow::Error {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("\n"))
}

fn open_api_schema() -> Result<Value> {
    let definition = crd::definition();
    let schema = definition
        .spec
        .versions
        .first()
        .and_then(|version| version.schema.as_ref())
        .and_then(|schema| schema.open_api_v3_schema.as_ref())
        .context("the resource has no schema")?;
    let mut schema = serde_json::to_value(schema)?;
    // The API server checks these by the types of Kubernetes; a resource's own schema leaves them open.
    for name in ["apiVersion", "kind", "metadata"] {
        schema["properties"][name] = serde_json::json!({ "x-kubernetes-preserve-unknown-fields": true });
    }
    Ok(schema)
}

/// The custom resource definition as YAML.
pub fn definition_yaml() -> Result<String> {
    yaml(&crd::definition())
}

/// Objects as YAML documents, one after the other.
pub fn objects_yaml(objects: &[Object]) -> Result<String> {
    objects.iter().try_fold(String::new(), |text, object| Ok(text + "---\n" + &yaml(object)?))
}

/// By way of JSON, whose maps are sorted: the same object is always the same text.
fn yaml(object: &impl Serialize) -> Result<String> {
    Ok(serde_saphyr::to_string(&serde_json::to_value(object)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(spec: &str) -> String {
        format!("apiVersion: rocketmq.rs/v1alpha1\nkind: RocketMQCluster\nmetadata: {{ name: demo }}\n{spec}")
    }

    fn refusal(spec: &str) -> String {
        format!("{:#}", parse(&manifest(spec)).unwrap_err())
    }

    #[test]
    fn four_lines_are_a_cluster() {
        let cluster = parse(&manifest("")).unwrap();
        assert_eq!((cluster.spec.replicas, cluster.spec.slaves), (1, 1));
        assert_eq!(parse(&manifest("spec: {}")).unwrap(), cluster);
    }

    #[test]
    fn every_fault_names_its_field() {
        for (spec, start) in [
            ("spec: { replicas: 65 }", "spec.replicas: 65 is above"),
            ("spec: { replicas: two }", "spec.replicas: \"two\" is not of type integer"),
            ("spec: { slaves: -1 }", "spec.slaves: -1 is below"),
            ("spec: { replication: async }", "spec.replication: \"async\" is not one of"),
            ("spec: { slave: 1 }", "spec.slave: unknown field"),
            ("spec: { nameServers: { replicas: 6 } }", "spec.nameServers.replicas: 6 is above"),
            ("spec: { config: { fileReservedTime: 48 } }", "spec.config.fileReservedTime: 48 is not of type string"),
        ] {
            let text = refusal(spec);
            assert!(text.starts_with(start), "{spec}: {text}");
        }
        let text = refusal("spec: { config: { brokerId: '1' } }");
        assert!(text.contains("config.brokerId is set by the operator"), "{text}");
    }

    #[test]
    fn another_kind_is_refused() {
        let text = format!("{:#}", parse("apiVersion: v1\nkind: Pod\nmetadata: { name: a }").unwrap_err());
        assert!(text.contains("RocketMQCluster"), "{text}");
        assert!(parse("").is_err() && parse("a: [").is_err() && parse("- 1").is_err());
    }

    #[test]
    fn a_change_is_held_against_what_was_before() {
        let old = parse(&manifest("spec: { replicas: 1 }")).unwrap();
        let more = parse(&manifest("spec: { replicas: 2 }")).unwrap();
        check_change(&more, &old).unwrap();
        let larger = parse(&manifest("spec: { storage: { size: 20Gi } }")).unwrap();
        assert!(check_change(&larger, &old).unwrap_err().to_string().contains("storage.size"));
        let mut renamed = more;
        renamed.metadata.name = Some("other".to_owned());
        assert!(check_change(&renamed, &old).is_err());
    }

    #[test]
    fn the_examples_are_accepted() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
        let mut count = 0;
        for example in std::fs::read_dir(folder).unwrap() {
            read(&example.unwrap().path()).unwrap();
            count += 1;
        }
        assert!(count >= 4);
    }
}
