//! What changes a repository: new versions, aliases, calibrations of this site. Each is written aside, flushed and renamed into place,
//! so that a killed process leaves either the old state or the new one, whole.

use std::fs::{self, File};
use std::path::Path;

use telltale_features::file::{self, Readers};

use super::audit::{AuditLine, Author};
use super::manifest::{CALIBRATION, GOLDEN, Manifest, PROFILE, REPORT};
use super::policy::{ModelPolicy, Step};
use super::{RAW, Repository};
use crate::ModelError;
use crate::calibration::CalibrationTable;
use crate::profile::Profile;
use crate::table::{self, Column};
use crate::trust::{SIGNATURE, Signature, SigningKey, Signs};

/// Rows with the score that the model gives them.
#[derive(Clone, Debug, Default)]
pub struct GoldenRows {
    /// One column an input, in the manifest's order; NaN where missing.
    pub inputs: Vec<Vec<f64>>,
    /// Raw scores.
    pub raw: Vec<f64>,
}

/// A version before it is published.
pub struct Draft {
    /// Its manifest; the file digests are filled in when it is published.
    pub manifest: Manifest,
    /// The model's bytes.
    pub model: Vec<u8>,
    /// Calibration on held-out rows.
    pub calibration: Option<CalibrationTable>,
    /// Golden rows.
    pub golden: GoldenRows,
    /// The report as JSON.
    pub report: String,
    /// How the rows that it learnt were distributed.
    pub profile: Option<Profile>,
    /// The signature that its file came with.
    pub signature: Option<Signature>,
}

/// File that keeps the highest version number ever given.
const HIGHEST: &str = ".highest";
/// Folder with a file a removed version: the digest of its manifest.
const REMOVED: &str = ".removed";

