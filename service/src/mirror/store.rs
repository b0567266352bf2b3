//! What is copied between an object store and a folder, and in which order: a version is visible only once it is whole.
//!
//! A version's manifest is written last and read first, and every digest in it is checked before the version stands under its number here.
//! A policy is taken over when its ETag changes; what was changed here since then holds until it changes there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::path::Path as Place;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion, parse_url_opts};
use serde::{Deserialize, Serialize};
use telltale_features::file::{self, Readers};
use telltale_models::repository::Manifest;
use telltale_models::trust::{SIGNATURE, Signature};
use telltale_models::{ModelError, Repository};

use super::MirrorError;
use crate::config::Models;
use crate::server::Service;

/// Largest object that is fetched.
const MOST_BYTES: u64 = 64 << 20;
/// What the store is asked within.
const DEADLINE: Duration = Duration::from_secs(60);
/// Which states of policies and signatures were taken over, in the folder.
const SEEN: &str = ".mirror.json";
const MANIFEST: &str = "manifest.toml";
const POLICY: &str = "policy.toml";

/// A store and the folder that follows it.
pub struct Mirror {
    store: Box<dyn ObjectStore>,
    prefix: Place,
    repository: Repository,
    seen: Seen,
}

/// Object and its state when it was taken over.
#[derive(Default, Serialize, Deserialize)]
struct Seen(BTreeMap<String, String>);

/// What stands in the store under a model.
#[derive(Default)]
struct There {
    policy: Option<ObjectMeta>,
    versions: BTreeMap<u32, BTreeMap<String, ObjectMeta>>,
}

fn store_error(what: impl Into<String>) -> impl FnOnce(object_store::Error) -> MirrorError {
    let what = what.into();
    move |error| MirrorError::Store { what, problem: error.to_string() }
}

