//! Files that are replaced as a whole: after a crash or a power cut there is the old one or the new one.
//!
//! Content enters and is on the disk, under its name, when these return. What a file holds is the caller's.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who may read a file that is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner only.
    Owner,
    /// Whoever the process's umask allows.
    Umask,
}

/// Where the next content of a file is written: beside it, under one name, so that what a crash left is overwritten by the next.
pub fn beside(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// Begins the next content of a file, beside it.
///
/// # Errors
/// When it cannot be created.
pub fn begin(staged: &Path, readers: Readers) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    match readers {
        Readers::Owner => {
            let file = options.mode(0o600).open(staged)?;
            // What a crash left may have been made for more readers.
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        }
        Readers::Umask => options.open(staged),
    }
}

/// Brings what was written beside a file to the disk and puts it in its place, in one step that a power cut does not take back.
///
/// # Errors
/// When it cannot be synced or renamed; the old file then stands.
pub fn put(file: &File, staged: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(staged, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Replaces a file's content.
///
/// # Errors
/// When it cannot be written; the old file then stands.
pub fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let staged = beside(path);
    let mut file = begin(&staged, readers)?;
    file.write_all(content)?;
    put(&file, &staged, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("telltale-file-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = Folder::new("whole");
        let path = folder.0.join("table.json");
        // What a crash left is overwritten, however long it is.
        std::fs::write(beside(&path), "half of something longer").unwrap();
        for content in ["one", "two and more", ""] {
            replace(&path, content.as_bytes(), Readers::Owner).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let names: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["table.json"]);
    }

    #[test]
    fn the_old_file_stands_when_the_new_one_cannot_take_its_place() {
        let folder = Folder::new("stands");
        let place = folder.0.join("taken");
        std::fs::create_dir_all(place.join("inside")).unwrap();
        assert!(replace(&place, b"new", Readers::Umask).is_err(), "a folder is not replaced by a file");
        assert!(place.join("inside").is_dir());
        assert!(replace(&folder.0.join("nowhere/file"), b"new", Readers::Umask).is_err());
    }
}
