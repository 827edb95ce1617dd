//! Headers of the requests that carry messages: send, pull, send back, end of transaction.

use bytestring::ByteString;

use super::headers;

headers! {
    /// `SEND_MESSAGE`, with long names (`SendMessageRequestHeader`).
    SendMessageRequest {
        default producer_group: ByteString = "producerGroup",
        required topic: ByteString = "topic",
        /// The topic whose settings a topic that is not there yet is made of, normally `TBW102`. Java asks for it and for the
        /// number of queues only then.
        optional default_topic: ByteString = "defaultTopic",
        optional default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        /// Any negative number lets the broker choose.
        required queue_id: i32 = "queueId",
        required sys_flag: i32 = "sysFlag",
        /// Milliseconds since 1970, the client's clock.
        required born_timestamp: i64 = "bornTimestamp",
        /// The user's own flag.
        required flag: i32 = "flag",
        /// `name 1 value 2 …` by the characters of these numbers.
        optional properties: ByteString = "properties",
        default reconsume_times: i32 = "reconsumeTimes",
        default unit_mode: bool = "unitMode",
        /// Only for retry topics.
        optional max_reconsume_times: i32 = "maxReconsumeTimes",
        /// The body is a batch.
        default batch: bool = "batch",
        optional broker_name: ByteString = "bname",
    }
    /// `SEND_MESSAGE_V2` and `SEND_BATCH_MESSAGE`: the same with names of one letter.
    SendMessageRequestV2 {
        default producer_group: ByteString = "a",
        required topic: ByteString = "b",
        strict_optional default_topic: ByteString = "c",
        strict_optional default_topic_queue_nums: i32 = "d",
        required queue_id: i32 = "e",
        required sys_flag: i32 = "f",
        required born_timestamp: i64 = "g",
        required flag: i32 = "h",
        optional properties: ByteString = "i",
        strict_default reconsume_times: i32 = "j",
        default unit_mode: bool = "k",
        strict_optional max_reconsume_times: i32 = "l",
        default batch: bool = "m",
        optional broker_name: ByteString = "n",
    }
    /// Answer to each of the send requests (`SendMessageResponseHeader` and the hook's fields).
    ///
    /// A Java client fails on an answer without fields, so region and trace are always there.
    SendMessageResponse {
        /// The offset id, comma-joined for a batch; absent where nothing was stored.
        optional msg_id: ByteString = "msgId",
        optional queue_id: i32 = "queueId",
        /// The first one of a batch.
        optional queue_offset: i64 = "queueOffset",
        required region: ByteString = "MSG_REGION",
        required trace_on: bool = "TRACE_ON",
        /// 5.x: the unique key; here only of a half message.
        optional transaction_id: ByteString = "transactionId",
        /// 5.x: what recalls a timer message.
        optional recall_handle: ByteString = "recallHandle",
    }
    /// `PUSH_REPLY_MESSAGE_TO_CLIENT`: a reply, as it goes on to the client that waits for it.
    ReplyMessageRequest {
        required producer_group: ByteString = "producerGroup",
        required topic: ByteString = "topic",
        optional default_topic: ByteString = "defaultTopic",
        optional default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        required queue_id: i32 = "queueId",
        required sys_flag: i32 = "sysFlag",
        required born_timestamp: i64 = "bornTimestamp",
        required flag: i32 = "flag",
        /// Those of the reply, and `PUSH_REPLY_TIME`.
        optional properties: ByteString = "properties",
        default reconsume_times: i32 = "reconsumeTimes",
        default unit_mode: bool = "unitMode",
        /// The replier's `host:port`.
        required born_host: ByteString = "bornHost",
        /// The broker's `host:port`.
        required store_host: ByteString = "storeHost",
        /// Milliseconds since 1970, the broker's clock.
        required store_timestamp: i64 = "storeTimestamp",
    }
    /// `RECALL_MESSAGE`.
    RecallMessageRequest {
        optional producer_group: ByteString = "producerGroup",
        required topic: ByteString = "topic",
        required recall_handle: ByteString = "recallHandle",
    }
    /// Answer to it.
    RecallMessageResponse {
        /// The unique key of the message that is recalled.
        required msg_id: ByteString = "msgId",
        required region: ByteString = "MSG_REGION",
    }
    /// `PULL_MESSAGE` and `LITE_PULL_MESSAGE`.
    PullMessageRequest {
        required consumer_group: ByteString = "consumerGroup",
        required topic: ByteString = "topic",
        required queue_id: i32 = "queueId",
        required queue_offset: i64 = "queueOffset",
        required max_msg_nums: i32 = "maxMsgNums",
        /// See [`pull_flag`].
        required sys_flag: i32 = "sysFlag",
        strict_default commit_offset: i64 = "commitOffset",
        strict_default suspend_timeout_millis: i64 = "suspendTimeoutMillis",
        optional subscription: ByteString = "subscription",
        strict_default sub_version: i64 = "subVersion",
        optional expression_type: ByteString = "expressionType",
        /// 5.x.
        strict_optional max_msg_bytes: i32 = "maxMsgBytes",
    }
    /// Answer to `PULL_MESSAGE`.
    PullMessageResponse {
        required suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        required next_begin_offset: i64 = "nextBeginOffset",
        required min_offset: i64 = "minOffset",
        required max_offset: i64 = "maxOffset",
    }
    /// `CONSUMER_SEND_MSG_BACK`.
    SendBackRequest {
        /// Where the message lies in the commit log, in bytes.
        required offset: i64 = "offset",
        required group: ByteString = "group",
        /// 0 lets the broker choose, negative means the dead-letter queue.
        required delay_level: i32 = "delayLevel",
        optional origin_msg_id: ByteString = "originMsgId",
        optional origin_topic: ByteString = "originTopic",
        default unit_mode: bool = "unitMode",
        optional max_reconsume_times: i32 = "maxReconsumeTimes",
    }
    /// `END_TRANSACTION`.
    EndTransactionRequest {
        required producer_group: ByteString = "producerGroup",
        /// Where the half message lies in its queue: the `queueOffset` of its send, or what the check said.
        required tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Where it lies in the commit log, in bytes.
        required commit_log_offset: i64 = "commitLogOffset",
        /// 8 commits, 12 rolls back, 0 does not know yet: the transaction bits of a message's `sysFlag`.
        required commit_or_rollback: i32 = "commitOrRollback",
        /// It answers a `CHECK_TRANSACTION_STATE`.
        default from_transaction_check: bool = "fromTransactionCheck",
        /// The unique key.
        optional msg_id: ByteString = "msgId",
        optional transaction_id: ByteString = "transactionId",
    }
    /// `CHECK_TRANSACTION_STATE`, which a broker asks a producer; the body is the message.
    CheckTransactionStateRequest {
        /// 5.x: the real topic.
        optional topic: ByteString = "topic",
        required tran_state_table_offset: i64 = "tranStateTableOffset",
        required commit_log_offset: i64 = "commitLogOffset",
        /// The unique key.
        optional msg_id: ByteString = "msgId",
        optional transaction_id: ByteString = "transactionId",
        /// The offset id of the half message.
        required offset_msg_id: ByteString = "offsetMsgId",
        optional broker_name: ByteString = "bname",
    }
    /// `QUERY_MESSAGE`.
    QueryMessageRequest {
        /// Java finds nothing without topic or key, and does not complain.
        default topic: ByteString = "topic",
        default key: ByteString = "key",
        required max_num: i32 = "maxNum",
        required begin_timestamp: i64 = "beginTimestamp",
        required end_timestamp: i64 = "endTimestamp",
        default unique_key_query: bool = "_UNIQUE_KEY_QUERY",
    }
    /// Answer to `QUERY_MESSAGE`.
    QueryMessageResponse {
        required index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        required index_last_update_phyoffset: i64 = "indexLastUpdatePhyoffset",
    }
    /// `VIEW_MESSAGE_BY_ID`.
    ViewMessageRequest {
        /// Where the message lies in the commit log, in bytes.
        required offset: i64 = "offset",
    }
}

impl From<SendMessageRequestV2> for SendMessageRequest {
    fn from(v2: SendMessageRequestV2) -> Self {
        Self {
            producer_group: v2.producer_group,
            topic: v2.topic,
            default_topic: v2.default_topic,
            default_topic_queue_nums: v2.default_topic_queue_nums,
            queue_id: v2.queue_id,
            sys_flag: v2.sys_flag,
            born_timestamp: v2.born_timestamp,
            flag: v2.flag,
            properties: v2.properties,
            reconsume_times: v2.reconsume_times,
            unit_mode: v2.unit_mode,
            max_reconsume_times: v2.max_reconsume_times,
            batch: v2.batch,
            broker_name: v2.broker_name,
        }
    }
}

/// Bits of a pull's `sysFlag` (`PullSysFlag` in Java).
pub mod pull_flag {
    /// `commitOffset` is to be stored.
    pub const COMMIT_OFFSET: i32 = 1;
    /// The broker may hold the request until a message comes.
    pub const SUSPEND: i32 = 2;
    /// `subscription` is given and counts, not the one of the last heartbeat.
    pub const SUBSCRIPTION: i32 = 4;
}
