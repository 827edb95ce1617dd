//! What a process has cost, as the kernel counts it in `/proc`.

use std::fs;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// CPU time and memory of the broker over a measured span, and who else used the machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// User and system time of the broker, µs per message.
    pub broker_cpu_us_per_message: Option<f64>,
    /// The same of this generator.
    pub client_cpu_us_per_message: f64,
    /// Of the machine's CPU time in the span, what neither of the two used, in percent: how noisy
    /// the figures are.
    pub others_cpu_percent: f64,
    /// Private memory of the broker at the end, KiB.
    pub rss_anon_kib: Option<u64>,
    /// Resident pages of mapped files at the end, KiB; the kernel takes them back when it needs them.
    pub rss_file_kib: Option<u64>,
}

/// Resident memory of a process, KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Private: heap, stacks.
    pub anonymous: u64,
    /// Pages of mapped files.
    pub file: u64,
}

/// Reads the costs at the beginning and at the end of a span.
#[derive(Debug)]
pub struct Meter {
    pid: Option<u32>,
    broker_ticks: u64,
    own_ticks: u64,
    machine: MachineTicks,
}

#[derive(Clone, Copy, Debug)]
struct MachineTicks {
    busy: u64,
    all: u64,
}

impl Meter {
    /// Begins a span; `pid` is the broker's process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn start(pid: Option<u32>) -> Result<Self> {
        let broker_ticks = pid.map_or(Ok(0), cpu_ticks)?;
        Ok(Self { pid, broker_ticks, own_ticks: cpu_ticks(std::process::id())?, machine: machine_ticks()? })
    }

    /// Ends the span in which `messages` were handled.
    ///
    /// # Errors
    /// The process is gone.
    pub fn stop(self, messages: u64) -> Result<Cost> {
        let broker = self.pid.map_or(Ok(0), cpu_ticks)? - self.broker_ticks;
        let own = cpu_ticks(std::process::id())? - self.own_ticks;
        let machine = machine_ticks()?;
        let memory = self.pid.map(memory).transpose()?;
        let per_message = |ticks: u64| micros(ticks) / messages.max(1) as f64;
        let busy = machine.busy.saturating_sub(self.machine.busy).saturating_sub(broker + own);
        let all = machine.all.saturating_sub(self.machine.all).max(1);
        Ok(Cost {
            broker_cpu_us_per_message: self.pid.map(|_| per_message(broker)),
            client_cpu_us_per_message: per_message(own),
            others_cpu_percent: 100.0 * busy as f64 / all as f64,
            rss_anon_kib: memory.map(|memory| memory.anonymous),
            rss_file_kib: memory.map(|memory| memory.file),
        })
    }
}

/// User and system time of all threads of a process, ended ones too, in clock ticks.
///
/// # Errors
/// There is no such process.
pub fn cpu_ticks(pid: u32) -> Result<u64> {
    Ok(stat_field::<u64>(pid, 14)? + stat_field::<u64>(pid, 15)?)
}

/// Ticks as µs.
pub fn micros(ticks: u64) -> f64 {
    ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64
}

/// Seconds since a process began, to a clock tick.
///
/// # Errors
/// There is no such process.
pub fn age_seconds(pid: u32) -> Result<f64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    Ok(now - micros(stat_field(pid, 22)?) / 1e6)
}

/// Resident memory of a process.
///
/// # Errors
/// There is no such process.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let text = line.with_context(|| format!("no {name} of process {pid}"))?;
        Ok::<u64, anyhow::Error>(text.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(Memory { anonymous: field("RssAnon:")?, file: field("RssFile:")? })
}

/// The niceness of this process, which the brokers it starts inherit.
///
/// # Errors
/// There is no `/proc`.
pub fn niceness() -> Result<i64> {
    stat_field(std::process::id(), 19)
}

/// A number of `/proc/PID/stat`, counted from 1 as in proc(5).
fn stat_field<T>(pid: u32, number: usize) -> Result<T>
where
    T: std::str::FromStr<Err = std::num::ParseIntError>,
{
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name of the program, field 2, may hold blanks; it ends with the last parenthesis.
    let rest = stat.rsplit_once(") ").context("/proc/PID/stat without a name")?.1;
    let field = rest.split(' ').nth(number - 3).with_context(|| format!("no field {number} in /proc/{pid}/stat"))?;
    Ok(field.trim().parse()?)
}

fn machine_ticks() -> Result<MachineTicks> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // user nice system idle iowait irq softirq steal; guest times are in user already.
    let fields: Vec<u64> = line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
    let all = fields.iter().sum();
    let idle = fields.get(3).copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0);
    Ok(MachineTicks { busy: all - idle, all })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn work_of_this_process_is_seen() {
        let meter = Meter::start(Some(std::process::id())).unwrap();
        let began = Instant::now();
        let mut sum = 0_u64;
        while began.elapsed() < Duration::from_millis(200) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let cost = meter.stop(10).unwrap();
        let each = cost.broker_cpu_us_per_message.unwrap();
        // 200 ms over 10 messages, on a machine that may be busy with other things.
        assert!((1_000.0..1_000_000.0).contains(&each), "{each}");
        assert!(cost.rss_anon_kib.unwrap() > 100);
        let age = age_seconds(std::process::id()).unwrap();
        assert!((0.0..3600.0).contains(&age), "{age}");
        assert!((-20..20).contains(&niceness().unwrap()));
        assert!(Meter::start(Some(u32::MAX)).is_err());
    }
}
