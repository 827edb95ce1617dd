//! From the text of an SQL92 expression to its tree (`SelectorParser.jj` of RocketMQ's filter module).
//!
//! Accepts what Java accepts, and no more: its grammar has no `LIKE`, no arithmetic but a sign, no hexadecimal
//! numbers, and what follows a complete expression is not looked at. Bounded where Java's is by its stack only.

use super::expression::{Expression, OrderSign, SearchKind};
use super::number::double;
use super::syntax_error::SyntaxError;
use super::token::{Keyword, Sign, Token, Tokens};
use super::value::{Constant, Value};

/// Bytes of an expression at most.
const LENGTH_MAX: usize = 64 << 10;
/// Levels of a tree, and of parentheses and signs around one another, at most.
const DEPTH_MAX: usize = 128;

/// A tree and how deep it is.
struct Parsed {
    node: Expression,
    depth: usize,
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    /// The one to look at next.
    token: Token<'a>,
    nesting: usize,
}

type Result<T> = std::result::Result<T, SyntaxError>;

/// The tree of an expression.
pub(super) fn parse(text: &str) -> Result<Expression> {
    if text.len() > LENGTH_MAX {
        let length = text.len();
        return Err(SyntaxError::new(format_args!("the expression has {length} bytes, more than {LENGTH_MAX}")));
    }
    let mut tokens = Tokens::of(text);
    let token = tokens.next()?;
    let mut parser = Parser { tokens, token, nesting: 0 };
    Ok(condition(parser.or()?)?.node)
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<()> {
        self.token = self.tokens.next()?;
        Ok(())
    }

    /// Takes the next token where it is that one.
    fn takes(&mut self, token: Token<'_>) -> Result<bool> {
        let is_it = self.token == token;
        if is_it {
            self.advance()?;
        }
        Ok(is_it)
    }

    fn expect(&mut self, token: Token<'_>) -> Result<()> {
        if self.takes(token)? { Ok(()) } else { Err(self.tokens.unexpected()) }
    }

    fn or(&mut self) -> Result<Parsed> {
        let mut left = self.and()?;
        while self.takes(Token::Keyword(Keyword::Or))? {
            left = any(condition(left)?, condition(self.and()?)?)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Parsed> {
        let mut left = self.equality()?;
        while self.takes(Token::Keyword(Keyword::And))? {
            left = all(condition(left)?, condition(self.equality()?)?)?;
        }
        Ok(left)
    }

    fn equality(&mut self) -> Result<Parsed> {
        let mut left = self.comparison()?;
        loop {
            left = match self.token {
                Token::Sign(Sign::Equal) => {
                    self.advance()?;
                    equal(left, self.comparison()?)?
                }
                Token::Sign(Sign::NotEqual) => {
                    self.advance()?;
                    not(equal(left, self.comparison()?)?)?
                }
                Token::Keyword(Keyword::Is) => {
                    self.advance()?;
                    let negated = self.takes(Token::Keyword(Keyword::Not))?;
                    self.expect(Token::Keyword(Keyword::Null))?;
                    let null = Parsed::leaf(Expression::Constant(Constant::Null));
                    let is_null = pair(left, null, Expression::Equal)?;
                    if negated { not(is_null)? } else { is_null }
                }
                _ => return Ok(left),
            };
        }
    }

    fn comparison(&mut self) -> Result<Parsed> {
        let mut left = self.unary()?;
        loop {
            let sign = match self.token {
                Token::Sign(Sign::Greater) => Some(OrderSign::Greater),
                Token::Sign(Sign::GreaterOrEqual) => Some(OrderSign::GreaterOrEqual),
                Token::Sign(Sign::Less) => Some(OrderSign::Less),
                Token::Sign(Sign::LessOrEqual) => Some(OrderSign::LessOrEqual),
                _ => None,
            };
            if let Some(sign) = sign {
                self.advance()?;
                left = order(left, sign, self.unary()?)?;
                continue;
            }
            let negated = self.takes(Token::Keyword(Keyword::Not))?;
            let search = match self.token {
                Token::Keyword(Keyword::Contains) => Some(SearchKind::Contains),
                Token::Keyword(Keyword::StartsWith) => Some(SearchKind::StartsWith),
                Token::Keyword(Keyword::EndsWith) => Some(SearchKind::EndsWith),
                _ => None,
            };
            left = match self.token {
                _ if let Some(kind) = search => {
                    self.advance()?;
                    let text = self.text()?;
                    let depth = deeper(left.depth)?;
                    Parsed { node: Expression::Search { kind, of: left.node.into(), text, negated }, depth }
                }
                Token::Keyword(Keyword::Between) => {
                    self.advance()?;
                    let low = self.unary()?;
                    self.expect(Token::Keyword(Keyword::And))?;
                    let high = self.unary()?;
                    if negated { not_between(left, low, high)? } else { between(left, low, high)? }
                }
                Token::Keyword(Keyword::In) => {
                    self.advance()?;
                    let texts = self.texts()?;
                    let Expression::Property(property) = left.node else {
                        let what = format_args!("Expected a property for In expression, got: {}", left.node);
                        return Err(SyntaxError::new(what));
                    };
                    Parsed::leaf(Expression::In { property, texts, negated })
                }
                _ if negated => return Err(self.tokens.unexpected()),
                _ => return Ok(left),
            };
        }
    }

    fn unary(&mut self) -> Result<Parsed> {
        match self.token {
            Token::Sign(Sign::Plus) => {
                self.advance()?;
                self.nested(Self::unary)
            }
            Token::Sign(Sign::Minus) => {
                self.advance()?;
                let inner = self.nested(Self::unary)?;
                let depth = deeper(inner.depth)?;
                Ok(Parsed { node: Expression::Negate(inner.node.into()), depth })
            }
            Token::Keyword(Keyword::Not) => {
                self.advance()?;
                not(condition(self.nested(Self::unary)?)?)
            }
            Token::Sign(Sign::Open) => {
                self.advance()?;
                let inner = self.nested(Self::or)?;
                self.expect(Token::Sign(Sign::Close))?;
                Ok(inner)
            }
            _ => self.leaf(),
        }
    }

    fn leaf(&mut self) -> Result<Parsed> {
        let constant = match self.token {
            Token::Word(name) => {
                self.advance()?;
                return Ok(Parsed::leaf(Expression::Property(name.into())));
            }
            Token::Text(_) => return Ok(Parsed::leaf(Expression::Constant(Constant::Text(self.text()?)))),
            Token::Decimal(image) => decimal(image)?,
            Token::Float(image) => float(image)?,
            Token::Keyword(Keyword::True) => Constant::Boolean(true),
            Token::Keyword(Keyword::False) => Constant::Boolean(false),
            Token::Keyword(Keyword::Null) => Constant::Null,
            _ => return Err(self.tokens.unexpected()),
        };
        self.advance()?;
        Ok(Parsed::leaf(Expression::Constant(constant)))
    }

    /// `('a', 'b')`, sorted and each once.
    fn texts(&mut self) -> Result<Vec<Box<str>>> {
        self.expect(Token::Sign(Sign::Open))?;
        let mut texts = vec![self.text()?];
        while self.takes(Token::Sign(Sign::Comma))? {
            texts.push(self.text()?);
        }
        self.expect(Token::Sign(Sign::Close))?;
        texts.sort_unstable();
        texts.dedup();
        Ok(texts)
    }

    fn text(&mut self) -> Result<Box<str>> {
        let Token::Text(image) = self.token else { return Err(self.tokens.unexpected()) };
        self.advance()?;
        Ok(image.replace("''", "'").into())
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Result<Parsed>) -> Result<Parsed> {
        self.nesting = deeper(self.nesting)?;
        let parsed = inner(self)?;
        self.nesting -= 1;
        Ok(parsed)
    }
}

impl Parsed {
    fn leaf(node: Expression) -> Self {
        Self { node, depth: 1 }
    }
}

/// One level more, where that is allowed.
fn deeper(depth: usize) -> Result<usize> {
    if depth < DEPTH_MAX {
        return Ok(depth + 1);
    }
    Err(SyntaxError::new(format_args!("the expression is nested more than {DEPTH_MAX} levels deep")))
}

/// Java's whole numbers are those of 64 bits, without a sign: the least of them cannot be written.
fn decimal(image: &str) -> Result<Constant> {
    let digits = image.trim_end_matches(['l', 'L']);
    let number: i64 = digits.parse().map_err(|_| SyntaxError::new(format_args!("{image} is no number of 64 bits")))?;
    Ok(i32::try_from(number).map_or(Constant::Long(number), Constant::Integer))
}

/// Java refuses zero with a point, by what looks like a mistake: `Double.MIN_VALUE` is the least positive number.
fn float(image: &str) -> Result<Constant> {
    match double(image) {
        Ok(number) if number > f64::MAX => {
            Err(SyntaxError::new(format_args!("{image} is greater than {:e}", f64::MAX)))
        }
        Ok(number) if number <= 0.0 => Err(SyntaxError::new(format_args!("{image} is less than 4.9E-324"))),
        Ok(number) => Ok(Constant::Double(number)),
        Err(_) => Err(SyntaxError::new(format_args!("{image} is no number"))),
    }
}

fn condition(parsed: Parsed) -> Result<Parsed> {
    match parsed.node {
        Expression::Property(_) => {
            Ok(Parsed { node: Expression::Cast(parsed.node.into()), depth: deeper(parsed.depth)? })
        }
        node if node.is_condition() => Ok(Parsed { node, ..parsed }),
        node => Err(SyntaxError::new(format_args!("Expression will not result in a boolean value: {node}"))),
    }
}

fn not(inner: Parsed) -> Result<Parsed> {
    Ok(Parsed { depth: deeper(inner.depth)?, node: Expression::Not(inner.node.into()) })
}

fn pair(left: Parsed, right: Parsed, node: impl FnOnce(Box<[Expression; 2]>) -> Expression) -> Result<Parsed> {
    Ok(Parsed { depth: deeper(left.depth.max(right.depth))?, node: node(Box::new([left.node, right.node])) })
}

/// Long chains stay flat: they are joined from the left, and mean the same.
fn all(left: Parsed, right: Parsed) -> Result<Parsed> {
    let depth = deeper(right.depth)?;
    match left.node {
        Expression::And(mut terms) => {
            terms.push(right.node);
            Ok(Parsed { node: Expression::And(terms), depth: depth.max(left.depth) })
        }
        node => Ok(Parsed { node: Expression::And(vec![node, right.node]), depth: depth.max(deeper(left.depth)?) }),
    }
}

fn any(left: Parsed, right: Parsed) -> Result<Parsed> {
    let depth = deeper(right.depth)?;
    match left.node {
        Expression::Or(mut terms) => {
            terms.push(right.node);
            Ok(Parsed { node: Expression::Or(terms), depth: depth.max(left.depth) })
        }
        node => Ok(Parsed { node: Expression::Or(vec![node, right.node]), depth: depth.max(deeper(left.depth)?) }),
    }
}

fn equal(left: Parsed, right: Parsed) -> Result<Parsed> {
    use Expression::Constant as C;
    for operand in [&left.node, &right.node] {
        if matches!(operand, C(Constant::Null)) {
            return Err(SyntaxError::new("'NULL' cannot be compared."));
        }
    }
    if let (C(Constant::Boolean(_)), C(constant)) = (&left.node, &right.node)
        && !matches!(constant, Constant::Boolean(_))
    {
        let what = format_args!("'{}' cannot be compared with '{constant}'", left.node);
        return Err(SyntaxError::new(what));
    }
    pair(left, right, Expression::Equal)
}

fn order(left: Parsed, sign: OrderSign, right: Parsed) -> Result<Parsed> {
    for operand in [&left.node, &right.node] {
        let has_order = match operand {
            Expression::Constant(constant) => constant.is_number(),
            other => !other.is_condition(),
        };
        if !has_order {
            return Err(SyntaxError::new(format_args!("Value '{operand}' cannot be compared.")));
        }
    }
    pair(left, right, |operands| Expression::Order(sign, operands))
}

fn between(value: Parsed, low: Parsed, high: Parsed) -> Result<Parsed> {
    if let (Expression::Constant(least), Expression::Constant(most)) = (&low.node, &high.node) {
        if matches!(least.value(), Value::Null) || matches!(most.value(), Value::Null) {
            return Err(SyntaxError::new("Illegal values of between, values can not be null!"));
        }
        // What cannot be compared is refused below.
        if most.value().compare(least.value()).is_ok_and(std::cmp::Ordering::is_lt) {
            let what = format_args!(
                "Illegal values of between, left value({least}) must less than or equal to right value({most})"
            );
            return Err(SyntaxError::new(what));
        }
    }
    let same = Parsed { node: value.node.clone(), depth: value.depth };
    all(order(value, OrderSign::GreaterOrEqual, low)?, order(same, OrderSign::LessOrEqual, high)?)
}

fn not_between(value: Parsed, low: Parsed, high: Parsed) -> Result<Parsed> {
    let same = Parsed { node: value.node.clone(), depth: value.depth };
    any(order(value, OrderSign::Less, low)?, order(same, OrderSign::Greater, high)?)
}
