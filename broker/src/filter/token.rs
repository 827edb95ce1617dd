//! SQL92 expressions as words and signs (`SelectorParser.jj` of RocketMQ's filter module).
//!
//! Reads one token at a time: what stands behind the end of an expression is never looked at, as in
//! Java. May not know what an expression means.

use super::syntax_error::SyntaxError;

/// One word or sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    End,
    Word(&'a str),
    Keyword(Keyword),
    /// A whole number; an `L` behind it is still there.
    Decimal(&'a str),
    /// A number with a point or an exponent.
    Float(&'a str),
    /// A text, as it stands between its quotes: a quote within it is still two.
    Text(&'a str),
    Sign(Sign),
}

/// The reserved words, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const KEYWORDS: [(&str, Keyword); 12] = [
    ("NOT", Keyword::Not),
    ("AND", Keyword::And),
    ("OR", Keyword::Or),
    ("BETWEEN", Keyword::Between),
    ("IN", Keyword::In),
    ("TRUE", Keyword::True),
    ("FALSE", Keyword::False),
    ("NULL", Keyword::Null),
    ("IS", Keyword::Is),
    ("CONTAINS", Keyword::Contains),
    ("STARTSWITH", Keyword::StartsWith),
    ("ENDSWITH", Keyword::EndsWith),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
}

/// Longer ones stand before those that they begin with.
const SIGNS: [(&str, Sign); 11] = [
    ("<>", Sign::NotEqual),
    ("<=", Sign::LessOrEqual),
    (">=", Sign::GreaterOrEqual),
    ("=", Sign::Equal),
    ("<", Sign::Less),
    (">", Sign::Greater),
    ("(", Sign::Open),
    (")", Sign::Close),
    (",", Sign::Comma),
    ("+", Sign::Plus),
    ("-", Sign::Minus),
];

/// Takes tokens off the front of a text.
pub(super) struct Tokens<'a> {
    text: &'a str,
    /// Where the rest begins.
    at: usize,
    /// Where the token taken last begins.
    token_at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0, token_at: 0 }
    }

    /// The next token; an error where no token begins.
    pub(super) fn next(&mut self) -> Result<Token<'a>, SyntaxError> {
        self.skip();
        self.token_at = self.at;
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        let (token, len) = if is_word_start(first) {
            word(rest)
        } else if first == '\'' {
            text(rest).ok_or_else(|| self.no_token("the text that begins here has no end"))?
        } else if let Some(number) = number(rest) {
            number
        } else {
            let sign = SIGNS.iter().find(|(text, _)| rest.starts_with(text));
            let (text, sign) = sign.ok_or_else(|| self.no_token("no token begins so"))?;
            (Token::Sign(*sign), text.len())
        };
        self.at += len;
        Ok(token)
    }

    /// The error of a token that is not expected where it stands.
    pub(super) fn unexpected(&self) -> SyntaxError {
        let token = &self.text[self.token_at..self.at];
        let shown = if token.is_empty() { "the end" } else { token };
        SyntaxError::at(self.text, self.token_at, format_args!("Encountered \"{shown}\""))
    }

    fn no_token(&self, why: &str) -> SyntaxError {
        let character = self.text[self.token_at..].chars().next().unwrap_or_default();
        SyntaxError::at(self.text, self.token_at, format_args!("Lexical error, {why}: {character:?}"))
    }

    /// Passes blanks and comments over. A comment without its end is none: its first sign is a token.
    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let len = match rest.as_bytes() {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0C, ..] => Some(1),
                [b'-', b'-', ..] => rest.find(['\n', '\r']).map(|end| end + 1),
                [b'/', b'*', ..] => rest[2..].find("*/").map(|end| end + 4),
                _ => None,
            };
            let Some(len) = len else { return };
            self.at += len;
        }
    }
}

fn is_word_start(character: char) -> bool {
    character.is_ascii_alphabetic() || matches!(character, '_' | '$')
}

