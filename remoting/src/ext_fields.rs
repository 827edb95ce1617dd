//! The `extFields` of a command: text by name, in the order in which it came.
//!
//! A request carries about a dozen of them, so a scan beats a map; unknown names are kept, for a signature is computed
//! over all of them. All names and values stand in one text, one behind the other: reading a header allocates twice, however
//! many fields it has.

/// Field names and values of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtFields {
    /// Name, value, name, value …
    text: String,
    /// Where each name and its value end in `text`.
    ends: Vec<(usize, usize)>,
}

impl ExtFields {
    /// No fields; allocates nothing.
    pub const fn new() -> Self {
        Self { text: String::new(), ends: Vec::new() }
    }

    /// No fields, with room for some that have that many bytes together.
    pub(crate) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(fields) }
    }

    /// Makes room for so many more that have that many bytes together.
    pub(crate) fn reserve(&mut self, fields: usize, bytes: usize) {
        self.text.reserve(bytes);
        self.ends.reserve(fields);
    }

    /// The value under `name`; the last one where a name came twice, as a Java map would have it.
    pub fn get(&self, name: &str) -> Option<&str> {
        (0..self.len()).rev().map(|at| self.field(at)).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Adds a field without looking for an older one of that name.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        self.push_with(name.as_ref(), |text| text.push_str(value.as_ref()));
    }

    /// Adds a field whose value is appended to the text that is given.
    pub(crate) fn push_with(&mut self, name: &str, value: impl FnOnce(&mut String)) {
        self.text.push_str(name);
        let name_end = self.text.len();
        value(&mut self.text);
        self.ends.push((name_end, self.text.len()));
    }

    /// Adds a field that `read` appends to the text, name and value, and says where the name ends; or none, where it says that
    /// there is none.
    pub(crate) fn try_push<E>(&mut self, read: impl FnOnce(&mut String) -> Result<Option<usize>, E>) -> Result<(), E> {
        let start = self.text.len();
        match read(&mut self.text)? {
            Some(name_end) => self.ends.push((name_end, self.text.len())),
            None => self.text.truncate(start),
        }
        Ok(())
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.len()).map(|at| self.field(at))
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn field(&self, at: usize) -> (&str, &str) {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (name_end, end) = self.ends[at];
        (&self.text[start..name_end], &self.text[name_end..end])
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for ExtFields {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        let mut all = Self::new();
        fields.into_iter().for_each(|(name, value)| all.push(name, value));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_their_order_and_the_last_of_a_name_counts() {
        let mut fields: ExtFields = [("a", "1"), ("", ""), ("é", "")].into_iter().collect();
        fields.push("a", "2");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("a", "1"), ("", ""), ("é", ""), ("a", "2")]);
        assert_eq!((fields.get("a"), fields.get(""), fields.get("b")), (Some("2"), Some(""), None));
        let dropped: Result<(), ()> = fields.try_push(|text| {
            text.push_str("half");
            Ok(None)
        });
        assert_eq!((dropped, fields.len()), (Ok(()), 4));
        fields.push("b", "3");
        assert_eq!(fields.get("b"), Some("3"));
    }
}
