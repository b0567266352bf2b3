//! An online model: windows of the site's own traffic become profiles, each a journalled change, and a replay follows them.

use telltale_models::half_space::{HalfSpace, Profile, Shape, file};
use telltale_models::repository::{Draft, FeatureIndex, GoldenRows, Input, Kind, Manifest, Missing, Output, Training};
use telltale_models::scale::Scale;
use telltale_models::{CalibrationTable, Repository, calibration::Meaning};

use super::models::{models, within};
use super::parity::replayed_with;
use super::*;

const FEATURES: [&str; 3] = ["address.requests_1m", "address.requests_10m", "user.requests_10m"];
const WINDOW: u32 = 32;

/// A repository with half-space trees that have seen only empty rows; the p-values of the least and the greatest score.
fn repository(folder: &Path, (least, greatest): (f64, f64)) -> std::path::PathBuf {
    let root = folder.join("models");
    let index = FeatureIndex::of(&telltale_features::schema::Schema::shipped());
    let shape = Shape { scales: vec![Scale { centre: 0.0, width: 1.0 }; 3], seed: 5, trees: 10, depth: 8, window: WINDOW };
    let profile = Profile::of(&shape, &[[0.0_f32; 3]; 32]).unwrap();
    let model = file::encode(&shape, &profile).unwrap();
    let raw = HalfSpace::new(Arc::new(shape), &profile).unwrap().score(&[1.0; 3]);
    let input = |name: &&str| Input {
        name: (*name).to_owned(),
        hash: index.hash(name).unwrap(),
        usual: 0.0,
        spread: 1.0,
        missing: Missing::default(),
    };
    let manifest = Manifest {
        kind: Kind::HalfSpace,
        description: "a test".to_owned(),
        licence: "Apache-2.0".to_owned(),
        origin: Default::default(),
        output: Output::default(),
        training: Training::default(),
        files: Default::default(),
        metrics: Default::default(),
        inputs: FEATURES.iter().map(input).collect(),
    };
    let calibration = CalibrationTable::new(Meaning::PValue, 100, vec![(0.0, least), (1.0, greatest)]).ok();
    let golden = GoldenRows { inputs: vec![vec![1.0]; 3], raw: vec![raw] };
    let repository = Repository::create(&root).unwrap();
    repository
        .publish("stream", Draft { manifest, model, calibration, golden, report: "{}".to_owned(), profile: None, signature: None })
        .unwrap();
    repository.promote("stream", 1).unwrap();
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_come_into_force_by_record_and_a_replay_and_a_restart_follow_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = repository(folder.path(), (1.0, 0.01));
    let with_model = || {
        let mut config = config(folder.path());
        config.models.path = Some(root.clone());
        config.models.shipped_calibration = true;
        config.models.profile_minutes = 0;
        config.policy.mode = Some("off".to_owned());
        config
    };
    let mut uncalibrated = with_model();
    uncalibrated.models.shipped_calibration = false;
    uncalibrated.data = folder.path().join("uncalibrated");
    let running = start(uncalibrated).await;
    assert!(!running.service().engine.in_force().bundle.has_online(), "a profile stays until its version is calibrated");
    running.stop().await.unwrap();
    let running = start(with_model()).await;
    assert!(running.service().engine.in_force().bundle.has_online());
    let mut scorer = client(&running).await;
    let profile = |running: &Running| {
        let bundle = running.service().engine.in_force().bundle.clone();
        bundle.profiles().next().map(|(model, version, profile)| (model.to_owned(), version, profile.to_vec()))
    };
    let epoch = || running.service().engine.in_force().epoch;
    let mut raws = Vec::new();
    for window in 0..3 {
        let before = epoch();
        for row in 0..WINDOW {
            // Different actors that behave alike: none gives more than one row of a window.
            let at = window * WINDOW + row;
            let tx = login(&format!("o{at}"), &format!("198.51.{}.{}", at % 100, at % 250), &format!("user{at}"));
            raws.push(score(&mut scorer, tx).await.unwrap().models[0].raw);
        }
        // The queue of what only watches is worked off beside: each full window is one change.
        within("a window became a profile", || std::future::ready(epoch() > before)).await;
    }
    let last = score(&mut scorer, login("last", "198.51.100.251", "userlast")).await.unwrap().models[0].raw;
    assert!(last < raws[0], "what is ordinary here scores as before: {last}, at first {}", raws[0]);
    let in_force = profile(&running).unwrap();
    running.stop().await.unwrap();

    for threads in [1, 2] {
        let (summary, _, _) = replayed_with(folder.path(), with_model(), threads);
        let compared = summary.compared.unwrap();
        assert_eq!(
            (compared.decisions, compared.different_vectors, compared.different_decisions),
            (u64::from(3 * WINDOW + 1), 0, 0),
            "{compared:?}"
        );
    }
    let again = start(with_model()).await;
    assert_eq!(profile(&again), Some(in_force), "a restart keeps what was learnt");
    again.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_raises_an_alert_becomes_no_profile() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.models.path = Some(repository(folder.path(), (1e-5, 1e-6)));
    config.models.shipped_calibration = true;
    config.policy.mode = Some("off".to_owned());
    (config.models.profile_minutes, config.models.drift_one_in) = (0, 1);
    let running = start(config).await;
    let (admin, mut scorer) = (models(&running).await, client(&running).await);
    for at in 0..2 * WINDOW {
        score(&mut scorer, login(&format!("a{at}"), &format!("198.51.{at}.{at}"), &format!("user{at}"))).await.unwrap();
    }
    // Each row is counted for drift before it would be learnt: with the last of two windows the first has been learnt or left out.
    within("every row is counted", || {
        let mut admin = admin.clone();
        let ask = v1::DriftRequest { model: "stream".to_owned() };
        async move { admin.drift(ask).await.unwrap().into_inner().models[0].reference_rows == u64::from(2 * WINDOW) }
    })
    .await;
    let bundle = running.service().engine.in_force().bundle.clone();
    assert!(bundle.has_online() && bundle.profiles().next().is_none(), "the site's alarms became what is ordinary");
    running.stop().await.unwrap();
}
