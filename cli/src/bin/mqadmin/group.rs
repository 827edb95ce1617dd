//! Consumer groups: how far they are; made, changed and deleted.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::{ArgAction, Subcommand};
use rocketmq_remoting::bodies::{
    ConsumeStats, ConsumeType, ConsumerConnection, MessageModel, OffsetWrapper, QueueKey, SubscriptionGroup,
};
use rocketmq_remoting::header::broker::{ConsumeStatsRequest, ConsumerGroupRequest, DeleteGroupRequest};
use rocketmq_remoting::{Command as Request, RequestCode, fastjson};

use crate::admin::{Admin, Target, any_address, body};
use crate::{layout, topic};

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
pub(crate) enum Command {
    /// Make or change a consumer group
    UpdateSubGroup(UpdateSubGroup),
    /// Delete a consumer group
    DeleteSubGroup {
        #[command(flatten)]
        target: Target,
        /// The group
        #[arg(short = 'g', long = "groupName", value_name = "GROUP")]
        group_name: String,
        /// Whether its offsets go too
        #[arg(short = 'r', long = "removeOffset", default_value_t = false, action = ArgAction::Set)]
        remove_offset: bool,
    },
    /// Print how far consumer groups are behind
    ConsumerProgress {
        /// One group, queue by queue; all groups without it
        #[arg(short = 'g', long = "groupName", value_name = "GROUP")]
        group_name: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // RocketMQ's own switches
pub(crate) struct UpdateSubGroup {
    #[command(flatten)]
    target: Target,
    /// The group
    #[arg(short = 'g', long = "groupName", value_name = "GROUP")]
    group_name: String,
    /// Whether it may consume
    #[arg(short = 's', long = "consumeEnable", default_value_t = true, action = ArgAction::Set)]
    consume_enable: bool,
    /// Whether it starts with the oldest message
    #[arg(short = 'm', long = "consumeFromMinEnable", default_value_t = false, action = ArgAction::Set)]
    consume_from_min_enable: bool,
    /// Whether broadcasting consumers are welcome
    #[arg(short = 'd', long = "consumeBroadcastEnable", default_value_t = false, action = ArgAction::Set)]
    consume_broadcast_enable: bool,
    /// Queues of its retry topic
    #[arg(short = 'q', long = "retryQueueNums", default_value_t = 1)]
    retry_queue_nums: i32,
    /// Redeliveries before a message is given up
    #[arg(short = 'r', long = "retryMaxTimes", default_value_t = 16)]
    retry_max_times: i32,
    /// The broker id that it pulls from
    #[arg(short = 'i', long = "brokerId", default_value_t = 0)]
    broker_id: i64,
    /// The broker id that it pulls from when it is slow
    #[arg(short = 'w', long = "whichBrokerWhenConsumeSlowly", default_value_t = 1)]
    which_broker_when_consume_slowly: i64,
    /// Whether its members hear of each other's coming and going
    #[arg(short = 'a', long = "notifyConsumerIdsChanged", default_value_t = true, action = ArgAction::Set)]
    notify_consumer_ids_changed: bool,
}

impl UpdateSubGroup {
    fn group(&self) -> SubscriptionGroup {
        SubscriptionGroup {
            broker_id: self.broker_id,
            consume_broadcast_enable: self.consume_broadcast_enable,
            consume_enable: self.consume_enable,
            consume_from_min_enable: self.consume_from_min_enable,
            group_name: self.group_name.clone(),
            notify_consumer_ids_changed_enable: self.notify_consumer_ids_changed,
            retry_max_times: self.retry_max_times,
            retry_queue_nums: self.retry_queue_nums,
            which_broker_when_consume_slowly: self.which_broker_when_consume_slowly,
            ..SubscriptionGroup::default()
        }
    }
}

pub(crate) async fn run(admin: &Admin, command: Command) -> anyhow::Result<()> {
    match command {
        Command::UpdateSubGroup(update) => {
            let group = update.group();
            let request = Request::request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP)
                .with_body(fastjson::to_string(&group));
            for address in admin.masters(&update.target).await? {
                admin.ask(&address, request.clone()).await?;
                outln!("create subscription group to {address} success.");
            }
            outln!("{}", describe(&group));
            Ok(())
        }
        Command::DeleteSubGroup { target, group_name, remove_offset } => {
            delete(admin, &target, &group_name, remove_offset).await
        }
        Command::ConsumerProgress { group_name: Some(group) } => progress_of(admin, &group).await,
        Command::ConsumerProgress { group_name: None } => progress_of_all(admin).await,
    }
}

/// The way Java's `SubscriptionGroupConfig` shows itself.
fn describe(group: &SubscriptionGroup) -> String {
    format!(
        "SubscriptionGroupConfig [groupName={}, consumeEnable={}, consumeFromMinEnable={}, consumeBroadcastEnable={}, retryQueueNums={}, retryMaxTimes={}, brokerId={}, whichBrokerWhenConsumeSlowly={}, notifyConsumerIdsChangedEnable={}]",
        group.group_name,
        group.consume_enable,
        group.consume_from_min_enable,
        group.consume_broadcast_enable,
        group.retry_queue_nums,
        group.retry_max_times,
        group.broker_id,
        group.which_broker_when_consume_slowly,
        group.notify_consumer_ids_changed_enable
    )
}

async fn delete(admin: &Admin, target: &Target, group: &str, remove_offset: bool) -> anyhow::Result<()> {
    let header = DeleteGroupRequest { group_name: group.into(), remove_offset, clean_offset: remove_offset };
    let request = Request::request(RequestCode::DELETE_SUBSCRIPTIONGROUP).with_header(&header);
    for address in admin.masters(target).await? {
        admin.ask(&address, request.clone()).await?;
        let place = target.cluster_name.as_ref().map_or_else(String::new, |cluster| format!(" in cluster [{cluster}]"));
        outln!("delete subscription group [{group}] from broker [{address}]{place} success.");
    }
    // Its own topics go with it, where the whole cluster is meant.
    if let Some(cluster) = &target.cluster_name {
        for prefix in [topic::RETRY_PREFIX, topic::DLQ_PREFIX] {
            topic::delete(admin, cluster, &format!("{prefix}{group}")).await?;
        }
    }
    Ok(())
}

/// How far a group is, over all brokers that it consumes from.
async fn consume_stats(admin: &Admin, group: &str) -> anyhow::Result<ConsumeStats> {
    let route = admin.route(&format!("{}{group}", topic::RETRY_PREFIX)).await?;
    let header = ConsumeStatsRequest { consumer_group: group.into(), topic: None };
    let mut whole = ConsumeStats::default();
    for address in route.broker_datas.iter().filter_map(any_address) {
        let request = Request::request(RequestCode::GET_CONSUME_STATS).with_header(&header);
        let part: ConsumeStats = body(&admin.ask(address, request).await?)?;
        whole.consume_tps += part.consume_tps;
        whole.offset_table.extend(part.offset_table);
    }
    if whole.offset_table.is_empty() {
        bail!(
            "CODE: 206  DESC: Not found the consumer group consume stats, because return offset table is empty, maybe the consumer not consume any message"
        );
    }
    Ok(whole)
}

async fn progress_of(admin: &Admin, group: &str) -> anyhow::Result<()> {
    let stats = consume_stats(admin, group).await?;
    outln!(
        "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {:<20}  #LastTime",
        "#Topic",
        "#Broker Name",
        "#QID",
        "#Broker Offset",
        "#Consumer Offset",
        "#Diff"
    );
    let mut queues: Vec<_> = stats.offset_table.iter().collect();
    queues.sort_unstable_by_key(|(QueueKey(queue), _)| (&queue.topic, &queue.broker_name, queue.queue_id));
    for (queue, offset) in queues {
        outln!("{}", progress_row(queue, offset));
    }
    outln!("\nConsume TPS: {:.2}", stats.consume_tps);
    outln!("Diff Total: {}", total_diff(&stats.offset_table));
    Ok(())
}

fn progress_row(QueueKey(queue): &QueueKey, offset: &OffsetWrapper) -> String {
    format!(
        "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {:<20}  {}",
        layout::front(&queue.topic, 64),
        layout::front(&queue.broker_name, 32),
        queue.queue_id,
        offset.broker_offset,
        offset.consumer_offset,
        diff(offset),
        layout::time_seconds(offset.last_timestamp)
    )
}

fn diff(offset: &OffsetWrapper) -> i64 {
    offset.broker_offset.saturating_sub(offset.consumer_offset)
}

fn total_diff(offsets: &BTreeMap<QueueKey, OffsetWrapper>) -> i64 {
    offsets.values().fold(0, |sum, offset| sum.saturating_add(diff(offset)))
}

/// One line of the list of all groups.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    group: String,
    members: usize,
    version: i32,
    consume_type: &'static str,
    message_model: &'static str,
    tps: f64,
    diff: i64,
}

