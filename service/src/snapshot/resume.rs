//! A snapshot on its way back into a store: which one, and from where the journal goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use telltale_features::store::History;

use super::{Reader, Restored, SnapshotError};
use crate::journal;
use crate::replay::{Progress, Resume};
use crate::score::Engine;

/// Puts one snapshot into the engine's store. `None` when its schema is another one and the journal, which is whole, is better replayed:
/// what is newly counted is then counted of the past too.
///
/// # Errors
/// When the snapshot cannot be used.
pub fn restore_one(engine: &Engine, (path, journal): (&PathBuf, &Path), shown: bool) -> Result<Option<Restored>, SnapshotError> {
    let Some(store) = engine.store.embedded() else { return Ok(None) };
    let mut reader = Reader::open(path).map_err(SnapshotError::broken(path))?;
    let header = super::read_header(&mut reader).map_err(SnapshotError::broken(path))?;
    super::check_key(path, &header, &engine.hasher)?;
    let whole = || journal::files(journal).is_ok_and(|files| files.first().is_some_and(|(number, _)| *number == 1));
    if header.schema != engine.schema.digest() && header.journal_file > 0 && whole() {
        tracing::info!(path = %path.display(), "the snapshot is of another schema, and the journal is whole: it is replayed from its beginning");
        return Ok(None);
    }
    let (size, _) = reader.progress();
    tracing::info!(path = %path.display(), bytes = size, "reading the snapshot");
    let bar = Progress::new(Some(size), shown);
    let mut said = 0;
    let restored = super::restore(store, (path, &engine.schema, &engine.hasher), |size, left| {
        let quarter = (size - left) * 4 / size.max(1);
        bar.at(size - left, 0);
        if quarter > said {
            said = quarter;
            tracing::info!("{} % of the snapshot", quarter * 25);
        }
    });
    bar.finish();
    let restored = restored?;
    let Restored { header, entities, unknown, .. } = &restored;
    tracing::info!(sequence = header.sequence, entities, unknown, "snapshot read");
    if *unknown > 0 {
        tracing::warn!(unknown, "entities of types that the schema does not have were left out");
    }
    Ok(Some(restored))
}

/// From where the journal goes on after a snapshot.
pub fn resume(restored: &mut Restored) -> Resume {
    let histories = std::mem::take(&mut restored.histories).into_iter().map(|history| (history.moment.sequence.0, history));
    let histories: HashMap<u64, History> = histories.collect();
    Resume { sequence: restored.header.sequence, histories, first_file: restored.header.journal_file }
}
