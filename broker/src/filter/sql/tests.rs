//! Expressions against what Java's own filter says of them, and the bounds that Java does not have.

use rocketmq_store::push_property;

use super::*;

/// Expressions, messages and Java's answers; what the lines are is said in `tests/java/client/SqlFilterAnswers.java`.
const JAVA_ANSWERS: &str = include_str!("java_answers.tsv");

fn stored(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in pairs {
        push_property(&mut text, name, value);
    }
    text
}

fn plain(field: &str) -> String {
    let mut plain = String::new();
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next().unwrap() {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'f' => '\u{c}',
                other => other,
            },
            other => other,
        });
    }
    plain
}

fn letter(answer: Answer) -> char {
    match answer {
        Answer::True => 'T',
        Answer::False => 'F',
        Answer::Unknown => 'U',
        Answer::Fails => 'X',
    }
}

#[test]
fn answers_are_javas() {
    let mut messages = Vec::new();
    let mut wrong = Vec::new();
    let mut expressions = 0;
    for line in JAVA_ANSWERS.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[0] {
            "M" => {
                let pairs: Vec<String> = fields[1..].iter().map(|field| plain(field)).collect();
                let pairs: Vec<_> = pairs.iter().map(|pair| pair.split_once('=').unwrap()).collect();
                messages.push(stored(&pairs));
            }
            "E" => {
                expressions += 1;
                let ours = match Sql::compile(&plain(fields[1])) {
                    Ok(sql) => messages.iter().map(|message| letter(sql.answer(message))).collect(),
                    Err(_) => "P".to_owned(),
                };
                if ours != fields[2] {
                    wrong.push(format!("{}\n  Java {}\n  ours {ours}", fields[1], fields[2]));
                }
            }
            _ => assert!(line.starts_with('#'), "{line}"),
        }
    }
    assert!(expressions > 2000, "{expressions}");
    assert!(wrong.is_empty(), "{} of {expressions} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_error_says_what_is_wrong() {
    let error = |text: &str| Sql::compile(text).unwrap_err().to_string();
    assert_eq!(error(""), "Encountered \"the end\" at line 1, column 1.");
    assert_eq!(error("a = 1 AND\n  = 2"), "Encountered \"=\" at line 2, column 3.");
    assert_eq!(error("a BETWEEN 9 AND 3").split(',').next(), Some("Illegal values of between"));
    assert_eq!(error("a > 'x'"), "Value ''x'' cannot be compared.");
    assert_eq!(error("a = NULL"), "'NULL' cannot be compared.");
    assert_eq!(error("'x'"), "Expression will not result in a boolean value: 'x'");
    assert_eq!(error("1 IN ('a')"), "Expected a property for In expression, got: 1");
    assert!(error("a > 0.0").contains("less than"));
    let long = error(&format!("'{}'", "ü".repeat(1000)));
    assert!(long.len() < 500, "{long}");
}

#[test]
fn hostile_expressions_are_refused_before_they_are_deep() {
    let deep = |open: &str, inner: &str, close: &str, levels: usize| {
        Sql::compile(&format!("{}{inner}{}", open.repeat(levels), close.repeat(levels)))
    };
    for (open, inner, close) in [("(", "a = 1", ")"), ("NOT ", "a", ""), ("- ", "1", " = 1"), ("+ ", "1", " = 1")] {
        assert!(deep(open, inner, close, 50).is_ok(), "{open}");
        let error = deep(open, inner, close, 5_000).unwrap_err().to_string();
        assert_eq!(error, "the expression is nested more than 128 levels deep", "{open}");
    }
    // Chains that lean to the left.
    for link in [" = TRUE", " <> TRUE", " IS NULL", " IS NOT NULL", " CONTAINS 'x'"] {
        assert!(deep("", "a = 1", link, 30).is_ok(), "{link}");
        assert!(deep("", "a = 1", link, 3_000).is_err(), "{link}");
    }
    // Long chains of conditions are flat.
    for link in [" AND a = 1", " OR b = 1"] {
        let sql = deep("", "a = 1", link, 3_000).unwrap();
        assert!(sql.matches(&stored(&[("a", "1"), ("b", "2")])), "{link}");
    }
    assert!(deep("", "a = 1", " OR a = 1", 10_000).unwrap_err().to_string().contains("bytes"));
}

#[test]
fn many_properties_and_broken_texts_are_no_trouble() {
    let names: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
    let wanted: Vec<String> = names.iter().map(|name| format!("{name} = '{name}'")).collect();
    let sql = Sql::compile(&wanted.join(" AND ")).unwrap();
    let mut pairs: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    assert!(sql.matches(&stored(&pairs)));
    pairs[39].1 = "another";
    assert!(!sql.matches(&stored(&pairs)));
    let sql = Sql::compile("a = '1' AND b IS NULL").unwrap();
    assert!(sql.matches(b"\x02\x01a\x02a\x010\x02b\x01\xFF\x02a\x011"), "no UTF-8 is no property, the last one counts");
    assert!(!sql.matches(b""));
}

#[test]
fn a_tree_prints_as_itself() {
    for text in [
        "a = 1 AND (b <> 'it''s' OR NOT c) AND d IS NOT NULL",
        "- - 1 = a OR -(a) > 99999999999",
        "a NOT IN ('y', 'x', 'y') OR a NOT BETWEEN 1.5 AND 7e300",
        "a CONTAINS 'x' AND b NOT ENDSWITH '''' AND TRUE",
    ] {
        let printed = Sql::compile(text).unwrap().printed();
        let again = Sql::compile(&printed).unwrap().printed();
        assert_eq!(printed, again);
    }
    let printed = Sql::compile("NOT a = 1 OR b").unwrap().printed();
    assert_eq!(printed, "(((NOT a) = 1) OR b)", "NOT binds closer than anything else");
}