async fn progress_of_all(admin: &Admin) -> anyhow::Result<()> {
    let mut summaries = Vec::new();
    for name in admin.topics().await? {
        if let Some(group) = name.strip_prefix(topic::RETRY_PREFIX) {
            summaries.push(summary(admin, group).await);
        }
    }
    outln!(
        "{:<64}  {:<6}  {:<24} {:<5}  {:<14}  {:<7}  #Diff Total",
        "#Group",
        "#Count",
        "#Version",
        "#Type",
        "#Model",
        "#TPS"
    );
    summaries.sort_by(|one, other| other.diff.cmp(&one.diff).then_with(|| one.group.cmp(&other.group)));
    for summary in summaries {
        outln!("{}", summary_row(&summary));
    }
    Ok(())
}

/// What can be learnt of a group: one that nobody consumes for is listed all the same.
async fn summary(admin: &Admin, group: &str) -> Summary {
    let mut summary = Summary { group: group.to_owned(), ..Summary::default() };
    if let Ok(stats) = consume_stats(admin, group).await {
        summary.tps = stats.consume_tps;
        summary.diff = total_diff(&stats.offset_table);
    }
    if let Ok(connection) = connection(admin, group).await {
        summary.members = connection.connection_set.len();
        summary.version = connection.connection_set.iter().map(|member| member.version).min().unwrap_or(0);
        summary.consume_type = match connection.consume_type {
            ConsumeType::Actively => "PULL",
            ConsumeType::Passively => "PUSH",
            ConsumeType::Pop => "POP",
        };
        summary.message_model = match connection.message_model {
            MessageModel::Broadcasting => "BROADCASTING",
            MessageModel::Clustering => "CLUSTERING",
        };
    }
    summary
}

