//! The SQL92 expressions of consumer groups: `config/consumerFilter.json` (4.9's `ConsumerFilterManager`).
//!
//! Heartbeats bring them, pulls that carry no expression of their own use them, and they outlive their consumers by
//! `filterDataCleanTimeSpan`. May not decide whether SQL92 is allowed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rocketmq_remoting::bodies::SubscriptionData;
use rocketmq_remoting::fastjson;
use rocketmq_store::ConfigFile;
use serde::{Deserialize, Serialize};

use super::bloom::{BloomBits, BloomFilter};
use super::{SQL92, Sql, is_tag_type};
use crate::clock;

/// How long before a start the consumers of a file are said to have gone, in milliseconds.
const DEAD_BEFORE_START_MS: i64 = 30_000;

/// The file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FilterFile {
    filter_data_by_topic: BTreeMap<String, TopicEntry>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TopicEntry {
    group_filter_data: BTreeMap<String, FilterEntry>,
    topic: String,
}

/// One expression, as it stands in the file (`ConsumerFilterData`).
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FilterEntry {
    bloom_filter_data: Option<BloomBits>,
    /// When this expression came, in milliseconds since 1970.
    born_time: i64,
    client_version: i64,
    consumer_group: String,
    dead: bool,
    /// When its last consumer went, in milliseconds since 1970.
    dead_time: i64,
    expression: String,
    expression_type: String,
    topic: String,
}

/// One expression, compiled.
struct ConsumerFilter {
    sql: Arc<Sql>,
    born_ms: i64,
    /// `None` while it has consumers.
    dead_ms: Option<i64>,
    client_version: i64,
}

/// By topic, then by group.
type Table = BTreeMap<String, BTreeMap<String, ConsumerFilter>>;

#[derive(Default)]
struct State {
    table: Table,
    is_dirty: bool,
}

/// The expressions of all groups.
pub(crate) struct ConsumerFilters {
    state: RwLock<State>,
    bloom: BloomFilter,
    file: Mutex<ConfigFile>,
}

impl ConsumerFilters {
    /// Opens `config/consumerFilter.json`. Whoever stands in it is taken to be gone until he is heard again.
    pub(crate) fn open(config_dir: &Path, bloom: BloomFilter) -> anyhow::Result<Self> {
        let file = ConfigFile::new(config_dir.join("consumerFilter.json"));
        let found: FilterFile = file
            .load(|text| fastjson::from_slice(text.as_bytes()).map_err(|error| error.to_string()))?
            .unwrap_or_default();
        let mut table = Table::new();
        let now = clock::now_millis();
        for (topic, of_topic) in found.filter_data_by_topic {
            for (group, entry) in of_topic.group_filter_data {
                match compile(&entry.expression_type, &entry.expression) {
                    Ok(sql) => {
                        table.entry(topic.clone()).or_default().insert(group, entry.into_filter(sql, now));
                    }
                    // The group's next heartbeat brings it again.
                    Err(error) => tracing::warn!(topic, group, "a consumer filter is dropped: {error}"),
                }
            }
        }
        Ok(Self { state: RwLock::new(State { table, is_dirty: false }), bloom, file: Mutex::new(file) })
    }

    /// What a group's heartbeat says: its expressions are taken over, those of other topics are dead.
    pub(crate) fn register(&self, group: &str, subscriptions: &[SubscriptionData], now_ms: i64) {
        let has_filter =
            |wanted: &&SubscriptionData| !is_tag_type(Some(&wanted.expression_type)) && !wanted.sub_string.is_empty();
        if !subscriptions.iter().any(|wanted| has_filter(&wanted)) && !self.has_living(group) {
            return;
        }
        let mut state = self.state.write();
        for wanted in subscriptions.iter().filter(has_filter) {
            let changes = register_one(&mut state.table, group, wanted, now_ms);
            state.is_dirty |= changes;
        }
        let is_wanted = |topic: &str| subscriptions.iter().any(|wanted| wanted.topic == topic);
        state.bury(group, now_ms, |topic| !is_wanted(topic));
    }

    /// The last member of a group has gone.
    pub(crate) fn unregister(&self, group: &str, now_ms: i64) {
        if self.has_living(group) {
            self.state.write().bury(group, now_ms, |_| true);
        }
    }

    /// The expression of a group for a topic, and the version of the subscription that brought it.
    pub(crate) fn get(&self, topic: &str, group: &str) -> Option<(Arc<Sql>, i64)> {
        let state = self.state.read();
        let filter = state.table.get(topic)?.get(group)?;
        Some((Arc::clone(&filter.sql), filter.client_version))
    }

    /// The same as a tool sees it: the entry of the file.
    pub(crate) fn shown(&self, topic: &str, group: &str) -> String {
        let state = self.state.read();
        let filter = state.table.get(topic).and_then(|groups| groups.get(group));
        fastjson::to_string_pretty(&filter.map(|filter| self.entry(topic, group, filter)))
    }

