//! Which messages of a queue a consumer gets: TAG and SQL92 subscriptions.
//!
//! A filter has two stages. The first looks at the entry of the consume queue, where the hash of the tag stands; the
//! second, of SQL92 only, at the properties of the stored message. `sql` is an expression (`token`, `parser`,
//! `expression`, `value`), `consumer_filters` keeps those of all groups. May not answer requests.

mod bloom;
mod consumer_filters;
mod expression;
#[cfg(test)]
mod fuzz;
mod number;
mod parser;
mod properties_read;
mod sql;
mod syntax_error;
mod tags;
mod token;
mod value;

use std::sync::Arc;

use rocketmq_remoting::bodies::SubscriptionData;
use rocketmq_store::{MessageView, QueueEntry, property};

pub(crate) use bloom::BloomFilter;
pub(crate) use consumer_filters::ConsumerFilters;
pub(crate) use sql::Sql;
pub(crate) use tags::TagFilter;

use crate::send_back::RETRY_TOPIC;
use crate::topics;

/// The type of subscriptions that are no TAG subscriptions (`ExpressionType`).
const SQL92: &str = "SQL92";

/// Whether subscriptions of that type are TAG subscriptions (`ExpressionType.isTagType`).
pub(crate) fn is_tag_type(expression_type: Option<&str>) -> bool {
    matches!(expression_type, None | Some("" | "TAG"))
}

/// Compiles an expression of any type but TAG; the error says what is wrong with it.
pub(crate) fn compile(expression_type: &str, expression: &str) -> Result<Sql, String> {
    consumer_filters::compile(expression_type, expression)
}

/// What a pull lets pass.
#[derive(Clone, Debug)]
pub(crate) struct MessageFilter {
    tags: TagFilter,
    properties: PropertyFilter,
}

/// The second stage.
#[derive(Clone, Debug)]
enum PropertyFilter {
    /// Everything passes.
    All,
    Sql(Arc<Sql>),
    /// Messages of a retry topic pass where the group's expression for the topic that they come from lets them
    /// (4.9's `ExpressionForRetryMessageFilter`).
    Retry {
        group: String,
    },
}

impl MessageFilter {
    /// The filter of a TAG subscription.
    pub(crate) fn tags(tags: TagFilter) -> Self {
        Self { tags, properties: PropertyFilter::All }
    }

    /// The filter of an SQL92 subscription.
    pub(crate) fn sql(sql: Arc<Sql>) -> Self {
        Self { tags: TagFilter::ALL, properties: PropertyFilter::Sql(sql) }
    }

    /// The same filter for a pull of that topic under `filterSupportRetry`: in a retry topic the expression of the
    /// message's first topic counts.
    pub(crate) fn supporting_retry(self, topic: &str) -> Self {
        match topic.strip_prefix(topics::RETRY_PREFIX) {
            Some(group) => Self { properties: PropertyFilter::Retry { group: group.to_owned() }, ..self },
            None => self,
        }
    }

    /// Whether there is no second stage.
    pub(crate) fn is_by_tags_only(&self) -> bool {
        matches!(self.properties, PropertyFilter::All)
    }

    /// The first stage alone, by which a pull that waits is woken.
    pub(crate) fn by_tags(&self) -> &TagFilter {
        &self.tags
    }

    /// The first stage.
    pub(crate) fn takes_entry(&self, entry: &QueueEntry) -> bool {
        self.tags.matches(entry.tags_code)
    }

    /// The second stage, for a stored message.
    pub(crate) fn takes_message(&self, filters: &ConsumerFilters, message: &MessageView<'_>) -> bool {
        match &self.properties {
            PropertyFilter::All => true,
            PropertyFilter::Sql(sql) => sql.matches(message.properties),
            PropertyFilter::Retry { group } => {
                let of_topic = |topic| filters.get(topic, group);
                let known = property(message.properties, RETRY_TOPIC).and_then(of_topic);
                // Java lets pass what it has no expression for.
                known.is_none_or(|(sql, _)| sql.matches(message.properties))
            }
        }
    }
}

/// Whether a group's subscription takes a message, for tools that look at a queue.
pub(crate) fn of_subscription(
    filters: &ConsumerFilters,
    group: &str,
    subscription: &SubscriptionData,
) -> MessageFilter {
    if is_tag_type(Some(&subscription.expression_type)) {
        return MessageFilter::tags(TagFilter::of(subscription));
    }
    match filters.get(&subscription.topic, group) {
        Some((sql, _)) => MessageFilter::sql(sql),
        None => MessageFilter::tags(TagFilter::ALL),
    }
}
