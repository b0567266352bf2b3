//! New champions are compared with the version before them for a while: which model still is, and for how many transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use telltale_models::repository::{AuditLine, Step};

use crate::server::Service;

/// Transactions for which a new champion is compared with the version before it.
const TRANSACTIONS: u64 = 20_000;
/// A champion that was promoted longer ago than this is not new at a restart, microseconds.
const NEW_US: i64 = 3_600_000_000;

/// A model as a bundle has it.
#[derive(Clone, Debug)]
pub struct Reign {
    /// The model.
    pub model: Arc<str>,
    /// Its champion.
    pub champion: u32,
    /// Whether there is a version before it to come back to.
    pub has_previous: bool,
}

/// Champions and how long each is still watched.
#[derive(Debug, Default)]
pub struct Probation(BTreeMap<Arc<str>, (u32, u64)>);

impl Probation {
    /// Follows a bundle: a champion that stays keeps what is left of its probation, another one begins anew. `fresh` says of a model that
    /// was not known before whether its champion is new.
    pub fn follow(&mut self, reigns: impl Iterator<Item = Reign>, fresh: impl Fn(&str) -> bool) {
        let before = std::mem::take(&mut self.0);
        for Reign { model, champion, has_previous } in reigns {
            let left = match before.get(&model) {
                _ if !has_previous => 0,
                Some((known, left)) if *known == champion => *left,
                Some(_) => TRANSACTIONS,
                None if fresh(&model) => TRANSACTIONS,
                None => 0,
            };
            self.0.insert(model, (champion, left));
        }
    }

    /// The models of which this transaction is compared; it is taken off what is left of each.
    pub fn take(&mut self) -> Vec<Arc<str>> {
        let on = self.0.iter_mut().filter(|(_, (_, left))| *left > 0);
        on.map(|(model, (_, left))| {
            *left -= 1;
            Arc::clone(model)
        })
        .collect()
    }

    /// The same of transactions that were answered together; what does not count is not taken off.
    pub fn take_each(&mut self, count: impl Iterator<Item = bool>) -> Vec<Vec<Arc<str>>> {
        count.map(|counts| if counts { self.take() } else { Vec::new() }).collect()
    }

    /// Whether any champion is watched.
    pub fn is_over(&self) -> bool {
        self.0.values().all(|(_, left)| *left == 0)
    }
}

/// Models whose champion was put in force a short while before this start.
pub fn newly_promoted(service: &Service) -> BTreeSet<String> {
    let Ok(loader) = super::loader(service) else { return BTreeSet::new() };
    let audit = loader.repository().audit().inspect_err(|error| tracing::warn!(%error, "the repository's audit cannot be read"));
    let now = service.engine.clock().now().micros();
    let promoted = |line: &AuditLine| line.what == Step::Promote(0).name() && now - line.time_us < NEW_US;
    audit.unwrap_or_default().into_iter().filter(promoted).map(|line| line.model).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reign(champion: u32, has_previous: bool) -> impl Iterator<Item = Reign> {
        std::iter::once(Reign { model: "m".into(), champion, has_previous })
    }

    fn left(probation: &Probation) -> u64 {
        probation.0.get("m").map_or(0, |(_, left)| *left)
    }

    #[test]
    fn it_begins_with_a_new_champion_and_goes_on_through_every_other_change() {
        let mut probation = Probation::default();
        probation.follow(reign(1, false), |_| true);
        assert!(probation.is_over() && probation.take().is_empty());
        probation.follow(reign(2, true), |_| false);
        assert_eq!(left(&probation), TRANSACTIONS);
        assert_eq!(probation.take(), [Arc::<str>::from("m")]);
        let each = probation.take_each([false, true, false].into_iter());
        assert_eq!(each.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0], "what is not compared takes nothing off");
        // A shadow, another model, a change of a canary: the champion stays the same.
        probation.follow(reign(2, true), |_| true);
        assert_eq!(left(&probation), TRANSACTIONS - 2);
        for _ in 2..TRANSACTIONS {
            probation.take();
        }
        probation.follow(reign(2, true), |_| true);
        assert!(probation.is_over(), "it ends");
        probation.follow(reign(3, true), |_| false);
        assert_eq!(left(&probation), TRANSACTIONS);
        probation.follow(reign(2, false), |_| false);
        assert!(probation.is_over(), "there is nothing to come back to");
    }

    #[test]
    fn a_restart_watches_only_a_champion_that_is_new() {
        let mut probation = Probation::default();
        probation.follow(reign(2, true), |_| false);
        assert!(probation.is_over());
        let mut probation = Probation::default();
        probation.follow(reign(2, true), |_| true);
        assert_eq!(left(&probation), TRANSACTIONS);
    }
}