    /// Drops what is dead for `clean_span_ms` or longer, and writes the file where something has changed.
    pub(crate) fn persist(&self, now_ms: i64, clean_span_ms: i64) -> anyhow::Result<()> {
        let file = self.file.lock();
        let text = {
            let mut state = self.state.write();
            state.clean(now_ms, clean_span_ms);
            if !state.is_dirty {
                return Ok(());
            }
            state.is_dirty = false;
            fastjson::to_string_pretty(&self.to_file(&state.table))
        };
        file.persist(&text).inspect_err(|_| self.state.write().is_dirty = true)?;
        Ok(())
    }

    fn has_living(&self, group: &str) -> bool {
        let state = self.state.read();
        state.table.values().any(|groups| groups.get(group).is_some_and(|filter| filter.dead_ms.is_none()))
    }

    fn to_file(&self, table: &Table) -> FilterFile {
        let topics = table.iter().map(|(topic, groups)| {
            let entries = groups.iter().map(|(group, filter)| (group.clone(), self.entry(topic, group, filter)));
            (topic.clone(), TopicEntry { group_filter_data: entries.collect(), topic: topic.clone() })
        });
        FilterFile { filter_data_by_topic: topics.collect() }
    }

    fn entry(&self, topic: &str, group: &str, filter: &ConsumerFilter) -> FilterEntry {
        FilterEntry {
            bloom_filter_data: Some(self.bloom.bits_of(group, topic)),
            born_time: filter.born_ms,
            client_version: filter.client_version,
            consumer_group: group.to_owned(),
            dead: filter.dead_ms.is_some(),
            dead_time: filter.dead_ms.unwrap_or(0),
            expression: filter.sql.text().to_owned(),
            expression_type: SQL92.to_owned(),
            topic: topic.to_owned(),
        }
    }
}

impl State {
    /// The group's living expressions die where `is_over` says so of their topic.
    fn bury(&mut self, group: &str, now_ms: i64, is_over: impl Fn(&str) -> bool) {
        for (topic, groups) in &mut self.table {
            if let Some(filter) = groups.get_mut(group)
                && filter.dead_ms.is_none()
                && is_over(topic)
            {
                tracing::info!(group, topic, "a consumer filter has no consumers any more");
                filter.dead_ms = Some(now_ms);
                self.is_dirty = true;
            }
        }
    }

    fn clean(&mut self, now_ms: i64, span_ms: i64) {
        let is_kept = |filter: &ConsumerFilter| filter.dead_ms.is_none_or(|dead| now_ms.saturating_sub(dead) < span_ms);
        let is_dirty = &mut self.is_dirty;
        self.table.retain(|topic, groups| {
            groups.retain(|group, filter| {
                let kept = is_kept(filter);
                if !kept {
                    tracing::info!(group, topic, "a consumer filter is dropped: nobody has used it for long");
                    *is_dirty = true;
                }
                kept
            });
            !groups.is_empty()
        });
    }
}

impl FilterEntry {
    fn into_filter(self, sql: Sql, now_ms: i64) -> ConsumerFilter {
        let dead_ms = match self.dead_time {
            0 => self.born_time.max(now_ms.saturating_sub(DEAD_BEFORE_START_MS)),
            known => known,
        };
        ConsumerFilter {
            sql: Arc::new(sql),
            born_ms: self.born_time,
            dead_ms: Some(dead_ms),
            client_version: self.client_version,
        }
    }
}

/// Takes over one subscription; true where that changes something. An older version than the known one changes
/// nothing, the same one brings a dead filter back to life, and a newer one that does not compile removes it, so that
/// the pull says so.
fn register_one(table: &mut Table, group: &str, wanted: &SubscriptionData, now_ms: i64) -> bool {
    let (topic, version) = (wanted.topic.as_str(), wanted.sub_version);
    let known = table.get_mut(topic).and_then(|groups| groups.get_mut(group));
    if let Some(known) = known {
        let is_same = known.sql.text() == wanted.sub_string && wanted.expression_type == SQL92;
        if version < known.client_version || (version == known.client_version && known.dead_ms.is_none()) {
            return false;
        }
        if is_same || version == known.client_version {
            known.client_version = version;
            known.dead_ms = None;
            return true;
        }
    }
    match compile(&wanted.expression_type, &wanted.sub_string) {
        Ok(sql) => {
            tracing::info!(group, topic, expression = wanted.sub_string, version, "a consumer filter is registered");
            let filter = ConsumerFilter { sql: Arc::new(sql), born_ms: now_ms, dead_ms: None, client_version: version };
            table.entry(topic.to_owned()).or_default().insert(group.to_owned(), filter);
            true
        }
        Err(error) => {
            tracing::warn!(group, topic, expression = wanted.sub_string, "a consumer filter does not compile: {error}");
            table.get_mut(topic).and_then(|groups| groups.remove(group)).is_some()
        }
    }
}

/// Compiles an expression of that type; the error says why it cannot be.
pub(super) fn compile(expression_type: &str, expression: &str) -> Result<Sql, String> {
    if expression_type != SQL92 {
        return Err(format!("there are no expressions of the type {expression_type}"));
    }
    Sql::compile(expression).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
