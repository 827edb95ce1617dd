//! Every request code that RocketMQ has for brokers, and what this broker does with it.
//!
//! The router refuses what this table refuses; the compatibility page is made of it, and
//! `tests/compatibility.rs` holds each row against a running broker. The handlers themselves are joined
//! to their codes by the router.

use rocketmq_remoting::RequestCode as Code;
use rocketmq_remoting::Support::{self, Full, Partial, Refused};

const POP: Support = Refused { feature: "pop consumption" };
const LITE: Support = Refused { feature: "lite topics" };
const ACL: Support = Refused { feature: "access control" };
const COLD_DATA: Support = Refused { feature: "cold data flow control" };
const ROCKS_DB: Support = Refused { feature: "RocksDB" };
const CONTAINER: Support = Refused { feature: "the broker container" };
const CONTROLLER: Support = Refused { feature: "the controller" };
const ACTING_MASTER: Support = Refused { feature: "slaves that act as masters" };

const MODES: &str = "tests/tests/interop/sending.rs::sync_async_batch_oneway";
const MEMBERS: &str = "broker/tests/admin_requests.rs::members_of_a_group_hear_of_each_other";
const OFFSETS: &str = "broker/tests/admin_requests.rs::offsets_are_kept_and_reset_through_the_members";
const LOCKS: &str = "broker/tests/admin_requests.rs::queues_are_locked_for_one_member";
const TOPICS: &str = "broker/tests/admin_requests.rs::topics_are_administered_on_the_master";
const SETTINGS: &str = "broker/tests/admin_requests.rs::the_broker_tells_of_itself_and_takes_live_settings";
const AT_ONCE: &str = "broker/tests/tool_requests.rs::many_topics_and_groups_are_made_at_once_or_none";
const WHO: &str = "broker/tests/tool_requests.rs::who_consumes_what";
const COPIED: &str = "broker/tests/tool_requests.rs::offsets_are_compared_and_copied";
const FOUND: &str = "broker/tests/tool_requests.rs::messages_are_found_by_offset_time_key_and_place";
const COUNTED: &str = "broker/tests/tool_requests.rs::consumption_is_counted";
const CLEANED: &str = "broker/tests/tool_requests.rs::what_is_not_needed_is_cleaned";
const SLAVES: &str = "broker/tests/tool_requests.rs::slaves_are_told_everything";
const ASKED: &str = "broker/tests/tool_requests.rs::consumers_are_asked_through_the_broker";
const REPLIES: &str = "tests/tests/interop/requesting.rs::request_reply";
const RETRIES: &str = "tests/tests/interop/consuming.rs::retry_and_dead_letter";
const TIMERS: &str = "broker/tests/delayed_messages.rs::messages_wait_through_a_restart_and_tools_see_them";
const RECALL: &str = "broker/tests/delayed_messages.rs::a_timer_message_comes_at_its_time_and_can_be_recalled";
const ENDED: &str = "broker/tests/transactions/main.rs::a_commit_delivers_and_a_rollback_does_not";
const CHECKED: &str = "broker/tests/transactions/main.rs::an_open_transaction_is_asked_about_until_it_has_ended";
const GIVEN_UP: &str =
    "broker/tests/transactions/main.rs::what_is_asked_about_too_often_is_given_up_and_can_be_taken_up_again";
const SQL92: &str = "broker/tests/sql_filters.rs::sql92_is_refused_until_it_is_switched_on";
const MQADMIN: &str = "tests/tests/interop/admin.rs::mqadmin_of_java";

