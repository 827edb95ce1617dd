//! The `tls.*` keys: their values, their kinds, and the order in which their sources count.
//!
//! Java takes them as properties of the JVM and from `tls.config.file`. Here they stand in that file,
//! and in `broker.conf` or `namesrv.conf` (and on the command line), which go over the file. May
//! not open any file but that one.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::properties_file;
use crate::tls::TlsError;

/// What the server does with the two sorts of connections (`tls.server.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// TLS connections are closed.
    Disabled,
    /// Both sorts are served.
    #[default]
    Permissive,
    /// Plain connections are closed.
    Enforcing,
}

impl TlsMode {
    /// RocketMQ's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Permissive => "permissive",
            Self::Enforcing => "enforcing",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Disabled, Self::Permissive, Self::Enforcing].into_iter().find(|mode| mode.name() == text)
    }
}

/// Whether clients are asked for a certificate (`tls.server.need.client.auth`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not.
    #[default]
    None,
    /// They are, and may have none.
    Optional,
    /// Those without one are refused.
    Require,
}

impl ClientAuth {
    /// Java takes the name in any case.
    fn parse(text: &str) -> Option<Self> {
        [(Self::None, "none"), (Self::Optional, "optional"), (Self::Require, "require")]
            .into_iter()
            .find_map(|(auth, name)| text.eq_ignore_ascii_case(name).then_some(auth))
    }
}

pub(crate) const CONFIG_FILE: &str = "tls.config.file";
pub(crate) const ENABLE: &str = "tls.enable";
pub(crate) const TEST_MODE_ENABLE: &str = "tls.test.mode.enable";
pub(crate) const SERVER_MODE: &str = "tls.server.mode";
pub(crate) const SERVER_NEED_CLIENT_AUTH: &str = "tls.server.need.client.auth";
pub(crate) const SERVER_AUTH_CLIENT: &str = "tls.server.authClient";
pub(crate) const SERVER_TRUST_CERT_PATH: &str = "tls.server.trustCertPath";
pub(crate) const CLIENT_AUTH_SERVER: &str = "tls.client.authServer";
pub(crate) const CLIENT_TRUST_CERT_PATH: &str = "tls.client.trustCertPath";

/// The keys by which one side has a certificate of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdentityKeys {
    pub(crate) cert_path: &'static str,
    pub(crate) key_path: &'static str,
    pub(crate) key_password: &'static str,
}

pub(crate) const SERVER_IDENTITY: IdentityKeys = IdentityKeys {
    cert_path: "tls.server.certPath",
    key_path: "tls.server.keyPath",
    key_password: "tls.server.keyPassword",
};

pub(crate) const CLIENT_IDENTITY: IdentityKeys = IdentityKeys {
    cert_path: "tls.client.certPath",
    key_path: "tls.client.keyPath",
    key_password: "tls.client.keyPassword",
};

#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Mode,
    Auth,
    /// A file, or a password; empty is unset.
    Text,
}

impl Kind {
    fn accepted(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Mode => "disabled, permissive or enforcing",
            Self::Auth => "none, optional or require",
            Self::Text => "any text",
        }
    }

    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Bool => parse_bool(value).is_some(),
            Self::Mode => TlsMode::parse(value).is_some(),
            Self::Auth => ClientAuth::parse(value).is_some(),
            Self::Text => true,
        }
    }
}

/// Every key.
const KEYS: [(&str, Kind); 15] = [
    (CONFIG_FILE, Kind::Text),
    (ENABLE, Kind::Bool),
    (TEST_MODE_ENABLE, Kind::Bool),
    (SERVER_MODE, Kind::Mode),
    (SERVER_NEED_CLIENT_AUTH, Kind::Auth),
    (SERVER_IDENTITY.key_path, Kind::Text),
    (SERVER_IDENTITY.key_password, Kind::Text),
    (SERVER_IDENTITY.cert_path, Kind::Text),
    (SERVER_AUTH_CLIENT, Kind::Bool),
    (SERVER_TRUST_CERT_PATH, Kind::Text),
    (CLIENT_IDENTITY.key_path, Kind::Text),
    (CLIENT_IDENTITY.key_password, Kind::Text),
    (CLIENT_IDENTITY.cert_path, Kind::Text),
    (CLIENT_AUTH_SERVER, Kind::Bool),
    (CLIENT_TRUST_CERT_PATH, Kind::Text),
];

