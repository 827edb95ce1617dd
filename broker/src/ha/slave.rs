//! The receiving side: follows a master and appends what it sends, byte for byte.
//!
//! Owns the connection to the master and what is known of it. May not invent bytes: where the
//! master's log does not continue ours, nothing is written, and the difference is named in the
//! log, in the metrics and in `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use rocketmq_store::MessageStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::FRAME_HEADER;
use crate::config::BrokerConfig;
use crate::registration::MasterAddresses;

/// The first pause before another try; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
/// Java waits as long each time.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A larger frame is not a master's: Java reads at most 4 MiB at once.
const FRAME_MAX: usize = 16 << 20;
/// Each connection begins this many bytes before the end of our log, so that what the master has
/// there is compared with what we have: offsets alone would not show that a master lost its last
/// messages and has written others in their place.
const VERIFY_BYTES: u64 = 64 << 10;
/// A master whose heartbeats stay before our end has nothing more: the first one is a greeting.
const HEARTBEATS_OF_THE_END: u32 = 2;
/// Room for a few frames of the usual size.
const READ_SIZE: usize = 256 << 10;

/// How it stands with the master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlaveStatus {
    /// Address of the open connection.
    pub(crate) connected: Option<String>,
    /// The master's log does not continue ours; how.
    pub(crate) divergence: Option<String>,
    /// Where the master's log ended when it was last asked.
    pub(crate) master_end: Option<u64>,
    /// Up to where the last connection brought the master's log.
    pub(crate) received: u64,
}

/// The slave's side of replication.
#[derive(Debug)]
pub(crate) struct HaSlave {
    store: Arc<MessageStore>,
    status: Mutex<SlaveStatus>,
}

/// The master's log and ours are not the same log. Nothing is appended then; one of the two stores
/// must be emptied, and only people can say which.
#[derive(Debug, thiserror::Error)]
enum Diverged {
    /// The first words are Java's.
    #[error(
        "master pushed offset not equal the max phy offset in slave: the master sends from {pushed}, we asked for \
         {expected}, our log ends at {own}"
    )]
    Elsewhere { pushed: i64, expected: u64, own: u64 },
    #[error("the master's log differs from ours at offset {at}, our log ends at {own}")]
    Bytes { at: u64, own: u64 },
}

/// What one connection has brought.
struct Progress {
    /// Up to here our log is the master's; `None` while it is empty.
    position: Option<u64>,
    /// Heartbeats since the last bytes.
    heartbeats: u32,
}

impl HaSlave {
    pub(crate) fn new(store: Arc<MessageStore>) -> Arc<Self> {
        Arc::new(Self { store, status: Mutex::default() })
    }

    pub(crate) fn status(&self) -> SlaveStatus {
        self.status.lock().clone()
    }

    /// Notes where the master's log ends; the stream itself does not tell.
    pub(crate) fn master_ends_at(&self, end: u64) {
        let mut status = self.status.lock();
        // The answer may be older than what the stream has brought meanwhile.
        status.master_end = Some(end.max(status.received));
    }