/// By number, as the codes' own table: those that brokers answer, and those that brokers send to clients.
pub const SUPPORT: &[(Code, Support)] = &[
    (Code::SEND_MESSAGE, Full { proof: MODES }),
    (Code::PULL_MESSAGE, Full { proof: FOUND }),
    (Code::QUERY_MESSAGE, Full { proof: FOUND }),
    (Code::QUERY_CONSUMER_OFFSET, Full { proof: OFFSETS }),
    (Code::UPDATE_CONSUMER_OFFSET, Full { proof: OFFSETS }),
    (Code::UPDATE_AND_CREATE_TOPIC, Full { proof: TOPICS }),
    (Code::UPDATE_AND_CREATE_TOPIC_LIST, Full { proof: AT_ONCE }),
    (Code::GET_ALL_TOPIC_CONFIG, Full { proof: SLAVES }),
    (Code::UPDATE_BROKER_CONFIG, Full { proof: SETTINGS }),
    (Code::GET_BROKER_CONFIG, Full { proof: SETTINGS }),
    (Code::GET_BROKER_RUNTIME_INFO, Full { proof: SETTINGS }),
    (Code::SEARCH_OFFSET_BY_TIMESTAMP, Full { proof: FOUND }),
    (Code::GET_MAX_OFFSET, Full { proof: FOUND }),
    (Code::GET_MIN_OFFSET, Full { proof: FOUND }),
    (Code::GET_EARLIEST_MSG_STORETIME, Full { proof: FOUND }),
    (Code::VIEW_MESSAGE_BY_ID, Full { proof: FOUND }),
    (Code::HEART_BEAT, Full { proof: MEMBERS }),
    (Code::UNREGISTER_CLIENT, Full { proof: MEMBERS }),
    (Code::CONSUMER_SEND_MSG_BACK, Full { proof: RETRIES }),
    (Code::END_TRANSACTION, Full { proof: ENDED }),
    (Code::GET_CONSUMER_LIST_BY_GROUP, Full { proof: MEMBERS }),
    (Code::CHECK_TRANSACTION_STATE, Full { proof: CHECKED }),
    (Code::NOTIFY_CONSUMER_IDS_CHANGED, Full { proof: MEMBERS }),
    (Code::LOCK_BATCH_MQ, Full { proof: LOCKS }),
    (Code::UNLOCK_BATCH_MQ, Full { proof: LOCKS }),
    (Code::GET_ALL_CONSUMER_OFFSET, Full { proof: SLAVES }),
    (Code::GET_ALL_DELAY_OFFSET, Full { proof: SLAVES }),
    (Code::CHECK_CLIENT_CONFIG, Full { proof: SQL92 }),
    (Code::UPDATE_AND_CREATE_ACL_CONFIG, ACL),
    (Code::DELETE_ACL_CONFIG, ACL),
    (Code::GET_BROKER_CLUSTER_ACL_INFO, ACL),
    (Code::UPDATE_GLOBAL_WHITE_ADDRS_CONFIG, ACL),
    (Code::GET_BROKER_CLUSTER_ACL_CONFIG, ACL),
    (Code::GET_TIMER_CHECK_POINT, Full { proof: TIMERS }),
    (Code::GET_TIMER_METRICS, Full { proof: TIMERS }),
    (Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, Full { proof: MQADMIN }),
    (Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, Full { proof: SLAVES }),
    (Code::GET_TOPIC_STATS_INFO, Full { proof: TOPICS }),
    (Code::GET_CONSUMER_CONNECTION_LIST, Full { proof: MEMBERS }),
    (Code::GET_PRODUCER_CONNECTION_LIST, Full { proof: MQADMIN }),
    (Code::DELETE_SUBSCRIPTIONGROUP, Full { proof: MQADMIN }),
    (Code::GET_CONSUME_STATS, Full { proof: COUNTED }),
    (Code::DELETE_TOPIC_IN_BROKER, Full { proof: TOPICS }),
    (Code::RESET_CONSUMER_CLIENT_OFFSET, Full { proof: OFFSETS }),
    (Code::GET_CONSUMER_STATUS_FROM_CLIENT, Full { proof: ASKED }),
    (Code::INVOKE_BROKER_TO_RESET_OFFSET, Full { proof: OFFSETS }),
    (Code::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, Full { proof: ASKED }),
    (Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, Full { proof: AT_ONCE }),
    (Code::QUERY_TOPIC_CONSUME_BY_WHO, Full { proof: WHO }),
    (Code::QUERY_CONSUME_TIME_SPAN, Full { proof: COUNTED }),
    (Code::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, Full { proof: SLAVES }),
    (Code::CLEAN_EXPIRED_CONSUMEQUEUE, Full { proof: CLEANED }),
    (Code::GET_CONSUMER_RUNNING_INFO, Full { proof: OFFSETS }),
    (Code::QUERY_CORRECTION_OFFSET, Full { proof: COPIED }),
    (Code::CONSUME_MESSAGE_DIRECTLY, Full { proof: ASKED }),
    (Code::SEND_MESSAGE_V2, Full { proof: MODES }),
    (Code::CLONE_GROUP_OFFSET, Full { proof: COPIED }),
    (Code::VIEW_BROKER_STATS_DATA, Full { proof: SETTINGS }),
    (Code::CLEAN_UNUSED_TOPIC, Full { proof: CLEANED }),
    (Code::GET_BROKER_CONSUME_STATS, Full { proof: COUNTED }),
    (Code::SEND_BATCH_MESSAGE, Full { proof: MODES }),
    (Code::QUERY_CONSUME_QUEUE, Full { proof: FOUND }),
    (Code::RESUME_CHECK_HALF_MESSAGE, Full { proof: GIVEN_UP }),
    (Code::SEND_REPLY_MESSAGE, Full { proof: "broker/tests/request_reply.rs::a_reply_goes_to_its_asker_and_is_kept" }),
    (Code::SEND_REPLY_MESSAGE_V2, Full { proof: REPLIES }),
    (Code::PUSH_REPLY_MESSAGE_TO_CLIENT, Full { proof: REPLIES }),
    (Code::GET_ALL_PRODUCER_INFO, Full { proof: WHO }),
    (Code::DELETE_EXPIRED_COMMITLOG, Full { proof: CLEANED }),
    (Code::QUERY_TOPICS_BY_CONSUMER, Full { proof: WHO }),
    (Code::QUERY_SUBSCRIPTION_BY_CONSUMER, Full { proof: WHO }),
    (Code::GET_TOPIC_CONFIG, Full { proof: TOPICS }),
    (Code::GET_SUBSCRIPTIONGROUP_CONFIG, Full { proof: AT_ONCE }),
    (Code::UPDATE_AND_GET_GROUP_FORBIDDEN, Refused { feature: "topics that are forbidden to single groups" }),
    (Code::CHECK_ROCKSDB_CQ_WRITE_PROGRESS, ROCKS_DB),
    (Code::EXPORT_ROCKSDB_CONFIG_TO_JSON, ROCKS_DB),
    (Code::LITE_PULL_MESSAGE, Full { proof: FOUND }),
    (Code::RECALL_MESSAGE, Full { proof: RECALL }),
    (Code::QUERY_ASSIGNMENT, POP),
    (Code::SET_MESSAGE_REQUEST_MODE, POP),
    (Code::GET_ALL_MESSAGE_REQUEST_MODE, Partial { but: "always empty, for no group pops here", proof: SLAVES }),
    (Code::UPDATE_AND_CREATE_STATIC_TOPIC, Refused { feature: "static topics" }),
    (Code::ADD_BROKER, CONTAINER),
    (Code::REMOVE_BROKER, CONTAINER),
    (Code::NOTIFY_MIN_BROKER_ID_CHANGE, ACTING_MASTER),
    (Code::EXCHANGE_BROKER_HA_INFO, ACTING_MASTER),
    (Code::GET_BROKER_HA_STATUS, Full { proof: SLAVES }),
    (Code::RESET_MASTER_FLUSH_OFFSET, ACTING_MASTER),
    (Code::GET_BROKER_EPOCH_CACHE, CONTROLLER),
    (Code::NOTIFY_BROKER_ROLE_CHANGED, CONTROLLER),
    (Code::UPDATE_COLD_DATA_FLOW_CTR_CONFIG, COLD_DATA),
    (Code::REMOVE_COLD_DATA_FLOW_CTR_CONFIG, COLD_DATA),
    (Code::GET_COLD_DATA_FLOW_CTR_INFO, COLD_DATA),
    (Code::SET_COMMITLOG_READ_MODE, Refused { feature: "a read-ahead mode that is switched while running" }),
    (Code::AUTH_CREATE_USER, ACL),
    (Code::AUTH_UPDATE_USER, ACL),
    (Code::AUTH_DELETE_USER, ACL),
    (Code::AUTH_GET_USER, ACL),
    (Code::AUTH_LIST_USER, ACL),
    (Code::AUTH_CREATE_ACL, ACL),
    (Code::AUTH_UPDATE_ACL, ACL),
    (Code::AUTH_DELETE_ACL, ACL),
    (Code::AUTH_GET_ACL, ACL),
    (Code::AUTH_LIST_ACL, ACL),
    (Code::SWITCH_TIMER_ENGINE, ROCKS_DB),
    (Code::POP_MESSAGE, POP),
    (Code::ACK_MESSAGE, POP),
    (Code::PEEK_MESSAGE, POP),
    (Code::CHANGE_MESSAGE_INVISIBLETIME, POP),
    (Code::NOTIFICATION, POP),
    (Code::POLLING_INFO, POP),
    (Code::POP_ROLLBACK, POP),
    (Code::POP_LITE_MESSAGE, LITE),
    (Code::LITE_SUBSCRIPTION_CTL, LITE),
    (Code::ACK_LITE_MESSAGE, LITE),
    (Code::NOTIFY_UNSUBSCRIBE_LITE, LITE),
    (Code::GET_BROKER_LITE_INFO, LITE),
    (Code::GET_PARENT_TOPIC_INFO, LITE),
    (Code::GET_LITE_TOPIC_INFO, LITE),
    (Code::GET_LITE_CLIENT_INFO, LITE),
    (Code::GET_LITE_GROUP_INFO, LITE),
    (Code::TRIGGER_LITE_DISPATCH, LITE),
    (Code::BATCH_ACK_MESSAGE, POP),
];
