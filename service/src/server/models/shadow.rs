//! What only watches: transactions that were answered already enter a bounded queue, comparisons, calibrations and alarms leave.
//!
//! The answer never waits: when the queue is full the transaction is dropped here and counted. Versions in shadow and on trial are scored
//! beside their champion, a champion for a while beside the version before it; one that does harm is taken back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use telltale_features::entity::Subjects;
use telltale_features::store::Store;
use telltale_features::time::Timestamp;
use telltale_features::vector::FeatureVector;
use telltale_models::half_space::Windows;
use telltale_models::{BATCH, Bundle, Calibrator, ModelScore, Rival, Role, Scores};
use telltale_policy::Ensemble;

use super::compare::{Comparison, Pair};
use super::drift::Drift;
use super::guard::differs;
use super::probation::{Reign, newly_promoted};
use super::seen::{Seen, Version, counting};
use super::{change, yield_to_scoring};
use crate::config::Models;
use crate::in_force::InForce;
use crate::score::{Engine, Scored};
use crate::server::Service;

/// Transactions that may wait.
const QUEUE: usize = 1_024;
/// How often an idle thread looks whether the server is still there.
const LOOK: Duration = Duration::from_millis(250);

/// One answered transaction.
struct Watched {
    id: String,
    vector: FeatureVector,
    subjects: Subjects,
    scores: Scores,
    ensemble: Ensemble,
    action: &'static str,
    ruled: bool,
    /// Whether its combined risk raised an alert.
    alerted: bool,
    /// Its event time.
    time: Timestamp,
    score_us: f64,
    force: Arc<InForce>,
    /// Whether versions are to be compared on it, and whether it is counted for drift.
    wanted: (bool, bool),
}

/// What the server keeps of it.
pub struct Shadows {
    queue: SyncSender<Box<Watched>>,
    waiting: Mutex<Option<Receiver<Box<Watched>>>>,
    dropped: AtomicU64,
    /// Whether a new champion is still compared with what was before it.
    on_probation: AtomicBool,
    calibrator: Mutex<Calibrator>,
    /// What online models learn from.
    windows: Mutex<Windows>,
    seen: Mutex<Seen>,
    /// How much longer than its champion's the rows of a version may take, microseconds.
    slower_us: f64,
    /// How far the rows have moved from what the champions learnt.
    pub drift: Drift,
}

impl Shadows {
    /// Ready; nothing runs before [`run`].
    pub fn new<S: Store>(engine: &Engine<S>, config: &Models, drift: Drift) -> Self {
        let window = Duration::from_secs(config.profile_minutes.saturating_mul(60));
        let (queue, waiting) = sync_channel(QUEUE);
        Self {
            queue,
            waiting: Mutex::new(Some(waiting)),
            dropped: AtomicU64::new(0),
            on_probation: AtomicBool::new(false),
            calibrator: Mutex::new(Calibrator::empty(engine.calibrator_options().clone())),
            windows: Mutex::new(Windows::new(engine.calibrator_options().clone(), window)),
            seen: Mutex::new(Seen::new(usize::try_from(config.await_labels).unwrap_or(usize::MAX))),
            slower_us: config.slower_us as f64,
            drift,
        }
    }

    /// Takes note of an answered transaction, if anything watches. Never waits.
    pub fn watch(&self, scored: &Scored) {
        let scores = &scored.assessed.scores;
        let bundle = &scored.force.bundle;
        let compares = bundle.has_rivals() || !scores.absent.is_empty() || self.on_probation.load(Ordering::Relaxed) || bundle.has_online();
        let drifts = self.drift.wants();
        if !compares && !drifts {
            return;
        }
        let watched = Watched {
            id: scored.admitted.tx.id.clone(),
            vector: scored.assessed.vector.clone(),
            subjects: scored.admitted.subjects.clone(),
            scores: scores.clone(),
            ensemble: scored.assessed.combined.ensemble,
            action: scored.decision.action.name(),
            ruled: scored.decision.rules.iter().any(|rule| rule.score > 0.0),
            alerted: scored.assessed.combined.alert,
            time: scored.history.event_time,
            score_us: scored.timings.score_us,
            force: Arc::clone(&scored.force),
            wanted: (compares, drifts),
        };
        if self.queue.try_send(Box::new(watched)).is_err() {
            self.dropped.fetch_add(u64::from(compares), Ordering::Relaxed);
            if drifts {
                self.drift.lost();
            }
        }
    }

    /// What feedback called a transaction; it counts as soon as the versions that watch have scored that too.
    pub fn labelled(&self, id: &str, label: &str, now: Timestamp) {
        let mut seen = self.seen.lock();
        if !seen.watches && seen.compared.is_empty() {
            return;
        }
        if let Some(pairs) = seen.labels.label(id, label, now).cloned() {
            seen.label(label, &pairs);
        }
    }

    /// Labels that were given up before anything had scored their transaction, for want of room.
    pub fn labels_dropped(&self) -> u64 {
        self.seen.lock().labels.dropped()
    }

