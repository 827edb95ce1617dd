//! Makes the topic that a load uses.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rocketmq_remoting::command::Command;
use rocketmq_remoting::header::broker::CreateTopicRequest;
use rocketmq_remoting::{Client, RequestCode, ResponseCode};

/// Digits at the end of a name of many.
pub const DIGITS: usize = 5;

/// One of many topics.
pub fn numbered(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:0DIGITS$}")
}

/// Creates a topic on a broker, or gives it that many queues.
///
/// # Errors
/// The broker cannot be reached or refuses.
pub fn create(broker: &str, topic: &str, queues: u32) -> Result<()> {
    let header = CreateTopicRequest {
        topic: topic.into(),
        default_topic: "TBW102".into(),
        read_queue_nums: queues as i32,
        write_queue_nums: queues as i32,
        perm: 6,
        topic_filter_type: "SINGLE_TAG".into(),
        topic_sys_flag: Some(0),
        order: false,
    };
    let command = Command::request(RequestCode::UPDATE_AND_CREATE_TOPIC).with_header(&header);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime
        .block_on(async { Client::default().invoke(broker, command, Duration::from_secs(10)).await })
        .with_context(|| format!("creating topic {topic}"))?;
    let code = answer.response_code();
    ensure!(code == ResponseCode::SUCCESS, "creating topic {topic}: code {} {}", code.0, answer.remark());
    Ok(())
}
