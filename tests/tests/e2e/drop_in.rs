//! The drop-in drill: the README's own lines on a LightGBM export under load, from half a copy in the inbox to the rollback; no call fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use telltale_proto::v1::models_client::ModelsClient;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{
    CompareModelRequest, CompareModelResponse, FeedbackRequest, Label, LabelKind, ListModelsRequest, Model, ModelScore,
};
use telltale_tests::process::built;
use telltale_tests::stand::{Scorer, connect, shipped_models};
use telltale_tests::traffic::Traffic;
use tonic::transport::Channel;

use crate::stage::{acting_policy, score, within, write_figures};

const README: &str = include_str!("../../../README.md");
const MODEL: &str = "abuse";
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two calls of a caller: a load that leaves the machine room, so that nothing looks slow that is not.
const PACE: Duration = Duration::from_millis(4);

/// The lines of the README's block that change the repository or ask for it; its own scorer and traffic have their place here.
fn lines() -> Vec<String> {
    let block = README.split("```").find(|block| block.contains("inbox/abuse.onnx")).expect("the README's drill");
    let lines = block.lines().map(|line| line.split("  #").next().unwrap().trim().to_owned());
    lines.filter(|line| ["mkdir ", "cp models/fixtures/", "telltale models "].iter().any(|begins| line.starts_with(begins))).collect()
}

