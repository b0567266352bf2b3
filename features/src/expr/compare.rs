//! Equality and order of values, as cel-spec's language definition has them: across numeric types by their mathematical value,
//! false between other types.

use std::cmp::Ordering;

use super::error::Fault;
use super::value::Value;

/// CEL `==`.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| find(b, key).is_some_and(|other| equal(value, other)))
        }
        _ => numeric(left, right) == Some(Some(Ordering::Equal)),
    }
}

/// CEL `<` and its kin; `None` when one side is NaN.
pub(super) fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Fault> {
    match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => Ok(Some(a.cmp(b))),
        (Value::Text(a), Value::Text(b)) => Ok(Some(a.cmp(b))),
        _ => numeric(left, right).ok_or(Fault::NoOverload),
    }
}

/// The value under a key; numeric keys are found by any number that equals them.
pub(super) fn find<'m>(entries: &'m [(Value, Value)], key: &Value) -> Option<&'m Value> {
    entries.iter().find(|(known, _)| equal(known, key)).map(|(_, value)| value)
}

/// `None`: not both numbers. `Some(None)`: NaN. An integer beside a double is rounded to a double, as the conformance cases of
/// `comparisons` have it (`9223372036854775807 < 9223372036854775808.0` is false).
fn numeric(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    Some(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Int(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        (Value::Uint(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        (Value::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
        _ => return None,
    })
}
