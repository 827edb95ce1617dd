//! What clients ask again and again, run so often that the instructions of each can be counted.
//!
//! `tests/tests/instructions.rs` runs this under valgrind, which counts what happens inside of the function named `counted_route`
//! and nothing else, and divides by [`TIMES`].

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rocketmq_remoting::bodies::{RegisterBroker, TopicConfig};
use rocketmq_remoting::frame::{self, FrameLimits};
use rocketmq_remoting::{Command, RequestCode, ResponseCode};

use crate::config::NamesrvConfig;
use crate::handlers::routes;
use crate::kv_config::KvConfig;
use crate::requests::Requests;
use crate::route_table::Registration;

/// How often the function does its work in one run.
const TIMES: usize = 2_000;

#[inline(never)]
fn counted_route(state: &Requests, requests: &mut BytesMut, answers: &mut BytesMut) -> usize {
    let mut done = 0;
    while let Ok(Some(request)) = frame::decode(requests, FrameLimits::default()) {
        let Ok(answer) = routes::by_topic(state, &request) else { continue };
        done += usize::from(answer.response_code() == ResponseCode::SUCCESS);
        answers.clear();
        frame::encode(&answer, answers, |_, body| drop(body.clone()));
    }
    done
}

/// A broker of a cluster of two pairs, with a hundred topics.
fn registration(broker: usize, broker_id: i64) -> Registration {
    let mut body = RegisterBroker::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    for number in 0..100 {
        let name = format!("Topic{number}");
        wrapper.topic_config_table.insert(name.clone(), TopicConfig::new(name, 8, 6));
    }
    Registration {
        cluster: "DefaultCluster".to_owned(),
        broker_name: format!("broker-{broker}"),
        broker_id,
        addr: format!("10.0.{broker}.{broker_id}:10911"),
        ha_addr: format!("10.0.{broker}.{broker_id}:10912"),
        expiry: Duration::from_mins(2),
        acting_master: None,
        peer: broker as u64 * 2 + broker_id as u64,
        body,
    }
}

/// `GET_ROUTEINFO_BY_TOPIC`: decoded, looked up, written as JSON.
#[test]
fn route() {
    let dir = tempfile::tempdir().unwrap();
    let kv_config = KvConfig::load(dir.path().join("kvConfig.json")).unwrap();
    let state = Requests::new(NamesrvConfig::default(), kv_config);
    for broker in 0..2 {
        for broker_id in 0..2 {
            state.routes.write().register(registration(broker, broker_id), false, Instant::now());
        }
    }
    let mut command = Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC);
    command.ext_fields = [("topic".to_owned(), "Topic50".to_owned())].into_iter().collect();
    let mut requests = BytesMut::from(&*frame::to_bytes(&command).repeat(TIMES));
    assert_eq!(counted_route(&state, &mut requests, &mut BytesMut::new()), TIMES);
}
