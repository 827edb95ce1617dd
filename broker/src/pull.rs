//! `PULL_MESSAGE`: reading a queue, or waiting at its end (4.9's `PullMessageProcessor`).

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use rocketmq_remoting::bodies::{MessageModel, PERM_READ};
use rocketmq_remoting::header::message::{PullMessageRequest, PullMessageResponse, pull_flag};
use rocketmq_remoting::{Answer, Body, Command, Header, Peer, ResponseCode};
use rocketmq_store::{GetResult, GetStatus, Wanted};

use crate::broker::Broker;
use crate::config::{BrokerConfig, BrokerRole};
use crate::filter::{self, MessageFilter, TagFilter};
use crate::limits::Pass;
use crate::refusal::{FAQ, Refusal};

/// Messages whose properties a pull looks at where others wait for it.
const FILTERED_AT_ONCE: i64 = 128;

/// A pull after its checks.
struct Pull {
    group: ByteString,
    topic: ByteString,
    queue_id: i32,
    offset: i64,
    max_messages: usize,
    max_bytes: usize,
    filter: MessageFilter,
    /// Where a slow group is sent, if slaves may be read.
    slow_broker_id: i64,
    broker_id: i64,
}

/// Answers a pull, now or when a message comes.
pub(crate) fn pull(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Result<Answer, Refusal> {
    let header = PullMessageRequest::decode(&request.ext_fields)?;
    let pull = check(broker, peer, &header)?;
    if let Some(offset) = broker.resets.take(&pull.group, &pull.topic, pull.queue_id) {
        return Ok(Answer::Now(pull.sent_to(broker, offset)));
    }
    let commits = header.sys_flag & pull_flag::COMMIT_OFFSET != 0;
    if commits && header.commit_offset >= 0 && broker.config().broker_role != BrokerRole::Slave {
        broker.offsets.commit(&pull.group, &pull.topic, pull.queue_id, header.commit_offset);
    }
    if pull.filter_is_slow(broker) || broker.store.reads_disk(&pull.topic, pull.queue_id, pull.offset, pull.max_bytes) {
        let pass = broker.limits.pulls.enter()?;
        return Ok(Answer::later(read_cold(Arc::clone(broker), pull.detached(), pass)));
    }
    let answer = pull.run(broker);
    let waits = answer.response_code() == ResponseCode::PULL_NOT_FOUND && header.sys_flag & pull_flag::SUSPEND != 0;
    if !waits {
        return Ok(Answer::Now(answer));
    }
    let config = broker.config();
    let patience = if config.long_polling_enable {
        Duration::from_millis(header.suspend_timeout_millis.max(0) as u64)
    } else {
        config.short_polling_time
    };
    let pass = broker.limits.pulls.enter()?;
    let held = hold(Arc::clone(broker), pull.detached(), patience);
    Ok(Answer::later(async move {
        let _pass = pass;
        held.await
    }))
}

/// Runs a pull that waits for the disk, or looks at many messages, where that stops nobody else.
async fn read_cold(broker: Arc<Broker>, pull: Pull, pass: Pass) -> Command {
    let read = tokio::task::spawn_blocking(move || {
        let _pass = pass;
        let found = pull.read(&broker);
        found.touch();
        pull.answer(&broker, found)
    });
    read.await.unwrap_or_else(|panic| {
        tracing::error!("a pull failed: {panic}");
        Command::refusal(ResponseCode::SYSTEM_ERROR, "the pull failed, see the broker's log")
    })
}

/// Waits for a message or for `patience` to end, then answers for good. What wakes it looks at tags only: after
/// messages that the filter does not take, the pull goes on waiting behind them.
async fn hold(broker: Arc<Broker>, mut pull: Pull, patience: Duration) -> Command {
    let asked_from = pull.offset;
    let mut patience = std::pin::pin!(tokio::time::sleep(patience));
    loop {
        let mut place = broker.held_pulls.hold(&pull.topic, pull.queue_id, pull.offset, pull.filter.by_tags().clone());
        let is_behind = broker.store.max_offset(&pull.topic, pull.queue_id) > pull.offset;
        let is_over = tokio::select! {
            biased;
            () = place.woken() => false,
            () = &mut patience => true,
            // Where messages come faster than they are looked at, other connections want their turn.
            () = tokio::task::yield_now(), if is_behind => false,
        };
        drop(place);
        let mut found = pull.read(&broker);
        if found.status == GetStatus::NoMatchedMessage && found.next_begin_offset > pull.offset && !is_over {
            pull.offset = found.next_begin_offset;
            continue;
        }
        // Java's answer to a pull that has found nothing but messages it does not want.
        if found.status == GetStatus::OffsetOverflowOne && pull.offset > asked_from {
            found.status = GetStatus::NoMatchedMessage;
        }
        // While it was held its group may have been reset.
        return match broker.resets.take(&pull.group, &pull.topic, pull.queue_id) {
            Some(offset) => pull.sent_to(&broker, offset),
            None => pull.answer(&broker, found),
        };
    }
}

fn check(broker: &Broker, peer: &Peer, header: &PullMessageRequest) -> Result<Pull, Refusal> {
    let config = broker.config();
    if config.broker_permission & PERM_READ == 0 {
        let remark = format!("the broker[{}] pulling message is forbidden", config.broker_ip1);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let group = broker
        .groups
        .get_or_create(&header.consumer_group)
        .ok_or_else(|| Refusal::group_not_exist(&header.consumer_group))?;
    if !group.consume_enable {
        let remark = format!("subscription group no permission, {}", header.consumer_group);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let topic = broker.topics.get(&header.topic).ok_or_else(|| {
        tracing::debug!(peer = %peer.remote(), topic = %header.topic, "pull of an unknown topic");
        let remark = format!("topic[{}] not exist, apply first please! {FAQ}", header.topic);
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })?;
    if topic.perm & PERM_READ == 0 {
        let remark = format!("the topic[{}] pulling message is forbidden", header.topic);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    if header.queue_id < 0 || header.queue_id >= topic.read_queue_nums {
        let remark = format!(
            "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}] consumer:[{}]",
            header.queue_id,
            header.topic,
            topic.read_queue_nums,
            peer.remote()
        );
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    Ok(Pull {
        filter: filter(broker, header, group.consume_broadcast_enable)?,
        group: header.consumer_group.clone(),
        topic: header.topic.clone(),
        queue_id: header.queue_id,
        offset: header.queue_offset,
        max_messages: header.max_msg_nums.max(0) as usize,
        max_bytes: header.max_msg_bytes.map_or(usize::MAX, |bytes| bytes.max(0) as usize),
        slow_broker_id: group.which_broker_when_consume_slowly,
        broker_id: group.broker_id,
    })
}

/// What the consumer wants of the topic: the expression of the request itself, or the one that its
/// group's heartbeats brought.
fn filter(broker: &Broker, header: &PullMessageRequest, broadcast_enable: bool) -> Result<MessageFilter, Refusal> {
    let filter = if header.sys_flag & pull_flag::SUBSCRIPTION != 0 {
        filter_of_request(broker, header)?
    } else {
        filter_of_group(broker, header, broadcast_enable)?
    };
    let supports_retry = broker.config().filter_support_retry;
    Ok(if supports_retry { filter.supporting_retry(&header.topic) } else { filter })
}

/// The filter that comes with the request.
fn filter_of_request(broker: &Broker, header: &PullMessageRequest) -> Result<MessageFilter, Refusal> {
    let expression = header.subscription.as_deref().unwrap_or("");
    let refused = |reason: &str| {
        tracing::warn!(
            group = &*header.consumer_group,
            topic = &*header.topic,
            "a subscription does not parse: {reason}"
        );
        Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, "parse the consumer's subscription failed")
    };
    let Some(expression_type) = header.expression_type.as_deref().filter(|kind| !filter::is_tag_type(Some(kind)))
    else {
        return TagFilter::parse(expression).map(MessageFilter::tags).ok_or_else(|| refused("it names no tag"));
    };
    require_property_filter(broker, expression_type)?;
    let known = broker.filters.get(&header.topic, &header.consumer_group);
    if let Some((sql, _)) = known.filter(|(sql, _)| sql.text() == expression) {
        return Ok(MessageFilter::sql(sql));
    }
    let compiled = filter::compile(expression_type, expression).map_err(|error| refused(&error))?;
    Ok(MessageFilter::sql(Arc::new(compiled)))
}

/// The filter that the group's heartbeats have brought.
fn filter_of_group(
    broker: &Broker,
    header: &PullMessageRequest,
    broadcast_enable: bool,
) -> Result<MessageFilter, Refusal> {
    let Some(state) = broker.consumers.group(&header.consumer_group) else {
        let remark = format!("the consumer's group info not exist{FAQ}");
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark));
    };
    if !broadcast_enable && state.message_model == MessageModel::Broadcasting {
        let remark = format!("the consumer group[{}] can not consume by broadcast way", header.consumer_group);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let Some(subscription) = state.subscriptions.get(&*header.topic) else {
        let remark = format!("the consumer's subscription not exist{FAQ}");
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark));
    };
    if subscription.sub_version < header.sub_version {
        let remark = "the consumer's subscription not latest";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_LATEST, remark));
    }
    if filter::is_tag_type(Some(&subscription.expression_type)) {
        return Ok(MessageFilter::tags(TagFilter::of(subscription)));
    }
    let Some((sql, version)) = broker.filters.get(&header.topic, &header.consumer_group) else {
        let remark = "The broker's consumer filter data is not exist!Your expression may be wrong!";
        return Err(Refusal::new(ResponseCode::FILTER_DATA_NOT_EXIST, remark));
    };
    if version < header.sub_version {
        let remark = "the consumer's consumer filter data not latest";
        return Err(Refusal::new(ResponseCode::FILTER_DATA_NOT_LATEST, remark));
    }
    require_property_filter(broker, &subscription.expression_type)?;
    Ok(MessageFilter::sql(sql))
}

