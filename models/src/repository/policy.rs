//! `policy.toml` of a model: which versions play which part. Text enters, checked values leave; every change is a pure function.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Most versions in shadow at once: each costs a session of its own.
const MAX_SHADOWS: usize = 4;

/// `policy.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPolicy {
    /// Number of changes so far.
    #[serde(default)]
    pub revision: u64,
    /// What answers when the champion gives no score.
    #[serde(default)]
    pub fallback: Fallback,
    /// Versions that score beside the others and count for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<u32>,
    /// Names for versions.
    #[serde(default)]
    pub aliases: Aliases,
    /// The version on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// Names for versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aliases {
    /// Version in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<u32>,
    /// Version that is to be compared with it: the latest put in shadow or on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger: Option<u32>,
    /// Version that was in force before; kept warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u32>,
}

/// A version that counts for some of the entities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Which version.
    pub version: u32,
    /// Share of the entities, more than 0, at most 100 percent.
    pub percent: f64,
}

/// What answers when the champion gives no score; after it the other models and the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// The version that was in force before.
    #[default]
    Previous,
    /// Nothing of this model.
    None,
}

/// One change of a model's policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Puts a version in force.
    Promote(u32),
    /// Takes the last step back: ends the trial, puts the previous version in force.
    Rollback,
    /// Puts a version on trial for that share of the entities; 0 ends the trial.
    Canary(u32, f64),
    /// Lets a version score beside the others, or no longer.
    Shadow(u32, bool),
}

impl Step {
    /// Its name, for the audit.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote(_) => "promote",
            Self::Rollback => "rollback",
            Self::Canary(..) => "canary",
            Self::Shadow(..) => "shadow",
        }
    }

    /// Whether it only ends what a version was allowed to do.
    pub fn takes_back(self) -> bool {
        match self {
            Self::Rollback | Self::Shadow(_, false) => true,
            Self::Canary(_, percent) => percent == 0.0,
            Self::Promote(_) | Self::Shadow(_, true) => false,
        }
    }

    /// The version that it names.
    pub const fn version(self) -> Option<u32> {
        match self {
            Self::Promote(version) | Self::Canary(version, _) | Self::Shadow(version, _) => Some(version),
            Self::Rollback => None,
        }
    }
}

