//! The key-value settings: text by namespace and key, kept in `kvConfig.json`.
//!
//! A change is on disk before anybody can read it; a change that cannot be written does not
//! happen. The file is replaced as a whole, so that a crash leaves the old or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::{Mutex, RwLock};
use rocketmq_remoting::fastjson;
use serde::{Deserialize, Serialize};

/// The namespace of the order of topics: `brokerName:queues;…` by topic.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

type Table = BTreeMap<String, BTreeMap<String, String>>;

/// The file's form (`KVConfigSerializeWrapper` in Java).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FileForm {
    config_table: Table,
}

/// The settings and the file they are kept in.
#[derive(Debug)]
pub struct KvConfig {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    /// Held while a change is written, so that changes go one after the other.
    writing: Mutex<()>,
}

impl KvConfig {
    /// Reads the file; where there is none, there are no settings.
    ///
    /// # Errors
    /// The file is there and cannot be read or parsed.
    pub fn load(path: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let path = path.into();
        let table = match fs::read(&path) {
            Ok(text) if text.is_empty() => Table::default(),
            Ok(text) => {
                let form: FileForm =
                    fastjson::from_slice(&text).with_context(|| format!("{} does not parse", path.display()))?;
                form.config_table
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::default(),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        Ok(Self { path, table: RwLock::new(Arc::new(table)), writing: Mutex::new(()) })
    }

    /// One value.
    pub fn get(&self, namespace: &str, key: &str) -> Option<String> {
        self.snapshot().get(namespace)?.get(key).cloned()
    }

    /// All keys and values of a namespace.
    pub fn namespace(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.snapshot().get(namespace).cloned()
    }

    /// Sets a value. Writes to disk: not for an async task.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed then.
    pub fn put(&self, namespace: &str, key: &str, value: &str) -> io::Result<()> {
        self.change(|table| {
            let keys = table.entry(namespace.to_owned()).or_default();
            keys.insert(key.to_owned(), value.to_owned()).as_deref() != Some(value)
        })
    }

    /// Removes a value, if it is there; its namespace stays. Writes to disk: not for an async task.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed then.
    pub fn delete(&self, namespace: &str, key: &str) -> io::Result<()> {
        self.change(|table| table.get_mut(namespace).is_some_and(|keys| keys.remove(key).is_some()))
    }

    fn snapshot(&self) -> Arc<Table> {
        Arc::clone(&self.table.read())
    }

    /// `edit` says whether it changed anything.
    fn change(&self, edit: impl FnOnce(&mut Table) -> bool) -> io::Result<()> {
        let _writing = self.writing.lock();
        let mut form = FileForm { config_table: self.snapshot().as_ref().clone() };
        if edit(&mut form.config_table) {
            replace_file(&self.path, &serde_json::to_vec(&form)?)?;
            *self.table.write() = Arc::new(form.config_table);
        }
        Ok(())
    }
}

/// Replaces a file as a whole and waits until it is on disk; its folder is made where it is missing.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    if let Ok(old) = fs::metadata(path) {
        // Who may not read the old one, which may hold a password, may not read the new one.
        file.set_permissions(old.permissions())?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/kvConfig.json");
        let settings = KvConfig::load(&path).unwrap();
        settings.put("ns", "k", "v").unwrap();
        settings.put("ns", "gone", "v").unwrap();
        settings.delete("ns", "gone").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"configTable":{"ns":{"k":"v"}}}"#);

        let back = KvConfig::load(&path).unwrap();
        assert_eq!(back.get("ns", "k").as_deref(), Some("v"));
        assert_eq!((back.get("ns", "gone"), back.namespace("none")), (None, None));
        back.delete("ns", "k").unwrap();
        assert_eq!(back.namespace("ns"), Some(BTreeMap::new()), "the namespace stays");
    }

    #[test]
    fn a_change_that_cannot_be_written_does_not_happen() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        fs::write(&blocked, "").unwrap();
        let settings = KvConfig::load(folder.path().join("kv.json")).unwrap();
        let settings = KvConfig { path: blocked.join("kv.json"), ..settings };
        assert!(settings.put("ns", "k", "v").is_err());
        assert_eq!(settings.get("ns", "k"), None);
    }

    #[test]
    fn a_broken_file_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kv.json");
        fs::write(&path, "{\"configTable\":").unwrap();
        let error = KvConfig::load(&path).unwrap_err();
        assert!(error.to_string().contains("kv.json does not parse"), "{error}");
    }
}
