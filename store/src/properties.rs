//! The properties text of a message and what RocketMQ derives from it: pairs, tags code, Java's string hash.
//!
//! `name` char(1) `value` char(2) …; the last separator may be missing (4.9) or present (5.x).
//! May not: know which properties the broker acts on, beyond those the store dispatches by.

use std::time::Duration;

/// Between name and value.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// Between two pairs.
pub const PROPERTY_SEPARATOR: u8 = 2;

/// `PROPERTY_KEYS`: blank-separated words to index.
pub const KEYS: &str = "KEYS";
/// `PROPERTY_TAGS`.
pub const TAGS: &str = "TAGS";
/// `PROPERTY_DELAY_TIME_LEVEL`.
pub const DELAY: &str = "DELAY";
/// `PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX`.
pub const UNIQ_KEY: &str = "UNIQ_KEY";

/// The topic whose consume queues carry delivery times.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

/// Iterates over the pairs of a properties text, in order. As in Java (`MessageDecoder.string2messageProperties`)
/// pairs without name or value are passed over, and a later pair of the same name counts; pairs that are no
/// UTF-8 are passed over too.
pub fn properties<T: AsRef<[u8]> + ?Sized>(text: &T) -> Properties<'_> {
    Properties { pairs: Pairs { rest: text.as_ref() } }
}

/// See [`properties`].
#[derive(Debug, Clone)]
pub struct Properties<'a> {
    pairs: Pairs<'a>,
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.pairs.find_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?)))
    }
}

/// The pairs as bytes.
#[derive(Debug, Clone)]
struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let end = position(self.rest, PROPERTY_SEPARATOR).unwrap_or(self.rest.len());
            let pair = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            let Some(at) = position(pair, NAME_VALUE_SEPARATOR) else { continue };
            let (name, value) = (&pair[..at], &pair[at + 1..]);
            if !name.is_empty() && !value.is_empty() {
                return Some((name, value));
            }
        }
        None
    }
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    memchr::memchr(wanted, bytes)
}

/// The value of one property; the last one when a name comes twice.
pub fn property<'a, T: AsRef<[u8]> + ?Sized>(text: &'a T, name: &str) -> Option<&'a str> {
    let values = Pairs { rest: text.as_ref() }.filter(|(n, _)| *n == name.as_bytes());
    values.filter_map(|(_, value)| std::str::from_utf8(value).ok()).last()
}

/// Appends one pair with its closing separator; puts a separator first where `out` lacks one.
pub fn push_property(out: &mut Vec<u8>, name: &str, value: &str) {
    if out.last().is_some_and(|b| *b != PROPERTY_SEPARATOR) {
        out.push(PROPERTY_SEPARATOR);
    }
    out.extend_from_slice(name.as_bytes());
    out.push(NAME_VALUE_SEPARATOR);
    out.extend_from_slice(value.as_bytes());
    out.push(PROPERTY_SEPARATOR);
}

/// Java's `String.hashCode`: over UTF-16 code units, wrapping.
pub fn java_string_hash(text: &str) -> i32 {
    java_hash_onto(0, text)
}

