//! Messages as a consumer pulls them, each queue in its order, one request a queue at a time.
//!
//! Every message that comes is looked at as far as its size and its place in the queue: a gap or a
//! repetition is an error, so a fast wrong answer does not count as speed.

use std::time::Duration;

use anyhow::{Result, ensure};
use rocketmq_remoting::command::Command;
use rocketmq_remoting::frame::to_bytes;
use rocketmq_remoting::header::message::{PullMessageRequest, pull_flag};
use rocketmq_remoting::{RequestCode, ResponseCode};

use crate::answer::Answer;
use crate::load::{self, Load, Verdict, Work};
use crate::outcome::Outcome;
use crate::patch::{OPAQUE_PLACEHOLDER, Place};

/// As many digits as the largest offset has.
const OFFSET_PLACEHOLDER: &str = "1888777666555444333";
/// Where the queue offset lies in a stored message, after size, magic, CRC, queue and flag.
const QUEUE_OFFSET_AT: usize = 20;
/// Where the body's length lies, with IPv4 hosts.
const BODY_LENGTH_AT: usize = 84;
/// The bits of a message's system flag that lengthen its hosts to IPv6; it lies at 36.
const IPV6_HOSTS: (u8, u8) = (0x10, 0x20);

/// What is pulled.
#[derive(Clone, Debug)]
pub struct Queues {
    /// The topic.
    pub topic: String,
    /// How many queues it has.
    pub count: u32,
    /// The first offset in each queue; when its end is reached, this is where it starts again.
    pub from: u64,
    /// Messages a request asks for at most; brokers give 32 and 256 KiB at most.
    pub batch: u32,
    /// How many groups read all of it, ten at most.
    pub groups: u32,
    /// How long the broker holds a request at a queue's end for the next message. `None`: it is not asked to, and the
    /// queue is read again from its first offset.
    pub hold: Option<Duration>,
}

/// Pulls messages from a broker. Of the load, `in_flight` follows from the number of queues.
///
/// # Errors
/// See [`load::run`].
pub fn run(load: &Load, queues: &Queues) -> Result<Outcome> {
    ensure!(queues.count > 0 && load.connections > 0, "a topic has a queue, and a load has a connection");
    ensure!((1..=10).contains(&queues.groups), "there are 1 to 10 groups");
    let load = Load { in_flight: (queues.count * queues.groups).div_ceil(load.connections), ..load.clone() };
    let frame = encode(queues)?;
    let mut work = Pulling::new(queues, &frame)?;
    load::run(&load, &frame, &mut work)
}

/// One request with placeholders.
pub(crate) fn encode(queues: &Queues) -> Result<Vec<u8>> {
    let hold = queues.hold.map_or(0, |_| pull_flag::SUSPEND);
    let header = PullMessageRequest {
        consumer_group: "rocketmq-bench-0".into(),
        topic: queues.topic.as_str().into(),
        queue_id: 10_i32.pow(queues.count.saturating_sub(1).checked_ilog10().unwrap_or(0)),
        queue_offset: OFFSET_PLACEHOLDER.parse()?,
        max_msg_nums: queues.batch as i32,
        sys_flag: pull_flag::SUBSCRIPTION | hold,
        suspend_timeout_millis: queues.hold.unwrap_or_default().as_millis() as i64,
        subscription: Some("*".into()),
        expression_type: Some("TAG".into()),
        ..PullMessageRequest::default()
    };
    let mut command = Command::request(RequestCode::PULL_MESSAGE).with_header(&header);
    command.opaque = OPAQUE_PLACEHOLDER;
    Ok(to_bytes(&command).to_vec())
}

/// Makes an encoded request that for the first queue from its first offset on.
pub(crate) fn aim(queues: &Queues, frame: &mut [u8]) -> Result<()> {
    let mut work = Pulling::new(queues, frame)?;
    ensure!(work.prepare(0, frame), "a topic has a queue");
    Ok(())
}

/// Slot `s` is that of queue `s % count`, for group `s / count`.
struct Pulling {
    group: Place,
    queue: Place,
    offset: Place,
    /// The next offset of each slot.
    next: Vec<u64>,
    queues: u32,
    from: u64,
    holds: bool,
}

impl Pulling {
    fn new(queues: &Queues, frame: &[u8]) -> Result<Self> {
        let digits = queues.count.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
        Ok(Self {
            group: Place::after(frame, "\"consumerGroup\":\"rocketmq-bench-", 1)?,
            queue: Place::after(frame, "\"queueId\":\"", digits)?,
            offset: Place::after(frame, "\"queueOffset\":\"", OFFSET_PLACEHOLDER.len())?,
            next: vec![queues.from; (queues.count * queues.groups) as usize],
            queues: queues.count,
            from: queues.from,
            holds: queues.hold.is_some(),
        })
    }

