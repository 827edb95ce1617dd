//! The command line tools of RocketMQ, Java's and ours, and the shape of what they print: a tool's output with everything
//! taken out that differs from run to run.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    binaries,
    java::{self, Version},
    process::{Process, scratch_dir},
};

/// Longest time of one command.
const LIMIT: Duration = Duration::from_mins(1);

/// Whose mqadmin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Ours,
    Java(Version),
}

/// What Java's session prints after each command.
const END: &str = "<<end of command>>";

/// A command line tool at a name server.
#[derive(Debug)]
pub struct Mqadmin {
    namesrv: String,
    home: TempDir,
    /// The file of TLS's keys that our tool reads.
    tls: PathBuf,
    /// What our tool says it can do; Java's can do everything.
    help: Option<String>,
    /// Java's tool, running; ours is started for each command.
    session: Option<Process>,
}

impl Mqadmin {
    /// `tool` with `-n namesrv`.
    pub fn new(tool: Tool, namesrv: &str) -> Result<Self> {
        Self::with_tls(tool, namesrv, &[])
    }

    /// As [`new`](Self::new), with `tls.*` keys: Java's tool takes them as system properties, ours in a file.
    pub fn with_tls(tool: Tool, namesrv: &str, keys: &[(String, String)]) -> Result<Self> {
        let home = scratch_dir()?;
        let tls = home.path().join("tls.properties");
        let lines: Vec<_> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
        std::fs::write(&tls, lines.join("\n"))?;
        let help = match tool {
            Tool::Ours => {
                Some(String::from_utf8(Command::new(binaries::binary("mqadmin")?).arg("--help").output()?.stdout)?)
            }
            Tool::Java(_) => None,
        };
        let session = match tool {
            Tool::Ours => None,
            Tool::Java(version) => {
                let mut command = java::mqadmin_command(version, home.path())?;
                java::set_properties(&mut command, keys);
                Some(Process::spawn(&format!("mqadmin {version}"), command, &home.path().join("log"))?)
            }
        };
        Ok(Self { namesrv: namesrv.to_owned(), home, tls, help, session })
    }

    /// Whether the tool has that subcommand.
    pub fn has_command(&self, name: &str) -> bool {
        self.help.as_ref().is_none_or(|help| help.split_whitespace().any(|word| word == name))
    }

    /// Runs one command and returns its standard output. Java's tool ends well and prints a stack trace when it fails; that is an
    /// error here.
    pub fn run(&mut self, args: &[&str]) -> Result<String> {
        let (log, lines) = match &mut self.session {
            Some(session) => {
                let (lines, log) = (session.line_count(), session.log().len());
                session.write_line(&[args, &["-n", &self.namesrv]].concat().join("\t"))?;
                session.wait_for_line_after(lines, LIMIT, |line| line == END)?;
                let printed = session
                    .lines()
                    .split_off(lines)
                    .into_iter()
                    .take_while(|line| line != END)
                    .filter(|line| !is_log(line))
                    .collect();
                (session.log().split_off(log), printed)
            }
            None => self.run_ours(args)?,
        };
        ensure!(!log.contains("\tat org.apache.rocketmq"), "mqadmin {}:\n{log}", args.join(" "));
        Ok(lines.join("\n"))
    }

    fn run_ours(&self, args: &[&str]) -> Result<(String, Vec<String>)> {
        let mut command = Command::new(binaries::binary("mqadmin")?);
        command.args(args).args(["-n", &self.namesrv]).current_dir(self.home.path());
        command.env("ROCKETMQ_TLS_CONFIG_FILE", &self.tls);
        let log = tempfile::NamedTempFile::new_in(self.home.path())?;
        let mut process = Process::spawn(&format!("mqadmin {}", args.join(" ")), command, log.path())?;
        process.close_stdin();
        let status = process.wait(LIMIT)?;
        ensure!(status.success(), "mqadmin {}: {status}\n{}", args.join(" "), process.log());
        Ok((process.log(), process.lines()))
    }
}

/// 5.x reports the set-up of its logging on standard output when two configurations are in sight.
fn is_log(line: &str) -> bool {
    line.contains("|-INFO in ") || line.contains("|-WARN in ")
}

