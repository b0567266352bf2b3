//! What to do about a transaction, and why.
//!
//! A [`Situation`] enters (the transaction, its vector, what models said, overrides) with the policy state of its subjects; a
//! [`Decision`] leaves, and the changes it made to that state. The policy is rules in YAML, compiled once. Nothing here does I/O,
//! reads a clock, or decides by anything that is not in the situation: the same inputs always give the same decision.
#![cfg_attr(test, allow(clippy::allow_attributes, reason = "the next line"))]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod cases;
mod compile;
mod counterfactual;
mod decide;
mod decision;
mod ensemble;
mod levels;
mod limits;
mod overrides;
mod policy;
mod reasons;
mod risk;
mod row;
mod rule;
mod source;

pub use cases::{CASES, CaseResult, run_cases};
pub use counterfactual::{Counterfactual, Models, Unfinished, copy as state_copy};
pub use decision::{Action, Decision, Mitigation, Mode, NewDenial, Reason, RuleMatch, Threat};
pub use ensemble::{Combination, Ensemble};
pub use levels::standing_levels;
pub use overrides::{Override, Overrides, Ruling};
pub use policy::{PACKS, Policy, RuleSummary, Situation};
pub use risk::Combined;
pub use telltale_models::{Attribution, Calibrated, ModelScore, Role, Scores};

#[cfg(test)]
mod tests;
