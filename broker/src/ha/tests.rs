//! Masters and slaves over real sockets, within one process.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rocketmq_store::{NewMessage, StoreConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::master::HaMaster;
use super::slave::HaSlave;
use super::wire::FrameHead;
use super::*;
use crate::config::DivergedSlave;
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
        self.slave_that(store, DivergedSlave::Wait, 1)
    }

    fn slave_that(
        &self,
        store: &Arc<MessageStore>,
        ha_diverged_slave: DivergedSlave,
        broker_id: i64,
    ) -> (Arc<HaSlave>, CancellationToken) {
        let config = BrokerConfig {
            ha_master_address: Some(self.address.to_string()),
            ha_diverged_slave,
            broker_id,
            ..(*self.config).clone()
        };
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
    assert_eq!(running.master.followers.connected()[0].reported, ours.max_physical_offset());

    stop.cancel();
    eventually("the master noticed", || running.master.followers.connected().is_empty()).await;
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
    // The master knows it too, and does not let sends wait for such a slave.
    eventually("the master names it", || running.master.followers.diverged().len() == 1).await;
    assert_eq!(running.master.followers.near(end, u64::MAX), 0);
    assert_eq!(running.master.replicated(end, &running.config).await, ResponseCode::SLAVE_NOT_AVAILABLE);
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
    assert_eq!(running.master.acknowledged(), 0, "its end was not compared");
    eventually("the master names it", || running.master.followers.diverged().len() == 1).await;

    tokio::time::sleep(Duration::from_millis(5)).await;
    let later = put(&ours, 4);
    eventually("the bytes differ", || slave.status().divergence.is_some_and(|text| text.contains("differs from ours")))
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
            eventually("it is known", || running.master.followers.connected().len() == 1).await;
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
    for _ in 0..2 {
        assert_eq!((stream.read_i64().await.unwrap(), stream.read_i32().await.unwrap()), (0, 0), "the greeting");
    }
    assert_eq!((stream.read_i64().await.unwrap(), stream.read_i32().await.unwrap()), (0, end as i32));
    let mut body = vec![0; end as usize];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(body, log(&ours));
    assert_eq!((stream.read_i64().await.unwrap(), stream.read_i32().await.unwrap()), (end as i64, 0), "a heartbeat");

    // Several reports at once: the last one counts.
    let reports = [(end as i64 - 1).to_be_bytes(), (end as i64).to_be_bytes()].concat();
    stream.write_all(&reports).await.unwrap();
    assert_eq!(running.master.replicated(end, &running.config).await, ResponseCode::SUCCESS);

    let silent_since = std::time::Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(silent_since.elapsed() >= Duration::from_secs(1), "closed for silence");
    assert!(running.master.followers.connected().is_empty());
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
    let mut frame = FrameHead::encode(end + 8, 4).to_vec();
    frame.extend_from_slice(b"lost");
    stream.write_all(&frame).await.unwrap();
    eventually("it is named", || slave.status().divergence.is_some()).await;
    let text = slave.status().divergence.unwrap();
    assert!(text.contains(&format!("sends from {}", end + 8)) && text.contains(&format!("ends at {end}")), "{text}");
    assert_eq!(log(&theirs), before);

    // The next try succeeds, and the divergence is over.
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut frame = FrameHead::encode(1, before.len() - 1).to_vec();
    frame.extend_from_slice(&before[1..]);
    stream.write_all(&frame).await.unwrap();
    eventually("it is over", || slave.status().divergence.is_none()).await;
    running.end(&[&theirs]).await;
}

#[tokio::test]
async fn a_log_that_ends_with_its_file_is_compared_too() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(&directory.path().join("master"));
    let theirs = open(&directory.path().join("slave"));
    put(&theirs, 100);
    tokio::time::sleep(Duration::from_millis(5)).await;
    put(&ours, 200);
    // Another log, of the same files' sizes, cut where a file ends.
    let third = open(&directory.path().join("third"));
    third.append_raw(0, &log(&theirs)[..2 * FILE_SIZE as usize]).unwrap();
    let running = Running::master(&ours).await;
    let (slave, _) = running.slave(&third);
    eventually("it is named", || slave.status().divergence.is_some()).await;
    assert_eq!(third.max_physical_offset(), 2 * FILE_SIZE);
    running.end(&[&ours, &theirs, &third]).await;
}

