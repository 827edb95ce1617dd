//! The receiving side: follows a master and appends what it sends, byte for byte.
//!
//! Owns the connection to the master, what is known of it, and what becomes of a log that is not the master's. What is
//! compared and appended is decided in [`super::receiver`]; here are the sockets and clocks. May not invent bytes: where
//! the logs part nothing is written, and the difference is named in the log, in the metrics and in `/readyz`, and to a master
//! of our kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, BytesMut};
use parking_lot::Mutex;
use rocketmq_store::{FlushDiskType, MessageStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::receiver::{Common, Diverged, Receiver, compared};
use super::wire::{FRAME_HEADER, REPORT, Report};
use crate::config::{BrokerConfig, DivergedSlave};
use crate::registration::MasterAddresses;

/// The first pause before another try; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
/// Java waits as long each time.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Room for a few frames of the usual size.
const READ_SIZE: usize = 256 << 10;
/// How long a master may take to hear why we leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// A difference that stays is logged this often.
const REMIND: Duration = Duration::from_mins(1);

/// How it stands with the master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlaveStatus {
    /// Address of the open connection.
    pub(crate) connected: Option<String>,
    /// The master's log does not continue ours; how.
    pub(crate) divergence: Option<String>,
    /// Up to where the two logs are the same, once that was found.
    pub(crate) common: Option<Common>,
    /// Up to where our log is known to be the master's: all of it was compared, or came from there.
    pub(crate) confirmed: u64,
    /// Where the master's log began and ended when it was last asked.
    pub(crate) master: Option<(u64, u64)>,
    /// Up to where the last connection brought the master's log.
    pub(crate) received: u64,
}

/// The slave's side of replication.
#[derive(Debug)]
pub(crate) struct HaSlave {
    store: Arc<MessageStore>,
    status: Mutex<SlaveStatus>,
    /// How often the common beginning of the logs was looked for and lies further back.
    depth: AtomicU32,
    /// Where the log is to be cut, which takes a closed store.
    cut: watch::Sender<Option<u64>>,
}

impl HaSlave {
    pub(crate) fn new(store: Arc<MessageStore>) -> Arc<Self> {
        Arc::new(Self { store, status: Mutex::default(), depth: AtomicU32::new(0), cut: watch::Sender::new(None) })
    }

    pub(crate) fn status(&self) -> SlaveStatus {
        self.status.lock().clone()
    }

    /// Notes where the master's log begins and ends; the stream itself does not tell.
    pub(crate) fn master_has(&self, begin: u64, end: u64) {
        let mut status = self.status.lock();
        // The answer may be older than what the stream has brought meanwhile.
        status.master = Some((begin, end.max(status.received)));
    }

    /// Bytes of the master's log that are not here; `None` until the master was asked.
    pub(crate) fn lag(&self) -> Option<u64> {
        let (_, end) = self.status.lock().master?;
        Some(end.saturating_sub(self.store.max_physical_offset()))
    }

    /// Waits until the log is to be cut (`haDivergedSlave=TRUNCATE`), and where.
    pub(crate) async fn cut(&self) -> u64 {
        let mut cut = self.cut.subscribe();
        match cut.wait_for(Option::is_some).await.ok().and_then(|cut| *cut) {
            Some(at) => at,
            None => std::future::pending().await,
        }
    }

