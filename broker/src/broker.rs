//! The broker as a whole: what it owns, how it starts, and in which order it stops.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rocketmq_remoting::peer::ConnectionLimits;
use rocketmq_remoting::tls::{ClientTls, ServerTls};
use rocketmq_remoting::{Client, ClientConfig, Peer, Rejections, Server, ServerConfig};
use rocketmq_store::MessageStore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::{BrokerConfig, BrokerRole, DivergedSlave};
use crate::consumer_offsets::ConsumerOffsets;
use crate::consumers::Consumers;
use crate::delay::{self, DelayOffsets};
use crate::filter::{BloomFilter, ConsumerFilters};
use crate::ha::{self, Replication};
use crate::handlers;
use crate::held_pulls::HeldPulls;
use crate::http;
use crate::limits::Limits;
use crate::offset_resets::OffsetResets;
use crate::producers::Producers;
use crate::queue_locks::QueueLocks;
use crate::registration::{self, Registration};
use crate::reply::PendingReplies;
use crate::router::Router;
use crate::stats::BrokerStats;
use crate::subscription_groups::SubscriptionGroups;
use crate::timer::{self, Timer};
use crate::topics::TopicTable;
use crate::transaction::{self, Transactions};

/// The port that old clients compute for themselves, as `listenPort` less this.
const FAST_PORT_DISTANCE: u16 = 2;
/// Silent clients and expired locks are looked for this often.
const CLIENT_SCAN_PERIOD: Duration = Duration::from_secs(10);
/// A name of our own that does not resolve yet is tried this often before an address is taken.
const OWN_NAME_TRIES: u32 = 20;
const OWN_NAME_PERIOD: Duration = Duration::from_millis(250);

/// Everything that handlers work on.
pub(crate) struct Broker {
    config: ArcSwap<BrokerConfig>,
    pub(crate) store: Arc<MessageStore>,
    pub(crate) topics: TopicTable,
    pub(crate) groups: SubscriptionGroups,
    pub(crate) offsets: ConsumerOffsets,
    pub(crate) resets: OffsetResets,
    pub(crate) delay_offsets: DelayOffsets,
    pub(crate) timer: Timer,
    pub(crate) transactions: Transactions,
    pub(crate) producers: Producers,
    pub(crate) pending_replies: PendingReplies,
    pub(crate) consumers: Consumers,
    pub(crate) filters: ConsumerFilters,
    pub(crate) queue_locks: QueueLocks,
    pub(crate) held_pulls: Arc<HeldPulls>,
    pub(crate) stats: BrokerStats,
    pub(crate) limits: Arc<Limits>,
    pub(crate) registration: Registration,
    pub(crate) replication: Replication,
    /// See [`ha::standing`].
    pub(crate) epoch: u64,
    /// To name servers and to the master.
    pub(crate) client: Client,
    /// Stands in each message and in its offset id.
    pub(crate) store_host: SocketAddr,
    /// When this process began to serve, in milliseconds since 1970.
    pub(crate) boot_timestamp: i64,
}

impl Broker {
    /// Opens the store and the tables under `storePathRootDir`.
    pub(crate) fn open(
        config: BrokerConfig,
        store_host: SocketAddr,
        tls: Option<Arc<ClientTls>>,
        network: Arc<Rejections>,
    ) -> anyhow::Result<Arc<Self>> {
        let root = config.store_path_root_dir.clone();
        let config_dir = root.join("config");
        std::fs::create_dir_all(&config_dir).with_context(|| format!("create {}", config_dir.display()))?;
        let store = MessageStore::open(config.store_config())?;
        let client = ClientConfig { connect_timeout: config.connect_timeout, tls, ..ClientConfig::default() };
        let broker = Arc::new(Self {
            topics: TopicTable::open(&config_dir, &config)?,
            groups: SubscriptionGroups::open(&config_dir, config.auto_create_subscription_group)?,
            offsets: ConsumerOffsets::open(&config_dir)?,
            resets: OffsetResets::default(),
            delay_offsets: DelayOffsets::open(&config_dir)?,
            timer: Timer::new(&root),
            transactions: Transactions::default(),
            producers: Producers::default(),
            pending_replies: PendingReplies::default(),
            consumers: Consumers::default(),
            filters: ConsumerFilters::open(
                &config_dir,
                BloomFilter::new(config.max_error_rate_of_bloom_filter, config.expect_consumer_num_use_filter),
            )?,
            queue_locks: QueueLocks::default(),
            held_pulls: Arc::default(),
            stats: BrokerStats::default(),
            limits: Arc::new(Limits::new(&config, network)),
            registration: Registration::default(),
            replication: Replication::new(&config, &store),
            epoch: ha::standing::epoch(&config_dir, config.broker_role)?,
            client: Client::new(client),
            store_host,
            boot_timestamp: clock::now_millis(),
            store,
            config: ArcSwap::from_pointee(config),
        });
        if broker.config().broker_role != BrokerRole::Slave {
            broker.transactions.load(&broker);
        }
        let held_pulls = Arc::clone(&broker.held_pulls);
        broker.store.set_arrival_listener(Box::new(move |arrival| {
            held_pulls.arrived(arrival.topic, arrival.queue_id, arrival.queue_offset, arrival.tags_code);
        }));
        Ok(broker)
    }

