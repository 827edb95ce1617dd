//! A text file that is replaced as a whole and survives a torn write: `config/*.json` of the broker.
//!
//! Persist: write `<name>.tmp`, sync it, copy the previous text aside, rename over, the copy becomes `<name>.bak`, sync the
//! directory: at each moment one of the two is whole, also when the file was damaged before.
//! Load: the file; when it is missing, empty or refused by the caller's parser, the `.bak`, and say so. May not: know
//! what the text means.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, beside};
use crate::error::StoreError;

/// One such file.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    disk: Disk,
}

impl ConfigFile {
    /// Names the file; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::on(Disk::default(), path)
    }

    pub(crate) fn on(disk: Disk, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), disk }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the text. After an error the old text is what [`ConfigFile::load`] finds, or already the new one.
    pub fn persist(&self, text: &str) -> Result<(), StoreError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        self.disk.create_dir(dir)?;
        let temp = beside(&self.path, "tmp");
        self.write_synced(&temp, text.as_bytes())?;
        let previous = self.disk.read_file(&self.path)?.filter(|previous| !previous.is_empty());
        let backup_temp = beside(&self.path, "bak.tmp");
        if let Some(previous) = &previous {
            self.write_synced(&backup_temp, previous)?;
        }
        self.disk.rename(&temp, &self.path)?;
        // Only now: the previous text may be damaged, and the backup all there was.
        if previous.is_some() {
            self.disk.rename(&backup_temp, &beside(&self.path, "bak"))?;
        }
        self.disk.sync_dir(dir)
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let file = self.disk.open(path)?;
        self.disk.resize(&file, path, 0)?;
        self.disk.write_at(&file, path, 0, bytes)?;
        self.disk.sync_file(&file, path)
    }

    /// Parses the text, or else the backup's. `Ok(None)` when neither file has any text; the parser's error when
    /// there is text and none of it parses.
    pub fn load<T, E: std::fmt::Display>(&self, parse: impl Fn(&str) -> Result<T, E>) -> Result<Option<T>, LoadError> {
        let backup = beside(&self.path, "bak");
        let mut failure = None;
        for path in [&self.path, &backup] {
            let reason = match self.disk.read_file(path) {
                Ok(None) => continue,
                Ok(Some(bytes)) if bytes.is_empty() => "it is empty".to_owned(),
                Ok(Some(bytes)) => match std::str::from_utf8(&bytes) {
                    Ok(text) => match parse(text) {
                        Ok(value) => {
                            if path == &backup {
                                tracing::error!(file = %path.display(), "load from the backup succeeded");
                            }
                            return Ok(Some(value));
                        }
                        Err(e) => e.to_string(),
                    },
                    Err(e) => e.to_string(),
                },
                Err(e) => e.to_string(),
            };
            tracing::error!(file = %path.display(), %reason, "load failed");
            if reason != "it is empty" {
                failure = Some(LoadError { path: path.clone(), reason });
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

/// Neither the file nor its backup could be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "load {}: {reason}: bring it back from a copy, or move it and its .bak away to begin without what they held",
    path.display()
)]
pub struct LoadError {
    /// The file tried last.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Accepts only what was written whole.
    fn parse(text: &str) -> Result<String, &'static str> {
        text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).map(str::to_owned).ok_or("not an object")
    }

    #[test]
    fn the_last_text_wins_and_the_previous_is_the_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConfigFile::new(dir.path().join("config/topics.json"));
        assert_eq!(file.load(parse).unwrap(), None);
        for text in ["{1}", "{2}", "{3}"] {
            file.persist(text).unwrap();
        }
        assert_eq!(file.load(parse).unwrap().as_deref(), Some("3"));
        assert_eq!(fs::read_to_string(dir.path().join("config/topics.json.bak")).unwrap(), "{2}");
        assert!(!dir.path().join("config/topics.json.tmp").exists());
    }

    #[test]
    fn every_torn_length_falls_back_to_the_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConfigFile::new(dir.path().join("t.json"));
        file.persist("{old}").unwrap();
        file.persist("{newer}").unwrap();
        for len in 0.."{newer}".len() {
            fs::write(file.path(), &"{newer}"[..len]).unwrap();
            assert_eq!(file.load(parse).unwrap().as_deref(), Some("old"), "length {len}");
        }
        fs::remove_file(file.path()).unwrap();
        assert_eq!(file.load(parse).unwrap().as_deref(), Some("old"));
        fs::write(dir.path().join("t.json.bak"), "garbage").unwrap();
        assert!(file.load(parse).unwrap_err().to_string().contains("t.json.bak"));
    }
}
