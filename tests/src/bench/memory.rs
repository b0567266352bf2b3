//! What entity state weighs: bytes by entity type, in memory and as blobs, and what the process holds for it.

use telltale_features::schema::Schema;
use telltale_features::store::embedded::EmbeddedStore;

use super::{Bar, Failure, Row};

/// A million typical entities may take so much.
const MILLION: f64 = 2e9;

/// Bytes that this process has in memory, from `/proc/self/statm`.
///
/// # Errors
/// When that cannot be read.
pub fn resident() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split_whitespace().nth(1).ok_or("no figure in /proc/self/statm")?.parse()?;
    Ok(pages * rustix::param::page_size() as f64)
}

/// The rows of a filled store; `grown` is what the process grew by while it was filled.
pub fn rows(name: &str, (store, schema): (&EmbeddedStore, &Schema), grown: f64) -> Vec<Row> {
    let mut by_type: Vec<(Vec<u64>, Vec<u64>)> = vec![Default::default(); schema.entity_types().len()];
    store.for_each_size(|entity, memory, blob| {
        if let Some((memories, blobs)) = by_type.get_mut(entity.kind.index()) {
            memories.push(memory);
            blobs.push(blob as u64);
        }
    });
    let held: usize = by_type.iter().map(|(memories, _)| memories.len()).sum();
    let total: u64 = by_type.iter().flat_map(|(memories, _)| memories).sum();
    let million = |bytes: f64| bytes * 1e6 / held.max(1) as f64;
    let mut rows = vec![
        Row::new(format!("{name}: a million entities, accounted"), million(total as f64) / 1e6, "MB").bar(Bar::AtMost(MILLION / 1e6)),
        Row::new(format!("{name}: a million entities, resident"), million(grown) / 1e6, "MB").bar(Bar::AtMost(MILLION / 1e6)),
    ];
    for (spec, (memories, blobs)) in schema.entity_types().iter().zip(&mut by_type) {
        if memories.is_empty() {
            continue;
        }
        memories.sort_unstable();
        blobs.sort_unstable();
        rows.push(Row::new(format!("{name}: {}, held", spec.name), memories.len() as f64, ""));
        for (what, sizes) in [("memory", &*memories), ("blob", &*blobs)] {
            for (quantile, at) in [("p50", 0.5), ("p99", 0.99)] {
                let place = ((sizes.len() - 1) as f64 * at) as usize;
                let size = sizes.get(place).copied().unwrap_or_default();
                rows.push(Row::new(format!("{name}: {}, {quantile} of {what}", spec.name), size as f64, "B"));
            }
        }
    }
    rows
}
