//! Look-up by key through the index (`DefaultMessageStore.queryMessage`).
//!
//! The index knows hashes only; a message is an answer when its topic and one of its keys are the ones asked for.

use bytes::Bytes;

use crate::core::Core;
use crate::message::{MessageView, decode_message};
use crate::properties::DispatchProperties;
use crate::results::QueryResult;

/// Index entries one query looks at: hashes collide, and a query must end.
const LOOKED_AT_MAX: usize = 10_000;

impl Core {
    pub(crate) fn query(&self, topic: &str, key: &str, max: usize, begin: i64, end: i64) -> QueryResult {
        let Some(index) = &self.index else { return QueryResult::default() };
        let max = max.min(self.config.max_msgs_num_batch);
        let mut found: Vec<(u64, Bytes)> = Vec::new();
        let mut looked_at = 0;
        if max > 0 {
            index.search(topic, key, begin, end, &mut |physical| {
                looked_at += 1;
                if found.iter().all(|(p, _)| *p != physical)
                    && let Some(unit) = self.log.unit_at(physical)
                    && decode_message(&unit).is_ok_and(|m| m.topic == topic && has_key(&m, key))
                {
                    found.push((physical, unit));
                }
                found.len() < max && looked_at < LOOKED_AT_MAX
            });
        }
        found.sort_unstable_by_key(|(physical, _)| *physical);
        QueryResult {
            messages: found.into_iter().map(|(_, unit)| unit).collect(),
            index_last_update_timestamp: index.end_timestamp(),
            index_last_update_phyoffset: index.end_physical().unwrap_or(0) as i64,
        }
    }
}

fn has_key(m: &MessageView<'_>, key: &str) -> bool {
    let found = DispatchProperties::scan(m.properties);
    found.uniq_key == Some(key) || found.keys.is_some_and(|keys| keys.split(' ').any(|k| k == key))
}
