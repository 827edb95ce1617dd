//! Headers of the other requests that brokers answer: offsets, clients, administration.

use bytestring::ByteString;

use super::headers;

headers! {
    /// A queue of a topic: `GET_MAX_OFFSET`, `GET_MIN_OFFSET`, `GET_EARLIEST_MSG_STORETIME`.
    QueueRequest {
        required topic: ByteString = "topic",
        required queue_id: i32 = "queueId",
    }
    /// Answer of a queue offset.
    OffsetResponse {
        required offset: i64 = "offset",
    }
    /// Answer to `GET_EARLIEST_MSG_STORETIME`.
    TimestampResponse {
        /// Milliseconds since 1970, -1 where the queue is empty.
        required timestamp: i64 = "timestamp",
    }
    /// `SEARCH_OFFSET_BY_TIMESTAMP`.
    SearchOffsetRequest {
        required topic: ByteString = "topic",
        required queue_id: i32 = "queueId",
        /// Milliseconds since 1970.
        required timestamp: i64 = "timestamp",
        /// 5.x: `LOWER` or `UPPER`, in any case.
        optional boundary_type: ByteString = "boundaryType",
    }
    /// `QUERY_CONSUMER_OFFSET`.
    QueryConsumerOffsetRequest {
        required consumer_group: ByteString = "consumerGroup",
        required topic: ByteString = "topic",
        required queue_id: i32 = "queueId",
        /// 5.x: `false` asks for "not found" rather than 0.
        optional set_zero_if_not_found: bool = "setZeroIfNotFound",
    }
    /// `UPDATE_CONSUMER_OFFSET`.
    UpdateConsumerOffsetRequest {
        required consumer_group: ByteString = "consumerGroup",
        required topic: ByteString = "topic",
        optional queue_id: i32 = "queueId",
        optional commit_offset: i64 = "commitOffset",
    }
    /// `UPDATE_AND_CREATE_TOPIC`.
    CreateTopicRequest {
        required topic: ByteString = "topic",
        default default_topic: ByteString = "defaultTopic",
        required read_queue_nums: i32 = "readQueueNums",
        required write_queue_nums: i32 = "writeQueueNums",
        required perm: i32 = "perm",
        required topic_filter_type: ByteString = "topicFilterType",
        optional topic_sys_flag: i32 = "topicSysFlag",
        default order: bool = "order",
    }
    /// A topic alone: `DELETE_TOPIC_IN_BROKER`, `GET_TOPIC_STATS_INFO`, `QUERY_TOPIC_CONSUME_BY_WHO`, `GET_TOPIC_CONFIG`.
    TopicRequest {
        required topic: ByteString = "topic",
    }
    /// `UNREGISTER_CLIENT`.
    UnregisterClientRequest {
        default client_id: ByteString = "clientID",
        optional producer_group: ByteString = "producerGroup",
        optional consumer_group: ByteString = "consumerGroup",
    }
    /// A consumer group alone: `GET_CONSUMER_LIST_BY_GROUP`, `GET_CONSUMER_CONNECTION_LIST`, `NOTIFY_CONSUMER_IDS_CHANGED`.
    ConsumerGroupRequest {
        required consumer_group: ByteString = "consumerGroup",
    }
    /// A producer group alone: `GET_PRODUCER_CONNECTION_LIST`.
    ProducerGroupRequest {
        required producer_group: ByteString = "producerGroup",
    }
    /// `GET_SUBSCRIPTIONGROUP_CONFIG`.
    GroupRequest {
        required group: ByteString = "group",
    }
    /// `DELETE_SUBSCRIPTIONGROUP`; 4.9 and 5.x name the second field differently.
    DeleteGroupRequest {
        required group_name: ByteString = "groupName",
        default remove_offset: bool = "removeOffset",
        default clean_offset: bool = "cleanOffset",
    }
    /// `GET_CONSUME_STATS`.
    ConsumeStatsRequest {
        required consumer_group: ByteString = "consumerGroup",
        optional topic: ByteString = "topic",
    }
    /// `INVOKE_BROKER_TO_RESET_OFFSET`.
    ResetOffsetRequest {
        required topic: ByteString = "topic",
        required group: ByteString = "group",
        /// Milliseconds since 1970, -1 for the end of each queue.
        required timestamp: i64 = "timestamp",
        default force: bool = "isForce",
        /// 5.x: this queue alone; all where it is negative.
        optional queue_id: i32 = "queueId",
        /// 5.x: where to in that queue, whatever the time; none where it is negative.
        optional offset: i64 = "offset",
    }
    /// `GET_CONSUMER_RUNNING_INFO`, as the tool sends it and as the broker passes it on.
    ConsumerRunningInfoRequest {
        required consumer_group: ByteString = "consumerGroup",
        required client_id: ByteString = "clientId",
        default jstack_enable: bool = "jstackEnable",
    }
    /// `VIEW_BROKER_STATS_DATA`.
    BrokerStatsRequest {
        required stats_name: ByteString = "statsName",
        required stats_key: ByteString = "statsKey",
    }
    /// `QUERY_CONSUME_QUEUE`.
    QueryConsumeQueueRequest {
        required topic: ByteString = "topic",
        default queue_id: i32 = "queueId",
        default index: i64 = "index",
        default count: i32 = "count",
        optional consumer_group: ByteString = "consumerGroup",
    }
    /// Answer to `GET_BROKER_CONFIG`.
    BrokerConfigResponse {
        /// A data version as JSON.
        required version: ByteString = "version",
    }
}
