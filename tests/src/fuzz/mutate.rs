//! Mutation of byte strings: a corpus and a seeded generator enter, a damaged input leaves.

use rand::{Rng, RngExt};

/// Numbers at which parsers break: borders of integer types and of this project's limits.
const BORDERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff];
/// Pieces of the languages that are parsed here.
const TOKENS: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    ",",
    ":",
    "\\u0000",
    "\\ud800",
    "\n",
    "\r\n",
    "\0",
    "-",
    "1e309",
    "-1e-400",
    "NaN",
    "99999999999999999999",
    "null",
    "true",
    "&a",
    "*a",
    "<<: *a",
    "!!binary ",
    "|\n",
    "? ",
    "---\n",
    "#",
    "%00",
    "..",
    "/",
    ";",
    "=",
    "(",
    ")",
    "matches(\"(a+)+$\")",
    "size(",
    "&&",
    "\u{fffd}",
    "\u{202e}",
];

/// One to eight mutations of an input from the corpus.
pub fn mutated(corpus: &[Vec<u8>], rng: &mut impl Rng) -> Vec<u8> {
    let mut input = pick(corpus, rng);
    for _ in 0..rng.random_range(1..=8u32) {
        once(&mut input, corpus, rng);
    }
    input.truncate(1 << 18);
    input
}

fn pick(corpus: &[Vec<u8>], rng: &mut impl Rng) -> Vec<u8> {
    match corpus.len() {
        0 => Vec::new(),
        many => corpus.get(rng.random_range(0..many)).cloned().unwrap_or_default(),
    }
}

fn once(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut impl Rng) {
    let at = rng.random_range(0..=input.len());
    let end = (at + rng.random_range(1..=32usize)).min(input.len());
    match rng.random_range(0..10u32) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8u32);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = rng.random();
            }
        }
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        4 => {
            let piece = input.get(at..end).unwrap_or_default().repeat(rng.random_range(1..=64usize));
            drop(input.splice(at..at, piece));
        }
        5 => {
            let token = TOKENS.get(rng.random_range(0..TOKENS.len())).copied().unwrap_or_default();
            drop(input.splice(at..at, token.bytes()));
        }
        6 => {
            let token = TOKENS.get(rng.random_range(0..TOKENS.len())).copied().unwrap_or_default();
            drop(input.splice(at..end, token.bytes()));
        }
        7 => {
            let number = BORDERS.get(rng.random_range(0..BORDERS.len())).copied().unwrap_or_default();
            let width = 1 << rng.random_range(0..4u32);
            let to = (at + width).min(input.len());
            drop(input.splice(at..to, number.to_le_bytes().into_iter().take(width)));
        }
        8 => {
            let number = BORDERS.get(rng.random_range(0..BORDERS.len())).copied().unwrap_or_default();
            drop(input.splice(at..end, number.to_string().into_bytes()));
        }
        _ => {
            let other = pick(corpus, rng);
            let from = rng.random_range(0..=other.len());
            drop(input.splice(at..end, other.into_iter().skip(from).take(256)));
        }
    }
}
