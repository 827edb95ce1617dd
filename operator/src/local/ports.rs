//! The ports of a local cluster's processes: chosen when a process is first planned, and the same ever after as long as
//! nobody else has taken them meanwhile.
//!
//! A port is free when nobody listens on it and no other local cluster has claimed it. The claim is a locked file outside
//! of the cluster's folder, held for as long as the cluster runs: between choosing a port and the moment its process
//! listens, or while the process is down, nobody else can tell otherwise that it is spoken for.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::build::{broker, namesrv};

/// Ports of one process. A name server has only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    /// Requests.
    pub remoting: u16,
    /// The replication stream.
    pub ha: u16,
    /// Probes and metrics.
    pub http: u16,
}

/// What a process listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One port.
    NameServer,
    /// Requests, replication, HTTP, and the second request port that RocketMQ has two below the first.
    Broker,
}

impl Kind {
    fn ports(self, first: u16) -> (Ports, Vec<u16>) {
        let ports = Ports { remoting: first, ha: first + 1, http: first + 2 };
        match self {
            Self::NameServer => (ports, vec![first]),
            Self::Broker => (ports, vec![first, ports.ha, ports.http, first - 2]),
        }
    }
}

/// The ports of all processes, kept in a file.
#[derive(Debug)]
pub(super) struct PortTable {
    file: PathBuf,
    /// Where claims lie, for all clusters of this user on this machine.
    claims: PathBuf,
    by_pod: BTreeMap<String, Ports>,
    /// Claims that are held, by pod.
    held: BTreeMap<String, Vec<File>>,
}

impl PortTable {
    /// Reads the table, which is empty when there is no file yet.
    pub(super) fn open(file: PathBuf) -> Result<Self> {
        let by_pod = match std::fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("{} is not a table of ports", file.display()))?
            }
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(fault) => {
                return Err(fault).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let user = rustix::process::getuid().as_raw();
        let claims = std::env::temp_dir().join(format!("rocketmq-operator-ports-{user}"));
        std::fs::create_dir_all(&claims).with_context(|| format!("cannot make {}", claims.display()))?;
        Ok(Self { file, claims, by_pod, held: BTreeMap::new() })
    }

    /// The ports of `pod`, which nobody else gets until this table is dropped.
    pub(super) fn of(&mut self, pod: &str, kind: Kind) -> Result<Ports> {
        let remembered = self.by_pod.get(pod).copied();
        if let Some(ports) = remembered
            && self.held.contains_key(pod)
        {
            return Ok(ports);
        }
        let (start, step) = match kind {
            Kind::NameServer => (namesrv::PORT as u16, 1),
            Kind::Broker => (broker::PORT as u16, 10),
        };
        // RocketMQ's own and upwards, below the range from which the system gives ports to outgoing connections.
        let candidates = (start..30_000).step_by(step);
        let (ports, held) = remembered
            .map(|ports| ports.remoting)
            .into_iter()
            .chain(candidates)
            .find_map(|first| {
                let (ports, wanted) = kind.ports(first);
                Some((ports, self.claim(&wanted)?))
            })
            .with_context(|| format!("no free ports for {pod}"))?;
        self.held.insert(pod.to_owned(), held);
        if remembered != Some(ports) {
            if let Some(before) = remembered {
                tracing::warn!(pod, "port {} is taken, {} is used instead", before.remoting, ports.remoting);
            }
            self.by_pod.insert(pod.to_owned(), ports);
            super::data_dir::write_whole(&self.file, &serde_json::to_vec_pretty(&self.by_pod)?)?;
        }
        Ok(ports)
    }

    /// Claims all of `ports`, or none.
    fn claim(&self, ports: &[u16]) -> Option<Vec<File>> {
        // Temporary folders are swept from time to time.
        std::fs::create_dir_all(&self.claims).ok()?;
        ports
            .iter()
            .map(|port| {
                let file = File::create(self.claims.join(port.to_string())).ok()?;
                file.try_lock().ok()?;
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).ok()?;
                Some(file)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_distinct_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ports.json");
        let mut table = PortTable::open(file.clone()).unwrap();
        let first = table.of("a", Kind::Broker).unwrap();
        let second = table.of("b", Kind::Broker).unwrap();
        let all: BTreeSet<u16> = [first, second]
            .iter()
            .flat_map(|ports| [ports.remoting, ports.remoting - 2, ports.ha, ports.http])
            .collect();
        assert_eq!(all.len(), 8);
        assert_eq!(table.of("a", Kind::Broker).unwrap(), first);
        let kept: BTreeMap<String, Ports> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(kept, BTreeMap::from([("a".to_owned(), first), ("b".to_owned(), second)]));
    }

    #[test]
    fn two_clusters_never_share_a_port_even_while_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = PortTable::open(folder.path().join("one.json")).unwrap();
        let mut two = PortTable::open(folder.path().join("two.json")).unwrap();
        let first = one.of("a", Kind::NameServer).unwrap();
        let second = two.of("a", Kind::NameServer).unwrap();
        assert_ne!(first.remoting, second.remoting);
        // And one that comes back finds others where its own are taken.
        drop(two);
        std::fs::copy(folder.path().join("one.json"), folder.path().join("two.json")).unwrap();
        let mut two = PortTable::open(folder.path().join("two.json")).unwrap();
        assert_ne!(two.of("a", Kind::NameServer).unwrap().remoting, first.remoting);
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ports.json");
        let mut table = PortTable::open(file.clone()).unwrap();
        let before = table.of("a", Kind::NameServer).unwrap();
        drop(table);
        let Ok(_listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, before.remoting)) else {
            // Another process of this machine was quicker, which makes the case as well.
            return;
        };
        let after = PortTable::open(file).unwrap().of("a", Kind::NameServer).unwrap();
        assert_ne!(after.remoting, before.remoting);
    }

    #[test]
    fn a_broken_table_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ports.json");
        std::fs::write(&file, "{").unwrap();
        assert!(PortTable::open(file).unwrap_err().to_string().contains("ports.json"));
    }
}
