//! What an expression is made of at its ends, and how two of them compare (`ComparisonExpression.__compare` of
//! RocketMQ's filter module, with its conversion of texts).
//!
//! The types are Java's, and so is each oddity: the type of the constant says how a property's text is read.

use std::cmp::Ordering;
use std::fmt;

use super::number::{double, whole};

/// A value, borrowed from the expression or from the message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    /// A constant that fits 32 bits.
    Integer(i32),
    /// Any other whole constant.
    Long(i64),
    Double(f64),
    /// A property, or a constant text.
    Text(&'a str),
}

/// A constant of an expression.
#[derive(Clone, Debug)]
pub(super) enum Constant {
    Null,
    Boolean(bool),
    Integer(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
}

/// Two values that Java fails to compare. The message does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotComparable;

impl Constant {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Long(value) => Value::Long(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Text(value) => Value::Text(value),
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Long(_) | Self::Double(_))
    }
}

/// As it would stand in an expression.
impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(value) => f.write_str(if *value { "TRUE" } else { "FALSE" }),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Long(value) => write!(f, "{value}"),
            // With a point or an exponent, so that it is read as what it is.
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "'{}'", value.replace('\'', "''")),
        }
    }
}

impl Value<'_> {
    /// `-x`: of numbers; of anything else nothing comes.
    pub(super) fn negated(self) -> Self {
        match self {
            Self::Integer(value) => Self::Integer(value.wrapping_neg()),
            Self::Long(value) => Self::Long(value.wrapping_neg()),
            Self::Double(value) => Self::Double(-value),
            Self::Null | Self::Boolean(_) | Self::Text(_) => Self::Null,
        }
    }

    /// How it stands to another value; neither may be null.
    pub(super) fn compare(self, other: Self) -> Result<Ordering, NotComparable> {
        use Value::{Boolean, Double, Integer, Long, Null, Text};
        Ok(match (self, other) {
            (Boolean(left), Boolean(right)) => left.cmp(&right),
            (Text(left), Text(right)) => left.cmp(right),
            (Integer(left), Integer(right)) => left.cmp(&right),
            (Long(left), Long(right)) => left.cmp(&right),
            (Double(left), Double(right)) => compare_doubles(left, right),
            (Integer(left), Long(right)) => i64::from(left).cmp(&right),
            (Long(left), Integer(right)) => left.cmp(&i64::from(right)),
            (Integer(left), Double(right)) => compare_doubles(f64::from(left), right),
            (Double(left), Integer(right)) => compare_doubles(left, f64::from(right)),
            (Long(left), Double(right)) => compare_doubles(left as f64, right),
            (Double(left), Long(right)) => compare_doubles(left, right as f64),
            (Text(left), Integer(right)) => whole::<i32>(left)?.cmp(&right),
            (Integer(left), Text(right)) => left.cmp(&whole(right)?),
            (Text(left), Long(right)) => whole::<i64>(left)?.cmp(&right),
            (Long(left), Text(right)) => left.cmp(&whole(right)?),
            (Text(left), Double(right)) => compare_doubles(double(left)?, right),
            (Double(left), Text(right)) => compare_doubles(left, double(right)?),
            (Text(left), Boolean(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
            // Java casts the wrong one of the two.
            (Boolean(_), Text(_)) | (Null, _) | (_, Null) => return Err(NotComparable),
            (Boolean(_), _) | (_, Boolean(_)) => Ordering::Less,
        })
    }

    /// As [`compare`](Self::compare), for `<` and its kin, where two texts must both be numbers.
    pub(super) fn order(self, other: Self) -> Result<Ordering, NotComparable> {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => Ok(compare_doubles(double(left)?, double(right)?)),
            _ => self.compare(other),
        }
    }
}

/// `Double.compare`: no number equals itself and is greater than any number; -0.0 is less than 0.0.
fn compare_doubles(left: f64, right: f64) -> Ordering {
    match (left.is_nan(), right.is_nan()) {
        (false, false) => left.total_cmp(&right),
        (left, right) => left.cmp(&right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_type_says_how_a_text_is_read() {
        let text = Value::Text;
        assert_eq!(text("+5").compare(Value::Integer(5)), Ok(Ordering::Equal));
        for no_integer in ["5.0", " 5", "99999999999", ""] {
            assert_eq!(text(no_integer).compare(Value::Integer(5)), Err(NotComparable), "{no_integer:?}");
        }
        assert_eq!(text("99999999999").compare(Value::Long(1)), Ok(Ordering::Greater));
        assert_eq!(text(" 5 ").compare(Value::Double(5.0)), Ok(Ordering::Equal));
        assert_eq!(text("TRUE").compare(Value::Boolean(true)), Ok(Ordering::Equal));
        assert_eq!(text("1").compare(Value::Boolean(false)), Ok(Ordering::Equal));
        assert_eq!(Value::Boolean(true).compare(text("true")), Err(NotComparable));
        assert_eq!(Value::Integer(1).compare(Value::Boolean(true)), Ok(Ordering::Less));
    }

    #[test]
    fn no_number_is_greater_than_all() {
        let nan = Value::Text("NaN");
        assert_eq!(nan.order(Value::Text("NaN")), Ok(Ordering::Equal));
        assert_eq!(nan.order(Value::Double(f64::INFINITY)), Ok(Ordering::Greater));
        assert_eq!(Value::Text("-0.0").order(Value::Text("0")), Ok(Ordering::Less));
        assert_eq!(Value::Text("a").order(Value::Text("1")), Err(NotComparable));
    }
}
