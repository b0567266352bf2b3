//! The smallest change that would have been allowed: told where it is wanted, and the same in a replay, whatever that is configured to do.

use super::parity::replayed_with;
use super::*;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default");
const LOGINS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_allowed_change_is_told_and_replays_equal() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.models.path = Some(SHIPPED.into());
    config.models.shipped_calibration = true;
    config.reasons.counterfactual = true;
    // Half of the call's time, however busy the machine is.
    config.reasons.hint_us = 1_000_000;
    let running = start(config.clone()).await;
    let mut scorer = client(&running).await;
    let (mut hints, mut stopped) = (Vec::new(), 0);
    for step in 0..LOGINS {
        let address = format!("192.0.2.{}", step % 2);
        let verdict = score(&mut scorer, login(&format!("h{step}"), &address, &format!("user{step}"))).await.unwrap();
        report(&mut scorer, outcome(&verdict, 401)).await.unwrap();
        stopped += usize::from(verdict.action > v1::Action::Log as i32);
        let Some(hint) = verdict.counterfactual else { continue };
        assert!(verdict.risk >= 40.0 && verdict.action > v1::Action::Log as i32, "{hint:?}");
        assert!(hint.words.contains("would have been allowed at") && hint.value != hint.allowed_value, "{hint:?}");
        hints.push(hint);
    }
    running.stop().await.unwrap();
    assert!(stopped > 0 && !hints.is_empty(), "{stopped} stopped without a hint");

    // What was searched is in the journal: a replay without the option gives the same.
    for wanted in [true, false] {
        config.reasons.counterfactual = wanted;
        let (summary, verdicts, _) = replayed_with(folder.path(), config.clone(), 2);
        let compared = summary.compared.unwrap();
        assert_eq!((compared.decisions, compared.different_decisions), (LOGINS as u64, 0), "{compared:?}");
        let verdicts = String::from_utf8(verdicts).unwrap();
        assert_eq!(verdicts.lines().filter(|line| line.contains("would have been allowed at")).count(), hints.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_time_is_not_searched_and_replays_equal() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.models.path = Some(SHIPPED.into());
    config.models.shipped_calibration = true;
    config.reasons.counterfactual = true;
    config.reasons.hint_us = 0;
    let running = start(config.clone()).await;
    let mut scorer = client(&running).await;
    let mut alerts = 0;
    for step in 0..LOGINS {
        let address = format!("192.0.2.{}", step % 2);
        let verdict = score(&mut scorer, login(&format!("t{step}"), &address, &format!("user{step}"))).await.unwrap();
        report(&mut scorer, outcome(&verdict, 401)).await.unwrap();
        alerts += usize::from(verdict.risk >= 40.0 && verdict.action > v1::Action::Log as i32);
        assert_eq!(verdict.counterfactual, None);
    }
    running.stop().await.unwrap();
    assert!(alerts > 0);
    // A replay has all the time there is, and searches only what was searched to the end.
    config.reasons.hint_us = 1_000_000;
    let (summary, verdicts, _) = replayed_with(folder.path(), config, 2);
    let compared = summary.compared.unwrap();
    assert_eq!((compared.decisions, compared.different_decisions), (LOGINS as u64, 0), "{compared:?}");
    assert!(!String::from_utf8(verdicts).unwrap().contains("would have been allowed at"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_searched_unless_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut scorer = client(&running).await;
    let mut stopped = 0;
    for step in 0..LOGINS {
        let verdict = score(&mut scorer, login(&format!("n{step}"), "192.0.2.1", &format!("user{step}"))).await.unwrap();
        report(&mut scorer, outcome(&verdict, 401)).await.unwrap();
        stopped += usize::from(verdict.action > v1::Action::Log as i32);
        assert_eq!(verdict.counterfactual, None);
    }
    assert!(stopped > 0);
    running.stop().await.unwrap();
}