/// A copy of the shipped repository at the place where the README has it.
fn repository(folder: &Path) -> PathBuf {
    let root = folder.join("trial-models");
    let from = shipped_models().unwrap();
    for model in ["abuse", "unusual"] {
        let to = root.join(model).join("versions/1");
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(from.join(model).join("policy.toml"), root.join(model).join("policy.toml")).unwrap();
        for entry in std::fs::read_dir(from.join(model).join("versions/1")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    root
}

/// What the callers saw.
#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    mixed: AtomicU64,
    stop: AtomicBool,
    /// Counts new beginnings: a call that began before the last one does not count.
    generation: AtomicU64,
    /// Which versions of the model answered for a client since the last look.
    answered: Mutex<BTreeMap<String, BTreeSet<u32>>>,
}

impl Seen {
    fn take(&self) -> BTreeMap<String, BTreeSet<u32>> {
        std::mem::take(&mut self.answered.lock().unwrap())
    }

    /// From now on only calls count that begin from now on.
    fn begin_anew(&self) {
        let mut answered = self.answered.lock().unwrap();
        self.generation.fetch_add(1, Ordering::SeqCst);
        answered.clear();
    }

    /// Notes who answered a client in a call that began in that generation.
    fn note(&self, began: u64, from: String, versions: impl Iterator<Item = u32>) {
        let mut answered = self.answered.lock().unwrap();
        // Under the lock: a call of before cannot come in after the map was emptied.
        if self.generation.load(Ordering::SeqCst) == began {
            answered.entry(from).or_default().extend(versions);
        }
    }
}

/// Calls until it is told to stop; every tenth transaction gets a label. A call that fails ends the test.
async fn call(client: ScorerClient<Channel>, seed: u64, seen: Arc<Seen>) {
    let (mut traffic, mut answered) = (Traffic::new(seed, 4_000), std::collections::VecDeque::new());
    let mut pace = tokio::time::interval(PACE);
    for number in 0_u64.. {
        pace.tick().await;
        if seen.stop.load(Ordering::Relaxed) {
            return;
        }
        let transaction = traffic.next_transaction();
        let (id, time, from) = (transaction.id.clone(), transaction.time, transaction.source.clone().unwrap().ip);
        let began = seen.generation.load(Ordering::SeqCst);
        let verdict = score(&client, transaction).await.unwrap();
        // A verdict names its snapshot's champions: who answered as one is among them, and nobody answers twice.
        let snapshot = verdict.versions.unwrap_or_default().models;
        let wrong = |part: &&ModelScore| part.role == "champion" && !snapshot.contains(&format!("{}:{}", part.model, part.version));
        let twice = verdict.models.iter().filter(|part| part.model == MODEL && part.role != "shadow").count() > 1;
        seen.mixed.fetch_add(u64::from(twice || verdict.models.iter().any(|part| wrong(&part))), Ordering::Relaxed);
        let versions = verdict.models.iter().filter(|model| model.model == MODEL).map(|model| model.version);
        seen.note(began, from, versions);
        seen.calls.fetch_add(1, Ordering::Relaxed);
        // Labels come later than verdicts: a version in shadow has seen the transaction by then.
        answered.push_back((id, time, verdict.context));
        if number % 10 == 0 && answered.len() > 500 {
            let (transaction_id, time, context) = answered.pop_front().unwrap();
            let kind = if number % 30 == 0 { LabelKind::Abuse } else { LabelKind::Benign };
            let label = Label { transaction_id, time, kind: kind.into(), context, ..Label::default() };
            client.clone().feedback(FeedbackRequest { label: Some(label) }).await.unwrap();
        }
    }
}

async fn find(scorer: &Scorer) -> Model {
    let listed = ModelsClient::new(connect(scorer.admin)).list_models(ListModelsRequest {}).await.unwrap().into_inner().models;
    listed.into_iter().find(|model| model.name == MODEL).unwrap()
}

async fn compared(scorer: &Scorer) -> CompareModelResponse {
    let request = CompareModelRequest { model: MODEL.to_owned(), version: 0 };
    ModelsClient::new(connect(scorer.admin)).compare_model(request).await.unwrap().into_inner()
}

/// Runs a line of the README against this scorer; what it prints.
fn run(line: &str, scorer: &Scorer, folder: &Path) -> String {
    let words = line.replace("telltale models", &format!("telltale models --admin {}", scorer.admin));
    let programs = built("telltale").unwrap().parent().unwrap().to_path_buf();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash").args(["-euc", &words]).env("PATH", path).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lightgbm_model_goes_the_whole_way_by_the_lines_of_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    let root = repository(folder.path());
    // A machine that is busy with other things must not look like a slow model.
    let models = format!("[models]\npath = {root:?}\ncalibration_rows = 400\ndeadline_ms = 2000\nslower_us = 1000000\n");
    let section = acting_policy(folder.path()) + &models;
    let scorer = Scorer::start(folder.path(), &section).unwrap();
    let (seen, client) = (Arc::new(Seen::default()), scorer.client().await);
    let callers: Vec<_> = (0..2).map(|caller| tokio::spawn(call(client.clone(), 300 + caller, Arc::clone(&seen)))).collect();
    within(PATIENCE, "the shipped models calibrated", || async { find(&scorer).await.versions[0].calibration == "calibrated" }).await;

    let mut lines = lines().into_iter();
    let mut next = |begins: &str| {
        let line = lines.next().unwrap_or_default();
        assert!(line.starts_with(begins), "the README says `{line}` where `{begins}` is expected");
        line
    };
    run(&next("mkdir"), &scorer, folder.path());
    half_first(&next("cp "), &scorer, folder.path()).await;
    within(PATIENCE, "version 2 in shadow", || async { find(&scorer).await.shadow == [2] }).await;
    let shown = run(&next("telltale models show"), &scorer, folder.path());
    assert!(shown.contains("SHADOW") && shown.contains("inbox") && shown.contains("calibrat"), "{shown}");

    let ready = |answer: &CompareModelResponse| answer.calibration == "calibrated" && answer.transactions >= 300 && answer.labels.len() > 1;
    within(PATIENCE, "version 2 calibrated and compared", || async { ready(&compared(&scorer).await) }).await;
    let answer = compared(&scorer).await;
    assert_eq!((answer.champion, answer.version, answer.errors), (1, 2, 0), "{answer:?}");
    assert!(answer.champion_scores.iter().sum::<u64>() > 0 && answer.version_scores.iter().sum::<u64>() > 0, "{answer:?}");
    assert_eq!(answer.actions.iter().map(|row| row.transactions).sum::<u64>(), answer.transactions, "{answer:?}");
    let said = run(&next("telltale models compare"), &scorer, folder.path());
    for what in ["alerts: both or neither", "scores in tenths, version 1", "action ", "label  abuse", "stability index"] {
        assert!(said.contains(what), "no `{what}` in {said}");
    }
    assert!(seen.take().values().all(|versions| !versions.contains(&2)), "a version in shadow answered");

    run(&next("telltale models canary"), &scorer, folder.path());
    seen.begin_anew();
    let mut answered: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    while answered.len() < 600 || !answered.values().any(|versions| versions.contains(&2)) {
        assert!(tokio::time::Instant::now() < end, "{} clients, none on trial", answered.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen.take().into_iter().for_each(|(from, versions)| answered.entry(from).or_default().extend(versions));
    }
    let trial = answered.values().filter(|versions| versions.contains(&2)).count();
    let both: Vec<_> = answered.iter().filter(|(_, versions)| versions.len() > 1).collect();
    let audit = || std::fs::read_to_string(root.join("audit.ndjson")).unwrap();
    assert!(both.is_empty(), "clients change sides: {both:?}\n{}", audit());
    assert!(trial * 5 < answered.len(), "{trial} of {} clients are on trial, 5 % were asked for", answered.len());

    run(&next("telltale models promote"), &scorer, folder.path());
    everybody(&seen, 2, &root).await;
    let said = run(&next("telltale models rollback"), &scorer, folder.path());
    let took = said.trim_end().rsplit_once("in force after ").and_then(|(_, took)| took.strip_suffix(" ms")?.parse::<f64>().ok());
    write_figures("drop_in.json", &serde_json::json!({ "rollback_ms": took.unwrap_or_else(|| panic!("no time in {said}")) }));
    everybody(&seen, 1, &root).await;
    assert_eq!(next(""), "", "the README says more");

    seen.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(seen.mixed.load(Ordering::Relaxed), 0, "of {} verdicts", seen.calls.load(Ordering::Relaxed));
    let audit = audit();
    let steps: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&str> = steps.iter().filter_map(|line| line["what"].as_str()).collect();
    assert_eq!(steps, ["publish", "shadow", "canary", "promote", "rollback"], "{audit}");
}

/// Does what a `cp` line says as a slow network would: half of the file first, which must not be taken.
async fn half_first(line: &str, scorer: &Scorer, folder: &Path) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, from, to] = words[..] else { panic!("`{line}` copies no file") };
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(from)).unwrap();
    let to = folder.join(to);
    std::fs::write(&to, &bytes[..bytes.len() / 2]).unwrap();
    // That something does not happen shows by time alone: longer than the inbox waits for a file that does not change any more. A machine
    // so busy that the inbox does not look within it makes this weaker, never wrong.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(to.is_file() && find(scorer).await.versions.len() == 1, "half a file was taken or thrown away");
    std::fs::write(&to, &bytes).unwrap();
}

/// From now on that version answers everybody.
async fn everybody(seen: &Seen, version: u32, repository: &Path) {
    // Calls that began before the change end with what they began with.
    seen.begin_anew();
    let mut answered: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    within(PATIENCE, "two hundred clients", || {
        seen.take().into_iter().for_each(|(from, versions)| answered.entry(from).or_default().extend(versions));
        std::future::ready(answered.len() >= 200)
    })
    .await;
    let wrong: Vec<_> = answered.iter().filter(|(_, versions)| versions.iter().any(|other| *other != version)).collect();
    let audit = std::fs::read_to_string(repository.join("audit.ndjson")).unwrap();
    assert!(wrong.is_empty(), "version {version} expected, {} of {} clients got another\n{audit}", wrong.len(), answered.len());
}
