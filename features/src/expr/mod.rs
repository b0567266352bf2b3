//! Expressions: CEL text enters, a compiled program leaves that reads rows of named values.
//!
//! The language is a subset of the Common Expression Language (cel-spec, langdef.md): null, bool, int, uint, double, string, list
//! and map; its operators, `?:`, `in`, `has()`, `size`, `startsWith`, `endsWith`, `contains`, `matches` with a literal pattern,
//! the macros `all`, `exists`, `exists_one`, `map`, `filter`, and the conversions `int`, `uint`, `double`, `string`, `bool`,
//! `dyn`. What is outside is refused when it is compiled, with its reason. Three things differ from the specification, all of
//! them for rows of numbers: an integer literal beside a number of the row counts as a double; every comparison with a missing
//! number is false, `!=` too; `has(name)` asks whether a name of the row has a value.
//!
//! Nothing here reads a clock, allocates for a comparison of numbers, or can run longer than its budget.

mod calls;
mod code;
mod compare;
mod compile;
mod error;
mod fast;
mod flat;
mod functions;
mod macros;
mod operators;
mod program;
mod scope;
mod value;

pub use error::{CompileError, Fault, Refusal};
pub use program::{Number, Predicate, Program};
pub use scope::{Compared, NameKind, NameRef, Row, Scope};
pub use value::{Type, Value};

#[cfg(test)]
mod tests;
