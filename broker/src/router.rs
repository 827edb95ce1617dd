//! From request codes to handlers: the one place where they are joined.

use std::sync::Arc;

use futures::FutureExt as _;
use rocketmq_remoting::client::unsupported;
use rocketmq_remoting::support::{self, refused_feature};
use rocketmq_remoting::{Answer, Command, Peer, RequestCode, ResponseCode, Service};

use crate::broker::Broker;
use crate::refusal::Refusal;
use crate::request_support::SUPPORT;
use crate::{handlers, pull, reply, send, send_back};

/// Answers every request of clients, tools and slaves.
pub(crate) struct Router {
    pub(crate) broker: Arc<Broker>,
}

/// Answers a request, and may wait for the disk.
type Handler = fn(&Arc<Broker>, &Arc<Peer>, &Command) -> Answer;

impl Service for Router {
    fn call(&self, peer: &Arc<Peer>, request: Command) -> Answer {
        answered(&self.broker, route(&self.broker, peer, &request))
    }

    /// A pipeline of sends wakes the store's dispatcher or flusher once.
    fn together(&self, calls: &mut dyn FnMut()) {
        self.broker.store.together(calls);
    }

    fn disconnected(&self, peer: &Arc<Peer>) {
        self.broker.disconnected(peer);
    }
}

fn answered(broker: &Broker, result: Result<Answer, Refusal>) -> Answer {
    result.unwrap_or_else(|refusal| Answer::Now(refusal.into_response(&broker.limits)))
}

