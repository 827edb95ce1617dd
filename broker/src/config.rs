//! The broker's settings: where they come from and what is done about bad ones.
//!
//! Owns precedence (environment, `-c` file, command line), checks across keys, and the answers to
//! "what is set". The keys themselves stand in [`crate::config_keys`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rocketmq_remoting::properties_file;
use rocketmq_remoting::tls::{TlsEnvironment, TlsError, TlsSettings};
use rocketmq_store::StoreConfig;

use crate::config_keys::IMPORTANT;
pub use crate::config_keys::{BrokerConfig, Effect, Key, known_key, known_keys};
pub use crate::config_value::{BrokerRole, DivergedSlave};
pub use rocketmq_store::FlushDiskType;

/// What the environment says, read once by the caller so that tests need not change it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `NAMESRV_ADDR`
    pub namesrv_addr: Option<String>,
    /// `ROCKETMQ_HOME`
    pub rocketmq_home: Option<PathBuf>,
    /// `HOME`, under which the store lies where nothing else is said.
    pub home: Option<PathBuf>,
    /// What concerns TLS.
    pub tls: TlsEnvironment,
}

impl Environment {
    /// Of this process. Empty values count as unset.
    pub fn of_process() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self {
            namesrv_addr: read("NAMESRV_ADDR"),
            rocketmq_home: read("ROCKETMQ_HOME").map(PathBuf::from),
            home: read("HOME").map(PathBuf::from),
            tls: TlsEnvironment::of_process(),
        }
    }
}

/// Why the broker does not start with these settings, or does not take over a change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is not of its key's type or range.
    #[error("{key}={value} is not accepted: {accepts} is")]
    BadValue {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What would be accepted.
        accepts: String,
    },
    /// A value asks for something that this broker does not do.
    #[error("{key}={value} is not accepted: {reason} (accepted: {key}={default})")]
    NotOffered {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// The only value accepted.
        default: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The `-c` file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// `namesrvAddr` is no list of `host:port`; Java's words.
    #[error("The Name Server Address[{value}] illegal, please set it as follows, \"127.0.0.1:9876;192.168.0.1:9876\"")]
    NameServerAddress {
        /// What was given.
        value: String,
    },
    /// A slave without an id of its own; the first words are Java's.
    #[error("Slave's brokerId must be > 0: brokerRole=SLAVE with brokerId={value}")]
    SlaveId {
        /// What was given.
        value: i64,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The key can only be set before the start.
    #[error("{key} takes effect at the start only; set it in broker.conf and restart the broker")]
    NotLive {
        /// The key.
        key: String,
    },
    /// A `tls.*` key, or the file of these keys, cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody knows the key.
    #[error("{key} is not a key of broker.conf")]
    Unknown {
        /// The key.
        key: String,
    },
}

impl ConfigError {
    /// The exit code that Java's `mqbroker` has for it.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NameServerAddress { .. } | Self::SlaveId { .. } | Self::Contradiction(_) => -3,
            _ => -1,
        }
    }
}

/// Settings that are accepted but worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Not a key of RocketMQ's.
    Unknown {
        /// The key.
        key: String,
    },
    /// A key of RocketMQ's that does nothing here.
    NoEffect {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// Why it does nothing.
        reason: &'static str,
    },
    /// A master has id 0 whatever is set, as in Java.
    MasterId {
        /// What was given.
        value: i64,
    },
    /// Of the file of the `tls.*` keys.
    Tls(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { key } => write!(f, "{key} is not a key of broker.conf; it is ignored"),
            Self::NoEffect { key, value, reason } => write!(f, "{key}={value} has no effect: {reason}"),
            Self::MasterId { value } => write!(f, "brokerId={value} is ignored: the brokerId of a master is 0"),
            Self::Tls(text) => f.write_str(text),
        }
    }
}

/// Nothing set, on this machine.
impl Default for BrokerConfig {
    fn default() -> Self {
        let mut config = Self::built_in();
        // The table's own values contradict nothing; its test loads them.
        let _ = config.complete(&Environment::default(), &mut Vec::new());
        config
    }
}

