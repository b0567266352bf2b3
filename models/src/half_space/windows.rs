//! The next profile of an online model: rows of the site's own transactions enter, a profile leaves with each full window.
//!
//! A profile comes into force as a journalled change, so that a replay uses each one from where it was used. A window takes a while, by event
//! time that is handed in, and keeps a uniform sample of its rows. What a rule scored or the models raised an alert on is left out, and no
//! actor gives more than 1 % of the sample: one actor, or a burst, teaches little. Many actors that stay below every alert teach it what
//! they do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use telltale_features::entity::{EntityId, Subjects};
use telltale_features::time::Timestamp;
use telltale_features::vector::FeatureVector;

use super::{Profile, Shape, drawn, file};
use crate::{Bundle, CalibratorOptions};

/// A profile that has just become complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The model.
    pub model: Arc<str>,
    /// Its version.
    pub version: u32,
    /// The profile's bytes.
    pub profile: Arc<[u8]>,
}

/// BLAKE3 of a profile's bytes: 64 hexadecimal digits.
pub fn digest(profile: &[u8]) -> String {
    blake3::hash(profile).to_hex().to_string()
}

/// A row that is kept, and who gave it.
struct Kept {
    row: Vec<f32>,
    actors: Vec<EntityId>,
}

struct Window {
    model: Arc<str>,
    version: u32,
    /// Event time of its first row.
    began: Timestamp,
    /// Rows so far; `kept` is a uniform sample of them.
    seen: u64,
    kept: Vec<Kept>,
    /// How many of the kept rows each actor gave.
    given: HashMap<EntityId, u32>,
}

impl Window {
    fn new(model: &Arc<str>, version: u32, began: Timestamp) -> Self {
        Self { model: Arc::clone(model), version, began, seen: 0, kept: Vec::new(), given: HashMap::new() }
    }

    /// Takes a row: each one while there is room, then by chance in the place of another (reservoir sampling: Vitter, Random Sampling with
    /// a Reservoir, 1985, algorithm R). The chance is a hash of the row's number, so the same rows give the same sample.
    fn take(&mut self, shape: &Shape, row: impl FnOnce() -> Vec<f32>, actors: &[EntityId]) {
        let most = (shape.window / 100).max(1);
        if actors.iter().any(|id| self.given.get(id).is_some_and(|given| *given >= most)) {
            return;
        }
        self.seen += 1;
        let has_room = self.kept.len() < shape.window as usize;
        let place = drawn(shape.seed, u64::from(self.version), self.seen) % self.seen;
        let replaced = usize::try_from(place).ok().filter(|place| !has_room && *place < self.kept.len());
        if !has_room && replaced.is_none() {
            return;
        }
        if let Some(place) = replaced {
            for id in self.kept.swap_remove(place).actors {
                self.give_back(id);
            }
        }
        actors.iter().for_each(|id| *self.given.entry(*id).or_default() += 1);
        self.kept.push(Kept { row: row(), actors: actors.to_vec() });
    }

    fn give_back(&mut self, id: EntityId) {
        if let Some(given) = self.given.get_mut(&id) {
            *given -= 1;
            if *given == 0 {
                self.given.remove(&id);
            }
        }
    }

    /// Whether it has its rows and has lasted that long.
    fn is_full(&self, shape: &Shape, now: Timestamp, least: Duration) -> bool {
        let lasted = u64::try_from(now.micros_since(self.began)).map(Duration::from_micros);
        self.kept.len() >= shape.window as usize && lasted.is_ok_and(|lasted| lasted >= least)
    }

    fn profile(&self, shape: &Shape) -> Option<Arc<[u8]>> {
        let rows: Vec<&[f32]> = self.kept.iter().map(|kept| kept.row.as_slice()).collect();
        Some(file::encode_profile(&Profile::of(shape, &rows).ok()?).into())
    }
}

/// Collects a window for every online model of a bundle.
pub struct Windows {
    options: CalibratorOptions,
    /// How long a window takes at least.
    least: Duration,
    windows: Vec<Window>,
}