impl Repository {
    /// Makes an empty repository, or opens the one that is there.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn create(root: impl AsRef<Path>) -> Result<Self, ModelError> {
        let root = root.as_ref();
        fs::create_dir_all(root).map_err(ModelError::io("create", root))?;
        Self::open(root)
    }

    /// Adds a version under the next free number, which is returned. It serves only once promoted.
    ///
    /// # Errors
    /// [`ModelError::Name`], [`ModelError::Io`] or [`ModelError::Data`].
    pub fn publish(&self, model: &str, draft: Draft) -> Result<u32, ModelError> {
        let folder = self.folder(model)?;
        let versions = folder.join("versions");
        fs::create_dir_all(&versions).map_err(ModelError::io("create", &versions))?;
        let _alone = self.alone(model)?;
        let staging = folder.join(".staging");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(ModelError::io("clear", &staging))?;
        }
        fs::create_dir_all(&staging).map_err(ModelError::io("create", &staging))?;
        stage(&staging, draft)?;
        sync(&staging)?;
        // Before the version: of a version without a policy nobody could make anything, should this end in between.
        let policy = folder.join("policy.toml");
        if !policy.exists() {
            store(&policy, ModelPolicy::default().to_toml()?.as_bytes())?;
        }
        // A version that came from elsewhere may have the greatest number that there is.
        let number =
            self.highest(model)?.checked_add(1).ok_or_else(|| ModelError::Data(format!("`{model}` has no free version number")))?;
        self.keep_highest(model, number)?;
        let place = versions.join(number.to_string());
        fs::rename(&staging, &place).map_err(ModelError::io("rename into place", &place))?;
        sync(&versions)?;
        Ok(number)
    }

    /// The highest number that a version of the model ever had: a removed one's is not given again, because calibrations, journals and
    /// audits go on naming it.
    fn highest(&self, model: &str) -> Result<u32, ModelError> {
        let path = self.folder(model)?.join(HIGHEST);
        let kept = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| ModelError::invalid(&path, "allowed is the highest version number"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(ModelError::io("read", &path)(error)),
        };
        Ok(self.versions(model)?.last().copied().unwrap_or(0).max(kept))
    }

    fn keep_highest(&self, model: &str, number: u32) -> Result<(), ModelError> {
        store(&self.folder(model)?.join(HIGHEST), format!("{number}\n").as_bytes())
    }

    /// Digest of the manifest that a removed version had; nothing when none of that number was removed.
    pub(super) fn removed(&self, model: &str, version: u32) -> Result<Option<String>, ModelError> {
        let path = self.folder(model)?.join(REMOVED).join(version.to_string());
        match fs::read_to_string(&path) {
            Ok(digest) => Ok(Some(digest.trim().to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ModelError::io("read", &path)(error)),
        }
    }

    fn keep_removed(&self, model: &str, version: u32) -> Result<(), ModelError> {
        let folder = self.folder(model)?.join(REMOVED);
        fs::create_dir_all(&folder).map_err(ModelError::io("create", &folder))?;
        store(&folder.join(version.to_string()), format!("{}\n", self.manifest_digest(model, version)?).as_bytes())
    }

    /// Numbers of a model's versions, rising.
    ///
    /// # Errors
    /// [`ModelError::Name`] or [`ModelError::Io`].
    pub fn versions(&self, model: &str) -> Result<Vec<u32>, ModelError> {
        let folder = self.folder(model)?.join("versions");
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&folder).map_err(ModelError::io("list", &folder))? {
            let entry = entry.map_err(ModelError::io("list", &folder))?;
            numbers.extend(entry.file_name().to_string_lossy().parse::<u32>().ok());
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The latest version that has exactly this model file.
    pub fn holding(&self, model: &str, bytes: &[u8]) -> Option<u32> {
        let digest = blake3::hash(bytes).to_hex();
        let holds = |manifest: Manifest| manifest.files.get(manifest.kind.file()).is_some_and(|known| known == digest.as_str());
        self.versions(model).ok()?.into_iter().rev().find(|version| self.manifest(model, *version).is_ok_and(holds))
    }

    /// Puts a version in force; the one before it becomes `previous`. Takes effect when the repository is loaded again.
    ///
    /// # Errors
    /// [`ModelError::Absent`] when there is no such version, else [`ModelError::Io`].
    pub fn promote(&self, model: &str, version: u32) -> Result<(), ModelError> {
        self.change(model, |policy| policy.after(Step::Promote(version))).map(|_| ())
    }

    /// Replaces a model's policy by what `change` makes of it: alone, atomically, durably.
    ///
    /// # Errors
    /// [`ModelError::Data`] with what `change` says, [`ModelError::Absent`] for versions that are not there, or [`ModelError::Io`].
    pub fn change(&self, model: &str, change: impl FnOnce(&ModelPolicy) -> Result<ModelPolicy, String>) -> Result<ModelPolicy, ModelError> {
        let _alone = self.alone(model)?;
        let path = self.folder(model)?.join("policy.toml");
        let before = if path.exists() { ModelPolicy::read(&path)? } else { ModelPolicy::default() };
        let after = change(&before).map_err(|problem| ModelError::Data(format!("model `{model}`: {problem}")))?;
        for version in after.versions().into_iter().filter(|version| !before.versions().contains(version)) {
            self.must_have(model, version)?;
        }
        store(&path, after.to_toml()?.as_bytes())?;
        Ok(after)
    }

    /// One step of a model's policy, with its line in the audit.
    ///
    /// # Errors
    /// As [`Repository::change`].
    pub fn step(&self, model: &str, step: Step, author: &Author) -> Result<ModelPolicy, ModelError> {
        let after = self.change(model, |policy| policy.after(step))?;
        let line = AuditLine { policy: Some(after.clone()), ..AuditLine::new(author, step.name(), model, step.version()) };
        self.record(&line)?;
        Ok(after)
    }

    /// Deletes a version that plays no part.
    ///
    /// # Errors
    /// [`ModelError::Data`] when it plays one, [`ModelError::Absent`] when it is not there, or [`ModelError::Io`].
    pub fn remove(&self, model: &str, version: u32, author: &Author) -> Result<(), ModelError> {
        self.must_have(model, version)?;
        let _alone = self.alone(model)?;
        if self.policy(model)?.versions().contains(&version) {
            let text = format!("`{model}` version {version} plays a part; promote another, or end its canary or shadow first");
            return Err(ModelError::Data(text));
        }
        self.keep_highest(model, self.highest(model)?)?;
        self.keep_removed(model, version)?;
        self.record(&AuditLine::new(author, "remove", model, Some(version)))?;
        let (place, staging) = (self.version_folder(model, version)?, self.folder(model)?.join(".staging"));
        // Moved aside first: a killed process leaves no half version under its number.
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(ModelError::io("clear", &staging))?;
        }
        fs::rename(&place, &staging).map_err(ModelError::io("move aside", &place))?;
        fs::remove_dir_all(&staging).map_err(ModelError::io("delete", &staging))
    }

    /// Signs a version: its signature stands beside the manifest, in the place of one that was there; the version itself stays as it is.
    ///
    /// # Errors
    /// [`ModelError::Absent`] when it is not there, [`ModelError::Invalid`] when its files are not what its manifest says, or
    /// [`ModelError::Io`].
    pub fn sign(&self, model: &str, version: u32, key: &SigningKey, author: &Author) -> Result<Signature, ModelError> {
        self.must_have(model, version)?;
        let _alone = self.alone(model)?;
        let folder = self.version_folder(model, version)?;
        // Nobody should vouch for a damaged version.
        let files = super::load::files(&folder)?;
        let signature = key.sign(Signs::Manifest, model, files.manifest_bytes());
        self.record(&AuditLine::new(author, "sign", model, Some(version)))?;
        store(&folder.join(SIGNATURE), signature.to_json().as_bytes())?;
        Ok(signature)
    }

    /// Stores a calibration of this site and puts it in force for the version. Returns its digest.
    ///
    /// # Errors
    /// [`ModelError::Name`] or [`ModelError::Io`].
    pub fn store_calibration(&self, model: &str, version: u32, table: &CalibrationTable) -> Result<String, ModelError> {
        let folder = self.site_folder(model, version)?;
        fs::create_dir_all(&folder).map_err(ModelError::io("create", &folder))?;
        let digest = table.digest();
        store(&folder.join(format!("{digest}.json")), table.to_json().as_bytes())?;
        store(&folder.join("current"), digest.as_bytes())?;
        Ok(digest)
    }

    /// Stores what the first rows of this site looked like to a version that brought no profile; what is there already stays, unless it does
    /// not fit the version. Returns what is there then.
    ///
    /// # Errors
    /// [`ModelError::Name`] or [`ModelError::Io`].
    pub fn store_site_profile(&self, model: &str, version: u32, profile: &Profile) -> Result<Profile, ModelError> {
        let _alone = self.alone(model)?;
        match self.site_profile(model, version) {
            Ok(Some(kept)) => return Ok(kept),
            Ok(None) | Err(ModelError::Invalid { .. }) => {}
            Err(error) => return Err(error),
        }
        let folder = self.site_folder(model, version)?;
        fs::create_dir_all(&folder).map_err(ModelError::io("create", &folder))?;
        store(&folder.join(PROFILE), profile.to_json().as_bytes())?;
        Ok(profile.clone())
    }

    /// Refuses a version that is not there.
    pub(crate) fn must_have(&self, model: &str, version: u32) -> Result<(), ModelError> {
        if self.version_folder(model, version)?.is_dir() {
            return Ok(());
        }
        Err(ModelError::Absent { what: format!("`{model}` version {version}"), repository: self.root.clone() })
    }

    /// Holds the model against other processes and threads that would change it; released when dropped.
    pub(super) fn alone(&self, model: &str) -> Result<File, ModelError> {
        let folder = self.folder(model)?;
        if !folder.is_dir() {
            return Err(ModelError::Absent { what: format!("model `{model}`"), repository: self.root.clone() });
        }
        let path = folder.join(".lock");
        let file = File::create(&path).and_then(|file| file.lock().map(|()| file));
        file.map_err(ModelError::io("lock", path))
    }
}