fn parse_bool(text: &str) -> Option<bool> {
    [(true, "true"), (false, "false")]
        .into_iter()
        .find_map(|(value, name)| text.eq_ignore_ascii_case(name).then_some(value))
}

/// What the environment says of TLS, read once by the caller so that tests need not change it.
#[derive(Clone, Debug, Default)]
pub struct TlsEnvironment {
    /// `ROCKETMQ_TLS_CONFIG_FILE`: the file of the keys where `tls.config.file` is not set.
    pub config_file: Option<PathBuf>,
    /// `ROCKETMQ_TLS_ENABLE`: `tls.enable`, over what the file says.
    pub enable: Option<String>,
    /// The file where none is named; it need not exist.
    pub default_file: Option<PathBuf>,
}

impl TlsEnvironment {
    /// Of this process. Empty values count as unset.
    pub fn of_process() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self {
            config_file: read("ROCKETMQ_TLS_CONFIG_FILE").map(PathBuf::from),
            enable: read("ROCKETMQ_TLS_ENABLE"),
            default_file: Some(PathBuf::from("/etc/rocketmq/tls.properties")),
        }
    }
}

/// The keys that are set. Each value has been checked to be of its key's kind.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    values: BTreeMap<&'static str, String>,
}

/// Without the passwords.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |key: &str| key == SERVER_IDENTITY.key_password || key == CLIENT_IDENTITY.key_password;
        let shown = self.values.iter().map(|(key, value)| (key, if secret(key) { "***" } else { value }));
        f.debug_map().entries(shown).finish()
    }
}

impl TlsSettings {
    /// Whether a key is one of these, going by its name.
    pub fn is_key(key: &str) -> bool {
        KEYS.iter().any(|(name, _)| *name == key)
    }

