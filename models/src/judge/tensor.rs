//! Tensors of a model: a `TensorProto` enters, its name and the numbers that may be a shape leave, once its data is there and fits.

use super::wire::{Broken, Fields, Value};
use super::{FLOAT, INT64, Rejection, broken, entry};

/// Most numbers of a constant that are kept: shapes have fewer.
pub const SHAPE_NUMBERS: usize = 64;
/// ONNX's number of int32.
const INT32: u64 = 6;

/// A tensor, as far as it matters.
pub struct Tensor {
    /// Its name, printable.
    pub name: String,
    /// Its first numbers, rounded toward zero: one more than shapes have says that it is none.
    pub numbers: Vec<i64>,
}

/// Reads and judges a `TensorProto`: its data must be in it and be as much as its shape says.
pub fn tensor(value: Value<'_>, node: &str, dimensions: usize) -> Result<Tensor, Rejection> {
    let (mut name, mut shape, mut element) = (node.to_string(), Vec::new(), 0);
    let (mut raw, mut typed, mut external, mut location) = (None, 0_u64, false, String::new());
    let mut numbers = Vec::new();
    let mut fields = Fields::of(value.bytes());
    let at = broken("tensors");
    let mut read = || -> Result<(), Broken> {
        while let Some((number, value)) = fields.next_field()? {
            match (number, value) {
                (1, value) => integers(value, &mut shape)?,
                (2, value) => element = value.number(),
                (4, value) => {
                    typed += packed(value, number)?;
                    floats(value, &mut numbers);
                }
                (5 | 7, value) => {
                    typed += packed(value, number)?;
                    integers(value, &mut numbers)?;
                }
                (10 | 11, value) => typed += packed(value, number)?,
                (6, _) => typed += 1,
                (8, value) => name = printable(&value.text()),
                (9, value) => raw = Some(value.bytes()),
                (13, value) => {
                    external = true;
                    let (key, text) = entry(value)?;
                    if key == "location" {
                        location = printable(&text);
                    }
                }
                (14, value) => external |= value.number() == 1,
                _ => {}
            }
        }
        Ok(())
    };
    read().map_err(at)?;
    if external {
        return Err(Rejection::ExternalData { tensor: name, location });
    }
    if shape.len() > dimensions {
        return Err(Rejection::TooManyDimensions { tensor: name, allowed: dimensions });
    }
    let elements = shape.iter().try_fold(1_u64, |product, dim| product.checked_mul(u64::try_from(*dim).ok()?));
    let bytes = raw.map_or(0, |raw| raw.len() as u64);
    let fits = match (elements, raw, element_bytes(element)) {
        (Some(elements), Some(raw), Some(each)) => elements.checked_mul(each) == Some(raw.len() as u64),
        (Some(elements), None, _) => elements == typed,
        _ => false,
    };
    if !fits {
        return Err(Rejection::TensorShape { tensor: name, shape, bytes: bytes.max(typed) });
    }
    if let Some(raw) = raw {
        numbers = from_raw(raw, element);
    }
    Ok(Tensor { name, numbers })
}

/// The first numbers of raw data.
fn from_raw(raw: &[u8], element: u64) -> Vec<i64> {
    let most = SHAPE_NUMBERS + 1;
    match element {
        INT64 => raw.chunks_exact(8).take(most).filter_map(|word| Some(i64::from_le_bytes(word.try_into().ok()?))).collect(),
        INT32 => raw.chunks_exact(4).take(most).filter_map(|word| Some(i64::from(i32::from_le_bytes(word.try_into().ok()?)))).collect(),
        FLOAT => {
            let mut numbers = Vec::new();
            floats(Value::Bytes(raw), &mut numbers);
            numbers
        }
        _ => Vec::new(),
    }
}

/// Adds the integers of a repeated field, packed or not; a few more than shapes have are enough.
pub fn integers(value: Value<'_>, to: &mut Vec<i64>) -> Result<(), Broken> {
    match value {
        Value::Bytes(bytes) => {
            let mut fields = Fields::of(bytes);
            while let Some(number) = fields.next_varint()? {
                if to.len() <= SHAPE_NUMBERS {
                    to.push(number.cast_signed());
                }
            }
        }
        other if to.len() <= SHAPE_NUMBERS => to.push(other.number().cast_signed()),
        _ => {}
    }
    Ok(())
}

/// Adds the float32 numbers of a repeated field, packed or not, rounded toward zero.
pub fn floats(value: Value<'_>, to: &mut Vec<i64>) {
    let (Value::Bytes(bytes) | Value::Fixed(bytes)) = value else { return };
    let room = (SHAPE_NUMBERS + 1).saturating_sub(to.len());
    // The cast saturates.
    let numbers = bytes.chunks_exact(4).filter_map(|word| Some(f32::from_le_bytes(word.try_into().ok()?) as i64));
    to.extend(numbers.take(room));
}

/// How many numbers a repeated field brings.
fn packed(value: Value<'_>, field: u64) -> Result<u64, Broken> {
    let Value::Bytes(bytes) = value else { return Ok(1) };
    match field {
        4 => Ok(bytes.len() as u64 / 4),
        10 => Ok(bytes.len() as u64 / 8),
        // A variable number ends with the byte that has no top bit.
        _ => Ok(bytes.iter().filter(|byte| **byte & 0x80 == 0).count() as u64),
    }
}

const fn element_bytes(element: u64) -> Option<u64> {
    match element {
        2 | 3 | 9 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 => Some(8),
        _ => None,
    }
}

/// The name of a `SparseTensorProto`: that of its values.
pub fn sparse_name(value: Value<'_>) -> Result<String, Broken> {
    let mut fields = Fields::of(value.bytes());
    while let Some((number, value)) = fields.next_field()? {
        if number == 1 {
            let mut values = Fields::of(value.bytes());
            while let Some((number, value)) = values.next_field()? {
                if number == 8 {
                    return Ok(printable(&value.text()));
                }
            }
        }
    }
    Ok(String::new())
}

/// A foreign name that can be shown: short, without control characters.
pub fn printable(name: &str) -> String {
    name.chars().take(80).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