#[tokio::test]
async fn a_slave_finds_where_its_log_is_to_be_cut_however_far_back_that_is() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(&directory.path().join("master"));
    let theirs = open(&directory.path().join("slave"));
    let common = put(&ours, 30);
    theirs.append_raw(0, &log(&ours)).unwrap();
    // More than is compared at first.
    let end = put(&theirs, 100);
    assert!(end > common + (100 << 10), "{common} {end}");
    tokio::time::sleep(Duration::from_millis(5)).await;
    put(&ours, 200);
    let running = Running::master(&ours).await;
    let (waits, stop) = running.slave(&theirs);
    eventually("it is named", || {
        let text = waits.status().divergence.unwrap_or_default();
        text.contains("differs from ours at offset") && text.ends_with(&format!("the same up to {common}"))
    })
    .await;
    stop.cancel();
    let (cuts, _) = running.slave_that(&theirs, DivergedSlave::Truncate, 1);
    let at = tokio::time::timeout(Duration::from_secs(10), cuts.cut()).await.unwrap();
    assert_eq!(at, common);
    running.end(&[&ours, &theirs]).await;

    rocketmq_store::truncate(theirs.config(), at).unwrap();
    let theirs = open(&directory.path().join("slave"));
    let ours = open(&directory.path().join("master"));
    let running = Running::master(&ours).await;
    let (slave, _) = running.slave(&theirs);
    eventually("it has all", || theirs.max_physical_offset() == ours.max_physical_offset()).await;
    assert_eq!((log(&theirs) == log(&ours), slave.status().divergence), (true, None));
    running.end(&[&ours, &theirs]).await;
}

#[tokio::test]
async fn a_java_slave_that_was_ahead_is_not_believed_when_the_master_has_grown() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(directory.path());
    let end = put(&ours, 3);
    let running = Running::master(&ours).await;
    let ahead = end + 500;
    let say = async |position: u64| {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&position.to_be_bytes()).await.unwrap();
        stream
    };
    let mut stream = say(ahead).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "closed");
    assert_eq!(running.master.followers.diverged().len(), 1, "and named");
    assert!(put(&ours, 30) > ahead);
    let mut stream = say(ahead).await;
    for _ in 0..3 {
        let mut heartbeat = [0; 12];
        stream.read_exact(&mut heartbeat).await.unwrap();
        assert_eq!(heartbeat[8..], [0; 4], "nothing but heartbeats");
    }
    // Its heartbeat: a slave of ours would have said who it is.
    stream.write_all(&ahead.to_be_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.chunks(12).all(|frame| frame[8..] == [0; 4]), "nothing was sent");
    assert_eq!(running.master.acknowledged(), 0);
    running.end(&[&ours]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_slaves_as_in_sync_replicas_says_must_have_it_and_each_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(&directory.path().join("master"));
    let stores: Vec<_> = (1..3).map(|n| open(&directory.path().join(format!("slave{n}")))).collect();
    put(&ours, 10);
    let running = Running::master(&ours).await;
    let three = BrokerConfig {
        in_sync_replicas: 3,
        broker_role: BrokerRole::SyncMaster,
        slave_timeout: Duration::from_secs(10),
        ..(*running.config).clone()
    };
    running.slave_that(&stores[0], DivergedSlave::Wait, 1);
    eventually("one is near", || running.master.followers.near(1, u64::MAX) == 1).await;
    let refusal = running.master.too_few_in_sync(&three).unwrap();
    assert!(refusal.starts_with("in-sync replicas not enough: 2 of the 3"), "{refusal}");
    let auto = BrokerConfig { enable_auto_in_sync_replicas: true, ..three.clone() };
    assert_eq!(running.master.too_few_in_sync(&auto), None, "as many as there are");
    let end = put(&ours, 1);
    assert_eq!(running.master.replicated(end, &three).await, ResponseCode::SLAVE_NOT_AVAILABLE);
    assert_eq!(running.master.replicated(end, &auto).await, ResponseCode::SUCCESS);

    // The second slave is on the same host, and is another one all the same.
    running.slave_that(&stores[1], DivergedSlave::Wait, 2);
    eventually("two are near", || running.master.followers.near(1, u64::MAX) == 2).await;
    assert_eq!(running.master.too_few_in_sync(&three), None);
    let end = put(&ours, 1);
    assert_eq!(running.master.replicated(end, &three).await, ResponseCode::SUCCESS);
    for store in &stores {
        assert_eq!(log(store), log(&ours));
    }
    running.end(&[&ours, &stores[0], &stores[1]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slave_that_flushes_synchronously_acknowledges_what_is_on_its_disk() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(&directory.path().join("master"));
    let config = StoreConfig {
        flush_disk_type: rocketmq_store::FlushDiskType::SyncFlush,
        ..open(&directory.path().join("other")).config().clone()
    };
    let theirs =
        MessageStore::open(StoreConfig { store_path_root_dir: directory.path().join("slave"), ..config }).unwrap();
    let running = Running::master(&ours).await;
    running.slave(&theirs);
    for _ in 0..20 {
        let end = put(&ours, 1);
        eventually("it is acknowledged", || running.master.acknowledged() >= end).await;
        assert!(theirs.flushed_offset() >= end);
    }
    running.end(&[&ours, &theirs]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reconnects_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(directory.path());
    let end = put(&ours, 3);
    let running = Running::master(&ours).await;
    for n in 0..1000_u64 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&(n % end).to_be_bytes()).await.unwrap();
        if n % 2 == 0 {
            let _ = stream.read(&mut [0; 16]).await;
        }
    }
    eventually("all are gone", || running.master.followers.connected().is_empty()).await;
    assert_eq!((running.master.acknowledged(), running.master.followers.held_by(2)), (0, 0));
    running.end(&[&ours]).await;
}
