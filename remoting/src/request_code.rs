//! The request codes, in one table (`RequestCode` in Java): number, RocketMQ's name, who answers,
//! since which RocketMQ version, and who asks.

use std::fmt;

/// What a request asks for; unknown numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestCode(pub i32);

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// The name server.
    NameServer,
    /// The broker.
    Broker,
    /// A client, asked by its broker over the client's own connection.
    Client,
}

/// One row of [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The code.
    pub code: RequestCode,
    /// RocketMQ's name for it.
    pub name: &'static str,
    /// Who answers it.
    pub answerer: Answerer,
    /// The first RocketMQ version that knows it; `4.0` stands for everything older too.
    pub since: &'static str,
    /// Who sends it.
    pub callers: &'static str,
}

macro_rules! request_codes {
    ($($code:literal $name:ident $answerer:ident $since:literal $callers:literal;)+) => {
        impl RequestCode {
            $(#[doc = concat!(stringify!($code), ", sent by ", $callers, ", since ", $since, ".")]
            pub const $name: Self = Self($code);)+
        }

        /// Every request code that RocketMQ's clients, tools and brokers are known to send, by number.
        pub const TABLE: &[Row] = &[
            $(Row {
                code: RequestCode::$name,
                name: stringify!($name),
                answerer: Answerer::$answerer,
                since: $since,
                callers: $callers,
            },)+
        ];
    };
}

