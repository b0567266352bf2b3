//! The file of half-space trees, `model.bin`: bytes enter and leave, checked. Little-endian.
//!
//! `TTHS`, version 1 (u8), depth (u8), inputs (u16), trees (u16), window (u32), seed (u64), centre and width (f32) of each input; then the
//! profile: its rows (u32) and the mass (u32) of each node, tree after tree, depth first, nothing below a node at which a walk ends.

use super::{MAX_DEPTH, MAX_TREES, Profile, Shape};
use crate::bytes::Reader;
use crate::scale::{MAX_INPUTS, Scale};

const MAGIC: &[u8; 4] = b"TTHS";
const VERSION: u8 = 1;

/// The bytes of a shape with a profile.
///
/// # Errors
/// What there is more of than the format holds.
pub fn encode(shape: &Shape, profile: &Profile) -> Result<Vec<u8>, String> {
    let inputs = u16::try_from(shape.scales.len()).map_err(|_| format!("{} inputs, allowed are 1 to {MAX_INPUTS}", shape.scales.len()))?;
    let mut out = MAGIC.to_vec();
    out.extend([VERSION, shape.depth]);
    out.extend(inputs.to_le_bytes());
    out.extend(shape.trees.to_le_bytes());
    out.extend(shape.window.to_le_bytes());
    out.extend(shape.seed.to_le_bytes());
    shape.scales.iter().flat_map(|scale| [scale.centre, scale.width]).for_each(|number| out.extend(number.to_le_bytes()));
    put(profile, &mut out);
    Ok(out)
}

/// The bytes of a profile alone: those at the end of the file.
pub fn encode_profile(profile: &Profile) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + profile.masses.len() * 4);
    put(profile, &mut out);
    out
}

fn put(profile: &Profile, out: &mut Vec<u8>) {
    out.extend(profile.rows.to_le_bytes());
    profile.masses.iter().for_each(|mass| out.extend(mass.to_le_bytes()));
}

/// Shape and profile in these bytes.
///
/// # Errors
/// Where the bytes end early, go on too long, or say what is not allowed.
pub fn decode(bytes: &[u8]) -> Result<(Shape, Profile), String> {
    let mut reader = Reader::new(bytes);
    if &reader.take::<4>()? != MAGIC {
        return Err("no half-space trees: it does not begin with `TTHS`".to_string());
    }
    let [version, depth] = reader.take::<2>()?;
    if version != VERSION {
        return Err(format!("half-space format {version}, this build reads {VERSION}"));
    }
    let (inputs, trees) = (usize::from(reader.short()?), reader.short()?);
    if !(1..=MAX_INPUTS).contains(&inputs) || !(1..=MAX_TREES).contains(&trees) || !(1..=MAX_DEPTH).contains(&depth) {
        return Err(format!(
            "{inputs} inputs, {trees} trees of depth {depth}; allowed are 1 to {MAX_INPUTS}, 1 to {MAX_TREES} and 1 to {MAX_DEPTH}"
        ));
    }
    let (window, seed) = (reader.word()?, u64::from_le_bytes(reader.take()?));
    let scales = (0..inputs).map(|_| Ok(Scale { centre: reader.number()?, width: reader.number()? })).collect::<Result<_, String>>()?;
    let shape = Shape { scales, seed, trees, depth, window };
    shape.check()?;
    let profile = read(&mut reader, &shape)?;
    reader.end()?;
    Ok((shape, profile))
}

/// The profile in these bytes, which must be one of this shape.
///
/// # Errors
/// Where the bytes end early, go on too long, or do not fit the shape.
pub fn decode_profile(shape: &Shape, bytes: &[u8]) -> Result<Profile, String> {
    let mut reader = Reader::new(bytes);
    let profile = read(&mut reader, shape)?;
    reader.end()?;
    Ok(profile)
}

fn read(reader: &mut Reader<'_>, shape: &Shape) -> Result<Profile, String> {
    let mut profile = Profile { rows: reader.word()?, masses: Vec::new() };
    for _ in 0..shape.trees {
        node(reader, shape, &mut profile, 0)?;
    }
    profile.check(shape)?;
    Ok(profile)
}

/// A node and all below it, as far as there are bytes.
fn node(reader: &mut Reader<'_>, shape: &Shape, profile: &mut Profile, depth: u8) -> Result<(), String> {
    let mass = reader.word()?;
    profile.masses.push(mass);
    if !shape.ends(mass, profile.rows, depth) {
        node(reader, shape, profile, depth + 1)?;
        node(reader, shape, profile, depth + 1)?;
    }
    Ok(())
}
