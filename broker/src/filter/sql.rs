//! An SQL92 expression, ready to be asked about messages.

use super::expression::Expression;
use super::parser;
use super::properties_read::PropertiesRead;
use super::syntax_error::SyntaxError;

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Sql {
    text: Box<str>,
    root: Expression,
    /// The properties that it asks for, sorted, each once.
    names: Box<[Box<str>]>,
}

impl Sql {
    /// Compiles an expression; the error says what is wrong with it.
    pub(crate) fn compile(text: &str) -> Result<Self, SyntaxError> {
        let root = parser::parse(text)?;
        let mut names = Vec::new();
        root.for_each_property(&mut |name| names.push(name));
        names.sort_unstable();
        names.dedup();
        let names = names.into_iter().map(Into::into).collect();
        Ok(Self { text: text.into(), root, names })
    }

    /// The expression as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a message of these properties, in their stored form, passes. One whose values cannot be compared
    /// does not.
    pub(crate) fn matches(&self, properties: &[u8]) -> bool {
        self.answer(properties) == Answer::True
    }

    /// Its tree, as an expression.
    #[cfg(test)]
    pub(super) fn printed(&self) -> String {
        self.root.to_string()
    }

    pub(super) fn answer(&self, properties: &[u8]) -> Answer {
        let message = PropertiesRead::read(&self.names, properties);
        match self.root.truth(&message) {
            Ok(Some(true)) => Answer::True,
            Ok(Some(false)) => Answer::False,
            Ok(None) => Answer::Unknown,
            Err(_) => Answer::Fails,
        }
    }
}

/// What an expression says of a message. Only the first lets it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    True,
    False,
    Unknown,
    /// Java throws.
    Fails,
}

#[cfg(test)]
mod tests;
