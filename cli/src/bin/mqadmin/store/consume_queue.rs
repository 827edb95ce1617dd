//! `dumpConsumeQueue`: the units of one queue, a line each.

use anyhow::bail;
use rocketmq_store::inspect::{QueueReader, UnitKind, queue_dirs};
use rocketmq_store::{QueueEntry, SCHEDULE_TOPIC};

use super::Place;
use crate::layout;

#[derive(Debug, clap::Args)]
pub(crate) struct DumpConsumeQueue {
    #[command(flatten)]
    place: Place,
    /// The topic
    #[arg(short = 't', long)]
    topic: String,
    /// The queue
    #[arg(short = 'q', long = "queueId", allow_negative_numbers = true)]
    queue_id: i32,
    /// Begin at this queue offset
    #[arg(short = 'o', long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Print so many units
    #[arg(short = 'c', long, allow_negative_numbers = true, default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
}

impl DumpConsumeQueue {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let mut topics = queue_dirs(&config.consume_queue_dir())?;
        let Some(mut queues) = topics.remove(&self.topic) else {
            let known: Vec<String> = topics.into_keys().collect();
            bail!("-t {} is not accepted: the store has queues of {}", self.topic, known.join(", "));
        };
        let Some(dir) = queues.remove(&self.queue_id) else {
            let known: Vec<String> = queues.into_keys().map(|id| id.to_string()).collect();
            bail!("-q {} is not accepted: topic {} has queues {}", self.queue_id, self.topic, known.join(", "));
        };
        let mut queue = QueueReader::open(&dir, config.consume_queue_file_size())?;
        let (first, end) = (queue.first(), queue.end()?);
        outln!("{:<20}  {:<20}  {:<10}  #Tags Code", "#Queue Offset", "#Log Offset", "#Size");
        let mut printed = 0;
        let mut gap: Option<(i64, UnitKind)> = None;
        for offset in self.offset.unwrap_or(first).max(first)..end {
            if printed >= self.count {
                break;
            }
            let unit = queue.scan(offset)?;
            let kind = unit.as_ref().map_or(UnitKind::Unwritten, UnitKind::of);
            if let Some((from, of)) = gap
                && of != kind
            {
                print_gap(from, offset, of);
                gap = None;
            }
            match unit {
                Some(unit) if kind == UnitKind::Message || kind == UnitKind::Bad => {
                    self.print(&unit, kind);
                    printed += 1;
                }
                _ => gap = gap.or(Some((offset, kind))),
            }
        }
        let (topic, id) = (&self.topic, self.queue_id);
        outln!("# {printed} unit(s); queue {id} of topic {topic} was seen from offset {first} up to {end}");
        Ok(())
    }

    fn print(&self, unit: &QueueEntry, kind: UnitKind) {
        let remark = if kind == UnitKind::Bad {
            "  (no unit)".to_owned()
        } else if self.topic == SCHEDULE_TOPIC {
            // Delayed messages have their time of delivery there.
            format!("  ({})", layout::time_millis(unit.tags_code))
        } else {
            String::new()
        };
        let QueueEntry { queue_offset, offset, size, tags_code } = unit;
        outln!("{queue_offset:<20}  {offset:<20}  {size:<10}  {tags_code}{remark}");
    }
}

fn print_gap(from: i64, to: i64, kind: UnitKind) {
    let what = if kind == UnitKind::Filler { "filler, they stand for no message" } else { "unwritten" };
    outln!("# queue offsets {from} to {}: {what}", to - 1);
}
