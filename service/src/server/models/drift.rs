//! How far the rows of this site have moved from what a champion learnt: sampled rows enter, stability indices a feature leave.
//!
//! Runs on the thread of what only watches; the answer path hands over one row in so many and never waits. A version that brought no
//! profile is held against the first rows of this site, which are kept beside its calibrations.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use telltale_features::time::Timestamp;
use telltale_features::vector::{FeatureId, FeatureVector};
use telltale_models::profile::{Bins, Column, Profile, Shift, stability_index};
use telltale_models::{Bundle, Loader, Scores};
use telltale_proto::v1;

use super::loader;
use crate::server::Service;

/// Rows of this site that a version without a profile is held against.
const FIRST_ROWS: usize = 2_000;
/// Numbers that are kept for it, 8 bytes each: with many inputs there are fewer rows.
const MOST_NUMBERS: usize = 1 << 20;
/// Parts of a window; the oldest is left out when a new one begins.
const PARTS: i64 = 6;

/// What the server keeps of it.
pub struct Drift {
    one_in: u64,
    part_us: i64,
    /// Whether there is any champion.
    watches: AtomicBool,
    offered: AtomicU64,
    unseen: AtomicU64,
    /// By model: only champions are watched.
    tracked: Mutex<BTreeMap<Arc<str>, Tracked>>,
}

/// Follows the models in force.
pub fn follow(service: &Service) {
    let (loader, engine) = (loader(service).ok(), &service.engine);
    service.models.shadows.drift.follow(&engine.in_force().bundle, loader.as_deref(), |feature| name(service, feature));
}

/// How the champions stand, or one of them.
pub fn report(service: &Service, model: &str) -> Vec<v1::ModelDrift> {
    service.models.shadows.drift.report(model, service.engine.clock().now(), |feature| name(service, feature))
}

fn name(service: &Service, feature: FeatureId) -> String {
    service.engine.schema.features().get(feature.index()).map(|spec| spec.name.clone()).unwrap_or_default()
}

struct Tracked {
    version: u32,
    features: Vec<FeatureId>,
    reference: Reference,
    parts: VecDeque<Part>,
}

enum Reference {
    /// What the live rows are held against; `site`: the first rows of this site.
    Known { profile: Arc<Profile>, site: bool },
    /// Rows so far, one after the other, and their scores.
    Collecting { names: Vec<String>, numbers: Vec<f64>, raws: Vec<f64> },
}

/// Counts of a part of the window: each input's bins, its missing values, then the bins of the score.
struct Part {
    number: i64,
    rows: u64,
    counts: Vec<u32>,
}

/// A champion's first rows that are to be kept.
pub struct First {
    /// The model.
    pub model: Arc<str>,
    /// Its version.
    pub version: u32,
    /// What they looked like.
    pub profile: Arc<Profile>,
}

impl Drift {
    /// Takes one row in `one_in` and holds the last `minutes` against the reference.
    pub fn new(one_in: u64, minutes: u64) -> Self {
        let part_us = i64::try_from(minutes).unwrap_or(i64::MAX / 60_000_000).saturating_mul(60_000_000) / PARTS;
        let (watches, offered, unseen) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { one_in: one_in.max(1), part_us: part_us.max(1), watches, offered, unseen, tracked: Mutex::default() }
    }

