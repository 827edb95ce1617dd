//! Sends numbered messages, spread over all queues, and notes which were acknowledged by whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocketmq_remoting::header::message::SendMessageRequestV2;
use rocketmq_remoting::{Client, Command, RequestCode, ResponseCode};

use crate::route::{self, Queue};

/// The route is asked for this often; a new group is found by that.
const ROUTE_PERIOD: u32 = 100;
/// A message that no broker takes for so many tries ends the demo.
const TRIES_MAX: u32 = 100;

/// What has been acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Numbers of the messages that got `SEND_OK`.
    pub(crate) acknowledged: BTreeSet<u32>,
    /// How many of them each group took.
    pub(crate) by_broker: BTreeMap<String, u32>,
    /// Sends that failed and were tried again elsewhere.
    pub(crate) retries: u32,
}

pub(crate) struct Producer<'a> {
    pub(crate) client: &'a Client,
    pub(crate) name_servers: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) sent: Sent,
    queues: Vec<Queue>,
    next: usize,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(client: &'a Client, name_servers: &'a str, topic: &'a str) -> Self {
        Self { client, name_servers, topic, sent: Sent::default(), queues: Vec::new(), next: 0 }
    }

    /// How many groups the topic can be written on, as far as the producer knows.
    pub(crate) fn groups(&self) -> usize {
        self.queues.iter().map(|queue| &queue.broker_name).collect::<BTreeSet<_>>().len()
    }

    /// Sends one message, on another queue where one fails.
    pub(crate) async fn send(&mut self, number: u32) -> anyhow::Result<()> {
        if self.queues.is_empty() || number.is_multiple_of(ROUTE_PERIOD) {
            self.refresh().await;
        }
        for _ in 0..TRIES_MAX {
            if let Some(queue) = self.pick() {
                if self.try_send(&queue, number).await {
                    self.sent.acknowledged.insert(number);
                    *self.sent.by_broker.entry(queue.broker_name).or_default() += 1;
                    return Ok(());
                }
                self.sent.retries += 1;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.refresh().await;
        }
        anyhow::bail!("message {number} was refused {TRIES_MAX} times")
    }

    pub(crate) async fn refresh(&mut self) {
        match route::queues(self.client, self.name_servers, self.topic).await {
            Ok(queues) => self.queues = queues.writable,
            Err(error) => eprintln!("the route of {} is not to be had yet: {error}", self.topic),
        }
    }

    fn pick(&mut self) -> Option<Queue> {
        self.next += 1;
        (!self.queues.is_empty()).then(|| self.queues[self.next % self.queues.len()].clone())
    }

    async fn try_send(&self, queue: &Queue, number: u32) -> bool {
        let header = SendMessageRequestV2 {
            producer_group: "DemoProducer".into(),
            topic: self.topic.to_owned().into(),
            default_topic: Some("TBW102".into()),
            default_topic_queue_nums: Some(4),
            queue_id: queue.id,
            born_timestamp: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64),
            properties: Some(format!("KEYS\u{1}{number}\u{2}WAIT\u{1}true").into()),
            ..SendMessageRequestV2::default()
        };
        let request = Command::request(RequestCode::SEND_MESSAGE_V2).with_header(&header).with_body(number.to_string());
        let answer = self.client.invoke(&queue.address, request, Duration::from_secs(3)).await;
        answer.is_ok_and(|answer| answer.response_code() == ResponseCode::SUCCESS)
    }
}
