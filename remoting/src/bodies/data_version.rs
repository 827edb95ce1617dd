//! The version of a configuration table.

use serde::{Deserialize, Serialize};

/// Tells two states of a table apart (`DataVersion` in Java): equal only if all numbers are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataVersion {
    /// Counts the changes.
    pub counter: i64,
    /// Of the last change, in milliseconds since 1970.
    pub timestamp: i64,
    /// 5.x: counts changes of role; 4.9 peers neither send nor miss it.
    #[serde(skip_serializing_if = "is_zero")]
    pub state_version: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl DataVersion {
    /// The version after a change at `now` (milliseconds since 1970).
    pub fn advance(&mut self, now: i64) {
        self.counter += 1;
        self.timestamp = now;
    }
}