    /// Follows the master until `shutdown`: the one of `haMasterAddress`, else the one that the
    /// name servers tell.
    pub(crate) async fn run(
        self: Arc<Self>,
        config: Arc<BrokerConfig>,
        mut master: watch::Receiver<Option<MasterAddresses>>,
        shutdown: CancellationToken,
    ) {
        let mut pause = RETRY_MIN;
        let mut logged = None;
        loop {
            let Some(address) = wanted(&config, &mut master) else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = master.changed() => if changed.is_err() { return },
                }
                continue;
            };
            let (before, depth) = (self.store.max_physical_offset(), self.depth.load(Ordering::Relaxed));
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow(&address, &config) => ended,
                () = moved(&config, &mut master, &address) => {
                    tracing::info!("the master is not at {address} any more");
                    Ok(())
                }
            };
            self.ended(&address, ended, &mut logged);
            // Whoever made progress starts over with short pauses.
            let progressed = self.store.max_physical_offset() > before || self.depth.load(Ordering::Relaxed) > depth;
            pause = if progressed { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn ended(&self, address: &str, ended: anyhow::Result<()>, logged: &mut Option<(String, Instant)>) {
        let mut status = self.status.lock();
        status.connected = None;
        let Err(error) = ended else { return };
        if error.is::<Diverged>() {
            let text = match status.common {
                Some(Common::Until(at)) => format!("{error}; the two logs are the same up to {at}"),
                Some(Common::Nothing) => format!("{error}; the two logs have nothing in common"),
                Some(Common::Further) | None => error.to_string(),
            };
            status.divergence = Some(text.clone());
            if logged.as_ref().is_none_or(|(known, at)| *known != text || at.elapsed() >= REMIND) {
                tracing::error!("replication from {address} stopped: {text}");
                *logged = Some((text, Instant::now()));
            }
        } else {
            tracing::warn!("replication from {address} broke off: {error:#}");
            // A Java master closes on a slave far ahead without saying why.
            let own = self.store.max_physical_offset();
            if let Some((_, master)) = status.master.filter(|(_, end)| *end < own) {
                status.divergence = Some(Diverged::Ahead { own, master }.to_string());
            }
        }
    }

    async fn follow(&self, address: &str, config: &BrokerConfig) -> anyhow::Result<()> {
        let master = self.status.lock().master;
        let mut receiver = Receiver::new(&self.store, compared(self.depth.load(Ordering::Relaxed)), master)?;
        // A name is resolved anew each time: in Kubernetes its address changes with the pod.
        let mut stream = tokio::time::timeout(config.connect_timeout, TcpStream::connect(address))
            .await
            .context("the connection did not open in time (connectTimeoutMillis)")?
            .context("connect")?;
        stream.set_nodelay(true)?;
        tracing::info!(
            "HA connection to master {address} is open, our log ends at {}",
            self.store.max_physical_offset()
        );
        {
            let mut status = self.status.lock();
            status.connected = Some(address.to_owned());
            status.received = 0;
        }
        let ended = self.receive(&mut stream, &mut receiver, config).await;
        if let Some(diverged) = ended.as_ref().err().and_then(|error| error.downcast_ref::<Diverged>()) {
            self.search(&receiver, diverged, config);
            // Who does not hear it finds out that we are gone.
            let _ = tokio::time::timeout(FAREWELL, farewell(&mut stream, diverged)).await;
        }
        if master.is_none() && receiver.begins_too_late() {
            // It may be that its log is so much shorter: it closes then, or has nothing to send.
            self.depth.fetch_add(1, Ordering::Relaxed);
        }
        ended
    }

    async fn receive(
        &self,
        stream: &mut TcpStream,
        receiver: &mut Receiver,
        config: &BrokerConfig,
    ) -> anyhow::Result<()> {
        let (mut reader, mut writer) = stream.split();
        let mut buffer = BytesMut::with_capacity(READ_SIZE);
        let mut flushes = self.store.flushes();
        let sync_flush = self.store.config().flush_disk_type == FlushDiskType::SyncFlush;
        let mut last_read = Instant::now();
        // The first report goes out at once: the master sends nothing before it.
        let mut reported = report(&mut writer, None, receiver.report(&self.store), config).await?;
        let mut last_report = Instant::now();
        let mut clock = tokio::time::interval(config.ha_send_heartbeat_interval / 5);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut due = false;
            tokio::select! {
                read = reader.read_buf(&mut buffer) => {
                    ensure!(read? != 0, "the master closed the connection");
                    last_read = Instant::now();
                    while receiver.take(&mut buffer, &self.store)? {
                        due = true;
                        self.received(receiver);
                        if let Some(introduction) = receiver.introduction(config.broker_id.unsigned_abs()) {
                            reported = report(&mut writer, Some(introduction), receiver.report(&self.store), config).await?;
                        }
                    }
                    if let Some(ahead) = receiver.ahead(&self.store) {
                        return Err(ahead.into());
                    }
                    if buffer.capacity() - buffer.len() < FRAME_HEADER {
                        buffer.reserve(READ_SIZE);
                    }
                }
                flushed = flushes.changed(), if sync_flush => {
                    flushed.context("the store is closed")?;
                    due = receiver.report(&self.store) != reported;
                }
                now = clock.tick() => {
                    ensure!(
                        now.duration_since(last_read) < config.ha_housekeeping_interval,
                        "nothing came for {} ms (haHousekeepingInterval)", config.ha_housekeeping_interval.as_millis()
                    );
                    due = now.duration_since(last_report) >= config.ha_send_heartbeat_interval;
                }
            }
            if due {
                reported = report(&mut writer, None, receiver.report(&self.store), config).await?;
                last_report = Instant::now();
            }
        }
    }

    /// The master has sent the log up to there, and it is ours.
    fn received(&self, receiver: &Receiver) {
        let Some(position) = receiver.position().filter(|_| receiver.has_received()) else { return };
        let own = self.store.max_physical_offset();
        let mut status = self.status.lock();
        status.received = position;
        status.master = status.master.map(|(begin, end)| (begin, end.max(position)));
        if position >= own {
            (status.divergence, status.common, status.confirmed) = (None, None, position);
            self.depth.store(0, Ordering::Relaxed);
        }
    }

    /// Looks where the common beginning of the logs ends, once they are known to differ.
    fn search(&self, receiver: &Receiver, diverged: &Diverged, config: &BrokerConfig) {
        let Diverged::Bytes { at, .. } = *diverged else { return };
        let found = receiver.common(&self.store, at);
        let mut status = self.status.lock();
        match found {
            // Found already, and reported again by a comparison of less.
            Common::Further if matches!(status.common, Some(Common::Until(_) | Common::Nothing)) => return,
            Common::Further => {
                self.depth.fetch_add(1, Ordering::Relaxed);
            }
            Common::Until(_) | Common::Nothing => self.depth.store(0, Ordering::Relaxed),
        }
        status.common = Some(found);
        if let (Common::Until(at), DivergedSlave::Truncate) = (found, config.ha_diverged_slave) {
            tracing::error!("{diverged}; our log will be cut at {at} (haDivergedSlave)");
            self.cut.send_replace(Some(at));
        }
    }
}

