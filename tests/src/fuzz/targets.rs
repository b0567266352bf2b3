//! The targets: each parser of foreign bytes with right inputs to start from and the invariants that must hold whatever comes.

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use telltale_features::domain::Transaction;
use telltale_features::door::Door;
use telltale_features::expr::{Predicate, Program, Row};
use telltale_features::hash::Keyring;
use telltale_features::schema::Schema;
use telltale_features::store::embedded::{EmbeddedOptions, EmbeddedStore, Record as SnapshotRecord};
use telltale_features::store::{Moment, Order, Sequence};
use telltale_features::time::Timestamp;
use telltale_models::CalibrationTable;
use telltale_models::calibration::conformal;
use telltale_models::forest::{self, Branch, Forest, Trees};
use telltale_models::half_space::{self, HalfSpace, Shape};
use telltale_models::linear::{self, Basis, Component, Head, Linear, Parts};
use telltale_models::profile::{Bins, Column, Profile};
use telltale_models::repository::{Manifest, ModelPolicy};
use telltale_models::scale::Scale;
use telltale_models::trust::{Require, Signature, SigningKey, Signs, Trust};
use telltale_policy::Policy;
use telltale_proto::journal::v1::{JournalRecord, journal_record::Kind};
use telltale_proto::json::{self, Unknown};
use telltale_proto::v1::{self, Record};
use telltale_service::journal::{Entry, JournalReader, block};
use telltale_service::replay::access_log;
use telltale_service::{convert, token};

use super::Target;
use crate::traffic::Traffic;

const GOLDEN: &str = include_str!("../../../proto/golden/records.ndjson");
const VIEW: &str = include_str!("../../../features/schemas/payments.yaml");
const PACK: &str = include_str!("seeds/pack.yaml");
const MANIFEST: &str = include_str!("seeds/manifest.toml");
const CEL: &str = include_str!("seeds/expressions.cel");

/// Every target.
pub fn all() -> Vec<Target> {
    vec![
        json_lines(),
        access_log(),
        journal(),
        snapshot(),
        feature_yaml(),
        policy_yaml(),
        cel(),
        context_token(),
        door(),
        forest(),
        linear(),
        half_space(),
        manifest(),
        calibration(),
        inference(),
        signature(),
        profile(),
    ]
}

/// A key that is nobody's.
const fn keyring() -> Keyring {
    Keyring::new(1, [7; 32])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Canonical JSON: what parses is written and read again without a change.
fn json_lines() -> Target {
    let run = |bytes: &[u8]| {
        for unknown in [Unknown::Refuse, Unknown::Report] {
            let Ok((record, _)) = json::parse::<Record>(&text(bytes), unknown) else { continue };
            let Ok(written) = json::write(&record) else { continue };
            let again = json::parse::<Record>(&written, Unknown::Refuse);
            assert!(again.is_ok(), "what was written is not read again: {written}");
        }
    };
    Target { name: "json", seeds: GOLDEN.lines().map(|line| line.as_bytes().to_vec()).collect(), run: Box::new(run) }
}

/// Lines of access logs: what is read is a transaction that the door takes or refuses.
fn access_log() -> Target {
    let combined = r#"192.0.2.7 - anna [10/Oct/2025:13:55:36 +0200] "GET /a%20b?q=\"x\" HTTP/1.1" 200 2326 "-" "Mozilla/5.0 (X11)""#;
    let nginx = r#"{"remote_addr":"192.0.2.7","time_iso8601":"2025-10-10T13:55:36+02:00","request":"GET / HTTP/1.1","status":"200","body_bytes_sent":"5"}"#;
    let run = |bytes: &[u8]| {
        let line = text(bytes);
        for read in [access_log::combined(&line, 7), access_log::nginx_json(&line, 7)] {
            match read {
                Ok(transaction) => drop(convert::transaction(transaction, "line")),
                Err(reason) => assert!(!reason.is_empty(), "a refusal without a reason"),
            }
        }
    };
    Target { name: "access-log", seeds: vec![combined.as_bytes().to_vec(), nginx.as_bytes().to_vec()], run: Box::new(run) }
}

/// Entities of a snapshot: what is taken stands there as it is written, and a store takes it or refuses it.
fn snapshot() -> Target {
    let schema = Schema::shipped();
    let filled = || EmbeddedStore::new(schema.plans(), EmbeddedOptions::default());
    let (store, door) = (filled(), Door::new(Arc::new(Schema::shipped()), keyring().hasher()));
    let mut traffic = Traffic::new(5, 3);
    for sequence in 1..=40 {
        let admitted = convert::transaction(traffic.next_transaction(), "seed").ok().and_then(|(tx, _)| door.admit(tx).ok());
        let moment = Moment { sequence: Sequence(sequence), now: Timestamp::from_micros(1_790_000_000_000_000) };
        admitted.map(|admitted| store.observe_now(schema.events(&admitted), Order::Recorded(moment)));
    }
    let mut seed = Vec::new();
    let saved = store.cut().map(|cut| {
        store.save::<()>(&cut, |some| {
            seed.extend_from_slice(some);
            Ok(())
        })
    });
    assert!(matches!(saved, Some(Ok(_))) && !seed.is_empty(), "the seed could not be made");
    let run = move |bytes: &[u8]| {
        let (mut rest, mut again) = (bytes, Vec::new());
        let store = EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes: 1 << 20 });
        while let Some(record) = SnapshotRecord::take(&mut rest) {
            record.put(&mut again);
            if store.restore(&record).is_err() {
                break;
            }
        }
        assert!(bytes.starts_with(&again), "a record is not as it stood");
        assert!(store.digest().len() == 64);
    };
    Target { name: "snapshot", seeds: vec![seed], run: Box::new(run) }
}

