//! Reads the little-endian files of native models: bytes enter, numbers leave; nothing is allocated by what a file claims.

/// Where a file is being read.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let part = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let part = *part.ok_or_else(|| self.truncated())?;
        self.at += N;
        Ok(part)
    }

    pub(crate) fn short(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub(crate) fn word(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(crate) fn number(&mut self) -> Result<f32, String> {
        Ok(f32::from_le_bytes(self.take()?))
    }

    /// That many float32, if they are there.
    pub(crate) fn numbers(&mut self, count: usize) -> Result<Vec<f32>, String> {
        let end = count.checked_mul(4).and_then(|bytes| bytes.checked_add(self.at));
        let part = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.truncated())?;
        self.at += part.len();
        let (numbers, _) = part.as_chunks::<4>();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// That the file ends here.
    pub(crate) fn end(&self) -> Result<(), String> {
        match self.bytes.len().saturating_sub(self.at) {
            0 => Ok(()),
            more => Err(format!("{more} bytes follow the end of the model")),
        }
    }

    fn truncated(&self) -> String {
        format!("truncated: {} bytes, more are needed at byte {}", self.bytes.len(), self.at)
    }
}