/// Continues a hash: `java_hash_onto(java_string_hash(a), b)` is the hash of `a` and `b` joined.
pub(crate) fn java_hash_onto(hash: i32, text: &str) -> i32 {
    text.encode_utf16().fold(hash, |h, unit| h.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The properties the store itself looks at, found in one pass.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DispatchProperties<'a> {
    pub(crate) keys: Option<&'a str>,
    pub(crate) uniq_key: Option<&'a str>,
    tags: Option<&'a str>,
    delay: Option<&'a str>,
}

impl<'a> DispatchProperties<'a> {
    pub(crate) fn scan(text: &'a [u8]) -> Self {
        let mut found = Self::default();
        for (name, value) in (Pairs { rest: text }) {
            let field = match name {
                b"KEYS" => &mut found.keys,
                b"UNIQ_KEY" => &mut found.uniq_key,
                b"TAGS" => &mut found.tags,
                b"DELAY" => &mut found.delay,
                _ => continue,
            };
            // As everywhere, what is no UTF-8 is passed over.
            *field = std::str::from_utf8(value).ok().or(*field);
        }
        found
    }

    /// What the message is indexed under: its unique key and each word of its keys.
    pub(crate) fn index_keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let words = self.keys.into_iter().flat_map(|keys| keys.split(' ')).filter(|word| !word.is_empty());
        self.uniq_key.into_iter().chain(words)
    }

    /// The third field of a consume queue entry (`CommitLog.checkMessageAndReturnSize`): the hash of TAGS, or the
    /// delivery time for a delayed message in the schedule topic. Levels beyond the table count as its last.
    pub(crate) fn tags_code(&self, topic: &str, store_timestamp: i64, levels: &[Duration]) -> i64 {
        if topic == SCHEDULE_TOPIC
            && let Some(level) = self.delay.and_then(|d| d.parse::<i32>().ok())
            && level > 0
        {
            let at = (level as usize).min(levels.len());
            let delay = at.checked_sub(1).map_or(Duration::from_secs(1), |i| levels[i]);
            return store_timestamp.saturating_add(delay.as_millis() as i64);
        }
        self.tags.map_or(0, |tags| i64::from(java_string_hash(tags)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_javas() {
        assert_eq!(java_string_hash("TagA"), 2_598_919);
        assert_eq!(java_string_hash(""), 0);
        // "polygenelubricants" is the well-known string whose hash is i32::MIN.
        assert_eq!(java_string_hash("polygenelubricants"), i32::MIN);
        // Outside the basic plane a character is two units: D83D DE00.
        assert_eq!(java_string_hash("\u{1F600}"), 0xD83D * 31 + 0xDE00);
        assert_eq!(java_hash_onto(java_string_hash("topic#"), "key"), java_string_hash("topic#key"));
    }

    #[test]
    fn text_is_read_as_java_reads_it() {
        let read = |t: &str| properties(t).map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
        assert_eq!(read("A\u{1}1\u{2}B\u{1}2"), ["A=1", "B=2"]);
        assert_eq!(read("A\u{1}1\u{2}B\u{1}2\u{2}"), ["A=1", "B=2"]);
        assert_eq!(read("A\u{1}\u{2}\u{1}x\u{2}novalue\u{2}\u{2}C\u{1}x=\u{1}y"), ["C=x=\u{1}y"]);
        assert_eq!(property("A\u{1}1\u{2}A\u{1}2", "A"), Some("2"));
        assert_eq!(property(&b"A\x01\xFF\x02B\x01b"[..], "B"), Some("b"));
        assert!(read("").is_empty());
    }

    #[test]
    fn pushing_keeps_the_text_well_formed() {
        let mut out = b"A\x011".to_vec();
        push_property(&mut out, "B", "2");
        push_property(&mut out, "C", "3");
        assert_eq!(out, b"A\x011\x02B\x012\x02C\x013\x02");
    }

    #[test]
    fn tags_code_is_hash_or_delivery_time() {
        let levels = [Duration::from_secs(1), Duration::from_secs(5)];
        let code = |text: &str, topic| DispatchProperties::scan(text.as_bytes()).tags_code(topic, 1000, &levels);
        assert_eq!(code("TAGS\u{1}TagA", "T"), 2_598_919);
        assert_eq!(code("TAGS\u{1}TagA\u{2}DELAY\u{1}2", "T"), 2_598_919);
        assert_eq!(code("TAGS\u{1}TagA\u{2}DELAY\u{1}2", SCHEDULE_TOPIC), 6000);
        assert_eq!(code("DELAY\u{1}99", SCHEDULE_TOPIC), 6000);
        assert_eq!(code("DELAY\u{1}0", SCHEDULE_TOPIC), 0);
        assert_eq!(code("DELAY\u{1}x\u{2}TAGS\u{1}TagA", SCHEDULE_TOPIC), 2_598_919);
        assert_eq!(code("", "T"), 0);
    }
}
