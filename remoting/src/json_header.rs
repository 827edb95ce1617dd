//! The JSON form of a header, read and written by hand: it is on every message's path.
//!
//! As in Java, unknown keys and nulls are ignored, and a field of `extFields` that is no string is taken as its text.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::command::{Command, Language};
use crate::error::FrameError;
use crate::ext_fields::ExtFields;

/// Objects and arrays under unknown keys may nest this deep.
const DEPTH_MAX: usize = 32;
/// A send request has 14 fields.
const FIELDS_EXPECTED: usize = 16;

/// Reads a header; the body is left empty.
///
/// # Errors
/// The text is no JSON object, or a known key has a value of another type.
pub fn decode(header: &[u8]) -> Result<Command, FrameError> {
    let text = std::str::from_utf8(header).map_err(|_| FrameError::Header("a text is not UTF-8"))?;
    let mut reader = Reader { text, at: 0 };
    let mut command = Command::default();
    reader.object(|reader| {
        match &*reader.key()? {
            "code" => command.code = reader.int()?,
            "version" => command.version = reader.int()?,
            "opaque" => command.opaque = reader.int()?,
            "flag" => command.flag = reader.int()?,
            "language" => {
                if let Some(name) = reader.text_or_null()? {
                    command.language = Language::from_name(&name);
                }
            }
            "remark" => command.remark = reader.text_or_null()?.map(|text| text.into_owned().into()),
            "extFields" => {
                if !reader.null() {
                    command.ext_fields = reader.fields()?;
                }
            }
            _ => reader.skip(0)?,
        }
        Ok(())
    })?;
    reader.blanks();
    if reader.at != text.len() {
        return Err(FrameError::Header("there is text after the JSON object"));
    }
    Ok(command)
}

