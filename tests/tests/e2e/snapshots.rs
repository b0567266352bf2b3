//! Restarts from snapshots, and state moved between stores: what comes back is what a replay of everything gives, or what was there.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use telltale_features::kernel::{EntityState, Layout};
use telltale_features::schema::Schema;
use telltale_features::time::Timestamp;
use telltale_proto::v1::{Transaction, Verdict};
use telltale_service::transfer::parquet::{Reader, Row};
use telltale_tests::http::Http;
use telltale_tests::redis::Redis;
use telltale_tests::stand::{Addresses, Scorer};
use telltale_tests::traffic::Traffic;

use crate::stage::{acting_policy, score, telltale, telltale_ok, within};

const CLIENTS: u32 = 60;

/// Rules that act, and snapshots every 0.6 s.
fn sections(folder: &Path) -> String {
    format!("{}[store]\nsnapshot_minutes = 0.01\n", acting_policy(folder))
}

fn snapshots(data: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(data.join("snapshots")) else { return Vec::new() };
    let mut all: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "tts")).collect();
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Rows of an export, by type and key.
fn rows(path: &Path) -> BTreeMap<(String, [u8; 16]), Row> {
    let reader = Reader::open(path).unwrap();
    let all = (0..reader.groups()).flat_map(|group| reader.group(group).unwrap());
    all.map(|row| ((row.kind.clone(), row.key), row)).collect()
}

