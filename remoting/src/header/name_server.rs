//! Headers of the requests that name servers answer.

use bytestring::ByteString;

use super::headers;

headers! {
    /// `REGISTER_BROKER` (`RegisterBrokerRequestHeader`).
    RegisterBrokerRequest {
        required broker_name: ByteString = "brokerName",
        /// `brokerIP1:listenPort`.
        required broker_addr: ByteString = "brokerAddr",
        required cluster_name: ByteString = "clusterName",
        /// `brokerIP2:haListenPort`.
        required ha_server_addr: ByteString = "haServerAddr",
        /// 0 is the master.
        required broker_id: i64 = "brokerId",
        /// The body is one zlib stream.
        default compressed: bool = "compressed",
        /// CRC-32 of the body, 31 bits; 0 means that none is given.
        default body_crc32: i32 = "bodyCrc32",
        /// 5.x: how long the broker may stay silent, in milliseconds.
        optional heartbeat_timeout_millis: i64 = "heartbeatTimeoutMillis",
    }
    /// Answer to `REGISTER_BROKER`.
    RegisterBrokerResponse {
        optional ha_server_addr: ByteString = "haServerAddr",
        optional master_addr: ByteString = "masterAddr",
    }
    /// `UNREGISTER_BROKER`.
    UnregisterBrokerRequest {
        required broker_name: ByteString = "brokerName",
        required broker_addr: ByteString = "brokerAddr",
        required cluster_name: ByteString = "clusterName",
        required broker_id: i64 = "brokerId",
    }
    /// `BROKER_HEARTBEAT` of 5.x brokers.
    BrokerHeartbeatRequest {
        required cluster_name: ByteString = "clusterName",
        required broker_addr: ByteString = "brokerAddr",
        required broker_name: ByteString = "brokerName",
        optional heartbeat_timeout_millis: i64 = "heartbeatTimeoutMills",
    }
    /// `GET_BROKER_MEMBER_GROUP` of 5.x brokers.
    BrokerMemberGroupRequest {
        required cluster_name: ByteString = "clusterName",
        required broker_name: ByteString = "brokerName",
    }
    /// `QUERY_DATA_VERSION`.
    QueryDataVersionRequest {
        required broker_name: ByteString = "brokerName",
        required broker_addr: ByteString = "brokerAddr",
        required cluster_name: ByteString = "clusterName",
        required broker_id: i64 = "brokerId",
    }
    /// Answer to `QUERY_DATA_VERSION`.
    QueryDataVersionResponse {
        required changed: bool = "changed",
    }
    /// `GET_ROUTEINFO_BY_TOPIC`.
    RouteInfoRequest {
        required topic: ByteString = "topic",
        /// The client cannot read fastjson's unquoted keys.
        default accept_standard_json_only: bool = "acceptStandardJsonOnly",
    }
    /// `PUT_KV_CONFIG`.
    PutKvConfigRequest {
        required namespace: ByteString = "namespace",
        required key: ByteString = "key",
        required value: ByteString = "value",
    }
    /// `GET_KV_CONFIG` and `DELETE_KV_CONFIG`.
    KvConfigRequest {
        required namespace: ByteString = "namespace",
        required key: ByteString = "key",
    }
    /// Answer to `GET_KV_CONFIG`.
    GetKvConfigResponse {
        optional value: ByteString = "value",
    }
    /// `GET_KVLIST_BY_NAMESPACE`.
    KvListRequest {
        required namespace: ByteString = "namespace",
    }
    /// `WIPE_WRITE_PERM_OF_BROKER` and `ADD_WRITE_PERM_OF_BROKER`.
    WritePermRequest {
        required broker_name: ByteString = "brokerName",
    }
    /// Answer to `WIPE_WRITE_PERM_OF_BROKER`.
    WipeWritePermResponse {
        required wipe_topic_count: i32 = "wipeTopicCount",
    }
    /// Answer to `ADD_WRITE_PERM_OF_BROKER`.
    AddWritePermResponse {
        required add_topic_count: i32 = "addTopicCount",
    }
    /// `DELETE_TOPIC_IN_NAMESRV` and `REGISTER_TOPIC_IN_NAMESRV`.
    TopicInNamesrvRequest {
        required topic: ByteString = "topic",
        optional cluster_name: ByteString = "clusterName",
    }
    /// `GET_TOPICS_BY_CLUSTER`.
    TopicsByClusterRequest {
        required cluster: ByteString = "cluster",
    }
}