struct Reader<'a> {
    text: &'a str,
    /// Always between two characters.
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), FrameError> {
        if self.eat(byte) { Ok(()) } else { Err(FrameError::Header("it is not a JSON object")) }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn null(&mut self) -> bool {
        self.blanks();
        let there = self.text[self.at..].starts_with("null");
        self.at += if there { 4 } else { 0 };
        there
    }

    /// Reads an object whose entries, key and value, `entry` reads.
    fn object(&mut self, mut entry: impl FnMut(&mut Self) -> Result<(), FrameError>) -> Result<(), FrameError> {
        self.expect(b'{')?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            entry(self)?;
            if self.eat(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, FrameError> {
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    fn fields(&mut self) -> Result<ExtFields, FrameError> {
        let mut fields = ExtFields::with_capacity(FIELDS_EXPECTED, self.text.len() - self.at);
        self.object(|reader| {
            fields.try_push(|text| {
                reader.string_into(text)?;
                let name_end = text.len();
                reader.expect(b':')?;
                reader.blanks();
                if reader.peek() == Some(b'"') {
                    reader.string_into(text)?;
                } else if reader.null() {
                    return Ok(None);
                } else {
                    let start = reader.at;
                    reader.skip(0)?;
                    text.push_str(&reader.text[start..reader.at]);
                }
                Ok(Some(name_end))
            })
        })?;
        Ok(fields)
    }

    fn text_or_null(&mut self) -> Result<Option<Cow<'a, str>>, FrameError> {
        if self.null() { Ok(None) } else { self.string().map(Some) }
    }

    fn int(&mut self) -> Result<i32, FrameError> {
        if self.null() {
            return Ok(0);
        }
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            self.at += 1;
        }
        self.text[start..self.at].parse().map_err(|_| FrameError::Header("a number is not a 32-bit integer"))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, FrameError> {
        self.expect(b'"')?;
        let start = self.at;
        let (piece, ends) = self.piece()?;
        if ends {
            return Ok(Cow::Borrowed(piece));
        }
        let mut text = String::new();
        self.at = start;
        self.rest_of_string(&mut text)?;
        Ok(Cow::Owned(text))
    }

    /// Appends the string that follows.
    fn string_into(&mut self, text: &mut String) -> Result<(), FrameError> {
        self.expect(b'"')?;
        self.rest_of_string(text)
    }

    fn rest_of_string(&mut self, text: &mut String) -> Result<(), FrameError> {
        loop {
            let (piece, ends) = self.piece()?;
            text.push_str(piece);
            if ends {
                return Ok(());
            }
            text.push(self.escaped()?);
        }
    }

    /// What stands before the string's end or its next escape, and whether it is the end; goes behind the quote or backslash.
    fn piece(&mut self) -> Result<(&'a str, bool), FrameError> {
        let rest = &self.text[self.at..];
        let length = quote_or_backslash(rest.as_bytes()).ok_or(FrameError::Header("a string has no end"))?;
        self.at += length + 1;
        Ok((&rest[..length], rest.as_bytes()[length] == b'"'))
    }

    /// The character that is meant by what follows a backslash.
    fn escaped(&mut self) -> Result<char, FrameError> {
        const BAD: FrameError = FrameError::Header("a string has a bad escape");
        let byte = self.peek().ok_or(BAD)?;
        // Behind a backslash stands ASCII, or an error.
        self.at += usize::from(byte.is_ascii());
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            // Every property of a message stands between two such.
            b'u' if self.text[self.at..].starts_with("0001") => {
                self.at += 4;
                '\u{1}'
            }
            b'u' if self.text[self.at..].starts_with("0002") => {
                self.at += 4;
                '\u{2}'
            }
            b'u' => {
                let first = self.code_unit().ok_or(BAD)?;
                // Half of a character beyond 16 bits; the other half follows in the same form.
                let second = if (0xD800..0xDC00).contains(&first) {
                    if !self.text[self.at..].starts_with("\\u") {
                        return Err(BAD);
                    }
                    self.at += 2;
                    Some(self.code_unit().ok_or(BAD)?)
                } else {
                    None
                };
                char::decode_utf16([first].into_iter().chain(second)).next().and_then(Result::ok).ok_or(BAD)?
            }
            _ => return Err(BAD),
        })
    }

    /// Four hexadecimal digits.
    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        let value = digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))?;
        self.at += 4;
        u16::try_from(value).ok()
    }

    fn skip(&mut self, depth: usize) -> Result<(), FrameError> {
        if depth > DEPTH_MAX {
            return Err(FrameError::Header("it nests too deep"));
        }
        self.blanks();
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(|reader| {
                reader.key()?;
                reader.skip(depth + 1)
            }),
            Some(b'[') => {
                self.at += 1;
                if self.eat(b']') {
                    return Ok(());
                }
                loop {
                    self.skip(depth + 1)?;
                    if self.eat(b']') {
                        return Ok(());
                    }
                    self.expect(b',')?;
                }
            }
            _ => {
                let start = self.at;
                while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'+' | b'.')) {
                    self.at += 1;
                }
                if self.at == start { Err(FrameError::Header("a value is missing")) } else { Ok(()) }
            }
        }
    }
}

