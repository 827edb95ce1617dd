//! The keys of `namesrv.conf`: those of Java's `NamesrvConfig` and `NettyServerConfig`, of 4.9 and 5.x.
//!
//! Every key has a type and a default; a value that is not of its type is an error that names key,
//! value and what is accepted. Keys are only parsed here, what they do is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use rocketmq_remoting::properties_file;
use rocketmq_remoting::tls::{TlsError, TlsSettings};

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No key of that name is known.
    #[error("configuration key {0} is unknown")]
    UnknownKey(String),
    /// The value is not of the key's type.
    #[error("configuration key {key}: value {value:?} is not accepted; accepted is {accepted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What can be given.
        accepted: &'static str,
    },
    /// The value of a `tls.*` key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Not `key=value`.
    #[error("{0:?} is not key=value")]
    NoAssignment(String),
}

/// A type that stands as text in the configuration.
trait Value: Sized {
    const ACCEPTED: &'static str;
    fn parse(text: &str) -> Option<Self>;
    fn text(&self) -> String;
}

macro_rules! values {
    ($($type:ty, $accepted:literal;)+) => {$(
        impl Value for $type {
            const ACCEPTED: &'static str = $accepted;
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

values! {
    u16, "a port, 0 to 65535";
    u32, "a whole number, 0 to 4294967295";
    NonZeroU64, "a whole number from 1";
    NonZeroUsize, "a whole number from 1";
    IpAddr, "an IP address of this host, or 0.0.0.0";
    String, "any text";
}

impl Value for bool {
    const ACCEPTED: &'static str = "true or false";
    fn parse(text: &str) -> Option<Self> {
        [(true, "true"), (false, "false")]
            .into_iter()
            .find_map(|(value, name)| text.eq_ignore_ascii_case(name).then_some(value))
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

macro_rules! keys {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $key:literal, $default:expr;)+) => {
        /// The settings of a name server; each field's key and default are those of RocketMQ.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(clippy::struct_excessive_bools)] // RocketMQ's own switches
        pub struct NamesrvConfig {
            $($(#[$doc])* #[doc = concat!("`", $key, "`, default `", stringify!($default), "`.")] pub $field: $type,)+
            /// The `tls.*` keys, which are no keys of `namesrv.conf` in Java; shown to nobody.
            pub tls: TlsSettings,
        }

        impl Default for NamesrvConfig {
            fn default() -> Self {
                Self { $($field: $default,)+ tls: TlsSettings::default() }
            }
        }

        impl NamesrvConfig {
            /// Sets one key.
            ///
            /// # Errors
            /// The key is unknown, or the value is not accepted; nothing is changed then.
            pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
                let value = value.trim();
                match key {
                    $($key => self.$field = read($key, value)?,)+
                    _ if TlsSettings::is_key(key) => self.tls.set(key, value)?,
                    _ => return Err(ConfigError::UnknownKey(key.to_owned())),
                }
                Ok(())
            }

            /// All keys with their values as text, but for those of TLS.
            pub fn entries(&self) -> Vec<(&'static str, String)> {
                vec![$(($key, self.$field.text()),)+]
            }
        }
    };
}

fn read<T: Value>(key: &'static str, value: &str) -> Result<T, ConfigError> {
    T::parse(value).ok_or_else(|| ConfigError::Value { key, value: value.to_owned(), accepted: T::ACCEPTED })
}

keys! {
    /// Where RocketMQ is installed; not needed by this server.
    rocketmq_home: String = "rocketmqHome", std::env::var("ROCKETMQ_HOME").unwrap_or_default();
    /// The file of the key-value settings.
    kv_config_path: String = "kvConfigPath", in_home("kvConfig.json");
    /// The file that changes of the configuration at run time are written to; the `-c` file where there is one.
    config_store_path: String = "configStorePath", in_home("namesrv.properties");
    /// Read by RocketMQ's own cluster tests.
    product_env_name: String = "productEnvName", "center".to_owned();
    /// Read by RocketMQ's own cluster tests.
    cluster_test: bool = "clusterTest", false;
    /// Routes carry the order configuration of the topic.
    order_message_enable: bool = "orderMessageEnable", false;
    /// Brokers are told the order configuration of all topics when they register (5.x).
    return_order_topic_config_to_broker: bool = "returnOrderTopicConfigToBroker", true;
    /// Keys that may not be changed at run time, separated by `;`.
    config_black_list: String = "configBlackList", "configBlackList;configStorePath;kvConfigPath".to_owned();
    /// Milliseconds between two looks for silent brokers (5.x).
    scan_not_active_broker_interval: NonZeroU64 = "scanNotActiveBrokerInterval", millis(5000);
    /// A slave stands in for its lost master in routes (5.x).
    support_acting_master: bool = "supportActingMaster", false;
    /// Brokers are told when the smallest id of their group changes (5.x); not done here.
    notify_min_broker_id_changed: bool = "notifyMinBrokerIdChanged", false;
    /// `GET_ALL_TOPIC_LIST_FROM_NAMESERVER` is answered (5.x).
    enable_all_topic_list: bool = "enableAllTopicList", true;
    /// The other topic lists are answered (5.x).
    enable_topic_list: bool = "enableTopicList", true;
    /// Routes are refused for a while after the start, until brokers have registered (5.x).
    need_wait_for_service: bool = "needWaitForService", false;
    /// How long, in seconds (5.x).
    wait_seconds_for_service: u32 = "waitSecondsForService", 45;
    /// A registration removes the topics of its broker that it does not name (5.x).
    delete_topic_with_broker_registration: bool = "deleteTopicWithBrokerRegistration", false;
    /// Of Java's thread pools (5.x).
    client_request_thread_pool_nums: u32 = "clientRequestThreadPoolNums", 8;
    /// Of Java's thread pools (5.x).
    default_thread_pool_nums: u32 = "defaultThreadPoolNums", 16;
    /// Of Java's thread pools (5.x).
    client_request_thread_pool_queue_capacity: u32 = "clientRequestThreadPoolQueueCapacity", 50_000;
    /// Of Java's thread pools (5.x).
    default_thread_pool_queue_capacity: u32 = "defaultThreadPoolQueueCapacity", 10_000;
    /// Of Java's queue of brokers that leave (5.x).
    un_register_broker_queue_capacity: u32 = "unRegisterBrokerQueueCapacity", 3000;
    /// Hosts a 5.x controller; not done here.
    enable_controller_in_namesrv: bool = "enableControllerInNamesrv", false;
    /// The service port.
    listen_port: u16 = "listenPort", 9876;
    /// The address to listen on.
    bind_address: IpAddr = "bindAddress", IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    /// Of Java's thread pools.
    server_worker_threads: u32 = "serverWorkerThreads", 8;
    /// Of Java's thread pools.
    server_callback_executor_threads: u32 = "serverCallbackExecutorThreads", 0;
    /// Of Java's thread pools.
    server_selector_threads: u32 = "serverSelectorThreads", 3;
    /// Of Java's request limits.
    server_oneway_semaphore_value: u32 = "serverOnewaySemaphoreValue", 256;
    /// Of Java's request limits.
    server_async_semaphore_value: u32 = "serverAsyncSemaphoreValue", 64;
    /// A connection without traffic is closed after so many seconds; 0 never.
    server_channel_max_idle_time_seconds: u32 = "serverChannelMaxIdleTimeSeconds", 120;
    /// Left to the kernel.
    server_socket_snd_buf_size: u32 = "serverSocketSndBufSize", 0;
    /// Left to the kernel.
    server_socket_rcv_buf_size: u32 = "serverSocketRcvBufSize", 0;
    /// Of Java's network library.
    write_buffer_high_water_mark: u32 = "writeBufferHighWaterMark", 0;
    /// Of Java's network library.
    write_buffer_low_water_mark: u32 = "writeBufferLowWaterMark", 0;
    /// Connections that the kernel holds until they are accepted.
    server_socket_backlog: u32 = "serverSocketBacklog", 1024;
    /// Our own key: connections that may be open at once.
    server_connections_max: NonZeroUsize = "serverConnectionsMax", count(65_536);
    /// Our own key: requests of one connection that wait for their answers at once.
    server_connection_requests_max: NonZeroUsize = "serverConnectionRequestsMax", count(16_384);
    /// Our own key: port of `/livez`, `/readyz` and `/metrics`; 0 is off.
    http_port: u16 = "httpPort", 0;
    /// Of Java's network library.
    server_pooled_byte_buf_allocator_enable: bool = "serverPooledByteBufAllocatorEnable", true;
    /// Of Java's network library.
    use_epoll_native_selector: bool = "useEpollNativeSelector", false;
}

/// Keys that are known, kept and shown, and change nothing in this server.
const WITHOUT_EFFECT: &[&str] = &[
    "rocketmqHome",
    "productEnvName",
    "clusterTest",
    "notifyMinBrokerIdChanged",
    "clientRequestThreadPoolNums",
    "defaultThreadPoolNums",
    "clientRequestThreadPoolQueueCapacity",
    "defaultThreadPoolQueueCapacity",
    "unRegisterBrokerQueueCapacity",
    "enableControllerInNamesrv",
    "serverWorkerThreads",
    "serverCallbackExecutorThreads",
    "serverSelectorThreads",
    "serverOnewaySemaphoreValue",
    "serverAsyncSemaphoreValue",
    "serverSocketSndBufSize",
    "serverSocketRcvBufSize",
    "writeBufferHighWaterMark",
    "writeBufferLowWaterMark",
    "serverPooledByteBufAllocatorEnable",
    "useEpollNativeSelector",
];

fn in_home(file: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
    format!("{home}/namesrv/{file}")
}

fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

fn millis(default: u64) -> NonZeroU64 {
    NonZeroU64::new(default).unwrap_or(NonZeroU64::MIN)
}

/// What a text of settings holds beyond those that were taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Keys that nobody knows.
    pub unknown: Vec<String>,
    /// Keys that RocketMQ knows, and that change nothing here.
    pub without_effect: Vec<String>,
}

impl NamesrvConfig {
    /// Takes over the settings of a properties text.
    ///
    /// # Errors
    /// A value is not accepted; the settings before it are taken over.
    pub fn apply(&mut self, properties: &str) -> Result<Ignored, ConfigError> {
        let mut ignored = Ignored::default();
        for (key, value) in properties_file::parse(properties) {
            self.apply_one(&key, &value, &mut ignored)?;
        }
        Ok(ignored)
    }

    /// Takes over one `key=value` of the command line.
    ///
    /// # Errors
    /// It is no assignment, or the value is not accepted.
    pub fn apply_assignment(&mut self, assignment: &str, ignored: &mut Ignored) -> Result<(), ConfigError> {
        let (key, value) =
            assignment.split_once('=').ok_or_else(|| ConfigError::NoAssignment(assignment.to_owned()))?;
        self.apply_one(key.trim(), value, ignored)
    }

    fn apply_one(&mut self, key: &str, value: &str, ignored: &mut Ignored) -> Result<(), ConfigError> {
        match self.set(key, value) {
            Err(ConfigError::UnknownKey(key)) => ignored.unknown.push(key),
            Err(error) => return Err(error),
            Ok(()) if WITHOUT_EFFECT.contains(&key) => ignored.without_effect.push(key.to_owned()),
            Ok(()) => {}
        }
        Ok(())
    }

    /// All settings as a properties text, as they are shown: without those of TLS.
    pub fn to_text(&self) -> String {
        let entries = self.entries();
        properties_file::to_text(entries.iter().map(|(key, value)| (*key, value.as_str())))
    }

    /// All settings as a properties text, for `configStorePath`.
    pub(crate) fn to_file(&self) -> String {
        self.to_text() + &self.tls.to_text()
    }

    /// Whether a key may not be changed at run time.
    pub fn is_black_listed(&self, key: &str) -> bool {
        self.config_black_list.split(';').any(|listed| listed.trim() == key)
    }

    /// How long a connection may stay without traffic.
    pub(crate) fn idle(&self) -> Duration {
        /// A year stands for ever.
        const NEVER: u64 = 365 * 24 * 3600;
        match self.server_channel_max_idle_time_seconds {
            0 => Duration::from_secs(NEVER),
            seconds => Duration::from_secs(seconds.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_over_and_unknown_keys_are_named() {
        let mut config = NamesrvConfig::default();
        let text = "listenPort = 9877\n# a comment\norderMessageEnable=TRUE\nlistenport=1\nserverWorkerThreads=4\n";
        let ignored = config.apply(text).unwrap();
        assert_eq!((config.listen_port, config.order_message_enable), (9877, true));
        assert_eq!(ignored.unknown, ["listenport"]);
        assert_eq!(ignored.without_effect, ["serverWorkerThreads"]);
    }

    #[test]
    fn a_bad_value_names_key_value_and_what_is_accepted() {
        let mut config = NamesrvConfig::default();
        let error = config.apply("listenPort=many").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"configuration key listenPort: value "many" is not accepted; accepted is a port, 0 to 65535"#
        );
        for bad in ["clusterTest=yes", "bindAddress=nowhere", "scanNotActiveBrokerInterval=0", "serverWorkerThreads=-1"]
        {
            assert!(config.apply(bad).is_err(), "{bad} was taken");
        }
        assert!(config.apply_assignment("listenPort", &mut Ignored::default()).is_err());
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let mut config =
            NamesrvConfig { listen_port: 1, bind_address: Ipv4Addr::LOCALHOST.into(), ..Default::default() };
        config.kv_config_path = "/data/kv config.json".to_owned();
        let mut back = NamesrvConfig::default();
        assert_eq!(back.apply(&config.to_text()).unwrap().unknown, Vec::<String>::new());
        assert_eq!(back, config);
        for key in WITHOUT_EFFECT {
            assert!(config.entries().iter().any(|(known, _)| known == key), "{key} is no key");
        }
    }

    #[test]
    fn tls_is_kept_in_the_file_and_shown_to_nobody() {
        let mut config = NamesrvConfig::default();
        config.apply("tls.server.mode=enforcing\ntls.server.keyPassword=s3cret\n").unwrap();
        assert!(!config.to_text().contains("tls.") && !format!("{config:?}").contains("s3cret"));
        let mut back = NamesrvConfig::default();
        assert_eq!(back.apply(&config.to_file()).unwrap().unknown, Vec::<String>::new());
        assert_eq!(back, config);
        let error = config.apply("tls.server.mode=on").unwrap_err().to_string();
        assert!(error.contains("tls.server.mode=on") && error.contains("disabled, permissive or enforcing"), "{error}");
    }

    #[test]
    fn the_black_list_holds_itself() {
        let config = NamesrvConfig::default();
        assert!(config.is_black_listed("configBlackList") && config.is_black_listed("kvConfigPath"));
        assert!(!config.is_black_listed("listenPort"));
    }
}
