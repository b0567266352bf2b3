//! STATE §11 (a): what one scorer said live, its journal says again, bit for bit, with any number of threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use telltale_features::schema::Schema;
use telltale_proto::json::{self, Unknown};
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{
    FeedbackRequest, Header, HttpResponse, Label, LabelKind, Outcome, ReportRequest, Transaction, Verdict, report_request,
};
use telltale_tests::bench::forest;
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tonic::transport::Channel;

use crate::stage::{score, telltale_ok, within};

const CONNECTIONS: usize = 8;
const TRANSACTIONS: usize = 2_000;
const SHARED_CLIENTS: u32 = 160;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replay_says_again_what_was_said_live() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/packs/default.yaml")).unwrap();
    std::fs::write(&policy, shipped.replacen("mode: monitor", "mode: enforce", 1)).unwrap();
    let models = folder.path().join("models");
    publish_model(&models);
    let sections = format!("[policy]\npath = {policy:?}\n[models]\npath = {models:?}\ncalibration_rows = 100\n");
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();

    let mut traffic = Traffic::new(31, SHARED_CLIENTS);
    let mut make = |count: usize| -> Vec<Transaction> { (0..count).map(|_| traffic.next_transaction()).collect() };
    let mut live = drive(&scorer, make(TRANSACTIONS / 2)).await;
    let first_policy = live.values().next().unwrap().versions.clone().unwrap().policy;
    let changed = std::fs::read_to_string(&policy).unwrap()
        + "\n  - {id: E2E-PARITY, name: Added, when: 'http.method == \"POST\"', action: log, score: 7, reason: \"a POST\"}\n";
    std::fs::write(&policy, changed).unwrap();
    scorer.process.signal(rustix::process::Signal::HUP).unwrap();
    let client = scorer.client().await;
    let mut probes = make(500);
    let seen = std::sync::Mutex::new(Vec::new());
    within(Duration::from_secs(10), "the changed policy in force", || {
        let (probe, client) = (probes.pop().unwrap(), client.clone());
        let (seen, first_policy) = (&seen, &first_policy);
        async move {
            let verdict = score(&client, probe).await.unwrap();
            let changed = verdict.versions.as_ref().unwrap().policy != *first_policy;
            seen.lock().unwrap().push(verdict);
            changed
        }
    })
    .await;
    live.extend(seen.into_inner().unwrap().into_iter().map(|verdict| (verdict.transaction_id.clone(), verdict)));
    live.extend(drive(&scorer, make(TRANSACTIONS / 2)).await);
    assert!(live.values().any(|verdict| verdict.rules.iter().any(|rule| rule.id == "E2E-PARITY")));
    assert!(
        live.values().any(|verdict| verdict.models.iter().any(|model| model.calibrated.is_some())),
        "no model was calibrated on the way"
    );
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());

    let one = Replayed::run(&scorer, folder.path(), 1);
    let two = Replayed::run(&scorer, folder.path(), 2);
    assert!(one.verdicts == two.verdicts, "the verdicts differ between 1 and 2 threads");
    assert!(one.features == two.features, "the feature rows differ between 1 and 2 threads");
    one.compare(&live);
}

/// Scores over several connections at once, with retries, outcomes and labels.
async fn drive(scorer: &Scorer, transactions: Vec<Transaction>) -> BTreeMap<String, Verdict> {
    let mut tasks = tokio::task::JoinSet::new();
    for part in transactions.chunks(transactions.len().div_ceil(CONNECTIONS)) {
        let (client, part) = (scorer.client().await, part.to_vec());
        tasks.spawn(async move {
            let mut verdicts = Vec::new();
            for (index, transaction) in part.into_iter().enumerate() {
                verdicts.push(one(&client, transaction, index).await);
            }
            verdicts
        });
    }
    let parts = tasks.join_all().await;
    parts.into_iter().flatten().map(|verdict| (verdict.transaction_id.clone(), verdict)).collect()
}