    /// Counts the messages of a body that continue a queue; `None` when they do not.
    fn count(next: &mut u64, mut body: &[u8]) -> Option<Verdict> {
        let (mut messages, mut bytes) = (0, 0);
        while !body.is_empty() {
            let size = u32::from_be_bytes(*body.first_chunk()?) as usize;
            let (message, rest) = body.split_at_checked(size)?;
            let offset = u64::from_be_bytes(*message.get(QUEUE_OFFSET_AT..)?.first_chunk()?);
            let flag = *message.get(39)?;
            let longer = 12 * (usize::from(flag & IPV6_HOSTS.0 != 0) + usize::from(flag & IPV6_HOSTS.1 != 0));
            let length = u32::from_be_bytes(*message.get(BODY_LENGTH_AT + longer..)?.first_chunk()?);
            if offset != *next {
                return None;
            }
            *next += 1;
            messages += 1;
            bytes += u64::from(length);
            body = rest;
        }
        Some(Verdict::Done { messages, bytes })
    }
}

impl Work for Pulling {
    fn prepare(&mut self, slot: u32, frame: &mut [u8]) -> bool {
        let Some(next) = self.next.get(slot as usize) else {
            return false;
        };
        self.group.decimal(frame, (slot / self.queues).into());
        self.queue.decimal(frame, (slot % self.queues).into());
        self.offset.decimal(frame, *next);
        true
    }

    fn answered(&mut self, slot: u32, answer: &Answer<'_>) -> Verdict {
        let next = &mut self.next[slot as usize];
        match ResponseCode(answer.code) {
            ResponseCode::SUCCESS => Self::count(next, answer.body).unwrap_or(Verdict::Failed(-1)),
            // Nothing came while the broker held the request.
            ResponseCode::PULL_NOT_FOUND if self.holds => Verdict::Done { messages: 0, bytes: 0 },
            // The end of the queue; again from the start, unless that is the end already.
            ResponseCode::PULL_NOT_FOUND if *next > self.from => {
                *next = self.from;
                Verdict::Done { messages: 0, bytes: 0 }
            }
            refused => Verdict::Failed(refused.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(offset: u64, ipv6: bool) -> Vec<u8> {
        let mut message = vec![0; 91 + 24 + 5];
        let size = message.len() as u32;
        message[..4].copy_from_slice(&size.to_be_bytes());
        message[20..28].copy_from_slice(&offset.to_be_bytes());
        message[39] = if ipv6 { 0x30 } else { 0 };
        let at = if ipv6 { 108 } else { 84 };
        message[at + 3] = 5;
        message
    }

    fn pulling() -> (Pulling, Vec<u8>) {
        let queues = Queues { topic: "T".into(), count: 8, from: 7, batch: 32, groups: 1, hold: None };
        let frame = encode(&queues).unwrap();
        (Pulling::new(&queues, &frame).unwrap(), frame)
    }

    fn answer(code: i32, body: &[u8]) -> Answer<'_> {
        Answer { code, opaque: 0, is_response: true, body }
    }

    #[test]
    fn messages_count_only_in_their_order() {
        let (mut work, mut frame) = pulling();
        assert!(work.prepare(3, &mut frame));
        assert!(String::from_utf8_lossy(&frame).contains("\"queueOffset\":\"0000000000000000007\""));
        let body = [message(7, false), message(8, true)].concat();
        assert_eq!(work.answered(3, &answer(0, &body)), Verdict::Done { messages: 2, bytes: 10 });
        assert_eq!(work.answered(3, &answer(0, &body)), Verdict::Failed(-1));
        assert_eq!(work.answered(2, &answer(0, &body[..50])), Verdict::Failed(-1));
        assert!(!work.prepare(8, &mut frame));
    }

    #[test]
    fn each_group_reads_each_queue_and_waits_at_its_end() {
        let hold = Some(Duration::from_secs(2));
        let queues = Queues { topic: "T".into(), count: 2, from: 0, batch: 32, groups: 3, hold };
        let mut frame = encode(&queues).unwrap();
        let mut work = Pulling::new(&queues, &frame).unwrap();
        assert!(work.prepare(5, &mut frame));
        let text = String::from_utf8_lossy(&frame);
        assert!(text.contains("\"rocketmq-bench-2\"") && text.contains("\"queueId\":\"1\""), "{text}");
        assert!(text.contains("\"suspendTimeoutMillis\":\"2000\"") && text.contains("\"sysFlag\":\"6\""), "{text}");
        for _ in 0..2 {
            assert_eq!(work.answered(5, &answer(19, b"")), Verdict::Done { messages: 0, bytes: 0 });
        }
        assert!(!work.prepare(6, &mut frame));
    }

    #[test]
    fn the_end_of_a_queue_leads_to_its_start_once() {
        let (mut work, _) = pulling();
        work.answered(1, &answer(0, &message(7, false)));
        assert_eq!(work.answered(1, &answer(19, b"")), Verdict::Done { messages: 0, bytes: 0 });
        assert_eq!(work.answered(1, &answer(19, b"")), Verdict::Failed(19));
    }
}
