//! Asks name servers and brokers, and says plainly who did not answer or what was refused.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rocketmq_remoting::bodies::{BrokerData, ClusterInfo, TopicList, TopicRoute};
use rocketmq_remoting::header::name_server::RouteInfoRequest;
use rocketmq_remoting::tls::{ClientTls, TlsEnvironment, TlsSettings};
use rocketmq_remoting::{Client, ClientConfig, Command, RequestCode, ResponseCode, fastjson};
use serde::de::DeserializeOwned;

/// How long each answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A peer has answered, and refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Why, as a number.
    pub(crate) code: ResponseCode,
    remark: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CODE: {}  DESC: {}", self.code.0, self.remark)
    }
}

impl std::error::Error for Refused {}

/// A connection to a cluster.
#[derive(Debug)]
pub(crate) struct Admin {
    client: Client,
    name_servers: Vec<String>,
}

impl Admin {
    /// `name_servers`: `host:port`, separated by `;`. Nothing is connected yet.
    pub(crate) fn new(name_servers: Option<&str>, environment: &TlsEnvironment) -> anyhow::Result<Self> {
        let name_servers = split_addresses(name_servers.unwrap_or_default())?;
        let (settings, warnings) = TlsSettings::default().complete(environment)?;
        for warning in warnings {
            eprintln!("mqadmin: {warning}");
        }
        let tls = ClientTls::open(&settings)?;
        Ok(Self { client: Client::new(ClientConfig { tls, ..ClientConfig::default() }), name_servers })
    }

    /// All name servers.
    pub(crate) fn name_servers(&self) -> anyhow::Result<&[String]> {
        if self.name_servers.is_empty() {
            bail!("no name server is given: use -n host:port, or set NAMESRV_ADDR");
        }
        Ok(&self.name_servers)
    }

    /// Sends a request to `host:port`, and takes a successful answer only.
    pub(crate) async fn ask(&self, address: &str, command: Command) -> anyhow::Result<Command> {
        let code = command.request_code();
        // Its text says everything; the chain behind it would say the same again.
        let answer = self.client.invoke(address, command, TIMEOUT).await.map_err(|error| anyhow!("{error}"))?;
        if answer.response_code() == ResponseCode::SUCCESS {
            return Ok(answer);
        }
        let refused = Refused { code: answer.response_code(), remark: answer.remark().to_owned() };
        Err(refused).with_context(|| format!("{code} was refused by {address}"))
    }

    /// Asks the name servers in turn, until one answers; a refusal is an answer.
    pub(crate) async fn ask_name_server(&self, command: Command) -> anyhow::Result<Command> {
        let mut unreachable = Vec::new();
        for address in self.name_servers()? {
            match self.ask(address, command.clone()).await {
                Err(error) if error.downcast_ref::<Refused>().is_none() => unreachable.push(format!("{error:#}")),
                answered => return answered,
            }
        }
        bail!("no name server answers: {}", unreachable.join("; "))
    }

    /// Where a topic lives.
    pub(crate) async fn route(&self, topic: &str) -> anyhow::Result<TopicRoute> {
        let header = RouteInfoRequest { topic: topic.into(), accept_standard_json_only: true };
        let request = Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
        body(&self.ask_name_server(request).await?)
    }

    /// All brokers.
    pub(crate) async fn cluster_info(&self) -> anyhow::Result<ClusterInfo> {
        body(&self.ask_name_server(Command::request(RequestCode::GET_BROKER_CLUSTER_INFO)).await?)
    }

    /// All topics.
    pub(crate) async fn topics(&self) -> anyhow::Result<Vec<String>> {
        let request = Command::request(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER);
        Ok(body::<TopicList>(&self.ask_name_server(request).await?)?.topic_list)
    }

    /// The groups of one cluster.
    pub(crate) async fn groups_of(&self, cluster: &str) -> anyhow::Result<Vec<BrokerData>> {
        groups_of(&self.cluster_info().await?, cluster)
    }