impl ModelPolicy {
    /// Reads a model's policy.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Invalid`].
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(ModelError::io("read", path))?;
        Self::parse(path, &text)
    }

    /// Checks the text of a policy, which was read there.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] with what is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ModelError> {
        let policy: Self = toml::from_str(text).map_err(|error| ModelError::invalid(path, error.to_string()))?;
        policy.check().map_err(|problem| ModelError::invalid(path, problem))?;
        Ok(policy)
    }

    /// As it is stored.
    ///
    /// # Errors
    /// [`ModelError::Data`] when a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, ModelError> {
        toml::to_string(self).map_err(|error| ModelError::Data(format!("policy.toml cannot be written: {error}")))
    }

    /// The policy after one step, one revision later.
    ///
    /// # Errors
    /// Why the step cannot be taken, in words.
    pub fn after(&self, step: Step) -> Result<Self, String> {
        let mut next = Self { revision: self.revision.saturating_add(1), ..self.clone() };
        match step {
            Step::Promote(version) => {
                let before = next.aliases.champion.replace(version);
                next.aliases.previous = before.filter(|champion| *champion != version).or(next.aliases.previous);
                next.leave(version);
            }
            Step::Rollback => {
                let ended = next.canary.take();
                match (next.aliases.previous.take(), ended) {
                    (Some(previous), _) => {
                        next.aliases.champion = Some(previous);
                        next.leave(previous);
                    }
                    (None, Some(_)) => {}
                    (None, None) => return Err("there is nothing to take back: no previous version and no canary".to_owned()),
                }
                next.aliases.challenger = None;
            }
            Step::Canary(_, 0.0) => next.canary = None,
            Step::Canary(version, percent) => {
                next.leave(version);
                next.canary = Some(Canary { version, percent });
                next.aliases.challenger = Some(version);
            }
            Step::Shadow(version, true) => {
                next.leave(version);
                next.shadow.push(version);
                next.shadow.sort_unstable();
                next.aliases.challenger = Some(version);
            }
            Step::Shadow(version, false) => next.leave(version),
        }
        next.check()?;
        Ok(next)
    }

    /// Every version that it names, rising.
    pub fn versions(&self) -> Vec<u32> {
        let Aliases { champion, challenger, previous } = self.aliases;
        let named = [champion, challenger, previous, self.canary.map(|canary| canary.version)];
        let mut versions: Vec<u32> = named.into_iter().flatten().chain(self.shadow.iter().copied()).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Takes a version out of shadow and off trial.
    fn leave(&mut self, version: u32) {
        self.shadow.retain(|shadow| *shadow != version);
        self.canary = self.canary.filter(|canary| canary.version != version);
        self.aliases.challenger = self.aliases.challenger.filter(|challenger| *challenger != version);
    }

    fn check(&self) -> Result<(), String> {
        if self.shadow.len() > MAX_SHADOWS {
            return Err(format!("{} versions in shadow, allowed are {MAX_SHADOWS}: take one out first", self.shadow.len()));
        }
        if let Some(canary) = self.canary
            && !(canary.percent > 0.0 && canary.percent <= 100.0)
        {
            return Err(format!("canary: `percent` is {}, allowed is more than 0 and at most 100", canary.percent));
        }
        let champion = self.aliases.champion;
        let doubled = |version: u32| champion == Some(version) || self.canary.is_some_and(|canary| canary.version == version);
        if let Some(version) = self.shadow.iter().find(|version| doubled(**version)) {
            return Err(format!("version {version} is in shadow and in force or on trial; allowed is one part a version"));
        }
        if self.canary.is_some_and(|canary| champion == Some(canary.version)) {
            return Err("the champion cannot be on trial against itself; allowed is another version".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> ModelPolicy {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn steps_and_what_they_make() {
        let start = policy("[aliases]\nchampion = 1");
        let shadowed = start.after(Step::Shadow(2, true)).unwrap();
        assert_eq!((shadowed.shadow.clone(), shadowed.aliases.challenger, shadowed.revision), (vec![2], Some(2), 1));
        let trial = shadowed.after(Step::Canary(2, 5.0)).unwrap();
        assert_eq!((trial.shadow.len(), trial.canary), (0, Some(Canary { version: 2, percent: 5.0 })));
        let promoted = trial.after(Step::Promote(2)).unwrap();
        let both = Aliases { champion: Some(2), challenger: None, previous: Some(1) };
        assert_eq!((promoted.aliases.clone(), promoted.canary, promoted.revision), (both, None, 3));
        let back = promoted.after(Step::Rollback).unwrap();
        assert_eq!(back.aliases, Aliases { champion: Some(1), challenger: None, previous: None });
        assert!(back.after(Step::Rollback).unwrap_err().contains("nothing to take back"));
        // The version before may be watched meanwhile: it comes back all the same.
        let watched = promoted.after(Step::Shadow(1, true)).unwrap().after(Step::Rollback).unwrap();
        assert_eq!((watched.aliases.champion, watched.shadow.len()), (Some(1), 0));
        // A trial is taken back without touching the champion.
        let ended = start.after(Step::Canary(3, 50.0)).unwrap().after(Step::Rollback).unwrap();
        assert_eq!((ended.aliases.champion, ended.canary), (Some(1), None));
        // Promoting the champion again keeps what was before it.
        assert_eq!(promoted.after(Step::Promote(2)).unwrap().aliases.previous, Some(1));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_allowed() {
        let start = policy("[aliases]\nchampion = 1");
        assert!(start.after(Step::Canary(2, 101.0)).unwrap_err().contains("at most 100"));
        assert!(start.after(Step::Canary(2, f64::NAN)).unwrap_err().contains("at most 100"));
        assert!(start.after(Step::Canary(1, 5.0)).unwrap_err().contains("against itself"));
        assert!(start.after(Step::Shadow(1, true)).unwrap_err().contains("one part a version"));
        let mut full = start;
        for version in 2..6 {
            full = full.after(Step::Shadow(version, true)).unwrap();
        }
        assert!(full.after(Step::Shadow(6, true)).unwrap_err().contains("allowed are 4"));
        assert_eq!(full.versions(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn it_comes_back_as_written() {
        let trial = policy("[aliases]\nchampion = 1").after(Step::Shadow(3, true)).unwrap().after(Step::Canary(2, 2.5)).unwrap();
        assert_eq!(policy(&trial.to_toml().unwrap()), trial);
        assert!(toml::from_str::<ModelPolicy>("champion = 1").is_err());
    }
}
