//! TAG subscriptions: `*`, or tags joined by `||`, matched by the hash that the consume queue keeps.

use std::sync::Arc;

use rocketmq_remoting::bodies::SubscriptionData;
use rocketmq_store::java_string_hash;

/// Which tags pass. Two tags may share a hash; the client looks at the tag itself once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagFilter {
    /// `None` lets everything pass.
    hashes: Option<Arc<[i32]>>,
}

impl TagFilter {
    /// The filter of an expression (4.9's `FilterAPI.buildSubscriptionData`).
    pub(crate) fn parse(expression: &str) -> Self {
        if matches!(expression.trim(), "" | "*") {
            return Self { hashes: None };
        }
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        Self { hashes: Some(tags.map(java_string_hash).collect()) }
    }

    /// The filter of a subscription of a heartbeat.
    pub(crate) fn of(subscription: &SubscriptionData) -> Self {
        Self::parse(&subscription.sub_string)
    }

    /// Whether a message of that tags code passes. Entries without a tag have the code 0.
    pub(crate) fn matches(&self, tags_code: i64) -> bool {
        // Java compares the code's low half too: it holds the whole hash.
        self.hashes.as_ref().is_none_or(|hashes| hashes.contains(&(tags_code as i32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_java_does() {
        for all in ["", "*", " * "] {
            assert!(TagFilter::parse(all).matches(0));
        }
        let filter = TagFilter::parse("TagA|| TagB ||");
        assert!(filter.matches(2_598_919) && filter.matches(2_598_920));
        assert!(!filter.matches(0) && !filter.matches(2_598_921));
        let negative = TagFilter::parse("polygenelubricants");
        assert!(negative.matches(i64::from(java_string_hash("polygenelubricants"))), "hashes are sign-extended");
    }
}
