//! Follows the commit log and enters each message into its consume queue and the index, then tells who waits.
//!
//! Owns the dispatched position. One thread at a time: the one that appended where it is done at once ([`help`]), else the
//! dispatcher's own; recovery uses the same [`Dispatch`] before that thread starts. May not: wait for readers or for the
//! disk, except to retry when a file of the queues cannot be created.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::consume_queue::Push;
use crate::consume_queues::ConsumeQueues;
use crate::core::{Core, LastDispatched};
use crate::error::StoreError;
use crate::index::Index;
use crate::message::{self, Head, MessageView, decode_message, sys_flag};
use crate::properties::DispatchProperties;
use crate::stats::Counters;
use crate::worker::Signal;

/// Tells that a queue has a new entry.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Queue of the topic.
    pub queue_id: i32,
    /// Offset of the new entry.
    pub queue_offset: i64,
    /// See [`crate::QueueEntry::tags_code`].
    pub tags_code: i64,
    /// Broker's clock at storing, ms.
    pub store_timestamp: i64,
    /// Client's clock at creation, ms.
    pub born_timestamp: i64,
    /// Log offset of the message.
    pub physical_offset: u64,
    /// Bytes of the message.
    pub size: u32,
    /// Properties text, for filters by expression.
    pub properties: &'a [u8],
}

/// Called by the dispatcher's thread for each new entry: must be short and must not wait for the store.
pub type ArrivalListener = Box<dyn Fn(&Arrival<'_>) + Send + Sync>;

/// How long a failed write to a derived file waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where messages go.
#[derive(Clone, Copy)]
pub(crate) struct Dispatch<'a> {
    pub(crate) queues: &'a ConsumeQueues,
    pub(crate) index: Option<&'a Index>,
    pub(crate) delay_levels: &'a [Duration],
    pub(crate) counters: &'a Counters,
}

