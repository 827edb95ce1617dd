//! How far the timer is: `config/timerProgress.json`, and its form on the wire.
//!
//! A message of the timer's queue is done with when it was delivered or rolled; which ones are
//! follows from the three marks of [`Progress`] and the log. The file also says what the slot files
//! hold, so that they are used only where both belong together. May not read slot files.

use std::collections::BTreeMap;
use std::path::Path;

use rocketmq_store::ConfigFile;
use serde::{Deserialize, Serialize};

use super::message::PRECISION_MAX_MS;

/// A place in the order of delivery: by time, then by queue offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Position {
    /// Delivery time, milliseconds since 1970.
    pub(super) due_ms: i64,
    /// Offset in the timer's queue; `i64::MAX` behind all of that time.
    pub(super) queue_offset: i64,
}

impl Position {
    /// Before everything.
    pub(super) const START: Self = Self { due_ms: i64::MIN, queue_offset: i64::MIN };

    /// Behind everything of that time.
    pub(super) const fn after(due_ms: i64) -> Self {
        Self { due_ms, queue_offset: i64::MAX }
    }
}

/// How far the timer is. Of the messages in the timer's queue, done with are
/// * those below `roll_offset`, and
/// * those below `read_offset` whose place is at or before `delivered`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    /// See the type.
    pub(super) roll_offset: i64,
    /// See the type.
    pub(super) read_offset: i64,
    /// See the type.
    pub(super) delivered: Position,
    /// The precision that messages from `coarse_below` on were stored with, milliseconds.
    #[serde(default)]
    pub(super) precision_ms: i64,
    /// Messages below were stored with another precision, perhaps the coarsest.
    #[serde(default)]
    pub(super) coarse_below: i64,
    /// Whether nothing was delivered or rolled after this was written.
    #[serde(default)]
    pub(super) clean_stop: bool,
    /// What the slot files hold; without it they are made anew.
    #[serde(default)]
    pub(super) slots: Option<SlotsManifest>,
}

/// What the slot files hold: the messages of `[roll_offset, taken)` that were pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SlotsManifest {
    /// Tells these files from those made before; part of each record's check sum.
    pub(super) generation: i64,
    /// Queue offset up to which messages are in the files.
    pub(super) taken: i64,
    /// Records of messages that were rolled since.
    pub(super) superseded: u64,
    /// Messages that came late for their own slot are in the one that begins here.
    pub(super) over_until_ms: i64,
    /// Records of each slot, by the slot's begin.
    pub(super) counts: BTreeMap<i64, u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            roll_offset: 0,
            read_offset: 0,
            delivered: Position::START,
            precision_ms: 0,
            coarse_below: 0,
            clean_stop: false,
            slots: None,
        }
    }
}

impl Progress {
    /// Whether the message at that place is done with.
    pub(super) fn is_past(&self, at: Position) -> bool {
        at.queue_offset < self.roll_offset || self.is_delivered(at)
    }

    /// Whether the message at that place was delivered.
    pub(super) fn is_delivered(&self, at: Position) -> bool {
        at.queue_offset < self.read_offset && at <= self.delivered
    }

