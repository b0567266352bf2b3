//! What stands in for object stores in a program that was built without them: every address is refused.

use std::path::Path;
use std::time::Duration;

use super::{MirrorError, Pulled, shown};

/// Refuses.
///
/// # Errors
/// [`MirrorError::NotBuilt`].
pub fn pull(url: &str, _: Option<&Path>, _: &Path) -> Result<Pulled, MirrorError> {
    Err(MirrorError::NotBuilt(shown(url)))
}

/// Refuses.
pub fn pull_at_start(url: &str, _: Option<&Path>, _: &Path, _: Option<Duration>) -> Result<Pulled, MirrorError> {
    Err(MirrorError::NotBuilt(shown(url)))
}

/// Refuses.
///
/// # Errors
/// [`MirrorError::NotBuilt`].
pub fn push(url: &str, _: Option<&Path>, _: &Path, _: (&str, Option<u32>)) -> Result<Vec<String>, MirrorError> {
    Err(MirrorError::NotBuilt(shown(url)))
}

#[cfg(test)]
mod tests {
    use super::super::{MirrorError, folder};
    use crate::config::Config;

    #[test]
    fn an_address_is_refused_with_what_to_do_about_it() {
        let mut config = Config::default();
        config.models.repository = Some("s3://bucket/models".to_owned());
        let error = folder(&config).unwrap_err();
        assert!(matches!(error, MirrorError::NotBuilt(_)) && error.to_string().contains("--features object-store"), "{error}");
    }
}