    /// Whether this row is one of those that are taken. Counted, not chosen by the transaction: nobody can see to it that his are not.
    pub fn wants(&self) -> bool {
        self.watches.load(Ordering::Relaxed) && self.offered.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in)
    }

    /// One that was to be taken and had no room.
    pub fn lost(&self) {
        self.unseen.fetch_add(1, Ordering::Relaxed);
    }

    /// Follows a bundle that has come into force: what was counted of a champion that is still one stays.
    pub fn follow(&self, bundle: &Bundle, loader: Option<&Loader>, names: impl Fn(FeatureId) -> String) {
        let mut tracked = self.tracked.lock();
        let mut before = std::mem::take(&mut *tracked);
        for (model, version) in bundle.models() {
            let name: Arc<str> = Arc::from(model);
            if let Some(known) = before.remove(&name).filter(|known| known.version == version) {
                tracked.insert(name, known);
                continue;
            }
            let features = bundle.inputs_of(model);
            let site = || match loader?.repository().site_profile(model, version) {
                Ok(profile) => profile.map(Arc::new),
                Err(error) => {
                    tracing::warn!(model, version, %error, "the first rows of this site are collected again");
                    None
                }
            };
            let shipped = loader.and_then(|loader| loader.profile(model, version));
            let known = shipped.map(|profile| (profile, false)).or_else(|| site().map(|profile| (profile, true)));
            let reference = match known {
                Some((profile, site)) => Reference::Known { profile, site },
                None => {
                    let names = features.iter().map(|feature| names(*feature)).collect();
                    Reference::Collecting { names, numbers: Vec::new(), raws: Vec::new() }
                }
            };
            tracked.insert(name, Tracked { version, features, reference, parts: VecDeque::new() });
        }
        self.watches.store(!tracked.is_empty(), Ordering::Relaxed);
    }

    /// Counts an answered row, and keeps the first rows of this site once they are enough.
    pub fn one(&self, service: &Service, vector: &FeatureVector, scores: &Scores) {
        for First { model, version, profile } in self.add(vector, scores, service.engine.clock().now()) {
            let kept = loader(service).map(|loader| loader.repository().store_site_profile(&model, version, &profile));
            match kept {
                Ok(Ok(kept)) if kept != *profile => self.refer(&model, version, kept),
                Ok(Err(error)) => {
                    tracing::warn!(model = &*model, version, %error, "the first rows of this site are known only until a restart");
                }
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }

    /// Another instance was first: what it kept is the reference here too.
    fn refer(&self, model: &str, version: u32, kept: Profile) {
        if let Some(tracked) = self.tracked.lock().get_mut(model).filter(|tracked| tracked.version == version) {
            tracked.reference = Reference::Known { profile: Arc::new(kept), site: true };
            tracked.parts.clear();
        }
    }

    /// Counts a row. Returns what became complete with it.
    pub fn add(&self, vector: &FeatureVector, scores: &Scores, now: Timestamp) -> Vec<First> {
        let mut first = Vec::new();
        for (model, tracked) in self.tracked.lock().iter_mut() {
            let part = scores.parts.iter().find(|part| part.model == *model && part.version == tracked.version);
            // Without a score it is another version's row.
            let Some(part) = part else { continue };
            let profile = tracked.add(vector, part.raw, now.micros() / self.part_us);
            first.extend(profile.map(|profile| First { model: Arc::clone(model), version: tracked.version, profile }));
        }
        first
    }

    /// How each champion stands, or one of them; the features of each by their index, the largest first.
    pub fn report(&self, model: &str, now: Timestamp, names: impl Fn(FeatureId) -> String) -> Vec<v1::ModelDrift> {
        let tracked = self.tracked.lock();
        let asked = tracked.iter().filter(|(name, _)| model.is_empty() || &***name == model);
        let minutes = u32::try_from(self.part_us.saturating_mul(PARTS) / 60_000_000).unwrap_or(u32::MAX);
        asked
            .map(|(name, tracked)| v1::ModelDrift {
                model: name.to_string(),
                window_minutes: minutes,
                one_in: self.one_in,
                unseen: self.unseen.load(Ordering::Relaxed),
                ..tracked.report(now.micros() / self.part_us, &names)
            })
            .collect()
    }
}

impl Tracked {
    fn add(&mut self, vector: &FeatureVector, raw: f64, number: i64) -> Option<Arc<Profile>> {
        let values = self.features.iter().map(|feature| vector.get(*feature));
        match &mut self.reference {
            Reference::Collecting { names, numbers, raws } => {
                numbers.extend(values);
                raws.push(raw);
                let enough = FIRST_ROWS.min(MOST_NUMBERS / names.len().max(1));
                if raws.len() < enough {
                    return None;
                }
                let profile = Arc::new(profile_of(names, numbers, raws));
                self.reference = Reference::Known { profile: Arc::clone(&profile), site: true };
                Some(profile)
            }
            Reference::Known { profile, .. } => {
                let width = profile.inputs.iter().map(|column| column.counts().count()).sum::<usize>() + profile.score.counts().len();
                // Times of transactions are clamped and may step back a little; an older part than the newest is not begun again.
                if self.parts.back().is_none_or(|part| part.number < number) {
                    self.parts.push_back(Part { number, rows: 0, counts: vec![0; width] });
                    self.parts.retain(|part| part.number > number - PARTS);
                }
                if let Some(part) = self.parts.back_mut() {
                    part.add(profile, values, raw);
                }
                None
            }
        }
    }

    fn report(&self, number: i64, names: impl Fn(FeatureId) -> String) -> v1::ModelDrift {
        let base = v1::ModelDrift { version: self.version, ..Default::default() };
        let (profile, site) = match &self.reference {
            Reference::Known { profile, site } => (profile, *site),
            Reference::Collecting { raws, .. } => {
                let reference = "none yet: the first rows of this site are collected".to_owned();
                return v1::ModelDrift { reference, reference_rows: raws.len() as u64, word: Shift::TooFew.name().to_owned(), ..base };
            }
        };
        let parts = self.parts.iter().filter(|part| part.number > number - PARTS);
        let (mut rows, mut counts) = (0, Vec::new());
        for part in parts {
            rows += part.rows;
            counts.resize(part.counts.len(), 0_u64);
            counts.iter_mut().zip(&part.counts).for_each(|(sum, count)| *sum += u64::from(*count));
        }
        let mut counts = counts.into_iter();
        let least = rows.min(profile.rows);
        let mut features: Vec<v1::FeatureDrift> = Vec::with_capacity(profile.inputs.len());
        for (column, feature) in profile.inputs.iter().zip(&self.features) {
            let now: Vec<u64> = counts.by_ref().take(column.counts().count()).collect();
            let index = index(column.counts(), &now);
            let share = |missing: u64, rows: u64| missing as f64 / rows.max(1) as f64;
            features.push(v1::FeatureDrift {
                feature: names(*feature),
                stability_index: index,
                missing_then: share(column.missing, profile.rows),
                missing_now: share(now.last().copied().unwrap_or_default(), rows),
                word: Shift::of(index, least).name().to_owned(),
            });
        }
        features.sort_by(|one, other| other.stability_index.total_cmp(&one.stability_index));
        let now: Vec<u64> = counts.collect();
        let score = index(profile.score.counts().iter().copied(), &now);
        // Scores were kept of fewer rows than the features: only of those that the model did not learn.
        let scored = now.iter().sum::<u64>().min(profile.score.rows());
        v1::ModelDrift {
            reference: if site { "the first rows of this site" } else { "the training window" }.to_owned(),
            reference_rows: profile.rows,
            rows,
            score_stability_index: score,
            word: Shift::of(score, scored).name().to_owned(),
            features,
            ..base
        }
    }
}

impl Part {
    fn add(&mut self, profile: &Profile, values: impl Iterator<Item = f64>, raw: f64) {
        self.rows += 1;
        let mut begin = 0;
        for (column, value) in profile.inputs.iter().zip(values) {
            self.count(begin + column.place(value));
            begin += column.bins.counts().len() + 1;
        }
        self.count(begin + profile.score.place(raw));
    }

    fn count(&mut self, place: usize) {
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
    }
}

/// Nothing counted is no shift.
fn index(then: impl Iterator<Item = u64> + Clone, now: &[u64]) -> f64 {
    if now.iter().all(|count| *count == 0) { 0.0 } else { stability_index(then, now.iter().copied()) }
}

fn profile_of(names: &[String], numbers: &[f64], raws: &[f64]) -> Profile {
    let column = |(at, name): (usize, &String)| Column::of(name, numbers.iter().copied().skip(at).step_by(names.len().max(1)));
    let inputs = names.iter().enumerate().map(column).collect();
    Profile { rows: raws.len() as u64, inputs, score: Bins::of(raws.iter().copied()) }
}

#[cfg(test)]
mod tests;
