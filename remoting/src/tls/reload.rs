//! What was made of files, made anew when they change.
//!
//! Files are compared by what stands in them, at an interval: a mounted Kubernetes secret changes by
//! a symbolic link that is swapped, which neither the file's own time nor a watch on it would show.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::tls::{TlsError, TlsSettings};

/// Time between two looks at the files. Java looks every half second.
const PERIOD: Duration = Duration::from_secs(2);

/// A `T` that was made of settings and the files which they name.
pub(crate) struct Reloaded<T> {
    settings: TlsSettings,
    files: Vec<PathBuf>,
    make: fn(&TlsSettings) -> Result<T, TlsError>,
    current: RwLock<Arc<T>>,
    /// Of the files' contents, as they were last looked at.
    seen: Mutex<u64>,
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Makes the first one; `keys` name the files that it is made of.
    pub(crate) fn new(
        settings: &TlsSettings,
        keys: &[&str],
        make: fn(&TlsSettings) -> Result<T, TlsError>,
    ) -> Result<Self, TlsError> {
        let files: Vec<PathBuf> = keys.iter().filter_map(|key| settings.path(key)).collect();
        // Before the files are used: what changes in between is seen at the next look.
        let seen = Mutex::new(fingerprint(&files));
        let current = RwLock::new(Arc::new(make(settings)?));
        Ok(Self { settings: settings.clone(), files, make, current, seen })
    }

    /// The newest one that could be made.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }

    /// Looks at the files, and makes a new one where they have changed. One that cannot be made
    /// leaves the old one in its place.
    pub(crate) fn look(&self) {
        let now = fingerprint(&self.files);
        if std::mem::replace(&mut *self.seen.lock(), now) == now {
            return;
        }
        match (self.make)(&self.settings) {
            Ok(made) => {
                *self.current.write() = Arc::new(made);
                tracing::info!("TLS: new connections use what {} hold now", self.names());
            }
            Err(error) => tracing::error!("TLS: changed files cannot be used, the old ones stay in use: {error}"),
        }
    }

    fn names(&self) -> String {
        self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Looks at the files again and again, until `shutdown`.
    pub(crate) async fn keep_current(self: Arc<Self>, shutdown: CancellationToken) {
        while !self.files.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let this = Arc::clone(&self);
            // A panic there is logged by its hook, and the next look goes on.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }
}

/// A file that cannot be read has a fingerprint too: its coming back is a change.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "tls.server.certPath";

    fn length(settings: &TlsSettings) -> Result<usize, TlsError> {
        let path = settings.path(KEY).unwrap_or_default();
        match std::fs::read(&path) {
            Ok(bytes) if bytes != b"broken" => Ok(bytes.len()),
            _ => Err(TlsError::File { key: KEY, path, reason: "broken".to_owned() }),
        }
    }

    #[test]
    fn broken_files_leave_the_old_ones_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tls.crt");
        std::fs::write(&file, "1").unwrap();
        let mut settings = TlsSettings::default();
        settings.set(KEY, file.to_str().unwrap()).unwrap();
        let reloaded = Reloaded::new(&settings, &[KEY, "tls.server.keyPath"], length).unwrap();
        let expect = |content: Option<&str>, length: usize| {
            match content {
                Some(content) => std::fs::write(&file, content).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let before = reloaded.get();
            reloaded.look();
            assert_eq!(*reloaded.get(), length, "{content:?}");
            let same = Arc::ptr_eq(&before, &reloaded.get());
            assert_eq!(same, *before == length, "{content:?} is taken over once");
            reloaded.look();
            assert_eq!(*reloaded.get(), length, "{content:?}, at the second look");
        };
        expect(Some("1"), 1);
        expect(Some("22"), 2);
        expect(Some("broken"), 2);
        expect(None, 2);
        expect(Some("333"), 3);
    }

    #[test]
    fn the_first_files_must_be_good() {
        let mut settings = TlsSettings::default();
        settings.set(KEY, "/nonexistent").unwrap();
        assert!(Reloaded::new(&settings, &[KEY], length).is_err());
    }
}
