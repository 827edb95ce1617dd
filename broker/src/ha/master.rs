//! The sending side: streams the log to every slave and knows how far each of them has it.
//!
//! Owns the replication port and the waits of `SYNC_MASTER`. What is sent and believed is decided in [`super::sender`], who
//! holds what is known to [`super::followers`]; here are the sockets and clocks. May not write the log.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use rocketmq_remoting::ResponseCode;
use rocketmq_store::MessageStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::followers::{Followers, held_by};
use super::sender::{Frame, Refused, Sender, Told};
use super::wire::{REPORT, Report};
use crate::clock;
use crate::config::{BrokerConfig, BrokerRole};
use crate::limits::{Limit, Limits};

/// `Slave fall behind master` is logged this often, as in Java.
const FALL_BEHIND_LOG_PERIOD: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct HaMaster {
    store: Arc<MessageStore>,
    pub(crate) followers: Followers,
}

impl HaMaster {
    pub(crate) fn new(store: Arc<MessageStore>) -> Arc<Self> {
        Arc::new(Self { store, followers: Followers::default() })
    }

    /// Takes the replication port (`bindAddress:haListenPort`).
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) async fn bind(config: &BrokerConfig) -> anyhow::Result<TcpListener> {
        let ip: IpAddr = config.bind_address.parse().with_context(|| format!("bindAddress={}", config.bind_address))?;
        let address = SocketAddr::new(ip, config.ha_listen_port);
        TcpListener::bind(address).await.with_context(|| format!("listen for slaves on {address}"))
    }

    /// Accepts slaves until `shutdown`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        config: Arc<BrokerConfig>,
        limits: Arc<Limits>,
        shutdown: CancellationToken,
    ) {
        tracing::info!("{}", promise(&config));
        let connections = TaskTracker::new();
        let mut fall_behind = tokio::time::interval(FALL_BEHIND_LOG_PERIOD);
        fall_behind.set_missed_tick_behavior(MissedTickBehavior::Delay);
        fall_behind.reset();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = fall_behind.tick() => self.log_standing(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, remote)) if connections.len() >= config.ha_connections_max => {
                        tracing::warn!("HA connection of /{remote} refused: haConnectionsMax={} are open", config.ha_connections_max);
                        limits.met(Limit::SlaveConnections);
                        drop(stream);
                    }
                    Ok((stream, remote)) => {
                        tracing::info!("HAService receive new connection, /{remote}");
                        connections.spawn(Arc::clone(&self).follow(stream, remote, Arc::clone(&config), shutdown.clone()));
                    }
                    Err(error) => {
                        // Mostly out of file descriptors: asking again at once would only spin.
                        tracing::warn!("accept of an HA connection failed: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        connections.close();
        connections.wait().await;
    }

    /// Waits until as many slaves have the log up to `end` as `SYNC_MASTER` promises with `SEND_OK`.
    ///
    /// `SLAVE_NOT_AVAILABLE` at once where too few slaves are near enough, `FLUSH_SLAVE_TIMEOUT` after
    /// `slaveTimeout`.
    pub(crate) async fn replicated(&self, end: u64, config: &BrokerConfig) -> ResponseCode {
        let lag_max = config.ha_slave_fallbehind_max;
        let wanted = acknowledgements(config, || self.followers.near(end, lag_max));
        let mut furthest = self.followers.furthest();
        if held_by(&furthest.borrow(), wanted) >= end {
            return ResponseCode::SUCCESS;
        }
        if self.followers.near(end, lag_max) < wanted {
            return ResponseCode::SLAVE_NOT_AVAILABLE;
        }
        let wait = furthest.wait_for(|furthest| held_by(furthest, wanted) >= end);
        match tokio::time::timeout(config.slave_timeout, wait).await {
            Ok(Ok(_)) => ResponseCode::SUCCESS,
            Ok(Err(_)) | Err(_) => ResponseCode::FLUSH_SLAVE_TIMEOUT,
        }
    }

    /// Why a message must not even be stored: fewer replicas are in sync than `inSyncReplicas` wants (5.x). Where one slave is
    /// enough the message is stored, and the answer says that no slave has it (4.9).
    pub(crate) fn too_few_in_sync(&self, config: &BrokerConfig) -> Option<String> {
        if config.broker_role != BrokerRole::SyncMaster || config.in_sync_replicas <= 2 {
            return None;
        }
        let near = self.followers.near(self.store.max_physical_offset(), config.ha_slave_fallbehind_max);
        let wanted = acknowledgements(config, || near);
        (near < wanted).then(|| {
            let (wanted, near) = (wanted + 1, near + 1);
            format!(
                "in-sync replicas not enough: {near} of the {wanted} that inSyncReplicas wants, this master included"
            )
        })
    }

    /// The furthest end of log that any slave has acknowledged since the start.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.followers.held_by(1)
    }

    /// Bytes of our log that no connected slave has.
    pub(crate) fn fall_behind(&self) -> u64 {
        let nearest = self.followers.connected().iter().map(|slave| slave.reported).max().unwrap_or(0);
        self.store.max_physical_offset().saturating_sub(nearest)
    }

    fn log_standing(&self) {
        tracing::info!("Slave fall behind master: {} bytes", self.fall_behind());
        for (id, diverged) in self.followers.diverged() {
            tracing::error!("slave {id} at /{} is not acknowledged against: {}", diverged.remote, diverged.reason);
        }
    }

    /// Runs one connection to its end.
    async fn follow(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        config: Arc<BrokerConfig>,
        shutdown: CancellationToken,
    ) {
        let mut stream = stream;
        let served = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            served = self.stream_to(&mut stream, remote, &config) => served,
        };
        if let Some(refused) = served.as_ref().err().and_then(|error| error.downcast_ref::<Refused>())
            && self.followers.refused(remote, refused)
        {
            tracing::error!("slave[/{remote}] is not acknowledged against: {refused}");
        }
        self.followers.left(remote);
        match served {
            Ok(()) => tracing::info!("HA connection of slave[/{remote}] ended"),
            Err(error) => tracing::warn!("HA connection of slave[/{remote}] closed: {error:#}"),
        }
    }

    async fn stream_to(&self, stream: &mut TcpStream, remote: SocketAddr, config: &BrokerConfig) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        let mut appended = self.store.appended();
        let mut reports = BytesMut::with_capacity(64 * REPORT);
        let mut sender = Sender::default();
        let mut last_read = Instant::now();
        let mut last_write = Instant::now();
        let mut clock = tokio::time::interval(config.ha_send_heartbeat_interval / 5);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            sender.load(&self.store, config.ha_transfer_batch_size)?;
            let (has_frame, has_begun) = (sender.frame().is_some(), sender.has_begun());
            tokio::select! {
                written = write(sender.frame(), &mut writer), if has_frame => {
                    sender.written(written?);
                    last_write = Instant::now();
                }
                changed = appended.changed(), if !has_frame && has_begun => {
                    changed.context("the store is closed")?;
                }
                read = reader.read_buf(&mut reports) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    last_read = Instant::now();
                    while let Some(report) = Report::take(&mut reports) {
                        self.take_report(report, remote, &mut sender)?;
                    }
                    reports.reserve(REPORT);
                }
                now = clock.tick() => {
                    ensure!(
                        now.duration_since(last_read) < config.ha_housekeeping_interval,
                        "no report for {} ms (haHousekeepingInterval)", config.ha_housekeeping_interval.as_millis()
                    );
                    if now.duration_since(last_write) >= config.ha_send_heartbeat_interval {
                        sender.heartbeat();
                    }
                }
            }
        }
    }

    fn take_report(&self, report: Report, remote: SocketAddr, sender: &mut Sender) -> Result<(), Refused> {
        let told = sender.told(report, &self.store, |position| self.followers.suspect(remote.ip(), position))?;
        match told {
            Told::Begins { asked, start } => {
                tracing::info!("slave[/{remote}] request offset {asked}");
                tracing::info!("master transfer data from {start} to slave[/{remote}], and slave request {asked}");
            }
            Told::Identity(id) => tracing::info!("slave[/{remote}] is brokerId {id}"),
            Told::Holds(_) | Told::Nothing => {}
        }
        self.followers.told(remote, told, self.store.max_physical_offset(), clock::now_millis());
        Ok(())
    }
}