fn word(rest: &str) -> (Token<'_>, usize) {
    let len = rest.find(|c| !is_word_start(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
    let word = &rest[..len];
    let keyword = KEYWORDS.iter().find(|(text, _)| text.eq_ignore_ascii_case(word));
    (keyword.map_or(Token::Word(word), |(_, keyword)| Token::Keyword(*keyword)), len)
}

/// A text in quotes; two quotes within it are one. Where the last one has no end, the text ends at the pair before.
fn text(rest: &str) -> Option<(Token<'_>, usize)> {
    let mut at = 1;
    let mut end = None;
    while let Some(quote) = rest.get(at..).and_then(|rest| rest.find('\'')) {
        at += quote + 1;
        end = Some(at);
        if !rest[at..].starts_with('\'') {
            break;
        }
        at += 1;
    }
    end.map(|end| (Token::Text(&rest[1..end - 1]), end))
}

/// A number: the longest that fits. `007` is three numbers, `5.` and `.5` are one.
fn number(rest: &str) -> Option<(Token<'_>, usize)> {
    let bytes = rest.as_bytes();
    let digits_from = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let exponent_from = |at: usize| {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let is_exponent = matches!(bytes.get(at), Some(b'e' | b'E')) && at + 1 + sign <= bytes.len();
        let digits = if is_exponent { digits_from(at + 1 + sign) } else { 0 };
        if digits > 0 { 1 + sign + digits } else { 0 }
    };
    let whole = digits_from(0);
    if bytes.get(whole) == Some(&b'.') {
        let fraction = digits_from(whole + 1);
        if whole + fraction == 0 {
            return None;
        }
        let end = whole + 1 + fraction;
        let end = end + exponent_from(end);
        return Some((Token::Float(&rest[..end]), end));
    }
    if whole == 0 {
        return None;
    }
    let exponent = exponent_from(whole);
    if exponent > 0 {
        let end = whole + exponent;
        return Some((Token::Float(&rest[..end]), end));
    }
    let end = match bytes[0] {
        b'0' => 1,
        _ => whole + usize::from(matches!(bytes.get(whole), Some(b'l' | b'L'))),
    };
    Some((Token::Decimal(&rest[..end]), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Token<'_>>, String> {
        let mut tokens = Tokens::of(text);
        let mut found = Vec::new();
        loop {
            match tokens.next().map_err(|error| error.to_string())? {
                Token::End => return Ok(found),
                token => found.push(token),
            }
        }
    }

    #[test]
    fn the_longest_token_counts() {
        use Token::{Decimal, Float, Sign as S, Text, Word};
        assert_eq!(all("a<>1").unwrap(), [Word("a"), S(Sign::NotEqual), Decimal("1")]);
        assert_eq!(all("a< >=1L").unwrap(), [Word("a"), S(Sign::Less), S(Sign::GreaterOrEqual), Decimal("1L")]);
        assert_eq!(all("5. .5 5e1 5.5E-3").unwrap(), [Float("5."), Float(".5"), Float("5e1"), Float("5.5E-3")]);
        assert_eq!(all("007 0l 1e 1.e").unwrap()[..4], [Decimal("0"), Decimal("0"), Decimal("7"), Decimal("0")]);
        assert_eq!(all("1e").unwrap(), [Decimal("1"), Word("e")]);
        assert_eq!(all("007e1").unwrap(), [Float("007e1")]);
        assert_eq!(all("5.5.5").unwrap(), [Float("5.5"), Float(".5")]);
        assert_eq!(all("'it''s' ''''").unwrap(), [Text("it''s"), Text("''")]);
        let mut pair = Tokens::of("'a''b''c");
        assert_eq!(pair.next().unwrap(), Text("a''b"), "what begins at the second pair has no end");
        assert!(pair.next().is_err());
        assert_eq!(all("nOt $_9").unwrap(), [Token::Keyword(Keyword::Not), Word("$_9")]);
    }

    #[test]
    fn blanks_and_whole_comments_are_passed_over() {
        assert_eq!(all("a -- b\r\n/* c ** / */\t\u{c}d").unwrap(), [Token::Word("a"), Token::Word("d")]);
        let minus = Token::Sign(Sign::Minus);
        assert_eq!(all("--a").unwrap(), [minus, minus, Token::Word("a")], "a line without an end is no comment");
    }

    #[test]
    fn what_is_no_token_is_named_with_its_place() {
        assert_eq!(all("a\n =  #").unwrap_err(), "Lexical error, no token begins so: '#' at line 2, column 5.");
        for no_token in ["'abc", "'abc''", ".", "/* a", "ä", "\u{a0}", "!="] {
            assert!(all(no_token).is_err(), "{no_token}");
        }
    }
}
