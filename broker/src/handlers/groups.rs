//! Consumer groups as settings: made, changed, deleted, listed.

use rocketmq_remoting::bodies::{SubscriptionGroup, SubscriptionGroupList};
use rocketmq_remoting::header::broker::{DeleteGroupRequest, GroupRequest};
use rocketmq_remoting::{Command, Header, ResponseCode, fastjson};

use super::{failed, heartbeat, json, require_master};
use crate::broker::Broker;
use crate::group_attributes;
use crate::refusal::Refusal;

/// `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP`.
pub(crate) fn update(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    require_master(broker)?;
    let group: SubscriptionGroup = fastjson::from_slice(&request.body.bytes())?;
    put_all(broker, vec![group])
}

/// `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST` (5.x): all of them, or none where one is not accepted.
pub(crate) fn update_list(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    require_master(broker)?;
    let list: SubscriptionGroupList = fastjson::from_slice(&request.body.bytes())?;
    put_all(broker, list.group_config_list)
}

/// What comes as attributes is how they change.
fn put_all(broker: &Broker, mut groups: Vec<SubscriptionGroup>) -> Result<Command, Refusal> {
    for group in &mut groups {
        heartbeat::check_group(&group.group_name)?;
        let known = broker.groups.get(&group.group_name);
        group.attributes = group_attributes::changed(known.as_ref().map(|known| &known.attributes), &group.attributes)
            .map_err(|remark| Refusal::new(ResponseCode::SYSTEM_ERROR, remark))?;
    }
    broker.groups.put(groups).map_err(failed)?;
    Ok(Command::ok())
}

/// `GET_ALL_SUBSCRIPTIONGROUP_CONFIG`.
pub(crate) fn all(broker: &Broker) -> Command {
    json(&broker.groups.to_wire())
}

/// `GET_SUBSCRIPTIONGROUP_CONFIG`, which tools of 5.x ask for.
pub(crate) fn get(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = GroupRequest::decode(&request.ext_fields)?;
    let Some(group) = broker.groups.get(&header.group) else {
        let remark = format!("No group in this broker. group: {}", header.group);
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    };
    Ok(json(&*group))
}

/// `DELETE_SUBSCRIPTIONGROUP`, its offsets too where asked for.
pub(crate) fn delete(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    require_master(broker)?;
    let header = DeleteGroupRequest::decode(&request.ext_fields)?;
    if !broker.groups.delete(&header.group_name).map_err(failed)? {
        tracing::warn!(group = %header.group_name, "delete subscription group: it is not there");
    }
    if header.remove_offset || header.clean_offset {
        broker.offsets.delete_group(&header.group_name);
        broker.resets.forget(&header.group_name);
    }
    broker.stats.forget_group(&header.group_name);
    Ok(Command::ok())
}
