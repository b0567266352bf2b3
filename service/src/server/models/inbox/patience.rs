//! Which files of the inbox are ready to be taken: looks at them enter, the ready ones leave. A file that still changes waits, and one that
//! could not be dealt with is left alone for longer and longer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::Stamp;

/// Looks during which a file must not have changed before it is read.
const STILL: u32 = 2;
/// Looks after which a file that is not complete will not become so any more.
const GIVEN_UP: u32 = 24;
/// Longest pause after something failed, looks: five minutes at least.
const LONGEST: u32 = 1_200;

/// The files and what was seen of each.
#[derive(Debug, Default)]
pub struct Patience(BTreeMap<PathBuf, Seen>);

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    still: u32,
    /// Looks to let pass.
    pause: u32,
    failures: u32,
}

/// Whether a file is to be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Not yet.
    No,
    /// Yes, and it may become more complete.
    Yes,
    /// Yes, and this is the last try.
    Last,
}

impl Patience {
    /// Forgets all files but these.
    pub fn keep(&mut self, files: &[PathBuf]) {
        self.0.retain(|path, _| files.contains(path));
    }

    /// One look at a file.
    pub fn look(&mut self, path: &Path, stamp: Stamp) -> Ready {
        let seen = self.0.entry(path.to_path_buf()).or_insert(Seen { stamp, still: 0, pause: 0, failures: 0 });
        if seen.stamp != stamp {
            *seen = Seen { stamp, still: 0, pause: 0, failures: 0 };
            return Ready::No;
        }
        if seen.pause > 0 {
            seen.pause -= 1;
            return Ready::No;
        }
        seen.still += 1;
        match seen.still {
            ..STILL => Ready::No,
            STILL..GIVEN_UP => Ready::Yes,
            GIVEN_UP.. => Ready::Last,
        }
    }

    /// Something failed that has nothing to do with the file: twice the pause each time. True at the first time, when it is to be said.
    pub fn failed(&mut self, path: &Path) -> bool {
        let Some(seen) = self.0.get_mut(path) else { return true };
        seen.failures += 1;
        seen.pause = 4_u32.saturating_mul(1 << seen.failures.min(16)).min(LONGEST);
        seen.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(folder: &Path, bytes: &[u8]) -> Stamp {
        let path = folder.join("file");
        std::fs::write(&path, bytes).unwrap();
        Stamp::of(&path.metadata().unwrap())
    }

    #[test]
    fn a_file_is_taken_once_it_rests_and_given_up_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let (mut patience, path) = (Patience::default(), Path::new("mine.onnx"));
        let half = stamp(folder.path(), b"ha");
        assert_eq!((patience.look(path, half), patience.look(path, half)), (Ready::No, Ready::Yes));
        let whole = stamp(folder.path(), b"half");
        assert_eq!((patience.look(path, whole), patience.look(path, whole)), (Ready::No, Ready::No));
        let rest: Vec<_> = (0..GIVEN_UP - 2).map(|_| patience.look(path, whole)).collect();
        assert!(rest.iter().all(|ready| *ready == Ready::Yes), "{rest:?}");
        assert_eq!(patience.look(path, whole), Ready::Last);
    }

    #[test]
    fn what_fails_is_said_once_and_tried_less_and_less_often() {
        let folder = tempfile::tempdir().unwrap();
        let (mut patience, path, stamp) = (Patience::default(), Path::new("mine.onnx"), stamp(folder.path(), b"x"));
        patience.look(path, stamp);
        let (mut said, mut tries) = (0, Vec::new());
        for look in 0..10_000 {
            if patience.look(path, stamp) != Ready::No {
                tries.push(look);
                said += u32::from(patience.failed(path));
            }
        }
        let pauses: Vec<i32> = tries.windows(2).map(|two| two[1] - two[0] - 1).collect();
        assert_eq!((said, &pauses[..3], pauses.iter().max()), (1, &[8, 16, 32][..], Some(&LONGEST.cast_signed())), "{pauses:?}");
        patience.keep(&[]);
        assert!(patience.failed(path), "a file that went and came is new");
    }
}