fn require_property_filter(broker: &Broker, expression_type: &str) -> Result<(), Refusal> {
    if broker.config().enable_property_filter {
        return Ok(());
    }
    Err(Refusal::no_property_filter(expression_type))
}

impl Pull {
    /// A copy that does not hold on to the connection's read buffer while it waits.
    fn detached(self) -> Self {
        let copy = |text: &ByteString| ByteString::from(text.to_string());
        Self { group: copy(&self.group), topic: copy(&self.topic), ..self }
    }

    /// Whether the filter may look at so many messages that others would notice.
    fn filter_is_slow(&self, broker: &Broker) -> bool {
        !self.filter.is_by_tags_only()
            && broker.store.max_offset(&self.topic, self.queue_id).saturating_sub(self.offset) > FILTERED_AT_ONCE
    }

    /// The answer of 5.x to the first pull after a reset: whatever client it is, it goes there.
    fn sent_to(&self, broker: &Broker, next_begin_offset: i64) -> Command {
        Command::response(ResponseCode::PULL_OFFSET_MOVED)
            .with_header(&PullMessageResponse {
                suggest_which_broker_id: self.suggestion(&broker.config(), false),
                next_begin_offset,
                min_offset: broker.store.min_offset(&self.topic, self.queue_id),
                max_offset: broker.store.max_offset(&self.topic, self.queue_id),
            })
            .with_remark(ByteString::from_static("OFFSET_RESET"))
    }

