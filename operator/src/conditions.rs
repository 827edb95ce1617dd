//! The conditions of a cluster, with the meaning kstatus gives them.
//!
//! `Reconciling` true: work is under way. `Stalled` true: it will not end by itself. `Ready` true: all that is wanted
//! serves. The two abnormal ones are always present, so that they can be waited for in both directions.

use jiff::Timestamp;

use crate::crd::Condition;

/// What a condition shall say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `Ready`, `Reconciling` or `Stalled`.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word for programs.
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
}

impl Wanted {
    /// `Ready`
    pub fn ready(holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_: "Ready", holds, reason, message: message.into() }
    }

    /// `Reconciling`
    pub fn reconciling(holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_: "Reconciling", holds, reason, message: message.into() }
    }

    /// `Stalled`
    pub fn stalled(holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_: "Stalled", holds, reason, message: message.into() }
    }
}

/// The conditions to publish: `wanted`, where a status that has not changed keeps the time at which it last did.
pub fn merge(previous: &[Condition], wanted: Vec<Wanted>, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let merged = wanted.into_iter().map(|wanted| {
        let status = if wanted.holds { "True" } else { "False" };
        let since = previous
            .iter()
            .find(|old| old.type_ == wanted.type_ && old.status == status)
            .map(|old| old.last_transition_time.clone());
        Condition {
            type_: wanted.type_.to_owned(),
            status: status.to_owned(),
            reason: wanted.reason.to_owned(),
            message: wanted.message,
            last_transition_time: since.unwrap_or_else(|| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            observed_generation: generation,
        }
    });
    merged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_stays_until_the_status_changes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = merge(&[], vec![Wanted::ready(false, "A", "a")], Some(1), at(0));
        assert_eq!(first[0].last_transition_time, "1970-01-01T00:00:00Z");
        let second = merge(&first, vec![Wanted::ready(false, "B", "b")], Some(2), at(9));
        assert_eq!(second[0].last_transition_time, "1970-01-01T00:00:00Z");
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("B", Some(2)));
        let third = merge(&second, vec![Wanted::ready(true, "C", "c")], Some(2), at(9));
        assert_eq!(third[0].last_transition_time, "1970-01-01T00:00:09Z");
    }
}
