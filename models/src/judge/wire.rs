//! The protobuf wire format, read without allocating: bytes enter, fields leave. Knows nothing of ONNX.
//!
//! Format: <https://protobuf.dev/programming-guides/encoding/>. Groups, which ONNX never uses, are refused.

/// Why bytes are no protobuf message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Offset within the message.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// One field's value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A number of variable length.
    Varint(u64),
    /// Four or eight bytes.
    Fixed(&'a [u8]),
    /// A message, a text, bytes or packed numbers.
    Bytes(&'a [u8]),
}

/// Reads the fields of one message.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of these bytes.
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far it was read.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The next field: its number and value.
    ///
    /// # Errors
    /// Where and why the bytes end being a message.
    pub fn next_field(&mut self) -> Result<Option<(u64, Value<'a>)>, Broken> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| self.broken("a length that no file has"))?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed(self.take(4)?),
            _ => return Err(self.broken("a field of a kind that ONNX does not have")),
        };
        // Parsers differ in what they make of longer tags; two readings of one file must not be possible.
        if tag >> 3 == 0 || tag > u64::from(u32::MAX) {
            return Err(self.broken("a field without a proper number"));
        }
        Ok(Some((tag >> 3, value)))
    }

    /// The next number of packed ones.
    ///
    /// # Errors
    /// As [`Fields::next_field`].
    pub fn next_varint(&mut self) -> Result<Option<u64>, Broken> {
        if self.at >= self.bytes.len() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.broken("the end in the middle of a number"))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.broken("a number of more than ten bytes"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let part = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.broken("the end in the middle of a field"))?;
        self.at += length;
        Ok(part)
    }

    const fn broken(&self, what: &'static str) -> Broken {
        Broken { at: self.at, what }
    }
}

impl<'a> Value<'a> {
    /// The bytes of a field that has some; empty for numbers.
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Varint(_) | Self::Fixed(_) => &[],
        }
    }

    /// The number of a field that is one; 0 for others.
    pub const fn number(self) -> u64 {
        match self {
            Self::Varint(number) => number,
            Self::Bytes(_) | Self::Fixed(_) => 0,
        }
    }

    /// Text, with what is not UTF-8 replaced.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}