/// A journal's file: whatever stands in it, reading ends and each number comes at most once, in order.
fn journal() -> Target {
    let mut traffic = Traffic::new(3, 20);
    let observed = |sequence: u64, transaction| {
        let observed = telltale_proto::journal::v1::Observed { transaction: Some(transaction), count: 1, ..Default::default() };
        JournalRecord { sequence, now_us: 1_750_000_000_000_000, kind: Some(Kind::Observed(observed)) }
    };
    let records: Vec<JournalRecord> = (1..=12).map(|sequence| observed(sequence, traffic.next_transaction())).collect();
    let mut seed = block::FILE_MAGIC.to_vec();
    for records in records.chunks(5) {
        seed.extend(block::encode(records).unwrap_or_default());
    }
    let path = std::env::temp_dir().join(format!("telltale-fuzz-{}.ttj", std::process::id()));
    let run = move |bytes: &[u8]| {
        if std::fs::write(&path, bytes).is_err() {
            return;
        }
        let Ok(mut reader) = JournalReader::open(&path) else { return };
        let mut last = 0;
        while let Ok(Some(entry)) = reader.next_entry() {
            let Entry::Record(record) = entry else { continue };
            assert!(record.sequence == 0 || record.sequence > last, "number {} came after {last}", record.sequence);
            last = last.max(record.sequence);
        }
        drop(std::fs::remove_file(&path));
    };
    Target { name: "journal", seeds: vec![seed], run: Box::new(run) }
}

fn feature_yaml() -> Target {
    let run = |bytes: &[u8]| match Schema::from_sources(&[("fuzz.yaml".to_owned(), text(bytes))]) {
        Ok(schema) => assert!(schema.features().len() <= usize::from(u16::MAX)),
        Err(error) => assert!(!error.problems.is_empty(), "a refusal without a reason"),
    };
    Target { name: "features", seeds: vec![VIEW.as_bytes().to_vec()], run: Box::new(run) }
}

fn policy_yaml() -> Target {
    let schema = Schema::shipped();
    let run = move |bytes: &[u8]| {
        if let Err(error) = Policy::from_sources(&[("fuzz.yaml".to_owned(), text(bytes))], &schema) {
            assert!(!error.problems.is_empty(), "a refusal without a reason");
        }
    };
    Target { name: "policy", seeds: vec![PACK.as_bytes().to_vec()], run: Box::new(run) }
}

