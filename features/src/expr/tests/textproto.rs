//! A small reader of protobuf's text format: messages as lists of named fields, enough for the conformance files.

/// A message: its fields in order.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<(String, Field)>);

/// One field's value.
#[derive(Clone, Debug)]
pub enum Field {
    Text(Vec<u8>),
    Word(String),
    Message(Message),
}

impl Message {
    pub fn all<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m Field> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, field)| field)
    }

    pub fn messages<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m Message> {
        self.all(name).filter_map(|field| match field {
            Field::Message(message) => Some(message),
            _ => None,
        })
    }

    pub fn message(&self, name: &str) -> Option<&Message> {
        self.0.iter().find_map(|(known, field)| match field {
            Field::Message(message) if known == name => Some(message),
            _ => None,
        })
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|(known, field)| match field {
            Field::Text(bytes) if known == name => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
    }
}

pub fn parse(text: &str) -> Message {
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
    let message = reader.message();
    assert_eq!(reader.peek(), None, "the whole file is read");
    message
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at)? {
                b'#' => {
                    while self.text.get(self.at).is_some_and(|byte| *byte != b'\n') {
                        self.at += 1;
                    }
                }
                byte if byte.is_ascii_whitespace() || matches!(byte, b',' | b';') => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    fn message(&mut self) -> Message {
        let mut fields = Vec::new();
        while let Some(byte) = self.peek() {
            if matches!(byte, b'}' | b'>') {
                break;
            }
            let name = match byte {
                b'[' => self.until(b']'),
                _ => self.word(),
            };
            assert!(!name.is_empty(), "a field name at byte {}", self.at);
            if self.peek() == Some(b':') {
                self.at += 1;
            }
            if self.peek() == Some(b'[') {
                self.at += 1;
                while self.peek() != Some(b']') {
                    fields.push((name.clone(), self.value()));
                }
                self.at += 1;
            } else {
                fields.push((name, self.value()));
            }
        }
        Message(fields)
    }

    fn value(&mut self) -> Field {
        match self.peek().expect("a value") {
            b'{' | b'<' => {
                self.at += 1;
                let message = self.message();
                self.at += 1;
                Field::Message(message)
            }
            b'"' | b'\'' => {
                let mut bytes = Vec::new();
                while let Some(quote @ (b'"' | b'\'')) = self.peek() {
                    self.string(quote, &mut bytes);
                }
                Field::Text(bytes)
            }
            _ => Field::Word(self.word()),
        }
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.text.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_.+-/".contains(byte)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }

    fn until(&mut self, end: u8) -> String {
        let start = self.at + 1;
        while self.text[self.at] != end {
            self.at += 1;
        }
        self.at += 1;
        String::from_utf8_lossy(&self.text[start..self.at - 1]).into_owned()
    }

    fn string(&mut self, quote: u8, out: &mut Vec<u8>) {
        self.at += 1;
        loop {
            let byte = self.text[self.at];
            self.at += 1;
            match byte {
                byte if byte == quote => return,
                b'\\' => self.escape(out),
                byte => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) {
        let byte = self.text[self.at];
        self.at += 1;
        let at = self.at;
        let mut digits = |count: usize, radix: u32, from: usize| {
            let mut end = from;
            while end < self.text.len() && end < from + count && (self.text[end] as char).is_digit(radix) {
                end += 1;
            }
            let number = u32::from_str_radix(std::str::from_utf8(&self.text[from..end]).unwrap(), radix).unwrap();
            self.at = end;
            number
        };
        match byte {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'v' => out.push(11),
            b'x' => out.push(digits(2, 16, at) as u8),
            b'0'..=b'7' => out.push(digits(3, 8, at - 1) as u8),
            b'u' | b'U' => {
                let number = digits(if byte == b'u' { 4 } else { 8 }, 16, at);
                out.extend(char::from_u32(number).unwrap().to_string().as_bytes());
            }
            other => out.push(other),
        }
    }
}
