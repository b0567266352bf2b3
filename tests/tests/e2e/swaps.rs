//! Swaps while calls come in on the real path. 200 of them, 10,000 with `TELLTALE_SIZE=full`; the figures go to `target/check/swaps.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use telltale_proto::v1::models_client::ModelsClient;
use telltale_proto::v1::{ModelChange, ModelScore, PromoteModelRequest, RollbackModelRequest, SetCanaryRequest, Verdict};
use telltale_tests::stand::{Scorer, connect, shipped_models};
use telltale_tests::traffic::Traffic;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::stage::score;

const MODEL: &str = "unusual";

/// Three versions of the shipped forest, the first in force.
fn repository(folder: &Path) -> PathBuf {
    let root = folder.join("models");
    let from = shipped_models().unwrap().join(MODEL).join("versions/1");
    for version in 1..=3 {
        let to = root.join(format!("{MODEL}/versions/{version}"));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    std::fs::write(root.join(format!("{MODEL}/policy.toml")), "[aliases]\nchampion = 1\n").unwrap();
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

async fn swap(models: &mut ModelsClient<Channel>, number: u64) -> (bool, ModelChange) {
    let model = MODEL.to_owned();
    let canary = |percent| SetCanaryRequest { model: MODEL.to_owned(), version: 3, percent, reason: String::new() };
    let change = match number % 4 {
        0 => {
            let request = PromoteModelRequest { model, version: 2, ..Default::default() };
            models.promote_model(request).await.unwrap().into_inner().change
        }
        1 => models.rollback_model(RollbackModelRequest { model, reason: String::new() }).await.unwrap().into_inner().change,
        2 => models.set_canary(canary(50.0)).await.unwrap().into_inner().change,
        _ => models.set_canary(canary(0.0)).await.unwrap().into_inner().change,
    };
    (number % 4 == 1, change.unwrap())
}

fn quantile(values: &mut [u64], quantile: f64) -> u64 {
    values.sort_unstable();
    values.get(((values.len() as f64 * quantile) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_fail_no_call_and_mix_no_versions() {
    let full = std::env::var("TELLTALE_SIZE").is_ok_and(|size| size == "full");
    let swaps: u64 = if full { 10_000 } else { 200 };
    let folder = tempfile::tempdir().unwrap();
    let section = format!("[models]\npath = {:?}\nshipped_calibration = true\n[journal]\nenabled = {}\n", repository(folder.path()), !full);
    let scorer = Scorer::start(folder.path(), &section).unwrap();
    let (stop, answered, mixed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let steady = Arc::new(tokio::sync::Mutex::new(Vec::new()));
    let mut load = Vec::new();
    for caller in 0..2 {
        let (client, mut traffic) = (scorer.client().await, Traffic::new(90 + caller, 500));
        let (stop, answered, mixed, steady) = (stop.clone(), answered.clone(), mixed.clone(), steady.clone());
        load.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                // A call that fails ends the test.
                let verdict = score(&client, traffic.next_transaction()).await.unwrap();
                steady.lock().await.push(begun.elapsed().as_micros() as u64);
                answered.fetch_add(1, Ordering::Relaxed);
                mixed.fetch_add(u64::from(mixes(&verdict)), Ordering::Relaxed);
            }
        }));
    }
    while answered.load(Ordering::Relaxed) < 1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = resident(scorer.process.id());
    let mut models = ModelsClient::new(connect(scorer.admin));
    let (client, mut traffic) = (scorer.client().await, Traffic::new(99, 500));
    let (mut rollbacks, mut first) = (Vec::new(), Vec::new());
    for number in 0..swaps {
        let (rollback, change) = swap(&mut models, number).await;
        if rollback {
            rollbacks.push(change.took_us);
        }
        let begun = Instant::now();
        let verdict = score(&client, traffic.next_transaction()).await.unwrap();
        first.push(begun.elapsed().as_micros() as u64);
        assert!(!mixes(&verdict), "{verdict:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let after = resident(scorer.process.id());
    let mut steady = steady.lock().await.clone();
    let figures = serde_json::json!({
        "swaps": swaps,
        "calls": answered.load(Ordering::Relaxed) + swaps,
        "failed": 0,
        "mixed": mixed.load(Ordering::Relaxed),
        "resident_growth_percent": 100.0 * (after as f64 - before as f64) / before as f64,
        "rollback_max_ms": rollbacks.iter().max().copied().unwrap_or(0) as f64 / 1e3,
        "rollback_p50_ms": quantile(&mut rollbacks, 0.5) as f64 / 1e3,
        "steady_p99_us": quantile(&mut steady, 0.99),
        "first_after_swap_p50_us": quantile(&mut first, 0.5),
        "first_after_swap_p99_us": quantile(&mut first, 0.99),
    });
    assert_eq!(mixed.load(Ordering::Relaxed), 0);
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/check");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("swaps.json"), format!("{figures:#}\n")).unwrap();
}
