//! The file of a linear model, `model.bin`: bytes enter and leave, checked. Little-endian; all numbers are float32.
//!
//! `TTLN`, version 1 (u8), kind (u8: 1 PCA, 2 mixture, 3 k-means, 4 logistic), inputs (u16), centre and width of each input; then
//! - PCA and mixture: rank m (u16), noise, mean, m directions; a mixture also its components (u16), each with its mean (m), the lower triangle
//!   of its precision (m·(m+1)/2) and its offset;
//! - k-means: centroids (u16), each with one number an input;
//! - logistic: one weight an input, and the bias.

use super::{Basis, Component, Head, MAX_CLUSTERS, MAX_RANK, Parts};
use crate::bytes::Reader;
use crate::scale::{MAX_INPUTS, Scale};

const MAGIC: &[u8; 4] = b"TTLN";
const VERSION: u8 = 1;

/// The bytes of a model.
///
/// # Errors
/// What there is more of than the format holds.
pub fn encode(parts: &Parts) -> Result<Vec<u8>, String> {
    let mut out = MAGIC.to_vec();
    out.extend([VERSION, code(&parts.head)]);
    out.extend(count(parts.scales.len())?);
    put(&mut out, parts.scales.iter().flat_map(|scale| [&scale.centre, &scale.width]));
    match &parts.head {
        Head::Pca(basis) => put_basis(&mut out, basis)?,
        Head::Gmm(basis, components) => {
            put_basis(&mut out, basis)?;
            out.extend(count(components.len())?);
            for component in components {
                put(&mut out, component.mean.iter().chain(&component.precision).chain([&component.offset]));
            }
        }
        Head::KMeans(centroids) => {
            out.extend(count(centroids.len())?);
            put(&mut out, centroids.iter().flatten());
        }
        Head::Logistic { weights, bias } => put(&mut out, weights.iter().chain([bias])),
    }
    Ok(out)
}

const fn code(head: &Head) -> u8 {
    match head {
        Head::Pca(_) => 1,
        Head::Gmm(..) => 2,
        Head::KMeans(_) => 3,
        Head::Logistic { .. } => 4,
    }
}

fn count(number: usize) -> Result<[u8; 2], String> {
    u16::try_from(number).map(u16::to_le_bytes).map_err(|_| format!("{number} inputs, directions or clusters are too many"))
}

fn put<'a>(out: &mut Vec<u8>, numbers: impl Iterator<Item = &'a f32>) {
    numbers.for_each(|number| out.extend(number.to_le_bytes()));
}

fn put_basis(out: &mut Vec<u8>, basis: &Basis) -> Result<(), String> {
    out.extend(count(basis.directions.len())?);
    put(out, [&basis.noise].into_iter().chain(&basis.mean).chain(basis.directions.iter().flatten()));
    Ok(())
}

/// The model in these bytes; [`super::Linear::new`] checks its numbers.
///
/// # Errors
/// Where the bytes end early, go on too long, or say what is not allowed.
pub fn decode(bytes: &[u8]) -> Result<Parts, String> {
    let mut reader = Reader::new(bytes);
    if &reader.take::<4>()? != MAGIC {
        return Err("no linear model: it does not begin with `TTLN`".to_string());
    }
    let [version, kind] = reader.take::<2>()?;
    if version != VERSION {
        return Err(format!("linear model format {version}, this build reads {VERSION}"));
    }
    let inputs = some(&mut reader, "inputs", MAX_INPUTS)?;
    let scales = (0..inputs).map(|_| Ok(Scale { centre: reader.number()?, width: reader.number()? })).collect::<Result<_, String>>()?;
    let head = match kind {
        1 => Head::Pca(basis(&mut reader, inputs)?),
        2 => {
            let basis = basis(&mut reader, inputs)?;
            let rank = basis.directions.len();
            let components = some(&mut reader, "components", MAX_CLUSTERS)?;
            let component = |_| {
                let (mean, precision) = (reader.numbers(rank)?, reader.numbers(rank * (rank + 1) / 2)?);
                Ok(Component { mean, precision, offset: reader.number()? })
            };
            Head::Gmm(basis, (0..components).map(component).collect::<Result<_, String>>()?)
        }
        3 => {
            let centroids = some(&mut reader, "centroids", MAX_CLUSTERS)?;
            Head::KMeans((0..centroids).map(|_| reader.numbers(inputs)).collect::<Result<_, _>>()?)
        }
        4 => Head::Logistic { weights: reader.numbers(inputs)?, bias: reader.number()? },
        other => return Err(format!("kind {other} of a linear model, this build reads 1 to 4")),
    };
    reader.end()?;
    Ok(Parts { scales, head })
}

fn some(reader: &mut Reader<'_>, what: &str, most: usize) -> Result<usize, String> {
    let found = usize::from(reader.short()?);
    if (1..=most).contains(&found) { Ok(found) } else { Err(format!("{found} {what}, allowed are 1 to {most}")) }
}

fn basis(reader: &mut Reader<'_>, inputs: usize) -> Result<Basis, String> {
    let rank = some(reader, "directions", MAX_RANK)?;
    let (noise, mean) = (reader.number()?, reader.numbers(inputs)?);
    let directions = (0..rank).map(|_| reader.numbers(inputs)).collect::<Result<_, _>>()?;
    Ok(Basis { mean, directions, noise })
}
