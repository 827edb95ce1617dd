//! The figures of one load, as a JSON line for programs and as a table for people.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::process_cost::Cost;

/// Latencies in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the requests were faster.
    pub p50: f64,
    /// 90 % were faster.
    pub p90: f64,
    /// 99 % were faster.
    pub p99: f64,
    /// 99.9 % were faster.
    pub p99_9: f64,
    /// The slowest one.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram in ns.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: histogram.max() as f64 / 1e3 }
    }
}

/// What one load found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The measured span, without warm-up.
    pub seconds: f64,
    /// Messages acknowledged or received in it.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// From the request (with a rate: from when it was due) to its answer, µs.
    pub latency: Percentiles,
    /// CPU and memory.
    pub cost: Cost,
    /// Refused requests by response code, those of the warm-up too; -1 stands for wrong content.
    pub errors: BTreeMap<i32, u64>,
}

impl Outcome {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// One line of JSON.
    pub fn json(&self, name: &str) -> String {
        serde_json::json!({
            "load": name,
            "messages_per_second": self.rate(),
            "megabytes_per_second": self.bytes as f64 / 1e6 / self.seconds,
            "seconds": self.seconds,
            "messages": self.messages,
            "latency_us": self.latency,
            "cost": self.cost,
            "errors_by_code": self.errors,
        })
        .to_string()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6 / self.seconds;
        writeln!(f, "messages     {:>12}   in {:.2} s", self.messages, self.seconds)?;
        writeln!(f, "messages/s   {:>12.0}   {megabytes:.1} MB/s", self.rate())?;
        let Percentiles { p50, p90, p99, p99_9, max } = self.latency;
        writeln!(f, "latency µs   {p50:>12.1}   p90 {p90:.1}   p99 {p99:.1}   p99.9 {p99_9:.1}   max {max:.1}")?;
        if let Some(cpu) = self.cost.broker_cpu_us_per_message {
            writeln!(f, "broker CPU   {cpu:>12.2}   µs/message")?;
        }
        writeln!(f, "client CPU   {:>12.2}   µs/message", self.cost.client_cpu_us_per_message)?;
        writeln!(f, "other CPU    {:>12.1}   % of the machine", self.cost.others_cpu_percent)?;
        if let (Some(anonymous), Some(file)) = (self.cost.rss_anon_kib, self.cost.rss_file_kib) {
            writeln!(f, "memory MiB   {:>12}   private, {} of mapped files", anonymous / 1024, file / 1024)?;
        }
        for (code, count) in &self.errors {
            writeln!(f, "ERRORS       {count:>12}   with code {code}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stand_in_both_forms() {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=1000_u64).for_each(|us| histogram.record(us * 1000).unwrap());
        let latency = Percentiles::of(&histogram);
        assert!((latency.p50 - 500.0).abs() < 1.0 && (latency.max - 1000.0).abs() < 1.0, "{latency:?}");
        let errors = BTreeMap::from([(2, 5)]);
        let outcome =
            Outcome { seconds: 2.0, messages: 1000, bytes: 4_000_000, latency, cost: Cost::default(), errors };
        assert!(outcome.to_string().contains("ERRORS                  5   with code 2"), "{outcome}");
        let json: serde_json::Value = serde_json::from_str(&outcome.json("send")).unwrap();
        assert_eq!(json["messages_per_second"], 500.0);
        assert_eq!(json["megabytes_per_second"], 2.0);
        assert_eq!(json["errors_by_code"]["2"], 5);
    }
}
