//! Arithmetic, indexing and membership on values.

use std::sync::Arc;

use super::compare::{equal, find};
use super::error::Fault;
use super::value::Value;

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Arithmetic {
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }

    /// On doubles; `%` is not defined for them and never asked.
    pub fn on_doubles(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Modulo => f64::NAN,
        }
    }
}

/// An arithmetic operator on two values.
pub(super) fn arithmetic(operator: Arithmetic, left: Value, right: Value) -> Result<Value, Fault> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => on_ints(operator, a, b).map(Value::Int),
        (Value::Uint(a), Value::Uint(b)) => on_uints(operator, a, b).map(Value::Uint),
        (Value::Double(a), Value::Double(b)) if operator != Arithmetic::Modulo => Ok(Value::Double(operator.on_doubles(a, b))),
        (Value::Text(a), Value::Text(b)) if operator == Arithmetic::Add => Ok(Value::Text(format!("{a}{b}").into())),
        (Value::List(a), Value::List(b)) if operator == Arithmetic::Add => {
            Ok(Value::List(a.iter().chain(b.iter()).cloned().collect::<Arc<[Value]>>()))
        }
        _ => Err(Fault::NoOverload),
    }
}

fn on_ints(operator: Arithmetic, a: i64, b: i64) -> Result<i64, Fault> {
    match operator {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide if b == 0 => return Err(Fault::DivideByZero),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Modulo if b == 0 => return Err(Fault::ModulusByZero),
        Arithmetic::Modulo => a.checked_rem(b),
    }
    .ok_or(Fault::Overflow)
}

fn on_uints(operator: Arithmetic, a: u64, b: u64) -> Result<u64, Fault> {
    match operator {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide if b == 0 => return Err(Fault::DivideByZero),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Modulo if b == 0 => return Err(Fault::ModulusByZero),
        Arithmetic::Modulo => a.checked_rem(b),
    }
    .ok_or(Fault::Overflow)
}

/// `-value`.
pub(super) fn negate(value: Value) -> Result<Value, Fault> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(Fault::Overflow),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(Fault::NoOverload),
    }
}

/// `container[key]`.
pub(super) fn index(container: &Value, key: &Value) -> Result<Value, Fault> {
    match container {
        Value::List(items) => items.get(position(key)?).cloned().ok_or(Fault::OutOfRange),
        Value::Map(entries) => match key {
            Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Text(_) => {
                find(entries, key).cloned().ok_or(Fault::NoSuchKey)
            }
            _ => Err(Fault::KeyType),
        },
        _ => Err(Fault::NoOverload),
    }
}

fn position(key: &Value) -> Result<usize, Fault> {
    match key {
        Value::Int(place) => usize::try_from(*place).map_err(|_| Fault::OutOfRange),
        Value::Uint(place) => usize::try_from(*place).map_err(|_| Fault::OutOfRange),
        Value::Double(place) if place.fract() == 0.0 && (0.0..1e15).contains(place) => Ok(*place as usize),
        Value::Double(_) => Err(Fault::OutOfRange),
        _ => Err(Fault::NoOverload),
    }
}

/// `item in container`.
pub(super) fn contained(item: &Value, container: &Value) -> Result<bool, Fault> {
    match container {
        Value::List(items) => Ok(items.iter().any(|known| equal(known, item))),
        Value::Map(entries) => Ok(find(entries, item).is_some()),
        _ => Err(Fault::NoOverload),
    }
}

/// A map of these entries.
pub(super) fn map(entries: Vec<(Value, Value)>) -> Result<Value, Fault> {
    let mut known: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if !matches!(key, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Text(_)) {
            return Err(Fault::KeyType);
        }
        if find(&known, &key).is_some() {
            return Err(Fault::RepeatedKey);
        }
        known.push((key, value));
    }
    Ok(Value::Map(known.into()))
}
