//! The JSON form of a header, read and written by hand: it is on every message's path.
//!
//! Java's reader is fastjson, 1.2 in 4.9 and 2 in 5.x, which takes more than JSON, and so do clients' writers. As with both: unknown keys
//! and nulls are ignored, a field of `extFields` that is no string is taken as its text, so is a remark; a number may stand as
//! a string, with a fraction or as a boolean, a language as its number; a string may stand in single quotes and have a C escape or
//! half of a surrogate pair in it; a comma may follow the last entry, and zero bytes the object. As with one of them: keys without
//! quotes, bytes that are not UTF-8, numbers beyond 31 bits (4.9), booleans as strings (5.x).

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::command::{Command, Language};
use crate::error::FrameError;
use crate::ext_fields::ExtFields;

/// Objects and arrays under unknown keys may nest this deep.
const DEPTH_MAX: usize = 256;
/// A send request has 14 fields.
const FIELDS_EXPECTED: usize = 16;

/// Reads a header; the body is left empty.
///
/// # Errors
/// The text is no JSON object, or a known key has a value of another type.
pub fn decode(header: &[u8]) -> Result<Command, FrameError> {
    match std::str::from_utf8(header) {
        Ok(text) => decode_text(text),
        Err(_) => decode_text(&String::from_utf8_lossy(header)),
    }
}

