//! Swaps while calls come in on the real path: promotions, rollbacks, trials and files dropped into the inbox. 200 of them, 10,000 with
//! `TELLTALE_SIZE=full`; the figures go to `target/check/swaps.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use telltale_proto::v1::models_client::ModelsClient;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{
    ListModelsRequest, ModelChange, ModelScore, PromoteModelRequest, RemoveModelRequest, RollbackModelRequest, SetCanaryRequest,
    SetShadowRequest, Verdict,
};
use telltale_tests::stand::{Scorer, connect, shipped_models};
use telltale_tests::traffic::Traffic;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::stage::{score, within, write_figures};

const MODEL: &str = "unusual";
const DROPPED: &str = "dropped";
/// Clients: few, since the state of each grows for minutes as its windows fill, which is no cost of swaps.
const CLIENTS: u32 = 12;
/// Every so many swaps one is a file in the inbox.
const DROP_EVERY: u64 = 40;
/// Between two calls of a caller: a constant load, which leaves the machine room.
const PACE: Duration = Duration::from_millis(3);
/// Calls before the first swap, which warm everything up and fill what is bounded.
const SETTLE: u64 = 8_000;
/// Rounds before the first swap in which the operator asks and changes nothing.
const STILL: u64 = 500;
/// Changes before it, and a file in the inbox: all three versions are in memory then, one of them on trial, so that what compares them fills.
const WARM: u64 = 3;
/// What grows with traffic is small here, so that what grows after the first swap grew by swaps. The inbox rests less, for more drops;
/// a machine that stands still for milliseconds is no slow version, which the guard would take back before the operator does.
const BOUNDS: &str = "await_labels = 1000\ninbox_percent = 50\nslower_us = 1000000\n[idempotency]\ntransactions = 1024\nearly_outcomes = 100\n[names]\nmax_mb = 1\n[endpoints]\nlearn = \"off\"\n";

