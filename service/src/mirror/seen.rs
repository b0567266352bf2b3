//! What was taken over from a store, and what was wrong there, kept in the folder: what did not change there is not taken again, so that what
//! was changed here since then stays.

use std::collections::BTreeMap;
use std::path::Path;

use object_store::ObjectMeta;
use object_store::path::Path as Place;
use serde::{Deserialize, Serialize};
use telltale_features::file::{self, Readers};
use telltale_models::ModelError;

use super::objects::stamp;

const FILE: &str = ".mirror.json";

/// By object, or by version.
#[derive(Default, Serialize, Deserialize)]
pub struct Seen {
    /// The store that it is about.
    url: String,
    taken: BTreeMap<String, Taken>,
    refused: BTreeMap<String, Refused>,
}

/// An object as it was when it was taken over, or written.
#[derive(Serialize, Deserialize)]
struct Taken {
    stamp: String,
    /// BLAKE3 of its bytes: who copies the same once more changes nothing.
    digest: String,
}

/// A version that was wrong as it stood there: it is fetched again only when that changes.
#[derive(Serialize, Deserialize)]
struct Refused {
    stamp: String,
    why: String,
}

impl Seen {
    /// What a folder has of that store; nothing where it followed another one, or none.
    pub fn read(folder: &Path, url: &str) -> Self {
        let kept: Option<Self> = std::fs::read(folder.join(FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        kept.filter(|kept| kept.url == url).unwrap_or_else(|| Self { url: url.to_owned(), ..Self::default() })
    }

    /// Keeps it in the folder.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec(self).map_err(|error| ModelError::Data(error.to_string()))?;
        file::replace(&path, &text, Readers::Umask).map_err(ModelError::io("write", path))
    }

    /// Whether an object is not as it was when it was taken over.
    pub fn is_new(&self, object: &ObjectMeta) -> bool {
        self.taken.get(object.location.as_ref()).is_none_or(|taken| taken.stamp != stamp(object))
    }

    /// Whether these bytes were what was taken over; nothing when nothing was.
    pub fn had(&self, place: &Place, bytes: &[u8]) -> Option<bool> {
        self.taken.get(place.as_ref()).map(|taken| taken.digest == digest(bytes))
    }

    /// Whether an object was ever taken over, or written.
    pub fn knows(&self, place: &Place) -> bool {
        self.taken.contains_key(place.as_ref())
    }

    /// Notes what an object was.
    pub fn note(&mut self, place: &Place, stamp: String, bytes: &[u8]) {
        self.taken.insert(place.to_string(), Taken { stamp, digest: digest(bytes) });
    }

    /// Why a version was refused, if it stands there as it did then.
    pub fn refusal(&self, version: &Place, stamp: &str) -> Option<&str> {
        self.refused.get(version.as_ref()).filter(|refused| refused.stamp == stamp).map(|refused| refused.why.as_str())
    }

    /// Notes why a version was refused.
    pub fn refuse(&mut self, version: &Place, stamp: String, why: String) {
        self.refused.insert(version.to_string(), Refused { stamp, why });
    }

    /// Forgets what was refused: another program may know more kinds.
    pub fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    /// Forgets that a version was refused.
    pub fn accept(&mut self, version: &Place) {
        self.refused.remove(version.as_ref());
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
