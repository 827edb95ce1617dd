//! Reads every queue of the topic from its beginning, as long as messages are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rocketmq_remoting::header::message::{PullMessageRequest, PullMessageResponse, pull_flag};
use rocketmq_remoting::{Client, Command, Header, RequestCode, ResponseCode};
use rocketmq_store::decode_message;

use crate::route::{self, Queue};

/// Without a new message for this long, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers received, and how many messages came twice.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) numbers: BTreeSet<u32>,
    pub(crate) duplicates: u32,
}

/// Pulls until `wanted` different messages are there, or none has come for a while.
pub(crate) async fn receive(
    client: &Client,
    name_servers: &str,
    topic: &str,
    wanted: usize,
) -> anyhow::Result<Received> {
    let mut received = Received::default();
    let mut offsets: BTreeMap<Queue, i64> = BTreeMap::new();
    let mut last = Instant::now();
    while received.numbers.len() < wanted && last.elapsed() < PATIENCE {
        let before = received.numbers.len();
        // Before the first message the topic is not there.
        let queues = route::queues(client, name_servers, topic).await.map(|queues| queues.readable).unwrap_or_default();
        for queue in queues {
            let offset = offsets.entry(queue.clone()).or_insert(0);
            pull(client, topic, &queue, offset, &mut received).await?;
        }
        if received.numbers.len() > before {
            last = Instant::now();
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(received)
}

/// Reads a queue to its present end.
async fn pull(
    client: &Client,
    topic: &str,
    queue: &Queue,
    offset: &mut i64,
    received: &mut Received,
) -> anyhow::Result<()> {
    loop {
        let header = PullMessageRequest {
            consumer_group: "DemoConsumer".into(),
            topic: topic.to_owned().into(),
            queue_id: queue.id,
            queue_offset: *offset,
            max_msg_nums: 32,
            sys_flag: pull_flag::SUBSCRIPTION,
            subscription: Some("*".into()),
            ..PullMessageRequest::default()
        };
        let request = Command::request(RequestCode::PULL_MESSAGE).with_header(&header);
        // A broker that is not there now is asked again in the next round.
        let Ok(answer) = client.invoke(&queue.address, request, Duration::from_secs(3)).await else {
            return Ok(());
        };
        if answer.response_code() != ResponseCode::SUCCESS {
            return Ok(());
        }
        *offset = PullMessageResponse::decode(&answer.ext_fields)?.next_begin_offset;
        let body = answer.body.into_bytes();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let message = decode_message(rest).context("a pulled message does not decode")?;
            let number = std::str::from_utf8(message.body)?.parse()?;
            if !received.numbers.insert(number) {
                received.duplicates += 1;
            }
            rest = &rest[message.total_size as usize..];
        }
    }
}