    /// Sets one key.
    ///
    /// # Errors
    /// The key is unknown, or the value is not accepted; nothing is changed then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), TlsError> {
        let Some((key, kind)) = KEYS.into_iter().find(|(name, _)| *name == key) else {
            return Err(TlsError::UnknownKey(key.to_owned()));
        };
        let value = value.trim();
        if !kind.accepts(value) {
            return Err(TlsError::Value { key, value: value.to_owned(), accepted: kind.accepted() });
        }
        self.values.insert(key, value.to_owned());
        Ok(())
    }

    /// The keys that were set here, in `.properties` form. Passwords are among them: for files only.
    pub fn to_text(&self) -> String {
        properties_file::to_text(self.values.iter().map(|(key, value)| (*key, value.as_str())))
    }

    /// Puts the file and the environment below what is set here. Also returns what deserves a
    /// warning: the keys of the file that are not TLS's.
    ///
    /// # Errors
    /// A file that was named cannot be read, or a value is not accepted.
    pub fn complete(self, environment: &TlsEnvironment) -> Result<(Self, Vec<String>), TlsError> {
        let mut all = Self::default();
        let mut warnings = Vec::new();
        let named = self.path(CONFIG_FILE).or_else(|| environment.config_file.clone());
        if let Some(text) = read_file(named.as_deref(), environment.default_file.as_deref())? {
            for (key, value) in properties_file::parse(&text) {
                match all.set(&key, &value) {
                    Err(TlsError::UnknownKey(key)) => {
                        warnings.push(format!("{key} is not a key of {CONFIG_FILE}; it is ignored"));
                    }
                    other => other?,
                }
            }
        }
        if let Some(enable) = &environment.enable {
            all.set(ENABLE, enable)?;
        }
        all.values.extend(self.values);
        Ok((all, warnings))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    pub(crate) fn secret(&self, key: &str) -> Option<&str> {
        self.text(key)
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> bool {
        self.text(key).and_then(parse_bool).unwrap_or(default)
    }

    /// `tls.server.mode`, default `permissive`.
    pub fn mode(&self) -> TlsMode {
        self.text(SERVER_MODE).and_then(TlsMode::parse).unwrap_or_default()
    }

    /// `tls.server.need.client.auth`, default `none`.
    pub fn client_auth(&self) -> ClientAuth {
        self.text(SERVER_NEED_CLIENT_AUTH).and_then(ClientAuth::parse).unwrap_or_default()
    }

    /// Whether our own connections to others are TLS (`tls.enable`). Where it is not set they are if
    /// our server takes nothing else, as in Java's `BrokerStartup`.
    pub fn client_enabled(&self) -> bool {
        self.flag(ENABLE, self.mode() == TlsMode::Enforcing)
    }
}

/// The text of the file that was named, or of the default one where it exists.
fn read_file(named: Option<&Path>, default: Option<&Path>) -> Result<Option<String>, TlsError> {
    let Some(path) = named.or(default) else { return Ok(None) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => Err(TlsError::File {
            key: CONFIG_FILE,
            path: path.to_owned(),
            reason: format!("cannot be read: {error}; accepted is a properties file of tls.* keys"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> TlsSettings {
        let mut settings = TlsSettings::default();
        for (key, value) in pairs {
            settings.set(key, value).unwrap();
        }
        settings
    }

    #[test]
    fn defaults_are_javas() {
        let settings = TlsSettings::default();
        assert_eq!((settings.mode(), settings.client_auth()), (TlsMode::Permissive, ClientAuth::None));
        assert!(!settings.client_enabled());
        assert!(self::settings(&[(SERVER_MODE, "enforcing")]).client_enabled());
        assert!(!self::settings(&[(SERVER_MODE, "enforcing"), (ENABLE, "false")]).client_enabled());
        assert_eq!(self::settings(&[(SERVER_NEED_CLIENT_AUTH, "REQUIRE")]).client_auth(), ClientAuth::Require);
    }

    #[test]
    fn a_bad_value_names_key_value_and_what_is_accepted() {
        let error = |key, value| TlsSettings::default().set(key, value).unwrap_err().to_string();
        assert_eq!(
            error("tls.server.mode", "on"),
            "tls.server.mode=on is not accepted: disabled, permissive or enforcing is"
        );
        assert_eq!(error("tls.enable", "yes"), "tls.enable=yes is not accepted: true or false is");
        assert_eq!(
            error("tls.server.need.client.auth", "maybe"),
            "tls.server.need.client.auth=maybe is not accepted: none, optional or require is"
        );
        assert_eq!(error("tls.server.keypath", "/x"), "tls.server.keypath is not a key of TLS");
    }

    #[test]
    fn what_is_set_goes_over_environment_over_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tls.properties");
        std::fs::write(&file, "tls.server.mode=enforcing\ntls.enable=false\ntls.server.certPth=/x\n").unwrap();
        let environment = TlsEnvironment {
            config_file: Some(file.clone()),
            enable: Some("true".to_owned()),
            ..TlsEnvironment::default()
        };
        let (all, warnings) = TlsSettings::default().complete(&environment).unwrap();
        assert_eq!((all.mode(), all.client_enabled()), (TlsMode::Enforcing, true));
        assert_eq!(warnings, ["tls.server.certPth is not a key of tls.config.file; it is ignored"]);
        let own = settings(&[(SERVER_MODE, "disabled"), (ENABLE, "false")]);
        let (all, _) = own.complete(&environment).unwrap();
        assert_eq!((all.mode(), all.client_enabled()), (TlsMode::Disabled, false));
        // The key goes over the environment's file.
        let own = settings(&[(CONFIG_FILE, directory.path().join("none").to_str().unwrap())]);
        let error = own.complete(&environment).unwrap_err().to_string();
        assert!(error.starts_with("tls.config.file=") && error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn the_default_file_need_not_exist_but_must_be_good() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tls.properties");
        let environment = TlsEnvironment { default_file: Some(file.clone()), ..TlsEnvironment::default() };
        assert_eq!(TlsSettings::default().complete(&environment).unwrap().0, TlsSettings::default());
        std::fs::write(&file, "tls.server.mode=maybe\n").unwrap();
        assert!(TlsSettings::default().complete(&environment).is_err());
    }

    #[test]
    fn passwords_are_not_shown() {
        let settings = settings(&[("tls.server.keyPassword", "s3cret"), ("tls.client.keyPassword", "s3cret")]);
        let shown = format!("{settings:?}");
        assert!(!shown.contains("s3cret") && shown.contains("tls.server.keyPassword"), "{shown}");
        assert!(settings.to_text().contains("s3cret"), "a file must keep them");
    }
}
