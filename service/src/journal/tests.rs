//! The journal under what happens to it: a torn tail, a full disk, a full queue, rotation, many writers.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use telltale_features::store::{Moment, Sequence};
use telltale_features::time::Timestamp;
use telltale_proto::journal::v1::{Changed, Decided, DecisionChanged, TemplateChanged, journal_record::Kind};
use telltale_proto::v1::{Template, TemplateState};

use super::*;

fn moment(sequence: u64) -> Moment {
    Moment { sequence: Sequence(sequence), now: Timestamp::from_micros(sequence as i64) }
}

fn decided(observed: u64) -> Kind {
    Kind::Decided(Decided { observed, digest: vec![7; 200].into(), ..Decided::default() })
}

fn open(folder: &Path, change: impl FnOnce(&mut JournalOptions)) -> Journal {
    let mut options = JournalOptions::in_folder(folder);
    change(&mut options);
    let journal = Journal::default();
    journal.open(options).unwrap();
    journal
}

fn read(folder: &Path) -> (Vec<Entry>, ReadStats) {
    let mut reader = JournalReader::open(folder).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    (entries, reader.stats().clone())
}

fn sequences(entries: &[Entry]) -> Vec<u64> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Record(record) => Some(record.sequence),
            Entry::Gap { .. } => None,
        })
        .collect()
}

#[test]
fn records_of_many_writers_come_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), |options| options.block_every = Duration::from_millis(1));
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let journal = journal.clone();
            scope.spawn(move || (0..500).for_each(|step| journal.append(moment(step * 4 + writer + 1), || decided(step))));
        }
    });
    assert!(journal.close());
    let (entries, stats) = read(folder.path());
    assert_eq!(sequences(&entries), (1..=2_000).collect::<Vec<_>>());
    assert_eq!(stats.damaged, Vec::<String>::new());
}

#[test]
fn a_torn_tail_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), |_| {});
    (1..=10).for_each(|sequence| journal.append(moment(sequence), || decided(sequence)));
    assert!(journal.flush());
    (11..=20).for_each(|sequence| journal.append(moment(sequence), || decided(sequence)));
    assert!(journal.close());
    let (_, path) = files(folder.path()).unwrap().remove(0);
    let length = path.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 3).unwrap();
    let (entries, stats) = read(folder.path());
    assert_eq!(sequences(&entries), (1..=10).collect::<Vec<_>>());
    assert_eq!(stats.damaged.len(), 1, "{stats:?}");
    // A restart begins a new file and goes on; what was torn off is a gap.
    let journal = open(folder.path(), |_| {});
    journal.append(moment(21), || decided(21));
    assert!(journal.close());
    let (entries, stats) = read(folder.path());
    assert!(entries.contains(&Entry::Gap { first: 11, last: 20 }), "{entries:?}");
    assert_eq!((sequences(&entries).last(), stats.missing), (Some(&21), 10));
}

#[test]
fn a_flipped_bit_is_damage_not_data() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), |_| {});
    journal.append(moment(1), || decided(1));
    assert!(journal.close());
    let (_, path) = files(folder.path()).unwrap().remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (entries, stats) = read(folder.path());
    assert_eq!((entries.len(), stats.damaged.len()), (0, 1));
    assert!(stats.damaged[0].contains("checksum"), "{stats:?}");
}

#[test]
fn a_full_disk_costs_records_and_a_gap_says_which() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("journal-00000002.ttj")).unwrap();
    let journal = open(folder.path(), |options| {
        options.file_bytes = 400;
        options.block_every = Duration::from_millis(1);
    });
    // The symbolic link is the newest file, so the writer begins number 3; the disk is full when it rotates into 4.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("journal-00000004.ttj")).unwrap();
    for sequence in 1..=6 {
        journal.append(moment(sequence), || Kind::Decided(Decided { digest: noise(300, sequence).into(), ..Decided::default() }));
        assert!(journal.flush());
    }
    assert!(journal.close());
    let stats = journal.stats().unwrap();
    assert!(stats.lost.load(Ordering::Relaxed) >= 1 && stats.gaps.load(Ordering::Relaxed) >= 1, "{stats:?}");
    std::fs::remove_file(folder.path().join("journal-00000002.ttj")).unwrap();
    std::fs::remove_file(folder.path().join("journal-00000004.ttj")).unwrap();
    let (entries, read) = read(folder.path());
    let lost = stats.lost.load(Ordering::Relaxed);
    assert_eq!(read.missing, lost, "{entries:?}");
    assert_eq!(sequences(&entries).len() as u64 + lost, 6);
    assert_eq!(sequences(&entries).last(), Some(&6));
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_full_queue_never_blocks_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), |options| options.queue = 16);
    (1..=50_000).for_each(|sequence| journal.append(moment(sequence), || decided(sequence)));
    assert!(journal.close());
    let stats = journal.stats().unwrap();
    let (entries, read) = read(folder.path());
    let lost = stats.lost.load(Ordering::Relaxed);
    assert!(lost > 0, "the writer was never slower than 50,000 appends");
    assert_eq!(sequences(&entries).len() as u64 + lost, 50_000);
    assert!(read.missing <= lost, "{read:?}");
}

