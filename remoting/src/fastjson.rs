//! fastjson's dialect of JSON, which RocketMQ's bodies and configuration files are written in.
//!
//! A map whose key is a number is written `{0:"…"}`, and one whose key is an object
//! `{{"brokerName":"b",…}:5}`. Neither is JSON, so reading first brings the text into JSON's form,
//! and writing goes through a formatter of its own. Nulls are as good as absent.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter};

/// Values may nest this deep.
const DEPTH_MAX: usize = 64;

/// A text is neither JSON nor fastjson's dialect of it, or not of the type that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum FastjsonError {
    /// The text does not parse.
    #[error("no JSON at byte {at}: {what}")]
    Syntax {
        /// Where, in bytes from the start.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The text parses, and is something else than what was wanted.
    #[error(transparent)]
    Type(#[from] serde_json::Error),
}

/// Reads a value from JSON or from fastjson's dialect.
///
/// # Errors
/// The text does not parse, or is not of type `T`.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, FastjsonError> {
    // Most texts are plain JSON; only where that fails is the text rewritten.
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(_) => Ok(serde_json::from_slice(&to_json(text)?)?),
    }
}

/// Writes a value compactly in fastjson's dialect: integer keys bare, keys that are an object's
/// text (see [`QueueKey`](crate::bodies::QueueKey)) as that object.
pub fn to_string<T: Serialize>(value: &T) -> String {
    write(value, Dialect::new(serde_json::ser::CompactFormatter))
}

/// Like [`to_string`], on lines indented by tabs: the form of the configuration files.
pub fn to_string_pretty<T: Serialize>(value: &T) -> String {
    write(value, Dialect::new(PrettyFormatter::with_indent(b"\t")))
}

fn write<T: Serialize>(value: &T, formatter: impl Formatter) -> String {
    let mut text = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Our own types never refuse to be written, and a vector takes all bytes.
    value.serialize(&mut serializer).expect("bodies are maps with text or integer keys");
    String::from_utf8(text).expect("a serializer writes UTF-8")
}

/// How far the writer has come in a key.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    /// Not in a key.
    No,
    /// The key has begun, and nothing of it is written, nor what goes before it.
    Begun {
        /// It is the first one of its map.
        first: bool,
    },
    /// A bare number.
    Bare,
}

struct Dialect<F> {
    layout: F,
    key: Key,
    /// The text of a key: only as a whole it shows whether it is an object's.
    text: String,
}

impl<F: Formatter> Dialect<F> {
    fn new(layout: F) -> Self {
        Self { layout, key: Key::No, text: String::new() }
    }

    /// A quoted key, on a line of its own where there are lines.
    fn write_text<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.layout.begin_object_key(writer, first)?;
        Ok(serde_json::to_writer(&mut *writer, &self.text)?)
    }

    /// A bare key begins; Java puts no line break before those.
    fn begin_bare<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.key = Key::Bare;
        if first { Ok(()) } else { writer.write_all(b",") }
    }
}

/// Whether a key is the text of an object like [`QueueKey`](crate::bodies::QueueKey)'s, and comes back as it is when it is written
/// as that object. Others are keys that somebody chose, whatever they begin with.
fn is_object(key: &str) -> bool {
    let is_flat =
        |object: serde_json::Map<_, serde_json::Value>| !object.values().any(|v| v.is_object() || v.is_array());
    key.starts_with('{')
        && serde_json::from_str(key).is_ok_and(is_flat)
        && to_json(key.as_bytes()).is_ok_and(|json| json == key.as_bytes())
}

macro_rules! delegate {
    ($($method:ident($($arg:ident: $type:ty),*);)+) => {$(
        fn $method<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $arg: $type)*) -> io::Result<()> {
            self.layout.$method(writer $(, $arg)*)
        }
    )+};
}

