//! The name dictionary: what an entity of a readable type is called, because its state knows only a keyed hash.
//!
//! Names of types with `keep_names` enter with each transaction, a name leaves for a key. Bounded in bytes; on the disk under a key of
//! its own, apart from everything else. Without it, hashes are shown.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use telltale_features::entity::{EntityId, EntityKey, EntityType, Subjects};
use telltale_features::file::{self, Readers};

use crate::cipher::{self, Cipher};

/// Key file in the data directory.
const KEY_FILE: &str = "names.key";
/// The dictionary in the data directory.
const FILE: &str = "names.bin";
/// First bytes of it: what it is, and its format. Authenticated with the rest.
const MAGIC: &[u8; 16] = b"telltale-name-1\n";
/// Longest name that is kept, bytes.
const NAME_BYTES: usize = 256;
/// What a name takes beside its text, bytes.
const OVERHEAD: usize = 64;

/// The dictionary.
pub struct Names {
    inner: Mutex<Inner>,
    half: usize,
    path: PathBuf,
    cipher: Cipher,
    /// One at a time: an older content must not take the place of a newer one.
    saving: Mutex<()>,
}

/// Two generations: names that are seen again move into the young one; when that is full the old one is given up.
#[derive(Default)]
struct Inner {
    young: HashMap<EntityId, Box<str>>,
    old: HashMap<EntityId, Box<str>>,
    bytes: usize,
    /// Names, each once.
    count: usize,
    changed: bool,
}

impl Names {
    /// The dictionary of a data directory, which may take so many bytes. One that cannot be read is begun anew and says so.
    ///
    /// # Errors
    /// When its key can neither be read nor made.
    pub fn open(data: &Path, max_bytes: usize) -> io::Result<Self> {
        let cipher = Cipher::new(&cipher::secret(&data.join(KEY_FILE))?, MAGIC);
        let names = Self { inner: Mutex::default(), half: max_bytes / 2, path: data.join(FILE), cipher, saving: Mutex::new(()) };
        match names.read() {
            Ok(known) => {
                let mut inner = names.inner.lock();
                known.into_iter().for_each(|(entity, name)| inner.put(entity, &name, names.half));
                inner.changed = false;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %names.path.display(), %error, "the name dictionary cannot be read and is begun anew"),
        }
        Ok(names)
    }

    /// Takes in the names of a transaction's subjects.
    pub fn learn(&self, subjects: &Subjects) {
        if self.half == 0 || subjects.iter().all(|subject| subject.name.is_none()) {
            return;
        }
        // Whoever saves or counts holds it for a while; the name will be seen again.
        let Some(mut inner) = self.inner.try_lock() else { return };
        for subject in subjects.iter() {
            if let Some(name) = subject.name.as_deref().filter(|name| name.len() <= NAME_BYTES)
                && !inner.young.contains_key(&subject.id)
            {
                inner.put(subject.id, name, self.half);
            }
        }
    }

    /// What an entity is called, where it is known.
    pub fn of(&self, entity: EntityId) -> Option<String> {
        let inner = self.inner.lock();
        inner.young.get(&entity).or_else(|| inner.old.get(&entity)).map(ToString::to_string)
    }

