//! Replication: a slave connects to its master and receives the log's bytes as they are.
//!
//! The stream is Java's (`HAService` of 4.9, the default of 5.x), so either side may be a Java
//! broker: the slave sends nothing but 8-byte reports of where its log ends, the master sends
//! frames of a 12-byte header and raw log bytes. [`master`] is the sending side and knows who has
//! what; [`slave`] is the receiving side. Both may only move bytes between store and socket.

use std::sync::Arc;

use rocketmq_remoting::ResponseCode;
use rocketmq_store::MessageStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::config::{BrokerConfig, BrokerRole};
use crate::slave_sync;
use master::HaMaster;
use slave::HaSlave;

pub(crate) mod master;
pub(crate) mod slave;

/// Which side of replication this broker is on.
#[derive(Debug)]
pub(crate) enum Replication {
    /// `ASYNC_MASTER` and `SYNC_MASTER`.
    Master(Arc<HaMaster>),
    /// `SLAVE`.
    Slave(Arc<HaSlave>),
}

impl Replication {
    /// The side that `brokerRole` asks for.
    pub(crate) fn new(config: &BrokerConfig, store: &Arc<MessageStore>) -> Self {
        match config.broker_role {
            BrokerRole::AsyncMaster | BrokerRole::SyncMaster => Self::Master(HaMaster::new(Arc::clone(store))),
            BrokerRole::Slave => Self::Slave(HaSlave::new(Arc::clone(store))),
        }
    }
}

/// Takes the replication port, where this broker is a master; `config` learns which it was.
///
/// # Errors
/// The port is taken.
pub(crate) async fn bind(config: &mut BrokerConfig) -> anyhow::Result<Option<TcpListener>> {
    if config.broker_role == BrokerRole::Slave {
        return Ok(None);
    }
    let listener = HaMaster::bind(config).await?;
    config.ha_listen_port = listener.local_addr()?.port();
    Ok(Some(listener))
}

/// Serves slaves or follows the master, until `stopped`.
pub(crate) fn start(
    broker: &Arc<Broker>,
    slaves: Option<TcpListener>,
    tasks: &TaskTracker,
    stopped: &CancellationToken,
) {
    let config = broker.config();
    match (&broker.replication, slaves) {
        (Replication::Master(master), Some(listener)) => {
            tasks.spawn(Arc::clone(master).serve(listener, config, Arc::clone(&broker.limits), stopped.clone()));
        }
        (Replication::Slave(slave), _) => {
            tasks.spawn(Arc::clone(slave).run(config, broker.registration.master(), stopped.clone()));
            tasks.spawn(slave_sync::run(Arc::clone(broker), Arc::clone(slave), stopped.clone()));
        }
        (Replication::Master(_), None) => {}
    }
}

impl Broker {
    /// Waits until a slave has the log up to `end`; see [`HaMaster::replicated`].
    pub(crate) async fn replicated(&self, end: u64) -> ResponseCode {
        match &self.replication {
            Replication::Master(master) => master.replicated(end, &self.config()).await,
            // Sends are refused on a slave, so nobody waits here.
            Replication::Slave(_) => ResponseCode::SLAVE_NOT_AVAILABLE,
        }
    }
}

/// i64 offset of the first byte, i32 number of bytes; big-endian. No bytes is a heartbeat.
const FRAME_HEADER: usize = 12;
/// i64 where the slave's log ends.
const REPORT: usize = 8;

