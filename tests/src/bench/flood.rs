//! A flood of random ids against the embedded store: how much of the real clients' history is left, in bounded memory.
//!
//! Real clients come first, with history; then each id of the flood comes once or twice, and other real clients begin to come between
//! them. A second store, without bound, sees the real clients alone: history has survived where both hold the same state to the last bit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_features::door::Door;
use telltale_features::entity::EntityId;
use telltale_features::event::EntityEvents;
use telltale_features::hash::Keyring;
use telltale_features::schema::Schema;
use telltale_features::store::embedded::{EPOCH, EmbeddedOptions, EmbeddedStore, Step};
use telltale_features::store::{Moment, Sequence, Store, StoreStats};
use telltale_features::time::Timestamp;
use telltale_service::convert;

use super::{Bar, Failure, Row};
use crate::traffic::Traffic;

const START: i64 = 1_790_000_000_000_000;
/// Transactions a second of event time.
const RATE: i64 = 5_000;
/// Transactions of each real client before the flood, and of each that comes during it.
const VISITS: u32 = 5;

/// How large a flood is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Ids of the flood: each is an address, a session and a device of its own.
    pub ids: u32,
    /// Real clients that have history before it.
    pub clients: u32,
    /// Real clients that come during it.
    pub newcomers: u32,
    /// Bound of the store, bytes.
    pub max_bytes: u64,
    /// Transactions of the flood between two of one newcomer.
    pub pause: u32,
}

impl Size {
    /// Ten million ids against 2 GiB; a newcomer comes again after a minute.
    pub const FULL: Self = Self { ids: 10_000_000, clients: 200_000, newcomers: 10_000, max_bytes: 2 << 30, pause: 300_000 };
    /// The same for every day: a thirty-third of it.
    pub const SMALL: Self = Self { ids: 300_000, clients: 6_000, newcomers: 300, max_bytes: 64 << 20, pause: 9_000 };

    /// The one that `TELLTALE_SIZE` asks for.
    pub fn asked() -> Self {
        if std::env::var("TELLTALE_SIZE").is_ok_and(|size| size == "full") { Self::FULL } else { Self::SMALL }
    }
}

/// What a flood left.
#[derive(Clone, Debug)]
pub struct Survival {
    /// Entities of real clients that were seen three times or more, and those whose history is whole.
    pub real: (u64, u64),
    /// The same of those seen once or twice, as the flood's are.
    pub brief: (u64, u64),
    /// The same of those that came during the flood.
    pub newcomers: (u64, u64),
    /// Transactions of the flood.
    pub flood: u64,
    /// Greatest number of bytes that the store held at an epoch's end.
    pub most_bytes: u64,
    /// The store at the end.
    pub stats: StoreStats,
}

/// Makes transactions and applies them to the flooded store; real ones to the other one as well.
struct Stand {
    schema: Arc<Schema>,
    door: Door,
    traffic: Traffic,
    flooded: EmbeddedStore,
    alone: EmbeddedStore,
    batch: Vec<Step>,
    sequence: u64,
    most_bytes: u64,
    /// Whose entity that is, and how often it was seen: the client's number; several: nobody's.
    owners: BTreeMap<EntityId, (Option<u32>, u32)>,
}

