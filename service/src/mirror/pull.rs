//! What is brought from an object store into a folder, and in which order: a version is visible only once it is whole.
//!
//! A version's manifest is written last and read first, and every digest in it is checked before the version stands under its number here.
//! A policy is taken over when it changes there and every version that it names is here; what was changed here since then holds until it
//! changes there. What is deleted there stays here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use object_store::ObjectMeta;
use telltale_features::time::Clock;
use telltale_models::repository::{Author, MANIFEST, Manifest, ModelPolicy};
use telltale_models::trust::{SIGNATURE, Signature};
use telltale_models::{ModelError, Repository};

use super::objects::{MOST_BYTES, MOST_TEXT, Objects, stamp};
use super::seen::Seen;
use super::{MirrorError, Pulled};
use crate::setup::SystemClock;

pub(super) const POLICY: &str = "policy.toml";
pub(super) const VERSIONS: &str = "versions";
const LOCK: &str = ".mirror.lock";

/// A store and the folder that follows it.
pub struct Mirror {
    pub(super) objects: Objects,
    pub(super) repository: Repository,
    pub(super) seen: Seen,
    author: Author,
    /// Held: two processes would take each other's notes away.
    _alone: File,
}

/// What stands in the store under a model.
#[derive(Default)]
struct There {
    policy: Option<ObjectMeta>,
    versions: BTreeMap<u32, Files>,
}

/// The objects of a version by the names of its files.
type Files = BTreeMap<String, ObjectMeta>;

/// How far a version of the store is here.
enum Version {
    Here,
    Brought,
    /// This file of it is not there yet.
    Waits(String),
}

impl Mirror {
    /// A store by its address, with options of a file, and a folder, made when absent.
    ///
    /// # Errors
    /// [`MirrorError::Address`], [`MirrorError::Busy`] or [`MirrorError::Model`].
    pub fn open(url: &str, options: Option<&Path>, folder: &Path) -> Result<Self, MirrorError> {
        let objects = Objects::open(url, options)?;
        let repository = Repository::create(folder)?;
        let path = folder.join(LOCK);
        let lock = File::create(&path).map_err(ModelError::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(MirrorError::Busy { folder: folder.to_path_buf() }),
            Err(TryLockError::Error(error)) => return Err(ModelError::io("lock", path)(error).into()),
        }
        let author = Author { who: "object store".to_owned(), why: url.to_owned(), time_us: SystemClock.now().micros() };
        Ok(Self { objects, repository, seen: Seen::read(folder, url), author, _alone: lock })
    }

    /// Brings what is new. What is wrong there fails alone.
    ///
    /// # Errors
    /// [`MirrorError`] when the store, or the folder, cannot be looked at at all.
    pub async fn pull(&mut self) -> Result<Pulled, MirrorError> {
        let mut pulled = Pulled::default();
        for model in self.objects.folders().await? {
            // These stand in a repository and are no models.
            if model == "inbox" || model.starts_with('.') {
                continue;
            }
            if let Err(error) = self.model(&model, &mut pulled).await {
                pulled.refused.push(format!("{model}: {error}"));
            }
        }
        self.seen.save(self.repository.root())?;
        Ok(pulled)
    }