/// Where the first of either stands. Texts are short: eight bytes at once beat what is made for long ones.
fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    // The highest bit of each zero byte, below the first of which no other bit is set.
    let zeroes = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeroes(word ^ (ONES * u64::from(b'"'))) | zeroes(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

/// Writes a header, compactly. `remark` and `extFields` are left out where there are none, as Java does.
pub fn encode(command: &Command, to: &mut BytesMut) {
    let mut number = itoa::Buffer::new();
    to.put_slice(b"{\"code\":");
    to.put_slice(number.format(command.code).as_bytes());
    if !command.ext_fields.is_empty() {
        to.put_slice(b",\"extFields\":{");
        for (index, (name, value)) in command.ext_fields.iter().enumerate() {
            if index > 0 {
                to.put_u8(b',');
            }
            put_string(to, name);
            to.put_u8(b':');
            put_string(to, value);
        }
        to.put_u8(b'}');
    }
    to.put_slice(b",\"flag\":");
    to.put_slice(number.format(command.flag).as_bytes());
    to.put_slice(b",\"language\":\"");
    to.put_slice(command.language.name().as_bytes());
    to.put_slice(b"\",\"opaque\":");
    to.put_slice(number.format(command.opaque).as_bytes());
    if let Some(remark) = &command.remark {
        to.put_slice(b",\"remark\":");
        put_string(to, remark);
    }
    to.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    to.put_slice(number.format(command.version).as_bytes());
    to.put_u8(b'}');
}

fn put_string(to: &mut BytesMut, text: &str) {
    to.reserve(text.len() + 2);
    to.put_u8(b'"');
    // Most need none, and to ask all bytes at once is cheap.
    if text.bytes().fold(false, |any, byte| any | needs_escape(byte)) {
        put_escaped(to, text.as_bytes());
    } else {
        to.put_slice(text.as_bytes());
    }
    to.put_u8(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn put_escaped(to: &mut BytesMut, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !needs_escape(byte) {
            continue;
        }
        to.put_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' | b'\\' => to.put_slice(&[b'\\', byte]),
            b'\n' => to.put_slice(b"\\n"),
            b'\r' => to.put_slice(b"\\r"),
            b'\t' => to.put_slice(b"\\t"),
            _ => {
                to.put_slice(b"\\u00");
                to.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    to.put_slice(&bytes[plain_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Command, FrameError> {
        decode(text.as_bytes())
    }

    #[test]
    fn a_java_header_is_read() {
        let command = read(
            r#" {"code":310,"extFields":{"a":"g","b":"T","i":"KEYS\u0001k\u0002","m":"false","x":null,"q":4},
                "flag":0,"language":"JAVA","opaque":5,"serializeTypeCurrentRPC":"JSON","version":407,
                "more":{"nested":[1,{"deep":true},null,"\""]}} "#,
        )
        .unwrap();
        assert_eq!((command.code, command.opaque, command.version), (310, 5, 407));
        assert_eq!(command.ext_fields.get("i"), Some("KEYS\u{1}k\u{2}"));
        assert_eq!(command.ext_fields.get("q"), Some("4"));
        assert_eq!(command.ext_fields.get("x"), None);
    }

    #[test]
    fn go_writes_empty_texts_and_unknown_languages_are_other() {
        let command = read(r#"{"code":105,"language":"KLINGON","remark":"","extFields":{},"opaque":-2147483648}"#);
        let command = command.unwrap();
        assert_eq!(command.language, Language::OTHER);
        assert_eq!(command.opaque, i32::MIN);
        assert!(command.ext_fields.is_empty());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for text in ["", "[]", "{", "{\"code\":}", "{\"code\":1.5}", "{\"code\":1}x", "{\"remark\":\"a", "{\"a\":\"\\"]
        {
            assert!(read(text).is_err(), "{text:?} was read");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&format!("{{\"x\":{deep}")).is_err());
    }

    #[test]
    fn the_end_of_a_text_is_found_wherever_it_stands() {
        for length in 0..40 {
            let mut text = vec![b'#'; length];
            assert_eq!(quote_or_backslash(&text), None);
            for at in (0..length).rev() {
                // Neighbours of both, and bytes beyond ASCII, are neither.
                text.iter_mut()
                    .zip([b'!', b'[', 0xA2, 0xDC, 0x80, 0xFF].into_iter().cycle())
                    .take(at)
                    .for_each(|(b, other)| *b = other);
                text[at] = if at % 2 == 0 { b'"' } else { b'\\' };
                assert_eq!(quote_or_backslash(&text), Some(at), "{text:?}");
            }
        }
    }

    #[test]
    fn a_text_is_read_as_any_reader_of_json_reads_it() {
        let halves = [
            "\\",
            "\"",
            "/",
            "b",
            "n",
            "r",
            "t",
            "f",
            "u",
            "x",
            "é",
            "u0001",
            "u00e9",
            "u00E",
            "uD83D",
            "ude00",
            "u+123",
            "uD83D\\ude00",
        ];
        for first in halves {
            for second in halves {
                for text in
                    [format!("\\{first}{second}"), format!("a\\{first}é\\{second}z"), format!("{first}\\{second}")]
                {
                    let quoted = format!("\"{text}\"");
                    let known = serde_json::from_str::<String>(&quoted).ok();
                    let field = read(&format!("{{\"extFields\":{{\"k\":{quoted}}}}}")).ok();
                    let field = field.map(|command| command.ext_fields.get("k").map(str::to_owned));
                    assert_eq!(field.flatten(), known, "{quoted}");
                    let remark = read(&format!("{{\"remark\":{quoted}}}")).ok();
                    let remark = remark.and_then(|command| command.remark.map(|text| text.to_string()));
                    assert_eq!(remark, known, "{quoted}");
                }
            }
        }
    }
}
