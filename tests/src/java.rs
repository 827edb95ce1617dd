//! The real RocketMQ (Java) as a peer: which versions, where their jars are, and how a Java program of theirs is started.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// A line of RocketMQ that we are compatible with, by the release that stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The last 4.9 whose servers resolve whole.
    V4_9_7,
    /// The newest 5.x.
    V5_5_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 2] = [Self::V4_9_7, Self::V5_5_0];

    /// The version as Maven writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4_9_7 => "4.9.7",
            Self::V5_5_0 => "5.5.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Small and quick to start: these programs live for seconds.
const JVM: [&str; 4] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Djava.net.preferIPv4Stack=true"];

/// What RocketMQ reaches into on Java 17.
const OPENED: [&str; 5] = ["java.nio", "sun.nio.ch", "jdk.internal.ref", "java.lang", "java.util"];

/// The names under which RocketMQ's programs look for their log configuration.
const LOG_CONFIGURATIONS: [&str; 6] = [
    "logback_broker.xml",
    "logback_namesrv.xml",
    "logback_tools.xml",
    "rmq.broker.logback.xml",
    "rmq.namesrv.logback.xml",
    "rmq.tools.logback.xml",
];

/// `tests/java` of this workspace.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("java")
}

/// The directory of the jars of `kind` (`server` or `client`), resolved now if they are not cached yet.
pub fn jars(kind: &str, version: Version) -> Result<PathBuf> {
    let name = format!("{kind}-{version}");
    let status = Command::new(scripts().join("resolve")).arg(&name).status().context("tests/java/resolve")?;
    ensure!(status.success(), "the jars of {name} do not resolve: {status}");
    let cache = match (std::env::var_os("RMQ_JAVA_CACHE"), std::env::var_os("XDG_CACHE_HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(xdg)) => PathBuf::from(xdg).join("rocketmq-rs/java"),
        (None, None) => {
            PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache/rocketmq-rs/java")
        }
    };
    Ok(cache.join(name))
}

/// A program of `tests/java/client` (`TestClient`, `MqadminSession`) compiled against `version`: the directory of its classes and
/// that of its jars.
pub fn program(name: &str, version: Version) -> Result<(PathBuf, PathBuf)> {
    let output = Command::new(scripts().join("build-client"))
        .args([version.as_str(), name])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("tests/java/build-client")?;
    ensure!(output.status.success(), "{name} for {version} does not build: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let (classes, jars) = text.trim().split_once('\n').context("build-client printed no two lines")?;
    Ok((PathBuf::from(classes), PathBuf::from(jars)))
}

/// A `java` command for a program of RocketMQ's server jars; `home` becomes its `ROCKETMQ_HOME` and user home.
pub fn server_command(version: Version, main_class: &str, home: &Path, heap_mib: u32) -> Result<Command> {
    let class_path = format!("{}/*", jars("server", version)?.display());
    rocketmq_command(&class_path, main_class, home, heap_mib)
}

/// A `java` command for a session of mqadmin.
pub fn mqadmin_command(version: Version, home: &Path) -> Result<Command> {
    let (classes, jars) = program("MqadminSession", version)?;
    rocketmq_command(&format!("{}:{}/*", classes.display(), jars.display()), "MqadminSession", home, 256)
}

fn rocketmq_command(class_path: &str, main_class: &str, home: &Path, heap_mib: u32) -> Result<Command> {
    let conf = home.join("conf");
    std::fs::create_dir_all(&conf)?;
    let log_configuration = std::fs::read(scripts().join("conf/logback.xml"))?;
    for name in LOG_CONFIGURATIONS {
        std::fs::write(conf.join(name), &log_configuration)?;
    }
    std::fs::write(conf.join("tools.yml"), "{}\n")?;
    let mut command = command(heap_mib);
    command
        .arg(format!("-Duser.home={}", home.display()))
        .arg(format!("-Drmq.log={}", home.join("rocketmq.log").display()))
        .arg("-Drocketmq.client.logUseSlf4j=true")
        .arg("-cp")
        .arg(format!("{}:{class_path}", conf.display()))
        .arg(main_class)
        .env("ROCKETMQ_HOME", home)
        .env_remove("NAMESRV_ADDR")
        .current_dir(home);
    Ok(command)
}

/// A `java` command for the test client.
pub fn client_command(version: Version, home: &Path) -> Result<Command> {
    let (classes, jars) = program("TestClient", version)?;
    let mut command = command(256);
    command
        .arg(format!("-Dtestclient.home={}", home.display()))
        .arg("-cp")
        .arg(format!("{}:{}/*", classes.display(), jars.display()))
        .arg("TestClient")
        .env_remove("NAMESRV_ADDR")
        .current_dir(home);
    Ok(command)
}

/// Gives a `java` command system properties, which win over those that every command has.
pub fn set_properties(command: &mut Command, properties: &[(String, String)]) {
    if !properties.is_empty() {
        let options: Vec<_> = properties.iter().map(|(key, value)| format!("-D{key}={value}")).collect();
        command.env("_JAVA_OPTIONS", options.join(" "));
    }
}

fn command(heap_mib: u32) -> Command {
    let mut command = Command::new("java");
    command.args(JVM).arg(format!("-Xms{}m", heap_mib / 2)).arg(format!("-Xmx{heap_mib}m"));
    for package in OPENED {
        command.arg("--add-opens").arg(format!("java.base/{package}=ALL-UNNAMED"));
    }
    command
}
