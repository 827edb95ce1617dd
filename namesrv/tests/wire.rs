//! The name server over real connections: the bytes, and what connections mean for brokers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rocketmq_namesrv::{NameServer, NamesrvConfig};
use rocketmq_remoting::bodies::{
    ClusterInfo, DataVersion, KvTable, RegisterBroker, TopicConfig, TopicList, TopicRoute,
};
use rocketmq_remoting::header::name_server::{
    BrokerHeartbeatRequest, BrokerMemberGroupRequest, GetKvConfigResponse, KvConfigRequest, KvListRequest,
    PutKvConfigRequest, QueryDataVersionRequest, QueryDataVersionResponse, RegisterBrokerRequest,
    RegisterBrokerResponse, RouteInfoRequest, TopicInNamesrvRequest, TopicsByClusterRequest, UnregisterBrokerRequest,
    WipeWritePermResponse, WritePermRequest,
};
use rocketmq_remoting::tls::TlsEnvironment;
use rocketmq_remoting::{Client, Command, Header as _, RequestCode, ResponseCode, fastjson, request_code};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A name server on a free port, stopped when dropped.
struct Running {
    address: SocketAddr,
    folder: TempDir,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Running {
    fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config =
            NamesrvConfig { listen_port: 0, bind_address: Ipv4Addr::LOCALHOST.into(), ..Default::default() };
        config.kv_config_path = folder.path().join("kvConfig.json").display().to_string();
        config.config_store_path = folder.path().join("namesrv.properties").display().to_string();
        config.apply(settings).unwrap();
        let server = NameServer::bind(config, &TlsEnvironment::default()).unwrap();
        let (address, shutdown) = (server.local_addr(), CancellationToken::new());
        tokio::spawn(server.serve(shutdown.clone()));
        Self { address, folder, shutdown }
    }

    async fn ask(&self, client: &Client, command: Command) -> Command {
        client.invoke(&self.address.to_string(), command, TIMEOUT).await.unwrap()
    }

    async fn route(&self, client: &Client, topic: &str) -> Command {
        let header = RouteInfoRequest { topic: topic.into(), accept_standard_json_only: false };
        self.ask(client, Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC).with_header(&header)).await
    }

    /// Waits until the topic's route is there, or is gone.
    async fn wait_for_route(&self, client: &Client, topic: &str, there: bool) {
        for _ in 0..200 {
            let code = self.route(client, topic).await.response_code();
            if (code == ResponseCode::SUCCESS) == there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the route of {topic} did not become {there}");
    }
}

fn registration(name: &str, id: i64, addr: &str) -> Command {
    let header = RegisterBrokerRequest {
        broker_name: name.into(),
        broker_addr: addr.into(),
        cluster_name: "c".into(),
        ha_server_addr: "h:1".into(),
        broker_id: id,
        ..RegisterBrokerRequest::default()
    };
    let mut body = RegisterBroker::default();
    body.topic_config_serialize_wrapper.data_version = DataVersion { counter: 1, timestamp: 2, state_version: 0 };
    for topic in ["T", "U"] {
        let config = TopicConfig::new(topic, 4, 6);
        body.topic_config_serialize_wrapper.topic_config_table.insert(topic.into(), config);
    }
    Command::request(RequestCode::REGISTER_BROKER).with_header(&header).with_body(fastjson::to_string(&body))
}

