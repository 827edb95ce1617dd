//! The folder of a local cluster: who may use it, one folder for each pod, and what is remembered between runs.
//!
//! ```text
//! lock          held by the one process that runs the cluster, with its number for people
//! broker.conf   the cluster's configuration
//! ports.json    see `ports`
//! status.json   the status, as the resource would have it on Kubernetes
//! sets.json     how many pods each set has been given
//! <pod>/        working folder: pid, log, store/
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::child::Identity;
use crate::crd::RocketMQClusterStatus;

/// A data folder that this process alone uses.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Makes the folder if need be and takes it; an error if another process has it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&lock_path).unwrap_or_default();
                bail!("a cluster runs on {} already, by process {}", path.display(), holder.trim());
            }
            Err(std::fs::TryLockError::Error(fault)) => {
                return Err(fault).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path, _lock: lock })
    }

    /// A file or folder in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder of a pod, made if need be.
    pub(super) fn pod(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Ends processes that a killed operator left behind.
    pub(super) async fn end_leftovers(&self, grace: Duration) -> Result<()> {
        let folders = std::fs::read_dir(&self.path).with_context(|| format!("cannot list {}", self.path.display()))?;
        for folder in folders.flatten() {
            let record = folder.path().join("pid");
            let Some(identity) = Identity::read(&record) else { continue };
            if identity.runs() {
                tracing::warn!(pod = ?folder.file_name(), "still runs from before and is ended");
                identity.end(grace).await;
            }
            let _ = std::fs::remove_file(record);
        }
        Ok(())
    }

    /// How many pods each set has been given, or has had here where that is not known: one more than the highest ordinal of
    /// a folder `<set>-<ordinal>`.
    pub(super) fn sets(&self) -> BTreeMap<String, i32> {
        let text = std::fs::read(self.join("sets.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_else(|_| self.pods_by_set())
    }

    /// Writes how many pods each set is given, unless that is what it was given last.
    pub(super) fn write_sets(&self, sets: &BTreeMap<String, i32>) -> Result<()> {
        let text = serde_json::to_vec_pretty(sets)?;
        let path = self.join("sets.json");
        if std::fs::read(&path).ok().as_deref() == Some(&text) { Ok(()) } else { write_whole(&path, &text) }
    }

    /// Deletes the folder of a pod.
    pub(super) fn discard(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        std::fs::remove_dir_all(&path).with_context(|| format!("cannot delete {}", path.display()))
    }

    fn pods_by_set(&self) -> BTreeMap<String, i32> {
        let mut sets = BTreeMap::new();
        for folder in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = folder.file_name();
            let Some((set, ordinal)) = name.to_str().and_then(|name| name.rsplit_once('-')) else {
                continue;
            };
            if let Ok(ordinal) = ordinal.parse::<u8>() {
                let count = sets.entry(set.to_owned()).or_insert(0);
                *count = i32::from(ordinal).saturating_add(1).max(*count);
            }
        }
        sets
    }

    /// The status written last, or an empty one.
    pub(super) fn status(&self) -> RocketMQClusterStatus {
        let text = std::fs::read(self.join("status.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes the status, unless it is what was written last.
    pub(super) fn write_status(&self, last: &RocketMQClusterStatus, status: &RocketMQClusterStatus) -> Result<()> {
        if last == status {
            return Ok(());
        }
        write_whole(&self.join("status.json"), &serde_json::to_vec_pretty(status)?)
    }
}

/// Writes a file so that it is there in full or as it was before, never in part.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(&path).unwrap();
        let fault = DataDir::open(&path).unwrap_err().to_string();
        assert!(fault.contains("runs on") && fault.contains(&std::process::id().to_string()), "{fault}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn what_sets_were_given_counts_and_a_pod_that_is_discarded_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let pod = data.pod("demo-broker-master-1").unwrap();
        assert_eq!(data.sets()["demo-broker-master"], 2, "nothing else is known");
        let given = BTreeMap::from([("demo-broker-master".to_owned(), 1)]);
        data.write_sets(&given).unwrap();
        assert_eq!(data.sets(), given);
        data.discard("demo-broker-master-1").unwrap();
        assert!(!pod.exists());
    }

    #[test]
    fn pods_are_counted_by_the_highest_ordinal() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        for pod in ["demo-broker-master-0", "demo-broker-master-2", "demo-broker-slave-1-0"] {
            data.pod(pod).unwrap();
        }
        let expected = [("demo-broker-master", 3), ("demo-broker-slave-1", 1)];
        let expected = expected.map(|(set, count)| (set.to_owned(), count));
        assert_eq!(data.pods_by_set(), BTreeMap::from(expected));
    }

    #[tokio::test]
    async fn leftovers_are_ended_and_strangers_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        Identity::of(child.id()).unwrap().write(&data.pod("a-0").unwrap().join("pid")).unwrap();
        // The number of this very process, with another start time.
        std::fs::write(data.pod("a-1").unwrap().join("pid"), format!("{} 1\n", std::process::id())).unwrap();
        data.end_leftovers(Duration::from_secs(5)).await.unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!data.join("a-0").join("pid").exists());
    }

    #[test]
    fn a_status_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        assert_eq!(data.status(), RocketMQClusterStatus::default());
        let status = RocketMQClusterStatus { replicas: 3, ..RocketMQClusterStatus::default() };
        data.write_status(&data.status(), &status).unwrap();
        assert_eq!(data.status(), status);
    }
}
