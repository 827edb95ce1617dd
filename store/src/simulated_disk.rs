//! A disk that forgets: what a power loss may leave of a store, and calls that fail on order.
//!
//! The store runs on real files, which play the page cache; beside them stands what is durable. Only a sync moves
//! bytes, lengths and names from there to here (and the kernel's own write-back, of any sector at any time). When the
//! power goes, each sector that differs is one or the other, each file has one of its lengths, and of each
//! directory's unsynced changes a prefix has happened.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::disk::{Call, Faults};

const SECTOR: usize = 512;
const PAGE: usize = 4096;

type Id = u64;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(Id),
}

/// A change of a directory that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Set(PathBuf, Node),
    Drop(PathBuf),
    /// From here to there, at once.
    Move(PathBuf, PathBuf, Node),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SimulatedDisk {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    next_id: Id,
    /// Names as the running process sees them.
    live: BTreeMap<PathBuf, Node>,
    /// Names as the disk has them.
    durable_names: BTreeMap<PathBuf, Node>,
    pending: BTreeMap<PathBuf, Vec<Change>>,
    durable_bytes: HashMap<Id, Vec<u8>>,
    /// Blocks are taken up to here: writing a mapped hole kills a process when the disk is full.
    allocated: HashMap<Id, u64>,
    /// Bytes of files whose name is gone, but maybe not from the disk.
    ghosts: HashMap<Id, Vec<u8>>,
    /// Bytes of all files when the power went.
    at_power_off: Option<HashMap<Id, Vec<u8>>>,
    calls: u64,
    power_off_at: Option<u64>,
    fail_at: Option<u64>,
    full: bool,
}

impl SimulatedDisk {
    /// A disk whose only directory, durable, is `root`.
    pub(crate) fn new(root: &Path, seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            next_id: 0,
            live: BTreeMap::from([(root.to_owned(), Node::Dir)]),
            durable_names: BTreeMap::from([(root.to_owned(), Node::Dir)]),
            pending: BTreeMap::new(),
            durable_bytes: HashMap::new(),
            allocated: HashMap::new(),
            ghosts: HashMap::new(),
            at_power_off: None,
            calls: 0,
            power_off_at: None,
            fail_at: None,
            full: false,
        };
        Self { root: root.to_owned(), state: Mutex::new(state) }
    }

    /// Lets the power go at one of the next `within` calls that change the disk.
    pub(crate) fn power_off_within(&self, within: u64) {
        let mut state = self.state.lock();
        state.power_off_at = Some(state.calls + within);
    }

    /// Lets the power go now.
    pub(crate) fn power_off(&self) {
        self.state.lock().power_off();
    }

    pub(crate) fn is_off(&self) -> bool {
        self.state.lock().at_power_off.is_some()
    }

    /// Fails one of the next calls that change the disk with EIO.
    pub(crate) fn fail_within(&self, within: u64) {
        let mut state = self.state.lock();
        state.fail_at = Some(state.calls + within);
    }

    /// Makes everything that needs room fail, or not.
    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// The process is gone, the machine goes on: nothing is forgotten.
    pub(crate) fn process_ended(&self) {
        let mut state = self.state.lock();
        (state.fail_at, state.power_off_at, state.full) = (None, None, false);
    }

    /// The machine comes up again: the files become what the disk kept.
    pub(crate) fn power_on(&self) {
        let mut state = self.state.lock();
        let image = state.image(&self.root);
        for entry in fs::read_dir(&self.root).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        state.durable_names = image.iter().map(|(path, (node, _))| (path.clone(), *node)).collect();
        state.durable_bytes.clear();
        state.allocated.clear();
        for (path, (node, bytes)) in image {
            match node {
                Node::Dir => fs::create_dir_all(&path).unwrap(),
                Node::File(id) => {
                    fs::write(&path, &bytes).unwrap();
                    let written = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last as u64 + 1);
                    state.allocated.insert(id, written.next_multiple_of(PAGE as u64));
                    state.durable_bytes.insert(id, bytes);
                }
            }
        }
        state.live = state.durable_names.clone();
        state.pending.clear();
        state.ghosts.clear();
        state.at_power_off = None;
        (state.fail_at, state.power_off_at, state.full) = (None, None, false);
    }
}

