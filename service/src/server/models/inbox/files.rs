//! Files of the inbox as others write them: read without following a link, removed only if nobody has put another in their place.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

/// What a file is called while it is looked whether it is still the one that was read.
const TAKEN: &str = "taken";

/// Which file it is, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Time of the last change of its content: seconds and nanoseconds.
    changed: (i64, i64),
}

/// What stands under a name of the inbox.
#[derive(Debug)]
pub enum Found {
    /// Its bytes, and which file they are of.
    Plain(Vec<u8>, Stamp),
    /// A plain file of that many bytes, more than allowed; it was not read.
    TooLarge(u64),
    /// A link, a folder, a pipe, a device.
    Other,
}

impl Stamp {
    /// The stamp of a file.
    pub fn of(metadata: &Metadata) -> Self {
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.len());
        Self { device, inode, size, changed: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// Reads a file, if it is a plain one of at most that many bytes. What was looked at is what is read: a link is not followed, whenever it
/// took the file's place.
///
/// # Errors
/// When the file cannot be opened or read.
pub fn read(path: &Path, most: u64) -> io::Result<Found> {
    // A pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // What a link and a socket are answered with.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(Found::Other),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Found::Other);
    }
    if metadata.len() > most {
        return Ok(Found::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    (&mut file).take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        size if size > most => Ok(Found::TooLarge(size)),
        _ => Ok(Found::Plain(bytes, Stamp::of(&metadata))),
    }
}

/// Removes a file that was read. False when another one stands there by now, or it was written to: that stays.
///
/// # Errors
/// When it cannot be moved or removed.
pub fn remove(path: &Path, read: Stamp) -> io::Result<bool> {
    // Under another name nobody can put a file in its place any more.
    let aside = aside(path);
    std::fs::rename(path, &aside)?;
    if Stamp::of(&aside.symlink_metadata()?) == read {
        std::fs::remove_file(&aside)?;
        return Ok(true);
    }
    put_back(&aside, path)?;
    Ok(false)
}

/// Puts back what a killed server had moved aside.
pub fn recover(inbox: &Path) {
    let Ok(entries) = std::fs::read_dir(inbox) else { return };
    let left = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|end| end == TAKEN));
    for path in left {
        if let Err(error) = put_back(&path, &path.with_extension("")) {
            tracing::warn!(path = %path.display(), %error, "a file of the inbox cannot be put back");
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TAKEN);
    name.into()
}

/// A file that was put there in the meantime is newer and stays.
fn put_back(aside: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(rustix::fs::CWD, aside, rustix::fs::CWD, path, rustix::fs::RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => std::fs::remove_file(aside),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(path: &Path) -> (Vec<u8>, Stamp) {
        match read(path, 100).unwrap() {
            Found::Plain(bytes, stamp) => (bytes, stamp),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_plain_file_is_read_and_only_as_much_as_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("secret"), b"not for a model").unwrap();
        std::os::unix::fs::symlink(at("secret"), at("link.onnx")).unwrap();
        assert!(matches!(read(&at("link.onnx"), 100).unwrap(), Found::Other));
        std::fs::create_dir(at("folder.onnx")).unwrap();
        assert!(matches!(read(&at("folder.onnx"), 100).unwrap(), Found::Other));
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe.onnx"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(read(&at("pipe.onnx"), 100).unwrap(), Found::Other));
        assert_eq!(plain(&at("secret")).0, b"not for a model");
        assert!(matches!(read(&at("secret"), 14).unwrap(), Found::TooLarge(15)));
        assert_eq!(read(&at("absent"), 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_newer_file_of_the_same_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.onnx");
        std::fs::write(&path, b"first").unwrap();
        let (_, stamp) = plain(&path);
        // Another file under its name, and the same file written to.
        let newer = folder.path().join("newer");
        std::fs::write(&newer, b"other").unwrap();
        std::fs::rename(&newer, &path).unwrap();
        assert!(!remove(&path, stamp).unwrap());
        let (bytes, stamp) = plain(&path);
        assert_eq!(bytes, b"other");
        std::fs::write(&path, b"longer than it was").unwrap();
        assert!(!remove(&path, stamp).unwrap());
        let (bytes, stamp) = plain(&path);
        assert_eq!(bytes, b"longer than it was");
        assert!(remove(&path, stamp).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left aside");
    }

    #[test]
    fn what_a_kill_left_aside_comes_back_unless_something_newer_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("one.onnx.taken"), b"aside").unwrap();
        std::fs::write(at("two.onnx.taken"), b"aside").unwrap();
        std::fs::write(at("two.onnx"), b"newer").unwrap();
        recover(folder.path());
        assert_eq!((plain(&at("one.onnx")).0, plain(&at("two.onnx")).0), (b"aside".to_vec(), b"newer".to_vec()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
