//! What stands in a snapshot beside the entities: its header, and what a restart would else have to compute again.
//!
//! Messages enter and bytes leave, or the other way. Entity types are written by number, and the header says which number is which
//! name, so that a schema that has them in another order still reads them.

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};
use telltale_features::entity::{EntityId, EntityKey, EntityType};
use telltale_features::store::embedded::ShardMark;
use telltale_features::store::{Claim, EntityReads, History, Moment, Sequence, Status};
use telltale_features::time::Timestamp;

/// Tags of the parts.
pub mod tag {
    /// The header, first.
    pub const HEADER: u8 = b'H';
    /// Entities.
    pub const ENTITIES: u8 = b'E';
    /// Where the shards stood.
    pub const SHARDS: u8 = b'S';
    /// Histories of transactions that the cut found under way.
    pub const HISTORIES: u8 = b'P';
    /// Verdicts given.
    pub const VERDICTS: u8 = b'V';
    /// Which session was opened to whom.
    pub const SESSIONS: u8 = b'O';
    /// The last part.
    pub const END: u8 = b'Z';
}

/// What a snapshot is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Everything up to this number is in it.
    pub sequence: u64,
    /// The clock at that number, microseconds since 1970.
    pub now_us: i64,
    /// Number of the installation's key.
    pub key_id: u32,
    /// Shows whether a key is the same without telling it.
    pub key_check: String,
    /// Digest of the schema.
    pub schema: String,
    /// Names of the entity types, by number.
    pub types: Vec<String>,
    /// Number of the journal file from which on everything later is found; 0: there was no journal.
    pub journal_file: u64,
}

impl Header {
    /// The moment of the cut.
    pub const fn moment(&self) -> Moment {
        Moment { sequence: Sequence(self.sequence), now: Timestamp::from_micros(self.now_us) }
    }
}

#[derive(Clone, PartialEq, Message)]
struct WireHistory {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(int64, tag = "2")]
    now_us: i64,
    #[prost(int64, tag = "3")]
    event_us: i64,
    #[prost(bool, tag = "4")]
    clamped: bool,
    #[prost(message, repeated, tag = "5")]
    entities: Vec<WireReads>,
}

#[derive(Clone, PartialEq, Message)]
struct WireReads {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    /// Bits of the numbers: of NaN and of minus zero too.
    #[prost(fixed64, tag = "3")]
    lateness: u64,
    #[prost(fixed64, repeated, tag = "4")]
    reads: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct WireHistories {
    #[prost(message, repeated, tag = "1")]
    histories: Vec<WireHistory>,
}

/// A verdict as it is remembered.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Remembered {
    /// The transaction.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Digest of its content.
    #[prost(fixed64, tag = "2")]
    pub digest: u64,
    /// When, microseconds since 1970.
    #[prost(int64, tag = "3")]
    pub at_us: i64,
    /// The encoded verdict.
    #[prost(bytes = "bytes", tag = "4")]
    pub verdict: Bytes,
}

/// A session and to whom it was opened.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Opened {
    /// Key of the session.
    #[prost(bytes = "vec", tag = "1")]
    pub session: Vec<u8>,
    /// Key of the user.
    #[prost(bytes = "vec", tag = "2")]
    pub user: Vec<u8>,
    /// Whether the gateway had vouched for it.
    #[prost(bool, tag = "3")]
    pub verified: bool,
    /// The user's name, where the schema keeps it.
    #[prost(string, optional, tag = "4")]
    pub name: Option<String>,
}

/// Several of them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Verdicts {
    /// Oldest first.
    #[prost(message, repeated, tag = "1")]
    pub all: Vec<Remembered>,
}

/// Several of them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sessions {
    /// Oldest first.
    #[prost(message, repeated, tag = "1")]
    pub all: Vec<Opened>,
    /// Which route each asked for last, oldest first.
    #[prost(message, repeated, tag = "2")]
    pub routes: Vec<Asked>,
}

/// The route that a session asked for last.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Asked {
    /// Key of the session.
    #[prost(bytes = "vec", tag = "1")]
    pub session: Vec<u8>,
    /// The route's template.
    #[prost(string, tag = "2")]
    pub route: String,
}

/// Encodes histories.
pub fn histories(all: &[History]) -> Vec<u8> {
    let reads = |reads: &EntityReads| WireReads {
        kind: reads.entity.kind.0.into(),
        key: reads.entity.key.0.to_vec(),
        lateness: reads.lateness.to_bits(),
        reads: reads.reads.iter().map(|read| read.to_bits()).collect(),
    };
    let one = |history: &History| WireHistory {
        sequence: history.moment.sequence.0,
        now_us: history.moment.now.micros(),
        event_us: history.event_time.micros(),
        clamped: history.clamped,
        entities: history.entities.iter().map(reads).collect(),
    };
    WireHistories { histories: all.iter().map(one).collect() }.encode_to_vec()
}

/// Decodes histories, of the same schema.
///
/// # Errors
/// When the bytes are none.
pub fn histories_from(bytes: &[u8]) -> Result<Vec<History>, prost::DecodeError> {
    let reads = |wire: WireReads| {
        let entity = EntityId { kind: EntityType(u8::try_from(wire.kind).ok()?), key: key(&wire.key)? };
        Some(EntityReads { entity, lateness: f64::from_bits(wire.lateness), reads: wire.reads.into_iter().map(f64::from_bits).collect() })
    };
    let one = |wire: WireHistory| History {
        moment: Moment { sequence: Sequence(wire.sequence), now: Timestamp::from_micros(wire.now_us) },
        event_time: Timestamp::from_micros(wire.event_us),
        clamped: wire.clamped,
        status: Status::Full,
        claim: Claim::Unasked,
        entities: wire.entities.into_iter().filter_map(reads).collect(),
    };
    Ok(WireHistories::decode(bytes)?.histories.into_iter().map(one).collect())
}

/// A key of sixteen bytes.
pub fn key(bytes: &[u8]) -> Option<EntityKey> {
    bytes.try_into().ok().map(EntityKey)
}

/// Encodes where the shards stood.
pub fn shards(marks: &[ShardMark]) -> Vec<u8> {
    marks.iter().flat_map(|mark| mark.epoch.to_le_bytes().into_iter().chain(mark.now.micros().to_le_bytes())).collect()
}

/// Decodes where the shards stood.
pub fn shards_from(bytes: &[u8]) -> Vec<ShardMark> {
    let (marks, _) = bytes.as_chunks::<16>();
    let one = |mark: &[u8; 16]| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *mark;
        let now = Timestamp::from_micros(i64::from_le_bytes([i, j, k, l, m, n, o, p]));
        ShardMark { epoch: u64::from_le_bytes([a, b, c, d, e, f, g, h]), now }
    };
    marks.iter().map(one).collect()
}