/// CEL: what compiles runs on an empty row without a panic, and ends.
fn cel() -> Target {
    let scope = Schema::shipped().scope();
    let run = move |bytes: &[u8]| {
        let source = text(bytes);
        if let Ok(program) = Program::compile(&source, &scope) {
            drop(program.eval(&Row::default()));
        }
        match Predicate::compile(&source, &scope) {
            Ok(predicate) => drop(predicate.holds(&Row::default())),
            Err(error) => assert!(!error.message.is_empty(), "a refusal without a reason"),
        }
    };
    Target { name: "cel", seeds: CEL.lines().map(|line| line.as_bytes().to_vec()).collect(), run: Box::new(run) }
}

/// Context tokens: nothing but what was sealed opens.
fn context_token() -> Target {
    let schema = Schema::shipped();
    let hasher = keyring().hasher();
    let door = Door::new(Arc::new(Schema::shipped()), hasher.clone());
    let sealed = Traffic::new(1, 9).next_transaction();
    let sealed = convert::transaction(sealed, "transaction").ok().and_then(|(tx, _)| door.admit(tx).ok());
    let context = sealed
        .map(|admitted| schema.context(&admitted, admitted.tx.time))
        .unwrap_or_else(|| schema.context(&Default::default(), Default::default()));
    let right = token::seal(&hasher, &context, &schema);
    let id = context.transaction_id;
    let seeds = vec![right.clone()];
    let run = move |bytes: &[u8]| {
        let opened = token::open(&hasher, bytes, &id, &schema);
        // Protobuf has several encodings of one message; whatever opens must carry the code of the content that it shows.
        if let Ok(opened) = opened {
            assert!(token::seal(&hasher, &opened, &schema) == right, "a forged token was believed");
        }
    };
    Target { name: "token", seeds, run: Box::new(run) }
}

/// A native forest's file: what is read makes a forest or is refused, and is written back as it was.
fn forest() -> Target {
    let leaf = |rows| Box::new(Branch::Leaf { rows });
    let tree = |input| Branch::Split { input, threshold: 0.5, below: leaf(3), above: leaf(5) };
    let right = forest::file::encode(&Trees { inputs: 2, sample: 8, trees: vec![tree(0), tree(1)] }).unwrap_or_default();
    let run = |bytes: &[u8]| {
        let Ok(trees) = forest::file::decode(bytes) else { return };
        if let Ok(forest) = Forest::new(&trees) {
            assert!(forest.score(&forest::Row::new(&[0.1, f32::NAN])).is_finite(), "a score that is not finite");
        }
    };
    Target { name: "forest", seeds: vec![right], run: Box::new(run) }
}

/// The file of each linear model: what passes every check scores any row with a finite number, and is written back as it was.
fn linear() -> Target {
    let basis = || Basis { mean: vec![0.1, 0.2], directions: vec![vec![0.6, 0.8]], noise: 0.5 };
    let heads = [
        Head::Pca(basis()),
        Head::Gmm(basis(), vec![Component { mean: vec![0.3], precision: vec![1.5], offset: -0.5 }]),
        Head::KMeans(vec![vec![0.0, 1.0], vec![1.0, 0.0]]),
        Head::Logistic { weights: vec![2.0, -1.0], bias: -3.0 },
    ];
    let seeds = heads.map(|head| Parts { scales: vec![Scale { centre: 1.0, width: 0.5 }; 2], head });
    let seeds = seeds.iter().filter_map(|parts| linear::file::encode(parts).ok()).collect();
    let run = |bytes: &[u8]| {
        let Ok(parts) = linear::file::decode(bytes) else { return };
        let Ok(model) = Linear::new(parts.clone()) else { return };
        assert!(linear::file::encode(&parts).as_deref() == Ok(bytes), "written otherwise than it was read");
        for row in [[0.1, f32::NAN], [f32::MAX, f32::MIN], [f32::INFINITY, 0.0]] {
            assert!(model.score(&row).is_finite(), "a score that is not finite");
        }
    };
    Target { name: "linear", seeds, run: Box::new(run) }
}

