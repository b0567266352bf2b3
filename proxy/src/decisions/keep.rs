//! The saved table: written by atomic rename, read at start. Holds the hash key, so only its owner may read it.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use telltale_proto::v1::StreamResponse;

/// Reads the table; none when there is no file yet.
pub fn load(path: &Path) -> io::Result<Option<StreamResponse>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

/// Writes the table beside the file and renames it over: a reader sees the old table or the new one.
pub fn save(path: &Path, table: &StreamResponse) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}