/// The shipped models, three versions of the forest among them, the first in force.
fn repository(folder: &Path) -> PathBuf {
    let root = folder.join("models");
    for (model, versions) in [(MODEL, 3), ("abuse", 1)] {
        let from = shipped_models().unwrap().join(model).join("versions/1");
        for version in 1..=versions {
            let to = root.join(format!("{model}/versions/{version}"));
            std::fs::create_dir_all(&to).unwrap();
            for entry in std::fs::read_dir(&from).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
        std::fs::write(root.join(format!("{model}/policy.toml")), "[aliases]\nchampion = 1\n").unwrap();
    }
    std::fs::create_dir_all(root.join("inbox")).unwrap();
    root
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Whether another version scored than the snapshot that the verdict names had in force, or had on trial.
fn mixes(verdict: &Verdict) -> bool {
    let Some(versions) = verdict.versions.as_ref() else { return true };
    let mixed = |model: &ModelScore| match model.role.as_str() {
        "champion" => !versions.models.contains(&format!("{}:{}", model.model, model.version)),
        // Version 3 is on trial only while version 1 is in force.
        _ => model.version != 3 || !versions.models.contains(&format!("{MODEL}:1")),
    };
    verdict.models.is_empty() || verdict.models.iter().any(mixed)
}

/// The models of a scorer, as an operator changes them.
struct Operator {
    models: ModelsClient<Channel>,
    inbox: PathBuf,
    /// Files dropped, of which the last may still be on its way.
    drops: u64,
    steps: u64,
}

impl Operator {
    /// The next change over the wire; whether it was a rollback.
    async fn step(&mut self) -> (bool, ModelChange) {
        let model = MODEL.to_owned();
        let canary = |percent| SetCanaryRequest { model: MODEL.to_owned(), version: 3, percent, reason: String::new() };
        let number = self.steps % 4;
        self.steps += 1;
        let change = match number {
            0 => {
                let request = PromoteModelRequest { model, version: 2, ..Default::default() };
                self.models.promote_model(request).await.unwrap().into_inner().change
            }
            1 => self.models.rollback_model(RollbackModelRequest { model, reason: String::new() }).await.unwrap().into_inner().change,
            2 => self.models.set_canary(canary(50.0)).await.unwrap().into_inner().change,
            _ => self.models.set_canary(canary(0.0)).await.unwrap().into_inner().change,
        };
        (number == 1, change.unwrap())
    }

    /// A question that changes nothing.
    async fn ask(&mut self) {
        self.models.list_models(ListModelsRequest {}).await.unwrap();
    }

    /// Drops a file that no version has, once the one before it was taken and is out of the way.
    async fn drop_file(&mut self) {
        self.clear().await;
        self.drops += 1;
        let mut bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fixtures/dropin.onnx")).unwrap();
        // One more entry of `metadata_props`: key `n`, and the number as its value.
        let number = format!("{:06}", self.drops);
        bytes.extend([0x72, 11, 0x0a, 1, b'n', 0x12, 6]);
        bytes.extend(number.as_bytes());
        std::fs::write(self.inbox.join(format!("{DROPPED}.onnx")), bytes).unwrap();
    }

    /// Waits until the last file is in shadow. Returns its version.
    async fn taken(&mut self) -> u32 {
        let version = u32::try_from(self.drops).unwrap();
        within(Duration::from_secs(120), "the dropped model in shadow", || {
            let mut models = self.models.clone();
            async move {
                let listed = models.list_models(ListModelsRequest {}).await.unwrap().into_inner().models;
                listed.iter().any(|model| model.name == DROPPED && model.shadow == [version])
            }
        })
        .await;
        version
    }

    /// Takes the last file out again, once it is in shadow.
    async fn clear(&mut self) {
        if self.drops == 0 {
            return;
        }
        let version = self.taken().await;
        let model = DROPPED.to_owned();
        let request = SetShadowRequest { model: model.clone(), version, remove: true, ..Default::default() };
        self.models.set_shadow(request).await.unwrap();
        self.models.remove_model(RemoveModelRequest { model, version, reason: String::new() }).await.unwrap();
    }
}

fn quantile(values: &mut [u64], quantile: f64) -> u64 {
    values.sort_unstable();
    values.get(((values.len() as f64 * quantile) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// What the callers saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    mixed: AtomicU64,
    /// Verdicts that a version on trial answered.
    on_trial: AtomicU64,
}

impl Seen {
    fn note(&self, verdict: &Verdict) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.mixed.fetch_add(u64::from(mixes(verdict)), Ordering::Relaxed);
        let on_trial = verdict.models.iter().any(|model| model.role == "canary");
        self.on_trial.fetch_add(u64::from(on_trial), Ordering::Relaxed);
    }
}

/// Calls until it is told to stop. A call that fails ends the test.
async fn call(scorer: ScorerClient<Channel>, seed: u64, seen: Arc<Seen>) {
    let mut traffic = Traffic::new(seed, CLIENTS);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !seen.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        seen.note(&score(&scorer, traffic.next_transaction()).await.unwrap());
    }
}

/// Who calls once after each answer to the operator, whatever that changed.
struct Prober {
    scorer: ScorerClient<Channel>,
    traffic: Traffic,
    seen: Arc<Seen>,
}

impl Prober {
    /// Microseconds of a call, then a pause.
    async fn call(&mut self) -> u64 {
        let begun = Instant::now();
        let verdict = score(&self.scorer, self.traffic.next_transaction()).await.unwrap();
        let took = begun.elapsed().as_micros() as u64;
        self.seen.note(&verdict);
        tokio::time::sleep(PACE).await;
        took
    }
}

/// Microseconds, of rollbacks and of the calls that came after the operator's answers.
#[derive(Default)]
struct Took {
    rollbacks: Vec<u64>,
    /// After a change.
    first: Vec<u64>,
    /// After a question, turn about with the changes: in the same place, under the same load.
    steady: Vec<u64>,
    /// After a question, before the first change.
    still: Vec<u64>,
}

impl Took {
    /// One change and one question.
    async fn round(&mut self, operator: &mut Operator, prober: &mut Prober) {
        let (rollback, change) = operator.step().await;
        self.first.push(prober.call().await);
        if rollback {
            self.rollbacks.push(change.took_us);
        }
        operator.ask().await;
        self.steady.push(prober.call().await);
    }

    fn figures(&mut self) -> serde_json::Value {
        serde_json::json!({
            "failed": 0,
            "rollback_max_ms": self.rollbacks.iter().max().copied().unwrap_or(0) as f64 / 1e3,
            "rollback_p50_ms": quantile(&mut self.rollbacks, 0.5) as f64 / 1e3,
            "still_p99_us": quantile(&mut self.still, 0.99),
            "steady_p50_us": quantile(&mut self.steady, 0.5),
            "steady_p99_us": quantile(&mut self.steady, 0.99),
            "first_after_swap_p50_us": quantile(&mut self.first, 0.5),
            "first_after_swap_p99_us": quantile(&mut self.first, 0.99),
        })
    }
}

/// All three versions and a dropped file in memory, and everything warm.
async fn settle(operator: &mut Operator, seen: &Seen) {
    operator.drop_file().await;
    operator.taken().await;
    for _ in 0..WARM {
        operator.step().await;
    }
    // So many calls more, whatever came before them.
    let settled = seen.answered.load(Ordering::Relaxed) + SETTLE;
    while seen.answered.load(Ordering::Relaxed) < settled {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_fail_no_call_and_mix_no_versions() {
    let full = std::env::var("TELLTALE_SIZE").is_ok_and(|size| size == "full");
    let swaps: u64 = if full { 10_000 } else { 200 };
    let folder = tempfile::tempdir().unwrap();
    let root = repository(folder.path());
    // A machine that is busy with other things must not look like a slow model.
    let section =
        format!("[models]\npath = {root:?}\nshipped_calibration = true\ndeadline_ms = 2000\n{BOUNDS}[journal]\nenabled = {}\n", !full);
    let scorer = Scorer::start(folder.path(), &section).unwrap();
    let seen = Arc::new(Seen::default());
    let mut load = Vec::new();
    for caller in 0..2 {
        load.push(tokio::spawn(call(scorer.client().await, 90 + caller, Arc::clone(&seen))));
    }
    let models = ModelsClient::new(connect(scorer.admin));
    let mut operator = Operator { models, inbox: root.join("inbox"), drops: 0, steps: 0 };
    settle(&mut operator, &seen).await;
    let mut prober = Prober { scorer: scorer.client().await, traffic: Traffic::new(99, CLIENTS), seen: Arc::clone(&seen) };
    let mut took = Took::default();
    for _ in 0..STILL {
        operator.ask().await;
        took.still.push(prober.call().await);
    }
    let before = resident(scorer.process.id());
    let mut on_the_way = Vec::new();
    for number in 0..swaps {
        if number % (swaps / 10) == 0 {
            on_the_way.push(resident(scorer.process.id()));
        }
        if number % DROP_EVERY == DROP_EVERY - 1 {
            operator.drop_file().await;
        } else {
            took.round(&mut operator, &mut prober).await;
        }
    }
    operator.clear().await;
    seen.stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let after = resident(scorer.process.id());
    let growth = 100.0 * (after as f64 - before as f64) / before as f64;
    let mut figures = took.figures();
    for (name, count) in [("calls", &seen.answered), ("on_trial", &seen.on_trial), ("mixed", &seen.mixed)] {
        figures[name] = count.load(Ordering::Relaxed).into();
    }
    for (name, value) in [("swaps", swaps.into()), ("drops", operator.drops.into()), ("resident_growth_percent", growth.into())] {
        figures[name] = value;
    }
    figures["resident_kib"] = on_the_way.into();
    write_figures("swaps.json", &figures);
    assert_eq!(figures["mixed"], 0, "{figures:#}");
    assert!(figures["on_trial"].as_u64() > Some(0), "{figures:#}");
    assert_eq!(operator.drops, swaps / DROP_EVERY + 1);
}
