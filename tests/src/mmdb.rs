//! Small databases in the MaxMind format, written for tests: networks and their records enter, the bytes of a file leave.
//!
//! The format is that of <https://maxmind.github.io/MaxMind-DB/>, with records of 24 bits. Numbers with a fraction part are doubles,
//! others unsigned integers of 32 bits; of a number written as `52.0` the fraction counts.

use std::net::IpAddr;

use serde_json::{Value, json};

const SEPARATOR: [u8; 16] = [0; 16];
const METADATA: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// When every database was built, seconds since 1970.
pub const BUILT: u64 = 1_700_000_000;

const TEXT: u8 = 2;
const DOUBLE: u8 = 3;
const UINT16: u8 = 5;
const UINT32: u8 = 6;
const MAP: u8 = 7;
const UINT64: u8 = 9;
const ARRAY: u8 = 11;
const FLAG: u8 = 14;

#[derive(Clone, Copy, Debug)]
enum Child {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database that is being written.
#[derive(Debug)]
pub struct Mmdb {
    kind: &'static str,
    version: u16,
    nodes: Vec<[Child; 2]>,
    data: Vec<u8>,
}

impl Mmdb {
    /// An empty one of that type for addresses of that version, 4 or 6; in one of version 6 IPv4 stands below `::/96`.
    pub fn new(kind: &'static str, version: u16) -> Self {
        Self { kind, version, nodes: vec![[Child::Nothing; 2]], data: Vec::new() }
    }

    /// Adds a network such as `192.0.2.0/24` with its record. Networks must not lie within each other.
    ///
    /// # Panics
    /// When it is no network.
    #[must_use]
    pub fn with(mut self, network: &str, record: &Value) -> Self {
        let (bits, length) = bits_of(network, self.version).unwrap_or_else(|| unreachable!("`{network}` is no network"));
        let offset = self.data.len();
        encode(record, &mut self.data);
        let mut node = 0;
        for depth in 0..length {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            let next = self.nodes.len();
            let Some(child) = self.nodes.get_mut(node).and_then(|node| node.get_mut(side)) else { break };
            match *child {
                _ if depth + 1 == length => *child = Child::Data(offset),
                Child::Node(known) => node = known,
                Child::Nothing | Child::Data(_) => {
                    *child = Child::Node(next);
                    self.nodes.push([Child::Nothing; 2]);
                    node = next;
                }
            }
        }
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let count = self.nodes.len();
        let mut file = Vec::new();
        for child in self.nodes.iter().flatten() {
            let value = match *child {
                Child::Nothing => count,
                Child::Node(node) => node,
                Child::Data(offset) => count + SEPARATOR.len() + offset,
            };
            file.extend(u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes().into_iter().skip(1));
        }
        file.extend(SEPARATOR);
        file.extend(&self.data);
        file.extend(METADATA);
        control(MAP, 9, &mut file);
        let mut named = |name: &str, encoded: &dyn Fn(&mut Vec<u8>)| {
            encode(&json!(name), &mut file);
            encoded(&mut file);
        };
        let small = |value: u16| move |to: &mut Vec<u8>| unsigned(UINT16, &value.to_be_bytes(), to);
        named("binary_format_major_version", &small(2));
        named("binary_format_minor_version", &small(0));
        named("ip_version", &small(self.version));
        named("record_size", &small(24));
        named("node_count", &|to| unsigned(UINT32, &u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes(), to));
        named("build_epoch", &|to| unsigned(UINT64, &BUILT.to_be_bytes(), to));
        named("database_type", &|to| encode(&json!(self.kind), to));
        named("description", &|to| encode(&json!({"en": "written for a test"}), to));
        named("languages", &|to| encode(&json!(["en"]), to));
        file
    }
}

/// The first bits of a network's addresses, from the top of 128, and how many count.
fn bits_of(network: &str, version: u16) -> Option<(u128, u32)> {
    let (address, length) = network.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match (address.parse().ok()?, version) {
        (IpAddr::V4(address), 4) => Some((u128::from(u32::from(address)) << 96, length)),
        (IpAddr::V4(address), _) => Some((u128::from(u32::from(address)), length + 96)),
        (IpAddr::V6(address), _) => Some((u128::from(address), length)),
    }
}

/// A control byte, with the length behind it where it is 29 or more; kinds above 7 have a byte of their own.
fn control(kind: u8, length: usize, to: &mut Vec<u8>) {
    let (size, more) = match u8::try_from(length) {
        Ok(size @ 0..29) => (size, None),
        _ => (29, u8::try_from(length - 29).ok()),
    };
    to.push(if kind > 7 { size } else { kind << 5 | size });
    if kind > 7 {
        to.push(kind - 7);
    }
    to.extend(more);
}

fn unsigned(kind: u8, bytes: &[u8], to: &mut Vec<u8>) {
    control(kind, bytes.len(), to);
    to.extend(bytes);
}

fn encode(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            control(TEXT, text.len(), to);
            to.extend(text.as_bytes());
        }
        Value::Number(number) => match number.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => unsigned(UINT32, &number.to_be_bytes(), to),
            None => {
                control(DOUBLE, 8, to);
                to.extend(number.as_f64().unwrap_or_default().to_be_bytes());
            }
        },
        Value::Object(fields) => {
            control(MAP, fields.len(), to);
            for (name, value) in fields {
                encode(&Value::String(name.clone()), to);
                encode(value, to);
            }
        }
        Value::Array(values) => {
            control(ARRAY, values.len(), to);
            values.iter().for_each(|value| encode(value, to));
        }
        Value::Bool(flag) => control(FLAG, usize::from(*flag), to),
        Value::Null => control(MAP, 0, to),
    }
}
