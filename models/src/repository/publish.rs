//! What changes a repository: new versions, aliases, calibrations of this site. Each is written aside, flushed and renamed into place.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::manifest::{Aliases, CALIBRATION, GOLDEN, Manifest, ModelPolicy, REPORT};
use super::{RAW, Repository};
use crate::ModelError;
use crate::calibration::CalibrationTable;
use crate::table::{self, Column};

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
}

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
    pub fn publish(&self, model: &str, mut draft: Draft) -> Result<u32, ModelError> {
        let folder = self.folder(model)?;
        let versions = folder.join("versions");
        let staging = folder.join(".staging");
        fs::create_dir_all(&versions).map_err(ModelError::io("create", &versions))?;
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(ModelError::io("clear", &staging))?;
        }
        fs::create_dir_all(&staging).map_err(ModelError::io("create", &staging))?;
        let mut files = vec![(draft.manifest.kind.file(), draft.model), (REPORT, draft.report.into_bytes())];
        if let Some(table) = &draft.calibration {
            files.push((CALIBRATION, table.to_json().into_bytes()));
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
        let bytes = fs::read(&golden).map_err(ModelError::io("read", &golden))?;
        draft.manifest.files.insert(GOLDEN.to_string(), blake3::hash(&bytes).to_hex().to_string());
        store(&staging.join("manifest.toml"), draft.manifest.to_toml()?.as_bytes())?;
        let number = 1 + self.versions(model)?.last().copied().unwrap_or(0);
        let place = versions.join(number.to_string());
        fs::rename(&staging, &place).map_err(ModelError::io("rename into place", &place))?;
        Ok(number)
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

    /// Puts a version in force; the one before it becomes `previous`. Takes effect when the repository is loaded again.
    ///
    /// # Errors
    /// [`ModelError::Absent`] when there is no such version, else [`ModelError::Io`].
    pub fn promote(&self, model: &str, version: u32) -> Result<(), ModelError> {
        if !self.version_folder(model, version)?.is_dir() {
            return Err(ModelError::Absent { what: format!("`{model}` version {version}"), repository: self.root.clone() });
        }
        let path = self.folder(model)?.join("policy.toml");
        let before = if path.exists() { ModelPolicy::read(&path)?.aliases } else { Aliases::default() };
        let previous = before.champion.filter(|champion| *champion != version).or(before.previous);
        let policy = ModelPolicy { aliases: Aliases { champion: Some(version), previous } };
        let text = toml::to_string(&policy).map_err(|error| ModelError::Data(format!("policy.toml cannot be written: {error}")))?;
        store(&path, text.as_bytes())
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
}

/// Writes a file so that after a crash there is either the old one or the new one, whole.
fn store(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let aside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(ModelError::io("write", path))
}
