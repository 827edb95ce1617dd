//! Telling the name servers what this broker serves: at the start, every period, and when topics change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_remoting::bodies::RegisterBroker;
use rocketmq_remoting::header::name_server::{RegisterBrokerRequest, RegisterBrokerResponse, UnregisterBrokerRequest};
use rocketmq_remoting::{Command, Header, RequestCode, ResponseCode, fastjson};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::config::BrokerRole;

/// After a registration changes wait this many times as long as it took.
const REST: u32 = 4;
/// Names are resolved and missing registrations tried again this often.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Java's clients and tools expect read and write here; other values go with every topic.
const PERM_ALL: i32 = 6;

/// Where this broker's master is, as the name servers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MasterAddresses {
    /// `host:port` of its remoting port.
    pub(crate) remoting: String,
    /// `host:port` of its replication stream.
    pub(crate) ha: String,
}

/// What the name servers know of this broker, and what they say.
#[derive(Debug)]
pub(crate) struct Registration {
    registered: Mutex<BTreeSet<String>>,
    master: watch::Sender<Option<MasterAddresses>>,
}

impl Default for Registration {
    fn default() -> Self {
        Self { registered: Mutex::default(), master: watch::Sender::new(None) }
    }
}

impl Registration {
    /// Name servers, as `ip:port`, that took our last registration.
    pub(crate) fn registered(&self) -> BTreeSet<String> {
        self.registered.lock().clone()
    }

    /// This broker's master, once a name server has named it; for slaves.
    pub(crate) fn master(&self) -> watch::Receiver<Option<MasterAddresses>> {
        self.master.subscribe()
    }
}

/// Registers until `shutdown`, then takes the broker off the name servers.
pub(crate) async fn keep_registered(broker: Arc<Broker>, shutdown: CancellationToken) {
    let names = broker.config().name_servers();
    if names.is_empty() {
        tracing::warn!(
            "no name server is configured (namesrvAddr, -n or NAMESRV_ADDR): clients will not find this broker"
        );
        return;
    }
    let mut changes = broker.topics.changes();
    let mut due = Instant::now();
    loop {
        let addresses = resolve(&names).await;
        forget_gone(&broker, &addresses).await;
        let now = Instant::now();
        // A slave that came before its master asks for it again and again.
        let seeks_master =
            broker.config().broker_role == BrokerRole::Slave && broker.registration.master.borrow().is_none();
        let everywhere = now >= due || seeks_master;
        if everywhere {
            due = now + broker.config().register_name_server_period;
        }
        let registered = broker.registration.registered();
        let targets = addresses.iter().filter(|address| everywhere || !registered.contains(*address));
        futures::future::join_all(targets.map(|address| register(&broker, address))).await;
        let took = now.elapsed();
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(RETRY_PERIOD) => {}
            // A registration carries all topics: while thousands are made, most of the time is left for other work.
            changed = async { tokio::time::sleep(took * REST).await; changes.changed().await } => {
                if changed.is_ok() {
                    due = Instant::now();
                }
            }
        }
    }
    unregister(&broker).await;
}

/// All addresses of all names: a name of several addresses is several name servers.
async fn resolve(names: &[String]) -> BTreeSet<String> {
    let mut addresses = BTreeSet::new();
    for name in names {
        match tokio::net::lookup_host(name).await {
            Ok(found) => addresses.extend(found.map(|address| address.to_string())),
            Err(error) => tracing::warn!("name server {name} does not resolve: {error}"),
        }
    }
    addresses
}

/// Drops name servers that the names do not lead to any more.
async fn forget_gone(broker: &Broker, addresses: &BTreeSet<String>) {
    // Where nothing resolves at all, the name service is ill rather than every name server gone.
    if addresses.is_empty() {
        return;
    }
    let gone: Vec<String> = broker.registration.registered().difference(addresses).cloned().collect();
    for address in gone {
        tracing::info!("name server {address} is not among the configured ones any more");
        broker.registration.registered.lock().remove(&address);
        broker.client.forget(&address).await;
    }
}

