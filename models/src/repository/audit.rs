//! `audit.ndjson` of the repository: one line a change, with who, what, when and why. Appended and made durable, never rewritten.

use std::fs::OpenOptions;
use std::io::Write;

use serde::{Deserialize, Serialize};

use super::{ModelPolicy, Repository};
use crate::ModelError;

const FILE: &str = "audit.ndjson";
/// Longest reason that is kept, bytes.
const WHY_BYTES: usize = 512;

/// Who asks for a change, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// An operator's identity, or the part of the program that acted.
    pub who: String,
    /// Why, in words.
    pub why: String,
    /// When, microseconds since 1970.
    pub time_us: i64,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When, microseconds since 1970.
    pub time_us: i64,
    /// Who asked for it.
    pub who: String,
    /// `publish`, `promote`, `rollback`, `canary`, `shadow`, `remove`, `sign`, `quarantine`, `adopt`.
    pub what: String,
    /// Which model.
    pub model: String,
    /// Which version, where one is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Why.
    pub why: String,
    /// The policy as it then stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<ModelPolicy>,
}

impl AuditLine {
    /// A line about a model without its policy.
    pub fn new(author: &Author, what: &str, model: &str, version: Option<u32>) -> Self {
        let mut why = author.why.clone();
        let cut = (0..=WHY_BYTES.min(why.len())).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
        why.truncate(cut);
        let (who, what, model) = (author.who.clone(), what.to_owned(), model.to_owned());
        Self { time_us: author.time_us, who, what, model, version, why, policy: None }
    }
}

impl Repository {
    /// Appends a line and waits until it is durable.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn record(&self, line: &AuditLine) -> Result<(), ModelError> {
        let path = self.root.join(FILE);
        let mut text = serde_json::to_string(line).map_err(|error| ModelError::Data(format!("the audit line has no JSON: {error}")))?;
        text.push('\n');
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // One write: lines of several processes do not mix.
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_data()));
        written.map_err(ModelError::io("append to", path))
    }

    /// The audit, oldest first. Lines that are damaged are left out.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn audit(&self) -> Result<Vec<AuditLine>, ModelError> {
        let path = self.root.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(ModelError::io("read", path)(error)),
        }
    }
}