    /// Follows the bundle that this process begins with; the champions of `new` were put in force a short while before.
    fn begin(&self, bundle: &Bundle, new: &BTreeSet<String>) {
        let is_resumed = |(model, version): &Version| {
            let champion = bundle.policy(model).and_then(|policy| policy.aliases.champion);
            champion != Some(*version) || new.contains(&**model)
        };
        self.seen.lock().resumed = counting(bundle).into_iter().filter(is_resumed).collect();
        self.follow(bundle, |model| new.contains(model));
    }

    /// Follows a bundle that has come into force: comparisons of what left end, new ones begin. `fresh` says of a model that was not known
    /// before whether its champion is new.
    pub fn follow(&self, bundle: &Bundle, fresh: impl Fn(&str) -> bool) {
        self.calibrator.lock().follow(bundle.uncalibrated_rivals());
        let mut seen = self.seen.lock();
        seen.leaving.clear();
        let plays = |(model, version): &Version| bundle.policy(model).is_some_and(|policy| policy.versions().contains(version));
        seen.compared.retain(|version, _| plays(version));
        seen.windows.retain(|version, _| plays(version));
        seen.follow(counting(bundle));
        let reigns = bundle.states().filter_map(|(model, state)| {
            let aliases = &state.policy.aliases;
            Some(Reign { model: Arc::from(model), champion: aliases.champion?, has_previous: aliases.previous.is_some() })
        });
        seen.probation.follow(reigns, fresh);
        seen.watches = bundle.has_rivals() || !seen.probation.is_over();
        self.on_probation.store(!seen.probation.is_over(), Ordering::Relaxed);
    }

    /// The models whose champion is compared with the version before it, for each of some transactions that counts for that.
    fn probation(&self, count: impl Iterator<Item = bool>) -> Vec<Vec<Arc<str>>> {
        let mut seen = self.seen.lock();
        let on = seen.probation.take_each(count);
        self.on_probation.store(!seen.probation.is_over(), Ordering::Relaxed);
        on
    }

    /// How far the calibration of a version in shadow is.
    pub fn progress(&self, model: &str, version: u32) -> Option<(u64, u64)> {
        self.calibrator.lock().progress_of(model, version)
    }

    /// What was counted of a version so far.
    pub fn comparison(&self, model: &str, version: u32) -> Option<Comparison> {
        self.seen.lock().compared.get(&(Arc::from(model), version)).cloned()
    }

    /// A version could not be taken back: the guard may try again.
    pub(super) fn stays(&self, version: &Version) {
        self.seen.lock().leaving.retain(|leaving| leaving != version);
    }

