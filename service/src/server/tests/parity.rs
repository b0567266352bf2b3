//! What scored live, replayed from the journal: bitwise the same, on one thread and on two.

use super::*;
use crate::journal::Journal;
use crate::replay::{ReplayOptions, Summary, replay};

const CLIENTS: usize = 4;
const EACH: usize = 60;

fn replayed(folder: &Path, threads: usize) -> (Summary, Vec<u8>, Vec<u8>) {
    replayed_with(folder, config(folder), threads)
}

/// Replays the journal of a server that had this configuration.
pub fn replayed_with(folder: &Path, mut config: Config, threads: usize) -> (Summary, Vec<u8>, Vec<u8>) {
    config.policy.mode = None;
    let keys = token::keyring(&folder.join("data")).unwrap();
    let clock = Arc::new(telltale_features::time::ManualClock::default());
    let engine = crate::setup::engine(&config, threads, keys.hasher(), clock, Journal::default()).unwrap();
    let (verdicts, features) = (folder.join(format!("{threads}.ndjson")), folder.join(format!("{threads}.parquet")));
    let options = ReplayOptions {
        input: folder.join("data/journal"),
        format: crate::replay::Format::Ndjson,
        strict: true,
        threads,
        verdicts: Some(verdicts.clone()),
        features: Some(features.clone()),
        progress: false,
        recorded_policy: true,
    };
    let summary = replay(&engine, &options).unwrap();
    (summary, std::fs::read(verdicts).unwrap(), std::fs::read(features).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_scoring_replays_bitwise_equal() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut entities = v1::entities_client::EntitiesClient::new(channel(running.admin).await);
    let mut calls = Vec::new();
    for caller in 0..CLIENTS {
        let mut scorer = client(&running).await;
        calls.push(tokio::spawn(async move {
            for step in 0..EACH {
                // Callers share addresses and users, so that their entities are under contention.
                let (address, user) = (format!("192.0.2.{}", step % 3), format!("user{}", (step + caller) % 5));
                let tx = login(&format!("p{caller}-{step}"), &address, &user);
                let verdict = score(&mut scorer, tx.clone()).await.unwrap();
                if step % 3 == 0 {
                    report(&mut scorer, outcome(&verdict, if step % 2 == 0 { 401 } else { 200 })).await.unwrap();
                }
                if step % 7 == 0 {
                    assert_eq!(score(&mut scorer, tx).await.unwrap(), verdict, "a retry");
                }
                if step % 11 == 0 {
                    let label = v1::Label {
                        transaction_id: verdict.transaction_id.clone(),
                        context: verdict.context.clone(),
                        time: tx_time(),
                        kind: v1::LabelKind::Abuse.into(),
                        ..Default::default()
                    };
                    scorer.feedback(v1::FeedbackRequest { label: Some(label) }).await.unwrap();
                }
            }
        }));
    }
    let entity = Some(v1::Entity { r#type: "address".to_owned(), id: "192.0.2.1".to_owned(), ..Default::default() });
    let deny = v1::OverrideRequest { entity, action: v1::Action::Block.into(), ..Default::default() };
    entities.r#override(deny).await.unwrap();
    for call in calls {
        call.await.unwrap();
    }
    running.stop().await.unwrap();

    let (one, verdicts, features) = replayed(folder.path(), 1);
    let compared = one.compared.clone().unwrap();
    assert_eq!(compared.decisions, (CLIENTS * EACH) as u64, "{compared:?}");
    assert_eq!((compared.different_vectors, compared.different_decisions), (0, 0), "{compared:?}");
    assert_eq!((compared.missing, compared.orphans, one.malformed), (0, 0, 0), "{compared:?}");
    assert!(one.outcomes > 0 && one.labels > 0);
    let (two, verdicts_of_two, features_of_two) = replayed(folder.path(), 2);
    assert!(verdicts == verdicts_of_two, "verdict files differ between 1 and 2 threads");
    assert!(features == features_of_two, "feature files differ between 1 and 2 threads");
    assert_eq!(two.rules, one.rules);
}

/// The hour, of which a filter, a value and a member are made: a transaction that says it happened hours ago or in the future is
/// applied at the clamped time, and everything that is counted of it is told of that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_clamped_time_is_the_time_of_everything_that_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut schema = telltale_features::schema::SHIPPED_HTTP.1.to_owned();
    let hour = now().rem_euclid(86_400_000_000) as f64 / 3.6e9;
    schema += &format!(
        "
  - name: clock
    entity: address
    aggregations:
      - {{name: near, aggregation: count, filter: 'time.hour > {} && time.hour < {}', windows: [24h], meaning: Near this hour}}
      - {{name: mean, aggregation: mean, of: time.hour, windows: [24h], meaning: Mean hour}}
      - {{name: hours, aggregation: distinct, of: time.hour, windows: [24h], meaning: Different hours}}
",
        hour - 1.5,
        hour + 0.5
    );
    let path = folder.path().join("schema.yaml");
    std::fs::write(&path, schema).unwrap();
    let with_schema = |mut config: Config| {
        config.schema.path = Some(path.clone());
        config
    };
    let running = start(with_schema(config(folder.path()))).await;
    let mut scorer = client(&running).await;
    for (step, hours) in [-30, -3, 0, 5].into_iter().enumerate() {
        let mut tx = login(&format!("late-{step}"), "192.0.2.9", "anna");
        let time = telltale_features::time::Timestamp::from_micros(now() + hours * 3_600_000_000);
        tx.time = Some(convert::timestamp_to_proto(time));
        score(&mut scorer, tx).await.unwrap();
    }
    running.stop().await.unwrap();
    let (summary, _, _) = replayed_with(folder.path(), with_schema(config(folder.path())), 1);
    let compared = summary.compared.unwrap();
    assert_eq!((compared.decisions, compared.different_vectors, compared.different_decisions), (4, 0, 0), "{compared:?}");
}

fn tx_time() -> Option<pbjson_types::Timestamp> {
    Some(convert::timestamp_to_proto(telltale_features::time::Timestamp::from_micros(now())))
}
