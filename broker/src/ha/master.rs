//! The sending side: streams the log to every slave and knows how far each of them has it.
//!
//! Owns the replication port, the table of slaves and the waits of `SYNC_MASTER`. May not write
//! the log. Whoever connects is believed as little as possible: a report that cannot be true ends
//! its connection, and counts for nothing.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use rocketmq_remoting::ResponseCode;
use rocketmq_store::MessageStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{FRAME_HEADER, REPORT, frame_header};
use crate::config::BrokerConfig;
use crate::limits::{Limit, Limits};

/// `Slave fall behind master` is logged this often, as in Java.
const FALL_BEHIND_LOG_PERIOD: Duration = Duration::from_mins(1);

/// A slave as its last report shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlavePosition {
    /// Where it connects from.
    pub(crate) remote: SocketAddr,
    /// Where its log ends, by its own word.
    pub(crate) reported: u64,
    /// Bytes of our log that it does not have.
    pub(crate) lag: u64,
}

/// Who follows this master, and how far they are.
#[derive(Debug)]
pub(crate) struct HaMaster {
    store: Arc<MessageStore>,
    /// The last report of each connection; those that have not reported yet are not in it.
    ///
    /// By connection rather than by host: several slaves may share an address, and the old
    /// connection of a slave that came back dies by itself when it stays silent.
    slaves: Mutex<BTreeMap<SocketAddr, u64>>,
    /// The furthest end of log that any slave has acknowledged; never goes back. One slave is
    /// enough for `SYNC_MASTER`, so its maximum is all that waits need.
    acknowledged: watch::Sender<u64>,
}

impl HaMaster {
    pub(crate) fn new(store: Arc<MessageStore>) -> Arc<Self> {
        Arc::new(Self { store, slaves: Mutex::default(), acknowledged: watch::Sender::new(0) })
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
        let connections = TaskTracker::new();
        let mut fall_behind = tokio::time::interval(FALL_BEHIND_LOG_PERIOD);
        fall_behind.set_missed_tick_behavior(MissedTickBehavior::Delay);
        fall_behind.reset();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = fall_behind.tick() => tracing::info!("Slave fall behind master: {} bytes", self.fall_behind()),
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

    /// Waits until one slave has the log up to `end`, as `SYNC_MASTER` promises with `SEND_OK`.
    ///
    /// `SLAVE_NOT_AVAILABLE` at once where no slave is near enough, `FLUSH_SLAVE_TIMEOUT` after
    /// `slaveTimeout`.
    pub(crate) async fn replicated(&self, end: u64, config: &BrokerConfig) -> ResponseCode {
        let mut acknowledged = self.acknowledged.subscribe();
        if *acknowledged.borrow() >= end {
            return ResponseCode::SUCCESS;
        }
        if !self.has_slave_near(end, config.ha_slave_fallbehind_max) {
            return ResponseCode::SLAVE_NOT_AVAILABLE;
        }
        let wait = acknowledged.wait_for(|position| *position >= end);
        match tokio::time::timeout(config.slave_timeout, wait).await {
            Ok(Ok(_)) => ResponseCode::SUCCESS,
            Ok(Err(_)) | Err(_) => ResponseCode::FLUSH_SLAVE_TIMEOUT,
        }
    }

    /// Whether a connected slave is less than `fallbehind_max` bytes before `end` (Java's `isSlaveOK`).
    fn has_slave_near(&self, end: u64, fallbehind_max: u64) -> bool {
        self.slaves.lock().values().any(|reported| end.saturating_sub(*reported) < fallbehind_max)
    }

    /// The furthest end of log that any slave has acknowledged since the start.
    pub(crate) fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// All connected slaves that have reported.
    pub(crate) fn slaves(&self) -> Vec<SlavePosition> {
        let end = self.store.max_physical_offset();
        let position = |(remote, reported): (&SocketAddr, &u64)| SlavePosition {
            remote: *remote,
            reported: *reported,
            lag: end.saturating_sub(*reported),
        };
        self.slaves.lock().iter().map(position).collect()
    }

    /// Bytes that no connected slave has.
    pub(crate) fn fall_behind(&self) -> u64 {
        let nearest = self.slaves.lock().values().copied().max().unwrap_or(0);
        self.store.max_physical_offset().saturating_sub(nearest)
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
        self.slaves.lock().remove(&remote);
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
        let mut outgoing = Outgoing { next: None, frame: None, any_sent: false };
        let mut last_read = Instant::now();
        let mut last_write = Instant::now();
        let mut clock = tokio::time::interval(config.ha_send_heartbeat_interval / 5);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            outgoing.load(&self.store, config.ha_transfer_batch_size)?;
            tokio::select! {
                written = outgoing.write(&mut writer), if outgoing.frame.is_some() => {
                    written?;
                    last_write = Instant::now();
                }
                changed = appended.changed(), if outgoing.frame.is_none() && outgoing.next.is_some() => {
                    changed.context("the store is closed")?;
                }
                read = reader.read_buf(&mut reports) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    last_read = Instant::now();
                    let mut last = None;
                    while reports.len() >= REPORT {
                        last = Some(reports.get_i64());
                    }
                    if let Some(report) = last {
                        self.take_report(report, remote, &mut outgoing)?;
                    }
                    reports.reserve(REPORT);
                }
                now = clock.tick() => {
                    ensure!(
                        now.duration_since(last_read) < config.ha_housekeeping_interval,
                        "no report for {} ms (haHousekeepingInterval)", config.ha_housekeeping_interval.as_millis()
                    );
                    if now.duration_since(last_write) >= config.ha_send_heartbeat_interval {
                        outgoing.load_heartbeat();
                    }
                }
            }
        }
    }

    /// Checks a report against what this connection was sent and what the log holds.
    fn take_report(&self, report: i64, remote: SocketAddr, outgoing: &mut Outgoing) -> anyhow::Result<()> {
        let Ok(position) = u64::try_from(report) else {
            bail!("it reports the negative offset {report}");
        };
        let (min, max) = (self.store.min_physical_offset(), self.store.max_physical_offset());
        if let Some(next) = outgoing.next {
            ensure!(position <= next, "it reports offset {position}, but was sent the log up to {next} only");
            self.slaves.lock().insert(remote, position);
            // Only who answers a frame acknowledges: eight bytes of a stranger do not.
            if outgoing.any_sent {
                self.acknowledged.send_if_modified(|furthest| {
                    let further = position > *furthest;
                    *furthest = position.max(*furthest);
                    further
                });
            }
        } else {
            tracing::info!("slave[/{remote}] request offset {position}");
            ensure!(
                position <= max,
                "the slave is ahead of this master: its log ends at {position}, ours at {max}; one of them has \
                 messages that the other never had, and nothing is sent until its store is emptied"
            );
            // An empty slave gets the whole log. Java's master would send its last file only, and
            // after a fail-over the older messages would be gone; a slave of either kind takes
            // any start while its log is empty.
            let start = if position == 0 { min } else { position };
            ensure!(
                start >= min,
                "the slave's log ends at {position}, before our oldest byte {min}: there is a hole between them, \
                 its store must be emptied"
            );
            outgoing.next = Some(start);
            // Said at once: who answers it can be counted on, even while nothing is written.
            outgoing.load_heartbeat();
            tracing::info!("master transfer data from {start} to slave[/{remote}], and slave request {position}");
            self.slaves.lock().insert(remote, position);
        }
        Ok(())
    }
}

