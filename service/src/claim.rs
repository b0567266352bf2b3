//! Transactions that several scorers may be given (`idempotency = "strict"`): one of them applies it, the others answer with what it
//! decided.
//!
//! An admitted transaction enters, the name of its claim leaves; a decision enters, the bytes that stand under that name leave, and
//! back. Nothing here asks the store: the claim is made where the history is read.

use telltale_features::door::Admitted;
use telltale_features::store::{Claim, Moment, Order, Store};
use telltale_proto::v1;

use crate::idempotency::shared_digest;
use crate::in_force::InForce;
use crate::score::{Assessed, Engine, Ruled, Scored, Told};

/// What another scorer decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Earlier {
    /// The action.
    pub action: v1::Action,
    /// The action were every rule in force.
    pub would: v1::Action,
    /// The risk.
    pub risk: f64,
}

impl Earlier {
    /// As it stands in the store.
    pub fn encode(&self) -> Vec<u8> {
        format!("{} {} {}", self.action as i32, self.would as i32, self.risk).into_bytes()
    }

    /// What stands in the store; `None` while it is being decided, and for what this version cannot read.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        let mut action = || v1::Action::try_from(words.next()?.parse::<i32>().ok()?).ok();
        let (action, would) = (action()?, action()?);
        Some(Self { action, would, risk: words.next()?.parse().ok().filter(|risk: &f64| risk.is_finite())? })
    }
}

impl<S: Store> Engine<S> {
    /// The name under which scorers claim a transaction from each other, where they do: its identifier and content, as a keyed hash.
    pub fn claim(&self, admitted: &Admitted) -> Option<String> {
        let digest = || shared_digest(admitted, self.schema.entity_type("user"));
        let name = || self.hasher.entity("claim", &format!("{:016x} {}", digest(), admitted.tx.id));
        self.store.has_claims().then(|| format!("{:?}", name()))
    }

    /// Decides about a transaction that is another scorer's: as [`Engine::decide`] does, without changing anything.
    pub async fn consider(&self, force: &InForce, told: Told<'_>, assessed: &Assessed, at: Moment) -> Ruled {
        let ruling = self.ruling(force, told, (assessed, self.has_hints()));
        let without_trace = |state: &mut _, moment| {
            let decided = ruling(state, moment);
            state.changes.clear();
            decided
        };
        self.store.decide(&told.0.subjects, Order::Recorded(at), without_trace).await
    }
}

impl Scored {
    /// Whether it is another scorer's, and nothing was applied here.
    pub const fn is_elsewhere(&self) -> bool {
        matches!(self.history.claim, Claim::Lost(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_back_as_they_were_written() {
        let one = Earlier { action: v1::Action::Block, would: v1::Action::Block, risk: 0.1 + 0.2 };
        assert_eq!(Earlier::decode(&one.encode()), Some(one));
        for other in [&b""[..], b"99 0 0.5", b"1 1", b"1 1 NaN", b"\xff", b"1 one 0.5"] {
            assert_eq!(Earlier::decode(other), None);
        }
    }
}