    async fn model(&mut self, model: &str, pulled: &mut Pulled) -> Result<(), MirrorError> {
        self.repository.check_name(model)?;
        let there = self.there(model).await?;
        let mut absent = BTreeSet::new();
        for (version, files) in &there.versions {
            let what = format!("{model} version {version}");
            let late = match self.version(model, *version, files).await {
                Ok(Version::Here) => self.signature(model, *version, files.get(SIGNATURE)).await,
                Ok(Version::Brought) => {
                    pulled.brought.push(what.clone());
                    Ok(())
                }
                Ok(Version::Waits(file)) => {
                    pulled.waiting.push(format!("{what}: `{file}` is not there yet"));
                    absent.insert(*version);
                    Ok(())
                }
                Err(error) => {
                    absent.insert(*version);
                    Err(error)
                }
            };
            pulled.refused.extend(late.err().map(|error| format!("{what}: {error}")));
        }
        let Some(object) = there.policy.filter(|policy| self.seen.is_new(policy)) else { return Ok(()) };
        let bytes = self.objects.fetch(&object, MOST_TEXT).await?;
        if self.seen.had(&object.location, &bytes) == Some(true) {
            self.seen.note(&object.location, stamp(&object), &bytes);
            return Ok(());
        }
        let policy = ModelPolicy::parse(Path::new(object.location.as_ref()), text(&object, &bytes)?)?;
        // A version of this number that did not come from there may be another one.
        let known = |version: &u32| self.seen.knows(&self.objects.place(&[model, VERSIONS, &version.to_string(), MANIFEST]));
        if let Some(version) = policy.versions().into_iter().find(|version| absent.contains(version) || !known(version)) {
            pulled.waiting.push(format!("{model} policy, revision {}: version {version}, which it names, is not here", policy.revision));
            return Ok(());
        }
        if self.repository.policy(model).ok().as_ref() != Some(&policy) {
            self.repository.adopt_policy(model, &policy, &self.author)?;
            pulled.brought.push(format!("{model} policy, revision {}", policy.revision));
        }
        self.seen.note(&object.location, stamp(&object), &bytes);
        // At once: what is changed here from now on must hold after a kill, too.
        Ok(self.seen.save(self.repository.root())?)
    }

    /// What can belong to a model; other keys are passed over.
    async fn there(&self, model: &str) -> Result<There, MirrorError> {
        let mut there = There::default();
        for (parts, object) in self.objects.under(model).await? {
            match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                [POLICY] => there.policy = Some(object),
                [VERSIONS, number, name] => {
                    // `07` would be the folder of version 7 here.
                    let version = number.parse::<u32>().ok().filter(|version| version.to_string() == *number && *version > 0);
                    let Some(version) = version else { continue };
                    there.versions.entry(version).or_default().insert((*name).to_owned(), object);
                }
                _ => {}
            }
        }
        Ok(there)
    }

    async fn version(&mut self, model: &str, version: u32, files: &Files) -> Result<Version, MirrorError> {
        if self.repository.has(model, version)? {
            self.same(model, version, files.get(MANIFEST)).await?;
            return Ok(Version::Here);
        }
        let place = self.objects.place(&[model, VERSIONS, &version.to_string()]);
        let stamps = files.iter().map(|(name, object)| format!("{name} {}\n", stamp(object))).collect::<String>();
        let stamps = blake3::hash(stamps.as_bytes()).to_hex().to_string();
        if let Some(why) = self.seen.refusal(&place, &stamps) {
            return Err(ModelError::Data(why.to_owned()).into());
        }
        let brought = self.bring(model, version, files).await;
        match &brought {
            Ok(_) => self.seen.accept(&place),
            // Else it may be the network's fault, or this disk's.
            Err(MirrorError::Model(error @ (ModelError::Invalid { .. } | ModelError::Data(_)))) => {
                self.seen.refuse(&place, stamps, error.to_string());
            }
            Err(_) => {}
        }
        brought
    }

    async fn bring(&mut self, model: &str, version: u32, files: &Files) -> Result<Version, MirrorError> {
        let Some(object) = files.get(MANIFEST) else { return Ok(Version::Waits(MANIFEST.to_owned())) };
        let written = self.objects.fetch(object, MOST_TEXT).await?;
        let manifest = Manifest::parse(Path::new(object.location.as_ref()), text(object, &written)?)?;
        if let Some(missing) = manifest.files.keys().find(|name| !files.contains_key(*name)) {
            return Ok(Version::Waits(missing.clone()));
        }
        let mut fetched = Vec::new();
        let named = manifest.files.keys().map(String::as_str).chain([SIGNATURE]);
        for (name, object) in named.filter_map(|name| files.get_key_value(name)) {
            fetched.push((name.clone(), self.objects.fetch(object, MOST_BYTES).await?));
        }
        fetched.push((MANIFEST.to_owned(), written));
        self.repository.adopt(model, version, &fetched, &self.author)?;
        for (name, bytes) in fetched.iter().filter(|(name, _)| name == MANIFEST || name == SIGNATURE) {
            if let Some(object) = files.get(name) {
                self.seen.note(&object.location, stamp(object), bytes);
            }
        }
        Ok(Version::Brought)
    }

    /// Refuses a version that stands there under the number of another one here: a policy must not mean the wrong one.
    async fn same(&mut self, model: &str, version: u32, manifest: Option<&ObjectMeta>) -> Result<(), MirrorError> {
        let Some(object) = manifest.filter(|object| self.seen.is_new(object)) else { return Ok(()) };
        let bytes = self.objects.fetch(object, MOST_TEXT).await?;
        if blake3::hash(&bytes).to_hex().as_str() != self.repository.manifest_digest(model, version)? {
            let why =
                "the one here is another version, which came otherwise; versions never change: bring one of them under another number";
            return Err(ModelError::Data(why.to_owned()).into());
        }
        self.seen.note(&object.location, stamp(object), &bytes);
        Ok(())
    }

    /// Brings a signature that came after its version. A wrong one leaves the version as it is.
    async fn signature(&mut self, model: &str, version: u32, object: Option<&ObjectMeta>) -> Result<(), MirrorError> {
        let Some(object) = object.filter(|object| self.seen.is_new(object)) else { return Ok(()) };
        let bytes = self.objects.fetch(object, MOST_TEXT).await?;
        if self.seen.had(&object.location, &bytes) != Some(true) {
            let signature = Signature::parse(&bytes).map_err(ModelError::Data)?;
            self.repository.put_signature(model, version, &signature, &self.author)?;
        }
        self.seen.note(&object.location, stamp(object), &bytes);
        Ok(())
    }
}