macro_rules! bare_in_key {
    ($($method:ident($type:ty);)+) => {$(
        fn $method<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: $type) -> io::Result<()> {
            if let Key::Begun { first } = self.key {
                self.begin_bare(writer, first)?;
            }
            self.layout.$method(writer, value)
        }
    )+};
}

impl<F: Formatter> Formatter for Dialect<F> {
    delegate! {
        begin_array(); end_array(); begin_array_value(first: bool); end_array_value();
        begin_object(); end_object(); end_object_value();
    }

    bare_in_key! {
        write_i8(i8); write_i16(i16); write_i32(i32); write_i64(i64);
        write_u8(u8); write_u16(u16); write_u32(u32); write_u64(u64);
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        // What goes before a key depends on its type, which shows with the next call only.
        let _ = writer;
        self.key = Key::Begun { first };
        self.text.clear();
        Ok(())
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.key = Key::No;
        self.layout.end_object_key(writer)
    }

    /// Java's pretty form has no blank after the colon either.
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b":")
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        // In a key it shows only at its end whether quotes belong there.
        if self.key == Key::No { writer.write_all(b"\"") } else { Ok(()) }
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        match self.key {
            Key::Bare => Ok(()),
            Key::Begun { first } if is_object(&self.text) => {
                self.begin_bare(writer, first)?;
                writer.write_all(self.text.as_bytes())
            }
            Key::Begun { first } => self.write_text(writer, first),
            Key::No => writer.write_all(b"\""),
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if self.key == Key::No {
            return writer.write_all(fragment.as_bytes());
        }
        self.text.push_str(fragment);
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        if self.key == Key::No {
            return self.layout.write_char_escape(writer, escape);
        }
        self.text.push(match escape {
            CharEscape::Quote => '"',
            CharEscape::ReverseSolidus => '\\',
            CharEscape::Solidus => '/',
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            CharEscape::AsciiControl(byte) => char::from(byte),
        });
        Ok(())
    }
}

/// Brings fastjson's dialect into JSON: bare keys are quoted, object keys become strings that hold
/// the object's text, entries whose value is null are dropped.
fn to_json(text: &[u8]) -> Result<Vec<u8>, FastjsonError> {
    let mut rewriter = Rewriter { text, at: 0, json: Vec::with_capacity(text.len() + text.len() / 8) };
    rewriter.value(0)?;
    rewriter.blanks();
    if rewriter.at < text.len() {
        return Err(rewriter.error("text after the end of the value"));
    }
    Ok(rewriter.json)
}

struct Rewriter<'a> {
    text: &'a [u8],
    at: usize,
    json: Vec<u8>,
}

