//! Functions: sizes, text tests, conversions.

use super::code::{Code, Compiled, TextFn};
use super::error::Fault;
use super::value::{Type, Value};

/// The functions of the subset, for messages.
pub(super) const ALLOWED: &str = "size, startsWith, endsWith, contains, matches, has, all, exists, exists_one, map, filter, int, uint, \
                                  double, string, bool, dyn";

/// A test of one text by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl TextTest {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "startsWith" => Some(Self::StartsWith),
            "endsWith" => Some(Self::EndsWith),
            "contains" => Some(Self::Contains),
            _ => None,
        }
    }

    fn holds(self, text: &str, part: &str) -> bool {
        match self {
            Self::StartsWith => text.starts_with(part),
            Self::EndsWith => text.ends_with(part),
            Self::Contains => text.contains(part),
        }
    }

    /// The test as code; a literal part is not cloned at each run.
    pub fn code(self, text: TextFn, part: Compiled) -> Compiled {
        if let Some(Value::Text(part)) = part.constant {
            return Compiled::bool(Box::new(move |frame| Ok(self.holds(&text(frame)?, &part))));
        }
        let part = part.into_text();
        Compiled::bool(Box::new(move |frame| Ok(self.holds(&text(frame)?, &part(frame)?))))
    }
}

/// `size(value)`: code points, elements, entries.
pub(super) fn size(value: Compiled) -> Compiled {
    let count = |n: usize| i64::try_from(n).map(Value::Int).map_err(|_| Fault::Overflow);
    if let Code::Text(text) = value.code {
        return Compiled::any(Box::new(move |frame| count(text(frame)?.chars().count())), Type::Int);
    }
    let value = value.into_any();
    let size = move |value: Value| match value {
        Value::Text(text) => count(text.chars().count()),
        Value::List(items) => count(items.len()),
        Value::Map(entries) => count(entries.len()),
        _ => Err(Fault::NoOverload),
    };
    Compiled::any(Box::new(move |frame| size(value(frame)?)), Type::Int)
}

/// A conversion of the subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    Int,
    Uint,
    Double,
    String,
    Bool,
    Dyn,
}

impl Conversion {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "int" => Some(Self::Int),
            "uint" => Some(Self::Uint),
            "double" => Some(Self::Double),
            "string" => Some(Self::String),
            "bool" => Some(Self::Bool),
            "dyn" => Some(Self::Dyn),
            _ => None,
        }
    }

    /// Whether a value of that type can be converted at all.
    pub fn takes(self, from: &Type) -> bool {
        match self {
            Self::Dyn => true,
            Self::Int | Self::Uint | Self::Double => from.is_number() || matches!(from, Type::String | Type::Dyn),
            Self::String => matches!(from, Type::Int | Type::Uint | Type::Bool | Type::String | Type::Dyn),
            Self::Bool => matches!(from, Type::Bool | Type::String | Type::Dyn),
        }
    }

    const fn gives(self) -> Type {
        match self {
            Self::Int => Type::Int,
            Self::Uint => Type::Uint,
            Self::Double => Type::Double,
            Self::String => Type::String,
            Self::Bool => Type::Bool,
            Self::Dyn => Type::Dyn,
        }
    }

    pub fn code(self, value: Compiled) -> Compiled {
        match self {
            Self::Dyn => Compiled { kind: Type::Dyn, ..Compiled::any(value.into_any(), Type::Dyn) },
            Self::Double if value.kind == Type::Double => value,
            Self::Double => {
                let from_row = value.from_row;
                let value = value.into_any();
                Compiled::double(
                    Box::new(move |frame| match self.apply(value(frame)?)? {
                        Value::Double(value) => Ok(value),
                        _ => Err(Fault::Conversion),
                    }),
                    from_row,
                )
            }
            _ => {
                let value = value.into_any();
                Compiled::any(Box::new(move |frame| self.apply(value(frame)?)), self.gives())
            }
        }
    }

    fn apply(self, value: Value) -> Result<Value, Fault> {
        match (self, value) {
            (Self::Dyn, value)
            | (Self::Int, value @ Value::Int(_))
            | (Self::Uint, value @ Value::Uint(_))
            | (Self::Double, value @ Value::Double(_))
            | (Self::String, value @ Value::Text(_))
            | (Self::Bool, value @ Value::Bool(_)) => Ok(value),
            (Self::Int, Value::Uint(value)) => i64::try_from(value).map(Value::Int).map_err(|_| Fault::Overflow),
            (Self::Int, Value::Double(value)) => {
                // −2⁶³ itself is refused, as cel-go does: it cannot be told from what was rounded to it.
                let fits = value > -9_223_372_036_854_775_808.0 && value < 9_223_372_036_854_775_808.0;
                if fits { Ok(Value::Int(value as i64)) } else { Err(Fault::Overflow) }
            }
            (Self::Int, Value::Text(text)) => text.parse().map(Value::Int).map_err(|_| Fault::Conversion),
            (Self::Uint, Value::Int(value)) => u64::try_from(value).map(Value::Uint).map_err(|_| Fault::Overflow),
            (Self::Uint, Value::Double(value)) => {
                let fits = (0.0..18_446_744_073_709_551_616.0).contains(&value);
                if fits { Ok(Value::Uint(value as u64)) } else { Err(Fault::Overflow) }
            }
            (Self::Uint, Value::Text(text)) => text.parse().map(Value::Uint).map_err(|_| Fault::Conversion),
            (Self::Double, Value::Int(value)) => Ok(Value::Double(value as f64)),
            (Self::Double, Value::Uint(value)) => Ok(Value::Double(value as f64)),
            (Self::Double, Value::Text(text)) => text.parse().map(Value::Double).map_err(|_| Fault::Conversion),
            (Self::String, Value::Int(value)) => Ok(Value::Text(value.to_string().into())),
            (Self::String, Value::Uint(value)) => Ok(Value::Text(value.to_string().into())),
            (Self::String, Value::Bool(value)) => Ok(Value::Text(value.to_string().into())),
            (Self::Bool, Value::Text(text)) => match text.as_ref() {
                "1" | "t" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                _ => Err(Fault::Conversion),
            },
            _ => Err(Fault::NoOverload),
        }
    }
}
