//! Versions and policies that were made elsewhere: whole files enter, a version that is complete and undamaged leaves under its own number.

use std::fs;

use super::publish::{store, sync};
use super::{ModelPolicy, Repository, load};
use crate::ModelError;
use crate::trust::{SIGNATURE, Signature};

impl Repository {
    /// Whether a version stands here.
    ///
    /// # Errors
    /// [`ModelError::Name`].
    pub fn has(&self, model: &str, version: u32) -> Result<bool, ModelError> {
        Ok(self.version_folder(model, version)?.is_dir())
    }

    /// Takes a version over under the number that it has elsewhere. It becomes visible whole, once every digest of its manifest is right.
    /// `files` are names and bytes, the manifest and its signature among them; nothing is taken that the manifest does not name.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] when a file is not what the manifest says, [`ModelError::Name`] or [`ModelError::Io`].
    pub fn adopt(&self, model: &str, version: u32, files: &[(String, Vec<u8>)]) -> Result<(), ModelError> {
        let versions = self.folder(model)?.join("versions");
        fs::create_dir_all(&versions).map_err(ModelError::io("create", &versions))?;
        let _alone = self.alone(model)?;
        let staging = self.folder(model)?.join(".staging");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(ModelError::io("clear", &staging))?;
        }
        fs::create_dir_all(&staging).map_err(ModelError::io("create", &staging))?;
        for (name, bytes) in files {
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(ModelError::Data(format!("`{model}` version {version}: `{name}` is no name of a file of a version")));
            }
            store(&staging.join(name), bytes)?;
        }
        load::files(&staging)?;
        sync(&staging)?;
        let place = self.version_folder(model, version)?;
        fs::rename(&staging, &place).map_err(ModelError::io("rename into place", &place))?;
        sync(&versions)
    }

    /// Puts a signature that was made elsewhere beside a version.
    ///
    /// # Errors
    /// [`ModelError::Absent`] when the version is not there, [`ModelError::Name`] or [`ModelError::Io`].
    pub fn put_signature(&self, model: &str, version: u32, signature: &Signature) -> Result<(), ModelError> {
        self.must_have(model, version)?;
        let _alone = self.alone(model)?;
        store(&self.version_folder(model, version)?.join(SIGNATURE), signature.to_json().as_bytes())
    }

    /// Takes over the policy of a model as it stands elsewhere.
    ///
    /// # Errors
    /// As [`Repository::change`]; also when the text is no policy.
    pub fn adopt_policy(&self, model: &str, text: &str) -> Result<ModelPolicy, ModelError> {
        let path = self.folder(model)?.join("policy.toml");
        let policy = ModelPolicy::parse(&path, text)?;
        self.change(model, |_| Ok(policy))
    }

    /// The files of a version, each with the digest that its manifest says: the manifest last, before it the signature.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn files(&self, model: &str, version: u32) -> Result<Vec<(String, Vec<u8>)>, ModelError> {
        self.must_have(model, version)?;
        let folder = self.version_folder(model, version)?;
        let mut files = load::files(&folder)?.into_parts();
        let path = folder.join(SIGNATURE);
        if path.exists() {
            let bytes = fs::read(&path).map_err(ModelError::io("read", &path))?;
            files.insert(files.len().saturating_sub(1), (SIGNATURE.to_owned(), bytes));
        }
        Ok(files)
    }
}
