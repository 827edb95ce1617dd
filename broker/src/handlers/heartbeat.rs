//! `HEART_BEAT` and `UNREGISTER_CLIENT`: clients come and go (4.9's `ClientManageProcessor`).

use std::sync::Arc;

use rocketmq_remoting::bodies::{ConsumerData, Heartbeat, PERM_READ, PERM_WRITE, SubscriptionGroup, TopicConfig};
use rocketmq_remoting::header::broker::UnregisterClientRequest;
use rocketmq_remoting::{Command, Header, Peer, ResponseCode, fastjson};

use crate::broker::Broker;
use crate::client_channel::ClientChannel;
use crate::clock;
use crate::config::BrokerRole;
use crate::refusal::Refusal;
use crate::subscription_groups::{self, NAME_MAX};
use crate::topics;

/// Notes the groups that a client produces and consumes in.
///
/// Names that Java's clients refuse are no reason to refuse the heartbeat of another one. As in 4.9 they are registered; a group
/// that cannot be kept under its name has no settings and no retry topic, and its pulls are refused. Those without a name, or
/// with one beyond all measure, are passed over, as 5.x does with all of them.
pub(crate) fn heartbeat(broker: &Broker, peer: &Arc<Peer>, request: &Command) -> Result<Command, Refusal> {
    let heartbeat: Heartbeat = fastjson::from_slice(&request.body.bytes())?;
    let now = clock::now_millis();
    let channel = || ClientChannel::new(peer, &heartbeat.client_id, request, now);
    for data in heartbeat.consumer_data_set.into_iter().filter(|data| is_registrable(peer, &data.group_name)) {
        prepare_group(broker, &data);
        let group = data.group_name.clone();
        // First: a pull that meets the new subscription finds its filter.
        broker.filters.register(&group, &data.subscription_data_set, now);
        if broker.consumers.register(data, channel(), now) {
            notify(broker, &group);
        }
        bury_filters(broker, &group);
    }
    for data in heartbeat.producer_data_set.iter().filter(|data| is_registrable(peer, &data.group_name)) {
        broker.producers.register(&data.group_name, channel(), now);
    }
    Ok(Command::ok())
}

/// Forgets a client in one producer and one consumer group.
pub(crate) fn unregister(broker: &Broker, peer: &Peer, request: &Command) -> Result<Command, Refusal> {
    let header = UnregisterClientRequest::decode(&request.ext_fields)?;
    if let Some(group) = &header.producer_group {
        broker.producers.unregister(group, peer.id());
    }
    if let Some(group) = &header.consumer_group
        && broker.consumers.unregister(group, peer.id())
    {
        member_gone(broker, group);
    }
    Ok(Command::ok())
}

/// A connection has ended: its clients are gone, and the other members of their groups hear of it.
pub(crate) fn disconnected(broker: &Broker, peer: &Peer) {
    broker.producers.disconnected(peer.id());
    for group in broker.consumers.disconnected(peer.id()) {
        member_gone(broker, &group);
    }
}

fn member_gone(broker: &Broker, group: &str) {
    bury_filters(broker, group);
    notify(broker, group);
}

/// The filters of a group without members are dead: its last one has left, or was gone before its heartbeat was read.
fn bury_filters(broker: &Broker, group: &str) {
    if broker.consumers.group(group).is_none() {
        broker.filters.unregister(group, clock::now_millis());
    }
}

/// Each member is kept under its group's name.
fn is_registrable(peer: &Peer, group: &str) -> bool {
    let is_registrable = !group.trim().is_empty() && group.len() <= NAME_MAX;
    if !is_registrable {
        let bytes = group.len();
        tracing::warn!(peer = %peer.remote(), bytes, "a group of a heartbeat is passed over: its name is blank or too long");
    }
    is_registrable
}

/// Refuses names under which nothing can be kept.
pub(super) fn check_kept(group: &str) -> Result<(), Refusal> {
    if subscription_groups::is_keepable(group) {
        return Ok(());
    }
    check_group(group)?;
    let remark = format!("The specified group: {group}, contains illegal characters");
    Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
}

/// Refuses names for new groups in the words of 5.x (`TopicValidator.validateGroup`); 4.9 takes any name.
pub(super) fn check_group(group: &str) -> Result<(), Refusal> {
    if group.trim().is_empty() {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "The specified group is blank."));
    }
    let refuse =
        |reason: &str| Err(Refusal::new(ResponseCode::SYSTEM_ERROR, format!("The specified group: {group}, {reason}")));
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'-' | b'_');
    if !group.bytes().all(legal) {
        return refuse("contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$");
    }
    if group.len() > NAME_MAX {
        return refuse("is longer than group max length: 255");
    }
    Ok(())
}

/// Makes the group and its retry topic where they are not there and may be made.
fn prepare_group(broker: &Broker, data: &ConsumerData) {
    if broker.config().broker_role == BrokerRole::Slave {
        // Both come from the master; made here, they would be gone with the next copy.
        return;
    }
    let Some(group) = broker.groups.get_or_create(&data.group_name) else { return };
    let retry = topics::retry_topic(&data.group_name);
    if retry.len() <= topics::NAME_MAX && group.retry_queue_nums > 0 {
        let sys_flag = if data.unit_mode { topics::FLAG_UNIT_SUB } else { 0 };
        let config = TopicConfig::new(retry, group.retry_queue_nums, PERM_READ | PERM_WRITE);
        broker.topics.add_unwritten(TopicConfig { topic_sys_flag: sys_flag, ..config });
    }
}

/// Tells the members of a group to rebalance, where broker and group allow it.
fn notify(broker: &Broker, group: &str) {
    let group_allows = |config: Arc<SubscriptionGroup>| config.notify_consumer_ids_changed_enable;
    if broker.config().notify_consumer_ids_changed_enable && broker.groups.get(group).is_none_or(group_allows) {
        broker.consumers.notify(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_break_keys_are_refused() {
        assert!(check_group("%RETRY%a_b-1|").is_ok());
        for name in ["", " ", "a@b", "a/b", "ü", &"a".repeat(256)] {
            assert!(check_group(name).is_err(), "{name:?}");
            assert_eq!(check_kept(name).is_err(), name != "ü", "{name:?}");
        }
    }
}
