//! `rebuildStore`: consume queues and index of a stopped store anew from its log.

use anyhow::bail;
use clap::ArgAction;
use rocketmq_store::StoreConfig;
use rocketmq_store::inspect::{self, QueueCounts};

use super::{Levels, Place, Shape, levels};

#[derive(Debug, clap::Args)]
pub(crate) struct RebuildStore {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shape: Shape,
    /// Yes, change the store
    #[arg(long, required = true)]
    write: bool,
    /// Delete the old files when no queue has fewer units than before; else they are kept in `replaced-<time>`
    #[arg(long)]
    discard: bool,
    /// Whether there is to be an index
    #[arg(long = "messageIndexEnable", default_value_t = true, action = ArgAction::Set)]
    message_index_enable: bool,
    /// Size of queue files where the store has none to take it from
    #[arg(long = "mappedFileSizeConsumeQueue", default_value_t = 6_000_000, value_parser = clap::value_parser!(u64).range(20..=2_147_483_627))]
    mapped_file_size_consume_queue: u64,
    /// Delay levels of the broker, if they are not RocketMQ's: `1s 5s 10s …`
    #[arg(long = "messageDelayLevel", value_name = "LEVELS", value_parser = levels)]
    message_delay_level: Option<Levels>,
}

impl RebuildStore {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut config = StoreConfig {
            message_index_enable: self.message_index_enable,
            mapped_file_size_consume_queue: self.mapped_file_size_consume_queue,
            ..self.shape.set(self.place.config()?)
        };
        if let Some(Levels(levels)) = self.message_delay_level {
            config.message_delay_levels = levels;
        }
        let rebuilt = inspect::rebuild(&config, self.place.topics().as_ref(), self.discard)?;
        outln!("{:<64}  {:<4}  {:<12}  {:<12}", "#Topic", "#QID", "#Units Before", "#Units After");
        let mut fewer = 0;
        for QueueCounts { topic, queue_id, before, after } in &rebuilt.queues {
            fewer += u64::from(after < before);
            outln!("{:<64}  {queue_id:<4}  {before:<12}   {after:<12}", super::shown(topic));
        }
        let (before, after) = rebuilt.index_entries;
        if !rebuilt.deleted_topics.is_empty() {
            outln!("{:<20}: {}", "deleted topics", super::shown(&rebuilt.deleted_topics.join(", ")));
        }
        outln!("{:<20}: {} to {}", "log offsets", rebuilt.log_begin, rebuilt.log_end);
        outln!("{:<20}: {}", "messages", rebuilt.messages);
        outln!("{:<20}: {before} before, {after} now", "index entries");
        let kept = rebuilt.replaced.as_ref().map_or("deleted".to_owned(), |dir| dir.display().to_string());
        outln!("{:<20}: {kept}", "old files");
        if fewer > 0 {
            bail!("{fewer} queue(s) have fewer units than before; the old files are kept");
        }
        Ok(())
    }
}
