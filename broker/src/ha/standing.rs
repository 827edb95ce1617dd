//! What this broker is in its group: role, epoch and confirmed offset, in one place.
//!
//! `brokerRole` says the role; the epoch counts how often this store became a master's, so that of two stores that were both
//! master once it can be told which one was last. It is kept in `config/replication.json`, which Java ignores. May not: decide
//! anything; a role changes by a start with another `brokerRole`.

use std::path::Path;

use rocketmq_store::ConfigFile;
use serde::{Deserialize, Serialize};

use super::Replication;
use super::master::acknowledgements;
use crate::config::{BrokerConfig, BrokerRole};

/// Role and epoch, as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    role: String,
    epoch: u64,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// As `brokerRole` says.
    pub(crate) role: BrokerRole,
    /// How often this store became a master's.
    pub(crate) epoch: u64,
    /// On a master: up to where as many slaves as it waits for have the log. On a slave: up to where its log is known to be its
    /// master's.
    pub(crate) confirmed: u64,
}

/// The epoch of a store that is opened in this role; a store that becomes a master's gets the next one.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn epoch(config_dir: &Path, role: BrokerRole) -> anyhow::Result<u64> {
    let file = ConfigFile::new(config_dir.join("replication.json"));
    let kept = file.load(|text| serde_json::from_str::<Kept>(text).map_err(|error| error.to_string()))?;
    let was_master = kept.as_ref().is_some_and(|kept| kept.role != BrokerRole::Slave.name());
    let before = kept.as_ref().map_or(0, |kept| kept.epoch);
    let epoch = before + u64::from(role != BrokerRole::Slave && !was_master);
    let now = Kept { role: role.name().to_owned(), epoch };
    if kept.as_ref() != Some(&now) {
        file.persist(&serde_json::to_string(&now)?)?;
        tracing::info!("replication: role {}, epoch {epoch}", now.role);
    }
    Ok(epoch)
}

impl Replication {
    /// Role, epoch and confirmed offset as they are now.
    pub(crate) fn standing(&self, config: &BrokerConfig, epoch: u64) -> Standing {
        let confirmed = match self {
            Self::Master(master) => master.followers.held_by(acknowledgements(config, || 1)),
            Self::Slave(slave) => slave.status().confirmed,
        };
        Standing { role: config.broker_role, epoch, confirmed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_becomes_a_masters_has_a_new_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let roles = [
            (BrokerRole::Slave, 0),
            (BrokerRole::SyncMaster, 1),
            (BrokerRole::AsyncMaster, 1),
            (BrokerRole::Slave, 1),
            (BrokerRole::Slave, 1),
            (BrokerRole::SyncMaster, 2),
        ];
        for (role, expected) in roles {
            assert_eq!(epoch(dir.path(), role).unwrap(), expected, "{role:?}");
        }
        std::fs::write(dir.path().join("replication.json"), "torn").unwrap();
        assert!(epoch(dir.path(), BrokerRole::Slave).is_ok(), "the backup is there");
    }
}
