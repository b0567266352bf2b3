//! CEL values and their types.

use std::fmt;
use std::sync::Arc;

/// Static type of an expression; `Dyn` is known only when it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `null`.
    Null,
    /// Truth value.
    Bool,
    /// Signed 64-bit integer.
    Int,
    /// Unsigned 64-bit integer.
    Uint,
    /// 64-bit floating point.
    Double,
    /// Unicode text.
    String,
    /// List of that type.
    List(Box<Type>),
    /// Map from and to those types.
    Map(Box<Type>, Box<Type>),
    /// Any of them.
    Dyn,
}

impl Type {
    /// Whether values of both types may meet in one operator: equal, or one is not known.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) => a.agrees(b),
            (Self::Map(k, v), Self::Map(l, w)) => k.agrees(l) && v.agrees(w),
            (a, b) => a == b,
        }
    }

    pub(super) const fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Dyn => f.write_str("dyn"),
        }
    }
}

/// A CEL value. `==` between values is Rust's; CEL's equality is what programs compute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// Truth value.
    Bool(bool),
    /// Signed integer.
    Int(i64),
    /// Unsigned integer.
    Uint(u64),
    /// Floating point.
    Double(f64),
    /// Text.
    Text(Arc<str>),
    /// List.
    List(Arc<[Value]>),
    /// Entries in the order written; keys are bool, int, uint or text, none twice.
    Map(Arc<[(Value, Value)]>),
}

impl Value {
    /// The type of this value; elements of several types give `Dyn`.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::Text(_) => Type::String,
            Self::List(items) => Type::List(Box::new(common(items.iter().map(Self::type_of)))),
            Self::Map(entries) => Type::Map(
                Box::new(common(entries.iter().map(|(key, _)| key.type_of()))),
                Box::new(common(entries.iter().map(|(_, value)| value.type_of()))),
            ),
        }
    }
}

/// The one type that all have, else `Dyn`.
pub(super) fn common(mut types: impl Iterator<Item = Type>) -> Type {
    let Some(first) = types.next() else { return Type::Dyn };
    if types.all(|other| other == first) { first } else { Type::Dyn }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
