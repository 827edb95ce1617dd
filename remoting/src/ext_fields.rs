//! The `extFields` of a command: text by name, in the order in which it came.
//!
//! A request carries about a dozen of them, so a vector that is scanned beats a map; unknown names
//! are kept, for a signature is computed over all of them.

use bytestring::ByteString;

/// Field names and values of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtFields(Vec<(ByteString, ByteString)>);

impl ExtFields {
    /// No fields; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value under `name`; the last one where a name came twice, as a Java map would have it.
    pub fn get(&self, name: &str) -> Option<&ByteString> {
        self.0.iter().rev().find(|(key, _)| &**key == name).map(|(_, value)| value)
    }

    /// Adds a field without looking for an older one of that name.
    pub fn push(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) {
        self.0.push((name.into(), value.into()));
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &ByteString)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K: Into<ByteString>, V: Into<ByteString>> FromIterator<(K, V)> for ExtFields {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
