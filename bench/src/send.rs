//! Messages as a Java producer sends them: V2 header in JSON, a property text with unique key and
//! tag, one message a request or a batch.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rocketmq_remoting::command::Command;
use rocketmq_remoting::frame::to_bytes;
use rocketmq_remoting::header::message::SendMessageRequestV2;
use rocketmq_remoting::{RequestCode, ResponseCode};

use crate::answer::Answer;
use crate::load::{self, Load, Verdict, Work};
use crate::outcome::Outcome;
use crate::patch::{OPAQUE_PLACEHOLDER, Place};
use crate::topic;

/// Sixteen characters that stand nowhere else in a frame; the counting half of a unique key.
const KEY_PLACEHOLDER: &str = "@KEY@@@@@@@@KEY@";
/// The constant half: an address, a process and a class loader, as a Java client would write them.
const KEY_HEAD: &str = "7F0000013039266B";

/// What is sent.
#[derive(Clone, Debug)]
pub struct Messages {
    /// The topic, which is there already; of several topics, what their names begin with.
    pub topic: String,
    /// 1 is the topic itself; more are those of [`topic::numbered`], used in turn.
    pub topics: u32,
    /// Its queues; they are used in turn.
    pub queues: u32,
    /// Bytes of a body.
    pub size: usize,
    /// Messages in a request; 1 is no batch.
    pub batch: u32,
}

/// Sends messages to a broker.
///
/// # Errors
/// See [`load::run`].
pub fn run(load: &Load, messages: &Messages) -> Result<Outcome> {
    ensure!(messages.batch > 0 && messages.queues > 0, "a batch holds a message, and a topic has a queue");
    ensure!(messages.topics > 0, "a message has a topic");
    let frame = encode(messages);
    let mut work = Sending::new(messages, &frame)?;
    load::run(load, &frame, &mut work)
}

/// One request with placeholders.
fn encode(messages: &Messages) -> Vec<u8> {
    let properties = format!("UNIQ_KEY\u{1}{KEY_HEAD}{KEY_PLACEHOLDER}\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA");
    let body = vec![b'x'; messages.size];
    let single = messages.batch == 1;
    let header = SendMessageRequestV2 {
        producer_group: "rocketmq-bench".into(),
        topic: messages.first_topic().into(),
        default_topic: Some("TBW102".into()),
        default_topic_queue_nums: Some(8),
        // As many digits as the highest number has.
        queue_id: 10_i32.pow(messages.queues.saturating_sub(1).checked_ilog10().unwrap_or(0)),
        born_timestamp: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64),
        properties: Some(if single { properties.as_str().into() } else { "WAIT\u{1}true".into() }),
        batch: !single,
        ..SendMessageRequestV2::default()
    };
    let code = if single { RequestCode::SEND_MESSAGE_V2 } else { RequestCode::SEND_BATCH_MESSAGE };
    let body = if single { body } else { item(&body, properties.as_bytes()).repeat(messages.batch as usize) };
    let mut command = Command::request(code).with_header(&header).with_body(body);
    command.opaque = OPAQUE_PLACEHOLDER;
    to_bytes(&command).to_vec()
}

/// One message of a batch: size, magic, CRC (both left to the broker), flag, body, properties.
fn item(body: &[u8], properties: &[u8]) -> Vec<u8> {
    let size = 4 * 5 + body.len() + 2 + properties.len();
    let mut item = Vec::with_capacity(size);
    item.extend((size as u32).to_be_bytes());
    item.extend([0; 12]);
    item.extend((body.len() as u32).to_be_bytes());
    item.extend(body);
    item.extend((properties.len() as u16).to_be_bytes());
    item.extend(properties);
    item
}

impl Messages {
    fn first_topic(&self) -> String {
        if self.topics == 1 { self.topic.clone() } else { topic::numbered(&self.topic, 0) }
    }
}

struct Sending {
    queue: Place,
    queues: u64,
    /// The number in the topic's name, where there are several.
    topic: Option<Place>,
    topics: u64,
    keys: Vec<Place>,
    requests: u64,
    /// Messages ever prepared, which makes each key unique within a run and, by the clock it
    /// starts at, among runs.
    key: u64,
    done: Verdict,
}

