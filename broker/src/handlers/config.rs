//! `GET_BROKER_CONFIG` and `UPDATE_BROKER_CONFIG`.

use std::fmt::Write as _;

use parking_lot::Mutex;
use rocketmq_remoting::bodies::DataVersion;
use rocketmq_remoting::header::broker::BrokerConfigResponse;
use rocketmq_remoting::{Command, ResponseCode, fastjson, properties_file};

use super::failed;
use crate::broker::Broker;
use crate::config::{BrokerConfig, ConfigError};
use crate::refusal::Refusal;

/// Keys that RocketMQ lets nobody change over the network.
const FORBIDDEN: [&str; 3] = ["brokerConfigPath", "rocketmqHome", "configBlackList"];

/// All keys with the values in force.
pub(crate) fn get(broker: &Broker) -> Command {
    let mut text = String::new();
    for (key, value) in broker.config().entries() {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    let version = DataVersion { timestamp: broker.boot_timestamp, ..DataVersion::default() };
    Command::ok().with_header(&BrokerConfigResponse { version: fastjson::to_string(&version).into() }).with_body(text)
}

/// Changes keys of the running broker: all of them, or none where one is refused. Unknown keys are
/// ignored, as in Java; the file that the broker was started with stays as it is.
pub(crate) fn update(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    /// Held from reading the settings until the changed ones are in force.
    static CHANGING: Mutex<()> = Mutex::new(());
    let body = request.body.bytes();
    let text = std::str::from_utf8(&body)
        .map_err(|_| Refusal::new(ResponseCode::SYSTEM_ERROR, "the request's body is not UTF-8"))?;
    let _changing = CHANGING.lock();
    let mut config = BrokerConfig::clone(&broker.config());
    let changes = properties_file::parse(text);
    apply(&mut config, &changes)?;
    let perm_before = broker.config().broker_permission;
    let perm = config.broker_permission;
    broker.set_config(config);
    tracing::info!(?changes, "updateBrokerConfig");
    if perm != perm_before {
        broker.topics.touch().map_err(failed)?;
    }
    Ok(Command::ok())
}

fn apply(config: &mut BrokerConfig, changes: &[(String, String)]) -> Result<(), Refusal> {
    if changes.iter().any(|(key, _)| FORBIDDEN.contains(&key.as_str())) {
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, "Can not update config in black list."));
    }
    for (key, value) in changes {
        match config.set(key, value) {
            Ok(None) => {}
            Ok(Some(warning)) => tracing::warn!("updateBrokerConfig: {warning}"),
            Err(error @ ConfigError::Unknown { .. }) => tracing::warn!("updateBrokerConfig: {error}"),
            Err(error) => return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[(&str, &str)]) -> Result<BrokerConfig, Refusal> {
        let mut config = BrokerConfig::built_in();
        let changes: Vec<_> = changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        apply(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn live_keys_change_and_others_are_refused_by_name() {
        assert_eq!(changed(&[("brokerPermission", "4"), ("noSuchKey", "1")]).unwrap().broker_permission, 4);
        assert_eq!(changed(&[("rocketmqHome", "/")]).unwrap_err().code, ResponseCode::NO_PERMISSION);
        assert!(changed(&[("listenPort", "1")]).unwrap_err().remark.contains("listenPort"));
        assert!(changed(&[("brokerPermission", "x")]).unwrap_err().remark.contains("brokerPermission"));
    }
}
