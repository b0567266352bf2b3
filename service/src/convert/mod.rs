//! The one place where wire types and domain types meet.
//!
//! Wire messages enter, checked domain values leave, and back. What the *gateway* controls (identifiers, attributes, labels) is
//! refused when it is out of bounds; what the *client* controls (path, headers, body) is cut and counted, because a refusal
//! would let an attacker choose to go unscored.

mod inbound;
pub mod inference;
mod journal;
mod outbound;
mod outcome;
mod template;

#[cfg(test)]
mod tests;

pub use inbound::transaction;
pub use journal::{
    absent_from_journal, absent_to_journal, admitted, context_from_proto, context_to_proto, label_applied, label_from_journal, observed,
    outcome_applied, outcome_from_journal, subjects_from_proto, transaction_to_proto, value_to_proto,
};
pub use outbound::{
    action, action_from_proto, decision_digest, entity_from_proto, entity_to_proto, entity_type, hex, override_from_proto, override_id,
    override_to_proto, timestamp_to_proto, unhex,
};
pub use outcome::{aggregate, label, label_kind, outcome, outcome_to_proto};
pub use template::{template_from_proto, template_state, template_to_proto};

/// Why a message was refused: which field, what stood there, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is {found}; allowed: {allowed}")]
pub struct ConvertError {
    /// Dotted path of the field, as in the .proto.
    pub path: String,
    /// What stood there, shortened.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
}

impl ConvertError {
    fn new(path: impl Into<String>, found: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { path: path.into(), found: found.into(), allowed: allowed.into() }
    }

    /// A text that is not what its field allows.
    pub fn of(path: &str, text: &str, allowed: &str) -> Self {
        Self::new(path, shown(text), allowed)
    }

    fn absent(path: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self::new(path, "absent", allowed)
    }

    /// The same seen from outside: its path stands below `at`. Paths are put together only for what is refused.
    fn below(mut self, at: &str) -> Self {
        self.path = format!("{at}.{}", self.path);
        self
    }
}

/// How much of what a client sent was cut to the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clamps {
    /// Paths, queries, methods, hosts that were too long.
    pub texts: u32,
    /// Headers that were left out because there were too many.
    pub headers: u32,
    /// Header names or values that were too long.
    pub header_values: u32,
    /// Bodies that were too long.
    pub bodies: u32,
}

impl Clamps {
    /// Whether anything was cut.
    pub const fn any(&self) -> bool {
        self.texts + self.headers + self.header_values + self.bodies > 0
    }
}

/// Shows a foreign value in a message: at most 40 characters, quoted.
pub fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{}`", short.escape_debug())
}

/// Cuts to at most `limit` bytes at a character's boundary; says whether it cut.
fn cut(text: &mut String, limit: usize) -> bool {
    if text.len() <= limit {
        return false;
    }
    let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    true
}