impl Faults for SimulatedDisk {
    fn call(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.at_power_off.is_some() {
            return Err(io::Error::from_raw_os_error(5));
        }
        if let Call::Read(_) = call {
            return run();
        }
        state.calls += 1;
        if state.power_off_at.is_some_and(|at| state.calls >= at) {
            // A write may have been under way.
            if let Call::Write(path, at, bytes) = call {
                state.write_some(path, at, bytes);
            }
            state.power_off();
            return Err(io::Error::from_raw_os_error(5));
        }
        if state.fail_at.is_some_and(|at| state.calls >= at) {
            state.fail_at = None;
            return Err(io::Error::from_raw_os_error(5));
        }
        let is_new = matches!(call, Call::Open(path) if !state.live.contains_key(path));
        let needs_room = match call {
            Call::Allocate(..) | Call::CreateDir(_) => true,
            Call::Write(path, at, bytes) => {
                at + bytes.len() as u64 > state.allocated.get(&state.id(path)).copied().unwrap_or(0)
            }
            _ => is_new,
        };
        if state.full && needs_room {
            if let Call::Write(path, at, bytes) = call {
                state.write_some(path, at, bytes);
            }
            return Err(io::Error::from_raw_os_error(28));
        }
        state.write_back();
        if !matches!(call, Call::SyncRange(..) | Call::SyncFile(_) | Call::SyncDir(_)) {
            if let Call::Remove(path) = call
                && let Some(Node::File(id)) = state.live.get(path).copied()
            {
                let bytes = fs::read(path).unwrap();
                state.ghosts.insert(id, bytes);
            }
            run()?;
        }
        state.done(call);
        Ok(())
    }
}

impl State {
    fn done(&mut self, call: Call<'_>) {
        match call {
            Call::CreateDir(path) => self.set(path, Node::Dir),
            Call::Open(path) => {
                if !self.live.contains_key(path) {
                    self.next_id += 1;
                    self.durable_bytes.insert(self.next_id, Vec::new());
                    self.set(path, Node::File(self.next_id));
                }
            }
            Call::Rename(from, to) => {
                let node = self.live[from];
                if let Some(Node::File(replaced)) = self.live.get(to).copied() {
                    let bytes = self.durable_bytes.get(&replaced).cloned().unwrap_or_default();
                    self.ghosts.insert(replaced, bytes);
                }
                self.live.remove(from);
                self.live.insert(to.to_owned(), node);
                self.change(to, Change::Move(from.to_owned(), to.to_owned(), node));
            }
            Call::Remove(path) | Call::RemoveDir(path) => {
                if self.live.contains_key(path) {
                    self.drop_name(path);
                }
            }
            Call::Allocate(path, _, to) => {
                let id = self.id(path);
                let allocated = self.allocated.entry(id).or_default();
                *allocated = to.max(*allocated);
            }
            Call::Write(path, at, bytes) => {
                let id = self.id(path);
                let allocated = self.allocated.entry(id).or_default();
                *allocated = (at + bytes.len() as u64).next_multiple_of(PAGE as u64).max(*allocated);
            }
            Call::SyncRange(path, from, to) => {
                let current = fs::read(path).unwrap();
                self.check_allocated(path, &current);
                let (from, to) = (from as usize / PAGE * PAGE, (to as usize).next_multiple_of(PAGE).min(current.len()));
                let id = self.id(path);
                let durable = self.durable_bytes.entry(id).or_default();
                durable.resize(current.len(), 0);
                durable[from..to].copy_from_slice(&current[from..to]);
            }
            Call::SyncFile(path) => {
                let current = fs::read(path).unwrap();
                self.check_allocated(path, &current);
                self.durable_bytes.insert(self.id(path), current);
            }
            Call::SyncDir(path) => {
                for change in self.pending.remove(path).unwrap_or_default() {
                    apply(&mut self.durable_names, change);
                }
            }
            Call::Resize(..) | Call::Zero(..) | Call::Read(_) => {}
        }
    }

    fn id(&self, path: &Path) -> Id {
        match self.live.get(path) {
            Some(Node::File(id)) => *id,
            other => panic!("{} is {other:?}", path.display()),
        }
    }

