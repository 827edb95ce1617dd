//! Topics: where they are, what they hold; made, changed and deleted.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Subcommand};
use rocketmq_remoting::bodies::{
    ClusterInfo, GroupList, PERM_INHERIT, PERM_READ, PERM_WRITE, QueueKey, TopicOffset, TopicStats,
};
use rocketmq_remoting::header::broker::{CreateTopicRequest, TopicRequest};
use rocketmq_remoting::header::name_server::{GetKvConfigResponse, KvConfigRequest, TopicInNamesrvRequest};
use rocketmq_remoting::{Command as Request, Header as _, RequestCode, fastjson};

use crate::admin::{Admin, Target, any_address, body};
use crate::{layout, name_server};

/// Topics of this prefix hold messages to be redelivered to a group.
pub(crate) const RETRY_PREFIX: &str = "%RETRY%";
/// Topics of this prefix hold messages that a group could not consume.
pub(crate) const DLQ_PREFIX: &str = "%DLQ%";
/// The namespace of the order of topics: `brokerName:queues;…` by topic.
const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
pub(crate) enum Command {
    /// List the topics
    TopicList {
        /// Print the cluster and the consumer groups of each
        #[arg(short = 'c', long = "clusterModel")]
        cluster_model: bool,
    },
    /// Print where a topic lives
    TopicRoute {
        /// The topic
        #[arg(short = 't', long)]
        topic: String,
    },
    /// Print the offsets of a topic's queues
    TopicStatus {
        /// The topic
        #[arg(short = 't', long)]
        topic: String,
    },
    /// Make or change a topic
    UpdateTopic(UpdateTopic),
    /// Delete a topic from the brokers of a cluster and from the name servers
    DeleteTopic {
        /// The topic
        #[arg(short = 't', long)]
        topic: String,
        /// The cluster
        #[arg(short = 'c', long = "clusterName", value_name = "CLUSTER")]
        cluster_name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpdateTopic {
    #[command(flatten)]
    target: Target,
    /// The topic
    #[arg(short = 't', long)]
    topic: String,
    /// Queues that consumers see
    #[arg(short = 'r', long = "readQueueNums", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    read_queue_nums: i32,
    /// Queues that producers see
    #[arg(short = 'w', long = "writeQueueNums", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    write_queue_nums: i32,
    /// 2 for writing, 4 for reading, 6 for both
    #[arg(short = 'p', long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(0..=7))]
    perm: i32,
    /// Whether consumers go by the order that is kept in the name servers
    #[arg(short = 'o', long, default_value_t = false, action = ArgAction::Set)]
    order: bool,
    /// Whether it is a topic of a unit
    #[arg(short = 'u', long, default_value_t = false, action = ArgAction::Set)]
    unit: bool,
    /// Whether units subscribe to it
    #[arg(short = 's', long = "hasUnitSub", default_value_t = false, action = ArgAction::Set)]
    has_unit_sub: bool,
}

pub(crate) async fn run(admin: &Admin, command: Command) -> anyhow::Result<()> {
    match command {
        Command::TopicList { cluster_model: false } => {
            for topic in admin.topics().await? {
                outln!("{topic}");
            }
            Ok(())
        }
        Command::TopicList { cluster_model: true } => list_by_cluster(admin).await,
        Command::TopicRoute { topic } => {
            outln!("{}", fastjson::to_string_pretty(&admin.route(&topic).await?));
            Ok(())
        }
        Command::TopicStatus { topic } => status(admin, &topic).await,
        Command::UpdateTopic(update) => update_topic(admin, &update).await,
        Command::DeleteTopic { topic, cluster_name } => delete(admin, &cluster_name, &topic).await,
    }
}

async fn list_by_cluster(admin: &Admin) -> anyhow::Result<()> {
    let info = admin.cluster_info().await?;
    outln!("{:<20}  {:<64}  {:<64}", "#Cluster Name", "#Topic", "#Consumer Group");
    for topic in admin.topics().await? {
        if topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX) {
            continue;
        }
        let (cluster, mut groups) = match cluster_and_groups(admin, &info, &topic).await {
            Ok(found) => found,
            Err(error) => {
                eprintln!("mqadmin: {topic}: {error:#}");
                (String::new(), Vec::new())
            }
        };
        if groups.is_empty() {
            groups.push(String::new());
        }
        for group in groups {
            outln!("{:<20}  {:<64}  {:<64}", layout::front(&cluster, 20), topic, layout::front(&group, 64));
        }
    }
    Ok(())
}

/// The cluster that a topic is in, and the groups that consume it.
async fn cluster_and_groups(admin: &Admin, info: &ClusterInfo, topic: &str) -> anyhow::Result<(String, Vec<String>)> {
    let route = admin.route(topic).await?;
    let broker = route.broker_datas.first().context("its route names no broker")?;
    let cluster = info.cluster_addr_table.iter().find(|(_, names)| names.contains(&broker.broker_name));
    let address = any_address(broker).context("its broker has no address")?;
    let header = TopicRequest { topic: topic.into() };
    let request = Request::request(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO).with_header(&header);
    let groups: GroupList = body(&admin.ask(address, request).await?)?;
    Ok((cluster.map(|(name, _)| name.clone()).unwrap_or_default(), groups.group_list))
}

async fn status(admin: &Admin, topic: &str) -> anyhow::Result<()> {
    let route = admin.route(topic).await?;
    let mut offsets: BTreeMap<QueueKey, TopicOffset> = BTreeMap::new();
    for broker in &route.broker_datas {
        let Some(address) = any_address(broker) else { continue };
        let request =
            Request::request(RequestCode::GET_TOPIC_STATS_INFO).with_header(&TopicRequest { topic: topic.into() });
        offsets.extend(body::<TopicStats>(&admin.ask(address, request).await?)?.offset_table);
    }
    if offsets.is_empty() {
        bail!("no broker tells of a queue of topic {topic}");
    }
    outln!("{:<32}  {:<4}  {:<20}  {:<20}    #Last Updated", "#Broker Name", "#QID", "#Min Offset", "#Max Offset");
    for (QueueKey(queue), offset) in offsets {
        outln!("{}", status_row(&queue.broker_name, queue.queue_id, &offset));
    }
    Ok(())
}

fn status_row(broker: &str, queue: i32, offset: &TopicOffset) -> String {
    format!(
        "{:<32}  {queue:<4}  {:<20}  {:<20}    {}",
        layout::front(broker, 32),
        offset.min_offset,
        offset.max_offset,
        layout::time_millis(offset.last_update_timestamp)
    )
}

async fn update_topic(admin: &Admin, update: &UpdateTopic) -> anyhow::Result<()> {
    let header = CreateTopicRequest {
        topic: update.topic.as_str().into(),
        default_topic: "TBW102".into(),
        read_queue_nums: update.read_queue_nums,
        write_queue_nums: update.write_queue_nums,
        perm: update.perm,
        topic_filter_type: "SINGLE_TAG".into(),
        topic_sys_flag: Some(sys_flag(update)),
        order: update.order,
    };
    let request = Request::request(RequestCode::UPDATE_AND_CREATE_TOPIC).with_header(&header);
    for address in admin.masters(&update.target).await? {
        admin.ask(&address, request.clone()).await?;
        outln!("create topic to {address} success.");
    }
    if update.order {
        set_order(admin, update).await?;
    }
    outln!("{}", describe(update));
    Ok(())
}

fn sys_flag(update: &UpdateTopic) -> i32 {
    i32::from(update.unit) | i32::from(update.has_unit_sub) << 1
}

/// The way Java's `TopicConfig` shows itself.
fn describe(update: &UpdateTopic) -> String {
    let letter = |bit, letter| if update.perm & bit == 0 { '-' } else { letter };
    let perm: String =
        [letter(PERM_READ, 'R'), letter(PERM_WRITE, 'W'), letter(PERM_INHERIT, 'X')].into_iter().collect();
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={perm}, topicFilterType=SINGLE_TAG, topicSysFlag={}, order={}]",
        update.topic,
        update.read_queue_nums,
        update.write_queue_nums,
        sys_flag(update),
        update.order
    )
}

