//! The next profile of an online model: rows of the site's own transactions enter, a profile leaves with each full window.
//!
//! A profile comes into force as a journalled change, so that a replay uses each one from where it was used. As with calibration, what a
//! rule scored is left out and no actor gives more than 1 % of a window, so that an attacker cannot teach it.

use std::collections::HashMap;
use std::sync::Arc;

use telltale_features::entity::{EntityId, Subjects};
use telltale_features::vector::FeatureVector;

use super::{Profile, file};
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

struct Window {
    model: Arc<str>,
    version: u32,
    rows: Vec<Vec<f32>>,
    given: HashMap<EntityId, u32>,
}

/// Collects a window for every online model of a bundle.
pub struct Windows {
    options: CalibratorOptions,
    windows: Vec<Window>,
}

impl Windows {
    /// Empty windows.
    pub const fn new(options: CalibratorOptions) -> Self {
        Self { options, windows: Vec::new() }
    }

    /// Offers one transaction's row to every online model of the bundle that scored it; `ruled` says that a rule scored it, which leaves it
    /// out. Returns the profiles that this one completed; windows of models that left the bundle are dropped.
    pub fn offer(&mut self, bundle: &Bundle, vector: &FeatureVector, (subjects, ruled): (&Subjects, bool)) -> Vec<Renewed> {
        self.windows.retain(|window| bundle.online().any(|(model, version, ..)| **model == *window.model && version == window.version));
        let actors = &self.options.actors;
        let actors: Vec<EntityId> = subjects.iter().map(|subject| subject.id).filter(|id| actors.contains(&id.kind)).collect();
        // Nobody to count it against: an attacker could send any number of these.
        if ruled || actors.is_empty() {
            return Vec::new();
        }
        let mut renewed = Vec::new();
        for (model, version, shape, row) in bundle.online() {
            let known = self.windows.iter().position(|window| *window.model == **model && window.version == version);
            let at = known.unwrap_or(self.windows.len());
            if known.is_none() {
                self.windows.push(Window { model: Arc::clone(model), version, rows: Vec::new(), given: HashMap::new() });
            }
            let Some(window) = self.windows.get_mut(at) else { continue };
            let most = (shape.window / 100).max(1);
            if actors.iter().any(|id| window.given.get(id).is_some_and(|given| *given >= most)) {
                continue;
            }
            actors.iter().for_each(|id| *window.given.entry(*id).or_default() += 1);
            window.rows.push(row(vector));
            if window.rows.len() >= shape.window as usize {
                let profile = Profile::of(shape, &window.rows).map(|profile| file::encode_profile(&profile));
                renewed.extend(profile.ok().map(|bytes| Renewed { model: Arc::clone(model), version, profile: bytes.into() }));
                (window.rows, window.given) = (Vec::new(), HashMap::new());
            }
        }
        renewed
    }
}
