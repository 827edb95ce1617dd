//! `verifyStore`: the store's files against each other, and the broker's tables for themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rocketmq_remoting::fastjson;
use rocketmq_store::StoreConfig;
use rocketmq_store::inspect::{self, Finding, FindingKind, Summary};
use serde::de::IgnoredAny;

use super::{Levels, Place, Shape, levels};

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyStore {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shape: Shape,
    /// Delay levels of the broker, if they are not RocketMQ's: `1s 5s 10s …`
    #[arg(long = "messageDelayLevel", value_name = "LEVELS", value_parser = levels)]
    message_delay_level: Option<Levels>,
}

impl VerifyStore {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut config = self.shape.set(self.place.config()?);
        if let Some(Levels(levels)) = self.message_delay_level {
            config.message_delay_levels = levels;
        }
        let root = config.store_path_root_dir.clone();
        let (mut findings, mut notes) = (0, 0);
        for fault in check_tables(&root.join("config"))? {
            print(&root, &fault);
            findings += 1;
        }
        let topics = self.place.topics();
        let summary = inspect::verify(&config, topics.as_ref(), &mut |finding| print(&root, finding))?;
        findings += summary.findings;
        notes += summary.notes;
        print_summary(&config, &summary, findings, notes);
        if findings > 0 {
            bail!("{findings} finding(s) in {}", root.display());
        }
        Ok(())
    }
}

fn print(root: &Path, finding: &Finding) {
    let Finding { kind, path, at, what } = finding;
    let path = path.strip_prefix(root).unwrap_or(path).display();
    outln!("{:<14}  {path} at byte {at}: {}", kind.to_string(), super::shown(what));
}

fn print_summary(config: &StoreConfig, summary: &Summary, findings: u64, notes: u64) {
    let log = format!("{} to {}", summary.log_begin, summary.log_end);
    for (name, value) in [
        ("store", config.store_path_root_dir.display().to_string()),
        ("open in a broker", summary.open.to_string()),
        ("log offsets seen", log),
        ("messages", summary.messages.to_string()),
        ("bytes of messages", summary.message_bytes.to_string()),
        ("topics with queues", summary.topics.to_string()),
        ("queues", summary.queues.to_string()),
        ("units", summary.units.to_string()),
        ("index files", summary.index_files.to_string()),
        ("index entries", summary.index_entries.to_string()),
        ("notes", notes.to_string()),
        ("findings", findings.to_string()),
    ] {
        outln!("{name:<20}: {value}");
    }
}

/// Whether every table and every backup of one can be read. A broker reads the backup where the table cannot be.
fn check_tables(dir: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut faults = Vec::new();
    for path in tables(dir)? {
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let fault = match fastjson::from_slice::<IgnoredAny>(&text) {
            _ if text.is_empty() => "it is empty".to_owned(),
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        faults.push(Finding::new(FindingKind::Config, path, 0, format!("not readable: {fault}")));
    }
    Ok(faults)
}

/// `*.json` and `*.json.bak`; a store without any has none.
fn tables(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths.with_context(|| format!("list {}", dir.display()))?;
    let has = |path: &Path, extension: &str| path.extension().is_some_and(|e| e == extension);
    let is_backup = |path: &Path| has(path, "bak") && has(&path.with_extension(""), "json");
    paths.retain(|path| path.is_file() && (has(path, "json") || is_backup(path)));
    paths.sort_unstable();
    Ok(paths)
}