    /// Reads the file. Without one, what a Java broker left in `config/timercheck` says which
    /// messages it has delivered.
    pub(super) fn load(file: &ConfigFile, config_dir: &Path) -> Self {
        let parse = |text: &str| serde_json::from_str::<Self>(text).map_err(|error| error.to_string());
        match file.load(parse) {
            Ok(Some(progress)) => return progress,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(
                    "timerProgress.json is lost, and its backup: {error}; timer messages that are still in the log may be delivered twice"
                );
                return Self::default();
            }
        }
        let java = std::fs::read(config_dir.join("timercheck")).ok();
        java.and_then(|bytes| Self::from_wire(&bytes)).unwrap_or_default()
    }

    /// Its text in the file.
    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The body of `GET_TIMER_CHECK_POINT` (Java's `TimerCheckpoint`): `i64` read time, log position
    /// (none here), queue offset, the master's queue offset, three of a data version; then our own
    /// `i64`: time and offset delivered, roll offset.
    pub(super) fn to_wire(&self) -> Vec<u8> {
        let read = self.read_offset;
        let Position { due_ms, queue_offset } = self.delivered;
        // Java knows no place within a step.
        let read_time_ms = if queue_offset == i64::MAX { due_ms } else { due_ms.saturating_sub(PRECISION_MAX_MS) };
        let fields = [read_time_ms.max(0), 0, read, read, 0, 0, 0, due_ms, queue_offset, self.roll_offset];
        fields.into_iter().flat_map(i64::to_be_bytes).collect()
    }

    /// Reads that body, or Java's file, which begins like it. `None` for what is too short or cannot be.
    pub(super) fn from_wire(bytes: &[u8]) -> Option<Self> {
        let (fields, _) = bytes.as_chunks::<8>();
        let field = |at: usize| fields.get(at).map(|bytes| i64::from_be_bytes(*bytes));
        let (due_ms, read_offset) = (field(0)?, field(3)?);
        if due_ms < 0 || read_offset < 0 {
            return None;
        }
        let mut progress = Self { read_offset, ..Self::default() };
        // Java delivered the steps before its read time: those due at it or before.
        progress.delivered = Position::after(due_ms);
        if let Ok([.., due_ms, queue_offset, roll_offset]) = <[[u8; 8]; 10]>::try_from(fields) {
            let [due_ms, queue_offset, roll_offset] = [due_ms, queue_offset, roll_offset].map(i64::from_be_bytes);
            progress.delivered = Position { due_ms, queue_offset };
            progress.roll_offset = roll_offset.max(0);
        }
        Some(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_with_follows_from_the_marks() {
        let progress = Progress {
            roll_offset: 10,
            read_offset: 100,
            delivered: Position { due_ms: 5000, queue_offset: 50 },
            ..Progress::default()
        };
        let past = |due_ms, queue_offset| progress.is_past(Position { due_ms, queue_offset });
        assert!(past(9000, 9), "rolled");
        assert!(past(4000, 99) && past(5000, 50), "delivered");
        assert!(!past(5000, 51) && !past(6000, 11), "still to come");
        assert!(!past(4000, 100), "never looked at");
    }

    #[test]
    fn the_wire_form_is_javas_and_carries_ours() {
        let progress = Progress {
            roll_offset: 3,
            read_offset: 7,
            delivered: Position { due_ms: 5000, queue_offset: 6 },
            ..Progress::default()
        };
        let bytes = progress.to_wire();
        assert_eq!(Progress::from_wire(&bytes), Some(progress));
        let javas = Progress::from_wire(&bytes[..56]).unwrap();
        assert_eq!((javas.read_offset, javas.roll_offset, javas.delivered), (7, 0, Position::after(4000)));
        for cut in 0..32 {
            assert_eq!(Progress::from_wire(&bytes[..cut]), None, "cut at {cut}");
        }
        assert!(Progress::from_wire(&[255; 80]).is_none());
    }

    #[test]
    fn javas_checkpoint_is_taken_over_and_garbage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConfigFile::new(dir.path().join("timerProgress.json"));
        assert_eq!(Progress::load(&file, dir.path()), Progress::default());
        let fields = [9000i64, 77, 5, 4];
        std::fs::write(dir.path().join("timercheck"), fields.map(i64::to_be_bytes).concat()).unwrap();
        let progress = Progress::load(&file, dir.path());
        assert_eq!((progress.read_offset, progress.delivered), (4, Position::after(9000)));
        let ours = Progress { read_offset: 12, ..Progress::default() };
        file.persist(&ours.text()).unwrap();
        assert_eq!(Progress::load(&file, dir.path()), ours);
        std::fs::write(file.path(), "{\"rollOffset").unwrap();
        assert_eq!(Progress::load(&file, dir.path()), Progress::default());
    }
}
