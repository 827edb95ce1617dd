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
        master: false,
        master_commit_log_max_offset: 0,
    };
    match &broker.replication {
        Replication::Master(master) => {
            let lag_max = broker.config().ha_slave_fallbehind_max;
            let slaves = master.slaves().into_iter().map(|slave| HaConnectionInfo {
                addr: slave.remote.to_string(),
                diff: slave.lag,
                in_sync: slave.lag < lag_max,
                slave_ack_offset: slave.reported,
                transfer_from_where: slave.reported,
                transferred_byte_in_second: 0,
            });
            info.ha_connection_info = slaves.collect();
            info.in_sync_slave_nums = info.ha_connection_info.iter().filter(|slave| slave.in_sync).count();
            info.master = true;
            info.master_commit_log_max_offset = end;
        }
        Replication::Slave(slave) => {
            let status = slave.status();
            info.ha_client_runtime_info = HaClientRuntimeInfo {
                is_activated: status.connected.is_some(),
                master_addr: status.connected.unwrap_or_default(),
                master_flush_offset: status.master_end.unwrap_or(0),
                max_offset: end,
                ..HaClientRuntimeInfo::default()
            };
        }
    }
    json(&info)
}
