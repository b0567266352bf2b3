//! The audit log: one JSON line for every change, with who asked for it. Appended, and rewritten only to take out the identifier of
//! somebody who is to be forgotten.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use telltale_features::file::{self, Readers};

use crate::journal::Erasure;

/// Writes the audit log.
pub struct Audit {
    path: PathBuf,
    file: Mutex<File>,
}

#[derive(Serialize)]
struct Line<'a> {
    time_us: i64,
    caller: &'a str,
    role: &'a str,
    what: &'a str,
    subject: &'a str,
    detail: &'a str,
}

/// One change.
pub struct Change<'a> {
    /// When, microseconds since 1970.
    pub time_us: i64,
    /// Who.
    pub caller: &'a str,
    /// In which role.
    pub role: &'a str,
    /// `override`, `policy`.
    pub what: &'a str,
    /// Of what.
    pub subject: &'a str,
    /// In words.
    pub detail: &'a str,
}

impl Audit {
    /// Opens `audit.ndjson` in the data directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(data: &Path) -> io::Result<Self> {
        let path = data.join("audit.ndjson");
        let file = Mutex::new(append(&path)?);
        Ok(Self { path, file })
    }

    /// Takes an identifier out of every line; the lines stay.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn redact(&self, erasure: &Erasure) -> io::Result<()> {
        let mut file = self.file.lock();
        let text = std::fs::read_to_string(&self.path)?;
        let mut changed = false;
        let mut kept = String::with_capacity(text.len());
        for line in text.lines() {
            let redacted = redacted(line, erasure);
            changed |= redacted.is_some();
            kept.push_str(redacted.as_deref().unwrap_or(line));
            kept.push('\n');
        }
        if changed {
            let permissions = file.metadata()?.permissions();
            file::replace(&self.path, kept.as_bytes(), Readers::Owner)?;
            std::fs::set_permissions(&self.path, permissions)?;
            *file = append(&self.path)?;
        }
        Ok(())
    }

    /// Writes one line and asks for it to be made durable.
    pub fn write(&self, change: &Change<'_>) {
        let Change { time_us, caller, role, what, subject, detail } = *change;
        let line = serde_json::to_string(&Line { time_us, caller, role, what, subject, detail }).unwrap_or_default();
        let mut file = self.file.lock();
        if let Err(error) = writeln!(file, "{line}").and_then(|()| file.sync_data()) {
            tracing::error!(%error, what, subject, caller, "the audit log cannot be written");
        }
        tracing::info!(what, subject, caller, role, detail, "changed");
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A line whose subject and words name somebody, without the name; `None` for any other.
fn redacted(line: &str, erasure: &Erasure) -> Option<String> {
    let mut value: serde_json::Value = serde_json::from_str(line).ok()?;
    let mut changed = false;
    for field in ["subject", "detail"] {
        if let Some(serde_json::Value::String(text)) = value.get_mut(field)
            && let Some(without) = erasure.without(text)
        {
            (*text, changed) = (without, true);
        }
    }
    changed.then(|| value.to_string())
}
