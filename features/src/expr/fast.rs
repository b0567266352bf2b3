//! Comparisons and logic as typed closures: inside other expressions they cost one indirect call each. What a rule asks as a whole
//! is laid flat instead, see `flat`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use super::code::{BoolFn, Code, Compiled, DoubleFn, TextFn};
use super::compare::{equal, order};
use super::error::Fault;
use super::flat::Truth;
use super::scope::NameKind;
use super::value::Value;

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
        }
    }

    /// The operator with its sides exchanged.
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            same => same,
        }
    }

    pub const fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }

    /// Whether it holds of two numbers. A missing one is NaN: then nothing holds, not even that they differ.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => differ(left, right),
            Self::Less => left < right,
            Self::LessEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterEqual => left >= right,
        }
    }

    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterEqual => order.is_ge(),
        }
    }
}

/// Compares two pieces of code whose types are known to meet.
pub(super) fn compare(operator: Comparison, left: Compiled, right: Compiled) -> Truth {
    let missing = left.from_row || right.from_row;
    match (&left.code, &right.code) {
        (Code::Double(_), Code::Double(_)) => doubles(operator, left, right, missing),
        (Code::Text(_), Code::Text(_)) => Truth::Code(texts(operator, left, right)),
        _ => Truth::Code(values(operator, left, right, missing)),
    }
}

fn doubles(operator: Comparison, left: Compiled, right: Compiled, missing: bool) -> Truth {
    if let (Some((NameKind::Number, place)), Some(literal)) = (left.name, right.literal_number()) {
        return Truth::Number { operator, place, literal };
    }
    if let (Some(literal), Some((NameKind::Number, place))) = (left.literal_number(), right.name) {
        return Truth::Number { operator: operator.mirrored(), place, literal };
    }
    let (left, right) = (double_code(left), double_code(right));
    Truth::Code(match operator {
        Comparison::NotEqual if missing => Box::new(move |frame| Ok(differ(left(frame)?, right(frame)?))),
        Comparison::NotEqual => Box::new(move |frame| Ok(left(frame)? != right(frame)?)),
        _ => Box::new(move |frame| Ok(left(frame)?.partial_cmp(&right(frame)?).is_some_and(|order| operator.accepts(order)))),
    })
}

/// The commonest form, one closure an operator: no dispatch at run time. A missing number is NaN: every form is false then.
pub(super) fn slot_to_literal(operator: Comparison, place: u16, literal: f64) -> BoolFn {
    match operator {
        Comparison::Equal => Box::new(move |frame| Ok(frame.row.number(place) == literal)),
        Comparison::NotEqual => Box::new(move |frame| Ok(differ(frame.row.number(place), literal))),
        Comparison::Less => Box::new(move |frame| Ok(frame.row.number(place) < literal)),
        Comparison::LessEqual => Box::new(move |frame| Ok(frame.row.number(place) <= literal)),
        Comparison::Greater => Box::new(move |frame| Ok(frame.row.number(place) > literal)),
        Comparison::GreaterEqual => Box::new(move |frame| Ok(frame.row.number(place) >= literal)),
    }
}

/// Whether both are there and are not the same: IEEE's `!=` would be true of NaN.
fn differ(a: f64, b: f64) -> bool {
    a.partial_cmp(&b).is_some_and(Ordering::is_ne)
}

fn texts(operator: Comparison, left: Compiled, right: Compiled) -> BoolFn {
    let (operator, left, right) = if left.constant.is_some() { (operator.mirrored(), right, left) } else { (operator, left, right) };
    if let Some(Value::Text(literal)) = &right.constant {
        let literal = Arc::clone(literal);
        let left = left.into_text();
        return Box::new(move |frame| Ok(operator.accepts((*left(frame)?).cmp(&literal))));
    }
    let (left, right) = (left.into_text(), right.into_text());
    Box::new(move |frame| Ok(operator.accepts((*left(frame)?).cmp(&*right(frame)?))))
}

fn values(operator: Comparison, left: Compiled, right: Compiled, missing: bool) -> BoolFn {
    let (left, right) = (left.into_any(), right.into_any());
    let is_missing = move |value: &Value| missing && matches!(value, Value::Double(value) if value.is_nan());
    match operator {
        Comparison::Equal => Box::new(move |frame| Ok(equal(&left(frame)?, &right(frame)?))),
        Comparison::NotEqual => Box::new(move |frame| {
            let (a, b) = (left(frame)?, right(frame)?);
            Ok(!is_missing(&a) && !is_missing(&b) && !equal(&a, &b))
        }),
        _ => Box::new(move |frame| Ok(order(&left(frame)?, &right(frame)?)?.is_some_and(|order| operator.accepts(order)))),
    }
}

fn double_code(side: Compiled) -> DoubleFn {
    match side.code {
        Code::Double(code) => code,
        other => {
            let code = Compiled { code: other, ..Compiled::fault() }.into_any();
            Box::new(move |frame| match code(frame)? {
                Value::Double(value) => Ok(value),
                _ => Err(Fault::NoOverload),
            })
        }
    }
}

/// Code of a double, for arithmetic.
pub(super) fn into_double(side: Compiled) -> DoubleFn {
    double_code(side)
}

/// `text in [literals]`, all of them texts.
pub(super) fn text_in(text: TextFn, items: &[Value]) -> BoolFn {
    let texts = items.iter().filter_map(|item| match item {
        Value::Text(text) => Some(Arc::clone(text)),
        _ => None,
    });
    if items.len() <= 8 {
        let texts: Vec<Arc<str>> = texts.collect();
        return Box::new(move |frame| {
            let text = text(frame)?;
            Ok(texts.iter().any(|known| **known == *text))
        });
    }
    let known: HashSet<Arc<str>> = texts.collect();
    Box::new(move |frame| Ok(known.contains(&*text(frame)?)))
}

/// `&&` (deciding value false) or `||` (deciding value true) over any number of terms: a term that decides beats a fault.
pub(super) fn chain(terms: Vec<BoolFn>, deciding: bool) -> BoolFn {
    match <[BoolFn; 2]>::try_from(terms) {
        Ok([first, second]) => Box::new(move |frame| match first(frame) {
            Ok(value) if value == deciding => Ok(deciding),
            Ok(_) => second(frame),
            Err(fault) => match second(frame) {
                Ok(value) if value == deciding => Ok(deciding),
                _ => Err(fault),
            },
        }),
        Err(terms) => Box::new(move |frame| {
            let mut outcome = Ok(!deciding);
            for term in &terms {
                match term(frame) {
                    Ok(value) if value == deciding => return Ok(deciding),
                    Ok(_) => {}
                    Err(fault) => outcome = Err(fault),
                }
            }
            outcome
        }),
    }
}
