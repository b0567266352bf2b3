//! What shows that files may have changed without reading them: name, time and size.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name, time of the last change and size of a file; no time and no size where there is none.
pub type Stamp = (PathBuf, Option<SystemTime>, u64);

/// The stamps of a file, or of each file of a folder, in order.
pub fn stamps(path: &Path) -> Vec<Stamp> {
    let files: Vec<PathBuf> = match std::fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(_) => vec![path.to_path_buf()],
    };
    let mut stamps: Vec<Stamp> = files
        .into_iter()
        .map(|path| {
            let metadata = path.metadata().ok();
            let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            (path, modified, metadata.map_or(0, |metadata| metadata.len()))
        })
        .collect();
    stamps.sort();
    stamps
}
