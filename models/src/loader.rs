//! From a repository to bundles: versions are loaded once, pass from state to state, and are given parts by their model's policy.
//!
//! Runs on a thread of its own beside the server; scoring sees only finished bundles. Never reads a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::bundle::{Failure, Model};
use crate::calibration::CalibrationTable;
use crate::profile::Profile;
use crate::repository::{Author, FeatureIndex, ModelPolicy, Repository, load};
use crate::slot::{Loaded, Slot, Standing, Trial, share};
use crate::state::State;
use crate::trust::Signer;
use crate::{Bundle, ModelError, RuntimeOptions};

/// A model's policy and what its versions are: enough to put the same in force again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelState {
    /// Which versions play which part.
    pub policy: ModelPolicy,
    /// BLAKE3 of each version's manifest, which holds the digests of all its files.
    pub manifests: BTreeMap<String, String>,
}

impl ModelState {
    /// The canonical JSON, by which it is journalled.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From its JSON.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ModelError> {
        serde_json::from_slice(bytes).map_err(|error| ModelError::Data(format!("no state of a model: {error}")))
    }

    /// BLAKE3 of the canonical JSON: 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        blake3::hash(&self.to_json()).to_hex().to_string()
    }
}

/// Where a version stands in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The model.
    pub model: Arc<str>,
    /// Its version.
    pub version: u32,
    /// Its state.
    pub state: State,
    /// Why it failed; empty otherwise.
    pub reason: String,
    /// Who signed it, as of its last check.
    pub signer: Signer,
}

struct Known {
    state: State,
    reason: String,
    signer: Signer,
    model: Weak<Model>,
    shipped: Option<Arc<CalibrationTable>>,
    profile: Option<Arc<Profile>>,
    bytes: u64,
    /// Whether it is gone from the repository: forgotten once it has left memory.
    removed: bool,
}

/// Loads versions and gives them their parts.
pub struct Loader {
    repository: Repository,
    index: FeatureIndex,
    options: RuntimeOptions,
    known: Mutex<BTreeMap<(Arc<str>, u32), Known>>,
}

impl Loader {
    /// A loader of this repository for a schema's features.
    pub fn new(repository: Repository, index: FeatureIndex, options: RuntimeOptions) -> Self {
        Self { repository, index, options, known: Mutex::new(BTreeMap::new()) }
    }

    /// The repository.
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// How models are run.
    pub const fn options(&self) -> &RuntimeOptions {
        &self.options
    }

    /// The features that a model may name.
    pub const fn index(&self) -> &FeatureIndex {
        &self.index
    }

    /// The bundle that the repository's policies ask for. A champion that fails is listed in [`Bundle::failures`]; its previous version
    /// answers, if there is one, and the other models serve.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the repository itself cannot be listed.
    pub fn bundle(&self) -> Result<Bundle, ModelError> {
        let (mut slots, mut failures) = (Vec::new(), Vec::new());
        for name in self.repository.models()? {
            let name: Arc<str> = Arc::from(name);
            let fail = |error: ModelError| Failure { model: Arc::clone(&name), reason: error.to_string() };
            match self.repository.policy(&name) {
                Ok(policy) => {
                    let (slot, failed) = self.slot(&name, self.present(&name, policy), &Bundle::none());
                    slots.extend(slot);
                    failures.extend(failed.into_iter().find(|(_, part)| *part == State::Champion).map(|(error, _)| fail(error)));
                }
                Err(error) => failures.push(fail(error)),
            }
        }
        let bundle = Bundle::new(slots, failures);
        self.settle(&bundle);
        Ok(bundle)
    }

    /// What the repository says of a model at present.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Invalid`].
    pub fn state(&self, model: &str) -> Result<ModelState, ModelError> {
        self.state_of(model, self.repository.policy(model)?)
    }

