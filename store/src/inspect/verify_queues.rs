//! Consume queues against the log: every message that enters a queue has its unit, every unit its message.
//!
//! First pass: the log's messages in order, each held against the unit of its queue offset; what fits is noted as a
//! range. Second pass: the units, each that the first did not find right looked up in the log. May not: read the
//! index.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::commit_log::LogLookup;
use super::consume_queue::{QueueReader, UnitKind, queue_dirs};
use super::finding::FindingKind;
use super::segment::{segment_files, usual_size};
use super::verify::{Reporter, Summary, check_layout};
use crate::config::StoreConfig;
use crate::consume_queue::UNIT;
use crate::error::StoreError;
use crate::message::{MessageView, is_directory_name, sys_flag};
use crate::properties::{DispatchProperties, property};
use crate::results::QueueEntry;

/// Queues a message also enters, and its offsets there, separated by commas (`MessageConst`, light message queues).
const MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
const MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";

/// Queue offsets, as ranges in order.
#[derive(Debug, Default)]
struct Ranges(Vec<Range<i64>>);

impl Ranges {
    fn insert(&mut self, offset: i64) {
        let at = self.0.partition_point(|r| r.end < offset);
        match self.0.get_mut(at) {
            Some(r) if r.contains(&offset) => {}
            Some(r) if r.end == offset => r.end += 1,
            _ => self.0.insert(at, offset..offset.saturating_add(1)),
        }
    }

    fn contains(&self, offset: i64) -> bool {
        let at = self.0.partition_point(|r| r.end <= offset);
        self.0.get(at).is_some_and(|r| r.contains(&offset))
    }
}

/// Messages of consecutive queue offsets, as the log has them.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: i64,
    last: i64,
    first_physical: u64,
    last_physical: u64,
    count: u64,
}

impl Run {
    fn of(m: &MessageView<'_>) -> Self {
        let (offset, physical) = (m.queue_offset, m.physical_offset);
        Self { first: offset, last: offset, first_physical: physical, last_physical: physical, count: 1 }
    }

    fn join(&mut self, other: Self) {
        self.last = other.last;
        self.last_physical = other.last_physical;
        self.count += other.count;
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, first_physical, last_physical, count } = self;
        write!(
            f,
            "{count} message(s), queue offsets {first} to {last}, log offsets {first_physical} to {last_physical}"
        )
    }
}

#[derive(Debug)]
struct Queue {
    reader: QueueReader,
    /// Offsets whose unit is right.
    right: Ranges,
    /// Offsets whose unit was reported.
    told: Ranges,
    /// Messages whose unit was not found at its place.
    without_unit: Vec<Run>,
    /// The first unit that points into the log as it is.
    first: Option<QueueEntry>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct QueueCheck<'a> {
    dir: PathBuf,
    levels: &'a [Duration],
    known: Option<&'a BTreeSet<String>>,
    file_size: u64,
    /// Tags codes may be addresses in `consumequeue_ext`.
    ext: bool,
    topics: BTreeMap<String, BTreeMap<i32, Queue>>,
    /// Messages of queues that have no directory.
    homeless: BTreeMap<(String, i32), Run>,
    /// Messages of `BatchConsumeQueue`s (5.x), which lie elsewhere.
    batched: u64,
    /// Log offset behind the newest message that a unit points to.
    dispatched: u64,
}

impl<'a> QueueCheck<'a> {
    pub(crate) fn open(config: &'a StoreConfig, known: Option<&'a BTreeSet<String>>) -> Result<Self, StoreError> {
        let dir = config.consume_queue_dir();
        let dirs = queue_dirs(&dir)?;
        let mut files = Vec::new();
        for path in dirs.values().flat_map(BTreeMap::values) {
            files.extend(segment_files(path)?.0);
        }
        let file_size = usual_size(&files).unwrap_or(config.consume_queue_file_size());
        let mut topics = BTreeMap::new();
        for (topic, dirs) in dirs {
            let mut queues = BTreeMap::new();
            for (id, path) in dirs {
                let reader = QueueReader::open(&path, file_size)?;
                let (right, told) = (Ranges::default(), Ranges::default());
                queues.insert(id, Queue { reader, right, told, without_unit: Vec::new(), first: None });
            }
            topics.insert(topic, queues);
        }
        Ok(Self {
            levels: &config.message_delay_levels,
            ext: config.store_path_root_dir.join("consumequeue_ext").is_dir(),
            homeless: BTreeMap::new(),
            batched: 0,
            dispatched: 0,
            dir,
            known,
            file_size,
            topics,
        })
    }