impl Mirror {
    /// A store by its address, with options of a file, and a folder, made when absent.
    ///
    /// # Errors
    /// [`MirrorError::Address`] or [`MirrorError::Model`].
    pub fn open(url: &str, options: Option<&Path>, folder: &Path) -> Result<Self, MirrorError> {
        // An address may hold a secret after `user:`; it is not one of those that are allowed.
        let wrong = |problem: String| MirrorError::Address { url: url.split('@').next_back().unwrap_or_default().to_owned(), problem };
        let parsed = reqwest::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("it holds a user or password; these stand in `models.repository_options`".to_owned()));
        }
        // What reqwest asks for when it has no cryptography of its own; a second time is no harm.
        drop(rustls::crypto::ring::default_provider().install_default());
        let (store, prefix) = parse_url_opts(&parsed, options_of(options)?).map_err(|error| wrong(error.to_string()))?;
        let repository = Repository::create(folder)?;
        let seen = std::fs::read(folder.join(SEEN)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(Self { store, prefix, repository, seen })
    }

    /// Brings what is new. A model that is wrong there holds up no other; the first such reason is returned after all were looked at.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub async fn pull(&mut self) -> Result<Vec<String>, MirrorError> {
        let (mut brought, mut first) = (Vec::new(), None);
        for (model, there) in self.list().await? {
            if let Err(error) = self.model(&model, &there, &mut brought).await {
                tracing::warn!(model, %error, "a model of the object store is not followed");
                first.get_or_insert(error);
            }
        }
        let path = self.repository.root().join(SEEN);
        let text = serde_json::to_vec(&self.seen).unwrap_or_default();
        file::replace(&path, &text, Readers::Umask).map_err(ModelError::io("write", path))?;
        first.map_or(Ok(brought), Err)
    }

    /// Everything in the store that can belong to a repository.
    async fn list(&self) -> Result<BTreeMap<String, There>, MirrorError> {
        let listed = self.store.list(Some(&self.prefix)).try_collect::<Vec<ObjectMeta>>();
        let listed = within(listed).await?.map_err(store_error("listing"))?;
        let mut models: BTreeMap<String, There> = BTreeMap::new();
        for object in listed {
            let Some(parts) = object.location.prefix_match(&self.prefix) else { continue };
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            match parts.as_slice() {
                [model, POLICY] => models.entry((*model).to_owned()).or_default().policy = Some(object),
                [model, "versions", number, name] => {
                    let Ok(number) = number.parse() else { continue };
                    let there = models.entry((*model).to_owned()).or_default();
                    there.versions.entry(number).or_default().insert((*name).to_owned(), object);
                }
                _ => {}
            }
        }
        models.retain(|model, _| self.repository.check_name(model).is_ok());
        Ok(models)
    }

    async fn model(&mut self, model: &str, there: &There, brought: &mut Vec<String>) -> Result<(), MirrorError> {
        for (version, files) in &there.versions {
            if self.repository.has(model, *version)? {
                self.signature(model, *version, files.get(SIGNATURE)).await?;
            } else if self.version(model, *version, files).await? {
                brought.push(format!("{model} version {version}"));
            }
        }
        let Some(policy) = there.policy.as_ref().filter(|policy| self.seen.is_new(policy)) else { return Ok(()) };
        let text = String::from_utf8_lossy(&self.fetch(policy).await?).into_owned();
        let here = self.repository.policy(model).ok();
        let taken = self.repository.adopt_policy(model, &text)?;
        self.seen.note(policy);
        if here.as_ref() != Some(&taken) {
            brought.push(format!("{model} policy, revision {}", taken.revision));
        }
        Ok(())
    }

    /// Brings a version; false when it is not complete there yet.
    async fn version(&mut self, model: &str, version: u32, files: &BTreeMap<String, ObjectMeta>) -> Result<bool, MirrorError> {
        let Some(object) = files.get(MANIFEST) else { return Ok(false) };
        let text = self.fetch(object).await?;
        let manifest = Manifest::parse(Path::new(object.location.as_ref()), &String::from_utf8_lossy(&text))?;
        let mut fetched = Vec::new();
        for name in manifest.files.keys() {
            let Some(object) = files.get(name) else { return Ok(false) };
            fetched.push((name.clone(), self.fetch(object).await?));
        }
        if let Some(object) = files.get(SIGNATURE) {
            fetched.push((SIGNATURE.to_owned(), self.fetch(object).await?));
            self.seen.note(object);
        }
        fetched.push((MANIFEST.to_owned(), text));
        self.repository.adopt(model, version, &fetched)?;
        Ok(true)
    }

    /// Brings a signature that came after its version.
    async fn signature(&mut self, model: &str, version: u32, object: Option<&ObjectMeta>) -> Result<(), MirrorError> {
        let Some(object) = object.filter(|object| self.seen.is_new(object)) else { return Ok(()) };
        let signature = Signature::parse(&self.fetch(object).await?).map_err(ModelError::Data)?;
        self.repository.put_signature(model, version, &signature)?;
        self.seen.note(object);
        Ok(())
    }

    /// Brings a version of the folder into the store, its manifest last, then the model's policy. A version that stands there already is never
    /// replaced; a policy only if it is still the one that was seen.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub async fn push(&mut self, model: &str, version: Option<u32>) -> Result<Vec<String>, MirrorError> {
        let mut done = Vec::new();
        if let Some(version) = version {
            let files = self.repository.files(model, version)?;
            let there = self.get(&self.place(&[model, "versions", &version.to_string(), MANIFEST])).await?;
            let own = files.last().map(|(_, bytes)| bytes);
            if there.as_ref().is_some_and(|(_, bytes)| Some(bytes) != own) {
                let problem = format!("`{model}` version {version} stands in the store with another manifest; versions never change");
                return Err(ModelError::Data(problem).into());
            }
            for (name, bytes) in files {
                // What is there under this number is the same, or the rest of a push that ended early. Nobody may come in between.
                let mode = if name == MANIFEST && there.is_none() { PutMode::Create } else { PutMode::Overwrite };
                self.put(&self.place(&[model, "versions", &version.to_string(), &name]), bytes, mode).await?;
            }
            done.push(format!("{model} version {version}"));
        }
        let policy = self.repository.policy(model)?;
        let place = self.place(&[model, POLICY]);
        let text = policy.to_toml()?.into_bytes();
        let there = self.get(&place).await?;
        match there {
            Some((_, same)) if same == text => {}
            Some((meta, _)) if self.seen.0.get(place.as_ref()).is_some_and(|known| *known != stamp(&meta)) => {
                return Err(ModelError::Data(format!("the policy of `{model}` was changed in the store; pull it first")).into());
            }
            Some((meta, _)) => {
                let update = UpdateVersion { e_tag: meta.e_tag, version: meta.version };
                match self.put(&place, text.clone(), PutMode::Update(update)).await {
                    // A folder knows no conditions.
                    Err(MirrorError::Store { problem, .. })
                        if problem.contains("not yet implemented") || problem.contains("not implemented") =>
                    {
                        self.put(&place, text, PutMode::Overwrite).await?;
                    }
                    other => other?,
                }
                done.push(format!("{model} policy, revision {}", policy.revision));
            }
            None => {
                self.put(&place, text, PutMode::Create).await?;
                done.push(format!("{model} policy, revision {}", policy.revision));
            }
        }
        Ok(done)
    }

    fn place(&self, parts: &[&str]) -> Place {
        parts.iter().fold(self.prefix.clone(), |place, part| place.join(*part))
    }

    async fn put(&self, place: &Place, bytes: Vec<u8>, mode: PutMode) -> Result<(), MirrorError> {
        let put = self.store.put_opts(place, PutPayload::from(bytes), PutOptions::from(mode));
        within(put).await?.map(|_| ()).map_err(store_error(format!("writing `{place}`")))
    }

    /// An object and its state, if it is there.
    async fn get(&self, place: &Place) -> Result<Option<(ObjectMeta, Vec<u8>)>, MirrorError> {
        let found = match within(self.store.get(place)).await? {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(store_error(format!("reading `{place}`"))(error)),
        };
        let meta = found.meta.clone();
        let bytes = within(found.bytes()).await?.map_err(store_error(format!("reading `{place}`")))?;
        Ok(Some((meta, bytes.to_vec())))
    }

    async fn fetch(&self, object: &ObjectMeta) -> Result<Vec<u8>, MirrorError> {
        if object.size > MOST_BYTES {
            let problem = format!("`{}` has {} bytes, allowed are {MOST_BYTES}", object.location, object.size);
            return Err(ModelError::Data(problem).into());
        }
        let found = self.get(&object.location).await?;
        let gone = || MirrorError::Store { what: format!("reading `{}`", object.location), problem: "it is gone".to_owned() };
        found.map(|(_, bytes)| bytes).ok_or_else(gone)
    }
}

