//! A table of named settings with a data version, kept in one file under `config/`.
//!
//! Topics and consumer groups are such tables. Readers take a snapshot without a lock. A change is made to the newest state,
//! the file is written, and only then the change shows; changes that come while the file is being written share the
//! next writing, so that making thousands of topics does not write the file thousands of times. May not be changed
//! where waiting for the disk stops others.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
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

/// Entries by name. A change copies the table, which costs two reference counts an entry.
pub(crate) type Entries<E> = HashMap<Arc<str>, Arc<E>, RandomState>;

/// One state of the table.
pub(crate) struct Snapshot<E> {
    pub(crate) version: DataVersion,
    pub(crate) entries: Entries<E>,
}

/// The state that is shown once it is written.
struct Newest<E> {
    snapshot: Arc<Snapshot<E>>,
    /// Those who wait for it.
    waiting: Vec<Outcome>,
    /// Entries that show without being written, since the last writing began.
    added: Vec<(Arc<str>, Arc<E>)>,
}

impl<E> Newest<E> {
    /// Makes this the newest state; the outcome is that of its writing.
    fn follow(&mut self, snapshot: Snapshot<E>) -> Outcome {
        self.snapshot = Arc::new(snapshot);
        self.wait()
    }

    /// The outcome of this state's writing.
    fn wait(&mut self) -> Outcome {
        let outcome = Outcome::default();
        self.waiting.push(Arc::clone(&outcome));
        outcome
    }
}

/// What became of a change, once that is known.
type Outcome = Arc<OnceLock<Result<(), String>>>;

pub(crate) struct VersionedTable<T: TableFile> {
    /// What readers see.
    snapshot: ArcSwap<Snapshot<T::Entry>>,
    newest: Mutex<Newest<T::Entry>>,
    /// Held by the one who writes.
    file: Mutex<ConfigFile>,
}

impl<T: TableFile> VersionedTable<T> {
    /// Opens the table of that file; without a file it is empty.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file = ConfigFile::new(path);
        let table = file.load(T::parse)?;
        let (version, entries) = table.map_or_else(Default::default, T::into_parts);
        let snapshot = Arc::new(Snapshot { version, entries: shared(entries) });
        let newest = Newest { snapshot: Arc::clone(&snapshot), waiting: Vec::new(), added: Vec::new() };
        Ok(Self { snapshot: ArcSwap::new(snapshot), newest: Mutex::new(newest), file: Mutex::new(file) })
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
    /// written before anybody sees the change. What made it say false shows too when this returns. Waits for the disk.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Entries<T::Entry>) -> bool) -> anyhow::Result<bool> {
        let (changed, outcome) = {
            let mut newest = self.newest.lock();
            let old = &newest.snapshot;
            let mut entries = old.entries.clone();
            let changed = change(&mut entries);
            if changed {
                let mut version = old.version.clone();
                version.advance(clock::now_millis());
                (true, newest.follow(Snapshot { version, entries }))
            } else if self.shows(&newest) {
                return Ok(false);
            } else {
                (false, newest.wait())
            }
        };
        self.wait_written(&outcome)?;
        Ok(changed)
    }

    /// Takes over another broker's table with its version, where the version differs. Waits for the disk.
    pub(crate) fn replace(&self, table: T) -> anyhow::Result<bool> {
        let (version, entries) = table.into_parts();
        let (changed, outcome) = {
            let mut newest = self.newest.lock();
            if newest.snapshot.version != version {
                (true, newest.follow(Snapshot { version, entries: shared(entries) }))
            } else if self.shows(&newest) {
                return Ok(false);
            } else {
                (false, newest.wait())
            }
        };
        self.wait_written(&outcome)?;
        Ok(changed)
    }

    /// The entry of that name, else this one added, and whether it was. It shows at once and is written by
    /// [`write_unwritten`](Self::write_unwritten): for what is made on first use and would be made again, which neither a
    /// slow nor a full disk must keep from being used (Java's `ConfigManager.persist` only logs a failure, too).
    pub(crate) fn get_or_add_unwritten(&self, name: &str, entry: T::Entry) -> (Arc<T::Entry>, bool) {
        let mut newest = self.newest.lock();
        if let Some(known) = newest.snapshot.entries.get(name) {
            return (Arc::clone(known), false);
        }
        let entry = Arc::new(entry);
        newest.added.push((name.into(), Arc::clone(&entry)));
        let added = newest.added.last().into_iter();
        // What is or waits to be written must not show yet.
        let shown = with_added(&self.snapshot.load(), added.clone());
        let nothing_waits = self.shows(&newest);
        newest.snapshot = if nothing_waits { Arc::clone(&shown) } else { with_added(&newest.snapshot, added) };
        self.snapshot.store(shown);
        (entry, true)
    }

    /// Writes the file when something shows that is not in it. Waits for the disk.
    pub(crate) fn write_unwritten(&self) -> anyhow::Result<()> {
        let outcome = {
            let mut newest = self.newest.lock();
            if newest.added.is_empty() {
                return Ok(());
            }
            newest.wait()
        };
        self.wait_written(&outcome)
    }

    /// Whether readers see the newest state.
    fn shows(&self, newest: &Newest<T::Entry>) -> bool {
        Arc::ptr_eq(&newest.snapshot, &self.snapshot.load())
    }

    /// Returns when the outcome is known; whoever comes first writes for all who wait.
    fn wait_written(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let file = self.file.lock();
        if outcome.get().is_none() {
            self.write(&file);
        }
        drop(file);
        match outcome.get() {
            Some(Ok(())) | None => Ok(()),
            Some(Err(reason)) => Err(anyhow::anyhow!("{reason}")),
        }
    }

    fn write(&self, file: &ConfigFile) {
        let (snapshot, mut waiting, mut added) = {
            let mut newest = self.newest.lock();
            let Newest { snapshot, waiting, added } = &mut *newest;
            (Arc::clone(snapshot), std::mem::take(waiting), std::mem::take(added))
        };
        let written = file.persist(&wire::<T>(&snapshot).text()).map_err(|error| error.to_string());
        let mut newest = self.newest.lock();
        if written.is_err() {
            // Later changes stand on what failed.
            waiting.append(&mut newest.waiting);
            added.append(&mut newest.added);
            newest.snapshot = self.snapshot.load_full();
            newest.added = added;
        } else if newest.waiting.is_empty() {
            self.snapshot.store(Arc::clone(&newest.snapshot));
        } else {
            self.snapshot.store(if newest.added.is_empty() { snapshot } else { with_added(&snapshot, &newest.added) });
        }
        for outcome in waiting {
            // Each is set once, by whoever took it out.
            let _ = outcome.set(written.clone());
        }
    }
}