    /// Transactions that were dropped for want of room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Knows the models in force before the first transaction comes: none of them goes uncounted.
pub fn begin(service: &Service) {
    service.models.shadows.begin(&service.engine.in_force().bundle, &newly_promoted(service));
    super::drift::follow(service);
}

/// Works the queue off until the server drains.
pub fn run(service: &Weak<Service>) {
    let Some(queue) = service.upgrade().and_then(|service| service.models.shadows.waiting.lock().take()) else { return };
    yield_to_scoring(5);
    loop {
        let watched = match queue.recv_timeout(LOOK) {
            Ok(watched) => Some(watched),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(service) = service.upgrade() else { return };
        if *service.draining.borrow() {
            return;
        }
        let mut waiting: Vec<Box<Watched>> = watched.into_iter().collect();
        // What waits already comes along; nothing is waited for.
        while !waiting.is_empty() && waiting.len() < BATCH {
            let Ok(watched) = queue.try_recv() else { break };
            waiting.push(watched);
        }
        for together in waiting.chunk_by(|one, other| Arc::ptr_eq(&one.force.bundle, &other.force.bundle)) {
            batch(&service, together);
        }
    }
}

/// Transactions that were answered with the same models: each version scores them in one run.
fn batch(service: &Service, together: &[Box<Watched>]) {
    let Some(first) = together.first() else { return };
    // What was answered with other models says nothing about a new champion.
    let in_force = Arc::ptr_eq(&first.force.bundle, &service.engine.in_force().bundle);
    let probation = service.models.shadows.probation(together.iter().map(|watched| in_force && watched.wanted.0));
    let on_probation = |row: usize, model: &str| probation.get(row).is_some_and(|on| on.iter().any(|other| &**other == model));
    let vectors: Vec<&FeatureVector> = together.iter().map(|watched| &watched.vector).collect();
    let rivals = first.force.bundle.rivals(&vectors, service.watching_lane(), on_probation);
    for (watched, rivals) in together.iter().zip(&rivals) {
        one(service, watched, rivals);
    }
}

fn one(service: &Service, watched: &Watched, rivals: &[Rival]) {
    let shadows = &service.models.shadows;
    let (compares, drifts) = watched.wanted;
    if drifts {
        shadows.drift.one(service, &watched.vector, &watched.scores);
    }
    if !compares {
        return;
    }
    learn(service, watched, rivals);
    let mut alarms = Vec::new();
    {
        let mut seen = shadows.seen.lock();
        // What waited while the models changed says nothing of a trial that began meanwhile.
        let in_force = Arc::ptr_eq(&watched.force.bundle, &service.engine.in_force().bundle);
        if in_force {
            times(&mut seen, watched, &mut alarms);
        }
        let rivals = rivals.iter().filter(|rival| in_force || !rival.role.counts());
        let pairs = compare(service, &mut seen, watched, rivals, &mut alarms);
        if !pairs.is_empty() {
            for label in seen.labels.score(&watched.id, pairs.clone(), service.engine.clock().now()) {
                seen.label(&label, &pairs);
            }
        }
        alarms.retain(|(version, _)| !seen.leaving.contains(version));
        seen.leaving.extend(alarms.iter().map(|(version, _)| version.clone()));
    }
    for (version, why) in alarms {
        change::take_back(service, version, why);
    }
}

/// Lets online models learn, and versions in shadow or on trial what their scores mean on this site.
fn learn(service: &Service, watched: &Watched, rivals: &[Rival]) {
    let parts = rivals.iter().filter(|rival| rival.role != Role::Champion).filter_map(|rival| rival.score.clone().ok()).collect();
    let scores = Scores { parts, ..Scores::default() };
    let finished = service.models.shadows.calibrator.lock().offer(&scores, &watched.subjects, watched.ruled);
    for finished in finished {
        service.engine.calibrated(&finished, service.engine.live());
    }
    // What the site alarms on is not what is ordinary there.
    if watched.ruled || watched.alerted {
        return;
    }
    let renewed = service.models.shadows.windows.lock().offer(&watched.force.bundle, &watched.vector, (&watched.subjects, watched.time));
    for renewed in renewed {
        service.engine.renewed(&renewed, service.engine.live());
    }
}

/// Errors and times of the versions that answered or should have.
fn times(seen: &mut Seen, watched: &Watched, alarms: &mut Vec<(Version, String)>) {
    for absent in &watched.scores.absent {
        let version = (absent.model.clone(), absent.version);
        let window = seen.windows.entry(version.clone()).or_default();
        window.failed(&absent.problem);
        alarms.extend(window.broken().map(|why| (version, why)));
    }
    for part in watched.scores.parts.iter().filter(|part| part.role.counts()) {
        seen.windows.entry((part.model.clone(), part.version)).or_default().answered(watched.score_us);
    }
}

/// Counts each version beside its baseline, and sees whether it may go on.
fn compare<'a>(
    service: &Service,
    seen: &mut Seen,
    watched: &Watched,
    rivals: impl Iterator<Item = &'a Rival>,
    alarms: &mut Vec<(Version, String)>,
) -> Vec<(Version, Pair)> {
    let mut pairs = Vec::new();
    for rival in rivals {
        let version = (rival.model.clone(), rival.version);
        let now = || service.engine.clock().now();
        let comparison = seen.compared.entry(version.clone()).or_insert_with(|| Comparison::begin(rival.baseline, now()));
        if comparison.baseline != rival.baseline {
            *comparison = Comparison::begin(rival.baseline, now());
        }
        comparison.counts(rival.role.counts());
        match (&rival.score, &rival.beside) {
            // A score that means nothing yet would change nothing: it says nothing about the version.
            (Ok(score), _) if !score.is_calibrated() => continue,
            (Ok(score), Some(beside)) => {
                let pair = Pair { baseline: risk(watched, beside), version: risk(watched, score) };
                comparison.add(watched.action, pair, (beside, score));
                pairs.push((version.clone(), pair));
            }
            (Err(problem), _) => {
                comparison.errors += 1;
                comparison.problem.clone_from(problem);
            }
            (Ok(_), None) => {}
        }
        // A version in shadow hurts nobody; it is judged once it counts.
        if rival.role.counts() && comparison.transactions.is_multiple_of(100) {
            let (own, other) = (seen.windows.get(&version), seen.windows.get(&(rival.model.clone(), rival.baseline)));
            let resumed = seen.resumed.contains(&version);
            let slow = own.zip(other).and_then(|(own, other)| own.slower_than(other, service.models.shadows.slower_us));
            alarms.extend(slow.or_else(|| differs(comparison, resumed)).map(|why| (version, why)));
        }
    }
    pairs
}

/// Whether the risk with this score in the place of its model's raises an alert, and its points.
fn risk(watched: &Watched, score: &ModelScore) -> (bool, f64) {
    let mut scores = Scores { parts: watched.scores.parts.clone(), ..Scores::default() };
    match scores.parts.iter_mut().find(|part| part.model == score.model) {
        Some(part) => *part = score.clone(),
        None => scores.parts.push(score.clone()),
    }
    let combined = watched.force.policy.combine(&scores, watched.ensemble);
    (combined.alert, combined.risk)
}