    fn run(&self, broker: &Broker) -> Command {
        self.answer(broker, self.read(broker))
    }

    fn read(&self, broker: &Broker) -> GetResult {
        let config = broker.config();
        broker.store.get_messages_where(
            &self.topic,
            self.queue_id,
            self.offset,
            self.max_messages.min(config.max_transfer_count_on_message_in_memory),
            self.max_bytes.min(config.max_transfer_bytes_on_message_in_memory),
            Wanted {
                entry: &mut |entry| self.filter.takes_entry(entry),
                message: &mut |stored| self.filter.takes_message(&broker.filters, stored),
            },
        )
    }

    fn answer(&self, broker: &Broker, found: GetResult) -> Command {
        let config = broker.config();
        let is_slave = config.broker_role == BrokerRole::Slave;
        let mut next_begin_offset = found.next_begin_offset;
        let corrects = !is_slave || config.offset_check_in_slave;
        let (code, remark) = match found.status {
            GetStatus::Found => (ResponseCode::SUCCESS, "FOUND"),
            GetStatus::NoMatchedMessage => (ResponseCode::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
            GetStatus::MessageWasRemoving => (ResponseCode::PULL_RETRY_IMMEDIATELY, "MESSAGE_WAS_REMOVING"),
            GetStatus::NoMatchedLogicQueue | GetStatus::NoMessageInQueue if self.offset != 0 => {
                (ResponseCode::PULL_OFFSET_MOVED, "NO_MESSAGE_IN_QUEUE")
            }
            // Java's store makes a queue when it looks for one, so it never says that there is none.
            GetStatus::NoMatchedLogicQueue | GetStatus::NoMessageInQueue => {
                (ResponseCode::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE")
            }
            GetStatus::OffsetFoundNull => (ResponseCode::PULL_NOT_FOUND, "OFFSET_FOUND_NULL"),
            GetStatus::OffsetOverflowOne => (ResponseCode::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
            GetStatus::OffsetOverflowBadly => (ResponseCode::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY"),
            GetStatus::OffsetTooSmall => (ResponseCode::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
        };
        // A slave may be behind: it sends nobody to another offset.
        let code = if code == ResponseCode::PULL_OFFSET_MOVED && !corrects {
            next_begin_offset = self.offset;
            ResponseCode::PULL_RETRY_IMMEDIATELY
        } else {
            code
        };
        let mut answer = Command::response(code)
            .with_header(&PullMessageResponse {
                suggest_which_broker_id: self.suggestion(&config, found.suggest_pulling_from_slave),
                next_begin_offset,
                min_offset: found.min_offset,
                max_offset: found.max_offset,
            })
            .with_remark(ByteString::from_static(remark));
        if code == ResponseCode::SUCCESS {
            broker.stats.get(
                &self.group,
                &self.topic,
                self.queue_id,
                u64::from(found.message_count),
                found.bytes as u64,
            );
            answer.body = Body::from(found.messages);
        }
        answer
    }

    /// The broker id that the next pull is suggested to go to.
    fn suggestion(&self, config: &BrokerConfig, reads_cold: bool) -> i64 {
        match (config.slave_read_enable, reads_cold) {
            (false, _) => 0,
            (true, true) => self.slow_broker_id,
            (true, false) => self.broker_id,
        }
    }
}