/// Writes every file of a version into the staging folder, its manifest last.
fn stage(staging: &Path, mut draft: Draft) -> Result<(), ModelError> {
    let mut files = vec![(draft.manifest.kind.file(), draft.model), (REPORT, draft.report.into_bytes())];
    if let Some(table) = &draft.calibration {
        files.push((CALIBRATION, table.to_json().into_bytes()));
    }
    if let Some(profile) = &draft.profile {
        files.push((PROFILE, profile.to_json().into_bytes()));
    }
    draft.manifest.files.clear();
    for (name, bytes) in files {
        store(&staging.join(name), &bytes)?;
        draft.manifest.files.insert(name.to_string(), blake3::hash(&bytes).to_hex().to_string());
    }
    let golden = staging.join(GOLDEN);
    let names = draft.manifest.inputs.iter().map(|input| input.name.as_str());
    let mut columns: Vec<_> = names.zip(&draft.golden.inputs).map(|(name, values)| (name, Column::Numbers(values))).collect();
    columns.push((RAW, Column::Numbers(&draft.golden.raw)));
    table::write(&golden, &columns, &[])?;
    sync(&golden)?;
    let bytes = fs::read(&golden).map_err(ModelError::io("read", &golden))?;
    draft.manifest.files.insert(GOLDEN.to_string(), blake3::hash(&bytes).to_hex().to_string());
    if let Some(signature) = &draft.signature {
        store(&staging.join(SIGNATURE), signature.to_json().as_bytes())?;
    }
    store(&staging.join("manifest.toml"), draft.manifest.to_toml()?.as_bytes())
}

/// Makes a file or folder durable.
pub(super) fn sync(path: &Path) -> Result<(), ModelError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(ModelError::io("make durable", path))
}

/// Writes a file so that after a crash there is either the old one or the new one, whole.
pub(super) fn store(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    file::replace(path, bytes, Readers::Umask).map_err(ModelError::io("write", path))
}
