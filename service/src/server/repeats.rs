//! Answers to transactions that another scorer has: its action and risk, or, while it is deciding, what this one would say.
//!
//! A transaction scored without being applied enters, a verdict leaves. Nothing is journalled, counted or denied for it here.

use telltale_features::store::Claim;
use telltale_proto::v1;

use super::Service;
use super::memory::Turn;
use super::wire::Sealed;
use crate::claim::Earlier;
use crate::score::Scored;
use crate::{token, verdict};

/// What a verdict lacks that was given for another scorer.
const ELSEWHERE: &str = "a repeated transaction: action and risk are another scorer's, its reasons are not known here";
/// The same while there is nothing to repeat.
const PENDING: &str = "a repeated transaction that another scorer is deciding: nothing was counted here";

impl Service {
    /// Tells the other scorers what was decided about a transaction that is this one's.
    pub(super) fn conclude(&self, scored: &Scored, verdict: &v1::Verdict) {
        // One that nobody answered in time may stand all the same.
        if matches!(scored.history.claim, Claim::Won | Claim::Unasked)
            && let (Some(redis), Some(name)) = (self.engine.store.redis(), self.engine.claim(&scored.admitted))
        {
            let earlier = Earlier { action: verdict.action(), would: verdict.would(), risk: verdict.risk };
            redis.conclude(&name, earlier.encode());
        }
    }

    /// The verdict for a transaction that is another scorer's. An outcome that was told here is applied here: nobody else has it.
    pub(super) async fn repeated(&self, scored: &Scored, turn: Turn, decision: &[u8]) -> Sealed {
        let schema = &self.engine.schema;
        let mut verdict = verdict::verdict(scored, schema);
        let context = schema.context(&scored.admitted, scored.history.event_time);
        verdict.context = token::seal(&self.engine.hasher, &context, schema).into();
        verdict.timings = Some(verdict::timings(&scored.timings));
        match Earlier::decode(decision) {
            Some(earlier) => {
                if earlier.action != verdict.action() {
                    verdict.mitigation = None;
                }
                (verdict.action, verdict.would, verdict.risk) = (earlier.action.into(), earlier.would.into(), earlier.risk);
                verdict.rules.clear();
                verdict.reasons.clear();
                verdict.models.clear();
                verdict.degraded.push(ELSEWHERE.to_owned());
            }
            None => verdict.degraded.push(PENDING.to_owned()),
        }
        self.metrics.duplicates.inc();
        let verdict = Sealed::new(&verdict);
        for outcome in turn.answer(&verdict) {
            if let Err(error) = self.engine.apply_outcome(outcome, &context, self.engine.live()).await {
                tracing::warn!(%error, "an outcome that came before its transaction was refused");
            }
        }
        verdict
    }
}
