//! The properties of one message that an expression asks for, found in one pass over their text.

use rocketmq_store::properties;

/// Names up to which nothing is allocated for a message.
const FEW: usize = 16;

/// What a message has under the names of an expression.
pub(super) struct PropertiesRead<'a> {
    /// Sorted.
    names: &'a [Box<str>],
    few: [Option<&'a str>; FEW],
    /// In place of `few` where there are more names.
    many: Vec<Option<&'a str>>,
}

impl<'a> PropertiesRead<'a> {
    /// Looks up the names, which are sorted. A later property of the same name counts, as in Java.
    pub(super) fn read(names: &'a [Box<str>], text: &'a [u8]) -> Self {
        let many = if names.len() > FEW { vec![None; names.len()] } else { Vec::new() };
        let mut read = Self { names, few: [None; FEW], many };
        for (name, value) in properties(text) {
            if let Some(at) = read.place(name) {
                read.values_mut()[at] = Some(value);
            }
        }
        read
    }

    /// The property of that name.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let values = if self.many.is_empty() { &self.few[..] } else { &self.many };
        values.get(self.place(name)?).copied().flatten()
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|known| (**known).cmp(name)).ok()
    }

    fn values_mut(&mut self) -> &mut [Option<&'a str>] {
        if self.many.is_empty() { &mut self.few } else { &mut self.many }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts_and_others_are_not_kept() {
        for extra in [0, FEW] {
            let mut names: Vec<Box<str>> = (0..extra).map(|n| format!("n{n:02}").into()).collect();
            names.extend(["x".into(), "y".into()]);
            let read = PropertiesRead::read(&names, b"x\x011\x02z\x012\x02x\x013\x02");
            assert_eq!((read.get("x"), read.get("y"), read.get("z")), (Some("3"), None, None));
        }
    }
}