    fn set(&mut self, path: &Path, node: Node) {
        self.live.insert(path.to_owned(), node);
        self.change(path, Change::Set(path.to_owned(), node));
    }

    fn drop_name(&mut self, path: &Path) {
        self.live.remove(path);
        self.change(path, Change::Drop(path.to_owned()));
    }

    fn change(&mut self, path: &Path, change: Change) {
        self.pending.entry(path.parent().unwrap().to_owned()).or_default().push(change);
    }

    /// Part of a write happens.
    fn write_some(&mut self, path: &Path, at: u64, bytes: &[u8]) {
        let part = self.rng.random_range(0..=bytes.len());
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..part], at).unwrap();
    }

    /// Writing a mapped hole would have killed the process on a full disk.
    fn check_allocated(&self, path: &Path, current: &[u8]) {
        let allocated = self.allocated.get(&self.id(path)).copied().unwrap_or(0) as usize;
        let behind = current.get(allocated..).unwrap_or_default();
        assert!(behind.iter().all(|b| *b == 0), "{}: bytes behind the blocks taken ({allocated})", path.display());
    }

    /// Now and then the kernel writes back what it likes.
    fn write_back(&mut self) {
        if self.live.is_empty() || !self.rng.random_bool(0.1) {
            return;
        }
        let at = self.rng.random_range(0..self.live.len());
        let Some((path, Node::File(id))) = self.live.iter().nth(at) else { return };
        let current = fs::read(path).unwrap();
        let durable = self.durable_bytes.entry(*id).or_default();
        for (old, new) in durable.chunks_mut(SECTOR).zip(current.chunks(SECTOR)) {
            if self.rng.random_bool(0.5) && old.len() == new.len() {
                old.copy_from_slice(new);
            }
        }
    }

    fn power_off(&mut self) {
        if self.at_power_off.is_some() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.ghosts);
        for (path, node) in &self.live {
            if let Node::File(id) = node {
                bytes.insert(*id, fs::read(path).unwrap());
            }
        }
        self.at_power_off = Some(bytes);
    }

    /// What the disk kept: every name with what it stands for and, a file's, bytes.
    fn image(&mut self, root: &Path) -> BTreeMap<PathBuf, (Node, Vec<u8>)> {
        let current = self.at_power_off.take().expect("the power is on");
        let mut names = std::mem::take(&mut self.durable_names);
        for changes in std::mem::take(&mut self.pending).into_values() {
            let happened = self.rng.random_range(0..=changes.len());
            changes.into_iter().take(happened).for_each(|change| apply(&mut names, change));
        }
        let has_place = |path: &Path| {
            path.ancestors().skip(1).take_while(|p| p.starts_with(root)).all(|dir| names.contains_key(dir))
        };
        let kept: Vec<(PathBuf, Node)> =
            names.iter().filter(|(path, _)| has_place(path)).map(|(path, node)| (path.clone(), *node)).collect();
        kept.into_iter()
            .map(|(path, node)| match node {
                Node::Dir => (path, (node, Vec::new())),
                Node::File(id) => {
                    let durable = self.durable_bytes.remove(&id).unwrap_or_default();
                    let bytes = self.mixed(durable, current.get(&id).map_or(&[], Vec::as_slice));
                    (path, (node, bytes))
                }
            })
            .collect()
    }

    /// Each sector from one or the other, in one of the two lengths.
    fn mixed(&mut self, durable: Vec<u8>, current: &[u8]) -> Vec<u8> {
        let reached = [0.0, 0.5, 0.9, 1.0][self.rng.random_range(0..4_usize)];
        let len = if self.rng.random_bool(reached) { current.len() } else { durable.len() };
        let mut bytes = durable;
        bytes.resize(len, 0);
        for (old, new) in bytes.chunks_mut(SECTOR).zip(current.chunks(SECTOR)) {
            if old != new && self.rng.random_bool(reached) {
                let both = old.len().min(new.len());
                old[..both].copy_from_slice(&new[..both]);
            }
        }
        bytes
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: Change) {
    match change {
        Change::Set(path, node) => names.insert(path, node),
        Change::Drop(path) => names.remove(&path),
        Change::Move(from, to, node) => {
            names.remove(&from);
            names.insert(to, node)
        }
    };
}