impl Sending {
    fn new(messages: &Messages, frame: &[u8]) -> Result<Self> {
        let digits = messages.queues.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
        let keys = Place::all(frame, KEY_PLACEHOLDER);
        ensure!(keys.len() == messages.batch as usize, "{} keys in the encoded frame", keys.len());
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        Ok(Self {
            queue: Place::after(frame, "\"e\":\"", digits)?,
            queues: messages.queues.into(),
            topic: (messages.topics > 1)
                .then(|| Place::after(frame, &format!("\"b\":\"{}", messages.topic), topic::DIGITS))
                .transpose()?,
            topics: messages.topics.into(),
            keys,
            requests: 0,
            key: clock << 8,
            done: Verdict::Done {
                messages: messages.batch.into(),
                bytes: u64::from(messages.batch) * messages.size as u64,
            },
        })
    }
}

impl Work for Sending {
    fn prepare(&mut self, _: u32, frame: &mut [u8]) -> bool {
        self.queue.decimal(frame, self.requests % self.queues);
        if let Some(topic) = self.topic {
            topic.decimal(frame, self.requests / self.queues % self.topics);
        }
        self.requests += 1;
        for key in &self.keys {
            key.hexadecimal(frame, self.key);
            self.key += 1;
        }
        true
    }

    fn answered(&mut self, _: u32, answer: &Answer<'_>) -> Verdict {
        if answer.code == ResponseCode::SUCCESS.0 { self.done } else { Verdict::Failed(answer.code) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocketmq_remoting::Header as _;
    use rocketmq_remoting::frame::{FrameLimits, decode};

    fn prepared(queues: u32, batch: u32, requests: u32) -> Vec<Command> {
        let messages = Messages { topic: "T".into(), topics: 1, queues, size: 10, batch };
        let mut frame = encode(&messages);
        let mut work = Sending::new(&messages, &frame).unwrap();
        let mut commands = Vec::new();
        for _ in 0..requests {
            assert!(work.prepare(0, &mut frame));
            let mut bytes = frame.as_slice().into();
            commands.push(decode(&mut bytes, FrameLimits::default()).unwrap().unwrap());
            assert!(bytes.is_empty());
        }
        commands
    }

    fn header(command: &Command) -> SendMessageRequestV2 {
        SendMessageRequestV2::decode(&command.ext_fields).unwrap()
    }

    #[test]
    fn queues_are_used_in_turn_and_keys_differ() {
        let commands = prepared(12, 1, 13);
        let queues: Vec<i32> = commands.iter().map(|command| header(command).queue_id).collect();
        assert_eq!(queues, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]);
        let key = |command: &Command| header(command).properties.unwrap().split('\u{2}').next().unwrap().to_owned();
        assert_eq!(key(&commands[0]).len(), "UNIQ_KEY\u{1}".len() + 32);
        assert_ne!(key(&commands[0]), key(&commands[1]));
        assert_eq!(commands[0].body.len(), 10);
    }

    #[test]
    fn topics_are_used_in_turn() {
        let messages = Messages { topic: "T-".into(), topics: 3, queues: 2, size: 1, batch: 1 };
        let mut frame = encode(&messages);
        let mut work = Sending::new(&messages, &frame).unwrap();
        let topics: Vec<String> = (0..7)
            .map(|_| {
                assert!(work.prepare(0, &mut frame));
                let command = decode(&mut frame.as_slice().into(), FrameLimits::default()).unwrap().unwrap();
                header(&command).topic.to_string()
            })
            .collect();
        assert_eq!(topics, ["T-00000", "T-00000", "T-00001", "T-00001", "T-00002", "T-00002", "T-00000"]);
    }

    #[test]
    fn a_batch_is_made_of_whole_items() {
        let commands = prepared(1, 3, 1);
        assert_eq!(commands[0].request_code(), RequestCode::SEND_BATCH_MESSAGE);
        assert!(header(&commands[0]).batch);
        let body = commands[0].body.clone().into_bytes();
        let size = u32::from_be_bytes(*body.first_chunk().unwrap()) as usize;
        assert_eq!(body.len(), 3 * size);
        assert_ne!(body[..size], body[size..2 * size]);
    }
}