fn decode_text(text: &str) -> Result<Command, FrameError> {
    let text = text.trim_end_matches('\0');
    let mut reader = Reader { text, at: 0 };
    let mut command = Command::default();
    reader.object(|reader| {
        match &*reader.key()? {
            "code" => command.code = reader.int()?,
            "version" => command.version = reader.int()?,
            "opaque" => command.opaque = reader.int()?,
            "flag" => command.flag = reader.int()?,
            "language" => {
                if reader.is_number() {
                    command.language = u8::try_from(reader.int()?).map_or(Language::OTHER, Language);
                } else if let Some(quote) = reader.opening() {
                    command.language = Language::from_name(&reader.string(quote)?);
                } else if !reader.null() {
                    return Err(FrameError::Header("a language is neither a name nor a number"));
                }
            }
            "remark" => {
                if !reader.null() {
                    let mut text = String::new();
                    reader.value_into(&mut text)?;
                    command.remark = Some(text.into());
                }
            }
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

    /// Goes behind the quote that opens a string, where one does; the same one ends it.
    fn opening(&mut self) -> Option<u8> {
        self.blanks();
        let quote = self.peek().filter(|byte| matches!(byte, b'"' | b'\''))?;
        self.at += 1;
        Some(quote)
    }

    fn is_number(&mut self) -> bool {
        self.blanks();
        matches!(self.peek(), Some(b'-' | b'+' | b'0'..=b'9'))
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
            if self.eat(b'}') {
                return Ok(());
            }
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, FrameError> {
        let key = match self.opening() {
            Some(quote) => self.string(quote)?,
            None => Cow::Borrowed(self.bare()?),
        };
        self.expect(b':')?;
        Ok(key)
    }

    /// A number, `true`, or a key without quotes.
    fn bare(&mut self) -> Result<&'a str, FrameError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'+' | b'.' | b'_' | b'$')) {
            self.at += 1;
        }
        if self.at == start { Err(FrameError::Header("a value is missing")) } else { Ok(&self.text[start..self.at]) }
    }

    /// Appends a string, or the text of a value that is none.
    fn value_into(&mut self, to: &mut String) -> Result<(), FrameError> {
        if let Some(quote) = self.opening() {
            return self.rest_of_string(quote, to);
        }
        let start = self.at;
        self.skip(0)?;
        to.push_str(&self.text[start..self.at]);
        Ok(())
    }

    fn fields(&mut self) -> Result<ExtFields, FrameError> {
        let mut fields = ExtFields::with_capacity(FIELDS_EXPECTED, self.text.len() - self.at);
        self.object(|reader| {
            fields.try_push(|text| {
                match reader.opening() {
                    Some(quote) => reader.rest_of_string(quote, text)?,
                    None => text.push_str(reader.bare()?),
                }
                let name_end = text.len();
                reader.expect(b':')?;
                if let Some(quote) = reader.opening() {
                    reader.rest_of_string(quote, text)?;
                } else if reader.null() {
                    return Ok(None);
                } else {
                    reader.value_into(text)?;
                }
                Ok(Some(name_end))
            })
        })?;
        Ok(fields)
    }

    fn int(&mut self) -> Result<i32, FrameError> {
        if self.null() {
            return Ok(0);
        }
        let number = if let Some(quote) = self.opening() {
            let text = self.string(quote)?;
            if matches!(&*text, "" | "null") { Some(0) } else { integer(&text) }
        } else {
            integer(self.bare()?)
        };
        number.ok_or(FrameError::Header("a number is not a 32-bit integer"))
    }

    /// The string behind its opening quote.
    fn string(&mut self, quote: u8) -> Result<Cow<'a, str>, FrameError> {
        let start = self.at;
        let (piece, ends) = self.piece(quote)?;
        if ends {
            return Ok(Cow::Borrowed(piece));
        }
        let mut text = String::new();
        self.at = start;
        self.rest_of_string(quote, &mut text)?;
        Ok(Cow::Owned(text))
    }

    /// Appends the string behind its opening quote.
    fn rest_of_string(&mut self, quote: u8, text: &mut String) -> Result<(), FrameError> {
        loop {
            let (piece, ends) = self.piece(quote)?;
            text.push_str(piece);
            if ends {
                return Ok(());
            }
            text.push(self.escaped()?);
        }
    }

    /// What stands before the string's end or its next escape, and whether it is the end; goes behind the quote or backslash.
    fn piece(&mut self, quote: u8) -> Result<(&'a str, bool), FrameError> {
        let rest = &self.text[self.at..];
        let length = quote_or_backslash(quote, rest.as_bytes()).ok_or(FrameError::Header("a string has no end"))?;
        self.at += length + 1;
        Ok((&rest[..length], rest.as_bytes()[length] == quote))
    }

    /// The character that is meant by what follows a backslash.
    fn escaped(&mut self) -> Result<char, FrameError> {
        const BAD: FrameError = FrameError::Header("a string has a bad escape");
        let byte = self.peek().ok_or(BAD)?;
        // Behind a backslash stands ASCII, or an error.
        self.at += usize::from(byte.is_ascii());
        Ok(match byte {
            b'"' | b'\'' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'v' => '\u{b}',
            b'0'..=b'7' => char::from(byte - b'0'),
            b'x' => char::from(self.hex(2).and_then(|unit| u8::try_from(unit).ok()).ok_or(BAD)?),
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
                let first = self.hex(4).ok_or(BAD)?;
                if !(0xD800..0xDC00).contains(&first) {
                    return Ok(char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                // Half of a character beyond 16 bits; the other half follows in the same form.
                let behind = self.at;
                if self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let second = self.hex(4).ok_or(BAD)?;
                    if let Some(Ok(whole)) = char::decode_utf16([first, second]).next() {
                        return Ok(whole);
                    }
                }
                self.at = behind;
                char::REPLACEMENT_CHARACTER
            }
            _ => return Err(BAD),
        })
    }

    /// So many hexadecimal digits, four at most.
    fn hex(&mut self, count: usize) -> Option<u16> {
        let digits = self.text.as_bytes().get(self.at..self.at + count)?;
        let value = digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))?;
        self.at += count;
        u16::try_from(value).ok()
    }

    fn skip(&mut self, depth: usize) -> Result<(), FrameError> {
        if depth > DEPTH_MAX {
            return Err(FrameError::Header("it nests too deep"));
        }
        if let Some(quote) = self.opening() {
            return self.string(quote).map(drop);
        }
        match self.peek() {
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
                    if self.eat(b']') {
                        return Ok(());
                    }
                }
            }
            _ => self.bare().map(drop),
        }
    }
}

/// What fastjson makes of a text where an `int` is wanted: a fraction is cut off.
fn integer(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    if let Ok(number) = text.parse::<u32>() {
        return Some(number.cast_signed());
    }
    match text {
        "true" => return Some(1),
        "false" => return Some(0),
        _ => {}
    }
    // Not all that Rust reads: no `inf`.
    let is_decimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let number = text.parse::<f64>().ok().filter(|_| is_decimal)?.trunc();
    (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number).then_some(number as i32)
}

