//! The JSON form of a header, read and written by hand: it is on every message's path.
//!
//! Texts without escapes are slices of the frame. As in Java, unknown keys and nulls are ignored,
//! and a field of `extFields` that is no string is taken as its text.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::command::{Command, Language};
use crate::error::FrameError;
use crate::ext_fields::ExtFields;

/// Objects and arrays under unknown keys may nest this deep.
const DEPTH_MAX: usize = 32;

/// Reads a header; the body is left empty.
///
/// # Errors
/// The text is no JSON object, or a known key has a value of another type.
pub fn decode(header: &Bytes) -> Result<Command, FrameError> {
    let mut reader = Reader { text: header, at: 0 };
    let mut command = Command::default();
    reader.object(|reader, key| {
        match &*key {
            "code" => command.code = reader.int()?,
            "version" => command.version = reader.int()?,
            "opaque" => command.opaque = reader.int()?,
            "flag" => command.flag = reader.int()?,
            "language" => {
                if let Some(name) = reader.text_or_null()? {
                    command.language = Language::from_name(&name);
                }
            }
            "remark" => command.remark = reader.text_or_null()?,
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
    if reader.at != header.len() {
        return Err(FrameError::Header("there is text after the JSON object"));
    }
    Ok(command)
}

struct Reader<'a> {
    text: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), FrameError> {
        self.blanks();
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(FrameError::Header("it is not a JSON object"))
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn null(&mut self) -> bool {
        self.blanks();
        let there = self.text[self.at..].starts_with(b"null");
        self.at += if there { 4 } else { 0 };
        there
    }

    fn object(
        &mut self,
        mut entry: impl FnMut(&mut Self, ByteString) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        self.expect(b'{')?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.blanks();
            let key = self.string()?;
            self.expect(b':')?;
            entry(self, key)?;
            if self.eat(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn fields(&mut self) -> Result<ExtFields, FrameError> {
        let mut fields = ExtFields::new();
        self.object(|reader, key| {
            reader.blanks();
            if reader.peek() == Some(b'"') {
                fields.push(key, reader.string()?);
            } else if !reader.null() {
                let start = reader.at;
                reader.skip(0)?;
                let text = ByteString::try_from(reader.text.slice(start..reader.at));
                fields.push(key, text.map_err(|_| FrameError::Header("a text is not UTF-8"))?);
            }
            Ok(())
        })?;
        Ok(fields)
    }

    fn text_or_null(&mut self) -> Result<Option<ByteString>, FrameError> {
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
        std::str::from_utf8(&self.text[start..self.at])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or(FrameError::Header("a number is not a 32-bit integer"))
    }

    fn string(&mut self) -> Result<ByteString, FrameError> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.peek() {
                None => return Err(FrameError::Header("a string has no end")),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
            }
        }
        let raw = start..self.at;
        self.at += 1;
        if escaped {
            // serde_json knows every escape; this is the rare way.
            let quoted = &self.text[raw.start - 1..=raw.end];
            let text: String =
                serde_json::from_slice(quoted).map_err(|_| FrameError::Header("a string has a bad escape"))?;
            return Ok(text.into());
        }
        ByteString::try_from(self.text.slice(raw)).map_err(|_| FrameError::Header("a text is not UTF-8"))
    }

    fn skip(&mut self, depth: usize) -> Result<(), FrameError> {
        if depth > DEPTH_MAX {
            return Err(FrameError::Header("it nests too deep"));
        }
        self.blanks();
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(|reader, _| reader.skip(depth + 1)),
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
    const HEX: &[u8; 16] = b"0123456789abcdef";
    to.reserve(text.len() + 2);
    to.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
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
    to.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<Command, FrameError> {
        decode(&Bytes::from_static(text.as_bytes()))
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
        assert_eq!(command.ext_fields.get("i").map(|text| &**text), Some("KEYS\u{1}k\u{2}"));
        assert_eq!(command.ext_fields.get("q").map(|text| &**text), Some("4"));
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
        let deep: &'static str = Box::leak("[".repeat(100_000).into_boxed_str());
        let text: &'static str = Box::leak(format!("{{\"x\":{deep}").into_boxed_str());
        assert!(read(text).is_err());
    }
}