    /// A message of the log, in order.
    pub(crate) fn saw(
        &mut self,
        m: &MessageView<'_>,
        path: &Path,
        at: u64,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), StoreError> {
        if !sys_flag::enters_queue(m.sys_flag) {
            return Ok(());
        }
        if m.sys_flag & sys_flag::INNER_BATCH != 0 {
            self.batched += 1;
            return Ok(());
        }
        if m.queue_id < 0 || m.queue_offset < 0 || !is_directory_name(m.topic) {
            let what = format!(
                "the message at log offset {} can be in no queue: topic {:?}, queue {}, queue offset {}",
                m.physical_offset, m.topic, m.queue_id, m.queue_offset
            );
            reporter.tell(FindingKind::BadMessage, path, at, what);
            return Ok(());
        }
        let run = Run::of(m);
        let Some(queue) = self.topics.get_mut(m.topic).and_then(|queues| queues.get_mut(&m.queue_id)) else {
            self.homeless.entry((m.topic.to_owned(), m.queue_id)).and_modify(|r| r.join(run)).or_insert(run);
            return Ok(());
        };
        let right = queue.reader.unit(m.queue_offset)?.is_some_and(|unit| {
            unit.offset == m.physical_offset && unit.size == m.total_size && unit.tags_code == tags_code(m, self.levels)
        });
        if right {
            queue.right.insert(m.queue_offset);
            return Ok(());
        }
        match queue.without_unit.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(run.first) => last.join(run),
            _ => queue.without_unit.push(run),
        }
        Ok(())
    }

    /// The log was read: judges what is left.
    pub(crate) fn finish(
        mut self,
        lookup: &mut LogLookup,
        summary: &mut Summary,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), StoreError> {
        summary.topics = self.topics.values().filter(|queues| !queues.is_empty()).count() as u64;
        let mut topics = std::mem::take(&mut self.topics);
        for (topic, queues) in &mut topics {
            for (id, queue) in queues {
                summary.queues += 1;
                // Files may have come since the log was read.
                queue.reader.refresh()?;
                check_layout(queue.reader.dir(), queue.reader.files(), self.file_size, reporter);
                self.read_units(topic, *id, queue, lookup, summary, reporter)?;
                queue.reader.forget();
            }
        }
        for (topic, queues) in &mut topics {
            for (id, queue) in queues {
                self.tell_missing(topic, *id, queue, reporter)?;
                queue.reader.forget();
            }
        }
        self.tell_homeless(&topics, reporter);
        if self.batched > 0 {
            let what = format!("{} messages of batch consume queues are not held against their queues", self.batched);
            reporter.tell(FindingKind::Note, &self.dir, 0, what);
        }
        Ok(())
    }

    fn read_units(
        &mut self,
        topic: &str,
        id: i32,
        queue: &mut Queue,
        lookup: &mut LogLookup,
        summary: &mut Summary,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), StoreError> {
        let mut unwritten: Option<i64> = None;
        let mut before: Option<QueueEntry> = None;
        let files = queue.reader.files().to_vec();
        let offsets = files.iter().flat_map(|f| f.start.div_ceil(UNIT) as i64..(f.end() / UNIT) as i64);
        for offset in offsets {
            let Some(unit) = queue.reader.scan(offset)? else { continue };
            let kind = UnitKind::of(&unit);
            if kind == UnitKind::Unwritten {
                unwritten.get_or_insert(offset);
                continue;
            }
            if let Some(from) = unwritten.take() {
                let (path, at) = queue.reader.place(from);
                let what =
                    format!("the units of queue offsets {from} to {} are unwritten, later ones are not", offset - 1);
                reporter.tell(FindingKind::BadUnit, &path, at, what);
                (from..offset).for_each(|told| queue.told.insert(told));
            }
            let fault = match kind {
                UnitKind::Filler | UnitKind::Unwritten => continue,
                UnitKind::Bad => {
                    let QueueEntry { offset, size, tags_code, .. } = unit;
                    let what = format!("log offset {offset}, size {size}, tags code {tags_code} is no unit");
                    Some((FindingKind::BadUnit, what))
                }
                UnitKind::Message if unit.offset < summary.log_begin || queue.right.contains(offset) => None,
                UnitKind::Message => self.judge(topic, id, &unit, lookup, summary, reporter.open)?,
            };
            summary.units += u64::from(kind == UnitKind::Message);
            let fault = fault.or_else(|| {
                let before = before.filter(|before| before.offset >= unit.offset)?;
                let what =
                    format!("log offset {} is not behind {}, that of the unit before", unit.offset, before.offset);
                Some((FindingKind::OutOfOrder, what))
            });
            if let Some((kind, what)) = fault {
                if reporter.open {
                    queue.reader.forget();
                    // It was read while it was being written; the second pass over what the log has reads it again.
                    if queue.reader.scan(offset)? != Some(unit) {
                        continue;
                    }
                }
                let (path, at) = queue.reader.place(offset);
                reporter.tell(kind, &path, at, format!("the unit of queue offset {offset}: {what}"));
                queue.told.insert(offset);
                continue;
            }
            before = Some(unit);
            if unit.offset >= summary.log_begin {
                self.dispatched = self.dispatched.max(unit.offset.saturating_add(unit.size.into()));
                queue.first.get_or_insert(unit);
            }
        }
        Ok(())
    }

    /// What is wrong with a unit, by the message it points to.
    fn judge(
        &self,
        topic: &str,
        id: i32,
        unit: &QueueEntry,
        lookup: &mut LogLookup,
        summary: &Summary,
        open: bool,
    ) -> Result<Option<(FindingKind, String)>, StoreError> {
        let physical = unit.offset;
        let Some(m) = lookup.message_at(physical)? else {
            // It may lie in a file that is newer than the list of files.
            let unseen = open && physical >= summary.log_end;
            let what = format!("no message begins at log offset {physical}");
            return Ok((!unseen).then_some((FindingKind::UnitTarget, what)));
        };
        let own = m.topic == topic && m.queue_id == id && m.queue_offset == unit.queue_offset;
        if !sys_flag::enters_queue(m.sys_flag) || !(own || is_dispatched_to(&m, topic, unit.queue_offset)) {
            let what = format!(
                "the message at log offset {physical} is that of topic {}, queue {}, queue offset {}",
                m.topic, m.queue_id, m.queue_offset
            );
            return Ok(Some((FindingKind::WrongMessage, what)));
        }
        if m.total_size != unit.size {
            let what = format!("size {}, the message at log offset {physical} has {}", unit.size, m.total_size);
            return Ok(Some((FindingKind::WrongField, what)));
        }
        let expected = tags_code(&m, self.levels);
        let is_address = self.ext && unit.tags_code < i64::from(i32::MIN);
        if unit.tags_code != expected && !is_address {
            let what = format!("tags code {}, that of the message at {physical} is {expected}", unit.tags_code);
            return Ok(Some((FindingKind::WrongField, what)));
        }
        Ok(None)
    }

    /// Messages whose unit the first pass did not find, held against the queue as it is now.
    fn tell_missing(
        &self,
        topic: &str,
        id: i32,
        queue: &mut Queue,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), StoreError> {
        if !queue.without_unit.is_empty() {
            // A running broker goes on: units that were not there may be now, in files that were not there.
            queue.reader.refresh()?;
        }
        for run in std::mem::take(&mut queue.without_unit) {
            let mut missing: Option<Range<i64>> = None;
            let mut earlier = 0;
            for offset in run.first..=run.last {
                if queue.told.contains(offset) {
                    continue;
                }
                let unit = queue.reader.scan(offset)?.filter(|u| UnitKind::of(u) == UnitKind::Message);
                // A topic that was deleted and made again gives its offsets out anew.
                let again = unit.or(queue.first.filter(|first| first.queue_offset <= offset));
                match unit {
                    Some(unit) if (run.first_physical..=run.last_physical).contains(&unit.offset) => {}
                    _ if again.is_some_and(|unit| unit.offset > run.last_physical) => earlier += 1,
                    _ => match &mut missing {
                        Some(range) => range.end = offset.saturating_add(1),
                        None => missing = Some(offset..offset.saturating_add(1)),
                    },
                }
            }
            if earlier > 0 {
                let what = format!("topic {topic}, queue {id} was deleted and made again; of its life before: {run}");
                reporter.tell(FindingKind::Note, queue.reader.dir(), 0, what);
            }
            let Some(missing) = missing else { continue };
            let (path, at) = queue.reader.place(missing.start);
            let (from, to) = (missing.start, missing.end - 1);
            let kind = self.kind_of_missing(&run, to, reporter);
            let what =
                format!("topic {topic}, queue {id}: no unit for queue offsets {from} to {to}; the log has {run}");
            reporter.tell(kind, &path, at, what);
        }
        Ok(())
    }

    /// What a running broker has not dispatched yet, or a killed one not any more, is no fault: messages of a run up to
    /// its end, which lies behind everything that is dispatched.
    fn kind_of_missing(&self, run: &Run, to: i64, reporter: &Reporter<'_>) -> FindingKind {
        if (reporter.open || reporter.aborted) && to == run.last && run.last_physical >= self.dispatched {
            FindingKind::Note
        } else {
            FindingKind::MissingUnit
        }
    }

    fn tell_homeless(&self, topics: &BTreeMap<String, BTreeMap<i32, Queue>>, reporter: &mut Reporter<'_>) {
        for ((topic, id), run) in &self.homeless {
            let path = self.dir.join(topic).join(id.to_string());
            let expected = match self.known {
                Some(known) => known.contains(topic),
                None => topics.get(topic).is_some_and(|queues| !queues.is_empty()),
            };
            // A running broker may have made it since.
            if !expected || (reporter.open && path.is_dir()) {
                let what = format!("topic {topic}, queue {id} has no files, as after its deletion; the log has {run}");
                reporter.tell(FindingKind::Note, &path, 0, what);
            } else {
                let what = format!("missing: topic {topic}, queue {id} has no files; the log has {run}");
                reporter.tell(self.kind_of_missing(run, run.last, reporter), &path, 0, what);
            }
        }
    }
}

fn tags_code(m: &MessageView<'_>, levels: &[Duration]) -> i64 {
    DispatchProperties::scan(m.properties).tags_code(m.topic, m.store_timestamp, levels)
}

/// Whether a light queue (`%LMQ%…`) has the message at this offset.
fn is_dispatched_to(m: &MessageView<'_>, topic: &str, queue_offset: i64) -> bool {
    let (Some(queues), Some(offsets)) =
        (property(m.properties, MULTI_DISPATCH), property(m.properties, MULTI_QUEUE_OFFSET))
    else {
        return false;
    };
    let mut pairs = queues.split(',').zip(offsets.split(','));
    pairs.any(|(queue, offset)| queue == topic && offset.parse() == Ok(queue_offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_find() {
        let mut ranges = Ranges::default();
        for offset in [5, 6, 7, 20, 10, 8, 6, 9, 21] {
            ranges.insert(offset);
        }
        let held: Vec<i64> = (0..30).filter(|offset| ranges.contains(*offset)).collect();
        assert_eq!(held, [5, 6, 7, 8, 9, 10, 20, 21]);
        assert!(ranges.0.len() <= 3, "{ranges:?}");
    }
}
