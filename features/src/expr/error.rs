//! What can be wrong with an expression: when it is compiled, and when it runs.

use std::fmt;

/// Why an expression is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is not CEL.
    Syntax,
    /// It names something that the scope does not have.
    UnknownName,
    /// A function that the subset does not have.
    UnknownFunction,
    /// An operator or function is applied to types it does not take.
    WrongType,
    /// Bytes are outside the subset.
    Bytes,
    /// Protobuf messages are outside the subset.
    Message,
    /// Types as values are outside the subset.
    TypeValue,
    /// Optional values are outside the subset.
    Optional,
    /// A regular expression that is not a literal, or is not valid.
    Pattern,
    /// It is too long, too deep, or nests macros too deeply.
    TooLarge,
}

impl Refusal {
    /// One word for counts and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnknownName => "unknown name",
            Self::UnknownFunction => "unknown function",
            Self::WrongType => "wrong type",
            Self::Bytes => "bytes",
            Self::Message => "message",
            Self::TypeValue => "type as value",
            Self::Optional => "optional",
            Self::Pattern => "pattern",
            Self::TooLarge => "too large",
        }
    }
}

/// Why an expression is refused, where, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Line in the expression, from 1.
    pub line: u32,
    /// Column in that line, in characters, from 1.
    pub column: u32,
    /// The reason in one word.
    pub reason: Refusal,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 | 1 => write!(f, "column {}: {}", self.column, self.message),
            line => write!(f, "line {line}, column {}: {}", self.column, self.message),
        }
    }
}

impl std::error::Error for CompileError {}

/// Why an expression has no value for a row. A predicate takes every fault for "does not hold".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An integer left the 64-bit range.
    #[error("integer overflow")]
    Overflow,
    /// Division of an integer by zero.
    #[error("division by zero")]
    DivideByZero,
    /// Remainder of an integer by zero.
    #[error("modulus by zero")]
    ModulusByZero,
    /// No operator or function for these types.
    #[error("no such overload")]
    NoOverload,
    /// A map without that key.
    #[error("no such key")]
    NoSuchKey,
    /// A list index out of range.
    #[error("index out of range")]
    OutOfRange,
    /// A map with the same key twice.
    #[error("repeated key")]
    RepeatedKey,
    /// A map key that is neither bool, int, uint nor string.
    #[error("unsupported key type")]
    KeyType,
    /// A text or number that cannot be converted.
    #[error("conversion is not possible")]
    Conversion,
    /// More steps than the budget allows.
    #[error("too many steps")]
    Budget,
}
