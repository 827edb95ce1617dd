//! Clients: their heartbeats, subscriptions, connections and queue locks.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::MessageQueue;

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        /// In any case, as fastjson reads it; an unknown name is the first one.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $(if text.eq_ignore_ascii_case($text) {
                    return Ok(Self::$variant);
                })+
                Ok(Self::default())
            }
        }
    };
}

text_enum! {
    /// Who drives consumption.
    ConsumeType {
        /// A push consumer.
        #[default]
        Passively = "CONSUME_PASSIVELY",
        /// A pull consumer.
        Actively = "CONSUME_ACTIVELY",
        /// 5.x: a pop consumer.
        Pop = "CONSUME_POP",
    }
}

text_enum! {
    /// Who of a group gets a message.
    MessageModel {
        /// One member.
        #[default]
        Clustering = "CLUSTERING",
        /// Every member.
        Broadcasting = "BROADCASTING",
    }
}

text_enum! {
    /// Where a group begins that has no offset yet.
    ConsumeFromWhere {
        /// At the end.
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// At the beginning.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At a time.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
        /// Deprecated, kept for old clients.
        LastAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Deprecated, kept for old clients.
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Deprecated, kept for old clients.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
    }
}

/// Body of `HEART_BEAT` (`HeartbeatData` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Heartbeat {
    /// The client's name.
    #[serde(rename = "clientID", alias = "clientId")]
    pub client_id: String,
    /// Its consumers.
    pub consumer_data_set: Vec<ConsumerData>,
    /// Its producers.
    pub producer_data_set: Vec<ProducerData>,
}

/// A producer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerData {
    /// The group.
    pub group_name: String,
}

/// A consumer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerData {
    /// Where it begins.
    pub consume_from_where: ConsumeFromWhere,
    /// Push or pull.
    pub consume_type: ConsumeType,
    /// The group.
    pub group_name: String,
    /// Clustering or broadcasting.
    pub message_model: MessageModel,
    /// What it wants.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// It belongs to a unit.
    pub unit_mode: bool,
}

/// What a group wants of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionData {
    /// A feature long gone.
    pub class_filter_mode: bool,
    /// Java's hashes of the tags. The Go client writes them as texts, which fastjson takes for numbers too.
    #[serde(deserialize_with = "tag_codes")]
    pub code_set: BTreeSet<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The expression.
    pub sub_string: String,
    /// When the client subscribed, in milliseconds since 1970; the greater is the newer.
    pub sub_version: i64,
    /// The tags.
    pub tags_set: BTreeSet<String>,
    /// The topic.
    pub topic: String,
}

fn tag_codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<i32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code<'a> {
        Number(i32),
        Text(#[serde(borrow)] Cow<'a, str>),
    }
    let codes = Vec::<Code<'de>>::deserialize(deserializer)?;
    let number = |code| match code {
        Code::Number(number) => Ok(number),
        Code::Text(text) => text.parse().map_err(D::Error::custom),
    };
    codes.into_iter().map(number).collect()
}

/// Answer to `QUERY_SUBSCRIPTION_BY_CONSUMER` (`QuerySubscriptionResponseBody` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupSubscription {
    /// The group.
    pub group: String,
    /// Absent where the group, or this topic of it, has no member online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    /// The topic.
    pub topic: String,
}

/// Answer to `GET_CONSUMER_LIST_BY_GROUP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerIdList {
    /// Client ids.
    pub consumer_id_list: Vec<String>,
}

/// A client's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Connection {
    /// `ip:port`.
    pub client_addr: String,
    /// The client's name.
    pub client_id: String,
    /// Its language.
    pub language: String,
    /// Its version, an ordinal.
    pub version: i32,
}

/// Answer to `GET_CONSUMER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerConnection {
    /// The members.
    pub connection_set: Vec<Connection>,
    /// Where the group begins.
    pub consume_from_where: ConsumeFromWhere,
    /// Push or pull.
    pub consume_type: ConsumeType,
    /// Clustering or broadcasting.
    pub message_model: MessageModel,
    /// By topic.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Answer to `GET_PRODUCER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerConnection {
    /// The members.
    pub connection_set: Vec<Connection>,
}

/// Body of `LOCK_BATCH_MQ` and `UNLOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LockBatchRequest {
    /// The member that wants the queues.
    pub client_id: String,
    /// Its group.
    pub consumer_group: String,
    /// The queues.
    pub mq_set: Vec<MessageQueue>,
}

/// Answer to `LOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponse {
    /// The queues that are the member's now.
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

/// Body of `CHECK_CLIENT_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CheckClientBody {
    /// The client's name.
    pub client_id: String,
    /// Its group.
    pub group: String,
    /// The subscription to check.
    pub subscription_data: SubscriptionData,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fastjson;

    #[test]
    fn a_java_heartbeat_is_read() {
        let heartbeat: Heartbeat = fastjson::from_slice(
            br#"{"clientID":"c@1#2","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
            "consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"Broadcasting","subscriptionDataSet":[
            {"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA","subVersion":17,
            "tagsSet":["TagA"],"topic":"T","filterClassSource":null}],"unitMode":false}],
            "heartbeatFingerprint":0,"producerDataSet":[{"groupName":"p"}],"withoutSub":false}"#,
        )
        .unwrap();
        let consumer = &heartbeat.consumer_data_set[0];
        assert_eq!(heartbeat.client_id, "c@1#2");
        assert_eq!(consumer.message_model, MessageModel::Broadcasting);
        assert_eq!(consumer.consume_from_where, ConsumeFromWhere::FirstOffset);
        assert!(consumer.subscription_data_set[0].code_set.contains(&2_598_919));
    }

    #[test]
    fn the_go_client_writes_codes_as_texts() {
        let read = |codes: &str| {
            let text = format!(r#"{{"codeSet":{codes},"tagsSet":["TagA"],"topic":"T"}}"#);
            fastjson::from_slice::<SubscriptionData>(text.as_bytes()).map(|subscription| subscription.code_set)
        };
        assert_eq!(read(r#"["2598919","-7"]"#).unwrap(), BTreeSet::from([2_598_919, -7]));
        assert_eq!(read("[2598919,-7]").unwrap(), BTreeSet::from([2_598_919, -7]));
        assert!(read(r#"["TagA"]"#).is_err());
    }
}
