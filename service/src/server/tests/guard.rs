//! A version on trial that is slow: rows with made-up times enter what watches, the guard's change and its reason leave.

use telltale_models::{Lane, Role};

use super::models::{canary, models, unusual, with_models, within};
use super::*;

/// Transactions at once: fewer than wait for what watches before some are dropped.
const TOGETHER: usize = 400;
/// Rows of each version that its times are judged by.
const ROWS: usize = 1_000;

/// Has logins of different users scored and watched, as if models took `micros` where a version on trial answered and 20 µs elsewhere, until
/// there are `count` or the trial ends. Returns how many a version on trial answered.
async fn trial(running: &Running, (name, micros): (&str, f64), count: usize) -> usize {
    let service = running.service();
    let (engine, shadows) = (&service.engine, &service.models.shadows);
    let on_trial = || engine.in_force().bundle.policy("unusual").is_some_and(|policy| policy.canary.is_some());
    let compared = || shadows.comparison("unusual", 3).map_or(0, |compared| compared.transactions);
    let (before, mut answered) = (compared(), 0);
    for at in 0..count {
        let wire = login(&format!("{name}-{at}"), &format!("198.51.{}.{}", at / 250, at % 250), &format!("{name}{at}"));
        let (admitted, watch) = engine.admit(convert::transaction(wire, "transaction").unwrap().0).unwrap();
        let mut scored = engine.score(admitted, watch, Lane(0)).await;
        let is_tried = scored.assessed.scores.parts.iter().any(|part| part.role == Role::Canary);
        scored.timings.score_us = if is_tried { micros } else { 20.0 };
        answered += usize::from(is_tried);
        shadows.watch(&scored);
        if (at + 1) % TOGETHER == 0 {
            within("everything is compared", || std::future::ready(!on_trial() || compared() > before + at as u64)).await;
            // Behind what the guard asked for.
            service.models.ask(|_| Ok(())).await.unwrap();
        }
        if !on_trial() {
            break;
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_version_is_taken_back_and_its_next_trial_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(with_models(folder.path(), true)).await;
    let mut admin = models(&running).await;
    admin.set_canary(canary(3, 50.0)).await.unwrap();
    let answered = trial(&running, ("slow", 5_000.0), 5 * ROWS).await;
    assert!((ROWS..2 * ROWS).contains(&answered), "taken back once there are as many rows as it is judged by: {answered}");
    let audit = || std::fs::read_to_string(folder.path().join("data/audit.ndjson")).unwrap();
    within("the change is in the audit", || std::future::ready(audit().contains(r#""caller":"guard""#))).await;
    let back = audit().lines().last().unwrap().to_owned();
    for part in ["unusual:3", "99 % of its rows take up to 5000 µs or more, 20 µs without it"] {
        assert!(back.contains(part), "{part}: {back}");
    }
    assert_eq!(unusual(&mut admin).await.canary, 0);
    // Mended, it is not judged by what it did before.
    admin.set_canary(canary(3, 50.0)).await.unwrap();
    let answered = trial(&running, ("quick", 25.0), 2 * TOGETHER).await;
    assert!((TOGETHER / 2..2 * TOGETHER).contains(&answered), "about half of the traffic: {answered}");
    assert_eq!(unusual(&mut admin).await.canary, 3, "{}", audit());
    // And it is judged again.
    let answered = trial(&running, ("slower", 5_000.0), 5 * ROWS).await;
    assert!((ROWS / 2..2 * ROWS).contains(&answered), "{answered}");
    assert_eq!(unusual(&mut admin).await.canary, 0, "{}", audit());
    running.stop().await.unwrap();
}
