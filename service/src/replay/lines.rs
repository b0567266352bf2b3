//! One line into what it says: a record in canonical JSON, or a line of an access log. Pure, so that chunks parse in parallel.

use telltale_features::domain::{Aggregate, Label, Outcome, Transaction};
use telltale_proto::json::{self, Unknown};
use telltale_proto::v1;

use super::access_log;
use crate::convert::{self, Clamps};

/// What the lines of an input are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `telltale.v1.Record` in canonical JSON, one a line.
    #[default]
    Ndjson,
    /// The combined log format of Apache and nginx.
    Combined,
    /// nginx access log with `escape=json`.
    NginxJson,
}

/// What a line says.
#[derive(Clone, Debug)]
pub enum Item {
    /// A transaction.
    Transaction(Box<Transaction>),
    /// What became of one.
    Outcome(Box<Outcome>),
    /// What was found out about one.
    Label(Label),
    /// Many that were never scored.
    Aggregate(Box<Aggregate>),
}

/// A parsed line.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub item: Item,
    /// What was cut.
    pub clamps: Clamps,
    /// Fields that the record does not have.
    pub unknown: usize,
}

/// Parses one line.
pub fn parse(format: Format, strict: bool, number: u64, text: &str) -> Result<Parsed, String> {
    match format {
        Format::Ndjson => record(text, strict),
        Format::Combined => access(access_log::combined(text, number)?),
        Format::NginxJson => access(access_log::nginx_json(text, number)?),
    }
}

fn access(wire: v1::Transaction) -> Result<Parsed, String> {
    let (tx, clamps) = convert::transaction(wire, "transaction").map_err(|error| error.to_string())?;
    Ok(Parsed { item: Item::Transaction(Box::new(tx)), clamps, unknown: 0 })
}

fn record(text: &str, strict: bool) -> Result<Parsed, String> {
    let unknown = if strict { Unknown::Refuse } else { Unknown::Report };
    let (record, ignored): (v1::Record, _) = json::parse(text, unknown).map_err(|error| error.to_string())?;
    let kind = record.kind.ok_or("none of transaction, outcome, label, aggregate; allowed is exactly one")?;
    let (item, clamps) = item(kind).map_err(|error| error.to_string())?;
    Ok(Parsed { item, clamps, unknown: ignored.len() })
}

fn item(kind: v1::record::Kind) -> Result<(Item, Clamps), convert::ConvertError> {
    Ok(match kind {
        v1::record::Kind::Transaction(wire) => {
            let (tx, clamps) = convert::transaction(wire, "transaction")?;
            (Item::Transaction(Box::new(tx)), clamps)
        }
        v1::record::Kind::Outcome(wire) => {
            let (outcome, clamps) = convert::outcome(wire, "outcome")?;
            (Item::Outcome(Box::new(outcome)), clamps)
        }
        v1::record::Kind::Label(wire) => (Item::Label(convert::label(wire, "label")?), Clamps::default()),
        v1::record::Kind::Aggregate(wire) => {
            let (aggregate, clamps) = convert::aggregate(wire, "aggregate")?;
            (Item::Aggregate(Box::new(aggregate)), clamps)
        }
    })
}