impl Seen {
    fn is_new(&self, object: &ObjectMeta) -> bool {
        self.0.get(object.location.as_ref()) != Some(&stamp(object))
    }

    fn note(&mut self, object: &ObjectMeta) {
        self.0.insert(object.location.to_string(), stamp(object));
    }
}

/// The state of an object: its ETag, or when and how long where a store gives none.
fn stamp(object: &ObjectMeta) -> String {
    object.e_tag.clone().unwrap_or_else(|| format!("{} {}", object.last_modified.timestamp_micros(), object.size))
}

async fn within<T>(asked: impl Future<Output = T>) -> Result<T, MirrorError> {
    let late = |_| MirrorError::Store { what: "asking".to_owned(), problem: format!("no answer within {} seconds", DEADLINE.as_secs()) };
    tokio::time::timeout(DEADLINE, asked).await.map_err(late)
}

/// The lines of an options file.
fn options_of(path: Option<&Path>) -> Result<Vec<(String, String)>, MirrorError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).map_err(ModelError::io("read", path))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    // The line itself may be a secret.
    lines.map(|line| pair(line).ok_or_else(|| ModelError::invalid(path, "allowed is KEY=VALUE a line").into())).collect()
}

/// Runs something to its end on a thread of its own, also where a runtime runs already.
pub fn wait<T: Send + 'static, F: Future<Output = Result<T, MirrorError>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, MirrorError> {
    let failed = |problem: String| MirrorError::Store { what: "starting".to_owned(), problem };
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| failed(error.to_string()))?.block_on(work())
    });
    thread.join().unwrap_or_else(|_| Err(MirrorError::Store { what: "running".to_owned(), problem: "it ended early".to_owned() }))
}

/// Looks at the store until the server drains; the models' thread follows what is brought into the folder.
pub fn follow(service: &Weak<Service>, models: &Models, folder: &Path) {
    let (Some(url), options) = (models.repository.clone(), models.repository_options.clone()) else { return };
    let (every, folder): (Duration, PathBuf) = (Duration::from_secs(models.repository_seconds), folder.to_path_buf());
    let mut passed = Duration::ZERO;
    let mut said = BTreeSet::new();
    loop {
        let step = Duration::from_millis(250);
        std::thread::sleep(step);
        let Some(service) = service.upgrade() else { return };
        if *service.draining.borrow() {
            return;
        }
        drop(service);
        passed += step;
        if passed < every {
            continue;
        }
        passed = Duration::ZERO;
        match super::pull(&url, options.as_deref(), &folder) {
            Ok(brought) => {
                said.clear();
                brought.iter().for_each(|what| tracing::info!(what, "brought from the object store"));
            }
            Err(error) if said.insert(error.to_string()) => {
                tracing::warn!(%error, "the object store cannot be followed; what is here serves")
            }
            Err(_) => {}
        }
    }
}