request_codes! {
    10 SEND_MESSAGE Broker "4.0" "clients";
    11 PULL_MESSAGE Broker "4.0" "clients, mqadmin";
    12 QUERY_MESSAGE Broker "4.0" "clients, mqadmin, dashboard";
    14 QUERY_CONSUMER_OFFSET Broker "4.0" "clients, mqadmin";
    15 UPDATE_CONSUMER_OFFSET Broker "4.0" "clients, mqadmin";
    17 UPDATE_AND_CREATE_TOPIC Broker "4.0" "mqadmin, dashboard, operator";
    21 GET_ALL_TOPIC_CONFIG Broker "4.0" "slaves, mqadmin, operator";
    25 UPDATE_BROKER_CONFIG Broker "4.0" "mqadmin";
    26 GET_BROKER_CONFIG Broker "4.0" "mqadmin, dashboard";
    28 GET_BROKER_RUNTIME_INFO Broker "4.0" "mqadmin, dashboard, operator";
    29 SEARCH_OFFSET_BY_TIMESTAMP Broker "4.0" "clients, mqadmin";
    30 GET_MAX_OFFSET Broker "4.0" "clients, mqadmin";
    31 GET_MIN_OFFSET Broker "4.0" "clients, mqadmin";
    32 GET_EARLIEST_MSG_STORETIME Broker "4.0" "clients, mqadmin";
    33 VIEW_MESSAGE_BY_ID Broker "4.0" "clients, mqadmin, dashboard";
    34 HEART_BEAT Broker "4.0" "clients";
    35 UNREGISTER_CLIENT Broker "4.0" "clients";
    36 CONSUMER_SEND_MSG_BACK Broker "4.0" "clients";
    37 END_TRANSACTION Broker "4.0" "clients";
    38 GET_CONSUMER_LIST_BY_GROUP Broker "4.0" "clients";
    39 CHECK_TRANSACTION_STATE Client "4.0" "broker";
    40 NOTIFY_CONSUMER_IDS_CHANGED Client "4.0" "broker";
    41 LOCK_BATCH_MQ Broker "4.0" "clients";
    42 UNLOCK_BATCH_MQ Broker "4.0" "clients";
    43 GET_ALL_CONSUMER_OFFSET Broker "4.0" "slaves";
    45 GET_ALL_DELAY_OFFSET Broker "4.0" "slaves";
    46 CHECK_CLIENT_CONFIG Broker "4.1" "clients";
    60 GET_TIMER_CHECK_POINT Broker "5.0" "slaves";
    61 GET_TIMER_METRICS Broker "5.0" "slaves";
    100 PUT_KV_CONFIG NameServer "4.0" "mqadmin";
    101 GET_KV_CONFIG NameServer "4.0" "mqadmin";
    102 DELETE_KV_CONFIG NameServer "4.0" "mqadmin";
    103 REGISTER_BROKER NameServer "4.0" "brokers";
    104 UNREGISTER_BROKER NameServer "4.0" "brokers";
    105 GET_ROUTEINFO_BY_TOPIC NameServer "4.0" "clients, mqadmin";
    106 GET_BROKER_CLUSTER_INFO NameServer "4.0" "mqadmin, dashboard, operator";
    200 UPDATE_AND_CREATE_SUBSCRIPTIONGROUP Broker "4.0" "mqadmin, operator";
    201 GET_ALL_SUBSCRIPTIONGROUP_CONFIG Broker "4.0" "slaves, mqadmin, operator";
    202 GET_TOPIC_STATS_INFO Broker "4.0" "mqadmin, dashboard";
    203 GET_CONSUMER_CONNECTION_LIST Broker "4.0" "mqadmin, dashboard";
    204 GET_PRODUCER_CONNECTION_LIST Broker "4.0" "mqadmin, dashboard";
    205 WIPE_WRITE_PERM_OF_BROKER NameServer "4.0" "mqadmin";
    206 GET_ALL_TOPIC_LIST_FROM_NAMESERVER NameServer "4.0" "mqadmin, dashboard";
    207 DELETE_SUBSCRIPTIONGROUP Broker "4.0" "mqadmin";
    208 GET_CONSUME_STATS Broker "4.0" "mqadmin, dashboard";
    215 DELETE_TOPIC_IN_BROKER Broker "4.0" "mqadmin";
    216 DELETE_TOPIC_IN_NAMESRV NameServer "4.0" "mqadmin";
    217 REGISTER_TOPIC_IN_NAMESRV NameServer "5.0" "5.x brokers";
    219 GET_KVLIST_BY_NAMESPACE NameServer "4.0" "mqadmin";
    220 RESET_CONSUMER_CLIENT_OFFSET Client "4.0" "broker";
    221 GET_CONSUMER_STATUS_FROM_CLIENT Client "4.0" "broker";
    222 INVOKE_BROKER_TO_RESET_OFFSET Broker "4.0" "mqadmin, dashboard";
    223 INVOKE_BROKER_TO_GET_CONSUMER_STATUS Broker "4.0" "mqadmin";
    224 GET_TOPICS_BY_CLUSTER NameServer "4.0" "mqadmin";
    300 QUERY_TOPIC_CONSUME_BY_WHO Broker "4.0" "mqadmin, dashboard";
    303 QUERY_CONSUME_TIME_SPAN Broker "4.0" "mqadmin";
    304 GET_SYSTEM_TOPIC_LIST_FROM_NS NameServer "4.0" "mqadmin, dashboard";
    305 GET_SYSTEM_TOPIC_LIST_FROM_BROKER Broker "4.0" "mqadmin, dashboard";
    306 CLEAN_EXPIRED_CONSUMEQUEUE Broker "4.0" "mqadmin";
    307 GET_CONSUMER_RUNNING_INFO Broker "4.0" "mqadmin, dashboard";
    308 QUERY_CORRECTION_OFFSET Broker "4.0" "tools";
    309 CONSUME_MESSAGE_DIRECTLY Broker "4.0" "mqadmin, dashboard";
    310 SEND_MESSAGE_V2 Broker "4.0" "clients";
    311 GET_UNIT_TOPIC_LIST NameServer "4.0" "tools";
    312 GET_HAS_UNIT_SUB_TOPIC_LIST NameServer "4.0" "tools";
    313 GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST NameServer "4.0" "tools";
    314 CLONE_GROUP_OFFSET Broker "4.0" "tools";
    315 VIEW_BROKER_STATS_DATA Broker "4.0" "mqadmin, dashboard";
    316 CLEAN_UNUSED_TOPIC Broker "4.0" "mqadmin";
    317 GET_BROKER_CONSUME_STATS Broker "4.0" "mqadmin";
    318 UPDATE_NAMESRV_CONFIG NameServer "4.0" "mqadmin";
    319 GET_NAMESRV_CONFIG NameServer "4.0" "mqadmin";
    320 SEND_BATCH_MESSAGE Broker "4.1" "clients";
    321 QUERY_CONSUME_QUEUE Broker "4.1" "mqadmin";
    322 QUERY_DATA_VERSION NameServer "4.2" "brokers";
    323 RESUME_CHECK_HALF_MESSAGE Broker "4.4" "mqadmin";
    324 SEND_REPLY_MESSAGE Broker "4.6" "clients";
    325 SEND_REPLY_MESSAGE_V2 Broker "4.6" "clients";
    326 PUSH_REPLY_MESSAGE_TO_CLIENT Client "4.6" "broker";
    327 ADD_WRITE_PERM_OF_BROKER NameServer "4.9.2" "mqadmin";
    328 GET_ALL_PRODUCER_INFO Broker "4.9.4" "mqadmin";
    329 DELETE_EXPIRED_COMMITLOG Broker "4.9.4" "mqadmin";
    345 QUERY_SUBSCRIPTION_BY_CONSUMER Broker "5.0" "mqadmin 5.x";
    351 GET_TOPIC_CONFIG Broker "5.0" "mqadmin 5.x";
    352 GET_SUBSCRIPTIONGROUP_CONFIG Broker "5.0" "mqadmin 5.x";
    361 LITE_PULL_MESSAGE Broker "5.0" "5.x clients";
    370 RECALL_MESSAGE Broker "5.3.2" "5.x clients";
    400 QUERY_ASSIGNMENT Broker "5.0" "5.x clients";
    901 GET_BROKER_MEMBER_GROUP NameServer "5.0" "5.x brokers";
    904 BROKER_HEARTBEAT NameServer "5.0" "5.x brokers";
    907 GET_BROKER_HA_STATUS Broker "5.0" "mqadmin 5.x";
}

impl RequestCode {
    /// RocketMQ's name for the code, where it is known.
    pub fn name(self) -> Option<&'static str> {
        TABLE.binary_search_by_key(&self.0, |row| row.code.0).ok().map(|at| TABLE[at].name)
    }
}

impl fmt::Debug for RequestCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RequestCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name}({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_so_that_names_are_found() {
        assert!(TABLE.is_sorted_by_key(|row| row.code.0));
        for row in TABLE {
            assert_eq!(row.code.name(), Some(row.name));
        }
        assert_eq!(RequestCode(9999).name(), None);
    }
}