/// Tells the master up to where our log is its own, and before that something else where there is something.
async fn report(
    writer: &mut WriteHalf<'_>,
    before: Option<Report>,
    position: Report,
    config: &BrokerConfig,
) -> anyhow::Result<Report> {
    let mut bytes = BytesMut::with_capacity(2 * REPORT);
    before.into_iter().chain([position]).for_each(|report| bytes.put_i64(report.encode()));
    // One write: a Java master takes the last of what comes together.
    tokio::time::timeout(config.ha_housekeeping_interval, writer.write_all(&bytes))
        .await
        .context("the master does not read our reports")??;
    Ok(position)
}

/// Tells a master of our kind why we leave; Java's takes it for a slave that has nothing.
async fn farewell(stream: &mut TcpStream, diverged: &Diverged) -> anyhow::Result<()> {
    stream.write_all(&Report::Diverged(diverged.at()).encode().to_be_bytes()).await?;
    stream.shutdown().await?;
    // To close with bytes unread would take back what was written.
    let mut rest = vec![0; READ_SIZE];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Where to connect now.
fn wanted(config: &BrokerConfig, master: &mut watch::Receiver<Option<MasterAddresses>>) -> Option<String> {
    let learnt = master.borrow_and_update().as_ref().map(|addresses| addresses.ha.clone());
    config.ha_master_address.clone().or(learnt)
}

/// Returns once the master is known to be somewhere else than at `address`.
async fn moved(config: &BrokerConfig, master: &mut watch::Receiver<Option<MasterAddresses>>, address: &str) {
    loop {
        if master.changed().await.is_err() {
            return std::future::pending().await;
        }
        if wanted(config, master).is_some_and(|now| now != address) {
            return;
        }
    }
}