    /// The settings in force now.
    pub(crate) fn config(&self) -> Arc<BrokerConfig> {
        self.config.load_full()
    }

    /// Puts changed settings in force.
    pub(crate) fn set_config(&self, config: BrokerConfig) {
        self.topics.set_auto_create(config.auto_create_topic_enable);
        self.groups.set_auto_create(config.auto_create_subscription_group);
        self.store.set_file_reserved_time(config.reserved_time());
        self.config.store(Arc::new(config));
    }

    /// A connection has ended: its clients are gone.
    pub(crate) fn disconnected(&self, peer: &Peer) {
        handlers::heartbeat::disconnected(self, peer);
    }

    /// Writes the tables at the end. What is delivered must be on disk before the mark that it is.
    async fn persist(self: &Arc<Self>) {
        let flushed = self.store.flushed(self.store.max_physical_offset()).await;
        if let Err(error) = &flushed {
            tracing::error!("delayed messages may be delivered twice: the log is not on disk: {error}");
        }
        let broker = Arc::clone(self);
        let persisted = tokio::task::spawn_blocking(move || {
            if flushed.is_ok() {
                broker.transactions.stop(&broker);
            }
            persist_tables(&broker);
            if flushed.is_err() {
                return;
            }
            for error in [broker.delay_offsets.persist(), broker.timer.stop()].into_iter().filter_map(Result::err) {
                tracing::error!("offsets could not be written: {error:#}");
            }
        });
        if let Err(panic) = persisted.await {
            tracing::error!("offsets could not be written: {panic}");
        }
    }
}

/// Runs a broker until `shutdown`, then stops it in an order that loses nothing: off the name
/// servers, no more requests, all to disk.
///
/// # Errors
/// The store cannot be opened, a port is taken, or a certificate cannot be used.
pub async fn run(mut config: BrokerConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    // A log that is to be cut takes a closed store: all of the broker stops and starts over.
    while let Some((used, cut)) = serve(config, shutdown.clone()).await? {
        config = used;
        let store = config.store_config();
        let outcome = tokio::task::spawn_blocking(move || rocketmq_store::truncate(&store, cut)).await?;
        if let Err(error) = outcome {
            tracing::error!("the log stays as it is, and the slave waits (haDivergedSlave): {error}");
            config.ha_diverged_slave = DivergedSlave::Wait;
        }
        if shutdown.is_cancelled() {
            break;
        }
    }
    Ok(())
}

