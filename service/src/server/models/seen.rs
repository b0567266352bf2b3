//! What was counted of the versions that are watched: which of them count and what transactions were called enter, counts to judge them by
//! leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use telltale_models::Bundle;

use super::compare::{Comparison, Pair};
use super::guard::Window;
use super::labels::Labels;
use super::probation::Probation;

/// A version of a model.
pub(super) type Version = (Arc<str>, u32);

/// What the thread that watches has seen.
pub(super) struct Seen {
    pub compared: BTreeMap<Version, Comparison>,
    pub windows: BTreeMap<Version, Window>,
    /// What each version made of the latest transactions, until their labels come, and labels that came before.
    pub labels: Labels<Vec<(Version, Pair)>>,
    pub probation: Probation,
    /// Whether any version was to be compared when the models last changed: else no label waits for a score.
    pub watches: bool,
    /// Versions that are being taken back.
    pub leaving: Vec<Version>,
    /// Versions that counted already when this process began: what they did in shadow is not known here.
    pub resumed: BTreeSet<Version>,
    /// Versions that count at present.
    counting: BTreeSet<Version>,
}

impl Seen {
    /// Nothing yet.
    pub fn new(await_labels: usize) -> Self {
        Self {
            compared: BTreeMap::new(),
            windows: BTreeMap::new(),
            labels: Labels::new(await_labels),
            probation: Probation::default(),
            watches: false,
            leaving: Vec::new(),
            resumed: BTreeSet::new(),
            counting: BTreeSet::new(),
        }
    }

    /// Follows which versions count. One that counts from now on is judged by what it does from now on: what it did when it counted the
    /// last time has been judged. Its times stay what others are held against.
    pub fn follow(&mut self, counting: BTreeSet<Version>) {
        self.resumed.retain(|version| counting.contains(version));
        for version in counting.difference(&self.counting) {
            if let Some(window) = self.windows.get_mut(version) {
                window.begin_trial();
            }
            if let Some(comparison) = self.compared.get_mut(version) {
                comparison.begin_trial();
            }
        }
        self.counting = counting;
    }

    /// Counts a label with each version that scored its transaction.
    pub fn label(&mut self, label: &str, pairs: &[(Version, Pair)]) {
        for (version, pair) in pairs {
            if let Some(comparison) = self.compared.get_mut(version) {
                comparison.label(label, *pair);
            }
        }
    }
}

/// Versions whose score counts: champions, and those on trial.
pub(super) fn counting(bundle: &Bundle) -> BTreeSet<Version> {
    let versions = bundle.states().flat_map(|(model, state)| {
        let trial = state.policy.canary.map(|canary| canary.version);
        state.policy.aliases.champion.into_iter().chain(trial).map(move |version| (Arc::from(model), version))
    });
    versions.collect()
}
