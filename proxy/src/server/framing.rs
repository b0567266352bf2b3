//! Watches where each HTTP/1.1 message begins and ends in the raw bytes of a connection, beside hyper's own parser.
//!
//! hyper drops a Content-Length beside a Transfer-Encoding and takes a bare line feed for a line's end without a word. A head
//! that two parsers could read in two ways is found here; the bytes themselves are never changed. After the first such head
//! nothing more is watched, and no further request of that connection is served.

#[cfg(test)]
mod tests;

/// First bytes of a line that are looked at: enough for any honest framing header.
const LINE: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    Lost,
}

/// The watcher of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    state: State,
    line: Vec<u8>,
    line_bytes: u64,
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    heads: u64,
    wrong: Option<&'static str>,
    /// The last byte was a carriage return.
    carriage: bool,
}

impl Default for Watch {
    fn default() -> Self {
        let line = Vec::with_capacity(LINE);
        Self { state: State::Head, line, line_bytes: 0, begun: false, length: None, chunked: false, heads: 0, wrong: None, carriage: false }
    }
}

impl Watch {
    /// Clean heads seen so far.
    pub(super) const fn heads(&self) -> u64 {
        self.heads
    }

    /// What is wrong with the head after those, or with the body between.
    pub(super) const fn wrong(&self) -> Option<&'static str> {
        self.wrong
    }

    /// Takes the next bytes of the connection.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.state != State::Lost {
            bytes = match self.state {
                State::Body(left) => self.skip(left, bytes, State::Body, State::Head),
                State::ChunkData(left) => self.skip(left, bytes, State::ChunkData, State::ChunkEnd),
                _ => self.take_line(bytes),
            };
        }
    }

    fn skip<'a>(&mut self, left: u64, bytes: &'a [u8], more: fn(u64) -> State, then: State) -> &'a [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - here as u64;
        self.state = if left == 0 { then } else { more(left) };
        bytes.get(here..).unwrap_or_default()
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        let room = LINE.saturating_sub(self.line.len()).min(part.len());
        self.line.extend_from_slice(part.get(..room).unwrap_or_default());
        self.line_bytes += part.len() as u64;
        self.look_at(part);
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.end_line(&line);
            self.line = line;
            self.line.clear();
            self.line_bytes = 0;
        }
        rest
    }

    /// What must not stand anywhere in a line.
    fn look_at(&mut self, part: &[u8]) {
        if part.contains(&0) {
            self.object("a NUL byte stands in the request's head");
        }
        let stray = part.windows(2).any(|pair| matches!(pair, [b'\r', next] if *next != b'\n'));
        let stray_before = self.carriage && part.first().is_some_and(|first| *first != b'\n');
        self.carriage = part.last() == Some(&b'\r');
        if stray || stray_before {
            self.object("a carriage return without its line feed stands in the request's head");
        }
    }

    fn object(&mut self, what: &'static str) {
        self.wrong.get_or_insert(what);
    }

    fn end_line(&mut self, line: &[u8]) {
        let whole = self.line_bytes as usize == line.len();
        let text = match line.strip_suffix(b"\r\n") {
            Some(text) => text,
            None => {
                if whole {
                    self.object("a line ends with a bare line feed");
                }
                line.strip_suffix(b"\n").unwrap_or(line)
            }
        };
        match self.state {
            State::Head if text.is_empty() && self.begun => self.end_head(),
            State::Head if text.is_empty() => {}
            State::Head if !self.begun => self.begun = true,
            State::Head => self.header(text, whole),
            State::ChunkSize => self.chunk(text, whole),
            State::ChunkEnd if text.is_empty() => self.state = State::ChunkSize,
            State::ChunkEnd => self.lose("a chunk is longer than its announced size"),
            State::Trailer if text.is_empty() => self.state = State::Head,
            _ => {}
        }
    }

    fn header(&mut self, text: &[u8], whole: bool) {
        if matches!(text.first(), Some(b' ' | b'\t')) {
            return self.object("a header line is folded");
        }
        let Some(colon) = text.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (text.get(..colon).unwrap_or_default(), text.get(colon + 1..).unwrap_or_default().trim_ascii());
        if name.last().is_some_and(u8::is_ascii_whitespace) {
            return self.object("white space stands before the colon of a header");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| digits && whole).and_then(|text| text.parse().ok());
            match (length, self.length) {
                (None, _) => self.object("Content-Length is not one decimal number"),
                (Some(length), Some(known)) if length != known => self.object("Content-Length is given twice with different values"),
                (length, _) => self.length = length,
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !whole || !value.eq_ignore_ascii_case(b"chunked") {
                self.object("Transfer-Encoding may only be `chunked`, once");
            }
            self.chunked = true;
        }
    }

    fn end_head(&mut self) {
        if self.chunked && self.length.is_some() {
            self.object("Content-Length and Transfer-Encoding exclude each other");
        }
        if self.wrong.is_some() {
            self.state = State::Lost;
            return;
        }
        self.heads += 1;
        self.begun = false;
        self.state = match (std::mem::take(&mut self.chunked), self.length.take()) {
            (true, _) => State::ChunkSize,
            (false, Some(length)) if length > 0 => State::Body(length),
            _ => State::Head,
        };
    }

    fn chunk(&mut self, text: &[u8], whole: bool) {
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, rest) = text.split_at(digits);
        let extension = rest.trim_ascii_start();
        let plain = whole && (extension.is_empty() || extension.starts_with(b";"));
        let size = std::str::from_utf8(size).ok().filter(|_| plain).and_then(|size| u64::from_str_radix(size, 16).ok());
        match size {
            None => self.lose("a chunk's size is not one hexadecimal number"),
            _ if self.wrong.is_some() => self.state = State::Lost,
            Some(0) => self.state = State::Trailer,
            Some(size) => self.state = State::ChunkData(size),
        }
    }

    fn lose(&mut self, what: &'static str) {
        self.object(what);
        self.state = State::Lost;
    }
}