async fn connection(admin: &Admin, group: &str) -> anyhow::Result<ConsumerConnection> {
    let route = admin.route(&format!("{}{group}", topic::RETRY_PREFIX)).await?;
    let Some(address) = route.broker_datas.iter().find_map(any_address) else {
        bail!("group {group} has no broker");
    };
    let header = ConsumerGroupRequest { consumer_group: group.into() };
    let request = Request::request(RequestCode::GET_CONSUMER_CONNECTION_LIST).with_header(&header);
    body(&admin.ask(address, request).await?)
}

fn summary_row(summary: &Summary) -> String {
    let version = if summary.members == 0 { "OFFLINE".to_owned() } else { layout::version_name(summary.version) };
    format!(
        "{:<64}  {:<6}  {version:<24} {:<5}  {:<14}  {:<7}  {}",
        layout::front(&summary.group, 64),
        summary.members,
        summary.consume_type,
        summary.message_model,
        summary.tps as i64,
        summary.diff
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocketmq_remoting::bodies::MessageQueue;

    #[test]
    fn rows_of_one_group_are_those_of_4_9_7() {
        let queue = MessageQueue {
            broker_name: "broker-b".into(),
            queue_id: 0,
            topic: "%RETRY%please_rename_unique_group_name_4".into(),
        };
        let offset = OffsetWrapper { broker_offset: 125, consumer_offset: 120, ..OffsetWrapper::default() };
        assert_eq!(
            progress_row(&QueueKey(queue.clone()), &offset),
            "%RETRY%please_rename_unique_group_name_4                          broker-b                          0     125                   120                   5                     N/A"
        );
        assert_eq!(total_diff(&BTreeMap::from([(QueueKey(queue), offset)])), 5);
    }

    #[test]
    fn rows_of_all_groups_are_those_of_4_9_7() {
        let online = Summary {
            group: "please_rename_unique_group_name_4".into(),
            members: 1,
            version: 353,
            consume_type: "PUSH",
            message_model: "CLUSTERING",
            tps: 100.4,
            diff: 0,
        };
        assert_eq!(
            summary_row(&online),
            "please_rename_unique_group_name_4                                 1       V4_7_0                   PUSH   CLUSTERING      100      0"
        );
        let offline = Summary { group: "go_c_GoSmoke1795388994556263615".into(), ..Summary::default() };
        assert_eq!(
            summary_row(&offline),
            "go_c_GoSmoke1795388994556263615                                   0       OFFLINE                                         0        0"
        );
    }

    #[test]
    fn a_group_is_shown_as_java_shows_it() {
        let group = SubscriptionGroup { group_name: "golden_group".into(), ..SubscriptionGroup::default() };
        assert!(describe(&group).starts_with(
            "SubscriptionGroupConfig [groupName=golden_group, consumeEnable=true, consumeFromMinEnable=true, "
        ));
    }
}