/// Brings what is new in a store into a folder, once.
///
/// # Errors
/// [`MirrorError`].
pub fn pull(url: &str, options: Option<&Path>, folder: &Path) -> Result<Pulled, MirrorError> {
    pull_within(Mirror::open(url, options, folder)?, None)
}

/// [`pull`] of a program that has just started: what another one refused is looked at again. Given up after a while; what was brought until then
/// is here.
pub fn pull_at_start(url: &str, options: Option<&Path>, folder: &Path, deadline: Option<Duration>) -> Result<Pulled, MirrorError> {
    let mut mirror = Mirror::open(url, options, folder)?;
    mirror.seen.forget_refusals();
    pull_within(mirror, deadline)
}

fn pull_within(mut mirror: Mirror, deadline: Option<Duration>) -> Result<Pulled, MirrorError> {
    wait(async move || {
        let Some(deadline) = deadline else { return mirror.pull().await };
        let late = || MirrorError::Store { what: "pulling".to_owned(), problem: format!("not done within {} seconds", deadline.as_secs()) };
        tokio::time::timeout(deadline, mirror.pull()).await.unwrap_or_else(|_| Err(late()))
    })
}

fn text<'a>(object: &ObjectMeta, bytes: &'a [u8]) -> Result<&'a str, ModelError> {
    std::str::from_utf8(bytes).map_err(|error| ModelError::invalid(Path::new(object.location.as_ref()), error.to_string()))
}

/// Runs something to its end on a thread of its own, also where a runtime runs already.
pub(super) fn wait<T: Send + 'static, F: Future<Output = Result<T, MirrorError>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, MirrorError> {
    let failed = |problem: String| MirrorError::Store { what: "starting".to_owned(), problem };
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| failed(error.to_string()))?.block_on(work())
    });
    thread.join().unwrap_or_else(|_| Err(MirrorError::Store { what: "running".to_owned(), problem: "it ended early".to_owned() }))
}
