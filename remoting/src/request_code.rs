//! The request codes, in one table (`RequestCode` in Java): number, RocketMQ's name, who answers,
//! since which RocketMQ version, and who asks.

#![allow(clippy::unreadable_literal)] // numbers as RocketMQ writes them

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
    /// The controller of 5.x, a program of its own or a part of the name server.
    Controller,
    /// No server of RocketMQ: the code is declared and nothing more.
    Nobody,
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

        /// Every request code that RocketMQ 4.9.7 or 5.5.0 declares, by number.
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
    13 QUERY_BROKER_OFFSET Nobody "4.0" "nobody";
    14 QUERY_CONSUMER_OFFSET Broker "4.0" "clients, mqadmin";
    15 UPDATE_CONSUMER_OFFSET Broker "4.0" "clients, mqadmin";
    17 UPDATE_AND_CREATE_TOPIC Broker "4.0" "mqadmin, dashboard, operator";
    18 UPDATE_AND_CREATE_TOPIC_LIST Broker "5.3" "mqadmin 5.x";
    21 GET_ALL_TOPIC_CONFIG Broker "4.0" "slaves, mqadmin, operator";
    22 GET_TOPIC_CONFIG_LIST Nobody "4.0" "nobody";
    23 GET_TOPIC_NAME_LIST Nobody "4.0" "nobody";
    25 UPDATE_BROKER_CONFIG Broker "4.0" "mqadmin";
    26 GET_BROKER_CONFIG Broker "4.0" "mqadmin, dashboard";
    27 TRIGGER_DELETE_FILES Nobody "4.0" "nobody";
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
    47 GET_CLIENT_CONFIG Nobody "5.0" "nobody";
    50 UPDATE_AND_CREATE_ACL_CONFIG Broker "4.5" "mqadmin 4.x";
    51 DELETE_ACL_CONFIG Broker "4.5" "mqadmin 4.x";
    52 GET_BROKER_CLUSTER_ACL_INFO Broker "4.5" "mqadmin 4.x";
    53 UPDATE_GLOBAL_WHITE_ADDRS_CONFIG Broker "4.5" "mqadmin 4.x";
    54 GET_BROKER_CLUSTER_ACL_CONFIG Broker "4.6" "mqadmin 4.x";
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
    209 SUSPEND_CONSUMER Nobody "4.0" "nobody";
    210 RESUME_CONSUMER Nobody "4.0" "nobody";
    211 RESET_CONSUMER_OFFSET_IN_CONSUMER Nobody "4.0" "nobody";
    212 RESET_CONSUMER_OFFSET_IN_BROKER Nobody "4.0" "nobody";
    213 ADJUST_CONSUMER_THREAD_POOL Nobody "4.0" "nobody";
    214 WHO_CONSUME_THE_MESSAGE Nobody "4.0" "nobody";
    215 DELETE_TOPIC_IN_BROKER Broker "4.0" "mqadmin";
    216 DELETE_TOPIC_IN_NAMESRV NameServer "4.0" "mqadmin";
    217 REGISTER_TOPIC_IN_NAMESRV NameServer "5.0" "5.x brokers";
    219 GET_KVLIST_BY_NAMESPACE NameServer "4.0" "mqadmin";
    220 RESET_CONSUMER_CLIENT_OFFSET Client "4.0" "broker";
    221 GET_CONSUMER_STATUS_FROM_CLIENT Client "4.0" "broker";
    222 INVOKE_BROKER_TO_RESET_OFFSET Broker "4.0" "mqadmin, dashboard";
    223 INVOKE_BROKER_TO_GET_CONSUMER_STATUS Broker "4.0" "mqadmin";
    224 GET_TOPICS_BY_CLUSTER NameServer "4.0" "mqadmin";
    225 UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST Broker "5.3.1" "mqadmin 5.x";
    300 QUERY_TOPIC_CONSUME_BY_WHO Broker "4.0" "mqadmin, dashboard";
    301 REGISTER_FILTER_SERVER Nobody "4.0" "nobody";
    302 REGISTER_MESSAGE_FILTER_CLASS Nobody "4.0" "nobody";
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
    322 QUERY_DATA_VERSION NameServer "4.3" "brokers";
    323 RESUME_CHECK_HALF_MESSAGE Broker "4.5" "mqadmin";
    324 SEND_REPLY_MESSAGE Broker "4.6" "clients";
    325 SEND_REPLY_MESSAGE_V2 Broker "4.6" "clients";
    326 PUSH_REPLY_MESSAGE_TO_CLIENT Client "4.6" "broker";
    327 ADD_WRITE_PERM_OF_BROKER NameServer "4.9.2" "mqadmin";
    328 GET_ALL_PRODUCER_INFO Broker "4.9.4" "mqadmin";
    329 DELETE_EXPIRED_COMMITLOG Broker "4.9.4" "mqadmin";
    343 QUERY_TOPICS_BY_CONSUMER Broker "5.0" "mqadmin 5.x";
    345 QUERY_SUBSCRIPTION_BY_CONSUMER Broker "5.0" "mqadmin 5.x";
    351 GET_TOPIC_CONFIG Broker "5.0" "mqadmin 5.x";
    352 GET_SUBSCRIPTIONGROUP_CONFIG Broker "5.0" "mqadmin 5.x";
    353 UPDATE_AND_GET_GROUP_FORBIDDEN Broker "5.0" "tools";
    354 CHECK_ROCKSDB_CQ_WRITE_PROGRESS Broker "5.3.1" "mqadmin 5.x";
    355 EXPORT_ROCKSDB_CONFIG_TO_JSON Broker "5.3.2" "mqadmin 5.x";
    361 LITE_PULL_MESSAGE Broker "5.0" "5.x clients";
    370 RECALL_MESSAGE Broker "5.3.2" "5.x clients";
    400 QUERY_ASSIGNMENT Broker "5.0" "5.x clients";
    401 SET_MESSAGE_REQUEST_MODE Broker "5.0" "mqadmin 5.x";
    402 GET_ALL_MESSAGE_REQUEST_MODE Broker "5.0" "5.x slaves";
    513 UPDATE_AND_CREATE_STATIC_TOPIC Broker "5.0" "mqadmin 5.x";
    901 GET_BROKER_MEMBER_GROUP NameServer "5.0" "5.x brokers";
    902 ADD_BROKER Broker "5.0" "mqadmin 5.x";
    903 REMOVE_BROKER Broker "5.0" "mqadmin 5.x";
    904 BROKER_HEARTBEAT NameServer "5.0" "5.x brokers";
    905 NOTIFY_MIN_BROKER_ID_CHANGE Broker "5.0" "5.x name servers";
    906 EXCHANGE_BROKER_HA_INFO Broker "5.0" "5.x brokers";
    907 GET_BROKER_HA_STATUS Broker "5.0" "mqadmin 5.x";
    908 RESET_MASTER_FLUSH_OFFSET Broker "5.0" "mqadmin 5.x";
    1001 CONTROLLER_ALTER_SYNC_STATE_SET Controller "5.0" "5.x brokers";
    1002 CONTROLLER_ELECT_MASTER Controller "5.0" "mqadmin 5.x";
    1003 CONTROLLER_REGISTER_BROKER Controller "5.0" "5.x brokers";
    1004 CONTROLLER_GET_REPLICA_INFO Controller "5.0" "5.x brokers";
    1005 CONTROLLER_GET_METADATA_INFO Controller "5.0" "mqadmin 5.x";
    1006 CONTROLLER_GET_SYNC_STATE_DATA Controller "5.0" "mqadmin 5.x";
    1007 GET_BROKER_EPOCH_CACHE Broker "5.0" "mqadmin 5.x";
    1008 NOTIFY_BROKER_ROLE_CHANGED Broker "5.0" "5.x controllers";
    1009 UPDATE_CONTROLLER_CONFIG Controller "5.0" "mqadmin 5.x";
    1010 GET_CONTROLLER_CONFIG Controller "5.0" "mqadmin 5.x";
    1011 CLEAN_BROKER_DATA Controller "5.0" "mqadmin 5.x";
    1012 CONTROLLER_GET_NEXT_BROKER_ID Controller "5.1.1" "5.x brokers";
    1013 CONTROLLER_APPLY_BROKER_ID Controller "5.1.1" "5.x brokers";
    2001 UPDATE_COLD_DATA_FLOW_CTR_CONFIG Broker "5.1.2" "mqadmin 5.x";
    2002 REMOVE_COLD_DATA_FLOW_CTR_CONFIG Broker "5.1.2" "mqadmin 5.x";
    2003 GET_COLD_DATA_FLOW_CTR_INFO Broker "5.1.2" "mqadmin 5.x";
    2004 SET_COMMITLOG_READ_MODE Broker "5.1.2" "mqadmin 5.x";
    3001 AUTH_CREATE_USER Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3002 AUTH_UPDATE_USER Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3003 AUTH_DELETE_USER Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3004 AUTH_GET_USER Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3005 AUTH_LIST_USER Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3006 AUTH_CREATE_ACL Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3007 AUTH_UPDATE_ACL Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3008 AUTH_DELETE_ACL Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3009 AUTH_GET_ACL Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    3010 AUTH_LIST_ACL Broker "5.3" "mqadmin 5.x, dashboard 2.x";
    5001 SWITCH_TIMER_ENGINE Broker "5.4" "mqadmin 5.x";
    200050 POP_MESSAGE Broker "5.0" "5.x clients, 5.x proxies";
    200051 ACK_MESSAGE Broker "5.0" "5.x clients, 5.x proxies";
    200052 PEEK_MESSAGE Broker "5.0" "5.x clients, 5.x proxies";
    200053 CHANGE_MESSAGE_INVISIBLETIME Broker "5.0" "5.x clients, 5.x proxies";
    200054 NOTIFICATION Broker "5.0" "5.x clients, 5.x proxies";
    200055 POLLING_INFO Broker "5.0" "5.x clients, 5.x proxies";
    200056 POP_ROLLBACK Broker "5.3.2" "mqadmin 5.x";
    200070 POP_LITE_MESSAGE Broker "5.5" "5.x proxies";
    200071 LITE_SUBSCRIPTION_CTL Broker "5.5" "5.x proxies";
    200072 ACK_LITE_MESSAGE Broker "5.5" "5.x proxies";
    200073 NOTIFY_UNSUBSCRIBE_LITE Client "5.5" "broker";
    200074 GET_BROKER_LITE_INFO Broker "5.5" "mqadmin 5.x";
    200075 GET_PARENT_TOPIC_INFO Broker "5.5" "mqadmin 5.x";
    200076 GET_LITE_TOPIC_INFO Broker "5.5" "mqadmin 5.x";
    200077 GET_LITE_CLIENT_INFO Broker "5.5" "mqadmin 5.x";
    200078 GET_LITE_GROUP_INFO Broker "5.5" "mqadmin 5.x";
    200079 TRIGGER_LITE_DISPATCH Broker "5.5" "mqadmin 5.x";
    200151 BATCH_ACK_MESSAGE Broker "5.1.3" "5.x clients, 5.x proxies";
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
