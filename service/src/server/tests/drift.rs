//! Drift while traffic flows: rows are held against what the version in force learnt, or against the first rows of this site.

use telltale_models::Repository;
use telltale_models::profile::{Bins, Column, Profile};

use super::models::{models, promote, with_models, within};
use super::*;

const LEARNT: u64 = 1_000;

/// The manifest of a version, without what it says of its profile.
fn unprofiled(version: &Path) -> String {
    let text = std::fs::read_to_string(version.join("manifest.toml")).unwrap();
    text.lines().filter(|line| !line.contains("profile.json")).map(|line| format!("{line}\n")).collect()
}

/// Gives version 1 the profile of a window in which every feature was 0 or missing, half and half, and version 2 none.
fn with_profile(folder: &Path) {
    let root = folder.join("models");
    let manifest = Repository::open(&root).unwrap().manifest("unusual", 1).unwrap();
    let values = || (0..LEARNT).map(|at| if at % 2 == 0 { 0.0 } else { f64::NAN });
    let inputs = manifest.inputs.iter().map(|input| Column::of(&input.name, values())).collect();
    let profile = Profile { rows: LEARNT, inputs, score: Bins::of((0..LEARNT).map(|at| at as f64)) }.to_json();
    let version = root.join("unusual/versions/1");
    std::fs::write(version.join("profile.json"), &profile).unwrap();
    let entry = format!("[files]\n\"profile.json\" = \"{}\"\n", blake3::hash(profile.as_bytes()).to_hex());
    std::fs::write(version.join("manifest.toml"), unprofiled(&version).replace("[files]\n", &entry)).unwrap();
    let second = root.join("unusual/versions/2");
    std::fs::write(second.join("manifest.toml"), unprofiled(&second)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_away_from_the_training_window_are_named_feature_by_feature() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = with_models(folder.path(), true);
    with_profile(folder.path());
    (config.models.drift_one_in, config.models.drift_minutes) = (1, 60);
    let running = start(config).await;
    let (mut admin, mut scorer) = (models(&running).await, client(&running).await);
    let ask = |model: &str| v1::DriftRequest { model: model.to_owned() };
    for at in 0..600_u32 {
        score(&mut scorer, login(&format!("d{at}"), &format!("198.51.100.{}", at % 250), &format!("user{}", at % 40))).await.unwrap();
    }
    within("every row is counted", || {
        let mut admin = admin.clone();
        async move { admin.drift(ask("unusual")).await.unwrap().into_inner().models[0].rows == 600 }
    })
    .await;
    let found = admin.drift(ask("")).await.unwrap().into_inner().models.remove(0);
    assert_eq!(
        (found.model.as_str(), found.version, found.reference.as_str(), found.reference_rows),
        ("unusual", 1, "the training window", LEARNT)
    );
    assert_eq!((found.one_in, found.window_minutes, found.unseen, found.word.as_str()), (1, 60, 0, "shifted"));
    let inputs = Repository::open(folder.path().join("models")).unwrap().manifest("unusual", 1).unwrap().inputs.len();
    assert_eq!(found.features.len(), inputs);
    assert!(found.features.windows(2).all(|two| two[0].stability_index >= two[1].stability_index));
    assert_eq!(found.features[0].word, "shifted");
    // A login always has these, however many there were.
    let requests = found.features.iter().find(|feature| feature.feature == "address.requests_1m").unwrap();
    assert_eq!((requests.missing_then, requests.missing_now, requests.word.as_str()), (0.5, 0.0, "shifted"), "{requests:?}");

    let text = running.service().metrics.text(running.service()).unwrap();
    let value = |name: &str, what: &str| -> f64 {
        let line = format!("{name}{{model=\"unusual\",version=\"1\",what=\"{what}\"}} ");
        text.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or_else(|| panic!("{line}: {text}")).parse().unwrap()
    };
    assert_eq!(value("telltale_model_psi", "score"), found.score_stability_index);
    assert_eq!(value("telltale_model_psi", "worst_input"), found.features[0].stability_index);
    assert!((value("telltale_model_missing_rate", "learnt") - 0.5).abs() < 1e-9);

    // Several that ask at once are all told of it.
    let service = running.service();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..50 {
                    let text = service.metrics.text(service).unwrap();
                    assert!(text.contains("telltale_model_psi{") && text.contains("telltale_model_missing_rate{"), "{text}");
                }
            });
        }
    });

    // Another version in force has learnt something else; this one does not say what.
    admin.promote_model(promote(2)).await.unwrap();
    score(&mut scorer, login("after", "198.51.100.1", "anna")).await.unwrap();
    within("its first row is kept", || {
        let mut admin = admin.clone();
        async move { admin.drift(ask("unusual")).await.unwrap().into_inner().models[0].reference_rows == 1 }
    })
    .await;
    let second = admin.drift(ask("unusual")).await.unwrap().into_inner().models.remove(0);
    assert!(second.version == 2 && second.reference.contains("first rows of this site") && second.word == "too few rows", "{second:?}");
    let absent = admin.drift(ask("odd")).await.unwrap_err();
    assert!(absent.code() == tonic::Code::FailedPrecondition && absent.message().contains("`odd` has no version in force"), "{absent}");
    running.stop().await.unwrap();
}