/// Where the first of either stands. Texts are short: eight bytes at once beat what is made for long ones.
fn quote_or_backslash(quote: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    // The highest bit of each zero byte, below the first of which no other bit is set.
    let zeroes = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeroes(word ^ (ONES * u64::from(quote))) | zeroes(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| [quote, b'\\'].contains(byte))?;
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
        for text in [
            "",
            "[]",
            "{",
            "{,}",
            "{\"code\":}",
            "{\"code\":\"x\"}",
            "{\"code\":\" 1\"}",
            "{\"code\":4294967296}",
            "{\"code\":1e99}",
            "{\"code\":inf}",
            "{\"code\":[]}",
            "{\"code\":'1\"}",
            "{\"language\":{}}",
            "{\"extFields\":[]}",
            "{\"extFields\":\"x\"}",
            "{\"code\":1}x",
            "{\"code\":1}{}",
            "{\"remark\":\"a",
            "{\"remark\":\"\\x4\"}",
            "{\"a\":\"\\",
            "{\"a\":1,,}",
        ] {
            assert!(read(text).is_err(), "{text:?} was read");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&format!("{{\"x\":{deep}")).is_err());
    }

    #[test]
    fn the_end_of_a_text_is_found_wherever_it_stands() {
        for length in 0..40 {
            let mut text = vec![b'#'; length];
            assert_eq!(quote_or_backslash(b'"', &text), None);
            for at in (0..length).rev() {
                // Neighbours of both, and bytes beyond ASCII, are neither.
                text.iter_mut()
                    .zip([b'!', b'[', 0xA2, 0xDC, 0x80, 0xFF].into_iter().cycle())
                    .take(at)
                    .for_each(|(b, other)| *b = other);
                text[at] = if at % 2 == 0 { b'"' } else { b'\\' };
                assert_eq!(quote_or_backslash(b'"', &text), Some(at), "{text:?}");
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
                    // What only fastjson reads is told apart below.
                    if known.is_none() && (text.contains("\\x") || text.contains("\\u")) {
                        continue;
                    }
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

    /// Seen of 4.9.7 and 5.5.0, each of them by its answer.
    #[test]
    fn what_fastjson_takes_for_a_header_is_read() {
        let code = |text: &str| read(&format!("{{\"code\":{text},\"opaque\":5}}")).map(|command| command.code);
        for text in ["\"30\"", "30.0", "30.99", "\"30.0\"", "3e1", "+30", "\"+30\"", "'30'", "030", "\"3e1\""] {
            assert_eq!(code(text).ok(), Some(30), "{text}");
        }
        for text in ["null", "\"\"", "\"null\"", "false"] {
            assert_eq!(code(text).ok(), Some(0), "{text}");
        }
        for (text, number) in [("true", 1), ("-30.9", -30), ("\"-30\"", -30), ("4294967295", -1)] {
            assert_eq!(code(text).ok(), Some(number), "{text}");
        }
        let command = read(
            "{'code':310,flag:\"2\",language:9,'opaque':5000000.0,version:\"395\",remark:{a:[1,]},\
             extFields:{a:'g\"','e':0,\"m\":true,\"d\":1.50,l:[1, 2],k:{'x':1},'n':null,},}\0",
        )
        .unwrap();
        assert_eq!((command.code, command.flag, command.opaque, command.version), (310, 2, 5_000_000, 395));
        assert_eq!((command.language.name(), command.remark()), ("GO", "{a:[1,]}"));
        let fields: Vec<_> = command.ext_fields.iter().collect();
        let expected = [("a", "g\""), ("e", "0"), ("m", "true"), ("d", "1.50"), ("l", "[1, 2]"), ("k", "{'x':1}")];
        assert_eq!(fields, expected);
        let remark = |text: &str| read(&format!("{{\"remark\":\"{text}\"}}")).unwrap().remark().to_owned();
        assert_eq!(remark(r"\x41\'\v\0\7"), "A'\u{b}\0\u{7}");
        for half in [r"\ud83d", r"\ude00", r"\ud83dz", r"\ud83d\n", r"\ud83d\u0041"] {
            assert!(remark(half).starts_with('\u{fffd}'), "{half}");
        }
        assert_eq!(remark(r"\ud83d\u0041"), "\u{fffd}A");
        let command = decode(b"{\"code\":1,\"extFields\":{\"i\":\"KEYS\x01\xc4\xe3\"}}").unwrap();
        assert!(command.ext_fields.get("i").unwrap().starts_with("KEYS\u{1}\u{fffd}"), "not UTF-8, as of C++ clients");
        let deep = format!("{{\"x\":{}{},\"code\":7}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(read(&deep).unwrap().code, 7);
        assert_eq!(read(r#"{"code":1,"language":200}"#).unwrap().language.name(), "OTHER");
    }
}
