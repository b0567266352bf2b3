//! Versions and policies that were made elsewhere: whole files enter, a version that is complete and undamaged leaves under its own number.

use std::fs;
use std::path::Path;

use super::manifest::MANIFEST;
use super::publish::{store, sync};
use super::{AuditLine, Author, Manifest, ModelPolicy, Repository, load};
use crate::ModelError;
use crate::trust::{SIGNATURE, Signature, Trust};

impl Repository {
    /// Whether a version stands here.
    ///
    /// # Errors
    /// [`ModelError::Name`].
    pub fn has(&self, model: &str, version: u32) -> Result<bool, ModelError> {
        Ok(self.version_folder(model, version)?.is_dir())
    }

    /// Takes a version over under the number that it has elsewhere. It becomes visible whole, once every digest of its manifest is right.
    /// `files` are names and bytes: those that the manifest names, the manifest itself and perhaps its signature; nothing else is taken.
    ///
    /// # Errors
    /// [`ModelError::Data`] when there is one with this number, there was another one, or a file that does not belong to it, [`ModelError::Invalid`] when a file is
    /// not what the manifest says, [`ModelError::Name`] or [`ModelError::Io`].
    pub fn adopt(&self, model: &str, version: u32, files: &[(String, Vec<u8>)], author: &Author) -> Result<(), ModelError> {
        let versions = self.made(model)?;
        let _alone = self.alone(model)?;
        let place = self.version_folder(model, version)?;
        let refused = |why: String| ModelError::Data(format!("`{model}` version {version}: {why}"));
        if version == 0 || place.exists() {
            return Err(refused("this number is given already, or cannot be; versions never change".to_owned()));
        }
        let removed = self.removed(model, version)?;
        let of = |wanted: &str| files.iter().find(|(name, _)| name == wanted).map(|(_, bytes)| bytes.as_slice());
        let text = of(MANIFEST).ok_or_else(|| refused(format!("it has no `{MANIFEST}`")))?;
        if removed.is_some_and(|removed| removed != blake3::hash(text).to_hex().as_str()) {
            // Calibrations, journals and audits go on naming that one.
            return Err(refused("this number was another version's here, which was removed; bring it under another number".to_owned()));
        }
        let manifest = Manifest::parse(Path::new(MANIFEST), &String::from_utf8_lossy(text))?;
        // A manifest names only files that a version can have: no other name, and so no path, gets to the disk.
        let belongs = |name: &String| name == MANIFEST || name == SIGNATURE || manifest.files.contains_key(name);
        if let Some((name, _)) = files.iter().find(|(name, _)| !belongs(name)) {
            return Err(refused(format!("`{name}` is no file of it")));
        }
        if let Some(signature) = of(SIGNATURE) {
            let signature = Signature::parse(signature).map_err(refused)?;
            is_over(&signature, model, (&manifest, text)).map_err(refused)?;
        }
        let staging = self.folder(model)?.join(".staging");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(ModelError::io("clear", &staging))?;
        }
        fs::create_dir_all(&staging).map_err(ModelError::io("create", &staging))?;
        for (name, bytes) in files {
            store(&staging.join(name), bytes)?;
        }
        load::files(&staging)?;
        sync(&staging)?;
        fs::rename(&staging, &place).map_err(ModelError::io("rename into place", &place))?;
        sync(&versions)?;
        self.record(&AuditLine::new(author, "adopt", model, Some(version)))
    }

    /// Puts a signature that was made elsewhere beside a version. Whether its key is believed is asked when the version is loaded.
    ///
    /// # Errors
    /// [`ModelError::Data`] when it is not a genuine one over this version or the one here is of another key, [`ModelError::Absent`] when the version is not there,
    /// [`ModelError::Name`] or [`ModelError::Io`].
    pub fn put_signature(&self, model: &str, version: u32, signature: &Signature, author: &Author) -> Result<(), ModelError> {
        self.must_have(model, version)?;
        let _alone = self.alone(model)?;
        let folder = self.version_folder(model, version)?;
        let files = load::files(&folder)?;
        is_over(signature, model, (&files.manifest, files.manifest_bytes())).map_err(ModelError::Data)?;
        // Whoever may write elsewhere can sign with a key of their own; the one that is believed here must stay.
        let known = fs::read(folder.join(SIGNATURE)).ok().and_then(|bytes| Signature::parse(&bytes).ok());
        if known.is_some_and(|known| known.key != signature.key) {
            return Err(ModelError::Data(format!("`{model}` version {version} is signed with another key here: sign it here")));
        }
        self.record(&AuditLine::new(author, "sign", model, Some(version)))?;
        store(&folder.join(SIGNATURE), signature.to_json().as_bytes())
    }

    /// Takes over the policy that a model has elsewhere.
    ///
    /// # Errors
    /// [`ModelError::Absent`] for versions that are not here, [`ModelError::Name`] or [`ModelError::Io`].
    pub fn adopt_policy(&self, model: &str, policy: &ModelPolicy, author: &Author) -> Result<(), ModelError> {
        self.made(model)?;
        let taken = self.change(model, |_| Ok(policy.clone()))?;
        self.record(&AuditLine { policy: Some(taken), ..AuditLine::new(author, "adopt", model, None) })
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

    /// The folder of a model's versions, which is there then.
    fn made(&self, model: &str) -> Result<std::path::PathBuf, ModelError> {
        let versions = self.folder(model)?.join("versions");
        fs::create_dir_all(&versions).map_err(ModelError::io("create", &versions))?;
        Ok(versions)
    }
}

/// Refuses a signature that is not a genuine one over this version, whoever signed it.
fn is_over(signature: &Signature, model: &str, (manifest, text): (&Manifest, &[u8])) -> Result<(), String> {
    let digest = blake3::hash(text).to_hex();
    Trust::default().version(model, (manifest, digest.as_str()), Some(signature)).map(|_| ())
}