/// The file of half-space trees: what is read makes trees, and is written back as it was.
fn half_space() -> Target {
    let shape = Shape { scales: vec![Scale { centre: 0.0, width: 2.0 }; 2], seed: 7, trees: 3, depth: 5, window: 32 };
    let rows: Vec<[f32; 2]> = (0..32_u8).map(|n| [f32::from(n % 7), f32::from(n % 5)]).collect();
    let right = half_space::Profile::of(&shape, &rows).ok().and_then(|profile| half_space::file::encode(&shape, &profile).ok());
    let run = |bytes: &[u8]| {
        let Ok((shape, profile)) = half_space::file::decode(bytes) else { return };
        assert!(half_space::file::encode(&shape, &profile).as_deref() == Ok(bytes), "written otherwise than it was read");
        let score = HalfSpace::new(Arc::new(shape), &profile).map(|trees| trees.score(&[0.1, f32::NAN]));
        assert!(score.is_ok_and(|score| score > 0.0 && score <= 1.0), "what was read makes no trees, or a score out of range");
    };
    Target { name: "half-space", seeds: vec![right.unwrap_or_default()], run: Box::new(run) }
}

/// A model's manifest and its aliases.
fn manifest() -> Target {
    let path = std::env::temp_dir().join(format!("telltale-fuzz-{}.toml", std::process::id()));
    let run = move |bytes: &[u8]| {
        if std::fs::write(&path, bytes).is_ok() {
            if let Ok(manifest) = Manifest::read(&path) {
                assert!(manifest.to_toml().is_ok(), "a manifest that was read cannot be written");
            }
            drop(ModelPolicy::read(&path));
        }
        drop(std::fs::remove_file(&path));
    };
    Target { name: "manifest", seeds: vec![MANIFEST.as_bytes().to_vec()], run: Box::new(run) }
}

/// A calibration table: never leaves the range of what it means.
fn calibration() -> Target {
    let raws: Vec<f64> = (0..400).map(|at| f64::from(at) / 400.0).collect();
    let right = conformal(&raws).map(|table| table.to_json()).unwrap_or_default();
    let run = |bytes: &[u8]| {
        let Ok(table) = CalibrationTable::from_json(&text(bytes)) else { return };
        for raw in [f64::MIN, -1.0, 0.0, 0.5, 1.0, f64::MAX] {
            assert!((0.0..=1.0).contains(&table.value(raw)), "{raw} became {}", table.value(raw));
        }
    };
    Target { name: "calibration", seeds: vec![right.into_bytes()], run: Box::new(run) }
}

/// A model's signature: only the right one is believed.
fn signature() -> Target {
    const MODEL: &[u8] = b"a model";
    let signed = |seed| SigningKey::from_seed([seed; 32]).map(|key| (key.public(), key.sign(Signs::File, "mine", MODEL)));
    let (Ok((public, right)), Ok((_, other))) = (signed(1), signed(2)) else {
        return Target { name: "signature", seeds: Vec::new(), run: Box::new(|_| {}) };
    };
    let seeds = vec![right.to_json().into_bytes(), other.to_json().into_bytes()];
    let trust = Trust::new(&[format!("release={}", public.to_base64())], Require::Always);
    let run = move |bytes: &[u8]| {
        let Ok(trust) = &trust else { return };
        if trust.file("mine", MODEL, Some(bytes)).is_ok() {
            let same = |found: Signature| {
                found.public_key() == Ok(public)
                    && (&found.model, &found.digest, &found.signature) == (&right.model, &right.digest, &right.signature)
            };
            assert!(Signature::parse(bytes).is_ok_and(same), "a forged signature was believed");
        }
    };
    Target { name: "signature", seeds, run: Box::new(run) }
}