/// Serves until `shutdown`, or until the log must be cut: then with the settings that were in force, and where.
async fn serve(mut config: BrokerConfig, shutdown: CancellationToken) -> anyhow::Result<Option<(BrokerConfig, u64)>> {
    let (tls, client_tls) = (ServerTls::open(&config.tls)?, ClientTls::open(&config.tls)?);
    let limits = ConnectionLimits {
        idle: Duration::from_secs(u64::from(config.server_channel_max_idle_time_seconds)),
        in_flight: config.server_connection_requests_max,
        ..ConnectionLimits::default()
    };
    let rejections = Arc::<Rejections>::default();
    let bind = |port: u16| {
        let ip: IpAddr = config.bind_address.parse().with_context(|| format!("bindAddress={}", config.bind_address))?;
        let address = SocketAddr::new(ip, port);
        let server = ServerConfig {
            connections_max: config.server_connections_max,
            limits,
            tls: tls.clone(),
            rejections: Arc::clone(&rejections),
            ..ServerConfig::new(address)
        };
        Server::bind(server).with_context(|| format!("listen on {address}"))
    };
    let server = bind(config.listen_port)?;
    let port = server.local_addr()?.port();
    let fast_server = match bind(port.saturating_sub(FAST_PORT_DISTANCE)) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!("clients with vipChannelEnabled will not reach this broker: {error:#}");
            None
        }
    };
    config.listen_port = port;
    let slaves = ha::bind(&mut config).await?;
    let (background, stopped) = (TaskTracker::new(), CancellationToken::new());
    if let Some(tls) = tls {
        background.spawn(tls.keep_current(stopped.clone()));
    }
    if let Some(tls) = client_tls.clone() {
        background.spawn(tls.keep_current(stopped.clone()));
    }
    let opened = http::OpenBroker::default();
    if let Some(listener) = http::bind(&config).await? {
        background.spawn(http::serve(listener, Arc::clone(&opened), stopped.clone()));
    }

    let store_host = SocketAddr::new(own_address(&config).await, port);
    let opening = move || Broker::open(config, store_host, client_tls, rejections);
    let broker = tokio::task::spawn_blocking(opening).await??;
    let config = broker.config();
    let _ = opened.set(Arc::clone(&broker));

    let serving = CancellationToken::new();
    let servers = TaskTracker::new();
    let router: Arc<Router> = Arc::new(Router { broker: Arc::clone(&broker) });
    servers.spawn(server.run(Arc::clone(&router) as _, serving.clone()));
    if let Some(fast_server) = fast_server {
        servers.spawn(fast_server.run(router, serving.clone()));
    }
    ha::start(&broker, slaves, &background, &stopped);
    background.spawn(look_after(Arc::clone(&broker), serving.clone()));
    if config.broker_role != BrokerRole::Slave {
        background.spawn(delay::deliver(Arc::clone(&broker), serving.clone()));
        if config.timer_wheel_enable {
            background.spawn(timer::deliver(Arc::clone(&broker), serving.clone()));
        }
        background.spawn(transaction::look_after(Arc::clone(&broker), serving.clone()));
    }
    let leaving = shutdown.child_token();
    let registration = tokio::spawn(registration::keep_registered(Arc::clone(&broker), leaving.clone()));
    announce(&config);

    let cut = tokio::select! {
        () = shutdown.cancelled() => None,
        cut = broker.replication.cut() => Some(cut),
    };
    leaving.cancel();
    tracing::info!("the broker stops: it leaves the name servers first");
    registration.await?;
    serving.cancel();
    servers.close();
    servers.wait().await;
    // Only now: sends that wait for a slave are answered while the servers end.
    stopped.cancel();
    background.close();
    background.wait().await;
    broker.persist().await;
    let used = broker.config();
    tokio::task::spawn_blocking(move || broker.store.shutdown()).await?;
    tracing::info!("the broker has stopped");
    Ok(cut.map(|cut| (BrokerConfig::clone(&used), cut)))
}

/// Java prints this line, and scripts wait for it.
fn announce(config: &BrokerConfig) {
    let name_servers = config.namesrv_addr.as_deref().map(|names| format!(" and name server is {names}"));
    let line = format!(
        "The broker[{}, {}] boot success. serializeType=JSON{}",
        config.broker_name,
        config.broker_addr(),
        name_servers.unwrap_or_default()
    );
    println!("{line}");
    tracing::info!("{line}");
}

/// The address that stands in messages: `brokerIP1`, resolved once where it is a name.
async fn own_address(config: &BrokerConfig) -> IpAddr {
    let name = &config.broker_ip1;
    if let Ok(address) = name.parse() {
        return address;
    }
    for _ in 0..OWN_NAME_TRIES {
        match tokio::net::lookup_host((name.as_str(), 0)).await.map(|mut found| found.next()) {
            Ok(Some(found)) => return found.ip(),
            Ok(None) | Err(_) => tokio::time::sleep(OWN_NAME_PERIOD).await,
        }
    }
    let address = crate::config::local_address();
    tracing::warn!("brokerIP1={name} does not resolve; messages carry {address} as their store host");
    address
}

/// Writes what has changed of the tables that are not written at each change.
fn persist_tables(broker: &Broker) {
    let results = [
        ("consumerOffset.json", broker.offsets.persist()),
        ("subscriptionGroup.json", broker.groups.write_unwritten()),
        ("topics.json", broker.topics.write_unwritten()),
        (
            "consumerFilter.json",
            broker.filters.persist(clock::now_millis(), broker.config().filter_data_clean_time_span),
        ),
    ];
    for (file, result) in results {
        if let Err(error) = result {
            tracing::error!("{file} could not be written: {error:#}");
        }
    }
}

/// The small duties: offsets to disk, silent clients, statistics.
async fn look_after(broker: Arc<Broker>, shutdown: CancellationToken) {
    let every = |period| {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut persist = every(broker.config().flush_consumer_offset_interval);
    let mut scan = every(CLIENT_SCAN_PERIOD);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = persist.tick() => {
                let broker = Arc::clone(&broker);
                // A panic there was logged where it happened.
                let _ = tokio::task::spawn_blocking(move || persist_tables(&broker)).await;
            }
            _ = scan.tick() => {
                let now = clock::now_millis();
                broker.producers.expire(now);
                broker.consumers.expire(now);
                broker.queue_locks.expire(now);
                broker.stats.sample(&broker.store.stats(), now);
            }
        }
    }
}
