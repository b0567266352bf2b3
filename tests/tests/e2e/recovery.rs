//! The scorer is killed, restarted, drained: what was accepted is not lost beyond what is stated.

use std::time::Duration;

use serde_json::Value;
use telltale_proto::v1::Transaction;
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tokio::time::Instant;
use tonic::Code;

use crate::stage::{acting_policy, score, telltale_ok};

/// How often the scorer has seen the address, itself included.
pub fn seen(verdict: &telltale_proto::v1::Verdict) -> u64 {
    let reason = verdict.reasons.iter().find(|reason| reason.feature == "address.requests_10m");
    reason.and_then(|reason| reason.value).unwrap_or_else(|| panic!("no count in {:?}", verdict.reasons)) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_scorer_forgets_at_most_a_tenth_of_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let sections = acting_policy(folder.path());
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    let mut traffic = Traffic::new(41, 1);
    let client = scorer.client().await;
    let began = Instant::now();
    let mut answered = Vec::new();
    while began.elapsed() < Duration::from_millis(1_500) {
        let verdict = score(&client, traffic.next_transaction()).await.unwrap();
        answered.push(Instant::now());
        assert_eq!(seen(&verdict), answered.len() as u64);
    }
    scorer.process.signal(rustix::process::Signal::KILL).unwrap();
    let killed = Instant::now();
    assert!(!scorer.process.wait().unwrap());
    let recent = answered.iter().filter(|at| killed.duration_since(**at) <= Duration::from_millis(110)).count() as u64;

    let addresses = scorer.addresses();
    let scorer = Scorer::start_at(folder.path(), &sections, addresses).unwrap();
    let verdict = score(&scorer.client().await, traffic.next_transaction()).await.unwrap();
    let lost = answered.len() as u64 + 1 - seen(&verdict);
    assert!(lost <= recent, "lost {lost} of {}, of which {recent} were answered in the last 110 ms", answered.len());
    assert!(answered.len() > 50, "only {} calls in 1.5 s", answered.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drained_scorer_answers_every_accepted_call() {
    let folder = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let mut traffic = Traffic::new(42, 300);
    let batches: Vec<Vec<Transaction>> = (0..16).map(|_| (0..4_000).map(|_| traffic.next_transaction()).collect()).collect();
    let (started, mut progress) = tokio::sync::mpsc::channel(1_000);
    let mut callers = tokio::task::JoinSet::new();
    for batch in batches {
        let (client, started) = (scorer.client().await, started.clone());
        callers.spawn(async move {
            let mut answered = 0_u64;
            for transaction in batch {
                match score(&client, transaction).await {
                    Ok(_) => answered += 1,
                    Err(status) => return (answered, Some(status)),
                }
                // Full means that enough calls are known to have begun.
                let _ = started.try_send(());
            }
            (answered, None)
        });
    }
    for _ in 0..400 {
        progress.recv().await.unwrap();
    }
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    let (mut answered, mut refused) = (0, 0);
    for (count, error) in callers.join_all().await {
        answered += count;
        if let Some(status) = error {
            // Cancelled: the connection closed before the call was sent. That none was taken, the journal shows below.
            assert!(matches!(status.code(), Code::Unavailable | Code::Cancelled), "{status:?}");
            refused += 1;
        }
    }
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    assert!(refused > 0, "the scorer took all of it before it stopped");
    let (journal, config) = (scorer.data.join("journal"), scorer.config.clone());
    let arguments = ["replay", journal.to_str().unwrap(), "--config", config.to_str().unwrap(), "--output", "json"];
    let summary: Value = serde_json::from_slice(&telltale_ok(&arguments)).unwrap();
    assert_eq!(
        summary["transactions"].as_u64().unwrap(),
        answered,
        "calls were accepted and never answered, or answered and not journalled"
    );
}
