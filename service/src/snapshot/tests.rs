//! Snapshot files: whole ones come back, damaged and foreign ones are refused, types are met by name.

use telltale_features::entity::EntityKey;
use telltale_features::kernel::EntityState;
use telltale_features::store::embedded::{EmbeddedOptions, ShardMark};
use telltale_features::store::{EntityReads, Moment, Order, Sequence, Store};
use telltale_features::time::{ManualClock, Timestamp};

use super::*;
use crate::token;

fn parts(path: &Path) -> io::Result<Vec<(u8, Vec<u8>)>> {
    let mut reader = Reader::open(path)?;
    std::iter::from_fn(|| reader.next_part().transpose()).collect()
}

#[test]
fn what_was_written_comes_back_and_damage_anywhere_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), 7);
    let mut writer = Writer::create(&path).unwrap();
    let long = vec![7; 3 << 20];
    for (part, content) in [(b'a', &b"one"[..]), (b'b', &[]), (b'c', &long)] {
        writer.part(part, content).unwrap();
    }
    assert!(files(folder.path()).unwrap().is_empty(), "no name before it is whole");
    let bytes = writer.finish().unwrap();
    assert_eq!(files(folder.path()).unwrap(), [(7, path.clone())]);
    assert_eq!(parts(&path).unwrap(), [(b'a', b"one".to_vec()), (b'c', long)]);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(bytes, whole.len() as u64);
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        assert!(parts(&path).is_err(), "a bit at {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(parts(&path).is_err(), "the first {at} bytes");
    }
}

#[test]
fn the_two_newest_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for number in [3, 20, 100, 9] {
        std::fs::write(path(folder.path(), number), b"x").unwrap();
    }
    std::fs::write(folder.path().join("snapshot-1.new"), b"x").unwrap();
    prune(folder.path()).unwrap();
    assert_eq!(files(folder.path()).unwrap().into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [100, 20]);
    assert!(files(&folder.path().join("none")).unwrap().is_empty());
}

#[test]
fn histories_come_back_to_the_bit() {
    let history = History {
        moment: Moment { sequence: Sequence(9), now: Timestamp::from_micros(-3) },
        event_time: Timestamp::from_micros(5),
        clamped: true,
        claim: Default::default(),
        status: Default::default(),
        entities: [EntityReads {
            entity: EntityId { kind: EntityType(2), key: EntityKey([8; 16]) },
            lateness: -0.0,
            reads: [f64::NAN, -0.0, 0.0, 1.5, f64::MAX].into_iter().collect(),
        }]
        .into_iter()
        .collect(),
    };
    let again = parts::histories_from(&histories(&[history.clone(), History::default()])).unwrap();
    let bits = |history: &History| -> Vec<Vec<u64>> {
        history.entities.iter().map(|reads| reads.reads.iter().chain([&reads.lateness]).map(|read| read.to_bits()).collect()).collect()
    };
    assert_eq!(
        (bits(&again[0]), again[0].moment, again[0].event_time, again[0].clamped),
        (bits(&history), history.moment, history.event_time, true)
    );
    assert_eq!(again[1], History::default());
    let marks = [ShardMark { epoch: 3, now: Timestamp::from_micros(-8) }, ShardMark::default()];
    assert_eq!(parts::shards_from(&shards(&marks)), marks);
}

#[test]
fn entity_types_are_met_by_name_and_other_keys_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let schema = Schema::shipped();
    let hasher = token::replay_keyring().hasher();
    let path = path(folder.path(), 70_000);
    let mut header = header(&schema, &hasher);
    (header.sequence, header.now_us) = (70_000, 12);
    header.types = vec!["gone".to_owned(), schema.entity_types()[1].name.clone(), schema.entity_types()[0].name.clone()];
    let layout = telltale_features::kernel::Layout::new(schema.plans()[0].clone());
    let blob = EntityState::default().encode(&layout);
    let id = |kind: u8| EntityId { kind: EntityType(kind), key: EntityKey([kind; 16]) };
    let mut content = Vec::new();
    for kind in 0..3 {
        let touched = Timestamp::from_micros(0);
        Record { entity: id(kind), last: 5, touched, proved: 0, standing: 200, blob: &blob }.put(&mut content);
    }
    let mut writer = Writer::create(&path).unwrap();
    writer.part(tag::HEADER, &serde_json::to_vec(&header).unwrap()).unwrap();
    writer.part(tag::ENTITIES, &content).unwrap();
    writer.part(tag::END, b"end").unwrap();
    writer.finish().unwrap();
    let store = EmbeddedStore::new(schema.plans(), EmbeddedOptions::default());
    let restored = restore(&store, (&path, &schema, &hasher), |_, _| {}).unwrap();
    assert_eq!((restored.entities, restored.unknown), (2, 1));
    let met = |kind: u8, key: u8| store.state(EntityId { kind: EntityType(kind), key: EntityKey([key; 16]) }).is_some();
    assert_eq!([met(1, 1), met(0, 2), met(0, 0), met(2, 2)], [true, true, false, false]);
    assert_eq!(store.moment(Order::Live(&ManualClock::default())), Moment { sequence: Sequence(70_001), now: Timestamp::from_micros(12) });
    let other = telltale_features::hash::Keyring::new(0, [1; 32]).hasher();
    let refused = restore(&store, (&path, &schema, &other), |_, _| {}).unwrap_err();
    assert!(matches!(refused, SnapshotError::OtherKey { found: 0, known: 0, .. }), "{refused}");
}
