//! Why a text is no SQL92 expression.

use std::fmt;

/// What is wrong, for the user who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError(String);

/// Characters of an expression that an error quotes at most.
const QUOTED_MAX: usize = 200;

impl SyntaxError {
    pub(super) fn new(what: impl fmt::Display) -> Self {
        let what = what.to_string();
        match what.char_indices().nth(QUOTED_MAX) {
            Some((end, _)) => Self(format!("{}...", &what[..end])),
            None => Self(what),
        }
    }

    /// An error at a byte of the expression.
    pub(super) fn at(text: &str, byte: usize, what: impl fmt::Display) -> Self {
        let before = &text[..byte];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
        Self(format!("{} at line {line}, column {column}.", Self::new(what)))
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
