//! What passes between the server and a worker: frames of a length and a body over a Unix socket pair. Both ends are this program, but
//! the worker's is not trusted: everything it sends is bounded.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::repository::Output;

/// Largest frame towards a worker: a model and its description. What a model may weigh is said by the judge.
const MAX_REQUEST: usize = 128 << 20;
/// Largest frame from a worker: scores of a batch, or a message.
pub const MAX_ANSWER: usize = 1 << 20;

/// What a worker is asked.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// Load this model.
    Load(Spec, Vec<u8>),
    /// Score these rows, one after the other.
    Score(u32, Vec<f32>),
}

/// How a model is to be loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Names of the inputs, in the order of a row.
    pub inputs: Vec<String>,
    /// What comes out.
    pub output: Output,
}

/// What a worker answers.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// It stands ready.
    Ready,
    /// The scores.
    Scores(Vec<f64>),
    /// Why not, in words.
    Refused(String),
}

/// Writes a request.
///
/// # Errors
/// When the other end is gone.
pub fn ask(to: &mut impl Write, request: &Request) -> io::Result<()> {
    let mut body = Vec::new();
    match request {
        Request::Load(spec, bytes) => {
            let spec = serde_json::to_vec(spec)?;
            body.push(0);
            body.extend((spec.len() as u32).to_le_bytes());
            body.extend(spec);
            body.extend(bytes);
        }
        Request::Score(rows, values) => {
            body.push(1);
            body.extend(rows.to_le_bytes());
            values.iter().for_each(|value| body.extend(value.to_le_bytes()));
        }
    }
    send(to, &body)
}

/// Reads a request; `None` at the end.
///
/// # Errors
/// When the bytes are none.
pub fn asked(from: &mut impl Read) -> io::Result<Option<Request>> {
    let Some(body) = receive(from, MAX_REQUEST)? else { return Ok(None) };
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no request");
    let (kind, rest) = body.split_first().ok_or_else(wrong)?;
    let (number, rest) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let number = u32::from_le_bytes(*number);
    Ok(Some(match kind {
        0 => {
            let (spec, bytes) = rest.split_at_checked(number as usize).ok_or_else(wrong)?;
            Request::Load(serde_json::from_slice(spec)?, bytes.to_vec())
        }
        1 => {
            let values = rest.chunks_exact(4).filter_map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)));
            Request::Score(number, values.collect())
        }
        _ => return Err(wrong()),
    }))
}

/// Writes an answer.
///
/// # Errors
/// When the other end is gone.
pub fn answer(to: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut body = Vec::new();
    match answer {
        Answer::Ready => body.push(0),
        Answer::Scores(scores) => {
            body.push(1);
            scores.iter().for_each(|score| body.extend(score.to_le_bytes()));
        }
        Answer::Refused(why) => {
            body.push(2);
            body.extend(why.bytes().take(4_096));
        }
    }
    send(to, &body)
}

/// Reads an answer.
///
/// # Errors
/// When it does not come in time, the worker is gone, or what came is no answer.
pub fn answered(from: &mut impl Read) -> io::Result<Answer> {
    let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the worker is gone");
    let body = receive(from, MAX_ANSWER)?.ok_or_else(gone)?;
    match body.split_first() {
        Some((0, [])) => Ok(Answer::Ready),
        Some((1, rest)) if rest.len() % 8 == 0 => {
            Ok(Answer::Scores(rest.chunks_exact(8).filter_map(|bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?))).collect()))
        }
        Some((2, why)) => Ok(Answer::Refused(String::from_utf8_lossy(why).into_owned())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "what the worker sent is no answer")),
    }
}

fn send(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    // One write a frame: a small one is one system call.
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(body);
    to.write_all(&frame)
}

fn receive(from: &mut impl Read, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes, allowed are {most}")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_sent_and_wrong_ones_are_refused() {
        let spec = Spec { inputs: vec!["a".into()], output: Output::default() };
        for request in [Request::Load(spec, vec![1, 2, 3]), Request::Score(2, vec![1.5, f32::MAX])] {
            let mut bytes = Vec::new();
            ask(&mut bytes, &request).unwrap();
            assert_eq!(asked(&mut bytes.as_slice()).unwrap(), Some(request));
        }
        for given in [Answer::Ready, Answer::Scores(vec![0.1, -3.0]), Answer::Refused("no".into())] {
            let mut bytes = Vec::new();
            answer(&mut bytes, &given).unwrap();
            assert_eq!(answered(&mut bytes.as_slice()).unwrap(), given);
        }
        assert_eq!(asked(&mut [0_u8; 0].as_slice()).unwrap(), None);
        for bytes in [&[1, 0, 0, 0, 9][..], &[0xff; 8], &[4, 0, 0, 0, 1, 2], &[3, 0, 0, 0, 1, 0, 0]] {
            assert!(answered(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
