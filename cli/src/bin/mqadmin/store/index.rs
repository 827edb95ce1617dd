//! `dumpIndex`: the index files of a store, the entries of one, or what they have for a key.

use std::path::{Path, PathBuf};

use anyhow::bail;
use rocketmq_store::inspect::{IndexEntry, IndexHeader, IndexReader, LogLookup, index_files, key_hash_of};
use rocketmq_store::{KEYS, StoreConfig, UNIQ_KEY, property};

use super::{Place, Shape, shown};
use crate::layout;

#[derive(Debug, clap::Args)]
pub(crate) struct DumpIndex {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shape: Shape,
    /// Print the entries of this index file
    #[arg(short = 'f', long, value_name = "NAME", conflicts_with = "key")]
    file: Option<String>,
    /// Print what all files have for a key or a message ID, newest first
    #[arg(short = 'k', long, value_name = "TOPIC#KEY", value_parser = topic_and_key)]
    key: Option<(String, String)>,
    /// Print so many entries
    #[arg(short = 'c', long, default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
}

fn topic_and_key(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('#').filter(|(topic, key)| !topic.is_empty() && !key.is_empty());
    parts.map(|(topic, key)| (topic.to_owned(), key.to_owned())).ok_or_else(|| "topic#key is accepted".to_owned())
}

impl DumpIndex {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = self.shape.set(self.place.config()?);
        let (files, _) = index_files(&config.index_dir())?;
        if let Some((topic, key)) = &self.key {
            self.print_found(&config, &files, topic, key)
        } else if let Some(name) = &self.file {
            let Some(path) = files.iter().find(|path| path.file_name().is_some_and(|n| n == name.as_str())) else {
                let known: Vec<String> = files.iter().map(|path| file_name(path)).collect();
                bail!("-f {name} is not accepted: the index files are {}", known.join(", "));
            };
            self.print_file(&config, path)
        } else {
            outln!(
                "{:<18}  {:<9}  {:<9}  {:<20}  {:<20}  {:<23}  {:<23}",
                "#File",
                "#Entries",
                "#Slots",
                "#Begin Offset",
                "#End Offset",
                "#Begin Time",
                "#End Time"
            );
            for path in &files {
                let (_, header) = open(&config, path)?;
                print_header(path, &header);
            }
            Ok(())
        }
    }

    fn print_file(&self, config: &StoreConfig, path: &Path) -> anyhow::Result<()> {
        let (mut reader, header) = open(config, path)?;
        outln!(
            "{:<10}  {:<10}  {:<10}  {:<20}  {:<10}  {:<23}",
            "#Entry",
            "#Slot",
            "#Hash",
            "#Log Offset",
            "#Previous",
            "#Store Time"
        );
        let count = reader.count()?;
        let mut printed = 0;
        for number in 1..count {
            if printed >= self.count {
                break;
            }
            let Some(entry) = reader.entry(number)? else { break };
            let IndexEntry { number, hash, physical, previous, .. } = entry;
            let slot = reader.slot_of(hash);
            outln!("{number:<10}  {slot:<10}  {hash:<10}  {physical:<20}  {previous:<10}  {}", time(&header, &entry));
            printed += 1;
        }
        outln!("# {printed} of {} entries", count - 1);
        Ok(())
    }

    fn print_found(&self, config: &StoreConfig, files: &[PathBuf], topic: &str, key: &str) -> anyhow::Result<()> {
        let hash = key_hash_of(topic, key);
        let mut log = LogLookup::open(&config.commit_log_dir())?;
        outln!("{:<18}  {:<10}  {:<20}  {:<23}  #Message", "#File", "#Entry", "#Log Offset", "#Store Time");
        let mut printed = 0;
        for path in files.iter().rev() {
            let (mut reader, header) = open(config, path)?;
            for entry in reader.search(hash)? {
                if printed >= self.count {
                    break;
                }
                let message = message(&mut log, entry.physical, topic, key)?;
                let (name, time) = (file_name(path), time(&header, &entry));
                outln!("{name:<18}  {:<10}  {:<20}  {time:<23}  {message}", entry.number, entry.physical);
                printed += 1;
            }
        }
        outln!("# {printed} entries of hash {hash} in {} file(s)", files.len());
        Ok(())
    }
}

/// Opens a file of the right shape.
fn open(config: &StoreConfig, path: &Path) -> anyhow::Result<(IndexReader, IndexHeader)> {
    let mut reader = IndexReader::new(path, config);
    let len = std::fs::metadata(path)?.len();
    let Some(header) = reader.header()?.filter(|_| len == reader.expected_len()) else {
        bail!(
            "{} is {len} bytes; maxHashSlotNum {} and maxIndexNum {} make {}: give --maxHashSlotNum and --maxIndexNum as the broker has them",
            path.display(),
            config.max_hash_slot_num,
            config.max_index_num,
            reader.expected_len()
        );
    };
    Ok((reader, header))
}

fn print_header(path: &Path, header: &IndexHeader) {
    outln!(
        "{:<18}  {:<9}  {:<9}  {:<20}  {:<20}  {:<23}  {:<23}",
        file_name(path),
        header.index_count.saturating_sub(1),
        header.slot_count,
        header.begin_physical,
        header.end_physical,
        layout::time_millis(header.begin_timestamp),
        layout::time_millis(header.end_timestamp)
    );
}

/// An entry knows its time to the second.
fn time(header: &IndexHeader, entry: &IndexEntry) -> String {
    layout::time_millis(header.begin_timestamp.saturating_add(i64::from(entry.seconds) * 1000))
}

/// The message an entry points to, and whether the key is its.
fn message(log: &mut LogLookup, physical: u64, topic: &str, key: &str) -> anyhow::Result<String> {
    let Some(m) = log.message_at(physical)? else { return Ok("(not in the log)".to_owned()) };
    let keys = property(m.properties, KEYS).unwrap_or_default();
    let own =
        m.topic == topic && (property(m.properties, UNIQ_KEY) == Some(key) || keys.split(' ').any(|word| word == key));
    let other = if own { "" } else { "  (another key of the same hash)" };
    Ok(format!("topic {}, queue {}, queue offset {}{other}", shown(m.topic), m.queue_id, m.queue_offset))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