async fn register(broker: &Broker, address: &str) {
    let result = try_register(broker, address).await;
    let mut registered = broker.registration.registered.lock();
    match result {
        Ok(()) => {
            tracing::info!("register broker[{}]to name server {address} OK", broker.config().broker_id);
            registered.insert(address.to_owned());
        }
        Err(error) => {
            tracing::warn!("register broker[{}]to name server {address} failed: {error:#}", broker.config().broker_id);
            registered.remove(address);
        }
    }
}

async fn try_register(broker: &Broker, address: &str) -> anyhow::Result<()> {
    let config = broker.config();
    let header = RegisterBrokerRequest {
        broker_name: config.broker_name.clone().into(),
        broker_addr: config.broker_addr().into(),
        cluster_name: config.broker_cluster_name.clone().into(),
        ha_server_addr: config.ha_server_addr().into(),
        broker_id: config.broker_id,
        compressed: false,
        body_crc32: 0,
        heartbeat_timeout_millis: None,
    };
    let mut body =
        RegisterBroker { filter_server_list: Vec::new(), topic_config_serialize_wrapper: broker.topics.to_wire() };
    if config.broker_permission != PERM_ALL {
        for topic in body.topic_config_serialize_wrapper.topic_config_table.values_mut() {
            topic.perm = config.broker_permission;
        }
    }
    let request =
        Command::request(RequestCode::REGISTER_BROKER).with_header(&header).with_body(fastjson::to_string(&body));
    let answer = broker.client.invoke(address, request, config.register_broker_timeout).await?;
    anyhow::ensure!(answer.response_code() == ResponseCode::SUCCESS, "{}: {}", answer.response_code(), answer.remark());
    if config.broker_id != 0 {
        learn_master(broker, &RegisterBrokerResponse::decode(&answer.ext_fields)?);
    }
    if let Some(orders) = order_config(&answer)? {
        broker.topics.set_ordered(&orders)?;
    }
    Ok(())
}

/// A name server names the master only while it lives; one that is gone stays known.
fn learn_master(broker: &Broker, answer: &RegisterBrokerResponse) {
    if let (Some(remoting), Some(ha)) = (&answer.master_addr, &answer.ha_server_addr) {
        let found = MasterAddresses { remoting: remoting.to_string(), ha: ha.to_string() };
        broker.registration.master.send_if_modified(|known| {
            if known.as_ref() == Some(&found) {
                return false;
            }
            tracing::info!("update master address, OLD: {known:?} NEW: {found:?}");
            *known = Some(found);
            true
        });
    }
}

/// Topics that the name server's `ORDER_TOPIC_CONFIG` names; `None` where it says nothing.
fn order_config(answer: &Command) -> anyhow::Result<Option<BTreeSet<String>>> {
    if answer.body.is_empty() {
        return Ok(None);
    }
    let table: rocketmq_remoting::bodies::KvTable = fastjson::from_slice(&answer.body.bytes())?;
    let table: BTreeMap<String, String> = table.table;
    Ok(Some(table.into_keys().collect()))
}

async fn unregister(broker: &Broker) {
    let config = broker.config();
    let header = UnregisterBrokerRequest {
        broker_name: config.broker_name.clone().into(),
        broker_addr: config.broker_addr().into(),
        cluster_name: config.broker_cluster_name.clone().into(),
        broker_id: config.broker_id,
    };
    let registered = broker.registration.registered();
    futures::future::join_all(registered.iter().map(|address| {
        let request = Command::request(RequestCode::UNREGISTER_BROKER).with_header(&header);
        async move {
            let config = broker.config();
            match broker.client.invoke(address, request, Duration::from_secs(2)).await {
                Ok(_) => tracing::info!("unregister broker[{}]from name server {address} OK", config.broker_id),
                Err(error) => tracing::warn!("unregister from name server {address} failed: {error}"),
            }
        }
    }))
    .await;
    broker.registration.registered.lock().clear();
}