/// What is on its way to one slave.
struct Outgoing {
    /// Offset of the next byte to send; `None` before the first report.
    next: Option<u64>,
    frame: Option<Frame>,
    /// Whether a whole frame has left.
    any_sent: bool,
}

struct Frame {
    header: [u8; FRAME_HEADER],
    body: Bytes,
    written: usize,
}

impl Outgoing {
    /// Makes the next frame where there are bytes for one.
    fn load(&mut self, store: &MessageStore, batch: usize) -> anyhow::Result<()> {
        let Some(next) = self.next.filter(|_| self.frame.is_none()) else { return Ok(()) };
        if next >= store.max_physical_offset() {
            return Ok(());
        }
        let Some(body) = store.read_raw(next, batch).filter(|body| !body.is_empty()) else {
            bail!("the log cannot be read at {next}: it begins at {}", store.min_physical_offset());
        };
        self.next = Some(next + body.len() as u64);
        self.frame = Some(Frame { header: frame_header(next, body.len()), body, written: 0 });
        Ok(())
    }

    /// An empty frame, where nothing else is on its way.
    fn load_heartbeat(&mut self) {
        if let (Some(next), None) = (self.next, &self.frame) {
            self.frame = Some(Frame { header: frame_header(next, 0), body: Bytes::new(), written: 0 });
        }
    }

    /// Writes as much of the frame as goes; keeps the rest, also when it is dropped in between.
    async fn write(&mut self, writer: &mut WriteHalf<'_>) -> io::Result<()> {
        let Some(frame) = &mut self.frame else { return Ok(()) };
        let header = &frame.header[frame.written.min(FRAME_HEADER)..];
        let body = &frame.body[frame.written.saturating_sub(FRAME_HEADER)..];
        let written = writer.write_vectored(&[IoSlice::new(header), IoSlice::new(body)]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        frame.written += written;
        if frame.written == FRAME_HEADER + frame.body.len() {
            self.frame = None;
            self.any_sent = true;
        }
        Ok(())
    }
}
