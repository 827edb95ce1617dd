//! `clusterList`: the brokers of all clusters and what they are doing.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use rocketmq_remoting::bodies::{ClusterInfo, KvTable};
use rocketmq_remoting::{Command as Request, RequestCode};

use crate::admin::{Admin, body};

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
pub(crate) enum Command {
    /// List the brokers of all clusters
    ClusterList {
        /// Print the totals of yesterday and today
        #[arg(short = 'm', long = "moreStats")]
        more_stats: bool,
        /// Print again and again, after so many seconds
        #[arg(short = 'i', long, value_name = "SECONDS")]
        interval: Option<u64>,
    },
}

pub(crate) async fn run(admin: &Admin, command: Command) -> anyhow::Result<()> {
    let Command::ClusterList { more_stats, interval } = command;
    loop {
        let info = admin.cluster_info().await?;
        outln!("{}", if more_stats { totals_header() } else { load_header() });
        list(admin, &info, more_stats).await;
        let Some(seconds) = interval else { return Ok(()) };
        tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
    }
}

async fn list(admin: &Admin, info: &ClusterInfo, more_stats: bool) {
    for (cluster, names) in &info.cluster_addr_table {
        let mut names = names.clone();
        names.sort_unstable();
        for group in names.iter().filter_map(|name| info.broker_addr_table.get(name)) {
            for (id, address) in &group.broker_addrs {
                // A broker that does not answer is listed all the same, without figures.
                let runtime = runtime(admin, address).await.unwrap_or_else(|error| {
                    eprintln!("mqadmin: {error:#}");
                    Runtime::default()
                });
                let row = if more_stats {
                    runtime.totals_row(cluster, &group.broker_name)
                } else {
                    runtime.load_row(cluster, &group.broker_name, *id, address, Timestamp::now().as_millisecond())
                };
                outln!("{row}");
            }
        }
    }
}

async fn runtime(admin: &Admin, address: &str) -> anyhow::Result<Runtime> {
    let answer = admin.ask(address, Request::request(RequestCode::GET_BROKER_RUNTIME_INFO)).await?;
    Ok(Runtime(body::<KvTable>(&answer)?.table))
}

fn load_header() -> String {
    format!(
        "{:<16}  {:<22}  {:<4}  {:<22} {:<16} {:>19} {:>19} {:>10} {:>5} {:>6}",
        "#Cluster Name",
        "#Broker Name",
        "#BID",
        "#Addr",
        "#Version",
        "#InTPS(LOAD)",
        "#OutTPS(LOAD)",
        "#PCWait(ms)",
        "#Hour",
        "#SPACE"
    )
}

fn totals_header() -> String {
    format!(
        "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
        "#Cluster Name", "#Broker Name", "#InTotalYest", "#OutTotalYest", "#InTotalToday", "#OutTotalToday"
    )
}

/// What a broker tells of itself (`GET_BROKER_RUNTIME_INFO`).
#[derive(Default)]
struct Runtime(BTreeMap<String, String>);

impl Runtime {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// The first of the numbers under a key: some hold those of 10 s, 1 min and 10 min.
    fn number(&self, key: &str) -> f64 {
        self.text(key).split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
    }

    fn whole(&self, key: &str) -> i64 {
        self.text(key).trim().parse().unwrap_or(0)
    }

    fn load_row(&self, cluster: &str, name: &str, id: i64, address: &str, now: i64) -> String {
        // 4.9.8 writes the second name, others the first.
        let out = self.number("getTransferedTps").max(self.number("getTransferredTps"));
        let load = |tps: f64, pool: &str| {
            let size = self.whole(&format!("{pool}ThreadPoolQueueSize"));
            let wait = self.whole(&format!("{pool}ThreadPoolQueueHeadWaitTimeMills"));
            format!("{tps:9.2}({size},{wait}ms)")
        };
        let earliest = self.whole("earliestMessageTimeStamp");
        let hours = if earliest > 0 { now.saturating_sub(earliest) as f64 / 3_600_000.0 } else { 0.0 };
        let disk = self.number("commitLogDiskRatio");
        format!(
            "{cluster:<16}  {name:<22}  {id:<4}  {address:<22} {:<16} {:>19} {:>19} {:>10} {hours:5.2} {disk:6.4}",
            self.text("brokerVersionDesc"),
            load(self.number("putTps"), "send"),
            load(out, "pull"),
            self.whole("pageCacheLockTimeMills"),
        )
    }

    fn totals_row(&self, cluster: &str, name: &str) -> String {
        let between = |from: &str, to: &str| self.whole(to) - self.whole(from);
        format!(
            "{cluster:<16}  {name:<32} {:>14} {:>14} {:>14} {:>14}",
            between("msgPutTotalYesterdayMorning", "msgPutTotalTodayMorning"),
            between("msgGetTotalYesterdayMorning", "msgGetTotalTodayMorning"),
            between("msgPutTotalTodayMorning", "msgPutTotalTodayNow"),
            between("msgGetTotalTodayMorning", "msgGetTotalTodayNow"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(entries: &[(&str, &str)]) -> Runtime {
        Runtime(entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_columns_are_those_of_4_9() {
        assert_eq!(
            load_header(),
            "#Cluster Name     #Broker Name            #BID  #Addr                  #Version                #InTPS(LOAD)       #OutTPS(LOAD) #PCWait(ms) #Hour #SPACE"
        );
        let broker = runtime(&[
            ("brokerVersionDesc", "V4_9_2"),
            ("putTps", "12.5 3.0 1.0"),
            ("sendThreadPoolQueueSize", "1"),
            ("sendThreadPoolQueueHeadWaitTimeMills", "2"),
            ("earliestMessageTimeStamp", "1000"),
            ("commitLogDiskRatio", "0.23"),
        ]);
        assert_eq!(
            broker.load_row("DefaultCluster", "broker-a", 0, "127.0.0.1:7420", 5_401_000),
            "DefaultCluster    broker-a                0     127.0.0.1:7420         V4_9_2                  12.50(1,2ms)         0.00(0,0ms)          0  1.50 0.2300"
        );
        let silent = runtime(&[]).load_row("DefaultCluster", "broker-a", 0, "127.0.0.1:7420", 1);
        assert!(silent.ends_with("0.00(0,0ms)         0.00(0,0ms)          0  0.00 0.0000"), "{silent}");
    }

    #[test]
    fn totals_are_differences() {
        assert_eq!(
            totals_header(),
            "#Cluster Name     #Broker Name                       #InTotalYest  #OutTotalYest  #InTotalToday #OutTotalToday"
        );
        let broker = runtime(&[("msgPutTotalTodayMorning", "5"), ("msgPutTotalTodayNow", "18")]);
        assert_eq!(
            broker.totals_row("DefaultCluster", "broker-a"),
            "DefaultCluster    broker-a                                      5              0             13              0"
        );
    }
}