impl Dispatch<'_> {
    /// Enters a message into its queue; see [`crate::consume_queue::ConsumeQueue::push`] for `fill`. Returns what
    /// became of it and its tags code; `None` for messages that enter no queue.
    pub(crate) fn enqueue(
        &self,
        m: &MessageView<'_>,
        found: &DispatchProperties<'_>,
        fill: bool,
    ) -> Result<Option<(Push, i64)>, StoreError> {
        if !sys_flag::enters_queue(m.sys_flag) {
            return Ok(None);
        }
        if m.queue_id < 0 || !message::is_directory_name(m.topic) {
            self.conflict(m);
            return Ok(Some((Push::Conflict, 0)));
        }
        let tags_code = found.tags_code(m.topic, m.store_timestamp, self.delay_levels);
        let queue = self.queues.find_or_create(m.topic, m.queue_id);
        let push = queue.push(m.queue_offset, m.physical_offset, m.total_size, tags_code, fill)?;
        match push {
            Push::Written => {
                self.counters.dispatched.fetch_add(1, Ordering::Relaxed);
            }
            Push::Conflict => self.conflict(m),
            Push::Known | Push::Gap(_) | Push::Lost => {}
        }
        Ok(Some((push, tags_code)))
    }

    /// Whether a message can be entered without a new file.
    fn has_room(&self, m: &MessageView<'_>) -> bool {
        (!sys_flag::enters_queue(m.sys_flag)
            || self.queues.find(m.topic, m.queue_id).is_some_and(|queue| queue.has_room(m.queue_offset)))
            && self
                .index
                .filter(|_| sys_flag::is_indexed(m.sys_flag))
                .is_none_or(|index| index.has_room(|| DispatchProperties::scan(m.properties).index_keys().count()))
    }

    fn conflict(&self, m: &MessageView<'_>) {
        self.counters.dispatch_conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            topic = m.topic,
            queue_id = m.queue_id,
            queue_offset = m.queue_offset,
            offset = m.physical_offset,
            "[BUG]logic queue order maybe wrong: the message has no place in its queue"
        );
    }

    /// Enters a message into the index: under its unique key and each word of its keys.
    pub(crate) fn index(&self, m: &MessageView<'_>, found: &DispatchProperties<'_>) -> Result<(), StoreError> {
        let Some(index) = self.index else { return Ok(()) };
        if !sys_flag::is_indexed(m.sys_flag) {
            return Ok(());
        }
        for key in found.index_keys() {
            index.put(m.topic, key, m.physical_offset, m.store_timestamp)?;
            self.counters.index_entries.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The dispatcher thread's work, until it is stopped.
pub(crate) fn follow(core: &Core, signal: &Signal) {
    let all = || {
        while advance(core, signal)? {}
        Ok(())
    };
    while !signal.stopped() {
        match core.dispatching.run(all) {
            // Who appends dispatches, and wakes this thread for what is too much.
            None | Some(Ok(())) => signal.wait(Duration::from_secs(1)),
            Some(Err(Fault::Retry(e))) => {
                tracing::error!(error = %e, "dispatch failed and is tried again");
                core.health.set_undispatchable(Some(&e));
                signal.pause(RETRY);
                continue;
            }
            Some(Err(Fault::Broken(offset))) => {
                core.health.poison(&format_args!("the commit log is no log of messages at {offset}"));
                return;
            }
        }
        core.health.set_undispatchable(None);
    }
}

/// Messages that are dispatched by who appended them: more are the thread's, which may take longer.
const HELPED: usize = 128;

/// Dispatches a few messages on the thread that appended them, or flushed them where that comes first: waking another one for
/// each costs ten times as much. What needs a new file, or failed, is left to the dispatcher's thread; nothing is done where
/// there is none.
pub(crate) fn help(core: &Core) {
    if !core.dispatcher.is_there() {
        return;
    }
    let mut left = HELPED;
    let is_done = core.dispatching.run(|| {
        let helped = advance_while(core, &mut |m| {
            let goes_on = left > 0 && core.dispatch().has_room(m);
            left = left.saturating_sub(1);
            goes_on
        });
        helped.is_ok() && core.dispatched.load(Ordering::Relaxed) >= core.dispatchable_end()
    });
    if is_done == Some(false) {
        core.dispatcher.wake();
    }
}

pub(crate) enum Fault {
    /// A derived file could not be written.
    Retry(StoreError),
    /// Bytes that are no message: only a wrong replication stream does that.
    Broken(u64),
}

/// Dispatches to the end of the log or of its file; `Ok(false)` when nothing whole was there.
pub(crate) fn advance(core: &Core, signal: &Signal) -> Result<bool, Fault> {
    advance_while(core, &mut |_| !signal.stopped())
}

/// The same as long as it is told to go on.
fn advance_while(core: &Core, goes_on: &mut dyn FnMut(&MessageView<'_>) -> bool) -> Result<bool, Fault> {
    let mut offset = core.dispatched.load(Ordering::Relaxed);
    let located = core.log.locate(offset).and_then(|(file, at, readable)| {
        let readable = readable.min(core.dispatchable_end().saturating_sub(file.start) as usize);
        Some((file.slice(0, readable.max(at))?, file, at, readable))
    });
    let Some((bytes, file, mut at, readable)) = located else {
        // An empty log that replication starts somewhere else.
        let min = core.log.min_offset();
        if offset < min {
            core.dispatched.store(min, Ordering::Release);
            return Ok(true);
        }
        return Ok(false);
    };
    let mut any = false;
    while at < readable {
        let step = match message::head(&bytes[at..]) {
            Head::Message(size) if at + size > file.len() => return Err(Fault::Broken(offset)),
            Head::Message(size) if at + size > readable => return Ok(any),
            Head::Message(size) => {
                let view = decode_message(&bytes[at..]).ok().filter(|v| v.physical_offset == offset);
                let view = view.ok_or(Fault::Broken(offset))?;
                if !goes_on(&view) {
                    return Ok(any);
                }
                dispatch_one(core, &view).map_err(Fault::Retry)?;
                size
            }
            Head::Blank(size) if at + size != file.len() => return Err(Fault::Broken(offset)),
            Head::Blank(size) if at + size > readable => return Ok(any),
            Head::Blank(size) => size,
            Head::Short => return Ok(any),
            Head::Bad => return Err(Fault::Broken(offset)),
        };
        at += step;
        offset += step as u64;
        core.dispatched.store(offset, Ordering::Release);
        any = true;
    }
    Ok(any)
}

fn dispatch_one(core: &Core, m: &MessageView<'_>) -> Result<(), StoreError> {
    let dispatch = core.dispatch();
    let found = DispatchProperties::scan(m.properties);
    let pushed = dispatch.enqueue(m, &found, true)?;
    if let Some((Push::Written, tags_code)) = pushed
        && let Some(listener) = core.listener.load().as_ref()
    {
        listener(&Arrival {
            topic: m.topic,
            queue_id: m.queue_id,
            queue_offset: m.queue_offset,
            tags_code,
            store_timestamp: m.store_timestamp,
            born_timestamp: m.born_timestamp,
            physical_offset: m.physical_offset,
            size: m.total_size,
            properties: m.properties,
        });
    }
    dispatch.index(m, &found)?;
    core.log.saw_store_timestamp(m.store_timestamp);
    *core.last_dispatched.lock() = Some(LastDispatched {
        offset: m.physical_offset,
        end: m.physical_offset + u64::from(m.total_size),
        timestamp: m.store_timestamp,
    });
    Ok(())
}

/// Keeps the listener where one pointer swap replaces it.
pub(crate) type ListenerSlot = arc_swap::ArcSwapOption<ArrivalListener>;

/// Puts a listener into its slot.
pub(crate) fn set_listener(slot: &ListenerSlot, listener: ArrivalListener) {
    slot.store(Some(Arc::new(listener)));
}
