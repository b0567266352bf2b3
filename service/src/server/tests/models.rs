//! Models while traffic flows: swaps that mix nothing and replay equal, changes by hand, versions that fail alone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use telltale_proto::v1::models_client::ModelsClient;

use super::parity::replayed_with;
use super::*;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default/unusual");
const CALLERS: usize = 3;
const EACH: usize = 80;
const SWAPS: u32 = 40;

/// A repository with three versions of the shipped forest, the first in force.
pub(super) fn repository(folder: &Path) -> PathBuf {
    let root = folder.join("models");
    for version in 1..=3 {
        let to = root.join(format!("unusual/versions/{version}"));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(Path::new(SHIPPED).join("versions/1")).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
    }
    std::fs::write(root.join("unusual/policy.toml"), "[aliases]\nchampion = 1\n").unwrap();
    root
}

pub(super) fn with_models(folder: &Path, shipped_calibration: bool) -> Config {
    let mut config = config(folder);
    config.models.path = Some(repository(folder));
    config.models.shipped_calibration = shipped_calibration;
    config
}

pub(super) async fn models(running: &Running) -> ModelsClient<Channel> {
    ModelsClient::new(channel(running.admin).await)
}

pub(super) async fn unusual(models: &mut ModelsClient<Channel>) -> v1::Model {
    let listed = models.list_models(v1::ListModelsRequest {}).await.unwrap().into_inner().models;
    listed.into_iter().find(|model| model.name == "unusual").unwrap()
}

pub(super) fn promote(version: u32) -> v1::PromoteModelRequest {
    v1::PromoteModelRequest { model: "unusual".to_owned(), version, reason: "a test".to_owned(), uncalibrated: false }
}

fn rollback() -> v1::RollbackModelRequest {
    v1::RollbackModelRequest { model: "unusual".to_owned(), reason: "a test".to_owned() }
}

pub(super) fn canary(version: u32, percent: f64) -> v1::SetCanaryRequest {
    v1::SetCanaryRequest { model: "unusual".to_owned(), version, percent, reason: String::new() }
}

