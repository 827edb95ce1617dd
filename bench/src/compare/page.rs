//! The figures of all rounds as the tables of a Markdown page.
//!
//! The page is people's; what stands between its two marks is written anew by each comparison.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::many;
use super::scenario::{SCENARIOS, Visit};
use crate::outcome::Outcome;

const BEGIN: &str = "<!-- measured: written by `rocketmq-bench compare` -->\n";
const END: &str = "<!-- measured: end -->\n";

/// The two visits of a round.
#[derive(Debug)]
pub struct Round {
    /// What the Java broker showed.
    pub java: Visit,
    /// What ours showed.
    pub ours: Visit,
}

/// One figure over all rounds.
struct Row {
    title: String,
    decimals: usize,
    java: Vec<f64>,
    ours: Vec<f64>,
}

impl Row {
    fn of(title: impl Into<String>, decimals: usize, rounds: &[Round], figure: impl Fn(&Visit) -> f64) -> Self {
        Self {
            title: title.into(),
            decimals,
            java: rounds.iter().map(|round| figure(&round.java)).collect(),
            ours: rounds.iter().map(|round| figure(&round.ours)).collect(),
        }
    }

    fn line(&self) -> String {
        let number = |value: f64| grouped(value, self.decimals);
        let ratios: Vec<f64> = self.ours.iter().zip(&self.java).map(|(ours, java)| ours / java).collect();
        let [low, middle, high] = spread(&ratios).map(ratio);
        let java = number(spread(&self.java)[1]);
        let ours = number(spread(&self.ours)[1]);
        format!("| {} | {java} | {ours} | {low} | **{middle}** | {high} |\n", self.title)
    }
}

/// Smallest, median, largest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return [f64::NAN; 3];
    };
    [sorted[0], f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]), sorted[last]]
}

fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { "–".to_owned() }
}

/// With a comma before each three digits; figures are never negative.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, fraction)| (whole, fraction));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

const COLUMNS: &str = "| Java | ours | ours/Java min | median | max |\n|---|--:|--:|--:|--:|--:|\n";

/// The tables.
pub fn tables(rounds: &[Round]) -> String {
    let mut text = String::new();
    let outcome = |number: usize, figure: fn(&Outcome) -> f64| move |visit: &Visit| figure(&visit.outcomes[number]);
    let mut table = |title: &str, decimals: usize, figure: fn(&Outcome) -> f64| {
        let _ = write!(text, "| {title} {COLUMNS}");
        for (number, scenario) in SCENARIOS.iter().enumerate() {
            text += &Row::of(scenario.title, decimals, rounds, outcome(number, figure)).line();
        }
        text.push('\n');
    };
    table("broker CPU, µs per message (less is better)", 2, |outcome| {
        outcome.cost.broker_cpu_us_per_message.unwrap_or(f64::NAN)
    });
    table("messages per second (more is better)", 0, Outcome::rate);
    table("latency p50, µs (less is better)", 0, |outcome| outcome.latency.p50);
    table("latency p99, µs (less is better)", 0, |outcome| outcome.latency.p99);
    let _ = write!(text, "| start and rest (less is better) {COLUMNS}");
    for row in [
        Row::of("start-up to the first acknowledged message, ms", 0, rounds, |visit| visit.start_up_ms),
        Row::of("private memory when idle, MiB", 1, rounds, |visit| visit.idle_mib),
        Row::of("CPU when idle, ms per second", 1, rounds, |visit| visit.idle_cpu_ms),
        Row::of("private memory after all loads, MiB", 1, rounds, |visit| visit.loaded_mib),
    ] {
        text += &row.line();
    }
    let _ = write!(text, "\n| many (less is better) {COLUMNS}");
    let resting = many::RESTING;
    for row in [
        Row::of(format!("start-up with {} topics, ms", grouped(many::TOPICS.into(), 0)), 0, rounds, |visit| {
            visit.many.start_up_ms
        }),
        Row::of("name server: CPU of a route look-up among them, µs", 2, rounds, |visit| visit.many.route_us),
        Row::of("CPU of a 128 B message over all topics, by that over one", 2, rounds, |visit| {
            visit.many.topics_growth
        }),
        Row::of(
            format!(
                "the same one at a time over {} connections, by that over one",
                grouped(many::CONNECTIONS.into(), 0)
            ),
            2,
            rounds,
            |visit| visit.many.connections_growth,
        ),
        Row::of(
            format!(
                "the same at {} a second, one by one over {} connections, by that in bursts over one",
                grouped(many::RATE.into(), 0),
                grouped(many::CONNECTIONS.into(), 0)
            ),
            2,
            rounds,
            |visit| visit.many.scattered_growth,
        ),
        Row::of(
            format!(
                "CPU with {} resting connections and {} waiting pulls, ms per second",
                grouped(resting.connections.into(), 0),
                grouped(resting.pulls.into(), 0)
            ),
            1,
            rounds,
            |visit| visit.many.resting_cpu_ms,
        ),
    ] {
        text += &row.line();
    }
    let others: Vec<f64> = rounds
        .iter()
        .flat_map(|round| round.java.outcomes.iter().chain(&round.ours.outcomes))
        .map(|outcome| outcome.cost.others_cpu_percent)
        .collect();
    let [low, middle, high] = spread(&others);
    let _ = writeln!(
        text,
        "\nOther processes used {middle:.0} % of the machine's CPU during the measured spans (median; {low:.0} % to {high:.0} %). \
         Rates and latencies suffer from that, CPU per message much less."
    );
    text
}

/// Puts new content between the marks of the page.
///
/// # Errors
/// The page cannot be read or written, or has no marks.
pub fn write(page: &Path, content: &str) -> Result<()> {
    let old = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let new = replaced(&old, content).with_context(|| format!("{} has no line {BEGIN}", page.display()))?;
    std::fs::write(page, new).with_context(|| page.display().to_string())
}

fn replaced(page: &str, content: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{content}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_medians_and_the_spread_of_ratios() {
        let row = Row {
            title: "x".into(),
            decimals: 1,
            java: vec![1000.0, 4000.0, 2000.0],
            ours: vec![500.0, 1000.0, 1500.0],
        };
        assert_eq!(row.line(), "| x | 2,000.0 | 1,000.0 | 0.250 | **0.500** | 0.750 |\n");
        let row = Row { title: "x".into(), decimals: 0, java: vec![0.0], ours: vec![0.0] };
        assert_eq!(row.line(), "| x | 0 | 0 | – | **–** | – |\n");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_234_567.25, 1), "1,234,567.2");
        assert_eq!(grouped(999.0, 0), "999");
    }

    #[test]
    fn only_what_lies_between_the_marks_changes() {
        let page = format!("a\n{BEGIN}old\n{END}z\n");
        assert_eq!(replaced(&page, "new").unwrap(), format!("a\n{BEGIN}\nnew\n{END}z\n"));
        assert_eq!(replaced("a\n", "new"), None);
    }
}