async fn one(client: &ScorerClient<Channel>, transaction: Transaction, index: usize) -> Verdict {
    let verdict = score(client, transaction.clone()).await.unwrap();
    if index.is_multiple_of(9) {
        let again = score(client, transaction.clone()).await.unwrap();
        assert_eq!(bare(&again), bare(&verdict), "a retry got another verdict");
    }
    let mut client = client.clone();
    let login = transaction.http.as_ref().is_some_and(|http| http.path == "/api/login");
    let refused = login && index.is_multiple_of(3);
    let cookie = Header { name: "set-cookie".to_owned(), value: format!("sid=new-{}; Path=/", transaction.id) };
    let outcome = Outcome {
        transaction_id: verdict.transaction_id.clone(),
        context: verdict.context.clone(),
        time: transaction.time,
        response: Some(HttpResponse {
            status: if refused { 401 } else { 200 },
            body_size: 512,
            duration_us: 900,
            headers: if login && !refused { vec![cookie] } else { Vec::new() },
        }),
        enforced: verdict.action,
        ..Outcome::default()
    };
    let payload = Some(report_request::Payload::Outcome(outcome));
    let first = client.report(ReportRequest { payload: payload.clone() }).await.unwrap().into_inner();
    assert!(!first.duplicate);
    if index.is_multiple_of(11) {
        assert!(client.report(ReportRequest { payload }).await.unwrap().into_inner().duplicate, "a repeated outcome was taken twice");
    }
    if index.is_multiple_of(7) {
        let label = Label {
            transaction_id: verdict.transaction_id.clone(),
            context: verdict.context.clone(),
            time: transaction.time,
            kind: if refused { LabelKind::Abuse } else { LabelKind::Benign }.into(),
            ..Label::default()
        };
        client.feedback(FeedbackRequest { label: Some(label) }).await.unwrap();
    }
    verdict
}

/// What must be equal: a verdict without timings, token, calibration progress and build.
fn bare(verdict: &Verdict) -> Vec<u8> {
    let mut bare = verdict.clone();
    bare.timings = None;
    bare.context = Default::default();
    bare.models.iter_mut().for_each(|model| model.calibration.clear());
    if let Some(versions) = &mut bare.versions {
        versions.telltale.clear();
    }
    bare.encode_to_vec()
}

struct Replayed {
    verdicts: Vec<u8>,
    features: Vec<u8>,
    summary: Value,
}

impl Replayed {
    fn run(scorer: &Scorer, folder: &Path, threads: u32) -> Self {
        let (verdicts, features) = (folder.join(format!("{threads}.ndjson")), folder.join(format!("{threads}.parquet")));
        let (journal, threads) = (scorer.data.join("journal"), threads.to_string());
        let [journal, config, key, out, rows] =
            [&journal, &scorer.config, &scorer.data, &verdicts, &features].map(|path| path.to_str().unwrap());
        let printed = telltale_ok(&[
            "replay",
            journal,
            "--config",
            config,
            "--key-from",
            key,
            "--threads",
            &threads,
            "--verdicts",
            out,
            "--features",
            rows,
            "--output",
            "json",
        ]);
        Self {
            verdicts: std::fs::read(verdicts).unwrap(),
            features: std::fs::read(features).unwrap(),
            summary: serde_json::from_slice(&printed).unwrap(),
        }
    }

    fn compare(&self, live: &BTreeMap<String, Verdict>) {
        let compared = &self.summary["compared"];
        let count = |name: &str| compared[name].as_u64().unwrap();
        assert_eq!(
            (count("different_vectors"), count("different_decisions"), count("missing"), count("orphans")),
            (0, 0, 0, 0),
            "{compared}"
        );
        assert_eq!(count("decisions"), live.len() as u64);
        let mut replayed = 0;
        for line in String::from_utf8(self.verdicts.clone()).unwrap().lines() {
            let (verdict, _) = json::parse::<Verdict>(line, Unknown::Refuse).unwrap();
            let said = &live[&verdict.transaction_id];
            assert_eq!(bare(&verdict), bare(said), "live: {said:?}\nreplayed: {verdict:?}");
            replayed += 1;
        }
        assert_eq!(replayed, live.len());
    }
}

/// A forest over every feature of the shipped schema; it calibrates on the site, in the middle of the run.
fn publish_model(folder: &Path) {
    let schema = Schema::shipped();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let row = |rng: &mut ChaCha8Rng| -> Vec<f32> { (0..schema.features().len()).map(|_| rng.random_range(0.0..40.0f32)).collect() };
    let rows: Vec<Vec<f32>> = (0..1_500).map(|_| row(&mut rng)).collect();
    forest::trained(&schema, &rows, folder).unwrap();
}