impl Windows {
    /// Empty windows, of which each takes at least that long.
    pub const fn new(options: CalibratorOptions, least: Duration) -> Self {
        Self { options, least, windows: Vec::new() }
    }

    /// Offers one transaction's row to every calibrated online model of the bundle, with whom it is of and its event time. Returns the
    /// profiles that this one completed; windows of models that left the bundle are dropped. What a rule scored or the models raised an
    /// alert on must not be offered.
    pub fn offer(&mut self, bundle: &Bundle, vector: &FeatureVector, (subjects, time): (&Subjects, Timestamp)) -> Vec<Renewed> {
        self.windows.retain(|window| bundle.online().any(|(model, version, ..)| **model == *window.model && version == window.version));
        let actors = &self.options.actors;
        let actors: Vec<EntityId> = subjects.iter().map(|subject| subject.id).filter(|id| actors.contains(&id.kind)).collect();
        // Nobody to count it against: an attacker could send any number of these.
        if actors.is_empty() {
            return Vec::new();
        }
        let mut renewed = Vec::new();
        for (model, version, shape, row) in bundle.online() {
            let known = self.windows.iter().position(|window| *window.model == **model && window.version == version);
            let at = known.unwrap_or(self.windows.len());
            if known.is_none() {
                self.windows.push(Window::new(model, version, time));
            }
            let Some(window) = self.windows.get_mut(at) else { continue };
            window.take(shape, || row(vector), &actors);
            if window.is_full(shape, time, self.least) {
                let profile = window.profile(shape);
                renewed.extend(profile.map(|profile| Renewed { model: Arc::clone(model), version, profile }));
                self.windows.swap_remove(at);
            }
        }
        renewed
    }
}

#[cfg(test)]
mod tests {
    use telltale_features::entity::{EntityKey, EntityType};

    use super::*;
    use crate::scale::Scale;

    const ROWS: u32 = 200;

    fn shape() -> Shape {
        Shape { scales: vec![Scale { centre: 0.0, width: 1.0 }], seed: 3, trees: 2, depth: 4, window: ROWS }
    }

    fn actor(number: u32) -> EntityId {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_le_bytes());
        EntityId { kind: EntityType(0), key: EntityKey(key) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn filled(rows: u32) -> Window {
        let mut window = Window::new(&"m".into(), 1, at(0));
        (0..rows).for_each(|number| window.take(&shape(), || vec![number as f32], &[actor(number)]));
        window
    }

    #[test]
    fn a_window_takes_its_time_and_keeps_a_sample_of_all_of_it() {
        let hour = Duration::from_secs(3600);
        assert!(!filled(ROWS - 1).is_full(&shape(), at(9_999), hour), "too few rows");
        let window = filled(20_000);
        assert!(!window.is_full(&shape(), at(3_599), hour) && window.is_full(&shape(), at(3_600), hour), "rows alone do not end it");
        assert!(!window.is_full(&shape(), at(-1), Duration::ZERO), "time went back");
        assert_eq!((window.kept.len(), window.given.len(), window.seen), (200, 200, 20_000), "its memory is bounded");
        // A fifth of the rows is a fifth of the sample: 40, give or take four standard deviations of 5.7.
        for fifth in 0..5_u32 {
            let within = |kept: &&Kept| (kept.row[0] / 4_000.0) as u32 == fifth;
            let count = window.kept.iter().filter(within).count();
            assert!((17..=63).contains(&count), "{count} rows of part {fifth}");
        }
        let rows = |window: &Window| window.kept.iter().map(|kept| kept.row.clone()).collect::<Vec<_>>();
        assert_eq!(rows(&window), rows(&filled(20_000)), "the same rows, the same sample");
        assert!(window.profile(&shape()).is_some());
    }

    #[test]
    fn one_actor_is_no_more_than_a_hundredth_of_the_sample() {
        let mut window = filled(ROWS);
        for _ in 0..50_000 {
            window.take(&shape(), || vec![-1.0], &[actor(u32::MAX)]);
        }
        assert_eq!((window.kept.iter().filter(|kept| kept.row[0] < 0.0).count(), window.kept.len()), (2, 200));
    }
}
