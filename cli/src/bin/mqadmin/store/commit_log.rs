//! `dumpCommitLog`: the messages of the log, a line each.

use rocketmq_store::inspect::{LogReader, PassedOver, Record};
use rocketmq_store::{KEYS, MessageView, TAGS, UNIQ_KEY, property, sys_flag};

use super::{Place, or_dash, shown, shown_bytes};
use crate::layout;

#[derive(Debug, clap::Args)]
pub(crate) struct DumpCommitLog {
    #[command(flatten)]
    place: Place,
    /// Begin at this log offset, or the first message behind it
    #[arg(short = 'o', long, allow_negative_numbers = true)]
    offset: Option<u64>,
    /// Print so many messages
    #[arg(short = 'c', long, allow_negative_numbers = true, default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    /// Print messages of this topic only
    #[arg(short = 't', long)]
    topic: Option<String>,
    /// Print messages of this queue only
    #[arg(short = 'q', long = "queueId", allow_negative_numbers = true)]
    queue_id: Option<i32>,
    /// Print the bodies too, escaped
    #[arg(short = 'b', long)]
    body: bool,
}

impl DumpCommitLog {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut log = LogReader::open(&self.place.config()?.commit_log_dir())?;
        if let Some(offset) = self.offset {
            log.seek(offset);
        }
        outln!(
            "{:<20}  {:<8}  {:<32}  {:<4}  {:<14}  {:<23}  {:<12}  {:<32}  #Keys",
            "#Log Offset",
            "#Size",
            "#Topic",
            "#QID",
            "#Queue Offset",
            "#Store Time",
            "#Tags",
            "#Message ID"
        );
        let (begin, mut printed) = (log.begin(), 0);
        while printed < self.count
            && let Some(record) = log.advance()?
        {
            match record {
                Record::Message(m) if self.wants(&m) => {
                    self.print(&m);
                    printed += 1;
                }
                Record::Message(_) | Record::Blank { .. } => {}
                Record::PassedOver(passed) => print_passed_over(&passed),
            }
        }
        outln!("# {printed} message(s); the log begins at offset {begin} and was read up to {}", log.offset());
        Ok(())
    }

    fn wants(&self, m: &MessageView<'_>) -> bool {
        self.topic.as_deref().is_none_or(|topic| topic == m.topic) && self.queue_id.is_none_or(|id| id == m.queue_id)
    }

    fn print(&self, m: &MessageView<'_>) {
        outln!(
            "{:<20}  {:<8}  {:<32}  {:<4}  {:<14}  {:<23}  {:<12}  {:<32}  {}{}",
            m.physical_offset,
            m.total_size,
            shown(m.topic),
            m.queue_id,
            m.queue_offset,
            layout::time_millis(m.store_timestamp),
            or_dash(property(m.properties, TAGS)),
            or_dash(property(m.properties, UNIQ_KEY)),
            or_dash(property(m.properties, KEYS)),
            remarks(m)
        );
        if self.body {
            outln!("    {}", shown_bytes(m.body));
        }
    }
}

fn remarks(m: &MessageView<'_>) -> String {
    let transaction = match sys_flag::transaction(m.sys_flag) {
        sys_flag::TRANSACTION_PREPARED => "  (prepared)",
        sys_flag::TRANSACTION_COMMIT => "  (committed)",
        sys_flag::TRANSACTION_ROLLBACK => "  (rolled back)",
        _ => "",
    };
    let compressed = if m.sys_flag & sys_flag::COMPRESSED == 0 { "" } else { "  (compressed)" };
    let crc = if m.crc_matches() { "" } else { "  (CRC mismatch)" };
    format!("{transaction}{compressed}{crc}")
}

fn print_passed_over(passed: &PassedOver) {
    let PassedOver { path, file_start, from, to, reason, at_end } = passed;
    let (path, at) = (path.display(), from - file_start);
    // The end of a running store's log looks so while a message is being written.
    let behind = if *at_end { "no message follows" } else { "messages follow" };
    outln!("# log offset {from} to {to}: {} bytes are no message ({reason}), {behind}: {path} at byte {at}", to - from);
}
