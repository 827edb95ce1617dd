//! The router: each request code and the handler that answers it.
//!
//! What the handlers share lives here. A lock is held for one look or one change at the route
//! table, never while anything is awaited.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use rocketmq_remoting::header::HeaderError;
use rocketmq_remoting::support::{self, refused_feature};
use rocketmq_remoting::{Answer, Command, Peer, RequestCode, ResponseCode, Service, client};

use crate::config::NamesrvConfig;
use crate::handlers::{brokers, configuration, kv, routes, topics};
use crate::kv_config::KvConfig;
use crate::request_support::SUPPORT;
use crate::route_table::{Removed, RouteTable};

/// The name server's state, and the requests on it.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) config: RwLock<Arc<NamesrvConfig>>,
    pub(crate) routes: RwLock<RouteTable>,
    pub(crate) kv_config: KvConfig,
    pub(crate) started: Instant,
}

/// What a handler says that answers at once.
pub(crate) type Reply = Result<Command, Refusal>;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: ResponseCode,
    remark: String,
}

impl Refusal {
    pub(crate) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self::new(error.response_code(), error.to_string())
    }
}

impl From<Refusal> for Command {
    fn from(refusal: Refusal) -> Self {
        Self::refusal(refusal.code, refusal.remark)
    }
}

fn now(reply: Reply) -> Answer {
    Answer::Now(reply.unwrap_or_else(Command::from))
}

fn later(reply: impl Future<Output = Reply> + Send + 'static) -> Answer {
    Answer::later(async { reply.await.unwrap_or_else(Command::from) })
}

impl Requests {
    pub(crate) fn new(config: NamesrvConfig, kv_config: KvConfig) -> Self {
        Self { config: RwLock::new(Arc::new(config)), routes: RwLock::default(), kv_config, started: Instant::now() }
    }

    pub(crate) fn config(&self) -> Arc<NamesrvConfig> {
        Arc::clone(&self.config.read())
    }

    /// Removes the brokers that have been silent for too long.
    pub(crate) fn expire(&self, now: Instant) {
        let removed = self.routes.write().expire(now);
        for broker in &removed {
            tracing::warn!("The broker channel expired, {} {}ms", broker.addr, broker.expiry.as_millis());
        }
        log_removed(&removed);
    }
}

pub(crate) fn log_removed(removed: &[Removed]) {
    for Removed { broker_name, broker_id, addr, .. } in removed {
        tracing::info!("unregisterBroker, remove from brokerLiveTable OK, {addr}, {broker_name} {broker_id}");
    }
}

/// Handlers that write files take the state as an `Arc`, for they answer later.
#[derive(Debug)]
pub(crate) struct Router(pub(crate) Arc<Requests>);

impl Service for Router {
    fn call(&self, peer: &Arc<Peer>, request: Command) -> Answer {
        let state = &*self.0;
        let shared = || Arc::clone(&self.0);
        match request.request_code() {
            RequestCode::GET_ROUTEINFO_BY_TOPIC => now(routes::by_topic(state, &request)),
            RequestCode::GET_BROKER_CLUSTER_INFO => now(Ok(routes::cluster_info(state))),
            RequestCode::GET_BROKER_MEMBER_GROUP => now(routes::member_group(state, &request)),

            RequestCode::REGISTER_BROKER => now(brokers::register(state, peer.id(), &request)),
            RequestCode::UNREGISTER_BROKER => now(brokers::unregister(state, &request)),
            RequestCode::QUERY_DATA_VERSION => now(brokers::query_data_version(state, &request)),
            RequestCode::BROKER_HEARTBEAT => now(brokers::heartbeat(state, &request)),
            RequestCode::WIPE_WRITE_PERM_OF_BROKER => now(brokers::wipe_write_perm(state, &request)),
            RequestCode::ADD_WRITE_PERM_OF_BROKER => now(brokers::add_write_perm(state, &request)),

            RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => now(topics::all(state)),
            RequestCode::GET_TOPICS_BY_CLUSTER => now(topics::by_cluster(state, &request)),
            RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS => now(Ok(topics::system(state))),
            RequestCode::GET_UNIT_TOPIC_LIST
            | RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST
            | RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => now(topics::of_units(state, &request)),
            RequestCode::DELETE_TOPIC_IN_NAMESRV => now(topics::delete(state, &request)),
            RequestCode::REGISTER_TOPIC_IN_NAMESRV => now(topics::register(state, &request)),

            RequestCode::PUT_KV_CONFIG => later(kv::put(shared(), request)),
            RequestCode::GET_KV_CONFIG => now(kv::get(state, &request)),
            RequestCode::DELETE_KV_CONFIG => later(kv::delete(shared(), request)),
            RequestCode::GET_KVLIST_BY_NAMESPACE => now(kv::list(state, &request)),

            RequestCode::UPDATE_NAMESRV_CONFIG => later(configuration::update(shared(), request)),
            RequestCode::GET_NAMESRV_CONFIG => now(Ok(configuration::get(state))),
            code => Answer::Now(match refused_feature(SUPPORT, code) {
                Some(feature) => support::refusal(&request, feature, "name server"),
                None => client::unsupported(&request),
            }),
        }
    }

    fn disconnected(&self, peer: &Arc<Peer>) {
        let removed = self.0.routes.write().disconnected(peer.id());
        for broker in &removed {
            tracing::info!("the connection of broker {} has ended", broker.addr);
        }
        log_removed(&removed);
    }
}