impl BrokerConfig {
    /// Settings from the environment, overridden by the `-c` file, overridden by the command line.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn load(
        file: Option<&Path>,
        overrides: &[(String, String)],
        environment: &Environment,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let mut entries = Vec::new();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
            entries = properties_file::parse(&text);
        }
        entries.extend_from_slice(overrides);
        // A later entry for the same key replaces the earlier one before either is checked.
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in entries {
            last.insert(key, value.trim().to_owned());
        }
        let mut config = Self::built_in();
        config.namesrv_addr.clone_from(&environment.namesrv_addr);
        config.rocketmq_home.clone_from(&environment.rocketmq_home);
        let mut warnings = Vec::new();
        for (key, value) in &last {
            warnings.extend(config.take(key, value)?);
        }
        if last.contains_key("useTLS") {
            // Java's name in broker.conf for the same thing, and the stronger one.
            config.tls.set("tls.enable", &config.use_tls.to_string())?;
        }
        config.complete(environment, &mut warnings)?;
        Ok((config, warnings))
    }

    /// Sets one key before the start.
    fn take(&mut self, key: &str, value: &str) -> Result<Option<Warning>, ConfigError> {
        let bad = |accepts| ConfigError::BadValue { key: key.to_owned(), value: value.to_owned(), accepts };
        if TlsSettings::is_key(key) {
            self.tls.set(key, value)?;
            return Ok(None);
        }
        let mut warning = None;
        match known_key(key).map(|known| (known.effect, known.default)) {
            None => warning = Some(Warning::Unknown { key: key.to_owned() }),
            Some((Effect::None(reason), default)) => {
                if value != default {
                    warning = Some(Warning::NoEffect { key: key.to_owned(), value: value.to_owned(), reason });
                }
            }
            Some((Effect::OnlyDefault(reason), default)) => {
                if !value.eq_ignore_ascii_case(default) {
                    let (key, value) = (key.to_owned(), value.to_owned());
                    return Err(ConfigError::NotOffered { key, value, default, reason });
                }
            }
            Some((Effect::Live | Effect::Start, _)) => {}
        }
        self.assign(key, value).map_err(bad)?;
        Ok(warning)
    }

    /// Fills in what depends on the machine and on other keys, and checks keys against each other.
    fn complete(&mut self, environment: &Environment, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
        let (tls, lines) = std::mem::take(&mut self.tls).complete(&environment.tls)?;
        warnings.extend(lines.into_iter().map(Warning::Tls));
        self.use_tls = tls.client_enabled();
        self.tls = tls;
        if let Some(value) = &self.namesrv_addr {
            check_name_servers(value)?;
        }
        if self.broker_role == BrokerRole::Slave {
            if self.broker_id <= 0 {
                return Err(ConfigError::SlaveId { value: self.broker_id });
            }
        } else if self.broker_id != 0 {
            warnings.push(Warning::MasterId { value: self.broker_id });
            self.broker_id = 0;
        }
        if self.bind_address.parse::<IpAddr>().is_err() {
            return Err(ConfigError::BadValue {
                key: "bindAddress".to_owned(),
                value: self.bind_address.clone(),
                accepts: "an IP address, like 0.0.0.0 or ::".to_owned(),
            });
        }
        if self.broker_name.is_empty() {
            self.broker_name = host_name();
        }
        if self.broker_ip1.is_empty() {
            self.broker_ip1 = self.advertised_address();
        }
        if self.broker_ip2.is_empty() {
            self.broker_ip2 = self.advertised_address();
        }
        if self.store_path_root_dir.as_os_str().is_empty() {
            self.store_path_root_dir = environment.home.clone().unwrap_or_default().join("store");
        }
        if self.ha_listen_port == 0 && self.listen_port != 0 {
            self.ha_listen_port = self.listen_port.checked_add(1).ok_or_else(|| {
                ConfigError::Contradiction(
                    "listenPort=65535 leaves no port for haListenPort, which is listenPort + 1 where unset".to_owned(),
                )
            })?;
        }
        let period = self.register_name_server_period;
        self.register_name_server_period = period.clamp(Duration::from_secs(10), Duration::from_mins(1));
        self.check_ports()?;
        self.check_store()
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let ports =
            [("listenPort", self.listen_port), ("haListenPort", self.ha_listen_port), ("httpPort", self.http_port)];
        for (at, (key, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..at].iter().find(|(_, earlier)| earlier == port && *port != 0) {
                return Err(ConfigError::Contradiction(format!("{other} and {key} are both {port}")));
            }
        }
        Ok(())
    }

    fn check_store(&self) -> Result<(), ConfigError> {
        if let Some(path) = &self.store_path_commit_log
            && path.to_string_lossy().contains(',')
        {
            return Err(ConfigError::BadValue {
                key: "storePathCommitLog".to_owned(),
                value: path.display().to_string(),
                accepts: "one directory".to_owned(),
            });
        }
        if self.disk_space_clean_forcibly_ratio > self.disk_space_warning_level_ratio {
            return Err(ConfigError::Contradiction(format!(
                "diskSpaceCleanForciblyRatio={} must not be above diskSpaceWarningLevelRatio={}",
                self.disk_space_clean_forcibly_ratio, self.disk_space_warning_level_ratio
            )));
        }
        if self.ha_send_heartbeat_interval >= self.ha_housekeeping_interval {
            return Err(ConfigError::Contradiction(format!(
                "haSendHeartbeatInterval={} must be below haHousekeepingInterval={}, or idle slaves are cut off",
                self.ha_send_heartbeat_interval.as_millis(),
                self.ha_housekeeping_interval.as_millis()
            )));
        }
        Ok(())
    }

    /// The address that is advertised where none is set: the one listened on, if it is one, else
    /// that of the interface which leads outside.
    fn advertised_address(&self) -> String {
        match self.bind_address.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() => address.to_string(),
            _ => local_address().to_string(),
        }
    }

    /// Changes one key of a running broker. Whoever holds the settings swaps the changed copy in.
    ///
    /// # Errors
    /// The key is unknown or works at the start only, or the value is not accepted; nothing has
    /// changed then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<Option<Warning>, ConfigError> {
        let value = value.trim();
        if TlsSettings::is_key(key) {
            self.clone().take(key, value)?;
            return Err(ConfigError::NotLive { key: key.to_owned() });
        }
        let Some(known) = known_key(key) else {
            return Err(ConfigError::Unknown { key: key.to_owned() });
        };
        // Setting what is set already is no change: tools send whole files back.
        let current = self.field_text(key).or_else(|| self.others.get(key).cloned());
        if current.as_deref().unwrap_or(known.default) == value {
            return Ok(None);
        }
        if known.effect == Effect::Start {
            // A bad value is named as such first: it would not help at the start either.
            self.clone().take(key, value)?;
            return Err(ConfigError::NotLive { key: key.to_owned() });
        }
        self.take(key, value)
    }

    /// All keys with the values in force, under Java's names and in the table's order; then the
    /// unknown ones that were set.
    pub fn entries(&self) -> Vec<(String, String)> {
        let value = |key: &Key| {
            let text = self.field_text(key.name).or_else(|| self.others.get(key.name).cloned());
            (key.name.to_owned(), text.unwrap_or_else(|| key.default.to_owned()))
        };
        let unknown = self.others.iter().filter(|(key, _)| known_key(key).is_none());
        known_keys().map(value).chain(unknown.map(|(key, value)| (key.clone(), value.clone()))).collect()
    }

    /// The entries that `mqbroker -m` prints.
    pub fn important_entries(&self) -> Vec<(String, String)> {
        self.entries().into_iter().filter(|(key, _)| IMPORTANT.contains(&key.as_str())).collect()
    }

    /// The name servers, one `host:port` each.
    pub fn name_servers(&self) -> Vec<String> {
        let list = self.namesrv_addr.as_deref().unwrap_or("");
        list.split(';').map(str::trim).filter(|server| !server.is_empty()).map(str::to_owned).collect()
    }

    /// `brokerIP1:listenPort`, what clients are told.
    pub fn broker_addr(&self) -> String {
        format!("{}:{}", self.broker_ip1, self.listen_port)
    }

    /// `brokerIP2:haListenPort`, what slaves are told.
    pub fn ha_server_addr(&self) -> String {
        format!("{}:{}", self.broker_ip2, self.ha_listen_port)
    }

    /// `fileReservedTime`, which is in hours.
    pub(crate) fn reserved_time(&self) -> Duration {
        Duration::from_hours(self.file_reserved_time)
    }

    /// The part that the store wants to know.
    pub fn store_config(&self) -> StoreConfig {
        StoreConfig {
            store_path_root_dir: self.store_path_root_dir.clone(),
            store_path_commit_log: self.store_path_commit_log.clone(),
            mapped_file_size_commit_log: self.mapped_file_size_commit_log,
            mapped_file_size_consume_queue: self.mapped_file_size_consume_queue,
            flush_disk_type: self.flush_disk_type,
            flush_interval_commit_log: self.flush_interval_commit_log,
            flush_commit_log_least_pages: self.flush_commit_log_least_pages,
            flush_commit_log_thorough_interval: self.flush_commit_log_thorough_interval,
            flush_interval_consume_queue: self.flush_interval_consume_queue,
            flush_consume_queue_least_pages: self.flush_consume_queue_least_pages,
            flush_consume_queue_thorough_interval: self.flush_consume_queue_thorough_interval,
            sync_flush_timeout: self.sync_flush_timeout,
            max_message_size: self.max_message_size,
            auto_message_version_on_topic_len: self.auto_message_version_on_topic_len,
            check_crc_on_recover: self.check_crc_on_recover,
            message_index_enable: self.message_index_enable,
            message_index_safe: self.message_index_safe,
            max_hash_slot_num: self.max_hash_slot_num,
            max_index_num: self.max_index_num,
            max_msgs_num_batch: self.max_msgs_num_batch,
            max_transfer_bytes_on_message_in_memory: self.max_transfer_bytes_on_message_in_memory,
            max_transfer_count_on_message_in_memory: self.max_transfer_count_on_message_in_memory,
            max_transfer_bytes_on_message_in_disk: self.max_transfer_bytes_on_message_in_disk,
            max_transfer_count_on_message_in_disk: self.max_transfer_count_on_message_in_disk,
            access_message_in_memory_max_ratio: self.access_message_in_memory_max_ratio,
            file_reserved_time: self.reserved_time(),
            delete_when: self.delete_when.0.clone(),
            disk_max_used_space_ratio: self.disk_max_used_space_ratio,
            disk_space_clean_forcibly_ratio: self.disk_space_clean_forcibly_ratio,
            disk_space_warning_level_ratio: self.disk_space_warning_level_ratio,
            clean_file_forcibly_enable: self.clean_file_forcibly_enable,
            clean_resource_interval: self.clean_resource_interval,
            delete_commit_log_files_interval: self.delete_commit_log_files_interval,
            message_delay_levels: self.message_delay_level.0.clone(),
            warm_mapped_file_enable: self.warm_maped_file_enable,
            derived_checked_at_open: StoreConfig::default().derived_checked_at_open,
        }
    }
}