/// What a training window looked like: every number has a bin.
fn profile() -> Target {
    let manifest = Manifest::parse(Path::new("manifest.toml"), MANIFEST);
    let names = manifest.iter().flat_map(|manifest| &manifest.inputs).map(|input| input.name.clone());
    let inputs = names.map(|name| Column::of(&name, (0..100).map(f64::from))).collect();
    let right = Profile { rows: 100, inputs, score: Bins::of((0..100).map(f64::from)) }.to_json();
    let run = move |bytes: &[u8]| {
        let Some(profile) = manifest.as_ref().ok().and_then(|manifest| Profile::parse(bytes, manifest).ok()) else { return };
        for value in [f64::NEG_INFINITY, -1.0, 0.0, 1e300, f64::INFINITY, f64::NAN] {
            assert!(profile.inputs.iter().all(|column| column.place(value) < column.counts().count()), "{value} has no bin");
            assert!(value.is_nan() || profile.score.place(value) < profile.score.counts().len(), "a score of {value} has no bin");
        }
    };
    Target { name: "profile", seeds: vec![right.into_bytes()], run: Box::new(run) }
}

/// The door on arbitrary transactions: what is admitted survives the journal unchanged and holds no body.
fn door() -> Target {
    let schema = Arc::new(Schema::shipped());
    let door = Door::new(Arc::clone(&schema), keyring().hasher());
    let mut traffic = Traffic::new(2, 50);
    let mut seeds: Vec<Vec<u8>> = (0..16).map(|_| traffic.next_transaction().encode_to_vec()).collect();
    let golden = GOLDEN.lines().filter_map(|line| json::parse::<Record>(line, Unknown::Refuse).ok());
    seeds.extend(golden.filter_map(|(record, _)| match record.kind? {
        v1::record::Kind::Transaction(transaction) => Some(transaction.encode_to_vec()),
        _ => None,
    }));
    let run = move |bytes: &[u8]| {
        let Ok(wire) = v1::Transaction::decode(bytes) else { return };
        let Ok((tx, _)) = convert::transaction(wire, "transaction") else { return };
        admit(&door, &schema, tx);
    };
    Target { name: "door", seeds, run: Box::new(run) }
}

fn admit(door: &Door, schema: &Schema, tx: Transaction) {
    let Ok(admitted) = door.admit(tx) else { return };
    assert!(admitted.tx.http.as_ref().is_none_or(|http| http.body.is_empty()), "a body passed the door");
    let _events = schema.events(&admitted);
    let record = convert::observed(&admitted, admitted.tx.time, schema);
    let again = convert::admitted(record, schema);
    assert!(again.is_ok_and(|again| again == admitted), "the journal changed what stood behind the door");
}

/// Requests of the Open Inference Protocol: what is taken is a whole number of rows within the bounds.
fn inference() -> Target {
    use telltale_proto::inference::model_infer_request::InferInputTensor;
    use telltale_proto::inference::{InferTensorContents, ModelInferRequest};
    const NAMES: [&str; 2] = ["a.x", "a.y"];
    let tensor = |name: &str, shape: &[i64], values: &[f64]| InferInputTensor {
        name: name.to_owned(),
        datatype: "FP64".to_owned(),
        shape: shape.to_vec(),
        contents: Some(InferTensorContents { fp64_contents: values.to_vec(), ..Default::default() }),
        ..Default::default()
    };
    let of = |inputs: Vec<InferInputTensor>| ModelInferRequest { inputs, ..Default::default() };
    let mut bytes = of(vec![InferInputTensor { contents: None, ..tensor("features", &[1, 2], &[]) }]);
    bytes.raw_input_contents = vec![vec![0; 16].into()];
    let seeds = [
        of(vec![tensor("features", &[2, 2], &[1.0, 2.0, f64::NAN, 4.0])]),
        of(vec![tensor("a.y", &[2], &[1.0, 2.0]), tensor("a.x", &[2, 1], &[3.0, 4.0])]),
        bytes,
    ];
    let run = |bytes: &[u8]| {
        let Ok(request) = ModelInferRequest::decode(bytes) else { return };
        if let Ok(rows) = convert::inference::rows(&request, &NAMES, 8) {
            assert!((1..=8).contains(&rows.rows) && rows.values.len() == rows.rows * NAMES.len(), "{rows:?}");
        }
        if let Ok(outputs) = convert::inference::outputs(&request) {
            assert!((1..=convert::inference::OUTPUTS.len()).contains(&outputs.len()), "{outputs:?}");
        }
    };
    Target { name: "inference", seeds: seeds.iter().map(Message::encode_to_vec).collect(), run: Box::new(run) }
}
