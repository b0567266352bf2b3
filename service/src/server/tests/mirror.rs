//! A server whose models stand in an object store: brought at the start, followed while traffic flows, kept while the store is away.

use telltale_models::Repository;
use telltale_models::repository::{Aliases, ModelPolicy};

use super::models::{models, repository, unusual, within};
use super::*;
use crate::mirror::tests::cloud::{Cloud, Kind};
use crate::mirror::{mirrored, push};

/// Waits until a version is in force.
async fn in_force(running: &Running, version: u32) {
    let admin = models(running).await;
    let champion = || {
        let mut admin = admin.clone();
        async move { unusual(&mut admin).await.champion == version }
    };
    within("the version in force", champion).await;
}

/// The models that answer a transaction.
async fn answering(running: &Running, id: &str) -> Vec<String> {
    let verdict = score(&mut client(running).await, login(id, "192.0.2.1", "anna")).await.unwrap();
    assert_eq!(verdict.degraded, [""; 0]);
    verdict.versions.unwrap().models
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_an_object_store_is_followed_and_serves_while_the_store_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(Kind::S3);
    let options = cloud.options(folder.path());
    let own = repository(folder.path());
    let pushed = |version: u32| {
        let aliases = Aliases { champion: Some(version), ..Aliases::default() };
        let change = |policy: &ModelPolicy| Ok(ModelPolicy { revision: policy.revision + 1, aliases, ..policy.clone() });
        Repository::open(&own).unwrap().change("unusual", change).unwrap();
        push(&cloud.url(), Some(&options), &own, ("unusual", Some(version))).unwrap();
    };
    pushed(1);
    let mut config = config(folder.path());
    config.models.repository = Some(cloud.url());
    config.models.repository_options = Some(options.clone());
    config.models.repository_seconds = 1;
    config.models.shipped_calibration = true;
    let running = start(config.clone()).await;
    assert_eq!(answering(&running, "m1").await, ["unusual:1"]);
    // A version and its promotion, made elsewhere.
    pushed(2);
    in_force(&running, 2).await;
    assert_eq!(answering(&running, "m2").await, ["unusual:2"]);
    cloud.set_away(true);
    within("the store's absence is counted", || {
        let text = running.service().metrics.text(running.service()).unwrap();
        std::future::ready(text.contains("telltale_model_changes_total{result=\"refused\",what=\"store\"}"))
    })
    .await;
    assert_eq!(answering(&running, "m3").await, ["unusual:2"]);
    running.stop().await.unwrap();
    // A start without the store has what was brought; what came meanwhile is followed once it is back.
    assert_eq!(Repository::open(mirrored(&config)).unwrap().versions("unusual").unwrap(), [1, 2]);
    let running = start(config).await;
    assert_eq!(answering(&running, "m4").await, ["unusual:2"]);
    cloud.set_away(false);
    pushed(3);
    in_force(&running, 3).await;
    running.stop().await.unwrap();
}