fn shared<E>(entries: BTreeMap<String, E>) -> Entries<E> {
    entries.into_iter().map(|(name, entry)| (name.into(), Arc::new(entry))).collect()
}

/// The state with these entries where it has none of their names.
fn with_added<'a, E: 'a>(
    old: &Snapshot<E>,
    added: impl IntoIterator<Item = &'a (Arc<str>, Arc<E>)>,
) -> Arc<Snapshot<E>> {
    let mut entries = old.entries.clone();
    for (name, entry) in added {
        entries.entry(Arc::clone(name)).or_insert_with(|| Arc::clone(entry));
    }
    let mut version = old.version.clone();
    version.advance(clock::now_millis());
    Arc::new(Snapshot { version, entries })
}

fn wire<T: TableFile>(snapshot: &Snapshot<T::Entry>) -> T {
    let entries = snapshot.entries.iter().map(|(name, entry)| (name.to_string(), T::Entry::clone(entry))).collect();
    T::from_parts(snapshot.version.clone(), entries)
}

#[cfg(test)]
mod tests {
    use rocketmq_remoting::bodies::{TopicConfig, TopicConfigTable};

    use super::*;

    type Table = VersionedTable<TopicConfigTable>;

    fn put(table: &Table, name: &str) -> anyhow::Result<bool> {
        table.update(|entries| {
            entries.insert(name.into(), Arc::new(TopicConfig::new(name, 1, 6)));
            true
        })
    }

    fn names(table: &Table) -> Vec<String> {
        let mut names: Vec<String> = table.snapshot().entries.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn changes_of_many_threads_are_all_written_in_fewer_writings() {
        const EACH: usize = 50;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.json");
        let table = Table::open(path.clone()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (table, path) = (&table, &path);
                scope.spawn(move || {
                    for i in 0..EACH {
                        let name = format!("T-{thread}-{i}");
                        assert!(put(table, &name).unwrap());
                        assert!(table.get(&name).is_some(), "it shows once it is made");
                        assert!(table.get_or_add_unwritten(&format!("U-{thread}-{i}"), TopicConfig::new("U", 1, 6)).1);
                        if i % 10 == 0 {
                            let on_disk = Table::open(path.clone()).unwrap();
                            assert!(on_disk.get(&name).is_some(), "and is on disk");
                        }
                    }
                });
            }
        });
        table.write_unwritten().unwrap();
        assert_eq!(names(&table).len(), 8 * EACH * 2);
        assert_eq!(names(&Table::open(path).unwrap()), names(&table));
    }

    /// The first dead letters of a group come in a burst, and each makes the topic where it is not there.
    #[test]
    fn whoever_finds_that_another_made_the_change_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path().join("t.json")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for i in 0..200 {
                        let name = format!("T-{i}");
                        let made = table.update(|entries| {
                            let new = !entries.contains_key(&*name);
                            if new {
                                entries.insert(name.as_str().into(), Arc::new(TopicConfig::new(&name, 1, 6)));
                            }
                            new
                        });
                        let made = made.unwrap();
                        assert!(table.get(&name).is_some(), "{name} shows, made here: {made}");
                    }
                });
            }
        });
        assert_eq!(names(&table).len(), 200);
    }

    #[test]
    fn a_change_that_cannot_be_written_does_not_show_and_an_added_entry_stays() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let table = Table::open(config.join("t.json")).unwrap();
        put(&table, "A").unwrap();
        std::fs::remove_dir_all(&config).unwrap();
        std::fs::write(&config, "where the directory was").unwrap();
        assert!(put(&table, "B").is_err());
        assert!(table.get_or_add_unwritten("C", TopicConfig::new("C", 1, 6)).1);
        let (known, added) = table.get_or_add_unwritten("C", TopicConfig::new("C", 2, 6));
        assert!(!added && known.read_queue_nums == 1);
        assert!(table.write_unwritten().is_err());
        assert_eq!(names(&table), ["A", "C"]);
        std::fs::remove_file(&config).unwrap();
        table.write_unwritten().unwrap();
        assert_eq!(names(&Table::open(config.join("t.json")).unwrap()), ["A", "C"]);
        let version = table.snapshot().version.clone();
        table.write_unwritten().unwrap();
        assert_eq!(table.snapshot().version, version, "nothing is left to write");
    }

    #[test]
    fn a_deleted_entry_stays_away_whatever_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path().join("t.json")).unwrap();
        put(&table, "A").unwrap();
        table.get_or_add_unwritten("B", TopicConfig::new("B", 1, 6));
        assert!(table.update(|entries| entries.remove("A").is_some()).unwrap());
        assert_eq!(names(&table), ["B"]);
        assert_eq!(names(&Table::open(dir.path().join("t.json")).unwrap()), ["B"]);
    }
}