fn route(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Result<Answer, Refusal> {
    match request.request_code() {
        RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => {
            Ok(send::send(broker, peer, request))
        }
        RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => pull::pull(broker, peer, request),
        RequestCode::SEND_REPLY_MESSAGE | RequestCode::SEND_REPLY_MESSAGE_V2 => Ok(reply::reply(broker, peer, request)),
        RequestCode::RECALL_MESSAGE => handlers::recall::recall(broker, peer, request),
        RequestCode::END_TRANSACTION => handlers::transaction::end(broker, peer, request),
        // It reads an old message, and may make a topic.
        RequestCode::CONSUMER_SEND_MSG_BACK => Ok(aside(
            |broker, peer, request| answered(broker, send_back::send_back(broker, peer, request)),
            broker,
            peer,
            request,
        )),
        code if is_of_memory(code) => route_admin(broker, peer, request),
        _ => Ok(aside(
            |broker, peer, request| answered(broker, route_admin(broker, peer, request)),
            broker,
            peer,
            request,
        )),
    }
}

/// Requests of running clients, which come often and touch memory only. All others are the tools' and read or write the
/// disk.
fn is_of_memory(code: RequestCode) -> bool {
    matches!(
        code,
        RequestCode::HEART_BEAT
            | RequestCode::UNREGISTER_CLIENT
            | RequestCode::CHECK_CLIENT_CONFIG
            | RequestCode::GET_CONSUMER_LIST_BY_GROUP
            | RequestCode::LOCK_BATCH_MQ
            | RequestCode::UNLOCK_BATCH_MQ
            | RequestCode::QUERY_CONSUMER_OFFSET
            | RequestCode::UPDATE_CONSUMER_OFFSET
            | RequestCode::GET_MAX_OFFSET
            | RequestCode::GET_MIN_OFFSET
    )
}

/// Runs a handler where waiting for the disk stops no connection; so many at once as `queryThreadPoolQueueCapacity` says.
pub(crate) fn aside(handler: Handler, broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Answer {
    let pass = match broker.limits.queries.enter() {
        Ok(pass) => pass,
        Err(refusal) => return Answer::Now(refusal.into_response(&broker.limits)),
    };
    let (broker, peer, request) = (Arc::clone(broker), Arc::clone(peer), request.clone());
    let answer = tokio::task::spawn_blocking(move || {
        let _pass = pass;
        handler(&broker, &peer, &request)
    });
    let answer = async move {
        match answer.await {
            Ok(Answer::Now(answer)) => Some(answer),
            Ok(Answer::Later(answer)) => answer.await,
            Ok(Answer::None) => None,
            Err(panic) => {
                tracing::error!("a request failed: {panic}");
                let remark = "the request failed, see the broker's log";
                Some(Command::refusal(ResponseCode::SYSTEM_ERROR, remark))
            }
        }
    };
    Answer::Later(answer.boxed())
}

/// Everything that is not the way of a message.
fn route_admin(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Result<Answer, Refusal> {
    use handlers::{
        clients, config, consume_stats, groups, ha_status, heartbeat, locks, offsets, query, queues, relay,
        reset_offset, runtime, timer, topics, transaction,
    };
    let answer = match request.request_code() {
        RequestCode::HEART_BEAT => heartbeat::heartbeat(broker, peer, request)?,
        RequestCode::UNREGISTER_CLIENT => heartbeat::unregister(broker, peer, request)?,
        RequestCode::CHECK_CLIENT_CONFIG => clients::check_client(broker, request)?,
        RequestCode::GET_CONSUMER_LIST_BY_GROUP => clients::consumer_list(broker, request)?,
        RequestCode::GET_CONSUMER_CONNECTION_LIST => clients::consumer_connections(broker, request)?,
        RequestCode::GET_PRODUCER_CONNECTION_LIST => clients::producer_connections(broker, request)?,
        RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER => clients::subscription(broker, request)?,
        RequestCode::GET_ALL_PRODUCER_INFO => clients::all_producers(broker),
        RequestCode::LOCK_BATCH_MQ => locks::lock(broker, request)?,
        RequestCode::UNLOCK_BATCH_MQ => locks::unlock(broker, request)?,
        RequestCode::QUERY_CONSUMER_OFFSET => offsets::query(broker, request)?,
        RequestCode::UPDATE_CONSUMER_OFFSET => offsets::update(broker, request)?,
        RequestCode::GET_ALL_CONSUMER_OFFSET => offsets::all(broker),
        RequestCode::GET_ALL_DELAY_OFFSET => offsets::all_delays(broker),
        RequestCode::GET_TIMER_CHECK_POINT => timer::check_point(broker)?,
        RequestCode::GET_TIMER_METRICS => timer::metrics(),
        RequestCode::QUERY_CORRECTION_OFFSET => offsets::correction(broker, request)?,
        RequestCode::CLONE_GROUP_OFFSET => offsets::clone_group(broker, request)?,
        RequestCode::GET_MAX_OFFSET => queues::max_offset(broker, request)?,
        RequestCode::GET_MIN_OFFSET => queues::min_offset(broker, request)?,
        RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => queues::search_offset(broker, request)?,
        RequestCode::GET_EARLIEST_MSG_STORETIME => queues::earliest_time(broker, request)?,
        RequestCode::QUERY_CONSUME_QUEUE => queues::entries(broker, request)?,
        RequestCode::QUERY_MESSAGE => query::by_key(broker, request)?,
        RequestCode::VIEW_MESSAGE_BY_ID => query::by_place(broker, request)?,
        RequestCode::RESUME_CHECK_HALF_MESSAGE => transaction::resume(broker, request)?,
        RequestCode::UPDATE_AND_CREATE_TOPIC => topics::update(broker, request)?,
        RequestCode::UPDATE_AND_CREATE_TOPIC_LIST => topics::update_list(broker, request)?,
        RequestCode::DELETE_TOPIC_IN_BROKER => topics::delete(broker, request)?,
        RequestCode::GET_ALL_TOPIC_CONFIG => topics::all(broker),
        RequestCode::GET_TOPIC_CONFIG => topics::get(broker, request)?,
        RequestCode::GET_TOPIC_STATS_INFO => topics::stats(broker, request)?,
        RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => topics::system_list(broker),
        RequestCode::QUERY_TOPIC_CONSUME_BY_WHO => topics::groups(broker, request)?,
        RequestCode::QUERY_TOPICS_BY_CONSUMER => topics::of_group(broker, request)?,
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => groups::update(broker, request)?,
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => groups::update_list(broker, request)?,
        RequestCode::DELETE_SUBSCRIPTIONGROUP => groups::delete(broker, request)?,
        RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::all(broker),
        RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG => groups::get(broker, request)?,
        RequestCode::GET_CONSUME_STATS => consume_stats::of_group(broker, request)?,
        RequestCode::GET_BROKER_CONSUME_STATS => consume_stats::of_broker(broker, request)?,
        RequestCode::QUERY_CONSUME_TIME_SPAN => consume_stats::time_span(broker, request)?,
        RequestCode::INVOKE_BROKER_TO_RESET_OFFSET => reset_offset::reset(broker, request)?,
        RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => return reset_offset::consumer_status(broker, request),
        RequestCode::GET_CONSUMER_RUNNING_INFO => return relay::running_info(broker, request),
        RequestCode::CONSUME_MESSAGE_DIRECTLY => return relay::consume_directly(broker, request),
        RequestCode::GET_BROKER_RUNTIME_INFO => runtime::info(broker),
        RequestCode::VIEW_BROKER_STATS_DATA => runtime::stats(broker, request)?,
        RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE | RequestCode::DELETE_EXPIRED_COMMITLOG => {
            return Ok(runtime::clean_expired(broker));
        }
        RequestCode::CLEAN_UNUSED_TOPIC => return Ok(runtime::clean_unused(broker)),
        RequestCode::GET_ALL_MESSAGE_REQUEST_MODE => clients::request_modes(),
        RequestCode::GET_BROKER_HA_STATUS => ha_status::status(broker),
        RequestCode::GET_BROKER_CONFIG => config::get(broker),
        RequestCode::UPDATE_BROKER_CONFIG => config::update(broker, request)?,
        code => match refused_feature(SUPPORT, code) {
            Some(feature) => support::refusal(request, feature, "broker"),
            None => unsupported(request),
        },
    };
    Ok(Answer::Now(answer))
}
