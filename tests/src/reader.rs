//! Reading a broker as the tests want it: every position of a queue asked for by its offset, without a consumer's state.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    stored_message::{StoredMessage, decode, decode_all},
    wire::{Response, Wire},
};

const GROUP: &str = "GID_reader";
const PULL_MESSAGE: i32 = 11;
const QUERY_MESSAGE: i32 = 12;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const GET_MAX_OFFSET: i32 = 30;
const GET_MIN_OFFSET: i32 = 31;
const VIEW_MESSAGE_BY_ID: i32 = 33;
const DELETE_TOPIC_IN_BROKER: i32 = 215;

const PULL_NOT_FOUND: i64 = 19;
const PULL_RETRY_IMMEDIATELY: i64 = 20;
const PULL_OFFSET_MOVED: i64 = 21;
const QUERY_NOT_FOUND: i64 = 22;

/// A connection to one broker. It blocks until the broker, which may still be recovering, answers.
#[derive(Debug)]
pub struct Reader {
    wire: Wire,
}

/// The answer to a pull.
#[derive(Debug)]
pub enum Pulled {
    Messages(Vec<StoredMessage>),
    /// The message is being deleted; ask again.
    Removing,
    /// Nothing at that offset; the queue's range.
    Nothing {
        min: i64,
        max: i64,
    },
}

impl Reader {
    /// Connects; each answer may take as long as a recovery.
    pub fn connect(addr: SocketAddr) -> Result<Self> {
        Ok(Self { wire: Wire::connect(addr, Duration::from_mins(1))? })
    }

    /// Where it is connected to.
    pub fn remote(&self) -> Result<SocketAddr> {
        self.wire.remote()
    }

    /// Creates or changes a topic of `queues` queues.
    pub fn create_topic(&mut self, topic: &str, queues: i32) -> Result<Response> {
        self.wire.create_topic(topic, queues)
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, topic: &str) -> Result<Response> {
        self.wire.call(DELETE_TOPIC_IN_BROKER, &[("topic", topic)], &[])
    }

    /// The first readable offset.
    pub fn min_offset(&mut self, topic: &str, queue: i32) -> Result<i64> {
        self.offset(GET_MIN_OFFSET, topic, queue)
    }

    /// The offset behind the last readable one.
    pub fn max_offset(&mut self, topic: &str, queue: i32) -> Result<i64> {
        self.offset(GET_MAX_OFFSET, topic, queue)
    }

    fn offset(&mut self, code: i32, topic: &str, queue: i32) -> Result<i64> {
        let response = self.wire.call(code, &[("topic", topic), ("queueId", &queue.to_string())], &[])?;
        field(&response, "offset")
    }

    /// The messages from an offset on, as many as the broker likes.
    pub fn pull(&mut self, topic: &str, queue: i32, offset: i64) -> Result<Pulled> {
        let (queue, offset) = (queue.to_string(), offset.to_string());
        let ext = [
            ("consumerGroup", GROUP),
            ("topic", topic),
            ("queueId", &queue),
            ("queueOffset", &offset),
            ("maxMsgNums", "32"),
            // Only "the subscription is in this request": no waiting, no commit.
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "0"),
            ("expressionType", "TAG"),
        ];
        let response = self.wire.call(PULL_MESSAGE, &ext, &[])?;
        match response.code {
            0 => Ok(Pulled::Messages(decode_all(&response.body)?)),
            PULL_RETRY_IMMEDIATELY => Ok(Pulled::Removing),
            PULL_NOT_FOUND | PULL_OFFSET_MOVED => {
                Ok(Pulled::Nothing { min: field(&response, "minOffset")?, max: field(&response, "maxOffset")? })
            }
            _ => bail!("a pull of {topic}:{queue}:{offset} answers {response:?}"),
        }
    }

    /// Everything of a queue from `from` on.
    pub fn read_queue(&mut self, topic: &str, queue: i32, from: i64) -> Result<Vec<StoredMessage>> {
        let mut all = Vec::new();
        let mut offset = from;
        while let Pulled::Messages(some) = self.pull(topic, queue, offset)? {
            offset =
                some.last().with_context(|| format!("an empty pull of {topic}:{queue}:{offset}"))?.queue_offset + 1;
            all.extend(some);
        }
        Ok(all)
    }

    /// The message at a log offset, where one begins there.
    pub fn view(&mut self, log_offset: u64) -> Result<Option<StoredMessage>> {
        let response = self.wire.call(VIEW_MESSAGE_BY_ID, &[("offset", &log_offset.to_string())], &[])?;
        if response.code != 0 {
            return Ok(None);
        }
        decode(&response.body).map(Some)
    }

    /// The newest messages with a key.
    pub fn query(&mut self, topic: &str, key: &str) -> Result<Vec<StoredMessage>> {
        self.query_between(topic, key, 0, i64::MAX)
    }

    /// The newest messages with a key that were stored between two times, in milliseconds since 1970.
    pub fn query_between(&mut self, topic: &str, key: &str, begin: i64, end: i64) -> Result<Vec<StoredMessage>> {
        let (begin, end) = (begin.to_string(), end.to_string());
        let ext =
            [("topic", topic), ("key", key), ("maxNum", "64"), ("beginTimestamp", &begin), ("endTimestamp", &end)];
        let response = self.wire.call(QUERY_MESSAGE, &ext, &[])?;
        match response.code {
            0 => decode_all(&response.body),
            QUERY_NOT_FOUND => Ok(Vec::new()),
            _ => bail!("a query for {key} answers {response:?}"),
        }
    }

    /// The next offset that a group consumes, where it has one.
    pub fn consumer_offset(&mut self, group: &str, topic: &str, queue: i32) -> Result<Option<i64>> {
        let queue = queue.to_string();
        let ext = [("consumerGroup", group), ("topic", topic), ("queueId", queue.as_str())];
        let response = self.wire.call(QUERY_CONSUMER_OFFSET, &ext, &[])?;
        if response.code == QUERY_NOT_FOUND { Ok(None) } else { field(&response, "offset").map(Some) }
    }

    /// Commits the next offset that a group consumes.
    pub fn commit(&mut self, group: &str, topic: &str, queue: i32, offset: i64) -> Result<()> {
        let (queue, offset) = (queue.to_string(), offset.to_string());
        let ext = [
            ("consumerGroup", group),
            ("topic", topic),
            ("queueId", queue.as_str()),
            ("commitOffset", offset.as_str()),
        ];
        let response = self.wire.call(UPDATE_CONSUMER_OFFSET, &ext, &[])?;
        ensure!(response.code == 0, "a commit of {group} answers {response:?}");
        Ok(())
    }

    /// Any other request.
    pub fn call(&mut self, code: i32, ext: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        self.wire.call(code, ext, body)
    }
}

fn field(response: &Response, name: &str) -> Result<i64> {
    let text = response.ext.get(name).with_context(|| format!("no {name} in {response:?}"))?;
    Ok(text.parse()?)
}
