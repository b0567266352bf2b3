//! Canonical JSON, one message a line: the format of replay.
//!
//! Enters text, leaves a message, and what was in the text that the message has no place for. Never guesses.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What to do with a field that the message does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Refuse the line, naming the field's path.
    Refuse,
    /// Leave it out; its path is returned.
    Report,
}

/// Why a line is not a message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or a value of the wrong kind.
    #[error("at `{path}`: {source}")]
    Malformed {
        /// Dotted path of the offending value.
        path: String,
        /// The parser's own words, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A field that the message does not have, in strict reading.
    #[error("unknown field `{0}`; allowed are the fields of `proto/telltale/v1`")]
    UnknownField(String),
}

/// Reads one message. Returns it with the paths of the unknown fields that were left out (empty under `Unknown::Refuse`).
pub fn parse<M: DeserializeOwned>(text: &str, unknown: Unknown) -> Result<(M, Vec<String>), JsonError> {
    let mut ignored = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let message = serde_ignored::deserialize(tracked, |path| ignored.push(dotted(&path)));
    let message = message.and_then(|message| reader.end().map(|()| message));
    let message = message.map_err(|source| JsonError::Malformed { path: track.path().to_string(), source })?;
    match (unknown, ignored.first()) {
        (Unknown::Refuse, Some(path)) => Err(JsonError::UnknownField(path.clone())),
        _ => Ok((message, ignored)),
    }
}

/// Writes one message on one line, without the line's end.
pub fn write<M: Serialize>(message: &M) -> Result<String, serde_json::Error> {
    serde_json::to_string(message)
}

/// `serde_ignored` writes an option's inside as `?`; nobody who reads JSON knows of that step.
fn dotted(path: &serde_ignored::Path<'_>) -> String {
    path.to_string().split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests;
