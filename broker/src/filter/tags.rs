//! TAG subscriptions: `*`, or tags joined by `||`, matched by the hash that the consume queue keeps.

use std::sync::Arc;

use rocketmq_remoting::bodies::SubscriptionData;
use rocketmq_store::java_string_hash;

/// Between tags.
const SEPARATOR: &str = "||";

/// Which tags pass. Two tags may share a hash; the client looks at the tag itself once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagFilter {
    /// `None` lets everything pass.
    hashes: Option<Arc<[i32]>>,
}

impl TagFilter {
    /// Lets everything pass.
    pub(crate) const ALL: Self = Self { hashes: None };

    /// The filter of an expression (4.9's `FilterAPI.buildSubscriptionData`): nothing and `*` are all messages, blanks
    /// around a tag are no part of it. `None` for separators without anything between them, which Java refuses.
    pub(crate) fn parse(expression: &str) -> Option<Self> {
        if matches!(expression, "" | "*") {
            return Some(Self::ALL);
        }
        if expression.split(SEPARATOR).all(str::is_empty) {
            return None;
        }
        let tags = expression.split(SEPARATOR).map(trim).filter(|tag| !tag.is_empty());
        Some(Self { hashes: Some(tags.map(java_string_hash).collect()) })
    }

    /// The filter of a subscription of a heartbeat. Class filters (until 4.2) work elsewhere: to Java's broker too all
    /// messages pass them.
    pub(crate) fn of(subscription: &SubscriptionData) -> Self {
        if subscription.class_filter_mode {
            return Self::ALL;
        }
        let no_tags = || Self { hashes: Some(Arc::default()) };
        Self::parse(&subscription.sub_string).unwrap_or_else(no_tags)
    }

    /// Whether a message of that tags code passes. Entries without a tag have the code 0.
    pub(crate) fn matches(&self, tags_code: i64) -> bool {
        // Java compares the code's low half too: it holds the whole hash.
        self.hashes.as_ref().is_none_or(|hashes| hashes.contains(&(tags_code as i32)))
    }
}

/// `String.trim`.
fn trim(text: &str) -> &str {
    text.trim_matches(|character| character <= ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(expression: &str) -> TagFilter {
        TagFilter::parse(expression).unwrap()
    }

    #[test]
    fn expressions_are_read_as_java_does() {
        for all in ["", "*"] {
            assert!(parse(all).matches(0));
        }
        let filter = parse("TagA|| TagB ||");
        assert!(filter.matches(2_598_919) && filter.matches(2_598_920));
        assert!(!filter.matches(0) && !filter.matches(2_598_921));
        let negative = parse("polygenelubricants");
        assert!(negative.matches(i64::from(java_string_hash("polygenelubricants"))), "hashes are sign-extended");
        // Between others a star is a tag, and so is one with blanks around it.
        for star in [" * ", "* || TagA"] {
            assert!(parse(star).matches(42) && !parse(star).matches(0), "{star:?}");
        }
        assert!(!parse(" ").matches(0), "blanks are not nothing");
        assert!(parse("|||").matches(i64::from(b'|')), "a separator, then a tag of one bar");
        for refused in ["||", "||||"] {
            assert_eq!(TagFilter::parse(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn class_filters_are_not_the_brokers() {
        let subscription =
            |class_filter_mode| SubscriptionData { class_filter_mode, sub_string: "A".into(), ..Default::default() };
        assert!(!TagFilter::of(&subscription(false)).matches(0));
        assert!(TagFilter::of(&subscription(true)).matches(0));
    }
}
