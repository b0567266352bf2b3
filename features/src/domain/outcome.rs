//! What became of a transaction: its answer, its label, and what was counted without being scored.

use super::transaction::{HttpResponse, Identity, Transaction, Values};
use crate::entity::Subjects;
use crate::time::Timestamp;

/// The answer that a scored transaction got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Which transaction.
    pub transaction_id: String,
    /// When the answer was complete.
    pub time: Timestamp,
    /// The answer, if it was HTTP.
    pub response: Option<HttpResponse>,
    /// Whether the operation succeeded, where the gateway knows better than the status.
    pub success: Success,
    /// Typed values known only from the answer.
    pub attributes: Values,
    /// Identity that the answer revealed. Empty behind the door: hashed into subjects.
    pub identity: Identity,
}

impl Outcome {
    /// Whether the operation succeeded: as said, else by status below 400; `None` when neither is known.
    pub fn succeeded(&self) -> Option<bool> {
        match self.success {
            Success::Ok => Some(true),
            Success::Failed => Some(false),
            Success::Unknown => self.response.as_ref().map(|response| response.status < 400),
        }
    }
}

/// Whether an operation did what its caller wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Success {
    /// Not said.
    #[default]
    Unknown,
    /// It did.
    Ok,
    /// It was refused or failed.
    Failed,
}

/// What somebody later found out about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Which transaction.
    pub transaction_id: String,
    /// When it became known.
    pub time: Timestamp,
    /// The finding.
    pub kind: LabelKind,
    /// For people and for training.
    pub detail: String,
    /// The finding that this one takes back.
    pub replaces: Option<LabelKind>,
}

/// The finding of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelKind {
    /// A real customer who did nothing wrong.
    Benign,
    /// Money or goods were taken.
    Fraud,
    /// An attack, a bot, a breach of the terms.
    Abuse,
}

impl LabelKind {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::Fraud => "fraud",
            Self::Abuse => "abuse",
        }
    }
}

/// Many like transactions that were never scored one by one. Applied as one event of weight `count`.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Identifier given by the gateway.
    pub id: String,
    /// One that stands for all; its time is that of the last.
    pub sample: Transaction,
    /// How many, at least 1.
    pub count: u32,
    /// The time of the first.
    pub first: Timestamp,
}

/// What a later report needs of a transaction: the content of a verdict's context token.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The transaction.
    pub transaction_id: String,
    /// Its event time.
    pub event_time: Timestamp,
    /// Who took part.
    pub subjects: Subjects,
    /// Endpoint template; empty without HTTP.
    pub route: String,
    /// Attributes and fields that the schema declares `carried`.
    pub carried: Values,
}
