//! Deletes what is older than its time or more than the disk holds, and watches the disk.
//!
//! Oldest log files first, then whatever of queues and index points below the log. The newest log file and files not
//! dispatched yet are never touched. Readers hold what they read, so nothing is taken from under them.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::core::Core;
use crate::error::StoreError;
use crate::worker::Signal;

/// Log files one round deletes (`MappedFileQueue.deleteExpiredFileByTime`).
const FILES_PER_ROUND: usize = 10;

/// Used share of the partition that holds `path`, 0 to 1, as `df` counts: blocks only root may use count as
/// neither used nor free.
pub(crate) fn disk_ratio(path: &Path) -> Result<f64, StoreError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| StoreError::io("statvfs", path, e))?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let all = used + stat.f_bavail;
    Ok(if all == 0 { 0.0 } else { used as f64 / all as f64 })
}

/// The retention thread's work, until it is stopped.
pub(crate) fn clean_loop(core: &Core, signal: &Signal) {
    loop {
        match clean_round(core, Some(signal)) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, log_min = core.log.min_offset(), "expired log files deleted"),
            Err(e) => tracing::error!(error = %e, "deleting expired files failed"),
        }
        signal.pause(core.config.clean_resource_interval);
        if signal.stopped() {
            return;
        }
    }
}

/// Whether the partition that holds `path` has room for a log file of `size` bytes.
fn has_room(path: &Path, size: u64) -> Result<bool, StoreError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| StoreError::io("statvfs", path, e))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) >= size)
}

/// One round; returns how many log files went.
pub(crate) fn clean_round(core: &Core, signal: Option<&Signal>) -> Result<usize, StoreError> {
    let _one = core.cleaning.lock();
    let config = &core.config;
    let ratio = disk_ratio(&config.commit_log_dir())?;
    let percent = (ratio * 100.0).ceil() as u8;
    let limit = config.disk_space_warning_level_ratio;
    core.health.set_disk_full((percent > limit).then_some((percent, limit)));
    if core.health.is_failing() && has_room(&config.commit_log_dir(), config.mapped_file_size_commit_log)? {
        core.health.recovered();
    }
    let forced = config.clean_file_forcibly_enable && percent > config.disk_space_clean_forcibly_ratio;
    let hour = u8::try_from(jiff::Zoned::now().hour()).unwrap_or(0);
    let due = config.delete_when.contains(&hour) || percent > config.disk_max_used_space_ratio;
    let deleted = if forced || due { delete_log_files(core, forced, signal)? } else { 0 };
    delete_below(core, core.log.min_offset())?;
    if deleted > 0 {
        core.checkpoint_all()?;
    }
    Ok(deleted)
}

/// Deletes expired files whatever the hour (`deleteExpiredFilesManually`).
pub(crate) fn clean_now(core: &Core) -> Result<usize, StoreError> {
    let _one = core.cleaning.lock();
    let deleted = delete_log_files(core, false, None)?;
    delete_below(core, core.log.min_offset())?;
    core.checkpoint_all()?;
    Ok(deleted)
}

fn delete_log_files(core: &Core, forced: bool, signal: Option<&Signal>) -> Result<usize, StoreError> {
    let mut deleted = 0;
    while deleted < FILES_PER_ROUND {
        let files = core.log.files.all();
        let [first, _, ..] = files.as_slice() else { break };
        let dispatched = core.dispatched.load(Ordering::Acquire).min(core.flushed_offset());
        if first.end() > dispatched || !(forced || is_expired(core, first)?) {
            break;
        }
        // With the log goes the last trace of how far its queues have got, but for the manifest.
        if first.end() > core.manifested.load(Ordering::Acquire)
            && let Err(error) = note_in_manifest(core, first.end())
        {
            if !forced {
                return Err(error);
            }
            tracing::error!(%error, "a log file is deleted to make room, though its queues' offsets are not noted");
        }
        if deleted > 0
            && let Some(signal) = signal
        {
            signal.pause(core.config.delete_commit_log_files_interval);
        }
        // First the queues' minima: nobody is to be sent to messages that are gone.
        for queue in core.queues.all() {
            queue.correct_min(first.end());
        }
        core.log.files.remove(std::slice::from_ref(first))?;
        deleted += 1;
    }
    Ok(deleted)
}

fn note_in_manifest(core: &Core, end: u64) -> Result<(), StoreError> {
    core.checkpoint_all()?;
    let noted = core.manifested.load(Ordering::Acquire);
    if noted >= end { Ok(()) } else { Err(StoreError::DispatchBehind { dispatched: noted, end }) }
}

fn is_expired(core: &Core, file: &crate::mapped_file::MappedFile) -> Result<bool, StoreError> {
    Ok(file.modified()? + core.file_reserved_time() <= SystemTime::now())
}

fn delete_below(core: &Core, log_min: u64) -> Result<(), StoreError> {
    for queue in core.queues.all() {
        queue.delete_expired(log_min)?;
    }
    if let Some(index) = &core.index {
        index.delete_expired(log_min)?;
    }
    Ok(())
}
