//! Where a topic lives, asked of the name servers as every client does.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rocketmq_remoting::bodies::{PERM_READ, PERM_WRITE, TopicRoute};
use rocketmq_remoting::header::name_server::RouteInfoRequest;
use rocketmq_remoting::{Client, Command, RequestCode, ResponseCode, fastjson};

/// One queue of the topic, on a master that is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Queue {
    pub(crate) broker_name: String,
    pub(crate) address: String,
    pub(crate) id: i32,
}

/// The queues that may be written and those that may be read, sorted.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) writable: Vec<Queue>,
    pub(crate) readable: Vec<Queue>,
}

/// Asks the name servers in turn until one answers.
pub(crate) async fn queues(client: &Client, name_servers: &str, topic: &str) -> anyhow::Result<Queues> {
    let mut last = anyhow::anyhow!("no name server is given");
    for address in name_servers.split(';') {
        match ask(client, address, topic).await {
            Ok(route) => return Ok(split(&route)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(client: &Client, address: &str, topic: &str) -> anyhow::Result<TopicRoute> {
    let header = RouteInfoRequest { topic: topic.to_owned().into(), accept_standard_json_only: true };
    let request = Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
    let answer = client.invoke(address, request, Duration::from_secs(3)).await?;
    ensure!(answer.response_code() == ResponseCode::SUCCESS, "{}", answer.remark());
    fastjson::from_slice(&answer.body.bytes()).context("the route does not parse")
}

fn split(route: &TopicRoute) -> Queues {
    let mut queues = Queues { writable: Vec::new(), readable: Vec::new() };
    for data in &route.queue_datas {
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == data.broker_name);
        let Some(address) = broker.and_then(|broker| broker.broker_addrs.get(&0)) else { continue };
        let queue = |id| Queue { broker_name: data.broker_name.clone(), address: address.clone(), id };
        if data.perm & PERM_WRITE != 0 {
            queues.writable.extend((0..data.write_queue_nums).map(queue));
        }
        if data.perm & PERM_READ != 0 {
            queues.readable.extend((0..data.read_queue_nums).map(queue));
        }
    }
    queues.writable.sort();
    queues.readable.sort();
    queues
}
