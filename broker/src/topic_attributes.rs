//! What tools of 5.x say of a topic beside its queues, such as its `message.type`, and how that changes (5.x's `TopicAttributes`,
//! `AttributeParser`, `AttributeUtil`).
//!
//! Kept and shown; nothing here acts on them. May not accept what other code would have to do.

use std::collections::BTreeMap;

type Attributes = BTreeMap<String, String>;

/// The kinds of messages that a topic may be said to be for.
const MESSAGE_TYPES: [&str; 6] = ["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"];

/// Reads `+key=value,-key` into changes by `+key` and `-key`.
///
/// # Errors
/// The remark of the answer.
pub(crate) fn parse(text: &str) -> Result<Attributes, String> {
    let mut changes = Attributes::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (key, value) = match item.split_once('=') {
            Some((key, _)) if !key.contains('+') => return Err(format!("add/alter attribute format is wrong: {key}")),
            Some(added) => added,
            None if !item.contains('-') => return Err(format!("delete attribute format is wrong: {item}")),
            None => (item, ""),
        };
        if changes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("key duplication: {key}"));
        }
    }
    Ok(changes)
}

/// The attributes of a topic after `changes`; `known` are those of the topic that is there.
///
/// # Errors
/// The remark of the answer.
pub(crate) fn changed(known: Option<&Attributes>, changes: &Attributes) -> Result<Attributes, String> {
    after_changes(known, changes, check)
}

/// The same for whatever has attributes; `check` says whether there is such an attribute and it takes the value, which is none where
/// it is deleted, and may be changed, where what has it is there already.
pub(crate) fn after_changes(
    known: Option<&Attributes>,
    changes: &Attributes,
    check: impl Fn(&str, Option<&String>, bool) -> Result<(), String>,
) -> Result<Attributes, String> {
    let mut after = known.cloned().unwrap_or_default();
    for (change, value) in changes {
        let (key, adds) = match (change.strip_prefix('+'), change.strip_prefix('-')) {
            (Some(key), _) => (key, true),
            (_, Some(key)) => (key, false),
            _ => return Err(format!("wrong format key: {change}")),
        };
        if key.is_empty() || key.contains(['+', '-']) {
            return Err("kv string format wrong.".to_owned());
        }
        if changes.contains_key(&format!("-{key}")) && adds {
            return Err(format!("alter duplication key. key: {key}"));
        }
        if known.is_none() && !adds {
            return Err(format!("only add attribute is supported while creating topic. key: {key}"));
        }
        if !adds && !after.contains_key(key) {
            return Err(format!("attempt to delete a nonexistent key: {key}"));
        }
        check(key, adds.then_some(value), known.is_some())?;
        if adds {
            after.insert(key.to_owned(), value.clone());
        } else {
            after.remove(key);
        }
    }
    Ok(after)
}

/// Whether there is such an attribute, and it takes the value.
fn check(key: &str, value: Option<&String>, is_there: bool) -> Result<(), String> {
    // Java has these too: queues of another form than this broker writes.
    match (key, value.map(String::as_str)) {
        ("queue.type", Some("BatchCQ")) => {
            return Err("queue.type=BatchCQ is not supported by this broker: it writes no queues of batches \
                 (BatchConsumeQueue), and stores the messages of a batch one by one; use SimpleCQ"
                .to_owned());
        }
        ("cleanup.policy", Some("COMPACTION")) => {
            return Err(
                "cleanup.policy=COMPACTION is not supported by this broker: it keeps no compacted log; use DELETE"
                    .to_owned(),
            );
        }
        _ => {}
    }
    let names: &[&str] = match key {
        "queue.type" => &["SimpleCQ"],
        "cleanup.policy" => &["DELETE"],
        "message.type" => &MESSAGE_TYPES,
        "reserve.time" => return check_range(value, -1, i64::MAX),
        _ => return Err(format!("unsupported key: {key}")),
    };
    if is_there && key != "message.type" {
        return Err(format!("attempt to update an unchangeable attribute. key: {key}"));
    }
    check_name(value, names)
}

/// `LongRangeAttribute`.
pub(crate) fn check_range(value: Option<&String>, min: i64, max: i64) -> Result<(), String> {
    let fits = |text: &String| text.parse().is_ok_and(|number: i64| (min..=max).contains(&number));
    if value.is_none_or(fits) { Ok(()) } else { Err(format!("value is not in range({min}, {max})")) }
}

/// `EnumAttribute`.
pub(crate) fn check_name(value: Option<&String>, names: &[&str]) -> Result<(), String> {
    let fits = |value: &String| names.contains(&value.as_str());
    if value.is_none_or(fits) { Ok(()) } else { Err(format!("value is not in set: [{}]", names.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_change_as_tools_of_java_ask() {
        let change = |known: Option<&Attributes>, text| parse(text).and_then(|changes| changed(known, &changes));
        let made = change(None, "+message.type=FIFO,+queue.type=SimpleCQ").unwrap();
        assert_eq!(made.get("message.type").map(String::as_str), Some("FIFO"));
        assert_eq!(change(Some(&made), "").unwrap(), made, "who does not speak of them leaves them");
        let after = change(Some(&made), "-message.type,+reserve.time=5").unwrap();
        assert_eq!(after.keys().collect::<Vec<_>>(), ["queue.type", "reserve.time"]);
        let refused = [
            (None, "message.type=FIFO", "add/alter attribute format is wrong: message.type"),
            (None, "message.type", "delete attribute format is wrong: message.type"),
            (None, "+a=1,+a=2", "key duplication: +a"),
            (None, "+nope=1", "unsupported key: nope"),
            (None, "-message.type", "only add attribute is supported while creating topic. key: message.type"),
            (None, "+message.type=X", "value is not in set: [UNSPECIFIED, NORMAL, FIFO, DELAY, TRANSACTION, MIXED]"),
            (None, "+queue.type=Other", "value is not in set: [SimpleCQ]"),
            (None, "+reserve.time=-2", "value is not in range(-1, 9223372036854775807)"),
            (None, "++a=1", "kv string format wrong."),
            (Some(&made), "-reserve.time", "attempt to delete a nonexistent key: reserve.time"),
            (Some(&made), "+message.type=DELAY,-message.type", "alter duplication key. key: message.type"),
            (Some(&made), "-queue.type", "attempt to update an unchangeable attribute. key: queue.type"),
        ];
        for (known, text, remark) in refused {
            assert_eq!(change(known, text).unwrap_err(), remark, "{text}");
        }
        for text in ["+queue.type=BatchCQ", "+cleanup.policy=COMPACTION"] {
            let remark = change(None, text).unwrap_err();
            assert!(remark.starts_with(&format!("{} is not supported by this broker: ", &text[1..])), "{remark}");
        }
    }
}
