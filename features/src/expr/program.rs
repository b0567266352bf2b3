//! Programs: compiled expressions that answer with a truth value, a number or any value.

use std::cell::Cell;
use std::sync::Arc;

use super::code::{AnyFn, DoubleFn, Frame, STEPS};
use super::compile::compile;
use super::error::{CompileError, Fault, Refusal};
use super::fast::into_double;
use super::flat::Condition;
use super::functions::Conversion;
use super::scope::{NameKind, NameRef, Row, Scope};
use super::value::{Type, Value};

/// An expression of type bool.
pub struct Predicate {
    condition: Condition,
    reads: Vec<NameRef>,
    literals: Vec<(u16, Arc<str>)>,
}

impl Predicate {
    /// Compiles an expression that must be of type bool.
    ///
    /// # Errors
    /// What is wrong, where, and what is allowed.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        let output = compile(source, scope, true)?;
        if !matches!(output.code.kind, Type::Bool | Type::Dyn) {
            return Err(whole(format!("the expression must be true or false, but its type is {}", output.code.kind)));
        }
        Ok(Self { condition: Condition::new(output.code.into_truth()), reads: output.reads, literals: output.literals })
    }

    /// Whether it holds for that row. Missing values and faults count as "no".
    pub fn holds(&self, row: &Row<'_>) -> bool {
        self.condition.holds(&Frame { row: *row, local: None, steps: &Cell::new(STEPS) })
    }

    /// The names it reads, each with the literal that it is compared to, where that is evident.
    pub fn reads(&self) -> &[NameRef] {
        &self.reads
    }

    /// The literals that a text of that name is compared with by `==`, `!=`, `in` or `startsWith`.
    pub fn literals<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let place = self.reads.iter().find(|read| read.kind == NameKind::Text && *read.name == *name).map(|read| read.place);
        self.literals.iter().filter(move |(of, _)| Some(*of) == place).map(|(_, literal)| literal.as_ref())
    }
}

/// An expression of type double.
pub struct Number {
    code: DoubleFn,
    reads: Vec<NameRef>,
}

impl Number {
    /// Compiles an expression that must be a number; int and uint are converted.
    ///
    /// # Errors
    /// What is wrong, where, and what is allowed.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        let output = compile(source, scope, true)?;
        if !output.code.kind.is_number() && output.code.kind != Type::Dyn {
            return Err(whole(format!("the expression must be a number, but its type is {}", output.code.kind)));
        }
        let code = into_double(Conversion::Double.code(output.code));
        Ok(Self { code, reads: output.reads })
    }

    /// Its value for that row; NaN when something is missing or goes wrong.
    pub fn eval(&self, row: &Row<'_>) -> f64 {
        (self.code)(&Frame { row: *row, local: None, steps: &Cell::new(STEPS) }).unwrap_or(f64::NAN)
    }

    /// The names it reads.
    pub fn reads(&self) -> &[NameRef] {
        &self.reads
    }
}

/// An expression of any type. Types that cannot meet are faults of the run, not of the compilation, as CEL has it without a
/// type check.
pub struct Program {
    code: AnyFn,
}

impl Program {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong, where, and what is allowed.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        Ok(Self { code: compile(source, scope, false)?.code.into_any() })
    }

    /// Its value for that row.
    ///
    /// # Errors
    /// The fault that CEL defines for this case.
    pub fn eval(&self, row: &Row<'_>) -> Result<Value, Fault> {
        (self.code)(&Frame { row: *row, local: None, steps: &Cell::new(STEPS) })
    }
}

fn whole(message: String) -> CompileError {
    CompileError { line: 1, column: 1, reason: Refusal::WrongType, message }
}

impl std::fmt::Debug for Predicate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Predicate").field("reads", &self.reads).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Number").field("reads", &self.reads).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}
