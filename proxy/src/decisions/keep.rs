//! The saved table: written by atomic rename, read at start. Holds the hash key, so only its owner may read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use telltale_proto::v1::StreamResponse;

/// A file that belongs to this proxy as long as the value lives.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    /// The lock stands beside: the file itself is another one after each rename. None once it is released.
    // INVARIANT: held while the table is written, so that no write ends after the release.
    lock: Mutex<Option<File>>,
}

impl Kept {
    /// Makes the file's folder if it is missing, and makes sure that no other proxy uses the file.
    ///
    /// # Errors
    /// When the folder cannot be written or another proxy uses the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(beside(path, ".lock"))?;
        lock.try_lock().map_err(|error| io::Error::new(io::ErrorKind::ResourceBusy, format!("another proxy uses it ({error})")))?;
        Ok(Self { path: path.to_path_buf(), lock: Mutex::new(Some(lock)) })
    }

    /// Lets another proxy use the file, after a write that is under way: this one writes it no more.
    pub fn release(&self) {
        if let Some(lock) = self.lock.lock().take()
            && let Err(error) = lock.unlock()
        {
            tracing::warn!(file = %self.path.display(), %error, "the file's lock is held until the process ends");
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the table; none when there is no file yet.
    ///
    /// # Errors
    /// When it cannot be read or is no table.
    pub fn load(&self) -> io::Result<Option<StreamResponse>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes the table beside the file and renames it over: a reader sees the old table or the new one. Nothing after the release.
    ///
    /// # Errors
    /// When it cannot be written; the old one stands.
    pub fn save(&self, table: &StreamResponse) -> io::Result<()> {
        let held = self.lock.lock();
        if held.is_none() {
            return Ok(());
        }
        let staged = beside(&self.path, ".new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&staged)?;
        file.write_all(&serde_json::to_vec(table)?)?;
        file.sync_all()?;
        std::fs::rename(&staged, &self.path)
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