    /// The masters that `target` means.
    pub(crate) async fn masters(&self, target: &Target) -> anyhow::Result<Vec<String>> {
        if let Some(broker) = &target.broker_addr {
            return Ok(vec![broker.clone()]);
        }
        let cluster = target.cluster_name.as_deref().unwrap_or_default();
        let groups = self.groups_of(cluster).await?;
        let masters: Vec<String> =
            groups.into_iter().filter_map(|mut group| group.broker_addrs.remove(&MASTER_ID)).collect();
        if masters.is_empty() {
            bail!("cluster {cluster} has no master");
        }
        Ok(masters)
    }
}

/// The id of a master.
pub(crate) const MASTER_ID: i64 = 0;

/// One broker, or the masters of a cluster.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// The broker, `host:port`
    #[arg(short = 'b', long = "brokerAddr", value_name = "ADDRESS")]
    pub(crate) broker_addr: Option<String>,
    /// All brokers of this cluster
    #[arg(short = 'c', long = "clusterName", value_name = "CLUSTER")]
    pub(crate) cluster_name: Option<String>,
}

/// The address to ask of a group: its master's, else any.
pub(crate) fn any_address(group: &BrokerData) -> Option<&String> {
    group.broker_addrs.values().next()
}

/// Reads an answer's body.
pub(crate) fn body<T: DeserializeOwned>(answer: &Command) -> anyhow::Result<T> {
    fastjson::from_slice(&answer.body.bytes()).context("the answer's body does not parse")
}

/// An answer's body as text.
pub(crate) fn text_body(answer: &Command) -> anyhow::Result<String> {
    String::from_utf8(answer.body.bytes().to_vec()).context("the answer's body is not UTF-8")
}

fn groups_of(info: &ClusterInfo, cluster: &str) -> anyhow::Result<Vec<BrokerData>> {
    let Some(names) = info.cluster_addr_table.get(cluster) else {
        let known: BTreeSet<&str> = info.cluster_addr_table.keys().map(String::as_str).collect();
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        bail!("cluster {cluster} is unknown to the name server, which knows: {known}");
    };
    let mut names = names.clone();
    names.sort_unstable();
    Ok(names.iter().filter_map(|name| info.broker_addr_table.get(name)).cloned().collect())
}

fn split_addresses(text: &str) -> anyhow::Result<Vec<String>> {
    let addresses: Vec<String> =
        text.split(';').map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect();
    for address in &addresses {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if address.contains(',') || !matches!(port, Some(Ok(_))) {
            bail!("name server address {address:?} is not host:port; several are separated by `;`");
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn addresses_are_split_and_checked() {
        assert_eq!(split_addresses(" a:1 ; b.c:2;").unwrap(), ["a:1", "b.c:2"]);
        for wrong in ["a", "a:", ":1", "a:b", "a:1,b:2", "a:70000"] {
            let error = split_addresses(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
        let error = Admin::new(None, &TlsEnvironment::default()).unwrap().name_servers().unwrap_err().to_string();
        assert!(error.contains("NAMESRV_ADDR"), "{error}");
    }

    #[test]
    fn an_unknown_cluster_is_named_with_those_that_are_known() {
        let broker = BrokerData {
            broker_addrs: BTreeMap::from([(1, "s:1".into())]),
            broker_name: "a".into(),
            cluster: "c".into(),
        };
        let info = ClusterInfo {
            broker_addr_table: BTreeMap::from([("a".into(), broker.clone())]),
            cluster_addr_table: BTreeMap::from([("c".into(), vec!["a".into()])]),
        };
        assert_eq!(groups_of(&info, "c").unwrap(), [broker]);
        let error = groups_of(&info, "d").unwrap_err().to_string();
        assert_eq!(error, "cluster d is unknown to the name server, which knows: c");
    }

    #[tokio::test]
    async fn a_name_server_that_is_not_there_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error =
            Admin::new(Some(&address), &TlsEnvironment::default()).unwrap().topics().await.unwrap_err().to_string();
        assert!(error.starts_with("no name server answers: ") && error.contains(&address), "{error}");
    }
}