fn frame_header(offset: u64, size: usize) -> [u8; FRAME_HEADER] {
    let mut header = [0; FRAME_HEADER];
    header[..8].copy_from_slice(&offset.to_be_bytes());
    header[8..].copy_from_slice(&(size as i32).to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use rocketmq_store::{NewMessage, StoreConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    use super::*;
    use crate::limits::Limits;

    const FILE_SIZE: u64 = 16 * 1024;

    fn open(directory: &Path) -> Arc<MessageStore> {
        let config = StoreConfig {
            store_path_root_dir: directory.to_owned(),
            mapped_file_size_commit_log: FILE_SIZE,
            mapped_file_size_consume_queue: 2000,
            message_index_enable: false,
            ..StoreConfig::default()
        };
        MessageStore::open(config).unwrap()
    }

    /// Stores messages of different sizes; the end of the last one.
    fn put(store: &MessageStore, count: usize) -> u64 {
        let host: SocketAddr = ([127, 0, 0, 1], 10_911).into();
        let body = [b'x'; 3000];
        let mut end = 0;
        for n in 0..count {
            let message = NewMessage {
                topic: "TopicTest",
                queue_id: (n % 4) as i32,
                flag: 0,
                sys_flag: 0,
                born_timestamp: 1,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &body[..n * 37 % body.len()],
                properties: b"",
            };
            end = store.append(&message).unwrap().end;
        }
        end
    }

    fn log(store: &MessageStore) -> Vec<u8> {
        let (mut at, end) = (store.min_physical_offset(), store.max_physical_offset());
        let mut bytes = Vec::new();
        while at < end {
            let part = store.read_raw(at, (end - at) as usize).unwrap();
            at += part.len() as u64;
            bytes.extend_from_slice(&part);
        }
        bytes
    }

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        for _ in 0..500 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not within 10 s: {what}");
    }

    struct Running {
        master: Arc<HaMaster>,
        address: SocketAddr,
        config: Arc<BrokerConfig>,
        tasks: TaskTracker,
        stop: CancellationToken,
    }

    impl Running {
        async fn master(store: &Arc<MessageStore>) -> Self {
            let config = Arc::new(BrokerConfig {
                bind_address: "127.0.0.1".to_owned(),
                ha_listen_port: 0,
                ha_send_heartbeat_interval: Duration::from_millis(100),
                ha_housekeeping_interval: Duration::from_millis(1500),
                slave_timeout: Duration::from_secs(2),
                ..BrokerConfig::default()
            });
            let master = HaMaster::new(Arc::clone(store));
            let listener = HaMaster::bind(&config).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            let limits = Arc::new(Limits::new(&config, Arc::default()));
            tasks.spawn(Arc::clone(&master).serve(listener, Arc::clone(&config), limits, stop.clone()));
            Self { master, address, config, tasks, stop }
        }

        /// A slave with that store; it stops with the token.
        fn slave(&self, store: &Arc<MessageStore>) -> (Arc<HaSlave>, CancellationToken) {
            let config = BrokerConfig { ha_master_address: Some(self.address.to_string()), ..(*self.config).clone() };
            let slave = HaSlave::new(Arc::clone(store));
            let stop = self.stop.child_token();
            let master = watch::Sender::new(None).subscribe();
            self.tasks.spawn(Arc::clone(&slave).run(Arc::new(config), master, stop.clone()));
            (slave, stop)
        }

        async fn end(self, stores: &[&Arc<MessageStore>]) {
            self.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            for store in stores {
                store.shutdown();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slave_has_its_masters_bytes_and_catches_up_after_a_break() {
        let directory = tempfile::tempdir().unwrap();
        let ours = open(&directory.path().join("master"));
        let theirs = open(&directory.path().join("slave"));
        put(&ours, 100);
        let running = Running::master(&ours).await;
        let (_, stop) = running.slave(&theirs);
        eventually("the slave has all", || theirs.max_physical_offset() == ours.max_physical_offset()).await;
        assert!(ours.max_physical_offset() > 4 * FILE_SIZE, "several files");
        assert_eq!(log(&theirs), log(&ours));

        let end = put(&ours, 10);
        assert_eq!(running.master.replicated(end, &running.config).await, ResponseCode::SUCCESS);
        assert_eq!(log(&theirs), log(&ours), "acknowledged is there");
        assert_eq!(running.master.slaves()[0].lag, 0);

        stop.cancel();
        eventually("the master noticed", || running.master.slaves().is_empty()).await;
        let end = put(&ours, 50);
        let code = running.master.replicated(end, &running.config).await;
        assert_eq!(code, ResponseCode::SLAVE_NOT_AVAILABLE);
        assert_eq!(running.master.fall_behind(), ours.max_physical_offset());

        let (slave, _) = running.slave(&theirs);
        eventually("it caught up", || theirs.max_physical_offset() == end).await;
        assert_eq!(log(&theirs), log(&ours));
        assert_eq!(slave.status().divergence, None);
        eventually("the master knows", || running.master.fall_behind() == 0).await;
        running.end(&[&ours, &theirs]).await;
    }

    #[tokio::test]
    async fn a_slave_with_other_messages_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let ours = open(&directory.path().join("master"));
        let theirs = open(&directory.path().join("slave"));
        put(&theirs, 5);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let end = put(&ours, 9);
        let before = log(&theirs);
        let running = Running::master(&ours).await;
        let (slave, _) = running.slave(&theirs);
        eventually("it is named", || slave.status().divergence.is_some()).await;
        let text = slave.status().divergence.unwrap();
        assert!(text.starts_with("the master's log differs from ours at offset"), "{text}");
        assert_ne!(running.master.replicated(end, &running.config).await, ResponseCode::SUCCESS);
        assert!(running.master.acknowledged() < end);
        assert_eq!(log(&theirs), before);
        running.end(&[&ours, &theirs]).await;
    }

    #[tokio::test]
    async fn a_slave_ahead_of_its_master_says_so_and_acknowledges_no_more_than_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let ours = open(&directory.path().join("master"));
        let theirs = open(&directory.path().join("slave"));
        let end = put(&ours, 5);
        theirs.append_raw(0, &log(&ours)).unwrap();
        let ahead = put(&theirs, 2);
        let running = Running::master(&ours).await;
        let (slave, _) = running.slave(&theirs);
        eventually("it is named", || slave.status().divergence.is_some()).await;
        let text = slave.status().divergence.unwrap();
        let expected = format!("this slave is ahead of its master: our log ends at {ahead}, the master's at {end}");
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(running.master.acknowledged(), end);

        tokio::time::sleep(Duration::from_millis(5)).await;
        let later = put(&ours, 4);
        eventually("the bytes differ", || {
            slave.status().divergence.is_some_and(|text| text.contains("differs from ours"))
        })
        .await;
        assert!(running.master.acknowledged() < later);
        assert_eq!(theirs.max_physical_offset(), ahead);
        running.end(&[&ours, &theirs]).await;
    }

    #[tokio::test]
    async fn the_bytes_of_strangers_acknowledge_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let ours = open(directory.path());
        let end = put(&ours, 5);
        let running = Running::master(&ours).await;
        let random = rand::random::<i64>();
        println!("random report {random}");
        for report in [end as i64, end as i64 + 1, -1, i64::MIN, i64::MAX, random] {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(&report.to_be_bytes()).await.unwrap();
            if report == end as i64 {
                // Believed to be a slave at the end of the log, but it has not answered anything.
                eventually("it is known", || running.master.slaves().len() == 1).await;
            } else {
                let mut byte = [0];
                assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0, "{report}: the connection is closed");
            }
        }
        assert_eq!(running.master.acknowledged(), 0);
        running.end(&[&ours]).await;
    }

    #[tokio::test]
    async fn the_stream_is_javas() {
        let directory = tempfile::tempdir().unwrap();
        let ours = open(directory.path());
        let end = put(&ours, 3);
        let running = Running::master(&ours).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&0_i64.to_be_bytes()).await.unwrap();
        assert_eq!((stream.read_i64().await.unwrap(), stream.read_i32().await.unwrap()), (0, 0), "the greeting");
        assert_eq!((stream.read_i64().await.unwrap(), stream.read_i32().await.unwrap()), (0, end as i32));
        let mut body = vec![0; end as usize];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(body, log(&ours));
        assert_eq!(
            (stream.read_i64().await.unwrap(), stream.read_i32().await.unwrap()),
            (end as i64, 0),
            "a heartbeat"
        );

        // Several reports at once: the last one counts.
        let reports = [(end as i64 - 1).to_be_bytes(), (end as i64).to_be_bytes()].concat();
        stream.write_all(&reports).await.unwrap();
        assert_eq!(running.master.replicated(end, &running.config).await, ResponseCode::SUCCESS);

        let silent_since = std::time::Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(silent_since.elapsed() >= Duration::from_secs(1), "closed for silence");
        assert!(running.master.slaves().is_empty());
        running.end(&[&ours]).await;
    }

    #[tokio::test]
    async fn a_slave_names_a_log_that_does_not_continue_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = open(directory.path());
        let end = put(&theirs, 3);
        let before = log(&theirs);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = Running { address: listener.local_addr().unwrap(), ..Running::master(&theirs).await };
        let (slave, _) = running.slave(&theirs);
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read_u64().await.unwrap(), 1, "it reports at once, and wants its last bytes again");
        let mut frame = frame_header(end + 8, 4).to_vec();
        frame.extend_from_slice(b"lost");
        stream.write_all(&frame).await.unwrap();
        eventually("it is named", || slave.status().divergence.is_some()).await;
        let text = slave.status().divergence.unwrap();
        assert!(
            text.contains(&format!("sends from {}", end + 8)) && text.contains(&format!("ends at {end}")),
            "{text}"
        );
        assert_eq!(log(&theirs), before);

        // The next try succeeds, and the divergence is over.
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut frame = frame_header(1, before.len() - 1).to_vec();
        frame.extend_from_slice(&before[1..]);
        stream.write_all(&frame).await.unwrap();
        eventually("it is over", || slave.status().divergence.is_none()).await;
        running.end(&[&theirs]).await;
    }
}
