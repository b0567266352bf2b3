//! Files that people write: YAML enters, values with their lines leave, or what is wrong with a file.
//!
//! Schemas, policies and cases are all read here, so that each says in the same words where a mistake stands and what is allowed.

use std::fmt;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::schema::closest;

/// A text with its line.
pub type Text = Spanned<String>;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as given.
    pub file: String,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: u32,
    /// What is wrong, where, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Files that cannot be used: everything that is wrong with them, never empty. What was in force stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems {
    /// In the order of files and lines.
    pub problems: Vec<Problem>,
}

/// The line of a value, from 1.
pub fn line<T>(value: &Spanned<T>) -> u32 {
    u32::try_from(value.referenced.line()).unwrap_or(0)
}

/// Reads one file.
///
/// # Errors
/// What is wrong with the YAML, with its line; of an unknown key also the closest known one.
pub fn parse<'de, T: Deserialize<'de>>(file: &str, text: &'de str) -> Result<T, Problem> {
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |at| u32::try_from(at.line()).unwrap_or(0));
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default().to_owned();
        Problem { file: file.to_owned(), line, message: with_closest(message) }
    })
}

/// The message ends in "unknown field `x`, expected one of a, b at line 1, column 2": the closest of them is added.
fn with_closest(message: String) -> String {
    let Some((_, rest)) = message.split_once("unknown field `") else { return message };
    let Some((unknown, expected)) = rest.split_once("`, expected ") else { return message };
    let expected = expected.strip_prefix("one of ").unwrap_or(expected);
    let names = expected.split_once(" at line ").map_or(expected, |(names, _)| names);
    match closest(unknown, names.split([',', ' ', '`']).filter(|name| !name.is_empty())) {
        Some(best) => format!("{message}; did you mean `{best}`?"),
        None => message,
    }
}