fn export(config: &Path, data: &Path, to: &Path) -> BTreeMap<(String, [u8; 16]), Row> {
    telltale_ok(&["state", "export", to.to_str().unwrap(), "--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    rows(to)
}

/// Some that are limited among the traffic, so that policy slots change too.
fn next(traffic: &mut Traffic) -> Transaction {
    let mut transaction = traffic.next_transaction();
    if let Some(http) = transaction.http.as_mut().filter(|http| http.path.ends_with('7')) {
        http.path = "/act/limit".to_owned();
    }
    transaction
}

/// Four callers until the task is dropped; each answered transaction with its verdict.
async fn traffic(scorer: &Scorer, until: impl Future<Output = ()>) -> Vec<(Transaction, Verdict)> {
    let (answered, mut all) = tokio::sync::mpsc::unbounded_channel();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4 {
        let (client, answered) = (scorer.client().await, answered.clone());
        callers.spawn(async move {
            let mut traffic = Traffic::new(100 + caller, CLIENTS);
            loop {
                let transaction = next(&mut traffic);
                let Ok(verdict) = score(&client, transaction.clone()).await else { break };
                answered.send((transaction, verdict)).unwrap();
            }
        });
    }
    drop(answered);
    until.await;
    callers.shutdown().await;
    let mut found = Vec::new();
    while let Some(one) = all.recv().await {
        found.push(one);
    }
    found
}

/// What a verdict says, apart from when it was made.
fn told(verdict: &Verdict) -> String {
    let reasons: Vec<_> = verdict.reasons.iter().map(|reason| (&reason.feature, reason.value.map(f64::to_bits), &reason.text)).collect();
    format!("{} {} {reasons:?}", verdict.risk, verdict.action)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_scorer_restarts_from_its_snapshot_as_from_the_whole_journal() {
    let folder = tempfile::tempdir().unwrap();
    let sections = sections(folder.path());
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    let data = scorer.data.clone();
    let answered = traffic(&scorer, async {
        // Two that are whole, then traffic that no snapshot has.
        within(Duration::from_secs(60), "two snapshots", || async { snapshots(&data).len() == 2 }).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        scorer.process.signal(rustix::process::Signal::KILL).unwrap();
    });
    let answered = answered.await;
    assert!(!scorer.process.wait().unwrap());
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    for to in [&whole, &broken] {
        copy(&data, to);
    }
    std::fs::remove_dir_all(whole.join("snapshots")).unwrap();
    let newest = snapshots(&broken).pop().unwrap();
    let half = std::fs::metadata(&newest).unwrap().len() / 2;
    std::fs::File::options().write(true).open(&newest).unwrap().set_len(half).unwrap();

    let file = |name: &str| folder.path().join(format!("{name}.parquet"));
    let [by_snapshot, by_journal, by_older] =
        [("data", &data), ("whole", &whole), ("broken", &broken)].map(|(name, data)| export(&scorer.config, data, &file(name)));
    assert!(by_journal.len() > 100, "{} entities of {} transactions", by_journal.len(), answered.len());
    assert_eq!(by_snapshot, by_journal, "the newest snapshot and the journal after it");
    assert_eq!(by_older, by_journal, "the older snapshot and more of the journal");

    let addresses = scorer.addresses();
    let mut restarted = Scorer::start_at(folder.path(), &sections, addresses).unwrap();
    let words = std::fs::read_to_string(folder.path().join("scorer.log")).unwrap();
    assert!(words.contains("snapshot read") && words.contains("% of the snapshot") && words.contains("replayed"), "{words}");
    let other = folder.path().join("other");
    copy(&whole, &other.join("data"));
    let replayed =
        Scorer::start_at(&other, &format!("{}[store]\nsnapshot_minutes = 0\n", acting_policy(&other)), Addresses::free().unwrap()).unwrap();
    let (one, two) = (restarted.client().await, replayed.client().await);
    let mut later = Traffic::new(7, CLIENTS);
    for number in 0..200 {
        let transaction = next(&mut later);
        let (first, second) = (score(&one, transaction.clone()).await.unwrap(), score(&two, transaction).await.unwrap());
        assert_eq!(told(&first), told(&second), "transaction {number} after the restart");
    }
    // What was answered before the snapshot is answered again, not scored again.
    let (transaction, verdict) = answered.first().unwrap().clone();
    assert_eq!(told(&score(&one, transaction).await.unwrap()), told(&verdict));
    let metrics = Http::new(restarted.metrics).get("/metrics", "127.0.0.1").await.unwrap().text();
    assert!(metrics.contains("telltale_duplicates_total 1\n"), "{metrics}");
    restarted.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(restarted.process.wait().unwrap(), "{}", restarted.process.last_words());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_an_orderly_stop_keeps_everything_and_another_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sections = format!("{}[store]\nsnapshot_minutes = 60\n[journal]\nenabled = false\n", acting_policy(folder.path()));
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    let (client, mut traffic) = (scorer.client().await, Traffic::new(3, 1));
    for _ in 0..5 {
        score(&client, traffic.next_transaction()).await.unwrap();
    }
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    assert_eq!(snapshots(&scorer.data).len(), 1);
    let mut scorer = Scorer::start_at(folder.path(), &sections, scorer.addresses()).unwrap();
    let verdict = score(&scorer.client().await, traffic.next_transaction()).await.unwrap();
    assert_eq!(crate::recovery::seen(&verdict), 6);
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());

    std::fs::remove_file(scorer.data.join("telltale.key")).unwrap();
    let mut refused = Scorer::launch(folder.path(), &sections, scorer.addresses()).unwrap();
    assert!(!refused.process.wait().unwrap());
    let words = refused.process.last_words();
    assert!(words.contains("was made with key 1, another one than key 1") && words.contains("telltale.key"), "{words}");
}

/// What every feature of an entity reads at that time, and its policy slots.
fn reads(row: &Row, schema: &Schema, at: Timestamp) -> (Vec<u64>, Vec<String>) {
    let kind = schema.entity_types().iter().position(|spec| spec.name == row.kind).unwrap();
    let layout = Layout::new(schema.plans()[kind].clone());
    let state = EntityState::decode(&layout, &row.blob).unwrap();
    let slots = state.slots().map(|slot| format!("{slot:?}")).collect();
    (state.read(&layout, None, at).into_iter().map(f64::to_bits).collect(), slots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_moves_to_redis_and_back_and_keeps_every_read() {
    let folder = tempfile::tempdir().unwrap();
    let sections = sections(folder.path());
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    traffic(&scorer, tokio::time::sleep(Duration::from_secs(2))).await;
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    let path = |name: &str| folder.path().join(name);
    let before = export(&scorer.config, &scorer.data, &path("before.parquet"));

    let redis = Redis::start(folder.path(), &[]).unwrap();
    let in_redis = path("redis.toml");
    std::fs::write(
        &in_redis,
        format!("data = {:?}\n[store]\nkind = \"redis\"\n[store.redis]\naddresses = [\"{}\"]\n", scorer.data, redis.address),
    )
    .unwrap();
    let moved = |step: &str, file: &str, config: &Path, data: &Path| -> serde_json::Value {
        let (file, config, data) = (path(file), config.to_str().unwrap(), data.to_str().unwrap());
        let told = telltale_ok(&["state", step, file.to_str().unwrap(), "--config", config, "--data", data, "--output", "json"]);
        serde_json::from_slice(&told).unwrap()
    };
    assert_eq!(moved("import", "before.parquet", &in_redis, &scorer.data)["present"], 0);
    let again = moved("import", "before.parquet", &in_redis, &scorer.data);
    assert_eq!(again["present"].as_u64(), Some(before.len() as u64), "nothing is overwritten: {again}");
    let keys: usize = redis.command(&["DBSIZE"]).unwrap().trim().parse().unwrap();
    assert_eq!(keys, before.len());
    moved("export", "redis.parquet", &in_redis, &scorer.data);

    let other = path("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::copy(scorer.data.join("telltale.key"), other.join("telltale.key")).unwrap();
    moved("import", "redis.parquet", &scorer.config, &other);
    let after = export(&scorer.config, &other, &path("after.parquet"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let schema = Schema::shipped();
    for (entity, row) in &before {
        let at = Timestamp::from_micros(row.touched_us + 1_000_000);
        assert_eq!(reads(row, &schema, at), reads(&after[entity], &schema, at), "{entity:?}");
    }
    assert!(before.len() > 100, "{}", before.len());

    // A directory that has state takes none, and one of another key neither.
    let refusals = [(&other, "has a journal or snapshots already"), (&path("stranger"), "made with key 1, another one than key 1")];
    std::fs::create_dir_all(path("stranger")).unwrap();
    std::fs::write(path("stranger/telltale.key"), [&[1, 0, 0, 0][..], &[7; 32]].concat()).unwrap();
    for (data, words) in refusals {
        let file = path("before.parquet");
        let refused = telltale(&[
            "state",
            "import",
            file.to_str().unwrap(),
            "--config",
            scorer.config.to_str().unwrap(),
            "--data",
            data.to_str().unwrap(),
        ]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(64) && told.contains(words), "{told}");
    }
}