/// The shape of an output: header lines as they are, then every other sort of line once, numbers as `N`, blanks squeezed.
pub fn shape(output: &str) -> String {
    let mut headers = Vec::new();
    let mut rows = BTreeSet::new();
    for line in output.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            headers.push(line.to_owned());
        } else {
            rows.insert(row_shape(line));
        }
    }
    headers.into_iter().chain(rows).map(|line| line + "\n").collect()
}

/// `broker-a  0  127.0.0.1:10911  V4_9_7 0.00(0,0ms)` becomes `broker-a N N:N VERSION N(N,Nms)`.
fn row_shape(line: &str) -> String {
    let squeezed = line.split_whitespace().map(word_shape).collect::<Vec<_>>().join(" ");
    squeezed.trim_end_matches(',').to_owned()
}

fn word_shape(word: &str) -> String {
    let version = word
        .strip_prefix('V')
        .is_some_and(|rest| rest.contains('_') && rest.chars().all(|c| c.is_ascii_digit() || c == '_'));
    if version {
        return "VERSION".to_owned();
    }
    let is_id = |part: &str| part.len() >= 32 && part.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_lowercase());
    let mut out = String::new();
    let mut token = String::new();
    let flush = |token: &mut String, out: &mut String| {
        let number =
            token.chars().all(|c| c.is_ascii_digit() || c == '.') && token.contains(|c: char| c.is_ascii_digit());
        let millis =
            token.strip_suffix("ms").is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()));
        let share = token
            .strip_suffix('w')
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit() || c == '.'));
        match () {
            () if number => out.push('N'),
            () if millis => out.push_str("Nms"),
            () if share => out.push_str("Nw"),
            () if is_id(token) => out.push_str("ID"),
            () => out.push_str(token),
        }
        token.clear();
    };
    for c in word.chars() {
        if c.is_alphanumeric() || c == '.' || c == '_' {
            token.push(c);
        } else {
            flush(&mut token, &mut out);
            out.push(c);
        }
    }
    flush(&mut token, &mut out);
    out
}

/// The words left of the first `:` or `=` of each line, which is how brokers print their state and their configuration.
pub fn keys(output: &str) -> BTreeSet<String> {
    let split = |line: &str| line.split_once([':', '=']).map(|(key, _)| key.trim().to_owned());
    output.lines().filter_map(split).filter(|key| !key.is_empty() && !key.contains('/')).collect()
}

fn golden_path(version: Version, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(version.as_str()).join(format!("{name}.txt"))
}

/// The shape kept under `name`, which the Java tool of `version` printed of a Java server of the same version.
pub fn golden(version: Version, name: &str) -> Result<String> {
    let path = golden_path(version, name);
    std::fs::read_to_string(&path).with_context(|| format!("{} (RMQ_BLESS=1 and Java servers make it)", path.display()))
}

/// Compares the shape of an output with the golden. With `RMQ_BLESS` set, and `bless`, the golden is written instead.
pub fn compare(version: Version, name: &str, shape: &str, bless: bool) -> Result<()> {
    if bless && std::env::var_os("RMQ_BLESS").is_some() {
        let path = golden_path(version, name);
        std::fs::create_dir_all(path.parent().context("a golden without a directory")?)?;
        return Ok(std::fs::write(path, shape)?);
    }
    let golden = golden(version, name)?;
    if golden == shape {
        return Ok(());
    }
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (golden.lines().collect(), shape.lines().collect());
    let missing: Vec<_> = old.difference(&new).collect();
    let extra: Vec<_> = new.difference(&old).collect();
    bail!("{name}: lines that Java {version} prints and this does not: {missing:#?}, lines of this only: {extra:#?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_and_names_stay() {
        let output =
            "#Cluster Name     #BID\nDefaultCluster  broker-a   0  127.0.0.1:7420   V4_9_2   0.00(0,0ms)  498718.96\n";
        assert_eq!(shape(output), "#Cluster Name     #BID\nDefaultCluster broker-a N N:N VERSION N(N,Nms) N\n");
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        assert_eq!(shape("a 1\nb 2\na 3"), shape("b 7\n\na 8"));
        assert_ne!(shape("a 1"), shape("a x"));
    }

    #[test]
    fn keys_of_both_notations() {
        let found = keys("brokerVersion   : 397\nflushDiskType=ASYNC_FLUSH\ncommitLogDiskRatio_/x/y: 0.2\n\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["brokerVersion", "flushDiskType"]);
    }
}
