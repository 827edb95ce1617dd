//! Inputs that are committed: `<root>/<target>/<name>`. Those that the code under test can make are held against what it makes;
//! others were found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{mutated, rounds};

/// See the module.
#[derive(Debug)]
pub struct Corpus {
    root: PathBuf,
}

impl Corpus {
    /// The corpus of the crate whose `CARGO_MANIFEST_DIR` this is.
    pub fn of_crate(manifest_dir: &str) -> Self {
        Self { root: Path::new(manifest_dir).join("corpus") }
    }

    /// All inputs of a target, by name.
    ///
    /// # Panics
    /// There are none.
    pub fn read(&self, target: &str) -> Vec<Vec<u8>> {
        let dir = self.root.join(target);
        let listed = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let mut names: Vec<PathBuf> = listed.map(|e| e.expect("listed").path()).collect();
        names.sort();
        assert!(!names.is_empty(), "no inputs for {target}");
        names.iter().map(|name| fs::read(name).expect("listed")).collect()
    }

    /// Feeds `check` with the target's inputs, and for `moment` with what mutations make of them; see [`rounds`].
    ///
    /// # Panics
    /// As `check` does.
    pub fn feed(&self, target: &str, moment: Duration, check: impl Fn(&[u8])) {
        let corpus = self.read(target);
        for bytes in &corpus {
            check(bytes);
        }
        rounds(target, moment, |rng| check(&mutated(rng, &corpus)));
    }

    /// Holds what is committed against what the code makes now; `FUZZ_WRITE_CORPUS=1` writes it anew.
    ///
    /// # Panics
    /// They differ.
    pub fn hold(&self, target: &str, name: &str, made: &[u8]) {
        let path = self.root.join(target).join(name);
        if std::env::var_os("FUZZ_WRITE_CORPUS").is_some() {
            fs::create_dir_all(self.root.join(target)).expect("the source tree can be written");
            fs::write(&path, made).expect("the source tree can be written");
        }
        let committed = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(committed == made, "{}: FUZZ_WRITE_CORPUS=1 writes the corpus anew", path.display());
    }
}
