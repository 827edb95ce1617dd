//! Every key of `broker.conf`, in one table: its type, its default and what it does here.
//!
//! A key with an effect is a row of [`BrokerConfig`] and a field of it; a key of RocketMQ's that
//! has none is a row of [`WITHOUT_EFFECT`] with the reason; where ignoring it would mislead, only
//! its default is accepted. May not read files or look at the machine.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rocketmq_remoting::tls::TlsSettings;
use rocketmq_store::FlushDiskType;

use crate::config_value::{BrokerRole, DelayLevels, DivergedSlave, Hours, Value};

/// What setting a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Works from the next use on, also when set while the broker runs.
    Live,
    /// Works from the next start on.
    Start,
    /// Accepted so that a `broker.conf` of Java's can be used as it is, but does nothing; why.
    None(&'static str),
    /// Only the default is accepted; why.
    OnlyDefault(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in `broker.conf`.
    pub name: &'static str,
    /// Java's type.
    pub kind: &'static str,
    /// Default as text; empty where the machine or another key decides.
    pub default: &'static str,
    /// What it does.
    pub effect: Effect,
}

macro_rules! effective_keys {
    ($($field:ident: $type:ty, $key:literal = $default:literal $([$range:expr])?, $effect:ident, $doc:literal;)+) => {
        /// The broker's settings, a field for each key that has an effect.
        #[derive(Clone, Debug)]
        pub struct BrokerConfig {
            $(#[doc = concat!("`", $key, "`: ", $doc)] pub $field: $type,)+
            /// The `tls.*` keys, which are no keys of `broker.conf` in Java; shown to nobody.
            pub tls: TlsSettings,
            /// Keys that were set but have no field, by name: shown to tools, read by nobody.
            pub(crate) others: BTreeMap<String, String>,
        }

        /// The keys that are fields of [`BrokerConfig`].
        pub(crate) const EFFECTIVE: &[Key] = &[$(Key {
            name: $key,
            kind: <$type as Value>::KIND,
            default: $default,
            effect: Effect::$effect,
        },)+];

        impl BrokerConfig {
            /// The defaults of the table, before machine and environment are looked at.
            pub(crate) fn built_in() -> Self {
                Self {
                    $($field: <$type as Value>::parse($default, i64::MIN..=i64::MAX).expect($key),)+
                    tls: TlsSettings::default(),
                    others: BTreeMap::new(),
                }
            }

            /// Reads `value` into the field of `key`; the error says what is accepted.
            pub(crate) fn assign(&mut self, key: &str, value: &str) -> Result<(), String> {
                match key {
                    $($key => {
                        #[allow(unused_variables)]
                        let range: RangeInclusive<i64> = i64::MIN..=i64::MAX;
                        $(let range: RangeInclusive<i64> = $range;)?
                        self.$field = <$type as Value>::parse(value, range)?;
                    })+
                    _ => { self.others.insert(key.to_owned(), value.to_owned()); }
                }
                Ok(())
            }

            /// The value in force, as text; `None` for keys that are no fields.
            pub(crate) fn field_text(&self, key: &str) -> Option<String> {
                match key {
                    $($key => Some(Value::text(&self.$field)),)+
                    _ => None,
                }
            }
        }
    };
}

effective_keys! {
    // Names and addresses.
    rocketmq_home: Option<PathBuf>, "rocketmqHome" = "", Start, "installation directory, from `ROCKETMQ_HOME`; not needed.";
    namesrv_addr: Option<String>, "namesrvAddr" = "", Start, "name servers, `;`-separated `host:port`; from `NAMESRV_ADDR` where unset.";
    broker_ip1: String, "brokerIP1" = "", Start, "host name or address that clients are told, and the store host of messages.";
    broker_ip2: String, "brokerIP2" = "", Start, "host name or address that slaves are told.";
    broker_name: String, "brokerName" = "", Start, "name of the group of a master and its slaves; default host name.";
    broker_cluster_name: String, "brokerClusterName" = "DefaultCluster", Start, "cluster.";
    broker_id: i64, "brokerId" = "0" [0..=i64::MAX], Start, "0 for a master, above 0 for a slave.";
    bind_address: String, "bindAddress" = "0.0.0.0", Start, "address that is listened on.";
    listen_port: u16, "listenPort" = "10911", Start, "port of clients; 0 takes a free one.";
    ha_listen_port: u16, "haListenPort" = "0", Start, "port of slaves; 0 is `listenPort` + 1 (Java 4.9 always takes that).";
    http_port: u16, "httpPort" = "0", Start, "our own key: port of `/livez`, `/readyz` and `/metrics`; 0 is off.";
    // Topics and groups.
    broker_permission: i32, "brokerPermission" = "6" [0..=7], Live, "2 write, 4 read, 6 both.";
    default_topic_queue_nums: i32, "defaultTopicQueueNums" = "8" [1..=65_536], Live, "queues of TBW102, most queues of an auto-created topic.";
    auto_create_topic_enable: bool, "autoCreateTopicEnable" = "true", Live, "topics come into being by the first send.";
    auto_create_subscription_group: bool, "autoCreateSubscriptionGroup" = "true", Live, "groups come into being by first use.";
    use_server_side_reset_offset: bool, "useServerSideResetOffset" = "false", Live,
        "5.x, where it is the default: the broker itself sets a group's offsets when it is reset, and does not ask the members to.";
    cluster_topic_enable: bool, "clusterTopicEnable" = "true", Start, "the topic named like the cluster may be written and read.";
    broker_topic_enable: bool, "brokerTopicEnable" = "true", Start, "the topic named like the broker may be written and read.";
    trace_on: bool, "traceOn" = "true", Live, "`TRACE_ON` in send responses.";
    store_reply_message_enable: bool, "storeReplyMessageEnable" = "true", Live,
        "replies are kept in `<cluster>_REPLY_TOPIC` too.";
    trace_topic_enable: bool, "traceTopicEnable" = "false", Start, "the trace topic exists from the start.";
    msg_trace_topic_name: String, "msgTraceTopicName" = "RMQ_SYS_TRACE_TOPIC", Start, "trace topic.";
    region_id: String, "regionId" = "DefaultRegion", Start, "`MSG_REGION` in send responses.";
    // Registration.
    register_name_server_period: Duration, "registerNameServerPeriod" = "30000", Start, "time between registrations, held within 10 to 60 s.";
    register_broker_timeout: Duration, "registerBrokerTimeoutMills" = "6000" [1..=600_000], Start, "time a registration may take.";
    connect_timeout: Duration, "connectTimeoutMillis" = "3000" [1..=600_000], Start, "time a connection to a name server or master may take to open.";
    // Sends.
    max_message_size: usize, "maxMessageSize" = "4194304" [1..=1_073_741_824], Start, "most bytes of a body.";
    start_accept_send_request_time_stamp: i64, "startAcceptSendRequestTimeStamp" = "0", Live, "sends before this time are refused; ms since 1970.";
    send_in_flight_max: usize, "sendThreadPoolQueueCapacity" = "10000" [1..=10_000_000], Start, "sends that wait for flush or slaves at once before further ones are refused.";
    queries_max: usize, "queryThreadPoolQueueCapacity" = "20000" [1..=10_000_000], Start,
        "requests that touch the disk (queries, tools, messages sent back, first sends to a topic) at once before further ones are refused.";
    // Transactions.
    reject_transaction_message: bool, "rejectTransactionMessage" = "false", Live, "half messages are refused.";
    transaction_time_out: Duration, "transactionTimeOut" = "6000", Live, "age from which a half message is asked about.";
    transaction_check_max: i32, "transactionCheckMax" = "15", Live, "times that it is asked about before it is given up.";
    transaction_check_interval: Duration, "transactionCheckInterval" = "60000" [10..=86_400_000], Live, "time between rounds of asking.";
    // Pulls.
    long_polling_enable: bool, "longPollingEnable" = "true", Live, "pulls at the end of a queue are held.";
    short_polling_time: Duration, "shortPollingTimeMills" = "1000", Live, "how long they are held where long polling is off.";
    pull_held_max: usize, "pullThreadPoolQueueCapacity" = "100000" [1..=10_000_000], Start, "pulls that wait for messages or for the disk at once before further ones are refused.";
    notify_consumer_ids_changed_enable: bool, "notifyConsumerIdsChangedEnable" = "true", Live, "consumers are told at once when their group changes.";
    enable_property_filter: bool, "enablePropertyFilter" = "false", Live, "SQL92 subscriptions are served.";
    filter_support_retry: bool, "filterSupportRetry" = "false", Live, "a message sent back must still pass its group's SQL92 expression.";
    filter_data_clean_time_span: i64, "filterDataCleanTimeSpan" = "86400000" [0..=i64::MAX], Live, "time that an SQL92 expression outlives its consumers, in ms.";
    expect_consumer_num_use_filter: i32, "expectConsumerNumUseFilter" = "32" [1..=1_000_000], Start, "size of the bloom filter that Java's broker wants in `consumerFilter.json`.";
    max_error_rate_of_bloom_filter: i32, "maxErrorRateOfBloomFilter" = "20" [1..=99], Start, "its errors, in percent.";
    slave_read_enable: bool, "slaveReadEnable" = "false", Live, "slow consumers are sent to slaves, and a slave answers them.";
    offset_check_in_slave: bool, "offsetCheckInSlave" = "false", Live, "a slave corrects wrong pull offsets by its own queues, as a master does.";
    max_transfer_bytes_on_message_in_memory: usize, "maxTransferBytesOnMessageInMemory" = "262144", Start, "most bytes of a pull of messages in memory.";
    max_transfer_count_on_message_in_memory: usize, "maxTransferCountOnMessageInMemory" = "32" [1..=65_536], Start, "most messages of a pull of messages in memory.";
    max_transfer_bytes_on_message_in_disk: usize, "maxTransferBytesOnMessageInDisk" = "65536", Start, "most bytes of a pull of messages on disk.";
    max_transfer_count_on_message_in_disk: usize, "maxTransferCountOnMessageInDisk" = "8" [1..=65_536], Start, "most messages of a pull of messages on disk.";
    access_message_in_memory_max_ratio: u8, "accessMessageInMemoryMaxRatio" = "40" [0..=100], Start, "percent of memory behind the log's end that counts as in memory.";
    flush_consumer_offset_interval: Duration, "flushConsumerOffsetInterval" = "5000" [10..=86_400_000], Start, "time between writes of consumerOffset.json.";
    default_query_max_num: usize, "defaultQueryMaxNum" = "32" [1..=65_536], Live, "most answers to a query by unique key.";
    // Connections.
    server_channel_max_idle_time_seconds: u32, "serverChannelMaxIdleTimeSeconds" = "120" [1..=86_400], Start, "an idle connection of a client is closed after this many seconds.";
    server_connections_max: usize, "serverConnectionsMax" = "20000" [1..=10_000_000], Start, "our own key: connections of clients at once.";
    server_connection_requests_max: usize, "serverConnectionRequestsMax" = "16384" [1..=10_000_000], Start,
        "our own key: requests of one connection that wait for their answers at once before further ones are refused; held pulls are among them.";
    use_tls: bool, "useTLS" = "false", Start, "connections to name servers and to the master are TLS; `tls.enable` where unset.";
    // Delay.
    message_delay_level: DelayLevels, "messageDelayLevel" = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h", Start, "delays, level 1 first.";
    flush_delay_offset_interval: Duration, "flushDelayOffsetInterval" = "10000" [10..=86_400_000], Start, "time between writes of delayOffset.json.";
    // Timer messages of 5.x.
    timer_wheel_enable: bool, "timerWheelEnable" = "true", Start, "messages may ask for any time of delivery.";
    timer_max_delay_sec: i64, "timerMaxDelaySec" = "259200" [0..=3_153_600_000], Live, "seconds that such a message may wait at most.";
    timer_precision_ms: i64, "timerPrecisionMs" = "1000" [1..=86_400_000], Start, "step of delivery times, taken down to 100, 200, 500 or 1000 ms.";
    timer_roll_window_slot: i64, "timerRollWindowSlot" = "172800", Start, "steps after which a waiting message is stored again; half of `fileReservedTime` where that is less.";
    recall_message_enable: bool, "recallMessageEnable" = "false", Live, "timer messages may be recalled.";
    allow_recall_when_broker_not_writeable: bool, "allowRecallWhenBrokerNotWriteable" = "true", Live, "also while `brokerPermission` forbids writing.";
    timer_flush_interval: Duration, "timerFlushIntervalMs" = "1000" [10..=86_400_000], Start, "time between writes of the timer's progress.";
    // Store.
    store_path_root_dir: PathBuf, "storePathRootDir" = "", Start, "directory of the store; default `$HOME/store`.";
    store_path_commit_log: Option<PathBuf>, "storePathCommitLog" = "", Start, "directory of the log; default `commitlog` in the store.";
    mapped_file_size_commit_log: u64, "mappedFileSizeCommitLog" = "1073741824" [1024..=2_147_483_647], Start, "bytes of a log file.";
    mapped_file_size_consume_queue: u64, "mappedFileSizeConsumeQueue" = "6000000" [20..=2_147_483_627], Start, "bytes of a queue file.";
    flush_disk_type: FlushDiskType, "flushDiskType" = "ASYNC_FLUSH", Start, "`SYNC_FLUSH`: `SEND_OK` means that the message is on disk.";
    sync_flush_timeout: Duration, "syncFlushTimeout" = "5000" [1..=600_000], Start, "longest wait for the disk.";
    flush_interval_commit_log: Duration, "flushIntervalCommitLog" = "500" [1..=3_600_000], Start, "time between flushes of the log.";
    flush_commit_log_least_pages: u32, "flushCommitLogLeastPages" = "4", Start, "pages that make a flush of the log worth it.";
    flush_commit_log_thorough_interval: Duration, "flushCommitLogThoroughInterval" = "10000" [1..=3_600_000], Start, "the log is flushed whole at least this often.";
    flush_interval_consume_queue: Duration, "flushIntervalConsumeQueue" = "1000" [1..=3_600_000], Start, "time between flushes of the queues.";
    flush_consume_queue_least_pages: u32, "flushConsumeQueueLeastPages" = "2", Start, "pages that make a flush of a queue worth it.";
    flush_consume_queue_thorough_interval: Duration, "flushConsumeQueueThoroughInterval" = "60000" [1..=3_600_000], Start, "the queues are flushed whole, and the checkpoint written, at least this often.";
    check_crc_on_recover: bool, "checkCRCOnRecover" = "true", Start, "bodies are checked when the store is recovered.";
    auto_message_version_on_topic_len: bool, "autoMessageVersionOnTopicLen" = "true", Start, "5.x: topics over 127 bytes are stored in message version 2.";
    message_index_enable: bool, "messageIndexEnable" = "true", Start, "messages can be queried by key.";
    message_index_safe: bool, "messageIndexSafe" = "false", Start, "the index counts in choosing where recovery starts.";
    max_hash_slot_num: u32, "maxHashSlotNum" = "5000000" [1..=100_000_000], Start, "slots of an index file.";
    max_index_num: u32, "maxIndexNum" = "20000000" [2..=100_000_000], Start, "entries of an index file.";
    max_msgs_num_batch: usize, "maxMsgsNumBatch" = "64" [1..=65_536], Start, "most answers to a query by key.";
    warm_maped_file_enable: bool, "warmMapedFileEnable" = "false", Start, "log files are touched in full when created.";
    // Retention.
    file_reserved_time: u64, "fileReservedTime" = "72" [0..=876_000], Live, "hours that log files are kept.";
    delete_when: Hours, "deleteWhen" = "04", Start, "hours of the day in which expired files go, `;`-separated.";
    disk_max_used_space_ratio: u8, "diskMaxUsedSpaceRatio" = "75" [10..=95], Start, "percent of the disk from which expired files go at any hour.";
    disk_space_clean_forcibly_ratio: u8, "diskSpaceCleanForciblyRatio" = "85" [10..=100], Start, "percent of the disk from which the oldest files go.";
    disk_space_warning_level_ratio: u8, "diskSpaceWarningLevelRatio" = "90" [10..=100], Start, "percent of the disk from which sends are refused.";
    clean_file_forcibly_enable: bool, "cleanFileForciblyEnable" = "true", Start, "files may go before their time when the disk is full.";
    clean_resource_interval: Duration, "cleanResourceInterval" = "10000" [10..=86_400_000], Start, "time between rounds of retention.";
    delete_commit_log_files_interval: Duration, "deleteCommitLogFilesInterval" = "100" [0..=60_000], Start, "pause between deletions of log files.";
    // Replication.
    broker_role: BrokerRole, "brokerRole" = "ASYNC_MASTER", Start, "`ASYNC_MASTER`, `SYNC_MASTER` or `SLAVE`.";
    slave_timeout: Duration, "slaveTimeout" = "3000" [1..=600_000], Live, "longest wait of a `SYNC_MASTER` for a slave.";
    ha_slave_fallbehind_max: u64, "haSlaveFallbehindMax" = "268435456", Live, "a slave this many bytes behind does not count for `SYNC_MASTER`.";
    ha_master_address: Option<String>, "haMasterAddress" = "", Start, "fixed HA address of the master; else the name server tells it.";
    ha_send_heartbeat_interval: Duration, "haSendHeartbeatInterval" = "5000" [10..=600_000], Start, "time between heartbeats of an idle replication connection.";
    ha_housekeeping_interval: Duration, "haHousekeepingInterval" = "20000" [20..=3_600_000], Start, "a replication connection without data is closed after this time.";
    ha_transfer_batch_size: usize, "haTransferBatchSize" = "32768" [1..=16_777_216], Start, "most log bytes of a replication frame.";
    in_sync_replicas: u32, "inSyncReplicas" = "1" [1..=64], Live, "brokers, the master included, that must have a message before a `SYNC_MASTER` answers; 1 is taken for 2, as 4.9 would (5.x then waits for none).";
    min_in_sync_replicas: u32, "minInSyncReplicas" = "1" [1..=64], Live, "with `enableAutoInSyncReplicas`: not fewer than these; 1 is taken for 2.";
    enable_auto_in_sync_replicas: bool, "enableAutoInSyncReplicas" = "false", Live, "`inSyncReplicas` is lowered to the number of brokers that are in sync.";
    ha_diverged_slave: DivergedSlave, "haDivergedSlave" = "WAIT", Start, "our own key: what a slave does whose log is not its master's: `WAIT` for people, or `TRUNCATE` it to what both have and keep the rest in `diverged/`.";
    ha_connections_max: usize, "haConnectionsMax" = "64" [1..=65_536], Start, "our own key: replication connections at once.";
    slave_ready_lag_max: u64, "slaveReadyLagMax" = "16777216", Live, "our own key: a slave more bytes behind its master is not ready.";
}

const fn row(name: &'static str, kind: &'static str, default: &'static str, effect: Effect) -> Key {
    Key { name, kind, default, effect }
}
const fn unused(name: &'static str, kind: &'static str, default: &'static str, why: &'static str) -> Key {
    row(name, kind, default, Effect::None(why))
}
const fn only(name: &'static str, kind: &'static str, default: &'static str, why: &'static str) -> Key {
    row(name, kind, default, Effect::OnlyDefault(why))
}

const THREADS: &str = "requests are answered by one runtime, not by a thread pool each";
const QUEUES: &str = "requests do not queue for threads: pending ones are bounded for each connection";
const NETTY: &str = "a setting of Netty, which is not used here";
const NO_POOL: &str = "messages are written into the mapped log directly, without a second pool";
const FAST_FAILURE: &str = "requests do not wait in queues before they are handled";
const BILLING: &str = "billing statistics do nothing in RocketMQ's open version";
const DEAD: &str = "does nothing in RocketMQ either";
const NO_EXT: &str = "SQL92 filters look at the messages, not at pre-computed bits";
const MAPS: &str = "files are unmapped when their last reader is done";
const STATS: &str = "statistics are always kept, and dropped with their topic or group";
const DLEDGER: &str = "Raft replication (DLedger) is not offered; use brokerRole with slaves";
const LMQ: &str = "light message queues are not offered";
const DELIVERY: &str = "delayed messages are always delivered in order of their queue";
const POP: &str = "pop consumption is not offered";
const TIMER: &str = "the timer keeps files of its own design, and one pass after the other does all of its work";
const CONTROLLER: &str = "automatic change of roles is not offered";
const REPLICAS: &str = "how many slaves SYNC_MASTER waits for is said by inSyncReplicas alone";
const ACL: &str = "access control is not offered, and a broker that ignores this key would be open to everybody";
const PERIODIC: &str = "the broker registers every period";
const PLAIN: &str = "registrations are sent plain, which every name server reads";
const TX_OPS: &str = "the end of each transaction is written at once, so that a kill forgets none";
const TX_METRICS: &str = "open transactions are counted from their queues and written nowhere";
const BUSY: &str = "a slow append does not refuse the next one";
const SLOW: &str = "a group that lags may always consume";
const METRICS: &str = "metrics are read from httpPort";

/// Keys that Java's broker has and that are accepted here without effect.
pub(crate) const WITHOUT_EFFECT: &[Key] = &[
    unused("messageStorePlugIn", "String", "", "Java classes cannot be loaded"),
    unused("sendMessageThreadPoolNums", "int", "", THREADS),
    unused("putMessageFutureThreadPoolNums", "int", "", THREADS),
    unused("pullMessageThreadPoolNums", "int", "", THREADS),
    unused("processReplyMessageThreadPoolNums", "int", "", THREADS),
    unused("queryMessageThreadPoolNums", "int", "", THREADS),
    unused("adminBrokerThreadPoolNums", "int", "16", THREADS),
    unused("clientManageThreadPoolNums", "int", "32", THREADS),
    unused("consumerManageThreadPoolNums", "int", "32", THREADS),
    unused("heartbeatThreadPoolNums", "int", "", THREADS),
    unused("endTransactionThreadPoolNums", "int", "", THREADS),
    unused("flushConsumerOffsetHistoryInterval", "int", "60000", DEAD),
    unused("fetchNamesrvAddrByAddressServer", "boolean", "false", "name servers are found by name; see namesrvAddr"),
    unused("putThreadPoolQueueCapacity", "int", "10000", QUEUES),
    unused("replyThreadPoolQueueCapacity", "int", "10000", QUEUES),
    unused("clientManagerThreadPoolQueueCapacity", "int", "1000000", QUEUES),
    unused("consumerManagerThreadPoolQueueCapacity", "int", "1000000", QUEUES),
    unused("heartbeatThreadPoolQueueCapacity", "int", "50000", QUEUES),
    unused("endTransactionPoolQueueCapacity", "int", "100000", QUEUES),
    unused("filterServerNums", "int", "0", "filter servers do nothing since RocketMQ 4.3"),
    unused("highSpeedMode", "boolean", "false", DEAD),
    unused("commercialEnable", "boolean", "true", BILLING),
    unused("commercialTimerCount", "int", "1", BILLING),
    unused("commercialTransCount", "int", "1", BILLING),
    unused("commercialBigCount", "int", "1", BILLING),
    unused("commercialBaseCount", "int", "1", BILLING),
    unused("transferMsgByHeap", "boolean", "true", "messages leave the log by vectored writes, without a copy"),
    unused("maxDelayTime", "int", "40", DEAD),
    unused("brokerFastFailureEnable", "boolean", "true", FAST_FAILURE),
    unused("waitTimeMillsInSendQueue", "long", "200", FAST_FAILURE),
    unused("waitTimeMillsInPullQueue", "long", "5000", FAST_FAILURE),
    unused("waitTimeMillsInHeartbeatQueue", "long", "31000", FAST_FAILURE),
    unused("waitTimeMillsInTransactionQueue", "long", "3000", FAST_FAILURE),
    unused("enableCalcFilterBitMap", "boolean", "false", NO_EXT),
    only("aclEnable", "boolean", "false", ACL),
    unused("enableDetailStat", "boolean", "true", STATS),
    unused("autoDeleteUnusedStats", "boolean", "false", STATS),
    unused("isolateLogEnable", "boolean", "false", "the log goes to standard output"),
    unused(
        "configBlackList",
        "String",
        "configBlackList;brokerConfigPath",
        "only keys that work while running can be set while running",
    ),
    unused("storePathDLedgerCommitLog", "String", "", DLEDGER),
    only("readOnlyCommitLogStorePaths", "String", "", "the log lies in one directory"),
    only("enableConsumeQueueExt", "boolean", "false", "tags codes would point into files that are not kept"),
    unused("mappedFileSizeConsumeQueueExt", "int", "50331648", NO_EXT),
    unused("bitMapLengthConsumeQueueExt", "int", "64", NO_EXT),
    unused("commitIntervalCommitLog", "int", "200", NO_POOL),
    unused("useReentrantLockWhenPutMessage", "boolean", "true", "there is one kind of lock"),
    unused("flushCommitLogTimed", "boolean", "true", "the flush always runs by the clock"),
    unused("deleteConsumeQueueFilesInterval", "int", "100", "queue files go in one sweep"),
    unused("destroyMapedFileIntervalForcibly", "int", "120000", MAPS),
    unused("redeleteHangedFileInterval", "int", "120000", MAPS),
    unused("putMsgIndexHightWater", "int", "600000", DEAD),
    unused("commitCommitLogLeastPages", "int", "4", NO_POOL),
    unused("flushLeastPagesWhenWarmMapedFile", "int", "4096", "a new file is touched in one go"),
    unused("commitCommitLogThoroughInterval", "int", "200", NO_POOL),
    unused("debugLockEnable", "boolean", "false", "a tool for Java's locks"),
    only("duplicationEnable", "boolean", "false", "a master does not copy from another master"),
    unused("diskFallRecorded", "boolean", "true", STATS),
    unused("transientStorePoolEnable", "boolean", "false", NO_POOL),
    unused("transientStorePoolSize", "int", "5", NO_POOL),
    unused("fastFailIfNoBufferInStorePool", "boolean", "false", NO_POOL),
    only("enableDLegerCommitLog", "boolean", "false", DLEDGER),
    unused("dLegerGroup", "String", "", DLEDGER),
    unused("dLegerPeers", "String", "", DLEDGER),
    unused("dLegerSelfId", "String", "", DLEDGER),
    unused("preferredLeaderId", "String", "", DLEDGER),
    unused("isEnableBatchPush", "boolean", "false", DLEDGER),
    unused("enableScheduleMessageStats", "boolean", "true", STATS),
    unused("enableLmq", "boolean", "false", LMQ),
    unused("enableMultiDispatch", "boolean", "false", LMQ),
    unused("maxLmqConsumeQueueNum", "int", "20000", LMQ),
    unused("enableScheduleAsyncDeliver", "boolean", "false", DELIVERY),
    unused("scheduleAsyncDeliverMaxPendingLimit", "int", "2000", DELIVERY),
    unused("scheduleAsyncDeliverMaxResendNum2Blocked", "int", "3", DELIVERY),
    unused("serverWorkerThreads", "int", "8", NETTY),
    unused("serverCallbackExecutorThreads", "int", "0", NETTY),
    unused("serverSelectorThreads", "int", "3", NETTY),
    unused("serverOnewaySemaphoreValue", "int", "256", NETTY),
    unused("serverAsyncSemaphoreValue", "int", "64", NETTY),
    unused("serverSocketSndBufSize", "int", "0", "the system's own sizes are better"),
    unused("serverSocketRcvBufSize", "int", "0", "the system's own sizes are better"),
    unused("writeBufferHighWaterMark", "int", "0", NETTY),
    unused("writeBufferLowWaterMark", "int", "0", NETTY),
    unused("serverSocketBacklog", "int", "1024", "the backlog is always 1024"),
    unused("serverPooledByteBufAllocatorEnable", "boolean", "true", NETTY),
    unused("useEpollNativeSelector", "boolean", "false", NETTY),
    unused("clientWorkerThreads", "int", "4", NETTY),
    unused("clientCallbackExecutorThreads", "int", "", NETTY),
    unused("clientOnewaySemaphoreValue", "int", "65535", NETTY),
    unused("clientAsyncSemaphoreValue", "int", "65535", NETTY),
    unused("channelNotActiveInterval", "long", "60000", DEAD),
    unused(
        "clientChannelMaxIdleTimeSeconds",
        "int",
        "120",
        "the broker's own connections idle as long as serverChannelMaxIdleTimeSeconds",
    ),
    unused("clientSocketSndBufSize", "int", "0", "the system's own sizes are better"),
    unused("clientSocketRcvBufSize", "int", "0", "the system's own sizes are better"),
    unused("clientPooledByteBufAllocatorEnable", "boolean", "false", NETTY),
    unused("clientCloseSocketIfTimeout", "boolean", "true", "a late answer does not harm the connection"),
    unused("forceRegister", "boolean", "true", PERIODIC),
    unused("compressedRegister", "boolean", "false", PLAIN),
    unused("osPageCacheBusyTimeOutMills", "long", "1000", BUSY),
    unused("disableConsumeIfConsumerReadSlowly", "boolean", "false", SLOW),
    unused("consumerFallbehindThreshold", "long", "17179869184", SLOW),
    // 5.x.
    unused("transactionOpMsgMaxSize", "int", "4096", TX_OPS),
    unused("transactionOpBatchInterval", "int", "3000", TX_OPS),
    unused("transactionMetricFlushInterval", "long", "10000", TX_METRICS),
    unused("enableTransactionMetrics", "boolean", "true", TX_METRICS),
    unused("litePullMessageEnable", "boolean", "true", "361 is always answered"),
    unused("defaultMessageRequestMode", "String", "PULL", POP),
    unused("defaultPopShareQueueNum", "int", "-1", POP),
    unused("reviveQueueNum", "int", "8", POP),
    unused("popPollingSize", "int", "1024", POP),
    unused("enableRetryTopicV2", "boolean", "false", POP),
    unused("popConsumerKVServiceEnable", "boolean", "false", POP),
    unused("mappedFileSizeTimerLog", "int", "104857600", TIMER),
    unused("timerGetMessageThreadNum", "int", "3", TIMER),
    unused("timerPutMessageThreadNum", "int", "3", TIMER),
    unused("timerEnableDisruptor", "boolean", "false", TIMER),
    unused("timerWarmEnable", "boolean", "false", TIMER),
    unused(
        "timerSkipUnknownError",
        "boolean",
        "false",
        "what can never be delivered is passed over, and said so; all else is tried again",
    ),
    unused("timerEnableRetryUntilSuccess", "boolean", "false", "delivery is always tried again until it succeeds"),
    unused("timerCongestNumEachSlot", "int", "2147483647", "any number of messages may be due at once"),
    unused("enableSlaveActingMaster", "boolean", "false", CONTROLLER),
    unused("brokerHeartbeatInterval", "long", "1000", CONTROLLER),
    unused("brokerNotActiveTimeoutMillis", "long", "10000", CONTROLLER),
    only("enableControllerMode", "boolean", "false", CONTROLLER),
    unused("controllerAddr", "String", "", CONTROLLER),
    unused("totalReplicas", "int", "1", REPLICAS),
    unused("allAckInSyncStateSet", "boolean", "false", REPLICAS),
    unused("haMaxGapNotInSync", "long", "268435456", "see haSlaveFallbehindMax"),
    only("storeType", "String", "default", "consume queues are files, not RocksDB"),
    only("authenticationEnabled", "boolean", "false", ACL),
    only("authorizationEnabled", "boolean", "false", ACL),
    unused("initAuthenticationUser", "String", "", ACL),
    unused("innerClientAuthenticationCredentials", "String", "", ACL),
    unused("migrateAuthFromV1Enabled", "boolean", "false", ACL),
    unused("metricsExporterType", "String", "DISABLE", METRICS),
    unused("metricsPromExporterPort", "int", "5557", METRICS),
    unused("maxTopicLength", "int", "127", "topics may have up to 127 characters"),
    only("enabledAppendPropCRC", "boolean", "false", "4.9 brokers and tools do not know the property"),
];

/// The keys that `mqbroker -m` prints, as Java 4.9's does.
pub(crate) const IMPORTANT: [&str; 35] = [
    "namesrvAddr",
    "brokerIP1",
    "brokerName",
    "brokerClusterName",
    "brokerId",
    "autoCreateTopicEnable",
    "autoCreateSubscriptionGroup",
    "msgTraceTopicName",
    "traceTopicEnable",
    "rejectTransactionMessage",
    "fetchNamesrvAddrByAddressServer",
    "transactionTimeOut",
    "transactionCheckMax",
    "transactionCheckInterval",
    "aclEnable",
    "storePathRootDir",
    "storePathCommitLog",
    "storePathDLedgerCommitLog",
    "flushIntervalCommitLog",
    "commitIntervalCommitLog",
    "flushCommitLogTimed",
    "deleteWhen",
    "fileReservedTime",
    "maxTransferBytesOnMessageInMemory",
    "maxTransferCountOnMessageInMemory",
    "maxTransferBytesOnMessageInDisk",
    "maxTransferCountOnMessageInDisk",
    "accessMessageInMemoryMaxRatio",
    "messageIndexEnable",
    "messageIndexSafe",
    "haMasterAddress",
    "brokerRole",
    "flushDiskType",
    "cleanFileForciblyEnable",
    "transientStorePoolEnable",
];

/// Every key this broker knows.
pub fn known_keys() -> impl Iterator<Item = &'static Key> {
    EFFECTIVE.iter().chain(WITHOUT_EFFECT)
}

/// The key of that name.
pub fn known_key(name: &str) -> Option<&'static Key> {
    known_keys().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What Java 4.9.7 answers to `GET_BROKER_CONFIG`, by name.
    const JAVA_4_9: &str = "
    accessMessageInMemoryMaxRatio aclEnable adminBrokerThreadPoolNums autoCreateSubscriptionGroup
    autoCreateTopicEnable autoDeleteUnusedStats bitMapLengthConsumeQueueExt brokerClusterName
    brokerFastFailureEnable brokerIP1 brokerIP2 brokerId brokerName brokerPermission brokerRole
    brokerTopicEnable channelNotActiveInterval checkCRCOnRecover cleanFileForciblyEnable
    cleanResourceInterval clientAsyncSemaphoreValue clientCallbackExecutorThreads
    clientChannelMaxIdleTimeSeconds clientCloseSocketIfTimeout clientManageThreadPoolNums
    clientManagerThreadPoolQueueCapacity clientOnewaySemaphoreValue clientPooledByteBufAllocatorEnable
    clientSocketRcvBufSize clientSocketSndBufSize clientWorkerThreads clusterTopicEnable
    commercialBaseCount commercialBigCount commercialEnable commercialTimerCount commercialTransCount
    commitCommitLogLeastPages commitCommitLogThoroughInterval commitIntervalCommitLog compressedRegister
    configBlackList connectTimeoutMillis consumerFallbehindThreshold consumerManageThreadPoolNums
    consumerManagerThreadPoolQueueCapacity dLegerGroup dLegerPeers dLegerSelfId debugLockEnable
    defaultQueryMaxNum defaultTopicQueueNums deleteCommitLogFilesInterval
    deleteConsumeQueueFilesInterval deleteWhen destroyMapedFileIntervalForcibly
    disableConsumeIfConsumerReadSlowly diskFallRecorded diskMaxUsedSpaceRatio duplicationEnable
    enableCalcFilterBitMap enableConsumeQueueExt enableDLegerCommitLog enableDetailStat enableLmq
    enableMultiDispatch enablePropertyFilter enableScheduleAsyncDeliver enableScheduleMessageStats
    endTransactionPoolQueueCapacity endTransactionThreadPoolNums expectConsumerNumUseFilter
    fastFailIfNoBufferInStorePool fetchNamesrvAddrByAddressServer fileReservedTime
    filterDataCleanTimeSpan filterServerNums filterSupportRetry flushCommitLogLeastPages
    flushCommitLogThoroughInterval flushCommitLogTimed flushConsumeQueueLeastPages
    flushConsumeQueueThoroughInterval flushConsumerOffsetHistoryInterval flushConsumerOffsetInterval
    flushDelayOffsetInterval flushDiskType flushIntervalCommitLog flushIntervalConsumeQueue
    flushLeastPagesWhenWarmMapedFile forceRegister haHousekeepingInterval haListenPort haMasterAddress
    haSendHeartbeatInterval haSlaveFallbehindMax haTransferBatchSize heartbeatThreadPoolNums
    heartbeatThreadPoolQueueCapacity highSpeedMode isEnableBatchPush isolateLogEnable listenPort
    longPollingEnable mappedFileSizeCommitLog mappedFileSizeConsumeQueue mappedFileSizeConsumeQueueExt
    maxDelayTime maxErrorRateOfBloomFilter maxHashSlotNum maxIndexNum maxLmqConsumeQueueNum
    maxMessageSize maxMsgsNumBatch maxTransferBytesOnMessageInDisk maxTransferBytesOnMessageInMemory
    maxTransferCountOnMessageInDisk maxTransferCountOnMessageInMemory messageDelayLevel
    messageIndexEnable messageIndexSafe messageStorePlugIn msgTraceTopicName namesrvAddr
    notifyConsumerIdsChangedEnable offsetCheckInSlave osPageCacheBusyTimeOutMills preferredLeaderId
    processReplyMessageThreadPoolNums pullMessageThreadPoolNums pullThreadPoolQueueCapacity
    putMessageFutureThreadPoolNums putMsgIndexHightWater putThreadPoolQueueCapacity
    queryMessageThreadPoolNums queryThreadPoolQueueCapacity readOnlyCommitLogStorePaths
    redeleteHangedFileInterval regionId registerBrokerTimeoutMills registerNameServerPeriod
    rejectTransactionMessage replyThreadPoolQueueCapacity rocketmqHome
    scheduleAsyncDeliverMaxPendingLimit scheduleAsyncDeliverMaxResendNum2Blocked
    sendMessageThreadPoolNums sendThreadPoolQueueCapacity serverAsyncSemaphoreValue
    serverCallbackExecutorThreads serverChannelMaxIdleTimeSeconds serverOnewaySemaphoreValue
    serverPooledByteBufAllocatorEnable serverSelectorThreads serverSocketBacklog serverSocketRcvBufSize
    serverSocketSndBufSize serverWorkerThreads shortPollingTimeMills slaveReadEnable slaveTimeout
    startAcceptSendRequestTimeStamp storePathCommitLog storePathDLedgerCommitLog storePathRootDir
    storeReplyMessageEnable syncFlushTimeout traceOn traceTopicEnable transactionCheckInterval
    transactionCheckMax transactionTimeOut transferMsgByHeap transientStorePoolEnable
    transientStorePoolSize useEpollNativeSelector useReentrantLockWhenPutMessage useTLS
    waitTimeMillsInHeartbeatQueue waitTimeMillsInPullQueue waitTimeMillsInSendQueue
    waitTimeMillsInTransactionQueue warmMapedFileEnable writeBufferHighWaterMark writeBufferLowWaterMark
    ";

    #[test]
    fn every_key_of_javas_broker_is_known_and_none_twice() {
        let mut names = HashSet::new();
        for key in known_keys() {
            assert!(names.insert(key.name), "{} stands twice", key.name);
        }
        for name in JAVA_4_9.split_whitespace().chain(IMPORTANT) {
            assert!(names.contains(name), "{name} is not known");
        }
    }

    #[test]
    fn defaults_are_accepted_and_keep_their_text() {
        let mut config = BrokerConfig::built_in();
        for key in EFFECTIVE {
            assert_eq!(config.assign(key.name, key.default), Ok(()), "{}", key.name);
            assert_eq!(config.field_text(key.name).as_deref(), Some(key.default), "{}", key.name);
        }
        assert!(config.others.is_empty());
    }
}
