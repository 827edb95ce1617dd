//! Java's `.properties` text, the form of `broker.conf` and of configuration bodies.

use std::fmt::Write as _;

/// The entries of a text in order: `key=value`, `key:value` or `key value`, with `#` and `!`
/// comments, lines continued by a backslash, and Java's escapes (`\n`, `\u00e9`, …).
pub fn parse(text: &str) -> Vec<(String, String)> {
    logical_lines(text).iter().filter(|line| !line.is_empty()).map(|line| split(line)).collect()
}

/// Joins continued lines and drops comments and blank lines.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut continued = false;
    for raw in text.lines() {
        let line = raw.trim_start();
        if !continued && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        let goes_on = backslashes % 2 == 1;
        let part = if goes_on { &line[..line.len() - 1] } else { line };
        match lines.last_mut() {
            Some(last) if continued => last.push_str(part),
            _ => lines.push(part.to_owned()),
        }
        continued = goes_on;
    }
    lines
}

fn split(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|&(_, letter)| {
            let ends = !escaped && matches!(letter, '=' | ':' | ' ' | '\t');
            escaped = !escaped && letter == '\\';
            ends
        })
        .map_or(line.len(), |(at, _)| at);
    let rest = line[end..].trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
    (unescape(&line[..end]), unescape(value.trim_end_matches(['\r'])))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('r') => plain.push('\r'),
            Some('u') => {
                let digits: String = letters.by_ref().take(4).collect();
                let letter = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                plain.push(letter.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

/// `key=value` lines, as `GET_BROKER_CONFIG` and `GET_NAMESRV_CONFIG` answer (Java's `MixAll.properties2String`).
pub fn to_text<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in entries {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_properties_are_read() {
        let entries = parse(
            "# a comment\n! another\n\nbrokerName = broker-a\nnamesrvAddr=a:1;b:2\nlong=one,\\\n   two\nflag\nu\\u00e9 : x\\ty  \n",
        );
        let expected = [
            ("brokerName", "broker-a"),
            ("namesrvAddr", "a:1;b:2"),
            ("long", "one,two"),
            ("flag", ""),
            ("ué", "x\ty  "),
        ];
        assert_eq!(entries, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
