//! What happened, in the words of this project: transactions, outcomes, labels, aggregates.
//!
//! The wire's types are converted into these at the service's edge and nowhere else. Values that arrive here are already
//! checked: numbers are finite, texts and lists are within [`limits`].

mod outcome;
mod transaction;

pub mod limits;

pub use outcome::{Aggregate, Context, Label, LabelKind, Outcome, Success};
pub use transaction::{Header, HttpRequest, HttpResponse, Identity, Source, Tls, Transaction, Value, Values};