    /// Bytes of the master's log that are not here; `None` until the master was asked.
    pub(crate) fn lag(&self) -> Option<u64> {
        let end = self.status.lock().master_end?;
        Some(end.saturating_sub(self.store.max_physical_offset()))
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
        loop {
            let Some(address) = wanted(&config, &mut master) else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = master.changed() => if changed.is_err() { return },
                }
                continue;
            };
            let before = self.store.max_physical_offset();
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow(&address, &config) => ended,
                () = moved(&config, &mut master, &address) => {
                    tracing::info!("the master is not at {address} any more");
                    Ok(())
                }
            };
            self.ended(&address, ended);
            // Whoever made progress starts over with short pauses.
            pause = if self.store.max_physical_offset() > before { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn ended(&self, address: &str, ended: anyhow::Result<()>) {
        let mut status = self.status.lock();
        status.connected = None;
        if let Err(error) = ended {
            if error.is::<Diverged>() {
                status.divergence = Some(error.to_string());
                tracing::error!("replication from {address} stopped: {error:#}");
            } else {
                tracing::warn!("replication from {address} broke off: {error:#}");
                // A master closes on a slave far ahead without saying why.
                let own = self.store.max_physical_offset();
                if let Some(end) = status.master_end.filter(|end| *end < own) {
                    status.divergence = Some(ahead_of_master(own, end));
                }
            }
        }
    }

    async fn follow(&self, address: &str, config: &BrokerConfig) -> anyhow::Result<()> {
        // A name is resolved anew each time: in Kubernetes its address changes with the pod.
        let mut stream = tokio::time::timeout(config.connect_timeout, TcpStream::connect(address))
            .await
            .context("the connection did not open in time (connectTimeoutMillis)")?
            .context("connect")?;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        tracing::info!(
            "HA connection to master {address} is open, our log ends at {}",
            self.store.max_physical_offset()
        );
        {
            let mut status = self.status.lock();
            status.connected = Some(address.to_owned());
            status.received = 0;
        }
        let mut buffer = BytesMut::with_capacity(READ_SIZE);
        let mut last_read = Instant::now();
        let mut progress = Progress { position: self.start(), heartbeats: 0 };
        // The first report goes out at once: the master sends nothing before it.
        let mut last_report = report(&mut writer, &progress, config).await?;
        let mut clock = tokio::time::interval(config.ha_send_heartbeat_interval / 5);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                read = reader.read_buf(&mut buffer) => {
                    ensure!(read? != 0, "the master closed the connection");
                    last_read = Instant::now();
                    if self.take_frames(&mut buffer, &mut progress)? {
                        last_report = report(&mut writer, &progress, config).await?;
                    }
                    if buffer.capacity() - buffer.len() < FRAME_HEADER {
                        buffer.reserve(READ_SIZE);
                    }
                }
                now = clock.tick() => {
                    ensure!(
                        now.duration_since(last_read) < config.ha_housekeeping_interval,
                        "nothing came for {} ms (haHousekeepingInterval)", config.ha_housekeeping_interval.as_millis()
                    );
                    if now.duration_since(last_report) >= config.ha_send_heartbeat_interval {
                        last_report = report(&mut writer, &progress, config).await?;
                    }
                }
            }
        }
    }

    /// Where to ask the master to begin. Not before the file that our log ends in: the master may
    /// have deleted the one before. Nor at 0, by which a slave says that it is empty.
    fn start(&self) -> Option<u64> {
        let end = self.store.max_physical_offset();
        if end == 0 {
            return None;
        }
        let back = (end % self.store.config().mapped_file_size_commit_log).min(VERIFY_BYTES);
        Some((end - back).max(self.store.min_physical_offset()).max(1))
    }

    /// Takes every whole frame of the buffer; whether there was one, a heartbeat included.
    fn take_frames(&self, buffer: &mut BytesMut, progress: &mut Progress) -> anyhow::Result<bool> {
        let mut any = false;
        while let Some((header, rest)) = buffer.split_first_chunk::<FRAME_HEADER>() {
            let mut header = header.as_slice();
            let (pushed, size) = (header.get_i64(), header.get_i32());
            let Some(size) = usize::try_from(size).ok().filter(|size| *size <= FRAME_MAX) else {
                bail!("a frame of {size} bytes is not a master's");
            };
            let expected = progress.position.unwrap_or(pushed.max(0) as u64);
            if pushed != expected as i64 {
                return Err(Diverged::Elsewhere { pushed, expected, own: self.store.max_physical_offset() }.into());
            }
            if rest.len() < size {
                buffer.reserve(size - rest.len());
                break;
            }
            if size == 0 {
                self.heard(expected, progress);
            } else {
                self.take(expected, &rest[..size])?;
                *progress = Progress { position: Some(expected + size as u64), heartbeats: 0 };
                self.advanced(expected + size as u64);
            }
            buffer.advance(FRAME_HEADER + size);
            any = true;
        }
        Ok(any)
    }

    /// Compares what we have already, appends the rest.
    fn take(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let own = self.store.max_physical_offset();
        let mut done = 0;
        while done < bytes.len() && at + (done as u64) < own {
            let here = at + done as u64;
            let Some(ours) = self.store.read_raw(here, bytes.len() - done).filter(|ours| !ours.is_empty()) else {
                bail!("our own log cannot be read at {here}");
            };
            if let Some(same) = ours.iter().zip(&bytes[done..]).position(|(ours, theirs)| ours != theirs) {
                return Err(Diverged::Bytes { at: here + same as u64, own }.into());
            }
            done += ours.len();
        }
        if done < bytes.len() {
            self.store.append_raw(at + done as u64, &bytes[done..])?;
        }
        Ok(())
    }

    /// The master has sent the log up to `end`, and it continued ours.
    fn advanced(&self, end: u64) {
        let mut status = self.status.lock();
        status.divergence = None;
        status.received = end;
        status.master_end = status.master_end.map(|known| known.max(end));
    }

    /// A heartbeat: the master has nothing more than `position`, except when it greets.
    fn heard(&self, position: u64, progress: &mut Progress) {
        progress.heartbeats += 1;
        let own = self.store.max_physical_offset();
        let ahead = progress.position.is_some() && own > position;
        if ahead && progress.heartbeats == HEARTBEATS_OF_THE_END {
            let text = ahead_of_master(own, position);
            tracing::error!("{text}");
            self.status.lock().divergence = Some(text);
        } else if !ahead {
            self.status.lock().divergence = None;
        }
    }
}

fn ahead_of_master(own: u64, master: u64) -> String {
    format!(
        "this slave is ahead of its master: our log ends at {own}, the master's at {master}; its next message will not continue ours"
    )
}

/// Tells the master up to where our log is its own.
async fn report(writer: &mut WriteHalf<'_>, progress: &Progress, config: &BrokerConfig) -> anyhow::Result<Instant> {
    let report = progress.position.unwrap_or(0).to_be_bytes();
    tokio::time::timeout(config.ha_housekeeping_interval, writer.write_all(&report))
        .await
        .context("the master does not read our reports")??;
    Ok(Instant::now())
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
