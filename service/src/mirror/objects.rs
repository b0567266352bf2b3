//! The objects of one store under one prefix: an address and options enter, bytes and their state leave. Every call has a deadline, a bound of
//! bytes or objects, and few retries; nothing here knows what a model is.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Place;
use object_store::{
    BackoffConfig, Error, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload, RetryConfig,
};
use reqwest::Url;
use telltale_models::ModelError;

use super::{MirrorError, shown};

/// Largest object that is fetched: the largest file that a version may have.
pub const MOST_BYTES: u64 = 64 << 20;
/// Largest policy, manifest or signature that is fetched: they are parsed where models serve.
pub const MOST_TEXT: u64 = 1 << 20;
/// Most models.
const MOST_MODELS: usize = 10_000;
/// Most objects of one model: a thousand versions have eight thousand.
const MOST_OBJECTS: usize = 100_000;
/// What one call of the store has, retries included.
const DEADLINE: Duration = Duration::from_secs(60);
/// Tries after the first, and how long after it another may begin: who follows looks again soon anyway.
const RETRIES: (usize, Duration) = (3, Duration::from_secs(20));

/// A store and where in it.
pub struct Objects {
    store: Box<dyn ObjectStore>,
    prefix: Place,
}

impl Objects {
    /// A store by its address, with the options of a file.
    ///
    /// # Errors
    /// [`MirrorError::Address`], or [`MirrorError::Model`] when the file cannot be read.
    pub fn open(url: &str, options: Option<&Path>) -> Result<Self, MirrorError> {
        let wrong = |problem: String| MirrorError::Address { url: shown(url), problem };
        let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        // What may hold a secret has no place in what is logged.
        if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(wrong("it holds a user, a password or a query; these stand in `models.repository_options`".to_owned()));
        }
        let options = read(options)?;
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|error| wrong(error.to_string()))?;
        let store = store(&scheme, url, options).map_err(wrong)?;
        Ok(Self { store, prefix })
    }

    /// Names that stand directly under the prefix and have something under them.
    ///
    /// # Errors
    /// [`MirrorError::Store`].
    pub async fn folders(&self) -> Result<Vec<String>, MirrorError> {
        let listed = within(self.store.list_with_delimiter(Some(&self.prefix))).await?.map_err(failed("listing"))?;
        if listed.common_prefixes.len() > MOST_MODELS {
            return Err(ModelError::Data(format!("`{}` has more than {MOST_MODELS} folders", self.prefix)).into());
        }
        Ok(listed.common_prefixes.iter().filter_map(|place| place.filename().map(str::to_owned)).collect())
    }

    /// Every object under a name, with the parts of its key after that name.
    ///
    /// # Errors
    /// [`MirrorError::Store`]; [`MirrorError::Model`] for a key that is a path out of here, or too many keys.
    pub async fn under(&self, name: &str) -> Result<Vec<(Vec<String>, ObjectMeta)>, MirrorError> {
        let place = self.place(&[name]);
        let mut listed = self.store.list(Some(&place));
        let all = async {
            let mut found = Vec::new();
            while let Some(object) = listed.try_next().await.map_err(failed(format!("listing `{place}`")))? {
                if found.len() == MOST_OBJECTS {
                    return Err(ModelError::Data(format!("`{place}` has more than {MOST_OBJECTS} objects")).into());
                }
                let parts = object.location.prefix_match(&place).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
                found.extend(parts.map(|parts| (parts, object)));
            }
            Ok(found)
        };
        within(all).await?
    }

    /// Where the parts of a key lead.
    pub fn place(&self, parts: &[&str]) -> Place {
        parts.iter().fold(self.prefix.clone(), |place, part| place.join(*part))
    }

    /// The bytes of an object that was listed, at most so many.
    ///
    /// # Errors
    /// [`MirrorError::Store`], also when it is gone; [`MirrorError::Model`] when it is too large.
    pub async fn fetch(&self, object: &ObjectMeta, most: u64) -> Result<Vec<u8>, MirrorError> {
        if object.size > most {
            return Err(ModelError::Data(format!("`{}` has {} bytes, allowed are {most}", object.location, object.size)).into());
        }
        let found = self.get(&object.location).await?;
        let gone = || MirrorError::Store { what: format!("reading `{}`", object.location), problem: "it is gone".to_owned() };
        found.map(|(_, bytes)| bytes).ok_or_else(gone)
    }

    /// An object and its state, if it is there.
    ///
    /// # Errors
    /// As for [`Objects::fetch`].
    pub async fn get(&self, place: &Place) -> Result<Option<(ObjectMeta, Vec<u8>)>, MirrorError> {
        let what = || format!("reading `{place}`");
        let found = match within(self.store.get(place)).await? {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(what())(error)),
        };
        let meta = found.meta.clone();
        if meta.size > MOST_BYTES {
            return Err(ModelError::Data(format!("`{place}` has {} bytes, allowed are {MOST_BYTES}", meta.size)).into());
        }
        let bytes = within(found.bytes()).await?.map_err(failed(what()))?;
        Ok(Some((meta, bytes.to_vec())))
    }

    /// Writes an object; returns its ETag, where the store tells it.
    ///
    /// # Errors
    /// [`MirrorError::Store`], also when the condition does not hold any more.
    pub async fn put(&self, place: &Place, bytes: Vec<u8>, mode: PutMode) -> Result<Option<String>, MirrorError> {
        let payload = PutPayload::from(bytes);
        let put = |mode: PutMode| within(self.store.put_opts(place, payload.clone(), PutOptions::from(mode)));
        let mut written = put(mode).await?;
        // A folder knows no conditions.
        if let Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) = written {
            written = put(PutMode::Overwrite).await?;
        }
        let what = format!("writing `{place}`");
        match written {
            Ok(written) => Ok(written.e_tag),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                Err(MirrorError::Store { what, problem: "somebody else wrote it meanwhile; pull it first".to_owned() })
            }
            Err(error) => Err(failed(what)(error)),
        }
    }
}