    /// A policy of a model with the digests of the versions it names.
    ///
    /// # Errors
    /// [`ModelError::Absent`] or [`ModelError::Io`].
    pub fn state_of(&self, model: &str, policy: ModelPolicy) -> Result<ModelState, ModelError> {
        let digests = policy.versions().into_iter().map(|version| {
            self.repository.must_have(model, version)?;
            Ok((version.to_string(), self.repository.manifest_digest(model, version)?))
        });
        let manifests = digests.collect::<Result<_, ModelError>>()?;
        Ok(ModelState { policy, manifests })
    }

    /// A policy with the digests of those of its versions that are there.
    fn present(&self, model: &str, policy: ModelPolicy) -> ModelState {
        let digest = |version: u32| Some((version.to_string(), self.repository.manifest_digest(model, version).ok()?));
        let manifests = policy.versions().into_iter().filter_map(digest).collect();
        ModelState { policy, manifests }
    }

    /// The bundle with one model in that state. Everything that counts must load, and what is newly put in shadow; the previous version
    /// and those that only go on watching may fail, so that no broken shadow keeps a bad champion in force.
    ///
    /// # Errors
    /// The first reason why a version that should play a part cannot.
    pub fn apply(&self, bundle: &Bundle, model: &str, state: &ModelState) -> Result<Bundle, ModelError> {
        for (version, digest) in &state.manifests {
            let number = version.parse().map_err(|_| ModelError::Data(format!("`{version}` is no version")))?;
            self.repository.must_have(model, number)?;
            let found = self.repository.manifest_digest(model, number)?;
            if found != *digest {
                return Err(ModelError::Data(format!(
                    "`{model}` version {version} has another manifest than the one recorded ({found}, not {digest}); versions never change"
                )));
            }
        }
        let (slot, mut failed) = self.slot(&Arc::from(model), state.clone(), bundle);
        let watching = bundle.policy(model).map_or(&[][..], |policy| &policy.shadow);
        let only_watches = state.policy.shadow.iter().all(|version| watching.contains(version));
        failed.retain(|(_, part)| *part != State::Ready && !(only_watches && *part == State::Shadow));
        match failed.into_iter().next() {
            Some((error, _)) => Err(error),
            None => Ok(bundle.with_slot(model, slot)),
        }
    }

    /// Notes which part every version plays once this bundle is in force, and which have left memory.
    pub fn settle(&self, bundle: &Bundle) {
        let mut parts: BTreeMap<(Arc<str>, u32), State> = BTreeMap::new();
        for slot in bundle.slots() {
            let previous = slot.previous.iter().map(|loaded| (loaded, State::Ready));
            let shadows = slot.shadows.iter().map(|loaded| (loaded, State::Shadow));
            let canary = slot.canary.iter().map(|trial| (&trial.loaded, State::Canary));
            let champion = slot.champion.iter().map(|loaded| (loaded, State::Champion));
            // The last one noted stands: a version that is both previous and in shadow is in shadow.
            for (loaded, state) in previous.chain(shadows).chain(canary).chain(champion) {
                parts.insert((loaded.name.clone(), loaded.version), state);
            }
        }
        let mut known = self.known.lock();
        forget(&mut known);
        for (key, known) in known.iter_mut() {
            let next = match parts.get(key) {
                Some(part) => *part,
                None if known.model.strong_count() > 0 => State::Draining,
                None if matches!(known.state, State::Failed | State::Staged) => continue,
                None => State::Unloaded,
            };
            if next == State::Unloaded {
                known.pass(State::Draining);
            }
            known.pass(next);
        }
    }

    /// Where every version that was ever touched stands.
    pub fn statuses(&self) -> Vec<Status> {
        let mut known = self.known.lock();
        forget(&mut known);
        for known in known.values_mut() {
            if known.state == State::Draining && known.model.strong_count() == 0 {
                known.pass(State::Unloaded);
            }
        }
        let status = |((model, version), known): (&(Arc<str>, u32), &Known)| Status {
            model: Arc::clone(model),
            version: *version,
            state: known.state,
            reason: known.reason.clone(),
            signer: known.signer.clone(),
        };
        known.iter().map(status).collect()
    }

