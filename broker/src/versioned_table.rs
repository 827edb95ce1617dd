//! A table of named settings with a data version, kept in one file under `config/`.
//!
//! Topics and consumer groups are such tables. Readers take a snapshot without a lock; a change
//! makes a new snapshot, writes the file, and only then shows.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rocketmq_remoting::bodies::DataVersion;
use rocketmq_store::ConfigFile;

use crate::clock;

/// The form of a table in its file and on the wire.
pub(crate) trait TableFile: Sized {
    /// One entry.
    type Entry: Clone + PartialEq;
    /// Reads the file's text.
    fn parse(text: &str) -> Result<Self, String>;
    /// Writes the file's text.
    fn text(&self) -> String;
    /// Takes it apart.
    fn into_parts(self) -> (DataVersion, BTreeMap<String, Self::Entry>);
    /// Puts it together.
    fn from_parts(version: DataVersion, entries: BTreeMap<String, Self::Entry>) -> Self;
}

/// One state of the table.
pub(crate) struct Snapshot<E> {
    pub(crate) version: DataVersion,
    pub(crate) entries: HashMap<String, Arc<E>>,
}

pub(crate) struct VersionedTable<T: TableFile> {
    snapshot: ArcSwap<Snapshot<T::Entry>>,
    /// Held by the one who changes the table, until the change is on disk.
    file: Mutex<ConfigFile>,
}

impl<T: TableFile> VersionedTable<T> {
    /// Opens the table of that file; without a file it is empty.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file = ConfigFile::new(path);
        let table = file.load(T::parse)?;
        let (version, entries) = table.map_or_else(Default::default, T::into_parts);
        let entries = entries.into_iter().map(|(name, entry)| (name, Arc::new(entry))).collect();
        Ok(Self { snapshot: ArcSwap::from_pointee(Snapshot { version, entries }), file: Mutex::new(file) })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<T::Entry>> {
        self.snapshot.load().entries.get(name).cloned()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot<T::Entry>> {
        self.snapshot.load_full()
    }

    /// The whole table in its wire form.
    pub(crate) fn to_wire(&self) -> T {
        wire(&self.snapshot.load())
    }

    /// Changes the entries by `change`; where that says true, the version advances and the file is
    /// written before anybody sees the change.
    pub(crate) fn update(
        &self,
        change: impl FnOnce(&mut HashMap<String, Arc<T::Entry>>) -> bool,
    ) -> anyhow::Result<bool> {
        let file = self.file.lock();
        let Some(new) = self.changed(change) else { return Ok(false) };
        file.persist(&wire::<T>(&new).text())?;
        self.snapshot.store(Arc::new(new));
        Ok(true)
    }

    /// As [`update`](Self::update), but a change that cannot be written shows all the same, until
    /// the broker ends or a later change is written. For what is made on first use, which a full
    /// disk must not keep from being used (as Java's `ConfigManager.persist`, which only logs).
    pub(crate) fn update_even_unwritten(&self, change: impl FnOnce(&mut HashMap<String, Arc<T::Entry>>) -> bool) {
        let file = self.file.lock();
        let Some(new) = self.changed(change) else { return };
        if let Err(error) = file.persist(&wire::<T>(&new).text()) {
            tracing::error!("a change is only in memory: {error}");
        }
        self.snapshot.store(Arc::new(new));
    }

    /// The next snapshot, where `change` says that there is one. The caller holds the file.
    fn changed(&self, change: impl FnOnce(&mut HashMap<String, Arc<T::Entry>>) -> bool) -> Option<Snapshot<T::Entry>> {
        let old = self.snapshot.load();
        let mut new = Snapshot { version: old.version.clone(), entries: old.entries.clone() };
        if !change(&mut new.entries) {
            return None;
        }
        new.version.advance(clock::now_millis());
        Some(new)
    }

    /// Takes over another broker's table with its version, where the version differs.
    pub(crate) fn replace(&self, table: T) -> anyhow::Result<bool> {
        let file = self.file.lock();
        let (version, entries) = table.into_parts();
        if self.snapshot.load().version == version {
            return Ok(false);
        }
        let entries = entries.into_iter().map(|(name, entry)| (name, Arc::new(entry))).collect();
        let new = Snapshot { version, entries };
        file.persist(&wire::<T>(&new).text())?;
        self.snapshot.store(Arc::new(new));
        Ok(true)
    }
}

fn wire<T: TableFile>(snapshot: &Snapshot<T::Entry>) -> T {
    let entries = snapshot.entries.iter().map(|(name, entry)| (name.clone(), T::Entry::clone(entry))).collect();
    T::from_parts(snapshot.version.clone(), entries)
}
