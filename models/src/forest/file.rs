//! The file of a forest, `model.bin`: bytes enter and leave, checked. Little-endian, depth first, five bytes a split, three a leaf.
//!
//! `TTIF`, version 1 (u8), inputs (u8), sample (u32), trees (u32); then each tree: a split is its input (u8), its threshold (f32) and
//! both branches; a leaf is 255 (u8) and its rows less one (u16).

use super::{Branch, MAX_DEPTH, MAX_INPUTS, MAX_TREES, Trees};
use crate::bytes::Reader;

const MAGIC: &[u8; 4] = b"TTIF";
const VERSION: u8 = 1;
const LEAF: u8 = 255;

/// The bytes of a forest.
///
/// # Errors
/// What does not fit the format: more than 255 inputs, more than 65,536 rows in a leaf.
pub fn encode(trees: &Trees) -> Result<Vec<u8>, String> {
    let inputs = u8::try_from(trees.inputs).map_err(|_| format!("{} inputs, allowed are 1 to {MAX_INPUTS}", trees.inputs))?;
    let count = u32::try_from(trees.trees.len()).map_err(|_| "too many trees".to_string())?;
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend([VERSION, inputs]);
    out.extend(trees.sample.to_le_bytes());
    out.extend(count.to_le_bytes());
    trees.trees.iter().try_for_each(|tree| put(tree, &mut out))?;
    Ok(out)
}

fn put(branch: &Branch, out: &mut Vec<u8>) -> Result<(), String> {
    match branch {
        Branch::Leaf { rows } => {
            let rows = rows.checked_sub(1).and_then(|rows| u16::try_from(rows).ok());
            out.push(LEAF);
            out.extend(rows.ok_or("a leaf has no row or more than 65536")?.to_le_bytes());
            Ok(())
        }
        Branch::Split { input, threshold, below, above } => {
            out.push(*input);
            out.extend(threshold.to_le_bytes());
            put(below, out)?;
            put(above, out)
        }
    }
}

/// The forest in these bytes.
///
/// # Errors
/// Where the bytes end early, go on too long, or say what is not allowed.
pub fn decode(bytes: &[u8]) -> Result<Trees, String> {
    let mut reader = Reader::new(bytes);
    if &reader.take::<4>()? != MAGIC {
        return Err("no forest: it does not begin with `TTIF`".to_string());
    }
    let [version, inputs] = reader.take::<2>()?;
    if version != VERSION {
        return Err(format!("forest format {version}, this build reads {VERSION}"));
    }
    let sample = reader.word()?;
    let count = reader.word()? as usize;
    if !(1..=MAX_TREES).contains(&count) {
        return Err(format!("{count} trees, allowed are 1 to {MAX_TREES}"));
    }
    let trees = (0..count).map(|_| branch(&mut reader, 0)).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(Trees { inputs: usize::from(inputs), sample, trees })
}

/// A node and all below it.
fn branch(reader: &mut Reader<'_>, depth: usize) -> Result<Branch, String> {
    if depth > MAX_DEPTH {
        return Err(format!("a tree is deeper than {MAX_DEPTH}"));
    }
    let [input] = reader.take()?;
    if input == LEAF {
        return Ok(Branch::Leaf { rows: u32::from(reader.short()?) + 1 });
    }
    let threshold = reader.number()?;
    let below = Box::new(branch(reader, depth + 1)?);
    let above = Box::new(branch(reader, depth + 1)?);
    Ok(Branch::Split { input, threshold, below, above })
}
