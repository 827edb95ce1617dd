//! What must not outlive an interrupted comparison: the servers' processes and their data.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Default)]
struct Remains {
    processes: Vec<u32>,
    data: Option<PathBuf>,
}

static REMAINS: Mutex<Remains> = Mutex::new(Remains { processes: Vec::new(), data: None });

fn remains() -> MutexGuard<'static, Remains> {
    REMAINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process is to be ended on an interruption.
pub(super) fn started(pid: u32) {
    remains().processes.push(pid);
}

/// It has ended and been waited for: its number may be another's now.
pub(super) fn ended(pid: u32) {
    remains().processes.retain(|running| *running != pid);
}

/// Listens for SIGINT and SIGTERM from now on: ends the processes, removes `data`, exits with 130.
pub(super) fn watch(data: PathBuf) -> Result<()> {
    remains().data = Some(data);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // The lock is kept, so that no process is started or forgotten meanwhile.
        let remains = remains();
        for pid in remains.processes.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
            // It is a child that nobody has waited for, so the number is still its own.
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Some(data) = &remains.data {
            let _ = std::fs::remove_dir_all(data);
        }
        std::process::exit(130);
    });
    Ok(())
}