/// Accepts a `;`-separated list of `host:port` with at least one of them.
fn check_name_servers(value: &str) -> Result<(), ConfigError> {
    let fine = |server: &str| {
        server.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
    };
    let mut servers = value.split(';').map(str::trim).filter(|server| !server.is_empty()).peekable();
    if servers.peek().is_some() && servers.all(fine) {
        Ok(())
    } else {
        Err(ConfigError::NameServerAddress { value: value.to_owned() })
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Java's word for a host without a name.
    if name.is_empty() { "DEFAULT_BROKER".to_owned() } else { name }
}

/// The IPv4 address of the interface that leads outside, else 127.0.0.1. Connecting a datagram
/// socket asks the routing table and sends nothing; the address is one reserved for documentation.
pub(crate) fn local_address() -> IpAddr {
    let outside = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
    };
    outside().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<(BrokerConfig, Vec<Warning>), ConfigError> {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        BrokerConfig::load(None, &pairs, &Environment::default())
    }

    fn error(pairs: &[(&str, &str)]) -> String {
        load(pairs).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_javas() {
        let (config, warnings) = load(&[]).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(config.broker_cluster_name, "DefaultCluster");
        assert_eq!((config.listen_port, config.ha_listen_port), (10_911, 10_912));
        assert_eq!(config.slave_timeout, Duration::from_secs(3));
        assert_eq!(config.store_config().message_delay_levels, StoreConfig::default().message_delay_levels);
        assert!(!config.broker_name.is_empty() && !config.broker_ip1.is_empty());
        assert_eq!(config.namesrv_addr, None);
        assert_eq!(config.entries(), BrokerConfig::default().entries());
    }

    #[test]
    fn command_line_overrides_file_overrides_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broker.conf");
        std::fs::write(&file, "brokerName = a\nnamesrvAddr=f:1\nbrokerClusterName=c \n").unwrap();
        let environment = Environment { namesrv_addr: Some("e:1".to_owned()), ..Environment::default() };
        let overrides = [("brokerName".to_owned(), "b".to_owned())];
        let (config, _) = BrokerConfig::load(Some(&file), &overrides, &environment).unwrap();
        assert_eq!(config.broker_name, "b");
        assert_eq!(config.broker_cluster_name, "c");
        assert_eq!(config.name_servers(), ["f:1"]);
        let (config, _) = BrokerConfig::load(None, &[], &environment).unwrap();
        assert_eq!(config.name_servers(), ["e:1"]);
        let missing = directory.path().join("none.conf");
        assert!(BrokerConfig::load(Some(&missing), &[], &environment).unwrap_err().to_string().contains("none.conf"));
    }

    #[test]
    fn a_bad_value_names_key_value_and_what_is_accepted() {
        let text = error(&[("brokerRole", "MASTER")]);
        assert_eq!(text, "brokerRole=MASTER is not accepted: ASYNC_MASTER, SYNC_MASTER or SLAVE is");
        let text = error(&[("listenPort", "70000")]);
        assert_eq!(text, "listenPort=70000 is not accepted: a whole number from 0 to 65535 is");
        assert!(error(&[("traceOn", "yes")]).contains("true or false"));
        assert!(error(&[("aclEnable", "true")]).contains("open to everybody"));
        assert!(error(&[("namesrvAddr", "host")]).starts_with("The Name Server Address[host] illegal"));
        assert!(error(&[("bindAddress", "localhost")]).contains("IP address"));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(error(&[("brokerRole", "SLAVE")]).starts_with("Slave's brokerId must be > 0"));
        assert_eq!(load(&[("brokerRole", "SLAVE")]).unwrap_err().exit_code(), -3);
        assert_eq!(error(&[("httpPort", "10911")]), "listenPort and httpPort are both 10911");
        let (config, warnings) = load(&[("brokerId", "2")]).unwrap();
        assert_eq!((config.broker_id, warnings), (0, vec![Warning::MasterId { value: 2 }]));
    }

    #[test]
    fn unknown_and_useless_keys_are_named() {
        let (config, warnings) = load(&[("borkerName", "x"), ("sendMessageThreadPoolNums", "16")]).unwrap();
        let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert!(texts.contains(&"borkerName is not a key of broker.conf; it is ignored".to_owned()), "{texts:?}");
        assert!(texts.iter().any(|text| text.starts_with("sendMessageThreadPoolNums=16 has no effect")));
        let entries = config.entries();
        assert!(entries.contains(&("borkerName".to_owned(), "x".to_owned())));
        assert!(entries.contains(&("sendMessageThreadPoolNums".to_owned(), "16".to_owned())));
    }

    #[test]
    fn tls_is_set_in_the_same_file() {
        let (config, warnings) =
            load(&[("tls.server.mode", "enforcing"), ("tls.server.keyPassword", "s3cret")]).unwrap();
        assert!(config.use_tls, "a broker that takes nothing but TLS uses it too");
        assert!(warnings.is_empty(), "{warnings:?}");
        let shown = format!("{config:?}{:?}", config.entries());
        assert!(!shown.contains("s3cret"), "{shown}");
        let (config, _) = load(&[("tls.server.mode", "enforcing"), ("useTLS", "false")]).unwrap();
        assert!(!config.use_tls && !config.tls.client_enabled());
        let (config, _) = load(&[("tls.enable", "false"), ("useTLS", "true")]).unwrap();
        assert!(config.tls.client_enabled());
        let text = error(&[("tls.server.mode", "strict")]);
        assert_eq!(text, "tls.server.mode=strict is not accepted: disabled, permissive or enforcing is");
        let (_, warnings) = load(&[("tls.server.certpath", "/x")]).unwrap();
        assert_eq!(warnings, [Warning::Unknown { key: "tls.server.certpath".to_owned() }]);
    }

    #[test]
    fn a_running_broker_changes_live_keys_only() {
        let (mut config, _) = load(&[]).unwrap();
        assert!(config.set("brokerPermission", "4").unwrap().is_none());
        assert_eq!(config.broker_permission, 4);
        assert!(matches!(config.set("brokerName", "other"), Err(ConfigError::NotLive { .. })));
        assert!(matches!(config.set("listenPort", "x"), Err(ConfigError::BadValue { .. })));
        assert!(config.set("listenPort", "10911").unwrap().is_none(), "no change");
        assert!(matches!(config.set("tls.server.mode", "disabled"), Err(ConfigError::NotLive { .. })));
        assert!(matches!(config.set("tls.server.mode", "x"), Err(ConfigError::Tls(_))));
        assert!(matches!(config.set("nonsense", "1"), Err(ConfigError::Unknown { .. })));
        assert!(matches!(config.set("aclEnable", "true"), Err(ConfigError::NotOffered { .. })));
        assert!(config.set("diskFallRecorded", "false").unwrap().is_some());
    }
}
