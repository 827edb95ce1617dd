//! Where topics and brokers are: what clients ask again and again.

use std::time::Duration;

use rocketmq_remoting::bodies::BrokerMemberGroupBody;
use rocketmq_remoting::header::name_server::{BrokerMemberGroupRequest, RouteInfoRequest};
use rocketmq_remoting::{Command, Header as _, ResponseCode, fastjson};

use crate::kv_config::ORDER_TOPIC_CONFIG;
use crate::requests::{Refusal, Reply, Requests};

/// Clients from 4.9.4 on are sent plain JSON.
const VERSION_4_9_4: i32 = 401;

/// `GET_ROUTEINFO_BY_TOPIC`.
pub(crate) fn by_topic(state: &Requests, request: &Command) -> Reply {
    let header = RouteInfoRequest::decode(&request.ext_fields)?;
    let config = state.config();
    let wait = Duration::from_secs(config.wait_seconds_for_service.into());
    if config.need_wait_for_service && state.started.elapsed() < wait {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "name server not ready"));
    }
    let route = state.routes.read().route(&header.topic, config.support_acting_master);
    let Some(mut route) = route else {
        let remark = format!(
            "No topic route info in name server for the topic: {}\nSee http://rocketmq.apache.org/docs/faq/ for further details.",
            header.topic
        );
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    if config.order_message_enable {
        route.order_topic_conf = state.kv_config.get(ORDER_TOPIC_CONFIG, &header.topic);
    }
    let strict = request.version >= VERSION_4_9_4 || header.accept_standard_json_only;
    // Both forms are compact: the Go client takes them apart by hand and stumbles over blanks.
    let body = if strict {
        serde_json::to_string(&route).map_err(|error| {
            Refusal::new(ResponseCode::SYSTEM_ERROR, format!("the route cannot be written: {error}"))
        })?
    } else {
        fastjson::to_string(&route)
    };
    Ok(Command::ok().with_body(body))
}

/// `GET_BROKER_CLUSTER_INFO`; in fastjson's dialect whoever asks.
pub(crate) fn cluster_info(state: &Requests) -> Command {
    let info = state.routes.read().cluster_info();
    Command::ok().with_body(fastjson::to_string(&info))
}

/// `GET_BROKER_MEMBER_GROUP`.
pub(crate) fn member_group(state: &Requests, request: &Command) -> Reply {
    let header = BrokerMemberGroupRequest::decode(&request.ext_fields)?;
    let broker_member_group = state.routes.read().member_group(&header.cluster_name, &header.broker_name);
    Ok(Command::ok().with_body(fastjson::to_string(&BrokerMemberGroupBody { broker_member_group })))
}
