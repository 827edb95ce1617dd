//! SQL92 expressions that nobody would write: any text at all, and trees made by chance.

use std::time::Duration;

use rand::RngExt as _;
use rocketmq_fuzz::{StdRng, rounds};
use rocketmq_store::push_property;

use super::Sql;

/// How long a target plays in an ordinary test run.
const MOMENT: Duration = Duration::from_secs(1);
/// Pieces of which texts are made: tokens whole and broken, and what no expression has.
const PIECES: [&str; 56] = [
    "a",
    "b",
    "c",
    "1",
    "0",
    "-3",
    "5.",
    ".5",
    "1e3",
    "1e400",
    "9223372036854775808",
    "99L",
    "'x'",
    "''",
    "'it''s'",
    "'",
    "TRUE",
    "false",
    "NULL",
    "NOT",
    "and",
    "OR",
    "IS",
    "IN",
    "BETWEEN",
    "CONTAINS",
    "STARTSWITH",
    "ENDSWITH",
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "(",
    ")",
    ",",
    "+",
    "-",
    "--",
    "--\n",
    "/*",
    "*/",
    "/**/",
    "\t",
    "\n",
    ".",
    "#",
    "ü",
    "\u{1F600}",
    "\0",
    "!",
    "IS NULL",
    "IS NOT NULL",
    "IN ('x', '1')",
    "BETWEEN 1 AND 5",
];
const VALUES: [&str; 12] = ["1", "5", "-3", "1.5", "x", "true", "it's", "NaN", "99999999999", " 7", "ü", "1e3"];

fn any<'a>(rng: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[rng.random_range(0..of.len())]
}

/// Properties of a message; sometimes bytes that are none.
fn message(rng: &mut StdRng) -> Vec<u8> {
    let mut text = Vec::new();
    for name in ["a", "b", "c"] {
        if rng.random_bool(0.7) {
            push_property(&mut text, name, any(rng, &VALUES));
        }
    }
    if rng.random_bool(0.2) {
        let at = rng.random_range(0..=text.len());
        text.splice(at..at, [rng.random(), 1, 2]);
    }
    text
}

/// Pieces one after the other; now and then one of them very often.
fn text(rng: &mut StdRng) -> String {
    let mut text = String::new();
    for _ in 0..rng.random_range(0..24) {
        let piece = any(rng, &PIECES);
        let times = if rng.random_bool(0.003) { rng.random_range(0..20_000) } else { 1 };
        for _ in 0..times {
            text.push_str(piece);
            if rng.random_bool(0.9) {
                text.push(' ');
            }
        }
    }
    text
}

/// An expression that compiles.
fn condition(rng: &mut StdRng, depth: u32) -> String {
    let depth = depth.saturating_sub(1);
    if depth > 0 && rng.random_bool(0.7) {
        let (left, right) = (condition(rng, depth), condition(rng, depth));
        return match rng.random_range(0..6) {
            0 | 1 => format!("{left} AND {right}"),
            2 | 3 => format!("{left} OR {right}"),
            4 => format!("NOT ({left})"),
            // NULL by itself may not be compared.
            _ => format!("(NOT ({left})) {} (NOT ({right}))", any(rng, &["=", "<>"])),
        };
    }
    let name = any(rng, &["a", "b", "c"]);
    let number = any(rng, &["1", "5", "7.5", "-3", "99999999999", "- - 2"]);
    let text = any(rng, &["'x'", "'it''s'", "'1'", "'ü'"]);
    let not = any(rng, &["", "NOT"]);
    match rng.random_range(0..9) {
        0 => format!("{name} {} {number}", any(rng, &["<", "<=", ">", ">="])),
        1 => format!("{name} {} {text}", any(rng, &["=", "<>"])),
        2 => format!("{name} IS {not} NULL"),
        3 => format!("{name} {not} IN ({text}, 'y', {text})"),
        4 => format!("{name} {not} BETWEEN {number} AND b"),
        5 => format!("{name} {not} {} {text}", any(rng, &["CONTAINS", "STARTSWITH", "ENDSWITH"])),
        6 => format!("{name} {} {}", any(rng, &["=", "<>"]), any(rng, &["TRUE", "FALSE", "b", "c"])),
        7 => name.to_owned(),
        _ => any(rng, &["TRUE", "FALSE", "NULL"]).to_owned(),
    }
}

#[test]
fn any_text_is_an_expression_or_none() {
    rounds("any_text_is_an_expression_or_none", MOMENT, |rng| {
        let text = text(rng);
        match Sql::compile(&text) {
            Ok(sql) => {
                let _ = sql.matches(&message(rng));
            }
            Err(error) => assert!(!error.to_string().is_empty() && error.to_string().len() < 1000),
        }
    });
}

#[test]
fn a_printed_tree_answers_as_before() {
    rounds("a_printed_tree_answers_as_before", MOMENT, |rng| {
        let depth = rng.random_range(1..7);
        let text = condition(rng, depth);
        let sql = Sql::compile(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let printed = sql.printed();
        let again = Sql::compile(&printed).unwrap_or_else(|error| panic!("{printed}: {error}"));
        for _ in 0..8 {
            let message = message(rng);
            assert_eq!(sql.answer(&message), again.answer(&message), "{text}\n{printed}\n{message:?}");
        }
    });
}
