//! What is brought from a folder into an object store: a version, its manifest last, then the model's policy.

use std::path::Path;

use object_store::{PutMode, UpdateVersion};
use telltale_models::repository::{MANIFEST, ModelPolicy};
use telltale_models::{ModelError, Repository};

use super::MirrorError;
use super::objects::stamp;
use super::pull::{Mirror, POLICY, VERSIONS, wait};

impl Mirror {
    /// Brings a version of the folder into the store and then the model's policy, or that alone. A version that stands there already is never
    /// replaced; a policy only if nobody changed it there since it was seen.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub async fn push(&mut self, model: &str, version: Option<u32>) -> Result<Vec<String>, MirrorError> {
        let mut done = Vec::new();
        if let Some(version) = version {
            self.push_version(model, version).await?;
            done.push(format!("{model} version {version}"));
        }
        let policy = self.repository.policy(model)?;
        match (self.missing(model, &policy).await?, version) {
            (None, _) => {
                if self.push_policy(model, &policy).await? {
                    done.push(format!("{model} policy, revision {}", policy.revision));
                }
                self.seen.save(self.repository.root())?;
            }
            // The first of several versions is there, and the policy comes with the last one.
            (Some(other), Some(_)) => done.push(format!("{model} policy: not yet, version {other}, which it names, is not in the store")),
            (Some(other), None) => {
                let problem = format!("the policy of `{model}` names version {other}, which is not in the store; push it first");
                return Err(ModelError::Data(problem).into());
            }
        }
        Ok(done)
    }

    async fn push_version(&self, model: &str, version: u32) -> Result<(), MirrorError> {
        let place = |name: &str| self.objects.place(&[model, VERSIONS, &version.to_string(), name]);
        let files = self.repository.files(model, version)?;
        let there = self.objects.get(&place(MANIFEST)).await?;
        let own = files.last().map(|(_, bytes)| bytes);
        if there.as_ref().is_some_and(|(_, bytes)| Some(bytes) != own) {
            let problem = format!("`{model}` version {version} stands in the store with another manifest; versions never change");
            return Err(ModelError::Data(problem).into());
        }
        for (name, bytes) in &files {
            // What is there under this number is the same, or the rest of a push that ended early. The manifest is written once.
            let mode = if name == MANIFEST && there.is_none() { PutMode::Create } else { PutMode::Overwrite };
            self.objects.put(&place(name), bytes.clone(), mode).await?;
        }
        // Another push of this number may have written its files after these and found the manifest there.
        for (name, bytes) in &files {
            if self.objects.get(&place(name)).await?.is_none_or(|(_, there)| there != *bytes) {
                let problem = format!("`{model}` version {version}: another push came in between; push it again");
                return Err(ModelError::Data(problem).into());
            }
        }
        Ok(())
    }

    /// A version that the policy names and the store does not have; one that is another there is an error.
    async fn missing(&self, model: &str, policy: &ModelPolicy) -> Result<Option<u32>, MirrorError> {
        for version in policy.versions() {
            let there = self.objects.get(&self.objects.place(&[model, VERSIONS, &version.to_string(), MANIFEST])).await?;
            let Some((_, manifest)) = there else { return Ok(Some(version)) };
            if blake3::hash(&manifest).to_hex().as_str() != self.repository.manifest_digest(model, version)? {
                let problem = format!("the policy of `{model}` names version {version}, which is another one in the store");
                return Err(ModelError::Data(problem).into());
            }
        }
        Ok(None)
    }

    /// False when it is there already.
    async fn push_policy(&mut self, model: &str, policy: &ModelPolicy) -> Result<bool, MirrorError> {
        let place = self.objects.place(&[model, POLICY]);
        let text = policy.to_toml()?.into_bytes();
        let mode = match self.objects.get(&place).await? {
            None => PutMode::Create,
            Some((meta, same)) if same == text => {
                self.seen.note(&place, stamp(&meta), &text);
                return Ok(false);
            }
            Some((meta, other)) => {
                let read = || std::str::from_utf8(&other).ok().and_then(|other| ModelPolicy::parse(Path::new(POLICY), other).ok());
                // Who never saw the one there may replace an older one, or what is none.
                let known = self.seen.had(&place, &other).unwrap_or_else(|| read().is_none_or(|there| there.revision < policy.revision));
                if !known {
                    return Err(ModelError::Data(format!("the policy of `{model}` was changed in the store; pull it first")).into());
                }
                PutMode::Update(UpdateVersion { e_tag: meta.e_tag, version: meta.version })
            }
        };
        // Without an ETag the next look finds the same bytes.
        let written = self.objects.put(&place, text.clone(), mode).await?.unwrap_or_default();
        self.seen.note(&place, written, &text);
        Ok(true)
    }
}

/// Brings a version of a folder, or only a model's policy, into a store.
///
/// # Errors
/// [`MirrorError`].
pub fn push(url: &str, options: Option<&Path>, folder: &Path, (model, version): (&str, Option<u32>)) -> Result<Vec<String>, MirrorError> {
    // Opening a mirror makes its folder.
    Repository::open(folder)?;
    let (mut mirror, model) = (Mirror::open(url, options, folder)?, model.to_owned());
    wait(async move || mirror.push(&model, version).await)
}
