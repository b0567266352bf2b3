//! Compiled code: closures by result type, and the frame they run in.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;

use super::error::Fault;
use super::flat::Truth;
use super::scope::{NameKind, Row};
use super::value::{Type, Value};

/// Elements that all macros of one evaluation may visit together.
pub(super) const STEPS: u32 = 10_000;

/// What running code sees.
pub(super) struct Frame<'a> {
    pub row: Row<'a>,
    pub local: Option<&'a Local<'a>>,
    pub steps: &'a Cell<u32>,
}

/// A macro's variable and those around it.
pub(super) struct Local<'a> {
    pub value: Value,
    pub up: Option<&'a Local<'a>>,
}

impl<'a> Frame<'a> {
    /// The variable that many macros further out.
    pub fn local(&self, depth: usize) -> Result<&'a Value, Fault> {
        let mut local = self.local;
        for _ in 0..depth {
            local = local.and_then(|local| local.up);
        }
        local.map(|local| &local.value).ok_or(Fault::NoSuchKey)
    }

    /// Takes one step from the budget.
    pub fn step(&self) -> Result<(), Fault> {
        let left = self.steps.get().checked_sub(1).ok_or(Fault::Budget)?;
        self.steps.set(left);
        Ok(())
    }
}

/// Text of the row or of the program.
pub(super) enum Text<'a> {
    Row(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Row(text) => text,
            Self::Shared(text) => text,
        }
    }
}

pub(super) type BoolFn = Box<dyn Fn(&Frame<'_>) -> Result<bool, Fault> + Send + Sync>;
pub(super) type DoubleFn = Box<dyn Fn(&Frame<'_>) -> Result<f64, Fault> + Send + Sync>;
pub(super) type TextFn = Box<dyn for<'a> Fn(&Frame<'a>) -> Result<Text<'a>, Fault> + Send + Sync>;
pub(super) type AnyFn = Box<dyn Fn(&Frame<'_>) -> Result<Value, Fault> + Send + Sync>;

/// Code by what it returns.
pub(super) enum Code {
    Bool(Truth),
    Double(DoubleFn),
    Text(TextFn),
    Any(AnyFn),
}

/// Code with what is known of it.
pub(super) struct Compiled {
    pub code: Code,
    pub kind: Type,
    /// Whether its value comes from a number of the row, so that NaN means missing.
    pub from_row: bool,
    /// Its value, when it is a constant.
    pub constant: Option<Value>,
    /// The name of the row that it is.
    pub name: Option<(NameKind, u16)>,
}

impl Compiled {
    pub fn bool(code: BoolFn) -> Self {
        Self::truth(Truth::Code(code))
    }

    pub fn truth(truth: Truth) -> Self {
        Self::new(Code::Bool(truth), Type::Bool)
    }

    pub fn double(code: DoubleFn, from_row: bool) -> Self {
        Self { from_row, ..Self::new(Code::Double(code), Type::Double) }
    }

    pub fn any(code: AnyFn, kind: Type) -> Self {
        Self::new(Code::Any(code), kind)
    }

    pub fn new(code: Code, kind: Type) -> Self {
        Self { code, kind, from_row: false, constant: None, name: None }
    }

    /// Code that always gives this value.
    pub fn constant(value: Value) -> Self {
        let kind = value.type_of();
        let kept = Some(value.clone());
        let code = match value {
            Value::Bool(value) => Code::Bool(Truth::Code(Box::new(move |_| Ok(value)))),
            Value::Double(value) => Code::Double(Box::new(move |_| Ok(value))),
            Value::Text(value) => Code::Text(Box::new(move |_| Ok(Text::Shared(Arc::clone(&value))))),
            value => Code::Any(Box::new(move |_| Ok(value.clone()))),
        };
        Self { constant: kept, ..Self::new(code, kind) }
    }

    /// Code that always fails: types that can never meet.
    pub fn fault() -> Self {
        Self::any(Box::new(|_| Err(Fault::NoOverload)), Type::Dyn)
    }

    pub fn into_bool(self) -> BoolFn {
        self.into_truth().into_code()
    }

    /// Code of a truth value; what turns out to be none has no overload.
    pub fn into_truth(self) -> Truth {
        Truth::Code(match self.code {
            Code::Bool(truth) => return truth,
            Code::Any(code) => Box::new(move |frame| match code(frame)? {
                Value::Bool(value) => Ok(value),
                _ => Err(Fault::NoOverload),
            }),
            Code::Double(code) => Box::new(move |frame| code(frame).and(Err(Fault::NoOverload))),
            Code::Text(code) => Box::new(move |frame| code(frame).and(Err(Fault::NoOverload))),
        })
    }

    pub fn into_any(self) -> AnyFn {
        match self.code {
            Code::Any(code) => code,
            Code::Bool(truth) => {
                let code = truth.into_code();
                Box::new(move |frame| code(frame).map(Value::Bool))
            }
            Code::Double(code) => Box::new(move |frame| code(frame).map(Value::Double)),
            Code::Text(code) => Box::new(move |frame| {
                Ok(Value::Text(match code(frame)? {
                    Text::Row(text) => text.into(),
                    Text::Shared(text) => text,
                }))
            }),
        }
    }

    /// Text code; what turns out not to be text has no overload.
    pub fn into_text(self) -> TextFn {
        match self.code {
            Code::Text(code) => code,
            Code::Any(code) => Box::new(move |frame| match code(frame)? {
                Value::Text(text) => Ok(Text::Shared(text)),
                _ => Err(Fault::NoOverload),
            }),
            Code::Bool(truth) => {
                let code = truth.into_code();
                Box::new(move |frame| code(frame).and(Err(Fault::NoOverload)))
            }
            Code::Double(code) => Box::new(move |frame| code(frame).and(Err(Fault::NoOverload))),
        }
    }

    /// The constant as a double, when it is an integer or a double.
    pub fn literal_number(&self) -> Option<f64> {
        match self.constant {
            Some(Value::Int(value)) => Some(value as f64),
            Some(Value::Uint(value)) => Some(value as f64),
            Some(Value::Double(value)) => Some(value),
            _ => None,
        }
    }
}

/// An integer literal beside a number of the row is a double.
pub(super) fn adapt(left: Compiled, right: Compiled) -> (Compiled, Compiled) {
    let is_integer = |side: &Compiled| matches!(side.constant, Some(Value::Int(_) | Value::Uint(_)));
    if left.from_row && left.kind == Type::Double && is_integer(&right) {
        let value = right.literal_number().unwrap_or(f64::NAN);
        return (left, Compiled::constant(Value::Double(value)));
    }
    if right.from_row && right.kind == Type::Double && is_integer(&left) {
        let value = left.literal_number().unwrap_or(f64::NAN);
        return (Compiled::constant(Value::Double(value)), right);
    }
    (left, right)
}