fn text(command: &Command) -> String {
    String::from_utf8(command.body.bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_route_is_told_in_the_form_that_the_asker_reads() {
    let (server, client) = (Running::start(""), Client::default());
    assert_eq!(server.ask(&client, registration("a", 0, "m:1")).await.response_code(), ResponseCode::SUCCESS);
    let slave = server.ask(&client, registration("a", 1, "s:1")).await;
    let told = RegisterBrokerResponse::decode(&slave.ext_fields).unwrap();
    assert_eq!((told.master_addr.as_deref(), told.ha_server_addr.as_deref()), (Some("m:1"), Some("h:1")));

    let strict = r#"{"brokerDatas":[{"brokerAddrs":{"0":"m:1","1":"s:1"},"brokerName":"a","cluster":"c"}],"filterServerTable":{},"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
    assert_eq!(text(&server.route(&client, "T").await), strict);
    let header = RouteInfoRequest { topic: "T".into(), accept_standard_json_only: false };
    let mut old = Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
    old.version = 317;
    let dialect = server.ask(&client, old.clone()).await;
    assert_eq!(text(&dialect), strict.replace("\"0\":", "0:").replace("\"1\":", "1:"));
    old.ext_fields.push("acceptStandardJsonOnly", "true");
    assert_eq!(text(&server.ask(&client, old).await), strict);

    let none = server.route(&client, "Nowhere").await;
    assert_eq!(none.response_code(), ResponseCode::TOPIC_NOT_EXIST);
    assert!(none.remark().starts_with("No topic route info in name server for the topic: Nowhere\n"));
}

#[tokio::test]
async fn a_broker_goes_with_its_connection_and_not_with_an_older_one() {
    let server = Running::start("");
    let (first, second, asking) = (Client::default(), Client::default(), Client::default());
    server.ask(&first, registration("a", 0, "m:1")).await;
    server.ask(&second, registration("a", 0, "m:1")).await;
    server.ask(&first, registration("b", 0, "n:1")).await;
    drop(first);
    for _ in 0..200 {
        let route: TopicRoute = fastjson::from_slice(&server.route(&asking, "T").await.body.bytes()).unwrap();
        if route.broker_datas.len() == 1 {
            assert_eq!(route.broker_datas[0].broker_name, "a");
            drop(second);
            return server.wait_for_route(&asking, "T", false).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("b stayed after its connection");
}

#[tokio::test]
async fn a_silent_broker_expires_after_the_time_that_it_asked_for() {
    let (server, client) = (Running::start("scanNotActiveBrokerInterval=20"), Client::default());
    let mut silent = registration("a", 0, "m:1");
    silent.ext_fields.push("heartbeatTimeoutMillis", "100");
    server.ask(&client, silent).await;
    server.ask(&client, registration("b", 0, "n:1")).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let info = server.ask(&client, Command::request(RequestCode::GET_BROKER_CLUSTER_INFO)).await;
    assert_eq!(
        text(&info),
        r#"{"brokerAddrTable":{"b":{"brokerAddrs":{0:"n:1"},"brokerName":"b","cluster":"c"}},"clusterAddrTable":{"c":["b"]}}"#
    );
    assert!(fastjson::from_slice::<ClusterInfo>(&info.body.bytes()).is_ok());
}

#[tokio::test]
async fn a_registration_is_checked() {
    let (server, client) = (Running::start(""), Client::default());
    let mut wrong = registration("a", 0, "m:1");
    wrong.ext_fields.push("bodyCrc32", "12345");
    let answer = server.ask(&client, wrong.clone()).await;
    assert_eq!((answer.response_code(), answer.remark()), (ResponseCode::SYSTEM_ERROR, "crc32 not match"));
    let crc32 = crc32fast::hash(&wrong.body.bytes()) & 0x7FFF_FFFF;
    wrong.ext_fields.push("bodyCrc32", crc32.to_string());
    assert_eq!(server.ask(&client, wrong).await.response_code(), ResponseCode::SUCCESS);

    let broken = registration("a", 0, "m:1").with_body("{\"topicConfig");
    assert_eq!(server.ask(&client, broken).await.response_code(), ResponseCode::SYSTEM_ERROR);
    let bare = server.ask(&client, Command::request(RequestCode::REGISTER_BROKER)).await;
    assert_eq!(bare.remark(), "the custom field <brokerName> is null");
}

#[tokio::test]
async fn brokers_leave_and_say_what_they_know() {
    let (server, client) = (Running::start(""), Client::default());
    server.ask(&client, registration("a", 0, "m:1")).await;
    let header = QueryDataVersionRequest {
        broker_name: "a".into(),
        broker_addr: "m:1".into(),
        cluster_name: "c".into(),
        broker_id: 0,
    };
    for (version, changed) in [("{\"counter\":1,\"timestamp\":2}", false), ("{\"counter\":2,\"timestamp\":2}", true)] {
        let ask = Command::request(RequestCode::QUERY_DATA_VERSION).with_header(&header).with_body(version.to_owned());
        let answer = server.ask(&client, ask).await;
        assert_eq!(QueryDataVersionResponse::decode(&answer.ext_fields).unwrap().changed, changed);
        assert_eq!(text(&answer), "{\"counter\":1,\"timestamp\":2}");
    }
    let wipe = WritePermRequest { broker_name: "a".into() };
    let wiped = server.ask(&client, Command::request(RequestCode::WIPE_WRITE_PERM_OF_BROKER).with_header(&wipe)).await;
    assert_eq!(WipeWritePermResponse::decode(&wiped.ext_fields).unwrap().wipe_topic_count, 2);
    let delete = TopicInNamesrvRequest { topic: "U".into(), cluster_name: None };
    server.ask(&client, Command::request(RequestCode::DELETE_TOPIC_IN_NAMESRV).with_header(&delete)).await;
    let list = server.ask(&client, Command::request(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER)).await;
    assert_eq!(fastjson::from_slice::<TopicList>(&list.body.bytes()).unwrap().topic_list, ["T"]);
    let leave = UnregisterBrokerRequest {
        broker_name: "a".into(),
        broker_addr: "m:1".into(),
        cluster_name: "c".into(),
        broker_id: 0,
    };
    server.ask(&client, Command::request(RequestCode::UNREGISTER_BROKER).with_header(&leave)).await;
    assert_eq!(server.route(&client, "T").await.response_code(), ResponseCode::TOPIC_NOT_EXIST);
}

#[tokio::test]
async fn brokers_of_5_x_ask_for_their_group_and_beat() {
    let (server, client) = (Running::start("scanNotActiveBrokerInterval=20"), Client::default());
    let mut brief = registration("a", 0, "m:1");
    brief.ext_fields.push("heartbeatTimeoutMillis", "1000");
    server.ask(&client, brief).await;
    let group = BrokerMemberGroupRequest { cluster_name: "c".into(), broker_name: "a".into() };
    let group = Command::request(RequestCode::GET_BROKER_MEMBER_GROUP).with_header(&group);
    let members = r#"{"brokerMemberGroup":{"brokerAddrs":{0:"m:1"},"brokerName":"a","cluster":"c"}}"#;
    let beat = BrokerHeartbeatRequest {
        cluster_name: "c".into(),
        broker_addr: "m:1".into(),
        broker_name: "a".into(),
        heartbeat_timeout_millis: None,
    };
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.ask(&client, Command::request(RequestCode::BROKER_HEARTBEAT).with_header(&beat)).await;
    }
    assert_eq!(text(&server.ask(&client, group.clone()).await), members, "it was never silent for a second");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let nobody = members.replace(r#"0:"m:1""#, "");
    assert_eq!(text(&server.ask(&client, group).await), nobody);
}

#[tokio::test]
async fn topics_are_listed() {
    let (server, client) = (Running::start(""), Client::default());
    server.ask(&client, registration("a", 0, "m:1")).await;
    let list =
        |code, cluster: &str| Command::request(code).with_header(&TopicsByClusterRequest { cluster: cluster.into() });
    for (request, expected) in [
        (list(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, ""), r#"{"topicList":["T","U"]}"#),
        (list(RequestCode::GET_TOPICS_BY_CLUSTER, "c"), r#"{"topicList":["T","U"]}"#),
        (list(RequestCode::GET_TOPICS_BY_CLUSTER, "d"), r#"{"topicList":[]}"#),
        (list(RequestCode::GET_UNIT_TOPIC_LIST, ""), r#"{"topicList":[]}"#),
        (list(RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST, ""), r#"{"topicList":[]}"#),
        (list(RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, ""), r#"{"topicList":[]}"#),
        (list(RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS, ""), r#"{"brokerAddr":"m:1","topicList":["c","a"]}"#),
    ] {
        assert_eq!(text(&server.ask(&client, request).await), expected);
    }
    let header = TopicInNamesrvRequest { topic: "V".into(), cluster_name: None };
    let single = Command::request(RequestCode::REGISTER_TOPIC_IN_NAMESRV).with_header(&header);
    let on_a = single.clone().with_body(r#"{"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":1}]}"#);
    assert_eq!(server.ask(&client, on_a).await.response_code(), ResponseCode::SUCCESS);
    assert_eq!(server.route(&client, "V").await.response_code(), ResponseCode::SUCCESS);
    let on_b = single.with_body(r#"{"queueDatas":[{"brokerName":"b"}]}"#);
    assert!(server.ask(&client, on_b).await.remark().contains("broker b has not registered"));
}

#[tokio::test]
async fn key_value_settings_are_kept_and_told_to_brokers() {
    let (server, client) = (Running::start("orderMessageEnable=true"), Client::default());
    let put = PutKvConfigRequest { namespace: "ORDER_TOPIC_CONFIG".into(), key: "T".into(), value: "a:4".into() };
    server.ask(&client, Command::request(RequestCode::PUT_KV_CONFIG).with_header(&put)).await;
    let registered = server.ask(&client, registration("a", 0, "m:1")).await;
    assert_eq!(fastjson::from_slice::<KvTable>(&registered.body.bytes()).unwrap().table["T"], "a:4");
    let route: TopicRoute = fastjson::from_slice(&server.route(&client, "T").await.body.bytes()).unwrap();
    assert_eq!(route.order_topic_conf.as_deref(), Some("a:4"));

    let key = KvConfigRequest { namespace: "ORDER_TOPIC_CONFIG".into(), key: "T".into() };
    let get = Command::request(RequestCode::GET_KV_CONFIG).with_header(&key);
    let value = server.ask(&client, get.clone()).await;
    assert_eq!(GetKvConfigResponse::decode(&value.ext_fields).unwrap().value.as_deref(), Some("a:4"));
    let stored = std::fs::read_to_string(server.folder.path().join("kvConfig.json")).unwrap();
    assert_eq!(stored, r#"{"configTable":{"ORDER_TOPIC_CONFIG":{"T":"a:4"}}}"#);

    server.ask(&client, Command::request(RequestCode::DELETE_KV_CONFIG).with_header(&key)).await;
    let gone = server.ask(&client, get).await;
    assert_eq!(gone.response_code(), ResponseCode::QUERY_NOT_FOUND);
    assert_eq!(gone.remark(), "No config item, Namespace: ORDER_TOPIC_CONFIG Key: T");
    let list = KvListRequest { namespace: "other".into() };
    let list = server.ask(&client, Command::request(RequestCode::GET_KVLIST_BY_NAMESPACE).with_header(&list)).await;
    assert_eq!(list.remark(), "No config item, Namespace: other");
    let nameless = server.ask(&client, Command::request(RequestCode::PUT_KV_CONFIG)).await;
    assert_eq!(nameless.remark(), "namespace or key is null");
}

#[tokio::test]
async fn the_configuration_changes_at_run_time_except_for_what_is_listed() {
    let (server, client) = (Running::start(""), Client::default());
    let update = |body: &'static str| Command::request(RequestCode::UPDATE_NAMESRV_CONFIG).with_body(body);
    assert_eq!(server.ask(&client, update("enableAllTopicList=false")).await.response_code(), ResponseCode::SUCCESS);
    let list = server.ask(&client, Command::request(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER)).await;
    assert_eq!((list.response_code(), list.remark()), (ResponseCode::SYSTEM_ERROR, "disable"));
    let shown = text(&server.ask(&client, Command::request(RequestCode::GET_NAMESRV_CONFIG)).await);
    assert!(shown.contains("\nenableAllTopicList=false\n"), "{shown}");
    assert_eq!(std::fs::read_to_string(server.folder.path().join("namesrv.properties")).unwrap(), shown);

    let listed = server.ask(&client, update("kvConfigPath=/elsewhere")).await;
    assert_eq!(listed.response_code(), ResponseCode::NO_PERMISSION);
    assert_eq!(listed.remark(), "Can not update config in black list.");
    let wrong = server.ask(&client, update("enableTopicList=maybe")).await;
    assert!(wrong.remark().contains("enableTopicList") && wrong.remark().contains("\"maybe\""), "{}", wrong.remark());
}

#[tokio::test]
async fn every_code_of_the_table_has_a_handler_and_others_are_refused() {
    let (server, client) = (Running::start(""), Client::default());
    for row in request_code::TABLE.iter().filter(|row| row.answerer == request_code::Answerer::NameServer) {
        let answer = server.ask(&client, Command::request(row.code)).await;
        assert_ne!(answer.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED, "{}", row.name);
    }
    let unknown = server.ask(&client, Command::request(RequestCode(9999))).await;
    assert_eq!(unknown.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(unknown.remark(), " request type 9999 not supported");
}

/// What a client writes that is not ours, byte by byte.
#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_are_answered() {
    let server = Running::start("needWaitForService=true");
    let address = server.address;
    let exchange = tokio::task::spawn_blocking(move || {
        let header = br#"{"code":105,"extFields":{"topic":"T"},"flag":0,"language":"GO","opaque":-7,"version":317}"#;
        let mut frame = (header.len() as u32 + 4).to_be_bytes().to_vec();
        frame.extend((header.len() as u32).to_be_bytes());
        frame.extend(header);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(&frame).unwrap();
        let mut lengths = [0; 8];
        stream.read_exact(&mut lengths).unwrap();
        let header_length = u32::from_be_bytes(lengths[4..].try_into().unwrap());
        let mut header = vec![0; header_length as usize];
        stream.read_exact(&mut header).unwrap();
        String::from_utf8(header).unwrap()
    });
    let header = exchange.await.unwrap();
    assert!(header.contains("\"opaque\":-7") && header.contains("\"code\":1,"), "{header}");
    assert!(header.contains("name server not ready"), "{header}");
}

/// Each limit that refuses is counted under its name, as brokers do it.
#[tokio::test]
async fn what_limits_refuse_is_counted() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let running = Running::start(&format!(
        "httpPort={port}\nserverConnectionsMax=2\nserverConnectionRequestsMax=1\nserverChannelMaxIdleTimeSeconds=1"
    ));
    let scrape = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        text
    };
    assert!(scrape("/livez").await.ends_with("ok\n") && scrape("/readyz").await.ends_with("ok\n"));
    let text = scrape("/metrics").await;
    assert!(text.contains("application/openmetrics-text") && text.ends_with("# EOF\n"), "{text}");
    let counted = async |limit: &str, least: u64| {
        let line = format!("rocketmq_namesrv_rejected_requests_total{{limit=\"{limit}\"}} ");
        for _ in 0..500 {
            let text = scrape("/metrics").await;
            let value = text.lines().find_map(|known| known.strip_prefix(&line)).expect("the limit has a line");
            if value.parse::<u64>().unwrap() >= least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{limit} was not counted");
    };
    let connect = async || tokio::net::TcpStream::connect(running.address).await.unwrap();
    // Two that say nothing, and one too many; the silent ones are closed soon.
    let (one, two) = (connect().await, connect().await);
    let _third = connect().await;
    counted("serverConnectionsMax", 1).await;
    drop((one, two));

    // Writing of settings is the only thing that waits here.
    let put = |key: usize| {
        let header =
            PutKvConfigRequest { namespace: "n".into(), key: format!("k{key}").into(), value: "v".repeat(1000).into() };
        Command { opaque: key as i32, ..Command::request(RequestCode::PUT_KV_CONFIG).with_header(&header) }
    };
    let mut puts = Vec::new();
    for key in 0..50 {
        puts.extend_from_slice(&rocketmq_remoting::frame::to_bytes(&put(key)));
    }
    // The connection of before may still count.
    for _ in 0..100 {
        let mut stream = connect().await;
        let wrote = tokio::io::AsyncWriteExt::write_all(&mut stream, &puts).await;
        let mut first = [0; 1];
        if wrote.is_ok() && tokio::io::AsyncReadExt::read(&mut stream, &mut first).await.is_ok_and(|size| size == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    counted("serverConnectionRequestsMax", 1).await;

    let mut stream = connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &i32::MAX.to_be_bytes()).await.unwrap();
    counted("frameMaxLength", 1).await;

    // Asks and asks, and reads nothing.
    let list = Command::request(RequestCode::GET_NAMESRV_CONFIG);
    let frame = rocketmq_remoting::frame::to_bytes(&list).repeat(1000);
    let mut stream = connect().await;
    let refused = async { while tokio::io::AsyncWriteExt::write_all(&mut stream, &frame).await.is_ok() {} };
    tokio::time::timeout(Duration::from_mins(1), refused).await.expect("the connection is closed");
    counted("serverChannelMaxIdleTimeSeconds", 1).await;
}
