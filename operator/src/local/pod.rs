//! From a planned stateful set to the command lines of its pods, as a kubelet makes them, with what must differ on one
//! machine: ports, addresses and folders.

use k8s_openapi::api::apps::v1::StatefulSet;

use crate::build::{broker, labels, namesrv};

/// Which program a pod runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Program {
    /// `mqnamesrv`
    NameServer,
    /// `mqbroker`
    Broker,
}

impl Program {
    /// Name of the executable.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::NameServer => "mqnamesrv",
            Self::Broker => "mqbroker",
        }
    }
}

/// A pod that shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its name, `<set>-<ordinal>`.
    pub name: String,
    /// What it runs.
    pub program: Program,
    /// Whether it is a slave; slaves go before masters when something has to restart.
    pub is_slave: bool,
    /// Its ordinal in its set.
    pub ordinal: i32,
    /// Arguments, with Kubernetes' references to the pod's own fields resolved.
    pub args: Vec<String>,
    /// How long it may take to end, in seconds.
    pub grace_seconds: u64,
}

/// The pods of a planned set. A set that runs neither of our programs has none.
pub(super) fn pods(set: &StatefulSet) -> Vec<Pod> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let Some(template) = &spec.template.spec else { return Vec::new() };
    let Some(container) = template.containers.first() else { return Vec::new() };
    let program = match container.name.as_str() {
        namesrv::CONTAINER => Program::NameServer,
        broker::CONTAINER => Program::Broker,
        _ => return Vec::new(),
    };
    let set_name = set.metadata.name.clone().unwrap_or_default();
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let role = set.metadata.labels.as_ref().and_then(|labels| labels.get(labels::ROLE));
    let is_slave = role.is_some_and(|role| role.starts_with("slave-"));
    (0..spec.replicas.unwrap_or(1))
        .map(|ordinal| {
            let name = format!("{set_name}-{ordinal}");
            let resolved = |arg: &String| {
                arg.replace("$(POD_INDEX)", &ordinal.to_string())
                    .replace("$(POD_NAME)", &name)
                    .replace("$(POD_NAMESPACE)", &namespace)
            };
            let args = container.args.iter().flatten().map(resolved).collect();
            let grace = template.termination_grace_period_seconds.unwrap_or(30);
            let grace_seconds = u64::try_from(grace).unwrap_or(0);
            Pod { name, program, is_slave, ordinal, args, grace_seconds }
        })
        .collect()
}

/// Whether the pods of a planned set leave nothing behind when the set shrinks.
pub(super) fn discards(set: &StatefulSet) -> bool {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete")
}

/// `args` with other values: of `--set key=…` for each key in `settings`, added at the end where it is not there, and of
/// the options in `options` where they are there.
pub(super) fn with_values(args: &[String], settings: &[(&str, String)], options: &[(&str, String)]) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    let mut left: Vec<&(&str, String)> = settings.iter().collect();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        result.push(arg.clone());
        let replaced = options.iter().find(|(option, _)| option == arg);
        if replaced.is_none() && arg != "--set" {
            continue;
        }
        let Some(value) = args.next() else { break };
        let key = value.split_once('=').map_or(value.as_str(), |(key, _)| key);
        if let Some((_, other)) = replaced {
            result.push(other.clone());
        } else if let Some(at) = left.iter().position(|(wanted, _)| *wanted == key) {
            let (key, other) = left.remove(at);
            result.push(format!("{key}={other}"));
        } else {
            result.push(value.clone());
        }
    }
    for (key, value) in left {
        result.extend(["--set".to_owned(), format!("{key}={value}")]);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::broker::Role;
    use crate::crd::RocketMQCluster;
    use crate::validate::{Defaults, ValidatedCluster};

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn values_are_replaced_where_they_stand_and_added_where_they_do_not() {
        let args = words("-c /etc/x --set a=1 --set b=2 -n old");
        let settings = [("b", "3".to_owned()), ("c", "4".to_owned())];
        let options = [("-n", "new".to_owned()), ("-x", "never".to_owned())];
        assert_eq!(with_values(&args, &settings, &options), words("-c /etc/x --set a=1 --set b=3 -n new --set c=4"));
        assert_eq!(with_values(&words("--set"), &[], &[]), words("--set"));
    }

    #[test]
    fn a_pods_arguments_are_its_own() {
        let spec = serde_json::from_str("{}").unwrap();
        let cluster = ValidatedCluster::new(&RocketMQCluster::new("demo", spec), &Defaults::default()).unwrap();
        let pods = pods(&broker::stateful_set(&cluster, Role::Slave(1), 2));
        assert_eq!(pods.len(), 2);
        assert_eq!(pods[1].name, "demo-broker-slave-1-1");
        assert!(pods[1].is_slave);
        assert_eq!(pods[1].grace_seconds, 60);
        for arg in [
            "brokerName=broker-1",
            "brokerId=1",
            "brokerRole=SLAVE",
            "brokerIP1=demo-broker-slave-1-1.demo-broker.default.svc",
        ] {
            assert!(pods[1].args.iter().any(|found| found == arg), "{arg} in {:?}", pods[1].args);
        }
        assert!(!pods[1].args.iter().any(|arg| arg.contains("$(")), "{:?}", pods[1].args);
    }
}
