//! A store's files, read without a broker; only `rebuildStore` writes, and takes the store's lock for it.
//!
//! [`commit_log`], [`consume_queue`], [`index`]: dumps; [`verify`]; [`rebuild`]. Options are named as in the broker's
//! configuration where it has a key for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use rocketmq_remoting::fastjson;
use rocketmq_store::StoreConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;

mod commit_log;
mod consume_queue;
mod index;
mod rebuild;
mod verify;

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
pub(crate) enum Command {
    /// Print the messages of a store's commit log, without a broker
    DumpCommitLog(commit_log::DumpCommitLog),
    /// Print the units of a consume queue, without a broker
    DumpConsumeQueue(consume_queue::DumpConsumeQueue),
    /// Print the index files of a store, one of them, or what they have for a key, without a broker
    DumpIndex(index::DumpIndex),
    /// Read a whole store and hold log, queues, index and tables against each other; exit code 1 with findings
    VerifyStore(verify::VerifyStore),
    /// Build consume queues and index of a stopped store anew from its commit log
    RebuildStore(rebuild::RebuildStore),
}

/// Where the store lies.
#[derive(Debug, clap::Args)]
struct Place {
    /// The store's directory
    #[arg(short = 'p', long = "storePathRootDir", value_name = "DIRECTORY")]
    store_path_root_dir: PathBuf,
    /// The log's directory, if it is not `commitlog` in the store
    #[arg(long = "storePathCommitLog", value_name = "DIRECTORY")]
    store_path_commit_log: Option<PathBuf>,
}

/// What counts of `config/topics.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Topics {
    #[expect(clippy::zero_sized_map_values, reason = "a map in the file, of which the keys count")]
    topic_config_table: BTreeMap<String, IgnoredAny>,
}

/// Shape of the index files.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Shape {
    /// Slots of an index file
    #[arg(long = "maxHashSlotNum", default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    max_hash_slot_num: u32,
    /// Entries of an index file
    #[arg(long = "maxIndexNum", default_value_t = 20_000_000, value_parser = clap::value_parser!(u32).range(2..=100_000_000))]
    max_index_num: u32,
}

/// Delay levels, level 1 first.
#[derive(Clone, Debug)]
struct Levels(Vec<Duration>);

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::DumpCommitLog(dump) => dump.run(),
        Command::DumpConsumeQueue(dump) => dump.run(),
        Command::DumpIndex(dump) => dump.run(),
        Command::VerifyStore(verify) => verify.run(),
        Command::RebuildStore(rebuild) => rebuild.run(),
    }
}

impl Place {
    /// Settings of a store there; refuses what is no store.
    fn config(&self) -> anyhow::Result<StoreConfig> {
        let config = StoreConfig {
            store_path_root_dir: self.store_path_root_dir.clone(),
            store_path_commit_log: self.store_path_commit_log.clone(),
            ..StoreConfig::default()
        };
        let root = self.store_path_root_dir.display();
        if !config.store_path_root_dir.is_dir() {
            bail!("-p {root} is not accepted: a store's directory (storePathRootDir) is");
        }
        if !config.commit_log_dir().is_dir() {
            match &self.store_path_commit_log {
                Some(dir) => bail!("--storePathCommitLog {} is not accepted: a log's directory is", dir.display()),
                None => {
                    bail!("-p {root} is not accepted: a directory with `commitlog` in it is, or --storePathCommitLog")
                }
            }
        }
        Ok(config)
    }

    /// The topics the broker knows; `None` where that cannot be said.
    fn topics(&self) -> Option<BTreeSet<String>> {
        let text = fs::read(self.store_path_root_dir.join("config/topics.json")).ok()?;
        let topics: Topics = fastjson::from_slice(&text).ok()?;
        Some(topics.topic_config_table.into_keys().collect())
    }
}

impl Shape {
    fn set(self, config: StoreConfig) -> StoreConfig {
        StoreConfig { max_hash_slot_num: self.max_hash_slot_num, max_index_num: self.max_index_num, ..config }
    }
}

/// `1s 5s 10m 2h`: what `messageDelayLevel` takes.
fn levels(text: &str) -> Result<Levels, String> {
    let level = |word: &str| {
        let (number, unit) = word.split_at(word.len() - word.chars().last().map_or(0, char::len_utf8));
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return None,
        };
        number.parse::<u32>().ok().map(|number| Duration::from_secs(u64::from(number) * seconds))
    };
    let levels: Option<Vec<_>> = text.split_ascii_whitespace().map(level).collect();
    let accepted = || "numbers with unit s, m, h or d, separated by blanks, are accepted".to_owned();
    levels.filter(|levels| !levels.is_empty()).map(Levels).ok_or_else(accepted)
}

/// Text from a file, with what would disturb a terminal or a line escaped.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || c == '\\' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Bytes: as text if they are any, else with escapes.
fn shown_bytes(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), shown)
}

/// An empty or missing value takes a column too.
fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).map_or_else(|| "-".to_owned(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_levels_are_read_or_refused() {
        let secs = |text: &str| levels(text).map(|l| l.0.iter().map(Duration::as_secs).collect::<Vec<_>>());
        assert_eq!(secs("1s 5m  2h 1d").unwrap(), [1, 300, 7200, 86400]);
        for wrong in ["", "5", "s", "1x", "-1s", "1s;2s", "1é"] {
            assert!(secs(wrong).unwrap_err().contains("s, m, h or d"), "{wrong}");
        }
    }

    #[test]
    fn nothing_from_a_file_reaches_the_terminal_as_a_command() {
        assert_eq!(shown("a\u{1b}[2J\nÜ\\"), "a\\u{1b}[2J\\nÜ\\\\");
        assert_eq!(shown_bytes(b"\xFF\0a"), "\\xff\\x00a");
        assert_eq!((or_dash(None), or_dash(Some("")), or_dash(Some("x"))), ("-".into(), "-".into(), "x".into()));
    }
}