/// Tells the name servers the topic's order: for a cluster the whole of it, for one broker its part.
async fn set_order(admin: &Admin, update: &UpdateTopic) -> anyhow::Result<()> {
    let topic = update.topic.as_str();
    let (of, order) = if let Some(cluster) = &update.target.cluster_name {
        let groups = admin.groups_of(cluster).await?;
        let parts: Vec<String> =
            groups.iter().map(|group| format!("{}:{}", group.broker_name, update.write_queue_nums)).collect();
        ("cluster", parts.join(";"))
    } else {
        let address = update.target.broker_addr.as_deref().unwrap_or_default();
        let info = admin.cluster_info().await?;
        let group = info
            .broker_addr_table
            .values()
            .find(|group| group.broker_addrs.values().any(|known| known == address))
            .with_context(|| format!("the name server knows no broker at {address}"))?;
        let header = KvConfigRequest { namespace: ORDER_TOPIC_CONFIG.into(), key: topic.into() };
        let request = Request::request(RequestCode::GET_KV_CONFIG).with_header(&header);
        // Nothing there yet is a refusal; the order begins with this broker then.
        let before = match admin.ask_name_server(request).await {
            Ok(answer) => GetKvConfigResponse::decode(&answer.ext_fields)?.value.unwrap_or_default().to_string(),
            Err(error) if error.downcast_ref::<crate::admin::Refused>().is_some() => String::new(),
            Err(error) => return Err(error),
        };
        ("broker", merge_order(&before, &group.broker_name, update.write_queue_nums))
    };
    name_server::put_kv_config(admin, ORDER_TOPIC_CONFIG, topic, &order).await?;
    outln!("set {of} orderConf. isOrder=true, orderConf=[{order}]");
    Ok(())
}

