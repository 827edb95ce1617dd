//! `mqshutdown`: ends name servers, brokers or a local cluster on this machine by SIGTERM.
//!
//! Only processes of this user are looked at, and only those whose program has exactly the name
//! that is meant; nothing is ever killed outright.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use rustix::process::{Pid, Signal, getuid, kill_process, test_kill_process};

/// Ends name servers, brokers or a local cluster on this machine
#[derive(Debug, Parser)]
#[command(name = "mqshutdown", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// How long to wait until they have ended, in seconds; 0 does not wait
    #[arg(long, global = true, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All brokers of this user, or the one of a pid file
    Broker {
        /// A file that holds the process id
        #[arg(long, value_name = "FILE")]
        pid_file: Option<PathBuf>,
    },
    /// All name servers of this user, or the one of a pid file
    Namesrv {
        /// A file that holds the process id
        #[arg(long, value_name = "FILE")]
        pid_file: Option<PathBuf>,
    },
    /// Clusters that `rocketmq-operator local` runs
    Cluster {
        /// The cluster's data folder; all folders of `.local` without it
        folder: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Arguments { what, timeout } = Arguments::parse();
    let timeout = Duration::from_secs(timeout);
    let ended = match what {
        What::Broker { pid_file } => shut_down("mqbroker", pid_file.as_deref(), timeout),
        What::Namesrv { pid_file } => shut_down("mqnamesrv", pid_file.as_deref(), timeout),
        What::Cluster { folder: Some(folder) } => shut_down_cluster(&folder, timeout),
        What::Cluster { folder: None } => shut_down_clusters(Path::new(".local"), timeout),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mqshutdown: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The operator holds the file `lock` of its folder, and has written its number into it.
fn shut_down_cluster(folder: &Path, timeout: Duration) -> anyhow::Result<bool> {
    shut_down("rocketmq-operator", Some(&folder.join("lock")), timeout)
}

/// All clusters in the folder that the operator keeps them in unless it is told another.
fn shut_down_clusters(parent: &Path, timeout: Duration) -> anyhow::Result<bool> {
    let mut any = false;
    for entry in
        fs::read_dir(parent).with_context(|| format!("no cluster's folder is given; list {}", parent.display()))?
    {
        let folder = entry?.path();
        if folder.join("lock").exists() {
            println!("{}:", folder.display());
            any |= shut_down_cluster(&folder, timeout)?;
        }
    }
    Ok(any)
}

/// Answers whether there was anything to end.
fn shut_down(program: &str, pid_file: Option<&Path>, timeout: Duration) -> anyhow::Result<bool> {
    let pids = match pid_file {
        Some(file) => recorded(program, file)?.into_iter().collect(),
        None => running(program)?,
    };
    if pids.is_empty() {
        println!("No {program} running.");
        return Ok(false);
    }
    let shown = pids.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect::<Vec<_>>().join(" ");
    println!("The {program}({shown}) is running...");
    for pid in &pids {
        kill_process(*pid, Signal::TERM).with_context(|| format!("send SIGTERM to {program}({pid:?})"))?;
    }
    println!("Send shutdown request to {program}({shown}) OK");
    wait(program, &pids, timeout)?;
    Ok(true)
}

/// The process of a pid file, if it still runs that program: ids are used again.
fn recorded(program: &str, file: &Path) -> anyhow::Result<Option<Pid>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    // Some write more behind the number, such as the time of the start.
    let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { bail!("{} holds no process id: {:?}", file.display(), text.trim()) };
    Ok(Some(pid).filter(|pid| runs(*pid, program)))
}

fn running(program: &str) -> anyhow::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        pids.extend(pid.filter(|pid| runs(*pid, program)));
    }
    Ok(pids)
}

/// Whether a process is this user's and runs a program of that name. One that ends meanwhile does not.
fn runs(pid: Pid, program: &str) -> bool {
    let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let ours = fs::metadata(&folder).is_ok_and(|process| process.uid() == getuid().as_raw());
    // The kernel marks a program whose file was replaced since.
    let name = fs::read_link(folder.join("exe")).ok();
    let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    ours && name.is_some_and(|name| name.trim_end_matches(" (deleted)") == program)
}

fn wait(program: &str, pids: &[Pid], timeout: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    // A process whose parent has not asked for its end yet is still there, without a program.
    let left = || pids.iter().filter(|pid| test_kill_process(**pid).is_ok() && runs(**pid, program)).count();
    while !timeout.is_zero() && left() > 0 {
        if start.elapsed() >= timeout {
            bail!("{} {program} still running after {timeout:?}", left());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process of a program that nobody else runs: `sleep` under another name.
    fn start(folder: &Path, program: &str) -> Child {
        // One at a time: a child of another test would hold on to the file that is written here, and a program that
        // somebody may write cannot be started.
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one = ONE.lock();
        let path = folder.join(program);
        fs::copy("/bin/sleep", &path).unwrap();
        Command::new(path).arg("60").stdout(Stdio::null()).spawn().unwrap()
    }

    fn ended(mut child: Child) -> bool {
        for _ in 0..200 {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        false
    }

    #[test]
    fn processes_are_found_by_their_programs_name() {
        let folder = tempfile::tempdir().unwrap();
        let child = start(folder.path(), "mqshutdown-test-a");
        assert!(running("mqshutdown-test").unwrap().is_empty(), "a part of the name is not enough");
        assert!(shut_down("mqshutdown-test-a", None, Duration::ZERO).unwrap());
        assert!(ended(child));
        assert!(!shut_down("mqshutdown-test-a", None, Duration::ZERO).unwrap());
    }

    #[test]
    fn a_pid_file_does_not_end_another_program() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), "mqshutdown-test-b");
        let file = folder.path().join("pid");
        fs::write(&file, format!("{} 12345\n", child.id())).unwrap();
        assert!(!shut_down("mqbroker", Some(&file), Duration::ZERO).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(shut_down("mqshutdown-test-b", Some(&file), Duration::ZERO).unwrap());
        assert!(ended(child));
        fs::write(&file, "many").unwrap();
        assert!(shut_down("mqbroker", Some(&file), Duration::ZERO).is_err());
    }
}