/// The state of an object: its ETag, or when and how long where a store gives none.
pub fn stamp(object: &ObjectMeta) -> String {
    object.e_tag.clone().unwrap_or_else(|| format!("{} {}", object.last_modified.timestamp_micros(), object.size))
}

fn store(scheme: &ObjectStoreScheme, url: &str, options: Vec<(String, String)>) -> Result<Box<dyn ObjectStore>, String> {
    // What reqwest asks for when it has no cryptography of its own; a second time is no harm.
    drop(rustls::crypto::ring::default_provider().install_default());
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES.0, retry_timeout: RETRIES.1 };
    let built: Result<Box<dyn ObjectStore>, Error> = match scheme {
        ObjectStoreScheme::Local if options.is_empty() => Ok(Box::new(LocalFileSystem::new())),
        ObjectStoreScheme::Local => return Err("a folder has no options".to_owned()),
        ObjectStoreScheme::AmazonS3 => {
            let builder = with(AmazonS3Builder::new().with_url(url), options, AmazonS3Builder::with_config)?;
            builder.with_retry(retry).build().map(|store| Box::new(store) as _)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = with(GoogleCloudStorageBuilder::new().with_url(url), options, GoogleCloudStorageBuilder::with_config)?;
            builder.with_retry(retry).build().map(|store| Box::new(store) as _)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = with(MicrosoftAzureBuilder::new().with_url(url), options, MicrosoftAzureBuilder::with_config)?;
            builder.with_retry(retry).build().map(|store| Box::new(store) as _)
        }
        _ => return Err("no object store that is known here".to_owned()),
    };
    built.map_err(|error| error.to_string())
}

/// A builder with every option set. The crate would pass over one that it does not know, and a misspelt secret be missed much later.
fn with<B, K: FromStr>(builder: B, options: Vec<(String, String)>, set: impl Fn(B, K, String) -> B) -> Result<B, String> {
    options.into_iter().try_fold(builder, |builder, (key, value)| match key.to_ascii_lowercase().parse() {
        Ok(known) => Ok(set(builder, known, value)),
        Err(_) => Err(format!("this store has no option `{key}`")),
    })
}

fn failed(what: impl Into<String>) -> impl FnOnce(Error) -> MirrorError {
    let what = what.into();
    move |error| match error {
        Error::InvalidPath { source } => ModelError::Data(format!("{what}: {source}")).into(),
        error => MirrorError::Store { what, problem: error.to_string() },
    }
}

async fn within<T>(asked: impl Future<Output = T>) -> Result<T, MirrorError> {
    let late = |_| MirrorError::Store { what: "asking".to_owned(), problem: format!("no answer within {} seconds", DEADLINE.as_secs()) };
    tokio::time::timeout(DEADLINE, asked).await.map_err(late)
}

/// The lines of an options file.
fn read(path: Option<&Path>) -> Result<Vec<(String, String)>, MirrorError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).map_err(ModelError::io("read", path))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    // The line itself may be a secret.
    lines.map(|line| pair(line).ok_or_else(|| ModelError::invalid(path, "allowed is KEY=VALUE a line").into())).collect()
}
