//! Verdicts in the form in which they leave: encoded once, then handed on as bytes.
//!
//! A verdict goes to its caller, to repeated calls, and stays for reports without a token. As a message it would be cloned, piece
//! by piece, for each of them, and a remembered one would take several times its size.

use crate::journal::Erasure;
use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use telltale_proto::v1;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// An encoded `Verdict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(Bytes);

impl Sealed {
    /// Encodes a verdict.
    pub fn new(verdict: &v1::Verdict) -> Self {
        Self(verdict.encode_to_vec().into())
    }

    /// A verdict as a snapshot has it.
    pub const fn restored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Whether it holds what is to be erased.
    pub fn holds(&self, erasure: &Erasure) -> bool {
        erasure.is_in(&self.0)
    }

    /// The verdict as a message.
    ///
    /// # Errors
    /// Never for what was made here.
    pub fn open(&self) -> Result<v1::Verdict, prost::DecodeError> {
        v1::Verdict::decode(self.0.clone())
    }
}

/// Answer to `Score`: `ScoreResponse` with its verdict as bytes.
pub struct ScoreReply(pub Sealed);

/// Answer to a frame: `ScoreStreamResponse`, its verdict as bytes.
pub struct FrameReply {
    /// The frame's number.
    pub sequence: u64,
    /// The answer.
    pub answer: Answer,
}

/// What a frame is answered with.
pub enum Answer {
    /// A transaction's verdict.
    Verdict(Sealed),
    /// An outcome or an aggregate was taken.
    Acknowledgement(v1::Acknowledgement),
    /// The frame could not be taken.
    Error(v1::FrameError),
}

/// Puts an embedded message under that field number.
fn put(field: u32, content: &[u8], buffer: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(content.len() as u64, buffer);
    buffer.put_slice(content);
}

impl ScoreReply {
    fn encode(&self, buffer: &mut impl BufMut) {
        put(1, &self.0.0, buffer);
    }
}

impl FrameReply {
    fn encode(self, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        let payload = match self.answer {
            Answer::Verdict(verdict) => {
                if self.sequence != 0 {
                    encode_key(1, WireType::Varint, buffer);
                    encode_varint(self.sequence, buffer);
                }
                put(2, &verdict.0, buffer);
                return Ok(());
            }
            Answer::Acknowledgement(acknowledgement) => v1::score_stream_response::Payload::Acknowledgement(acknowledgement),
            Answer::Error(error) => v1::score_stream_response::Payload::Error(error),
        };
        v1::ScoreStreamResponse { sequence: self.sequence, payload: Some(payload) }.encode(buffer)
    }
}

/// One frame as it arrived: what can still be read of one that is no message is its number.
pub struct Frame(pub Result<v1::ScoreStreamRequest, (u64, String)>);

/// Codec of `Score`.
#[derive(Clone, Copy, Default)]
pub struct ScoreCodec;

/// Codec of `ScoreStream`. The generated one would end the stream at the first frame that is no message.
#[derive(Clone, Copy, Default)]
pub struct FrameCodec;

/// The number of a frame, whatever else is in it.
#[derive(Clone, PartialEq, Message)]
struct SequenceOnly {
    #[prost(uint64, tag = "1")]
    sequence: u64,
}

impl Codec for ScoreCodec {
    type Encode = ScoreReply;
    type Decode = v1::ScoreRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for ScoreCodec {
    type Item = ScoreReply;
    type Error = Status;

    fn encode(&mut self, item: ScoreReply, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer);
        Ok(())
    }
}

impl Decoder for ScoreCodec {
    type Item = v1::ScoreRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        v1::ScoreRequest::decode(buffer).map(Some).map_err(|error| Status::internal(format!("no `ScoreRequest`: {error}")))
    }
}

impl Codec for FrameCodec {
    type Encode = FrameReply;
    type Decode = Frame;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = FrameReply;
    type Error = Status;

    fn encode(&mut self, item: FrameReply, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
        use bytes::Buf as _;
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(Frame(v1::ScoreStreamRequest::decode(bytes.clone()).map_err(|error| {
            let sequence = SequenceOnly::decode(bytes).map(|found| found.sequence).unwrap_or_default();
            (sequence, error.to_string())
        }))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::score_stream_response::Payload;

    #[test]
    fn bytes_are_those_of_the_messages() {
        let verdict = v1::Verdict { transaction_id: "t".to_owned(), risk: 12.5, context: vec![1; 300].into(), ..Default::default() };
        let sealed = Sealed::new(&verdict);
        assert_eq!(sealed.open().unwrap(), verdict);
        let mut bytes = Vec::new();
        ScoreReply(sealed.clone()).encode(&mut bytes);
        assert_eq!(bytes, v1::ScoreResponse { verdict: Some(verdict.clone()) }.encode_to_vec());
        let acknowledgement = v1::Acknowledgement { duplicate: true };
        let error = v1::FrameError { code: 3, message: "no".to_owned() };
        for sequence in [0, 1, 300] {
            for (answer, payload) in [
                (Answer::Verdict(sealed.clone()), Payload::Verdict(verdict.clone())),
                (Answer::Acknowledgement(acknowledgement), Payload::Acknowledgement(acknowledgement)),
                (Answer::Error(error.clone()), Payload::Error(error.clone())),
            ] {
                let mut bytes = Vec::new();
                FrameReply { sequence, answer }.encode(&mut bytes).unwrap();
                assert_eq!(bytes, v1::ScoreStreamResponse { sequence, payload: Some(payload) }.encode_to_vec());
            }
        }
    }
}
