//! Who sends what, and which groups consume it: one table, which the run and its checks both read.

use rocketmq_tests::{
    client::{Client, Invocation, Received, Sent},
    java::Version,
};

/// Messages a second of each producer.
const RATE: u32 = 20;
/// Of the retried messages, those whose number is a multiple of it are refused for good.
const HOPELESS_MODULO: u64 = 13;
/// Level 3 and the timer messages wait as long.
const DELAY_MS: i64 = 2_000;

/// A topic, and how each version's producer sends to it.
pub(crate) struct Flow {
    pub(crate) topic: &'static str,
    pub(crate) mode: &'static str,
    options: fn(Invocation, Version) -> Invocation,
}

/// A consumer group of a topic.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) topic: &'static str,
    options: fn(Invocation) -> Invocation,
    /// Which messages it is to be given.
    pub(crate) meant: fn(&Sent) -> bool,
    /// What else is promised of it.
    pub(crate) promise: Promise,
}

/// What a group's way of consuming, or its messages, promise beyond at least once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    Nothing,
    /// Its messages lie under their topic from the beginning, where they were acknowledged.
    Direct,
    /// The same, and consumed orderly.
    Order,
    /// Not before its time.
    Delay,
    /// Each comes twice, those that are refused for good become dead letters.
    Retry,
    /// Every member has everything.
    Broadcast,
}

pub(crate) const FLOWS: [Flow; 7] = [
    Flow { topic: "SoakPlain", mode: "async", options: |run, _| run },
    Flow { topic: "SoakBatch", mode: "batch", options: |run, _| run.arg("batch", 8) },
    Flow { topic: "SoakOrdered", mode: "sync", options: |run, _| run.flag("ordered").arg("shards", 8) },
    Flow { topic: "SoakTagged", mode: "sync", options: |run, _| run.arg("tags", "A,B,C") },
    Flow { topic: "SoakDelayed", mode: "sync", options: delayed },
    Flow { topic: "SoakTransactions", mode: "transaction", options: |run, _| run.arg("linger", 100_000) },
    Flow { topic: "SoakRetry", mode: "sync", options: |run, _| run },
];

pub(crate) const GROUPS: [Group; 9] = [
    Group { name: "soak_plain", topic: "SoakPlain", options: |run| run, meant: |_| true, promise: Promise::Direct },
    Group {
        name: "soak_broadcast",
        topic: "SoakPlain",
        options: |run| run.flag("broadcast"),
        meant: |_| true,
        promise: Promise::Broadcast,
    },
    Group { name: "soak_batch", topic: "SoakBatch", options: |run| run, meant: |_| true, promise: Promise::Direct },
    Group {
        name: "soak_ordered",
        topic: "SoakOrdered",
        options: |run| run.flag("orderly"),
        meant: |_| true,
        promise: Promise::Order,
    },
    Group {
        name: "soak_tags",
        topic: "SoakTagged",
        options: |run| run.arg("sub", "A || C"),
        meant: |sent| sent.seq % 3 != 1,
        promise: Promise::Nothing,
    },
    Group {
        name: "soak_sql",
        topic: "SoakTagged",
        options: |run| run.arg("sql", "TAGS = 'B' AND seq > 100"),
        meant: |sent| sent.seq % 3 == 1 && sent.seq > 100,
        promise: Promise::Nothing,
    },
    Group { name: "soak_delayed", topic: "SoakDelayed", options: |run| run, meant: |_| true, promise: Promise::Delay },
    // 1 modulo 3 is rolled back, 2 modulo 3 is committed when the broker asks.
    Group {
        name: "soak_transactions",
        topic: "SoakTransactions",
        options: |run| run,
        meant: |sent| sent.seq % 3 != 1,
        promise: Promise::Nothing,
    },
    Group {
        name: "soak_retry",
        topic: "SoakRetry",
        options: |run| run.arg("fail-first", 1).arg("max-reconsume", 2).arg("never-modulo", HOPELESS_MODULO),
        meant: |_| true,
        promise: Promise::Retry,
    },
];

fn delayed(run: Invocation, version: Version) -> Invocation {
    match version {
        Version::V4_9_7 => run.arg("delay-level", 3),
        Version::V5_5_0 => run.arg("timer", "ms").arg("delay-ms", DELAY_MS),
    }
}

/// How long a message waits at least.
pub(crate) fn delay_ms(_: &Received) -> i64 {
    DELAY_MS
}

/// Whether every member refuses the message, each time.
pub(crate) fn is_hopeless(sent: &Sent) -> bool {
    sent.seq.is_multiple_of(HOPELESS_MODULO)
}

impl Flow {
    /// The producer of one version. Both versions' are of one group, so that either answers for the transactions of both.
    pub(crate) fn producer(&self, version: Version, client: &Client) -> Invocation {
        let line = match version {
            Version::V4_9_7 => "four",
            Version::V5_5_0 => "five",
        };
        let run = client.produce(self.topic).arg("group", format!("producers_of_{}", self.topic));
        let run = run.arg("mode", self.mode).arg("rate", RATE).arg("run", line).flag("until-stdin-closes");
        (self.options)(run, version)
    }
}

impl Group {
    /// The member of one version.
    pub(crate) fn member(&self, client: &Client) -> Invocation {
        let run = client.consume(self.topic, self.name).arg("timeout", 1_000_000).arg("threads", 4);
        (self.options)(run.flag("until-stdin-closes"))
    }
}
