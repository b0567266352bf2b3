//! The scorer is killed at every step of taking a model from the inbox: the restart finds a whole repository, the champion serves, and the
//! file is taken once, neither lost nor doubled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use telltale_proto::v1::ModelState;
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tokio::time::Instant;

use crate::models::{corpus, find, names, repository};
use crate::stage::{score, telltale_ok, within};

/// What is there after each step of a publish, or not any more, in their order.
fn steps(root: &Path) -> Vec<(&'static str, PathBuf, bool)> {
    let below = |path: &str| root.join(path);
    vec![
        ("the model's folder", below("mine/versions"), true),
        ("the lock", below("mine/.lock"), true),
        ("the staging folder", below("mine/.staging"), true),
        ("the model's file", below("mine/.staging/model.onnx"), true),
        ("the report", below("mine/.staging/report.json"), true),
        ("the golden rows", below("mine/.staging/golden.parquet"), true),
        ("the manifest", below("mine/.staging/manifest.toml"), true),
        ("the policy", below("mine/policy.toml"), true),
        ("the version in its place", below("mine/versions/1/manifest.toml"), true),
        ("the audit", below("audit.ndjson"), true),
        ("the inbox", below("inbox/mine.onnx"), false),
    ]
}

/// Waits until a file is there, or is not, without giving up the processor: the next step comes within a millisecond.
fn wait_for(path: &Path, there: bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while path.exists() != there {
        assert!(Instant::now() < end, "{}: not within a minute", path.display());
        std::hint::spin_loop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scorer_killed_at_any_step_of_a_publish_finds_a_whole_repository() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("corpus");
    corpus(&files);
    let mut reached = Vec::new();
    for step in 0..steps(Path::new("")).len() {
        let place = folder.path().join(step.to_string());
        std::fs::create_dir_all(&place).unwrap();
        let (root, section) = repository(&place);
        let mut scorer = Scorer::start(&place, &section).unwrap();
        std::fs::copy(files.join("harmless.onnx"), root.join("inbox/mine.onnx")).unwrap();
        let (name, path, there) = steps(&root).remove(step);
        wait_for(&path, there);
        scorer.process.signal(rustix::process::Signal::KILL).unwrap();
        assert!(!scorer.process.wait().unwrap());
        let versions = names(&root.join("mine/versions")).len();
        assert!(versions < 2, "{name}: {versions} versions");
        reached.push((name, versions));

        let again = Scorer::start_at(&place, &section, scorer.addresses()).unwrap();
        let mut traffic = Traffic::new(83, 20);
        let verdict = score(&again.client().await, traffic.next_transaction()).await.unwrap();
        assert!(verdict.models.iter().any(|model| model.model == "unusual"), "{name}: {verdict:?}");
        within(Duration::from_secs(60), name, || async {
            let found = find(&again, "mine").await;
            found.is_some_and(|model| model.versions.len() == 1 && model.versions[0].state() == ModelState::Shadow)
        })
        .await;
        within(Duration::from_secs(10), name, || std::future::ready(!root.join("inbox/mine.onnx").exists())).await;
        let models = root.to_string_lossy();
        // A number that was taken before the kill is not given again.
        let version = find(&again, "mine").await.unwrap().versions[0].version;
        for (model, version) in [("mine", version), ("unusual", 1)] {
            telltale_ok(&["models", "verify", model, &version.to_string(), "--models", &models]);
        }
    }
    // Otherwise the kills all fell on one side of the moment that counts.
    assert!(reached.iter().any(|(_, versions)| *versions == 0) && reached.iter().any(|(_, versions)| *versions == 1), "{reached:?}");
}
