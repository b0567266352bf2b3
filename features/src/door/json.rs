//! A JSON reader for hostile and cut-off bodies: any bytes enter, the leaves read so far leave.
//!
//! It never fails and never recurses: at the first byte that is not JSON it stops and keeps what it has. A string that the end
//! of the sample cuts off is not reported, since half an identifier is somebody else's.

use std::borrow::Cow;

use smallvec::SmallVec;

/// Deeper nesting than this ends the scan.
const MAX_DEPTH: usize = 64;
/// Only so many keys of one object are compared with a new one.
const MAX_SIBLINGS: usize = 64;

/// A value that is neither object nor array.
pub(super) struct Leaf<'a> {
    /// Its text: of a string its content, else as written.
    pub text: Cow<'a, str>,
    /// Whether it was a string.
    pub quoted: bool,
}

/// What the body is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Greatest nesting depth.
    pub depth: usize,
    /// Whether it ended before its outermost value was complete, or was not JSON at all.
    pub incomplete: bool,
    /// Whether it held a byte that no JSON may hold at that place.
    pub malformed: bool,
    /// Repeated keys.
    pub duplicates: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    KeyOrEnd,
    Key,
    CommaOrEnd,
}

/// Keys from the outermost object to the leaf; an array's element has the key `""`.
pub(super) type Path<'a> = SmallVec<[Cow<'a, str>; 8]>;

struct Level {
    object: bool,
    first_key: usize,
}

/// Reads `bytes` and hands every leaf to `visit`.
pub(super) fn scan<'a>(bytes: &'a [u8], mut visit: impl FnMut(&Path<'a>, Leaf<'a>)) -> Shape {
    let mut reader = Reader { bytes, at: 0 };
    let mut shape = Shape::default();
    let mut levels: SmallVec<[Level; 8]> = SmallVec::new();
    let mut path = Path::new();
    let mut keys: SmallVec<[u64; 32]> = SmallVec::new();
    let mut expect = Expect::Value;
    loop {
        let Some(byte) = reader.next_visible() else {
            shape.incomplete = true;
            return shape;
        };
        match (expect, byte) {
            (Expect::Value, b'{' | b'[') => {
                if levels.len() >= MAX_DEPTH {
                    shape.malformed = true;
                    return shape;
                }
                let object = byte == b'{';
                levels.push(Level { object, first_key: keys.len() });
                path.push(Cow::Borrowed(""));
                shape.depth = shape.depth.max(levels.len());
                reader.at += 1;
                expect = if object { Expect::KeyOrEnd } else { Expect::Value };
            }
            (Expect::Value, b'"') => match reader.string() {
                Some(text) => {
                    visit(&path, Leaf { text, quoted: true });
                    expect = Expect::CommaOrEnd;
                }
                None => {
                    shape.incomplete = true;
                    return shape;
                }
            },
            (Expect::Value | Expect::CommaOrEnd, b']') | (Expect::KeyOrEnd | Expect::CommaOrEnd, b'}') => {
                let fits = levels.last().is_some_and(|level| level.object == (byte == b'}'));
                let Some(level) = levels.pop().filter(|_| fits) else {
                    shape.malformed = true;
                    return shape;
                };
                keys.truncate(level.first_key);
                path.pop();
                reader.at += 1;
                expect = Expect::CommaOrEnd;
            }
            (Expect::Value, b'-' | b'0'..=b'9' | b'a'..=b'z') => match reader.scalar() {
                Some(text) => {
                    visit(&path, Leaf { text, quoted: false });
                    expect = Expect::CommaOrEnd;
                }
                None => {
                    // Of a number at the very end nobody knows whether it went on, unless nothing encloses it.
                    shape.incomplete = !levels.is_empty();
                    return shape;
                }
            },
            (Expect::KeyOrEnd | Expect::Key, b'"') => {
                let Some(key) = reader.string() else {
                    shape.incomplete = true;
                    return shape;
                };
                if reader.next_visible() != Some(b':') {
                    shape.incomplete = true;
                    shape.malformed = reader.at < bytes.len();
                    return shape;
                }
                reader.at += 1;
                shape.duplicates += usize::from(repeated(&mut keys, levels.last(), &key));
                if let Some(last) = path.last_mut() {
                    *last = key;
                }
                expect = Expect::Value;
            }
            (Expect::CommaOrEnd, b',') if !levels.is_empty() => {
                reader.at += 1;
                expect = if levels.last().is_some_and(|level| level.object) { Expect::Key } else { Expect::Value };
            }
            _ => {
                shape.malformed = true;
                return shape;
            }
        }
        if levels.is_empty() {
            shape.malformed = reader.next_visible().is_some();
            return shape;
        }
    }
}

fn repeated(keys: &mut SmallVec<[u64; 32]>, level: Option<&Level>, key: &str) -> bool {
    let hash = fnv(key.as_bytes());
    let siblings = keys.get(level.map_or(0, |level| level.first_key)..).unwrap_or_default();
    if siblings.contains(&hash) {
        return true;
    }
    if siblings.len() < MAX_SIBLINGS {
        keys.push(hash);
    }
    false
}

/// FNV-1a, 64 bits: only to notice a repeated key, never to identify.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next_visible(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// The string that begins at the current quotation mark; `None` when the end is missing.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let from = self.at + 1;
        let mut escaped = false;
        let mut at = from;
        loop {
            match self.bytes.get(at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        let inner = self.bytes.get(from..at)?;
        self.at = at + 1;
        Some(if escaped { Cow::Owned(unescaped(inner)) } else { String::from_utf8_lossy(inner) })
    }

    /// A number or a word; `None` when it touches the end of the bytes.
    fn scalar(&mut self) -> Option<Cow<'a, str>> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E'))?;
        let text = rest.get(..length)?;
        self.at += length;
        Some(String::from_utf8_lossy(text))
    }
}

/// Resolves the escapes of RFC 8259; what is not one stays as it is.
fn unescaped(inner: &[u8]) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut units: SmallVec<[u16; 4]> = SmallVec::new();
    let mut rest = inner;
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'\\'
            && after.first() == Some(&b'u')
            && let Some(unit) = after.get(1..5).and_then(hex4)
        {
            units.push(unit);
            rest = after.get(5..).unwrap_or_default();
            continue;
        }
        flush(&mut units, &mut out);
        if *byte != b'\\' {
            out.push(*byte);
            rest = after;
            continue;
        }
        let Some((escape, after)) = after.split_first() else { break };
        match escape {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            other => out.push(*other),
        }
        rest = after;
    }
    flush(&mut units, &mut out);
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn flush(units: &mut SmallVec<[u16; 4]>, out: &mut Vec<u8>) {
    for unit in char::decode_utf16(units.drain(..)) {
        let mut buffer = [0; 4];
        out.extend_from_slice(unit.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer).as_bytes());
    }
}

fn hex4(digits: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(text, 16).ok()
}

/// Whether a path matches a pattern in which `*` stands for any one key or index.
pub(super) fn matches(path: &Path<'_>, pattern: &[String]) -> bool {
    path.len() == pattern.len() && path.iter().zip(pattern).all(|(key, wanted)| wanted == "*" || key == wanted)
}
