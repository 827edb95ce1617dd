//! `broker.conf`: the one config map of a cluster, with what is the same for every broker.
//!
//! What differs between brokers is in the arguments of their pods; there is never a config map for one broker.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::labels::{self, BROKER};
use super::metadata;
use crate::crd::Flush;
use crate::validate::ValidatedCluster;

/// Name of the file in the config map.
pub const FILE: &str = "broker.conf";

/// Name of the config map.
pub fn name(cluster: &ValidatedCluster) -> String {
    format!("{}-broker", cluster.name)
}

/// The config map.
pub fn config_map(cluster: &ValidatedCluster) -> ConfigMap {
    let labels = labels::with_manager(labels::component_selector(cluster, BROKER));
    ConfigMap {
        metadata: metadata(cluster, name(cluster), labels),
        data: Some(BTreeMap::from([(FILE.to_owned(), text(cluster))])),
        ..ConfigMap::default()
    }
}

/// The file: the user's keys in order, then the operator's.
pub fn text(cluster: &ValidatedCluster) -> String {
    let flush = match cluster.flush {
        Flush::Async => "ASYNC_FLUSH",
        Flush::Sync => "SYNC_FLUSH",
    };
    let owned = [("brokerClusterName", cluster.name.as_str()), ("flushDiskType", flush)];
    let given = cluster.config.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    given.chain(owned).fold(String::new(), |text, (key, value)| text + key + "=" + &escaped(value) + "\n")
}

/// The file is a Java properties file, in which a backslash escapes and blanks before a value are dropped.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\");
    if value.starts_with([' ', '\t']) { format!("\\{value}") } else { value }
}

/// A mark that changes with the file, and with nothing else: not with the operator's version nor its build.
pub fn mark(cluster: &ValidatedCluster) -> String {
    format!("{:08x}", crc32fast::hash(text(cluster).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{RocketMQCluster, RocketMQClusterSpec};
    use crate::validate::Defaults;

    #[test]
    fn users_keys_come_first_and_are_escaped() {
        let config = [("fileReservedTime", "48"), ("a", r"C:\x"), ("b", " y")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let spec = RocketMQClusterSpec {
            config: BTreeMap::from(config),
            flush: Flush::Sync,
            ..serde_json::from_str("{}").unwrap()
        };
        let cluster = ValidatedCluster::new(&RocketMQCluster::new("demo", spec), &Defaults::default()).unwrap();
        assert_eq!(
            text(&cluster),
            "a=C:\\\\x\nb=\\ y\nfileReservedTime=48\nbrokerClusterName=demo\nflushDiskType=SYNC_FLUSH\n"
        );
    }
}
