//! The audit log: one JSON line for every change, with who asked for it. Appended, never rewritten.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use parking_lot::Mutex;
use serde::Serialize;

/// Writes the audit log.
pub struct Audit(Mutex<File>);

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
        OpenOptions::new().create(true).append(true).open(data.join("audit.ndjson")).map(|file| Self(Mutex::new(file)))
    }

    /// Writes one line and asks for it to be made durable.
    pub fn write(&self, change: &Change<'_>) {
        let Change { time_us, caller, role, what, subject, detail } = *change;
        let line = serde_json::to_string(&Line { time_us, caller, role, what, subject, detail }).unwrap_or_default();
        let mut file = self.0.lock();
        if let Err(error) = writeln!(file, "{line}").and_then(|()| file.sync_data()) {
            tracing::error!(%error, what, subject, caller, "the audit log cannot be written");
        }
        tracing::info!(what, subject, caller, role, detail, "changed");
    }
}
