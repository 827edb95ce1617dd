//! A text file that is replaced as a whole and survives a torn write: `config/*.json` of the broker.
//!
//! Persist: write `<name>.tmp`, sync it, copy the previous text to `<name>.bak`, rename over, sync the directory.
//! Load: the file; when it is missing, empty or refused by the caller's parser, the `.bak`, and say so. May not: know
//! what the text means.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// One such file.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
}

impl ConfigFile {
    /// Names the file; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the text. After an error the old text is still what [`ConfigFile::load`] finds.
    pub fn persist(&self, text: &str) -> Result<(), StoreError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(|e| StoreError::io("create", dir, e))?;
        let temp = self.beside("tmp");
        write_synced(&temp, text.as_bytes())?;
        // The previous text becomes the backup by its own rename, so the backup is never half written either.
        match fs::read(&self.path) {
            Ok(previous) if !previous.is_empty() => {
                let backup = self.beside("bak");
                let backup_temp = self.beside("bak.tmp");
                write_synced(&backup_temp, &previous)?;
                fs::rename(&backup_temp, &backup).map_err(|e| StoreError::io("rename to", &backup, e))?;
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StoreError::io("read", &self.path, e)),
        }
        fs::rename(&temp, &self.path).map_err(|e| StoreError::io("rename to", &self.path, e))?;
        sync_dir(dir)
    }

    /// Parses the text, or else the backup's. `Ok(None)` when neither file has any text; the parser's error when
    /// there is text and none of it parses.
    pub fn load<T, E: std::fmt::Display>(&self, parse: impl Fn(&str) -> Result<T, E>) -> Result<Option<T>, LoadError> {
        let backup = self.beside("bak");
        let mut failure = None;
        for path in [&self.path, &backup] {
            let reason = match fs::read(path) {
                Ok(bytes) if bytes.is_empty() => "it is empty".to_owned(),
                Ok(bytes) => match std::str::from_utf8(&bytes) {
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
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => e.to_string(),
            };
            tracing::error!(file = %path.display(), %reason, "load failed");
            if reason != "it is empty" {
                failure = Some(LoadError { path: path.clone(), reason });
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(suffix);
        PathBuf::from(name)
    }
}

/// Neither the file nor its backup could be used.
#[derive(Debug, thiserror::Error)]
#[error("load {}: {reason}", path.display())]
pub struct LoadError {
    /// The file tried last.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = File::create(path).map_err(|e| StoreError::io("create", path, e))?;
    file.write_all(bytes).map_err(|e| StoreError::io("write", path, e))?;
    file.sync_all().map_err(|e| StoreError::io("sync", path, e))
}

/// Makes created, renamed and removed names of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StoreError::io("sync", dir, e))
}

#[cfg(test)]
mod tests {
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
