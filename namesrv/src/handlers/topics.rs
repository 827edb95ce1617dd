//! Lists of topics, and the removal of one.

use rocketmq_remoting::bodies::{TopicList, TopicRoute};
use rocketmq_remoting::header::name_server::{TopicInNamesrvRequest, TopicsByClusterRequest};
use rocketmq_remoting::{Command, Header as _, RequestCode, ResponseCode, fastjson};

use crate::requests::{Refusal, Reply, Requests};
use crate::route_table::UnitTopics;

fn answer(topics: &TopicList) -> Command {
    Command::ok().with_body(fastjson::to_string(topics))
}

/// 5.x refuses by this word what its configuration switches off.
fn enabled(switch: bool) -> Result<(), Refusal> {
    if switch { Ok(()) } else { Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "disable")) }
}

/// `GET_ALL_TOPIC_LIST_FROM_NAMESERVER`.
pub(crate) fn all(state: &Requests) -> Reply {
    enabled(state.config().enable_all_topic_list)?;
    Ok(answer(&state.routes.read().topics()))
}

/// `GET_TOPICS_BY_CLUSTER`.
pub(crate) fn by_cluster(state: &Requests, request: &Command) -> Reply {
    enabled(state.config().enable_topic_list)?;
    let header = TopicsByClusterRequest::decode(&request.ext_fields)?;
    Ok(answer(&state.routes.read().topics_of_cluster(&header.cluster)))
}

/// `GET_SYSTEM_TOPIC_LIST_FROM_NS`.
pub(crate) fn system(state: &Requests) -> Command {
    answer(&state.routes.read().system_topics())
}

/// `GET_UNIT_TOPIC_LIST`, `GET_HAS_UNIT_SUB_TOPIC_LIST`, `GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST`.
pub(crate) fn of_units(state: &Requests, request: &Command) -> Reply {
    enabled(state.config().enable_topic_list)?;
    let wanted = match request.request_code() {
        RequestCode::GET_UNIT_TOPIC_LIST => UnitTopics::Unit,
        RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST => UnitTopics::HasUnitSub,
        _ => UnitTopics::HasUnitSubUnunit,
    };
    Ok(answer(&state.routes.read().unit_topics(wanted)))
}

/// `DELETE_TOPIC_IN_NAMESRV`.
pub(crate) fn delete(state: &Requests, request: &Command) -> Reply {
    let header = TopicInNamesrvRequest::decode(&request.ext_fields)?;
    let cluster = header.cluster_name.as_deref().filter(|cluster| !cluster.is_empty());
    state.routes.write().delete_topic(&header.topic, cluster);
    tracing::info!("topic {} deleted from {}", header.topic, cluster.unwrap_or("all clusters"));
    Ok(Command::ok())
}

/// `REGISTER_TOPIC_IN_NAMESRV`: 5.x brokers that announce a single topic.
pub(crate) fn register(state: &Requests, request: &Command) -> Reply {
    let header = TopicInNamesrvRequest::decode(&request.ext_fields)?;
    let route: TopicRoute = fastjson::from_slice(&request.body.bytes())
        .map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, format!("the route does not parse: {error}")))?;
    state.routes.write().register_topic(&header.topic, route.queue_datas).map_err(|stranger| {
        let remark = format!("topic {} cannot be registered: broker {stranger} has not registered", header.topic);
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })?;
    Ok(Command::ok())
}