impl Rewriter<'_> {
    fn error(&self, what: &'static str) -> FastjsonError {
        FastjsonError::Syntax { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, depth: usize) -> Result<(), FastjsonError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        self.blanks();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(_) => self.bare(),
            None => Err(self.error("a value is missing")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), FastjsonError> {
        self.at += 1;
        self.json.push(b'{');
        let mut first = true;
        if self.eat(b'}') {
            self.json.push(b'}');
            return Ok(());
        }
        loop {
            let entry = self.json.len();
            if !first {
                self.json.push(b',');
            }
            self.key(depth)?;
            if !self.eat(b':') {
                return Err(self.error("a colon is missing"));
            }
            self.json.push(b':');
            self.blanks();
            if self.text[self.at..].starts_with(b"null") {
                self.at += 4;
                self.json.truncate(entry);
            } else {
                self.value(depth + 1)?;
                first = false;
            }
            if self.eat(b'}') {
                self.json.push(b'}');
                return Ok(());
            }
            if !self.eat(b',') {
                return Err(self.error("a comma or a closing brace is missing"));
            }
        }
    }

    fn key(&mut self, depth: usize) -> Result<(), FastjsonError> {
        self.blanks();
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => {
                let start = self.json.len();
                self.value(depth + 1)?;
                let object = self.json.split_off(start);
                let object = String::from_utf8(object).map_err(|_| self.error("a key is not UTF-8"))?;
                serde_json::to_writer(&mut self.json, &object)?;
                Ok(())
            }
            _ => {
                self.json.push(b'"');
                self.bare()?;
                self.json.push(b'"');
                Ok(())
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), FastjsonError> {
        self.at += 1;
        self.json.push(b'[');
        if !self.eat(b']') {
            loop {
                self.value(depth + 1)?;
                if self.eat(b']') {
                    break;
                }
                if !self.eat(b',') {
                    return Err(self.error("a comma or a closing bracket is missing"));
                }
                self.json.push(b',');
            }
        }
        self.json.push(b']');
        Ok(())
    }

    fn string(&mut self) -> Result<(), FastjsonError> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.error("a string has no end")),
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        self.json.extend_from_slice(&self.text[start..self.at]);
        Ok(())
    }

    fn bare(&mut self) -> Result<(), FastjsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'+' | b'.' | b'_' | b'$')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("a value is missing"));
        }
        self.json.extend_from_slice(&self.text[start..self.at]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn integer_keys_are_bare_and_text_keys_quoted() {
        let offsets = BTreeMap::from([("T@g", BTreeMap::from([(0, 3i64), (1, 4)])), ("", BTreeMap::new())]);
        assert_eq!(to_string(&offsets), r#"{"":{},"T@g":{0:3,1:4}}"#);
        let back: BTreeMap<String, BTreeMap<i32, i64>> = from_slice(to_string(&offsets).as_bytes()).unwrap();
        assert_eq!(back["T@g"][&1], 4);
        assert_eq!(to_string(&BTreeMap::from([("a\"b\n", "v\"\n")])), r#"{"a\"b\n":"v\"\n"}"#);
    }

    #[test]
    fn the_pretty_form_has_tabs_and_bare_keys() {
        let table = BTreeMap::from([("t", BTreeMap::from([(1, 2), (3, 4)]))]);
        assert_eq!(to_string_pretty(&table), "{\n\t\"t\":{1:2,3:4\n\t}\n}");
    }

    /// Names of groups and attributes are not ours to choose.
    #[test]
    fn a_text_key_that_begins_like_an_object_is_a_text() {
        for key in [
            "{",
            "{x",
            "{\"",
            "{\"a\":",
            "{\"a\":1}x",
            "{\"a\":[1]}",
            "{\"a\":null}",
            "{ \"a\":1}",
            "{1:2}",
            "\"{",
            "[",
            "\n{",
        ] {
            let table = BTreeMap::from([(key.to_owned(), BTreeMap::from([("b".to_owned(), 1)]))]);
            for text in [to_string(&table), to_string_pretty(&table)] {
                assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
                assert_eq!(from_slice::<BTreeMap<String, BTreeMap<String, i32>>>(text.as_bytes()).unwrap(), table);
            }
        }
        let object = BTreeMap::from([("{\"a\":1}".to_owned(), 2)]);
        assert_eq!(to_string(&object), r#"{{"a":1}:2}"#);
        assert_eq!(from_slice::<BTreeMap<String, i32>>(to_string(&object).as_bytes()).unwrap(), object);
    }

    #[test]
    fn the_dialect_is_rewritten() {
        let json = to_json(br#"{"a":{{"q":1,"t":"x\"y"}:5, 7 : [1,{2:null,"b":true}]},"n":null,"z":-1.5}"#).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"a":{"{\"q\":1,\"t\":\"x\\\"y\"}":5,"7":[1,{"b":true}]},"z":-1.5}"#
        );
    }

    #[test]
    fn broken_text_is_an_error() {
        for text in ["", "{", "{1", "{1:", "{1:2", "{1:2,", "[1", "\"a", "{\"a\":}", "{}x", "{:1}", "\"\\"] {
            assert!(from_slice::<serde_json::Value>(text.as_bytes()).is_err(), "{text:?} was read");
        }
        assert!(from_slice::<serde_json::Value>("[".repeat(10_000).as_bytes()).is_err());
    }
}