    /// Removes a version that plays no part from the repository, and forgets it once it has left memory.
    ///
    /// # Errors
    /// As [`Repository::remove`].
    pub fn remove(&self, model: &str, version: u32, author: &Author) -> Result<(), ModelError> {
        self.repository.remove(model, version, author)?;
        let mut known = self.known.lock();
        known.get_mut(&(Arc::from(model), version)).into_iter().for_each(|known| known.removed = true);
        forget(&mut known);
        Ok(())
    }

    /// Loads a version to see whether it can be used; what it holds is given back at once. Its files are read again even where it is in
    /// memory. Returns who signed it, which its status says from then on.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn verify(&self, model: &str, version: u32) -> Result<Signer, ModelError> {
        self.repository.must_have(model, version)?;
        let folder = self.repository.version_folder(model, version)?;
        let key = (Arc::from(model), version);
        self.version(&key.0, version)?;
        let signer = load::files(&folder).and_then(|files| load::signer(&folder, (model, &files), &self.index, &self.options));
        if let Some(known) = self.known.lock().get_mut(&key) {
            known.signer = signer.as_ref().ok().cloned().unwrap_or_default();
        }
        signer
    }

    /// The slot of a model: what loads takes its part, what does not is listed with the part that it should have played.
    fn slot(&self, name: &Arc<str>, state: ModelState, before: &Bundle) -> (Option<Slot>, Vec<(ModelError, State)>) {
        let mut failed = Vec::new();
        let policy = &state.policy;
        let mut load = |version: u32, part: State| match self.loaded(name, version, before) {
            Ok(loaded) => Some(loaded),
            Err(error) => {
                tracing::warn!(model = &**name, version, part = part.name(), %error, "a version cannot be used");
                failed.push((error, part));
                None
            }
        };
        let champion = policy.aliases.champion.and_then(|version| load(version, State::Champion));
        let canary = policy.canary.and_then(|canary| {
            let loaded = load(canary.version, State::Canary)?;
            Some(Trial { loaded, below: share(canary.percent) })
        });
        let shadows = policy.shadow.iter().filter_map(|version| load(*version, State::Shadow)).collect();
        let previous = policy.aliases.previous.and_then(|version| load(version, State::Ready));
        let slot = Slot { name: Arc::clone(name), state, champion, previous, canary, shadows };
        let empty = slot.champion.is_none() && slot.previous.is_none() && slot.canary.is_none() && slot.shadows.is_empty();
        ((!empty).then_some(slot), failed)
    }

    fn loaded(&self, name: &Arc<str>, version: u32, before: &Bundle) -> Result<Loaded, ModelError> {
        let (model, shipped) = self.version(name, version)?;
        let site = match before.site_calibration(name, version) {
            Some(table) => Some(table),
            // No signature covers this file: where all of a version must be signed, what it means here comes from the journal alone.
            None if self.options.trust.requires(true) => None,
            None => self.repository.site(name, version)?.map(Arc::new),
        };
        let table = if self.options.shipped_calibration { shipped.or(site) } else { site };
        let standing = table.map_or(Standing::Calibrating { need: self.options.calibration_rows }, Standing::Calibrated);
        let mut loaded = Loaded { name: Arc::clone(name), version, model, standing, renewed: None };
        before.site_profile(name, version).map_or(Ok(()), |profile| loaded.renew(&profile))?;
        Ok(loaded)
    }

    /// A version in memory: the one that is there, or loaded, checked, probed and warmed.
    fn version(&self, name: &Arc<str>, version: u32) -> Result<(Arc<Model>, Option<Arc<CalibrationTable>>), ModelError> {
        let key = (Arc::clone(name), version);
        if let Some(known) = self.known.lock().get(&key)
            && let Some(model) = known.model.upgrade()
        {
            return Ok((model, known.shipped.clone()));
        }
        self.enter(&key, State::Staged, String::new());
        let result = self.build(&key);
        if let Err(error) = &result {
            self.enter(&key, State::Failed, error.to_string());
        }
        result
    }

    fn build(&self, key: &(Arc<str>, u32)) -> Result<(Arc<Model>, Option<Arc<CalibrationTable>>), ModelError> {
        let (name, version) = key;
        let folder = self.repository.version_folder(name, *version)?;
        if !folder.is_dir() {
            return Err(ModelError::Absent {
                what: format!("`{name}` version {version}"),
                repository: self.repository.root().to_path_buf(),
            });
        }
        let files = load::files(&folder)?;
        let signer = load::signer(&folder, (name, &files), &self.index, &self.options)?;
        let inputs = load::inputs(&folder, &files.manifest, &self.index)?;
        let profile = files.profile(&folder)?.map(Arc::new);
        let bytes = files.model_bytes() * (self.options.lanes.max(1) as u64);
        self.fits(name, bytes)?;
        self.enter(key, State::Verified, String::new());
        let model = load::model(&folder, &files, inputs, &self.options)?;
        self.enter(key, State::Probed, String::new());
        load::warm(&model, self.options.lanes).map_err(|problem| ModelError::Data(format!("{}: {problem}", folder.display())))?;
        self.enter(key, State::Warm, String::new());
        let (model, shipped) = (Arc::new(model), files.calibration(&folder)?.map(Arc::new));
        self.enter(key, State::Ready, String::new());
        if let Some(known) = self.known.lock().get_mut(key) {
            (known.model, known.shipped, known.bytes) = (Arc::downgrade(&model), shipped.clone(), bytes);
            (known.signer, known.profile) = (signer, profile);
        }
        Ok((model, shipped))
    }

    /// How the rows of a loaded version's training window were distributed, if it says so.
    pub fn profile(&self, model: &str, version: u32) -> Option<Arc<Profile>> {
        self.known.lock().get(&(Arc::from(model), version))?.profile.clone()
    }

    /// Whether that many more bytes may be held.
    fn fits(&self, name: &str, bytes: u64) -> Result<(), ModelError> {
        let known = self.known.lock();
        let held: u64 = known.values().filter(|known| known.model.strong_count() > 0).map(|known| known.bytes).sum();
        let most = self.options.max_bytes;
        if held.saturating_add(bytes) <= most {
            return Ok(());
        }
        Err(ModelError::Data(format!(
            "model `{name}` needs {bytes} bytes for its sessions, {held} of `models.max_mb` ({most} bytes) are in use: take versions out of shadow, or raise it"
        )))
    }

    fn enter(&self, key: &(Arc<str>, u32), state: State, reason: String) {
        let mut known = self.known.lock();
        let entry = known.entry(key.clone()).or_insert_with(|| Known {
            state: State::Staged,
            reason: String::new(),
            signer: Signer::default(),
            model: Weak::new(),
            shipped: None,
            profile: None,
            bytes: 0,
            removed: false,
        });
        if state == State::Staged && !matches!(entry.state, State::Failed | State::Unloaded) {
            entry.state = State::Staged;
        }
        if matches!(state, State::Staged | State::Failed) {
            entry.signer = Signer::default();
        }
        entry.pass(state);
        entry.reason = reason;
    }
}

/// Forgets what was removed and is in memory no more: what somebody still holds counts for what is in memory.
fn forget(known: &mut BTreeMap<(Arc<str>, u32), Known>) {
    known.retain(|_, known| !known.removed || known.model.strong_count() > 0);
}

impl Known {
    /// Passes to another state, if that is a step that there is.
    fn pass(&mut self, next: State) {
        if self.state != next && self.state.may_become(next) {
            self.state = next;
        }
        if self.state == State::Unloaded {
            (self.model, self.shipped, self.profile) = (Weak::new(), None, None);
        }
    }
}
