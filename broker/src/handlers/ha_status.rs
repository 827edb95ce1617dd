//! `GET_BROKER_HA_STATUS`, which tools of 5.x ask for: who replicates from whom, and how far.

use rocketmq_remoting::Command;
use serde::Serialize;

use super::json;
use crate::broker::Broker;
use crate::ha::Replication;

/// The answer (`HARuntimeInfo` in Java). Speeds are not measured and shown as 0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HaRuntimeInfo {
    ha_client_runtime_info: HaClientRuntimeInfo,
    ha_connection_info: Vec<HaConnectionInfo>,
    in_sync_slave_nums: usize,
    /// Our own: slaves that are not acknowledged against, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    diverged_slaves: Vec<String>,
    /// Our own: why this slave is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence: Option<String>,
    master: bool,
    master_commit_log_max_offset: u64,
}

/// A slave of this master.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HaConnectionInfo {
    addr: String,
    diff: u64,
    in_sync: bool,
    slave_ack_offset: u64,
    transfer_from_where: u64,
    transferred_byte_in_second: u64,
}

/// This slave and its master.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct HaClientRuntimeInfo {
    is_activated: bool,
    last_read_timestamp: i64,
    last_write_timestamp: i64,
    master_addr: String,
    master_flush_offset: u64,
    max_offset: u64,
    transferred_byte_in_second: u64,
}

/// A master's slaves, or a slave's master.
pub(crate) fn status(broker: &Broker) -> Command {
    let end = broker.store.max_physical_offset();
    let mut info = HaRuntimeInfo {
        ha_client_runtime_info: HaClientRuntimeInfo::default(),
        ha_connection_info: Vec::new(),
        in_sync_slave_nums: 0,
        diverged_slaves: Vec::new(),
        divergence: None,
        master: false,
        master_commit_log_max_offset: 0,
    };
    match &broker.replication {
        Replication::Master(master) => {
            let lag_max = broker.config().ha_slave_fallbehind_max;
            let slaves = master.followers.connected().into_iter().map(|slave| HaConnectionInfo {
                addr: slave.remote.to_string(),
                diff: end.saturating_sub(slave.reported),
                in_sync: end.saturating_sub(slave.reported) < lag_max,
                slave_ack_offset: slave.reported,
                transfer_from_where: slave.reported,
                transferred_byte_in_second: 0,
            });
            info.ha_connection_info = slaves.collect();
            info.in_sync_slave_nums = master.followers.near(end, lag_max);
            info.diverged_slaves =
                master.followers.diverged().iter().map(|(id, slave)| format!("{id}: {}", slave.reason)).collect();
            info.master = true;
            info.master_commit_log_max_offset = end;
        }
        Replication::Slave(slave) => {
            let status = slave.status();
            info.divergence.clone_from(&status.divergence);
            info.ha_client_runtime_info = HaClientRuntimeInfo {
                is_activated: status.connected.is_some(),
                master_addr: status.connected.unwrap_or_default(),
                master_flush_offset: status.master.map_or(0, |(_, end)| end),
                max_offset: end,
                ..HaClientRuntimeInfo::default()
            };
        }
    }
    json(&info)
}
