//! What must be known of a machine to make anything of figures that were taken on it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::server::{JAVA_FLAGS, JAVA_VERSION, SETTINGS};
use crate::process_cost;

/// File systems that keep their files in memory: no place to measure a store.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// The type of the file system that a directory is on.
///
/// # Errors
/// It is one in memory, or nothing can be found out.
pub fn file_system(directory: &Path) -> Result<String> {
    let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    // The longest mount point wins; of two at one place, the later.
    let (_, kind) = mounted
        .filter(|(at, _)| directory.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .with_context(|| format!("no file system of {}", directory.display()))?;
    ensure!(!IN_MEMORY.contains(&kind), "{} is on {kind}; choose a directory on a disk", directory.display());
    Ok(kind.to_owned())
}

/// The facts as lines of Markdown.
///
/// # Errors
/// The Java version cannot be asked for.
pub fn facts(data: &Path) -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let processor = first_value("/proc/cpuinfo", "model name").unwrap_or_else(|_| "unknown processor".to_owned());
    let memory_kib: f64 = first_value("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let java = Command::new("java").arg("-version").output().context("java -version")?;
    let java = String::from_utf8_lossy(&java.stderr).lines().nth(1).unwrap_or_default().to_owned();
    Ok(format!(
        "- Machine: {cores} cores ({processor}), {:.1} GiB of memory, Linux {}, data on {}. Client, broker and name server share the cores.\n\
         - At the beginning: load average {load}; niceness of client and brokers {}.\n\
         - Java broker: Apache RocketMQ {JAVA_VERSION} on {java}, flags `{}`: after `runbroker.sh`, with a heap of 2 GiB and without \
         `AlwaysPreTouch`, which would count the whole heap as idle memory.\n\
         - Our broker: {} {}, release build.\n\
         - Both: {}; topics of {} queues; all else default.\n",
        memory_kib / 1024.0 / 1024.0,
        kernel.trim(),
        file_system(data)?,
        process_cost::niceness()?,
        JAVA_FLAGS.join(" "),
        env!("CARGO_PKG_NAME").trim_end_matches("-bench"),
        env!("CARGO_PKG_VERSION"),
        SETTINGS.map(|setting| format!("`{setting}`")).join(", "),
        super::QUEUES,
    ))
}

fn first_value(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name} in {file}"))?;
    Ok(line.split_once(':').map_or("", |(_, value)| value).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_no_disk() {
        assert!(file_system(Path::new("/proc")).is_ok_and(|kind| kind == "proc"));
        if Path::new("/dev/shm").is_dir() {
            assert!(file_system(Path::new("/dev/shm")).unwrap_err().to_string().contains("tmpfs"));
        }
    }
}
