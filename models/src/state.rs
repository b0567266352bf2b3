//! The life of one version in a process: STAGED → VERIFIED → PROBED → WARM → READY → in a part → DRAINING → UNLOADED, or FAILED.
//!
//! A version fails alone and keeps the reason. Nothing here loads anything; the loader moves a version from state to state.

use std::fmt;

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It stands in the repository; nothing of it was checked yet.
    Staged,
    /// Manifest, digests and feature hashes are right; a foreign file was judged.
    Verified,
    /// It runs, has the right shape and reproduces its golden rows.
    Probed,
    /// Each of its sessions has scored once.
    Warm,
    /// It could take any part at once.
    Ready,
    /// It scores beside the champion and counts for nothing.
    Shadow,
    /// It counts for some of the entities.
    Canary,
    /// It counts.
    Champion,
    /// It plays no part any more; transactions that began with it still end with it.
    Draining,
    /// It is out of memory.
    Unloaded,
    /// It cannot be used; the reason says what its author has to change.
    Failed,
}

impl State {
    /// Its name as the documentation writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Staged => "STAGED",
            Self::Verified => "VERIFIED",
            Self::Probed => "PROBED",
            Self::Warm => "WARM",
            Self::Ready => "READY",
            Self::Shadow => "SHADOW",
            Self::Canary => "CANARY",
            Self::Champion => "CHAMPION",
            Self::Draining => "DRAINING",
            Self::Unloaded => "UNLOADED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether a version in this state may pass to that one.
    pub const fn may_become(self, next: Self) -> bool {
        use State::{Canary, Champion, Draining, Failed, Probed, Ready, Shadow, Staged, Unloaded, Verified, Warm};
        match (self, next) {
            (Staged, Verified) | (Verified, Probed) | (Probed, Warm) | (Warm, Ready) => true,
            (Ready | Shadow | Canary | Champion | Draining, Ready | Shadow | Canary | Champion) => true,
            (Ready | Shadow | Canary | Champion, Draining) | (Draining, Unloaded) => true,
            // What failed or was unloaded may be tried again.
            (Failed | Unloaded, Staged) => true,
            (Staged | Verified | Probed | Warm | Ready | Shadow | Canary | Champion, Failed) => true,
            _ => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::State::*;

    #[test]
    fn a_version_goes_forward_fails_from_anywhere_and_never_skips_a_check() {
        for pair in [Staged, Verified, Probed, Warm, Ready, Shadow, Canary, Champion, Draining, Unloaded, Staged].windows(2) {
            assert!(pair[0].may_become(pair[1]), "{} → {}", pair[0], pair[1]);
        }
        assert!([Staged, Verified, Probed, Warm, Ready, Shadow, Canary, Champion].iter().all(|state| state.may_become(Failed)));
        for part in [Shadow, Canary, Champion] {
            assert!([Staged, Verified, Probed, Warm, Failed, Unloaded].iter().all(|state| !state.may_become(part)), "{part}");
        }
        assert!([Staged, Verified, Probed, Failed, Unloaded].iter().all(|state| !state.may_become(Ready)));
        assert!(Failed.may_become(Staged) && !Failed.may_become(Verified) && !Champion.may_become(Unloaded));
    }
}
