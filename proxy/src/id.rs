//! Transaction identifiers: 32 hexadecimal digits from the thread's cryptographic generator. Never taken from a client.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A fresh identifier.
pub fn fresh() -> String {
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).map_or('0', |digit| char::from(*digit));
    crate::clock::entropy().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
