//! Replication: a slave connects to its master and receives the log's bytes as they are.
//!
//! The stream is Java's (`HAService` of 4.9, the default of 5.x), so either side may be a Java
//! broker: the slave sends nothing but 8-byte reports of where its log ends, the master sends
//! frames of a 12-byte header and raw log bytes ([`wire`]). What is sent, compared and believed is decided without a socket
//! in [`sender`], [`receiver`] and [`followers`], which a simulation plays, too; [`master`] and [`slave`] move their bytes.

use std::sync::Arc;

use rocketmq_remoting::ResponseCode;
use rocketmq_store::MessageStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::config::{BrokerConfig, BrokerRole};
use crate::slave_sync;
use master::HaMaster;
use slave::HaSlave;

pub(crate) mod followers;
pub(crate) mod master;
mod receiver;
mod sender;
pub(crate) mod slave;
pub(crate) mod standing;
mod wire;

/// Which side of replication this broker is on.
#[derive(Debug)]
pub(crate) enum Replication {
    /// `ASYNC_MASTER` and `SYNC_MASTER`.
    Master(Arc<HaMaster>),
    /// `SLAVE`.
    Slave(Arc<HaSlave>),
}

impl Replication {
    /// The side that `brokerRole` asks for.
    pub(crate) fn new(config: &BrokerConfig, store: &Arc<MessageStore>) -> Self {
        match config.broker_role {
            BrokerRole::AsyncMaster | BrokerRole::SyncMaster => Self::Master(HaMaster::new(Arc::clone(store))),
            BrokerRole::Slave => Self::Slave(HaSlave::new(Arc::clone(store))),
        }
    }
}

/// Takes the replication port, where this broker is a master; `config` learns which it was.
///
/// # Errors
/// The port is taken.
pub(crate) async fn bind(config: &mut BrokerConfig) -> anyhow::Result<Option<TcpListener>> {
    if config.broker_role == BrokerRole::Slave {
        return Ok(None);
    }
    let listener = HaMaster::bind(config).await?;
    config.ha_listen_port = listener.local_addr()?.port();
    Ok(Some(listener))
}

/// Serves slaves or follows the master, until `stopped`.
pub(crate) fn start(
    broker: &Arc<Broker>,
    slaves: Option<TcpListener>,
    tasks: &TaskTracker,
    stopped: &CancellationToken,
) {
    let config = broker.config();
    match (&broker.replication, slaves) {
        (Replication::Master(master), Some(listener)) => {
            tasks.spawn(Arc::clone(master).serve(listener, config, Arc::clone(&broker.limits), stopped.clone()));
        }
        (Replication::Slave(slave), _) => {
            tasks.spawn(Arc::clone(slave).run(config, broker.registration.master(), stopped.clone()));
            tasks.spawn(slave_sync::run(Arc::clone(broker), Arc::clone(slave), stopped.clone()));
        }
        (Replication::Master(_), None) => {}
    }
}

impl Replication {
    /// Why a message must not be stored; see [`HaMaster::too_few_in_sync`].
    pub(crate) fn too_few_in_sync(&self, config: &BrokerConfig) -> Option<String> {
        match self {
            Self::Master(master) => master.too_few_in_sync(config),
            Self::Slave(_) => None,
        }
    }

    /// Waits until the log must be cut, which takes a closed store, and where: for ever on a master.
    pub(crate) async fn cut(&self) -> u64 {
        match self {
            Self::Master(_) => std::future::pending().await,
            Self::Slave(slave) => slave.cut().await,
        }
    }
}

impl Broker {
    /// Waits until enough slaves have the log up to `end`; see [`HaMaster::replicated`].
    pub(crate) async fn replicated(&self, end: u64) -> ResponseCode {
        match &self.replication {
            Replication::Master(master) => master.replicated(end, &self.config()).await,
            // Sends are refused on a slave, so nobody waits here.
            Replication::Slave(_) => ResponseCode::SLAVE_NOT_AVAILABLE,
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
