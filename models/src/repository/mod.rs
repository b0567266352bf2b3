//! The repository: a folder of models, their immutable versions, and the calibrations made on this site.
//!
//! `<model>/policy.toml` names the champion; `<model>/versions/<n>/` holds `manifest.toml`, the model, its calibration, golden rows and
//! report; `<model>/site/<version>/<digest>.json` a calibration of this site and `current` the digest in force. Everything is written aside
//! and renamed into place. A version is never changed; what is done to it stands in `audit.ndjson`.

mod adopt;
#[cfg(test)]
mod adopt_tests;
mod audit;
pub(crate) mod load;
mod manifest;
#[cfg(test)]
mod parts_tests;
mod policy;
mod publish;
#[cfg(test)]
mod shipped;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

use telltale_features::schema::Schema;

use crate::calibration::CalibrationTable;
use crate::profile::Profile;
use crate::{Bundle, Loader, ModelError, RuntimeOptions};

pub use audit::{AuditLine, Author};
pub use load::{FeatureIndex, RAW};
pub use manifest::{CALIBRATION, Form, GOLDEN, Input, Kind, MANIFEST, Manifest, Missing, Named, Origin, Output, PROFILE, REPORT, Training};
pub use policy::{Aliases, Canary, Fallback, ModelPolicy, Step};
pub use publish::{Draft, GoldenRows};

/// A model repository on disk.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// The repository in this folder.
    ///
    /// # Errors
    /// [`ModelError::Io`] when it is not a readable folder.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, ModelError> {
        let root = root.as_ref().to_path_buf();
        std::fs::read_dir(&root).map_err(ModelError::io("open the model repository", &root))?;
        Ok(Self { root })
    }

    /// Names of the models, sorted: every folder with a `policy.toml`.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the repository cannot be listed.
    pub fn models(&self) -> Result<Vec<String>, ModelError> {
        let entries = std::fs::read_dir(&self.root).map_err(ModelError::io("list", &self.root))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(ModelError::io("list", &self.root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().join("policy.toml").is_file() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Loads the champion of every model. A model that fails is listed in [`Bundle::failures`] and the others serve.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the repository itself cannot be listed.
    pub fn load(&self, schema: &Schema, options: &RuntimeOptions) -> Result<Bundle, ModelError> {
        self.load_with(&FeatureIndex::of(schema), options)
    }

    /// [`Repository::load`] against names and hashes alone.
    ///
    /// # Errors
    /// As for [`Repository::load`].
    pub fn load_with(&self, index: &FeatureIndex, options: &RuntimeOptions) -> Result<Bundle, ModelError> {
        Loader::new(self.clone(), index.clone(), options.clone()).bundle()
    }

    /// What `policy.toml` says of a model.
    ///
    /// # Errors
    /// [`ModelError::Name`], [`ModelError::Io`] or [`ModelError::Invalid`].
    pub fn policy(&self, model: &str) -> Result<ModelPolicy, ModelError> {
        ModelPolicy::read(&self.folder(model)?.join("policy.toml"))
    }

    /// The manifest of a version.
    ///
    /// # Errors
    /// [`ModelError::Name`], [`ModelError::Io`] or [`ModelError::Invalid`].
    pub fn manifest(&self, model: &str, version: u32) -> Result<Manifest, ModelError> {
        Manifest::read(&self.version_folder(model, version)?.join("manifest.toml"))
    }

    /// The calibration of this site with that digest.
    ///
    /// # Errors
    /// [`ModelError::Absent`] when it is not there, [`ModelError::Invalid`] when it is not what its name says.
    pub fn calibration(&self, model: &str, version: u32, digest: &str) -> Result<CalibrationTable, ModelError> {
        let hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = self.site_folder(model, version)?.join(format!("{digest}.json"));
        if !hex || !path.is_file() {
            let what = format!("calibration `{digest}` of `{model}` version {version}");
            return Err(ModelError::Absent { what, repository: self.root.clone() });
        }
        let text = std::fs::read_to_string(&path).map_err(ModelError::io("read", &path))?;
        let table = CalibrationTable::from_json(&text).map_err(|error| ModelError::invalid(&path, error.to_string()))?;
        if table.digest() != digest {
            return Err(ModelError::invalid(&path, format!("its digest is {}: the file is damaged or was changed", table.digest())));
        }
        Ok(table)
    }

    /// What the first rows of this site looked like to a version that brought no profile.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Invalid`] when it does not fit the version.
    pub fn site_profile(&self, model: &str, version: u32) -> Result<Option<Profile>, ModelError> {
        let path = self.site_folder(model, version)?.join(PROFILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ModelError::io("read", path)(error)),
        };
        let profile = Profile::parse(&bytes, &self.manifest(model, version)?);
        profile.map(Some).map_err(|problem| ModelError::invalid(path, problem))
    }

    /// BLAKE3 of a version's manifest, which holds the digests of all its files.
    ///
    /// # Errors
    /// [`ModelError::Name`] or [`ModelError::Io`].
    pub fn manifest_digest(&self, model: &str, version: u32) -> Result<String, ModelError> {
        let path = self.version_folder(model, version)?.join("manifest.toml");
        let bytes = std::fs::read(&path).map_err(ModelError::io("read", &path))?;
        Ok(blake3::hash(&bytes).to_hex().to_string())
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The calibration of this site in force.
    pub(crate) fn site(&self, model: &str, version: u32) -> Result<Option<CalibrationTable>, ModelError> {
        let path = self.site_folder(model, version)?.join("current");
        match std::fs::read_to_string(&path) {
            Ok(digest) => self.calibration(model, version, digest.trim()).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ModelError::io("read", path)(error)),
        }
    }

    pub(crate) fn version_folder(&self, model: &str, version: u32) -> Result<PathBuf, ModelError> {
        Ok(self.folder(model)?.join("versions").join(version.to_string()))
    }

    fn site_folder(&self, model: &str, version: u32) -> Result<PathBuf, ModelError> {
        Ok(self.folder(model)?.join("site").join(version.to_string()))
    }

    /// Refuses a name that no model can have.
    ///
    /// # Errors
    /// [`ModelError::Name`].
    pub fn check_name(&self, model: &str) -> Result<(), ModelError> {
        self.folder(model).map(|_| ())
    }

    /// A model's folder. A name that could leave the repository is refused.
    fn folder(&self, model: &str) -> Result<PathBuf, ModelError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        let begins = model.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        // The inbox stands beside the models.
        if begins && model.len() <= 64 && model.bytes().all(allowed) && model != "inbox" {
            return Ok(self.root.join(model));
        }
        Err(ModelError::Name { name: model.to_string() })
    }
}