#[test]
fn old_files_go_and_each_file_begins_with_what_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), |options| {
        options.file_bytes = 2_000;
        options.total_bytes = 8_000;
    });
    let change = Changed { what: "policy".to_owned(), digest: "d".to_owned(), content: noise(64, 0).into(), ..Changed::default() };
    journal.append(moment(1), || Kind::Changed(change.clone()));
    for sequence in 2..=60 {
        journal.append(moment(sequence), || Kind::Decided(Decided { digest: noise(900, sequence).into(), ..Decided::default() }));
        assert!(journal.flush());
    }
    assert!(journal.close());
    let known = files(folder.path()).unwrap();
    let total: u64 = known.iter().map(|(_, path)| path.metadata().unwrap().len()).sum();
    assert!(known[0].0 > 1 && total <= 10_000, "{total} bytes in {} files", known.len());
    let (entries, stats) = read(folder.path());
    let state = |entry: &&Entry| matches!(entry, Entry::Record(record) if record.sequence == 0);
    assert_eq!(entries.iter().filter(state).count(), 2, "the policy and its epoch, once");
    let after: Vec<u64> = sequences(&entries).into_iter().filter(|sequence| *sequence > 0).collect();
    assert_eq!(after, (after[0]..=60).collect::<Vec<_>>(), "{stats:?}");
}

#[test]
fn a_file_begins_with_what_is_in_force_in_the_order_in_which_it_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), |options| {
        options.file_bytes = 2_000;
        options.total_bytes = 4_000;
    });
    let change = |what: &str, name: &str| {
        let changed = Changed { what: what.to_owned(), name: name.to_owned(), ..Changed::default() };
        move || Kind::Changed(changed.clone())
    };
    let decision = |id: &str, removed| {
        let decision = Some(telltale_proto::v1::Decision { id: id.to_owned(), ..Default::default() });
        move || Kind::Decision(DecisionChanged { decision: decision.clone(), removed })
    };
    let template = |path: &str, state: TemplateState| {
        let template = Some(Template { path: path.to_owned(), state: state.into(), ..Default::default() });
        move || Kind::Template(TemplateChanged { template: template.clone() })
    };
    // As they come: a calibration is finished before its model changes parts, the policy changes last.
    journal.append(moment(1), decision("a", false));
    journal.append(moment(2), change("calibration", "m:1"));
    journal.append(moment(3), decision("b", false));
    journal.append(moment(4), change("model", "m"));
    journal.append(moment(5), decision("a", true));
    journal.append(moment(6), change("policy", ""));
    journal.append(moment(7), template("/a/{id}", TemplateState::InForce));
    journal.append(moment(8), template("/b/{id}", TemplateState::InForce));
    journal.append(moment(9), template("/a/{id}", TemplateState::Refused));
    for sequence in 10..=20 {
        journal.append(moment(sequence), || Kind::Decided(Decided { digest: noise(900, sequence).into(), ..Decided::default() }));
        assert!(journal.flush());
    }
    assert!(journal.close());
    assert!(files(folder.path()).unwrap()[0].0 > 1, "the first file is still there");
    let (entries, _) = read(folder.path());
    let said = |entry: &Entry| {
        let Entry::Record(record) = entry else { return None };
        match record.kind.as_ref().filter(|_| record.sequence == 0)? {
            Kind::Changed(changed) => Some(format!("{} {}", changed.what, changed.name)),
            Kind::Decision(change) => Some(format!("decision {}", change.decision.as_ref()?.id)),
            Kind::Template(change) => Some(format!("template {}", change.template.as_ref()?.path)),
            _ => None,
        }
    };
    let state: Vec<String> = entries.iter().filter_map(said).collect();
    // The epoch stands for everything before it, so it comes last.
    assert_eq!(state, ["policy ", "model m", "calibration m:1", "decision b", "template /b/{id}", "epoch 9"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::File::create(&file).unwrap().write_all(b"x").unwrap();
    assert!(Journal::default().open(JournalOptions::in_folder(&file)).is_err());
}
