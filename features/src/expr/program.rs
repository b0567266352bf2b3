//! Programs: compiled expressions that answer with a truth value, a number or any value.

use super::error::{CompileError, Fault};
use super::scope::{NameRef, Row, Scope};
use super::value::Value;

/// An expression of type bool.
pub struct Predicate {
    reads: Vec<NameRef>,
}

impl Predicate {
    /// Compiles an expression that must be of type bool.
    ///
    /// # Errors
    /// What is wrong, where, and what is allowed.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        let _ = (source, scope);
        Ok(Self { reads: Vec::new() })
    }

    /// Whether it holds for that row. Missing values and faults count as "no".
    pub fn holds(&self, row: &Row<'_>) -> bool {
        let _ = row;
        false
    }

    /// The names it reads, each with the literal that it is compared to, where that is evident.
    pub fn reads(&self) -> &[NameRef] {
        &self.reads
    }
}

/// An expression of type double.
pub struct Number {
    reads: Vec<NameRef>,
}

impl Number {
    /// Compiles an expression that must be a number; int and uint are converted.
    ///
    /// # Errors
    /// What is wrong, where, and what is allowed.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        let _ = (source, scope);
        Ok(Self { reads: Vec::new() })
    }

    /// Its value for that row; NaN when something is missing or goes wrong.
    pub fn eval(&self, row: &Row<'_>) -> f64 {
        let _ = row;
        f64::NAN
    }

    /// The names it reads.
    pub fn reads(&self) -> &[NameRef] {
        &self.reads
    }
}

/// An expression of any type. Types that cannot meet are faults of the run, not of the compilation, as CEL has it without a
/// type check.
pub struct Program {}

impl Program {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong, where, and what is allowed.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        let _ = (source, scope);
        Ok(Self {})
    }

    /// Its value for that row.
    ///
    /// # Errors
    /// The fault that CEL defines for this case.
    pub fn eval(&self, row: &Row<'_>) -> Result<Value, Fault> {
        let _ = row;
        Err(Fault::NoOverload)
    }
}
