//! What brokers say of themselves: they register, beat, and leave. And whether they may be written.

use std::time::{Duration, Instant};

use rocketmq_remoting::bodies::{DataVersion, KvTable, QueueData, RegisterBroker};
use rocketmq_remoting::header::name_server::{
    AddWritePermResponse, BrokerHeartbeatRequest, QueryDataVersionRequest, QueryDataVersionResponse,
    RegisterBrokerRequest, RegisterBrokerResponse, UnregisterBrokerRequest, WipeWritePermResponse, WritePermRequest,
};
use rocketmq_remoting::{Command, Header as _, ResponseCode, fastjson};

use crate::kv_config::ORDER_TOPIC_CONFIG;
use crate::requests::{Refusal, Reply, Requests, log_removed};
use crate::route_table::{BrokerAddress, EXPIRY_DEFAULT, Registration};

/// `REGISTER_BROKER`: `peer` is the connection that the broker's life hangs on from now on.
pub(crate) fn register(state: &Requests, peer: u64, request: &Command) -> Reply {
    let header = RegisterBrokerRequest::decode(&request.ext_fields)?;
    let body = request.body.bytes();
    // Java masks the sum to 31 bits, and means "none" by 0.
    let crc32 = (crc32fast::hash(&body) & 0x7FFF_FFFF) as i32;
    if header.body_crc32 != 0 && header.body_crc32 != crc32 {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "crc32 not match"));
    }
    let body = RegisterBroker::decode(&body, header.compressed, request.version).map_err(|error| {
        let remark = format!("the registration of {} at {}: {error}", header.broker_name, header.broker_addr);
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })?;
    let acting_master = request.ext_fields.get("enableActingMaster");
    let registration = Registration {
        cluster: header.cluster_name.to_string(),
        broker_name: header.broker_name.to_string(),
        broker_id: header.broker_id,
        addr: header.broker_addr.to_string(),
        ha_addr: header.ha_server_addr.to_string(),
        expiry: expiry(header.heartbeat_timeout_millis),
        acting_master: acting_master.map(|text| text.eq_ignore_ascii_case("true")),
        peer,
        body,
    };
    let config = state.config();
    let registered =
        state.routes.write().register(registration, config.delete_topic_with_broker_registration, Instant::now());
    if registered.superseded {
        tracing::warn!(
            "broker {} {} at {} is ignored: a member with a newer state holds its place",
            header.broker_name,
            header.broker_id,
            header.broker_addr
        );
    }
    if registered.new_broker {
        tracing::info!("new broker registered, {} HAServer: {}", header.broker_addr, header.ha_server_addr);
    }
    for (topic, queues) in &registered.new_topics {
        tracing::info!("new topic registered, {topic} {}", describe(queues));
    }
    let (master_addr, ha_server_addr) = registered.master.unzip();
    let response = RegisterBrokerResponse {
        ha_server_addr: ha_server_addr.map(Into::into),
        master_addr: master_addr.map(Into::into),
    };
    let order = config.return_order_topic_config_to_broker.then(|| state.kv_config.namespace(ORDER_TOPIC_CONFIG));
    let mut answer = Command::ok().with_header(&response);
    if let Some(table) = order.flatten() {
        answer = answer.with_body(fastjson::to_string(&KvTable { table }));
    }
    Ok(answer)
}

/// The time that a 5.x broker asks for, if it does.
fn expiry(heartbeat_timeout_millis: Option<i64>) -> Duration {
    match heartbeat_timeout_millis.map(u64::try_from) {
        Some(Ok(millis)) if millis > 0 => Duration::from_millis(millis),
        _ => EXPIRY_DEFAULT,
    }
}

/// The way Java's log shows it.
fn describe(queues: &QueueData) -> String {
    format!(
        "QueueData [brokerName={}, readQueueNums={}, writeQueueNums={}, perm={}, topicSysFlag={}]",
        queues.broker_name, queues.read_queue_nums, queues.write_queue_nums, queues.perm, queues.topic_sys_flag
    )
}

/// `UNREGISTER_BROKER`.
pub(crate) fn unregister(state: &Requests, request: &Command) -> Reply {
    let header = UnregisterBrokerRequest::decode(&request.ext_fields)?;
    let address = BrokerAddress { cluster: header.cluster_name.to_string(), addr: header.broker_addr.to_string() };
    let removed = state.routes.write().unregister(&address, &header.broker_name, header.broker_id);
    log_removed(removed.as_slice());
    Ok(Command::ok())
}

/// `QUERY_DATA_VERSION`: whether a broker needs to register in full; if not, the question itself
/// is a sign of life.
pub(crate) fn query_data_version(state: &Requests, request: &Command) -> Reply {
    let header = QueryDataVersionRequest::decode(&request.ext_fields)?;
    let asked: DataVersion = fastjson::from_slice(&request.body.bytes()).map_err(|error| {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("the data version does not parse: {error}"))
    })?;
    let address = BrokerAddress { cluster: header.cluster_name.to_string(), addr: header.broker_addr.to_string() };
    let mut routes = state.routes.write();
    let known = routes.data_version(&address).cloned();
    let changed = known.as_ref() != Some(&asked);
    if !changed {
        routes.touch(&address, Instant::now());
    }
    drop(routes);
    let mut answer = Command::ok().with_header(&QueryDataVersionResponse { changed });
    if let Some(known) = known {
        answer = answer.with_body(fastjson::to_string(&known));
    }
    Ok(answer)
}

/// `BROKER_HEARTBEAT`.
pub(crate) fn heartbeat(state: &Requests, request: &Command) -> Reply {
    let header = BrokerHeartbeatRequest::decode(&request.ext_fields)?;
    let address = BrokerAddress { cluster: header.cluster_name.to_string(), addr: header.broker_addr.to_string() };
    state.routes.write().touch(&address, Instant::now());
    Ok(Command::ok())
}

/// `WIPE_WRITE_PERM_OF_BROKER`.
pub(crate) fn wipe_write_perm(state: &Requests, request: &Command) -> Reply {
    let header = WritePermRequest::decode(&request.ext_fields)?;
    let wipe_topic_count = state.routes.write().wipe_write_perm(&header.broker_name);
    tracing::info!("write perm of broker {} wiped, topics: {wipe_topic_count}", header.broker_name);
    Ok(Command::ok().with_header(&WipeWritePermResponse { wipe_topic_count }))
}

/// `ADD_WRITE_PERM_OF_BROKER`.
pub(crate) fn add_write_perm(state: &Requests, request: &Command) -> Reply {
    let header = WritePermRequest::decode(&request.ext_fields)?;
    let add_topic_count = state.routes.write().add_write_perm(&header.broker_name);
    tracing::info!("write perm of broker {} added, topics: {add_topic_count}", header.broker_name);
    Ok(Command::ok().with_header(&AddWritePermResponse { add_topic_count }))
}
