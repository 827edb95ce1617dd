//! A queue of a topic on a broker.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names one queue (`MessageQueue` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueue {
    /// The broker group.
    pub broker_name: String,
    /// From 0.
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}

/// A queue as the key of a map: fastjson writes the object itself where the key goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey(pub MessageQueue);

impl Serialize for QueueKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&object)
    }
}

impl<'de> Deserialize<'de> for QueueKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = String::deserialize(deserializer)?;
        serde_json::from_str(&object).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fastjson;
    use std::collections::BTreeMap;

    #[test]
    fn a_key_is_written_as_the_object_itself() {
        let queue = MessageQueue { broker_name: "b".into(), queue_id: 7, topic: "T".into() };
        let table = BTreeMap::from([(QueueKey(queue), 1)]);
        let text = fastjson::to_string(&table);
        assert_eq!(text, r#"{{"brokerName":"b","queueId":7,"topic":"T"}:1}"#);
        assert_eq!(fastjson::from_slice::<BTreeMap<QueueKey, i32>>(text.as_bytes()).unwrap(), table);
    }
}
