//! The broker's consumer groups: `config/subscriptionGroup.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rocketmq_remoting::bodies::{DataVersion, SubscriptionGroup, SubscriptionGroupTable};
use rocketmq_remoting::fastjson;

use crate::versioned_table::{TableFile, VersionedTable};

/// Groups that a fresh 4.9 broker knows (`SubscriptionGroupManager.init`).
const BUILT_IN: [&str; 7] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
];
/// Groups of the system are made on first use even where others are not.
const SYSTEM_PREFIX: &str = "CID_RMQ_SYS_";
/// Characters of a group's name at most, as clients check it (`Validators.checkGroup`).
pub(crate) const NAME_MAX: usize = 255;

/// Whether a group may have that name here: one that Java's clients refuse may be used by others, and 4.9's brokers take it. But not
/// one that would not survive as a part of the keys of `consumerOffset.json` or of a retry topic's directory.
pub(crate) fn is_keepable(group: &str) -> bool {
    !group.trim().is_empty()
        && group.len() <= NAME_MAX
        && !group.contains(['@', '/'])
        && !group.contains(char::is_control)
}

impl TableFile for SubscriptionGroupTable {
    type Entry = SubscriptionGroup;

    fn parse(text: &str) -> Result<Self, String> {
        fastjson::from_slice(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn text(&self) -> String {
        fastjson::to_string_pretty(self)
    }

    fn into_parts(self) -> (DataVersion, BTreeMap<String, SubscriptionGroup>) {
        (self.data_version, self.subscription_group_table)
    }

    fn from_parts(data_version: DataVersion, groups: BTreeMap<String, SubscriptionGroup>) -> Self {
        Self { data_version, subscription_group_table: groups }
    }
}

/// All consumer groups of this broker.
pub(crate) struct SubscriptionGroups {
    table: VersionedTable<SubscriptionGroupTable>,
    /// `autoCreateSubscriptionGroup`, which may change while the broker runs.
    auto_create: AtomicBool,
}

impl SubscriptionGroups {
    /// Opens `config/subscriptionGroup.json` and adds the groups that every broker has.
    pub(crate) fn open(config_dir: &Path, auto_create: bool) -> anyhow::Result<Self> {
        let groups = Self {
            table: VersionedTable::open(config_dir.join("subscriptionGroup.json"))?,
            auto_create: AtomicBool::new(auto_create),
        };
        groups.table.update(|entries| {
            let before = entries.len();
            for name in BUILT_IN {
                entries.entry(name.into()).or_insert_with(|| {
                    Arc::new(SubscriptionGroup { group_name: name.to_owned(), ..SubscriptionGroup::default() })
                });
            }
            entries.len() > before
        })?;
        Ok(groups)
    }

    /// Puts another `autoCreateSubscriptionGroup` in force.
    pub(crate) fn set_auto_create(&self, auto_create: bool) {
        self.auto_create.store(auto_create, Ordering::Relaxed);
    }

    /// The group of that name.
    pub(crate) fn get(&self, group: &str) -> Option<Arc<SubscriptionGroup>> {
        self.table.get(group)
    }

    /// The group of that name, made now where it may be (`autoCreateSubscriptionGroup`).
    pub(crate) fn get_or_create(&self, group: &str) -> Option<Arc<SubscriptionGroup>> {
        if let Some(known) = self.get(group) {
            return Some(known);
        }
        if !is_keepable(group) || !(self.auto_create.load(Ordering::Relaxed) || group.starts_with(SYSTEM_PREFIX)) {
            return None;
        }
        let config = SubscriptionGroup { group_name: group.to_owned(), ..SubscriptionGroup::default() };
        let (group, added) = self.table.get_or_add_unwritten(group, config);
        if added {
            tracing::info!("auto create a subscription group, {}", group.group_name);
        }
        Some(group)
    }

    /// Writes the groups that were made on first use. Waits for the disk.
    pub(crate) fn write_unwritten(&self) -> anyhow::Result<()> {
        self.table.write_unwritten()
    }

    /// Creates or changes groups, all or none.
    pub(crate) fn put(&self, groups: impl IntoIterator<Item = SubscriptionGroup>) -> anyhow::Result<()> {
        self.table.update(|entries| {
            let mut changed = false;
            for group in groups {
                entries.insert(group.group_name.as_str().into(), Arc::new(group));
                changed = true;
            }
            changed
        })?;
        Ok(())
    }

    /// Removes a group; false where there is none.
    pub(crate) fn delete(&self, group: &str) -> anyhow::Result<bool> {
        self.table.update(|entries| entries.remove(group).is_some())
    }

    /// The whole table in its wire form.
    pub(crate) fn to_wire(&self) -> SubscriptionGroupTable {
        self.table.to_wire()
    }

    /// Takes over the master's table. One without any group is no table of a master, and is refused.
    pub(crate) fn replace(&self, table: SubscriptionGroupTable) -> anyhow::Result<bool> {
        anyhow::ensure!(!table.subscription_group_table.is_empty(), "the master's group table is empty");
        self.table.replace(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_made_on_first_use_where_that_is_on() {
        let dir = tempfile::tempdir().unwrap();
        let groups = SubscriptionGroups::open(dir.path(), true).unwrap();
        assert_eq!(groups.get_or_create("g").unwrap().retry_max_times, 16);
        groups.write_unwritten().unwrap();
        drop(groups);
        let groups = SubscriptionGroups::open(dir.path(), false).unwrap();
        assert!(groups.get("g").is_some(), "it is in the file");
        assert!(groups.get_or_create("h").is_none());
        assert!(groups.get_or_create("CID_RMQ_SYS_TRANS").is_some());
        groups.set_auto_create(true);
        assert!(groups.get_or_create("g.1 ü:").is_some(), "not a name for Java's clients, but one for others");
        for name in ["", " ", "a@b", "a/../b", "a\nb", "a\0", &"g".repeat(256)] {
            assert!(groups.get_or_create(name).is_none(), "{name:?}");
        }
        assert!(groups.delete("g").unwrap());
        std::fs::remove_dir_all(dir.path()).unwrap();
        std::fs::write(dir.path(), "where the directory was").unwrap();
        assert!(groups.get_or_create("CID_RMQ_SYS_OTHER").is_some(), "what cannot be written can be used");
    }
}