/// `before` with the queues of one broker replaced or added.
fn merge_order(before: &str, broker: &str, queues: i32) -> String {
    let others = before.split(';').filter(|part| !part.is_empty() && part.split(':').next() != Some(broker));
    let mut parts: Vec<String> = others.map(str::to_owned).collect();
    parts.push(format!("{broker}:{queues}"));
    parts.join(";")
}

/// Deletes a topic from a cluster's masters, then from all name servers.
pub(crate) async fn delete(admin: &Admin, cluster: &str, topic: &str) -> anyhow::Result<()> {
    let target = Target { broker_addr: None, cluster_name: Some(cluster.to_owned()) };
    let in_broker =
        Request::request(RequestCode::DELETE_TOPIC_IN_BROKER).with_header(&TopicRequest { topic: topic.into() });
    for address in admin.masters(&target).await? {
        admin.ask(&address, in_broker.clone()).await?;
    }
    outln!("delete topic [{topic}] from cluster [{cluster}] success.");
    let header = TopicInNamesrvRequest { topic: topic.into(), cluster_name: Some(cluster.into()) };
    let in_namesrv = Request::request(RequestCode::DELETE_TOPIC_IN_NAMESRV).with_header(&header);
    for address in admin.name_servers()? {
        admin.ask(address, in_namesrv.clone()).await?;
    }
    outln!("delete topic [{topic}] from NameServer success.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_shown_as_java_shows_it() {
        let mut update = UpdateTopic {
            target: Target { broker_addr: None, cluster_name: None },
            topic: "GoldenTopic".into(),
            read_queue_nums: 4,
            write_queue_nums: 4,
            perm: 6,
            order: false,
            unit: false,
            has_unit_sub: false,
        };
        assert_eq!(
            describe(&update),
            "TopicConfig [topicName=GoldenTopic, readQueueNums=4, writeQueueNums=4, perm=RW-, topicFilterType=SINGLE_TAG, topicSysFlag=0, order=false]"
        );
        (update.perm, update.unit, update.has_unit_sub) = (5, true, true);
        assert!(describe(&update).contains("perm=R-X, topicFilterType=SINGLE_TAG, topicSysFlag=3"));
    }

    #[test]
    fn rows_of_a_status_are_those_of_4_9() {
        let offset = TopicOffset { last_update_timestamp: 0, max_offset: 4, min_offset: 1 };
        assert_eq!(
            status_row("broker-a", 3, &offset),
            "broker-a                          3     1                     4                       "
        );
    }

    #[test]
    fn the_order_of_one_broker_is_replaced() {
        assert_eq!(merge_order("", "a", 4), "a:4");
        assert_eq!(merge_order("a:8;ab:2", "a", 4), "ab:2;a:4");
    }
}