/// How many slaves must have a message: at least one with `SYNC_MASTER`, as in 4.9, though 5.x waits for none where
/// `inSyncReplicas` is not set; `near` is asked how many could (5.x's `calcNeedAckNums`).
pub(crate) fn acknowledgements(config: &BrokerConfig, near: impl FnOnce() -> usize) -> usize {
    let wanted = config.in_sync_replicas.max(2) as usize;
    let wanted = if config.enable_auto_in_sync_replicas && wanted > 2 {
        wanted.min(near() + 1).max(config.min_in_sync_replicas as usize).max(2)
    } else {
        wanted
    };
    wanted - 1
}

/// What `SEND_OK` means here, in words: logged at the start and told by the runtime info.
pub(crate) fn promise(config: &BrokerConfig) -> String {
    let flush = match config.flush_disk_type {
        rocketmq_store::FlushDiskType::SyncFlush => "on this disk",
        rocketmq_store::FlushDiskType::AsyncFlush => "in this broker's memory",
    };
    match config.broker_role {
        BrokerRole::AsyncMaster => format!("SEND_OK means: the message is {flush}; slaves are not waited for"),
        BrokerRole::SyncMaster => {
            let slaves = config.in_sync_replicas.max(2) - 1;
            let auto = if config.enable_auto_in_sync_replicas && slaves > 1 {
                format!(
                    ", or as many as are in sync, but not fewer than {}",
                    config.min_in_sync_replicas.max(2).min(slaves + 1) - 1
                )
            } else {
                String::new()
            };
            format!(
                "SEND_OK means: the message is {flush} and at {slaves} slave(s){auto}, where it is on disk if they flush \
                 synchronously and are of this kind"
            )
        }
        BrokerRole::Slave => "this broker takes no messages; it is a slave".to_owned(),
    }
}

/// Writes as much of the frame as goes; the rest stays, also when this is dropped in between.
async fn write(frame: Option<&mut Frame>, writer: &mut WriteHalf<'_>) -> io::Result<usize> {
    let Some(frame) = frame else { return Ok(0) };
    let (header, body) = frame.rest();
    match writer.write_vectored(&[IoSlice::new(header), IoSlice::new(body)]).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}
