//! Every request code that RocketMQ has for name servers, and for the controller that 5.x may run in
//! them, and what this name server does with it.
//!
//! The router refuses what this table refuses; the compatibility page is made of it.

use rocketmq_remoting::RequestCode as Code;
use rocketmq_remoting::Support::{self, Full, Refused};

const CONTROLLER: Support = Refused { feature: "the controller" };

const ROUTE: Support = Full { proof: "namesrv/tests/wire.rs::a_route_is_told_in_the_form_that_the_asker_reads" };
const LEAVING: Support = Full { proof: "namesrv/tests/wire.rs::brokers_leave_and_say_what_they_know" };
const BEATING: Support = Full { proof: "namesrv/tests/wire.rs::brokers_of_5_x_ask_for_their_group_and_beat" };
const LISTS: Support = Full { proof: "namesrv/tests/wire.rs::topics_are_listed" };
const KEY_VALUE: Support = Full { proof: "namesrv/tests/wire.rs::key_value_settings_are_kept_and_told_to_brokers" };
const SETTINGS: Support =
    Full { proof: "namesrv/tests/wire.rs::the_configuration_changes_at_run_time_except_for_what_is_listed" };

/// By number, as the codes' own table.
pub const SUPPORT: &[(Code, Support)] = &[
    (Code::PUT_KV_CONFIG, KEY_VALUE),
    (Code::GET_KV_CONFIG, KEY_VALUE),
    (Code::DELETE_KV_CONFIG, KEY_VALUE),
    (Code::REGISTER_BROKER, Full { proof: "namesrv/tests/wire.rs::a_registration_is_checked" }),
    (Code::UNREGISTER_BROKER, LEAVING),
    (Code::GET_ROUTEINFO_BY_TOPIC, ROUTE),
    (
        Code::GET_BROKER_CLUSTER_INFO,
        Full { proof: "namesrv/tests/wire.rs::a_silent_broker_expires_after_the_time_that_it_asked_for" },
    ),
    (Code::WIPE_WRITE_PERM_OF_BROKER, LEAVING),
    (Code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, LISTS),
    (Code::DELETE_TOPIC_IN_NAMESRV, LEAVING),
    (Code::REGISTER_TOPIC_IN_NAMESRV, LISTS),
    (Code::GET_KVLIST_BY_NAMESPACE, KEY_VALUE),
    (Code::GET_TOPICS_BY_CLUSTER, LISTS),
    (Code::GET_SYSTEM_TOPIC_LIST_FROM_NS, LISTS),
    (Code::GET_UNIT_TOPIC_LIST, LISTS),
    (Code::GET_HAS_UNIT_SUB_TOPIC_LIST, LISTS),
    (Code::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, LISTS),
    (Code::UPDATE_NAMESRV_CONFIG, SETTINGS),
    (Code::GET_NAMESRV_CONFIG, SETTINGS),
    (Code::QUERY_DATA_VERSION, LEAVING),
    (Code::ADD_WRITE_PERM_OF_BROKER, Full { proof: "tests/tests/interop/admin.rs::mqadmin_of_java" }),
    (Code::GET_BROKER_MEMBER_GROUP, BEATING),
    (Code::BROKER_HEARTBEAT, BEATING),
    (Code::CONTROLLER_ALTER_SYNC_STATE_SET, CONTROLLER),
    (Code::CONTROLLER_ELECT_MASTER, CONTROLLER),
    (Code::CONTROLLER_REGISTER_BROKER, CONTROLLER),
    (Code::CONTROLLER_GET_REPLICA_INFO, CONTROLLER),
    (Code::CONTROLLER_GET_METADATA_INFO, CONTROLLER),
    (Code::CONTROLLER_GET_SYNC_STATE_DATA, CONTROLLER),
    (Code::UPDATE_CONTROLLER_CONFIG, CONTROLLER),
    (Code::GET_CONTROLLER_CONFIG, CONTROLLER),
    (Code::CLEAN_BROKER_DATA, CONTROLLER),
    (Code::CONTROLLER_GET_NEXT_BROKER_ID, CONTROLLER),
    (Code::CONTROLLER_APPLY_BROKER_ID, CONTROLLER),
];
