//! The tree of an SQL92 expression, and what it says of one message (the `expression` package of RocketMQ's filter
//! module): true, false, or unknown, as in SQL, or nothing at all where values cannot be compared.
//!
//! May not allocate while it looks at a message.

use std::cmp::Ordering;
use std::fmt;

use super::properties_read::PropertiesRead;
use super::value::{Constant, NotComparable, Value};

/// A node. Whoever builds one keeps the tree from becoming deep: it is walked, and dropped, by recursion.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    Constant(Constant),
    Property(Box<str>),
    Negate(Box<Expression>),
    Not(Box<Expression>),
    /// A property where a condition is wanted. Properties are texts, so it is never true.
    Cast(Box<Expression>),
    /// All of them; at least two.
    And(Vec<Expression>),
    /// One of them; at least two.
    Or(Vec<Expression>),
    Order(OrderSign, Box<[Expression; 2]>),
    /// `=`; with the constant NULL on the right it is `IS NULL`.
    Equal(Box<[Expression; 2]>),
    In {
        property: Box<str>,
        /// Sorted.
        texts: Vec<Box<str>>,
        negated: bool,
    },
    Search {
        kind: SearchKind,
        of: Box<Expression>,
        text: Box<str>,
        negated: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderSign {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// The operators of 5.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchKind {
    Contains,
    StartsWith,
    EndsWith,
}

/// True, false or unknown.
type Truth = Result<Option<bool>, NotComparable>;

impl Expression {
    /// Whether it is a condition by itself (`BooleanExpression` in Java).
    pub(super) fn is_condition(&self) -> bool {
        match self {
            Self::Constant(constant) => matches!(constant, Constant::Null | Constant::Boolean(_)),
            Self::Property(_) | Self::Negate(_) => false,
            _ => true,
        }
    }

    /// What the condition says of a message.
    pub(super) fn truth(&self, message: &PropertiesRead<'_>) -> Truth {
        match self {
            Self::Not(inner) => Ok(inner.truth(message)?.map(|truth| !truth)),
            Self::Cast(inner) => Ok(match inner.value(message)? {
                Value::Null => None,
                Value::Boolean(truth) => Some(truth),
                _ => Some(false),
            }),
            // The first that decides keeps the rest from being looked at, and from failing.
            Self::And(terms) => first_or_unknown(terms, message, false),
            Self::Or(terms) => first_or_unknown(terms, message, true),
            Self::Order(sign, operands) => {
                let [left, right] = &**operands;
                match (left.value(message)?, right.value(message)?) {
                    (Value::Null, _) | (_, Value::Null) => Ok(None),
                    (left, right) => Ok(Some(sign.holds(left.order(right)?))),
                }
            }
            Self::Equal(operands) => {
                let [left, right] = &**operands;
                match (left.value(message)?, right.value(message)?) {
                    (Value::Null, Value::Null) => Ok(Some(true)),
                    (Value::Null, _) => Ok(None),
                    (_, Value::Null) => Ok(Some(false)),
                    (left, right) => Ok(Some(left.compare(right)? == Ordering::Equal)),
                }
            }
            Self::In { property, texts, negated } => Ok(message.get(property).map(|value| {
                let is_in = texts.binary_search_by(|text| (**text).cmp(value)).is_ok();
                is_in != *negated
            })),
            Self::Search { kind, of, text, negated } => Ok(Some(match of.value(message)? {
                Value::Text(value) if !text.is_empty() => kind.finds(value, text) != *negated,
                _ => false,
            })),
            Self::Constant(_) | Self::Property(_) | Self::Negate(_) => match self.value(message)? {
                Value::Null => Ok(None),
                Value::Boolean(truth) => Ok(Some(truth)),
                _ => Err(NotComparable),
            },
        }
    }

    fn value<'a>(&'a self, message: &PropertiesRead<'a>) -> Result<Value<'a>, NotComparable> {
        Ok(match self {
            Self::Constant(constant) => constant.value(),
            Self::Property(name) => message.get(name).map_or(Value::Null, Value::Text),
            Self::Negate(inner) => inner.value(message)?.negated(),
            _ => self.truth(message)?.map_or(Value::Null, Value::Boolean),
        })
    }

    /// Calls `visit` with the name of each property, as often as it is used.
    pub(super) fn for_each_property<'a>(&'a self, visit: &mut impl FnMut(&'a str)) {
        match self {
            Self::Constant(_) => {}
            Self::Property(name) | Self::In { property: name, .. } => visit(name),
            Self::Negate(inner) | Self::Not(inner) | Self::Cast(inner) | Self::Search { of: inner, .. } => {
                inner.for_each_property(visit);
            }
            Self::And(terms) | Self::Or(terms) => terms.iter().for_each(|term| term.for_each_property(visit)),
            Self::Order(_, operands) | Self::Equal(operands) => {
                operands.iter().for_each(|operand| operand.for_each_property(visit));
            }
        }
    }
}

/// The value that decides, where a term has it; else unknown, where a term is; else its opposite.
fn first_or_unknown(terms: &[Expression], message: &PropertiesRead<'_>, decides: bool) -> Truth {
    let mut is_unknown = false;
    for term in terms {
        match term.truth(message)? {
            Some(truth) if truth == decides => return Ok(Some(decides)),
            Some(_) => {}
            None => is_unknown = true,
        }
    }
    Ok((!is_unknown).then_some(!decides))
}

impl OrderSign {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

impl SearchKind {
    fn finds(self, value: &str, text: &str) -> bool {
        match self {
            Self::Contains => value.contains(text),
            Self::StartsWith => value.starts_with(text),
            Self::EndsWith => value.ends_with(text),
        }
    }
}

/// As an expression that is read as the same tree again.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| Constant::Text(text.into());
        let joined = |f: &mut fmt::Formatter<'_>, terms: &[Self], word: &str| {
            for (at, term) in terms.iter().enumerate() {
                let before = if at == 0 { "(" } else { word };
                write!(f, "{before}{term}")?;
            }
            f.write_str(")")
        };
        match self {
            Self::Constant(constant) => write!(f, "{constant}"),
            Self::Property(name) => f.write_str(name),
            // Two signs side by side would begin a comment.
            Self::Negate(inner) => write!(f, "(- {inner})"),
            Self::Not(inner) => write!(f, "(NOT {inner})"),
            Self::Cast(inner) => write!(f, "{inner}"),
            Self::And(terms) => joined(f, terms, " AND "),
            Self::Or(terms) => joined(f, terms, " OR "),
            Self::Order(sign, operands) => write!(f, "({} {sign} {})", operands[0], operands[1]),
            Self::Equal(operands) => match &**operands {
                [left, Self::Constant(Constant::Null)] => write!(f, "({left} IS NULL)"),
                [left, right] => write!(f, "({left} = {right})"),
            },
            Self::In { property, texts, negated } => {
                write!(f, "({property}{} IN ", if *negated { " NOT" } else { "" })?;
                for (at, text) in texts.iter().enumerate() {
                    let before = if at == 0 { "(" } else { ", " };
                    write!(f, "{before}{}", quoted(text))?;
                }
                f.write_str("))")
            }
            Self::Search { kind, of, text, negated } => {
                let not = if *negated { "NOT " } else { "" };
                write!(f, "({of} {not}{kind} {})", quoted(text))
            }
        }
    }
}

impl fmt::Display for OrderSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        })
    }
}

impl fmt::Display for SearchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contains => "CONTAINS",
            Self::StartsWith => "STARTSWITH",
            Self::EndsWith => "ENDSWITH",
        })
    }
}