    /// Forgets a name and writes the dictionary without it; whether it was known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget(&self, entity: EntityId) -> io::Result<bool> {
        let known = {
            let mut inner = self.inner.lock();
            let known = inner.young.remove(&entity).is_some() | inner.old.remove(&entity).is_some();
            inner.count -= usize::from(known);
            inner.changed |= known;
            known
        };
        self.save()?;
        Ok(known)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.inner.lock().count
    }

    /// Writes it, where something has changed: beside itself, then in its place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> io::Result<()> {
        let _one_at_a_time = self.saving.lock();
        let mut content = Vec::new();
        {
            let mut inner = self.inner.lock();
            if !std::mem::take(&mut inner.changed) {
                return Ok(());
            }
            // The old ones first: read back in this order, the young ones are young again.
            for (EntityId { kind, key }, name) in inner.old.iter().chain(&inner.young) {
                content.push(kind.0);
                content.extend_from_slice(&key.0);
                content.extend_from_slice(&(name.len() as u16).to_le_bytes());
                content.extend_from_slice(name.as_bytes());
            }
        }
        let sealed = [MAGIC.as_slice(), &self.cipher.seal(content)?].concat();
        file::replace(&self.path, &sealed, Readers::Owner).inspect_err(|_| self.inner.lock().changed = true)
    }

    fn read(&self) -> io::Result<Vec<(EntityId, String)>> {
        let content = std::fs::read(&self.path)?;
        let sealed = content.strip_prefix(MAGIC.as_slice()).ok_or_else(|| cipher::damaged("it is no name dictionary"))?;
        let opened = self.cipher.open(sealed)?;
        let mut rest = opened.as_slice();
        let mut names = Vec::new();
        while let Some((name, more)) = entry(rest) {
            names.push(name);
            rest = more;
        }
        Ok(names)
    }
}

fn entry(bytes: &[u8]) -> Option<((EntityId, String), &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (key, rest) = rest.split_first_chunk::<16>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some(((EntityId { kind: EntityType(*kind), key: EntityKey(*key) }, name), rest))
}

impl Inner {
    fn put(&mut self, entity: EntityId, name: &str, half: usize) {
        let weight = OVERHEAD + name.len();
        if self.bytes + weight > half {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
            self.count = self.old.len();
        }
        self.bytes += weight;
        // Of one that was known already, the disk knows the name too.
        let known = self.old.contains_key(&entity);
        self.changed |= !known;
        let replaced = self.young.insert(entity, name.into()).is_some();
        self.count += usize::from(!known && !replaced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telltale_features::entity::Subject;

    fn subjects(number: u8, name: Option<&str>) -> Subjects {
        let id = EntityId { kind: EntityType(1), key: EntityKey([number; 16]) };
        Subjects::new([Subject { id, verified: false, name: name.map(Into::into) }])
    }

    fn id(number: u8) -> EntityId {
        EntityId { kind: EntityType(1), key: EntityKey([number; 16]) }
    }

    #[test]
    fn names_outlive_a_restart_and_are_not_readable_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::open(folder.path(), 1 << 20).unwrap();
        names.learn(&subjects(1, Some("192.0.2.77")));
        names.learn(&subjects(2, None));
        names.save().unwrap();
        let stored = std::fs::read(folder.path().join(FILE)).unwrap();
        assert!(!stored.windows(10).any(|window| window == b"192.0.2.77"));
        let again = Names::open(folder.path(), 1 << 20).unwrap();
        assert_eq!((again.of(id(1)).as_deref(), again.of(id(2)), again.len()), (Some("192.0.2.77"), None, 1));
        assert!(again.forget(id(1)).unwrap());
        assert!(!again.forget(id(1)).unwrap());
        assert_eq!(Names::open(folder.path(), 1 << 20).unwrap().of(id(1)), None);
    }

    #[test]
    fn a_changed_byte_or_another_key_is_noticed_and_nothing_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::open(folder.path(), 1 << 20).unwrap();
        names.learn(&subjects(1, Some("192.0.2.77")));
        names.save().unwrap();
        let mut stored = std::fs::read(folder.path().join(FILE)).unwrap();
        *stored.last_mut().unwrap() ^= 1;
        std::fs::write(folder.path().join(FILE), stored).unwrap();
        assert_eq!(Names::open(folder.path(), 1 << 20).unwrap().len(), 0);
    }

    #[test]
    fn the_dictionary_is_bounded_and_what_is_seen_again_stays() {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::open(folder.path(), 20 * (OVERHEAD + 8)).unwrap();
        for number in 0..=255 {
            names.learn(&subjects(0, Some("the-same")));
            names.learn(&subjects(number, Some("the-same")));
        }
        assert!(names.len() <= 21, "{}", names.len());
        assert_eq!(names.of(id(0)).as_deref(), Some("the-same"));
        assert_eq!(names.of(id(100)), None);
    }
}