impl Stand {
    fn new(size: Size) -> Self {
        let schema = Arc::new(Schema::shipped());
        let store = |max_bytes| EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes });
        Self {
            door: Door::new(Arc::clone(&schema), Keyring::new(1, [9; 32]).hasher()),
            traffic: Traffic::new(23, 1),
            flooded: store(size.max_bytes),
            alone: store(1 << 40),
            batch: Vec::with_capacity(EPOCH as usize),
            sequence: 0,
            most_bytes: 0,
            owners: BTreeMap::new(),
            schema,
        }
    }

    fn send(&mut self, client: u32, is_real: bool) -> Result<(), Failure> {
        let now = Timestamp::from_micros(START + self.sequence.cast_signed() * 1_000_000 / RATE);
        let (mut tx, _) = convert::transaction(self.traffic.of_client(client), "transaction")?;
        tx.time = now;
        let admitted = self.door.admit(tx)?;
        let events: EntityEvents = self.schema.events(&admitted);
        self.sequence += 1;
        let moment = Moment { sequence: Sequence(self.sequence), now };
        if self.sequence.is_multiple_of(EPOCH) {
            self.flooded.replay(&self.batch, 2);
            self.batch.clear();
            if self.sequence.is_multiple_of(32 * EPOCH) {
                self.most_bytes = self.most_bytes.max(self.flooded.stats().bytes.iter().sum());
            }
        }
        if is_real {
            self.alone.replay(&[Step::Observe(events.clone(), moment)], 1);
            for entity in events.entities() {
                let (owner, seen) = self.owners.entry(entity).or_insert((Some(client), 0));
                *owner = owner.filter(|owner| *owner == client);
                *seen += 1;
            }
        }
        self.batch.push(Step::Observe(events, moment));
        Ok(())
    }

    /// Entities of clients in that range that were seen so often, and those whose state is whole.
    fn whole(&self, clients: std::ops::Range<u32>, often: std::ops::RangeInclusive<u32>) -> (u64, u64) {
        let is_own = |(owner, seen): &(Option<u32>, u32)| owner.is_some_and(|owner| clients.contains(&owner)) && often.contains(seen);
        let own = self.owners.iter().filter(|(_, known)| is_own(known));
        let whole = own.clone().filter(|(entity, _)| self.flooded.state(**entity) == self.alone.state(**entity));
        (own.count() as u64, whole.count() as u64)
    }
}

/// Floods a store of the shipped schema.
///
/// # Errors
/// When the transactions cannot be made.
pub fn flood(size: Size) -> Result<Survival, Failure> {
    let mut stand = Stand::new(size);
    for _ in 0..VISITS {
        (0..size.clients).try_for_each(|client| stand.send(client, true))?;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let everyone = size.clients + size.newcomers;
    // A newcomer begins anywhere in the first half and comes again after each pause.
    let mut due: BTreeMap<u64, Vec<(u32, u32)>> = BTreeMap::new();
    for client in size.clients..everyone {
        due.entry(rng.random_range(0..u64::from(size.ids / 2))).or_default().push((client, VISITS));
    }
    let mut sent = 0;
    for id in 0..size.ids {
        for _ in 0..rng.random_range(1..=2) {
            stand.send(everyone + id, false)?;
            sent += 1;
        }
        while let Some(first) = due.first_entry().filter(|first| *first.key() <= sent) {
            for (client, visits) in first.remove() {
                stand.send(client, true)?;
                if visits > 1 {
                    due.entry(sent + u64::from(size.pause)).or_default().push((client, visits - 1));
                }
            }
        }
    }
    stand.flooded.replay(&stand.batch, 2);
    Ok(Survival {
        real: stand.whole(0..size.clients, 3..=u32::MAX),
        brief: stand.whole(0..size.clients, 1..=2),
        newcomers: stand.whole(size.clients..everyone, 3..=u32::MAX),
        flood: sent,
        most_bytes: stand.most_bytes,
        stats: stand.flooded.stats(),
    })
}

/// Measures and returns the rows.
///
/// # Errors
/// When the transactions cannot be made.
pub fn run(_folder: &Path) -> Result<Vec<Row>, Failure> {
    let size = Size::asked();
    let found = flood(size)?;
    let share = |(all, whole): (u64, u64)| whole as f64 * 100.0 / all.max(1) as f64;
    let row = |what: &str, value: f64, unit: &'static str| Row::new(format!("flood: {what}"), value, unit);
    let StoreStats { probation, probation_bytes, evicted, .. } = found.stats;
    Ok(vec![
        row("ids, each once or twice", f64::from(size.ids), ""),
        row("history of three transactions and more that survives", share(found.real), "%").bar(Bar::AtLeast(99.0)),
        row("the same, of clients that came during it", share(found.newcomers), "%"),
        row("the same, of what was seen once or twice as its ids are", share(found.brief), "%"),
        row("most memory held, of the bound", found.most_bytes as f64 * 100.0 / size.max_bytes as f64, "%").bar(Bar::AtMost(101.0)),
        row("bytes of an entity seen once or twice", probation_bytes as f64 / probation.max(1) as f64, "B"),
        row("entities given up", evicted as f64, ""),
    ])
}