/// Asks until the answer is yes; what is awaited gives no event to wait for.
pub(super) async fn within<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    for _ in 0..3_000 {
        if ask().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within a minute: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_on_features_without_a_full_window_is_refused_and_a_verdict_says_what_warms() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = with_models(folder.path(), true);
    // As an installation that has been counting other things until now.
    std::fs::create_dir_all(&config.data).unwrap();
    std::fs::write(config.data.join("features.json"), "{}").unwrap();
    config.journal.enabled = false;
    let running = start(config).await;
    let (mut admin, mut scorer) = (models(&running).await, client(&running).await);
    let refusals = [
        admin.promote_model(promote(2)).await.unwrap_err(),
        admin.promote_model(v1::PromoteModelRequest { uncalibrated: true, ..promote(2) }).await.unwrap_err(),
        admin.set_canary(canary(3, 50.0)).await.unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
        assert!(refused.message().contains("no full window yet") && refused.message().contains("wait"), "{refused:?}");
    }
    admin.set_canary(canary(3, 0.0)).await.unwrap();
    let verdict = score(&mut scorer, login("w1", "192.0.2.1", "anna")).await.unwrap();
    assert_eq!(verdict.features_status(), v1::FeaturesStatus::Warming, "{verdict:?}");
    let words: Vec<&String> = verdict.degraded.iter().filter(|words| words.contains("without a full window yet")).collect();
    assert!(words.len() == 1 && words[0].contains(" more"), "{verdict:?}");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_fail_nothing_mix_nothing_and_replay_equal() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_models(folder.path(), true);
    let running = start(config.clone()).await;
    let mut calls = Vec::new();
    let swapped = Arc::new(AtomicBool::new(false));
    for caller in 0..CALLERS {
        let (mut scorer, swapped) = (client(&running).await, Arc::clone(&swapped));
        calls.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            // As long as models are swapped.
            for step in (0..).take_while(|step| *step < EACH || !swapped.load(Ordering::Relaxed)) {
                let (address, user) = (format!("192.0.2.{}", step % 20), format!("user{}", (step + caller) % 5));
                let verdict = score(&mut scorer, login(&format!("s{caller}-{step}"), &address, &user)).await.unwrap();
                assert_eq!(verdict.degraded, [""; 0]);
                let in_force = verdict.versions.unwrap().models;
                for model in &verdict.models {
                    // Version 3 is on trial only while version 1 is in force.
                    let expected = if model.role == "champion" { model.version } else { 1 };
                    assert!(in_force.contains(&format!("{}:{expected}", model.model)), "a verdict mixes versions: {model:?}, {in_force:?}");
                }
                seen.push(verdict.models.len());
            }
            seen
        }));
    }
    let (mut admin, mut scorer) = (models(&running).await, client(&running).await);
    for swap in 0..SWAPS {
        let change = match swap % 4 {
            0 => admin.promote_model(promote(2)).await.unwrap().into_inner().change,
            1 => admin.rollback_model(rollback()).await.unwrap().into_inner().change,
            2 => admin.set_canary(canary(3, 50.0)).await.unwrap().into_inner().change,
            _ => admin.set_canary(canary(3, 0.0)).await.unwrap().into_inner().change,
        };
        assert!(change.unwrap().epoch > 0);
        // The next verdict is the new version's: every later one too.
        let verdict = score(&mut scorer, login(&format!("own-{swap}"), "192.0.2.200", "own")).await.unwrap();
        let expected = if swap % 4 == 0 { &[2][..] } else { &[1, 3] };
        assert!(verdict.models.iter().all(|model| expected.contains(&model.version)), "{swap}: {:?}", verdict.models);
    }
    swapped.store(true, Ordering::Relaxed);
    let mut decisions = u64::from(SWAPS);
    for call in calls {
        decisions += call.await.unwrap().len() as u64;
    }
    let model = unusual(&mut admin).await;
    assert_eq!((model.champion, model.revision, model.canary), (1, u64::from(SWAPS), 0), "{model:?}");
    running.stop().await.unwrap();
    let audit = std::fs::read_to_string(folder.path().join("models/audit.ndjson")).unwrap();
    assert_eq!(audit.lines().count(), SWAPS as usize);

    let compare = |threads| {
        let (summary, verdicts, _) = replayed_with(folder.path(), config.clone(), threads);
        let compared = summary.compared.clone().unwrap();
        assert_eq!(compared.decisions, decisions, "{compared:?}");
        assert_eq!((compared.different_vectors, compared.different_decisions, compared.missing), (0, 0, 0), "{compared:?}");
        assert!(summary.degraded.is_empty(), "{:?}", summary.degraded);
        verdicts
    };
    assert!(compare(1) == compare(2), "verdict files differ between 1 and 2 threads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_changed_by_hand_is_followed_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(with_models(folder.path(), true)).await;
    let admin = models(&running).await;
    let policy = folder.path().join("models/unusual/policy.toml");
    std::fs::write(&policy, "revision = 8\n[aliases]\nchampion = 2\nprevious = 1\n").unwrap();
    let champion = |version: u32| {
        let admin = admin.clone();
        move || {
            let mut admin = admin.clone();
            async move { unusual(&mut admin).await.champion == version }
        }
    };
    within("version 2 in force", champion(2)).await;
    // Nonsense, and a version that is not there: what is in force stays.
    for bad in ["[aliases]\nchampion = \"two\"\n", "[aliases]\nchampion = 99\n"] {
        std::fs::write(&policy, bad).unwrap();
        within("the refusal is counted", || {
            let text = running.service().metrics.text(running.service()).unwrap();
            std::future::ready(text.contains("telltale_model_changes_total{result=\"refused\",what=\"file\"}"))
        })
        .await;
        assert!(champion(2)().await);
    }
    std::fs::write(&policy, "[aliases]\nchampion = 3\n").unwrap();
    within("version 3 in force", champion(3)).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_fails_alone_and_a_restart_finds_what_was_promoted() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_models(folder.path(), true);
    let running = start(config.clone()).await;
    let mut admin = models(&running).await;
    let broken = folder.path().join("models/unusual/versions/3/model.bin");
    std::fs::write(&broken, b"not a forest").unwrap();
    let refused = admin.promote_model(promote(3)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("the file is damaged or was changed"), "{refused}");
    assert_eq!(admin.promote_model(promote(9)).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(admin.rollback_model(rollback()).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    let model = unusual(&mut admin).await;
    assert_eq!(model.champion, 1);
    let states: Vec<_> = model.versions.iter().map(|version| version.state()).collect();
    assert_eq!(states, [v1::ModelState::Champion, v1::ModelState::Staged, v1::ModelState::Failed]);
    assert!(model.versions[2].reason.contains("digest"), "{model:?}");

    admin.promote_model(promote(2)).await.unwrap();
    running.stop().await.unwrap();
    let again = start(config).await;
    let mut admin = models(&again).await;
    let model = unusual(&mut admin).await;
    assert_eq!((model.champion, model.previous, model.revision), (2, 1, 1));
    let back = admin.rollback_model(rollback()).await.unwrap().into_inner().change.unwrap();
    assert_eq!((back.model.unwrap().champion, back.epoch > 0), (1, true));
    admin.remove_model(v1::RemoveModelRequest { model: "unusual".to_owned(), version: 3, reason: String::new() }).await.unwrap();
    assert_eq!(unusual(&mut admin).await.versions.len(), 2);
    again.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_compared_calibrates_and_only_then_may_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = with_models(folder.path(), false);
    config.models.calibration_rows = 100;
    config.policy.mode = Some("off".to_owned());
    let running = start(config).await;
    let mut admin = models(&running).await;
    let shadow = v1::SetShadowRequest { model: "unusual".to_owned(), version: 2, ..Default::default() };
    admin.set_shadow(shadow).await.unwrap();
    let early = admin.promote_model(promote(2)).await.unwrap_err();
    assert!(early.message().contains("not calibrated on this site yet (0/100)"), "{early}");
    let mut scorer = client(&running).await;
    for at in 0..160_u32 {
        let tx = login(&format!("c{at}"), &format!("198.51.100.{}", at % 250), &format!("user{at}"));
        let verdict = score(&mut scorer, tx).await.unwrap();
        assert!(verdict.models.iter().all(|model| model.version == 1), "a shadow stands in the verdict");
        // The queue is bounded: what it holds must be worked off before more comes. What it learns from is not compared.
        within("the shadow has seen it", || {
            let shadows = &running.service().models.shadows;
            let compared = shadows.comparison("unusual", 2).map_or(0, |compared| compared.transactions);
            let learnt = shadows.progress("unusual", 2).map_or(100, |(have, _)| have);
            std::future::ready(learnt + compared > u64::from(at))
        })
        .await;
    }
    let request = v1::CompareModelRequest { model: "unusual".to_owned(), version: 0 };
    let compared = admin.compare_model(request).await.unwrap().into_inner();
    assert_eq!((compared.champion, compared.version, compared.transactions, compared.errors), (1, 2, 60, 0), "{compared:?}");
    assert_eq!((compared.agreed, compared.calibration.as_str()), (60, "calibrated"), "{compared:?}");
    admin.promote_model(promote(2)).await.unwrap();
    let model = unusual(&mut admin).await;
    assert_eq!((model.champion, model.previous, model.shadow.len()), (2, 1, 0));
    let verdict = score(&mut scorer, login("after", "198.51.100.9", "user9")).await.unwrap();
    assert!(verdict.models.iter().any(|model| model.version == 2 && model.calibration.is_empty()), "{:?}", verdict.models);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_ends_ends_even_where_nothing_can_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(with_models(folder.path(), true)).await;
    let mut admin = models(&running).await;
    admin.set_canary(canary(3, 50.0)).await.unwrap();
    // A folder in the place of the lock: the policy cannot be changed any more, as on a full disk.
    let lock = folder.path().join("models/unusual/.lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    let refused = admin.promote_model(promote(2)).await.unwrap_err();
    assert_eq!((refused.code(), unusual(&mut admin).await.champion), (tonic::Code::Internal, 1), "what is new is saved first");
    let unsaved = admin.set_canary(canary(3, 0.0)).await.unwrap_err();
    assert!(unsaved.message().contains("`canary` of model `unusual` is in force, but only until a restart"), "{unsaved}");
    assert_eq!(unusual(&mut admin).await.canary, 0, "what hurts goes at once");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_overtakes_the_shadow_is_compared_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(with_models(folder.path(), true)).await;
    let mut admin = models(&running).await;
    let shadow = v1::SetShadowRequest { model: "unusual".to_owned(), version: 2, ..Default::default() };
    admin.set_shadow(shadow).await.unwrap();
    let shadows = &running.service().models.shadows;
    // Before the transaction is even scored: no shadow can be faster.
    let now = running.service().engine.clock().now();
    shadows.labelled("early", "fraud", now);
    let mut scorer = client(&running).await;
    score(&mut scorer, login("early", "198.51.100.1", "anna")).await.unwrap();
    let labels = || shadows.comparison("unusual", 2).map_or(0, |compared| compared.to_proto(2, 0, String::new()).labels.len());
    within("the label is joined", || std::future::ready(labels() == 1)).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_falls_behind_catches_up_in_batches_and_compares_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = with_models(folder.path(), true);
    // Whatever a model says alarms: so does the same forest in shadow.
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, "risk:\n  alert: 40\n  probability: [[0.0, 60]]\n  p_value: [[0.0, 80], [1.0, 60]]\nrules: []\n").unwrap();
    config.policy.path = Some(policy);
    let running = start(config).await;
    let mut admin = models(&running).await;
    admin.set_shadow(v1::SetShadowRequest { model: "unusual".to_owned(), version: 2, ..Default::default() }).await.unwrap();
    let mut calls = Vec::new();
    for caller in 0..8_usize {
        let mut scorer = client(&running).await;
        calls.push(tokio::spawn(async move {
            for step in 0..50 {
                let tx = login(&format!("b{caller}-{step}"), &format!("198.51.100.{}", step % 20), &format!("user{caller}"));
                score(&mut scorer, tx).await.unwrap();
            }
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    let shadows = &running.service().models.shadows;
    let compared = || shadows.comparison("unusual", 2).map_or(0, |compared| compared.transactions);
    within("everything is compared", || std::future::ready(compared() == 400)).await;
    let request = v1::CompareModelRequest { model: "unusual".to_owned(), version: 2 };
    let found = admin.compare_model(request).await.unwrap().into_inner();
    assert_eq!((found.agreed, found.errors, found.dropped), (400, 0, 0), "{found:?}");
    assert_eq!(found.mean_risk_change, 0.0, "the same forest makes the same risk");
    assert_eq!(shadows.comparison("unusual", 2).and_then(|compared| compared.alert_rates_in_shadow(1)), Some((1.0, 1.0)));
    running.stop().await.unwrap();
}
