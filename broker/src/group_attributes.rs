//! What tools of 5.x say of a consumer group beside its settings, and which of it there is (5.x's `SubscriptionGroupAttributes`).
//!
//! Kept and shown; nothing here acts on them, for they are about popping and lite topics.

use std::collections::BTreeMap;

use crate::topic_attributes::{after_changes, check_name, check_range};

type Attributes = BTreeMap<String, String>;

/// The attributes of a group after `changes`, by `+key` and `-key`; `known` are those of the group that is there.
///
/// # Errors
/// The remark of the answer.
pub(crate) fn changed(known: Option<&Attributes>, changes: &Attributes) -> Result<Attributes, String> {
    after_changes(known, changes, |key, value, _| check(key, value))
}

fn check(key: &str, value: Option<&String>) -> Result<(), String> {
    match key {
        "priority.factor" => check_range(value, 0, 100),
        "lite.sub.client.quota" => check_range(value, -1, i64::MAX),
        "lite.sub.client.max.event.cnt" => check_range(value, 10, i64::MAX),
        "lite.sub.model" => check_name(value, &["Shared", "Exclusive"]),
        "lite.sub.reset.offset.exclusive" | "lite.sub.reset.offset.unsubscribe" => {
            let is_bool = |text: &String| ["true", "false"].iter().any(|known| text.eq_ignore_ascii_case(known));
            if value.is_none_or(is_bool) { Ok(()) } else { Err("boolean attribute format is wrong.".to_owned()) }
        }
        "lite.bind.topic" | "lite.sub.wildcard" => Ok(()),
        _ => Err(format!("unsupported key: {key}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_change_as_tools_of_java_ask() {
        let change = |known: Option<&Attributes>, changes: &[(&str, &str)]| {
            changed(known, &changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let made = change(None, &[("+priority.factor", "7"), ("+lite.sub.model", "Shared")]).unwrap();
        assert_eq!(change(Some(&made), &[]).unwrap(), made, "who does not speak of them leaves them");
        let after = change(Some(&made), &[("-lite.sub.model", ""), ("+priority.factor", "8")]).unwrap();
        assert_eq!(after, BTreeMap::from([("priority.factor".to_owned(), "8".to_owned())]));
        for (change_key, value, remark) in [
            ("+priority.factor", "101", "value is not in range(0, 100)"),
            ("+lite.sub.model", "Mine", "value is not in set: [Shared, Exclusive]"),
            ("+lite.sub.reset.offset.exclusive", "1", "boolean attribute format is wrong."),
            ("+message.type", "FIFO", "unsupported key: message.type"),
            ("priority.factor", "7", "wrong format key: priority.factor"),
        ] {
            assert_eq!(change(None, &[(change_key, value)]).unwrap_err(), remark, "{change_key}");
        }
    }
}
