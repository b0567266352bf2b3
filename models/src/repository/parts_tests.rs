//! Versions in their parts: trials that stick to entities, what answers when a version does not, and what memory allows.

use super::tests::{draft, index, vector};
use super::*;
use crate::calibration::conformal;
use crate::score::{Absent, Asked};
use crate::what_if::tests::alarm;
use crate::{Lane, ModelState, Role, State};
use std::sync::Arc;

fn author() -> Author {
    Author { who: "a test".into(), why: "because".into(), time_us: 7 }
}

/// A loader over three versions of `odd`.
fn three(folder: &Path, options: RuntimeOptions) -> Loader {
    let repository = Repository::create(folder).unwrap();
    for seed in 1..=3 {
        repository.publish("odd", draft(seed)).unwrap();
    }
    Loader::new(repository, index(), RuntimeOptions { shipped_calibration: true, ..options })
}

fn version(bundle: &Bundle, actor: u64) -> (u32, Role) {
    let asked = Asked { actor: Some(actor), ..Asked::default() };
    let part = bundle.score_as(&vector([0.5; 4]), &asked).parts.remove(0);
    (part.version, part.role)
}

#[test]
fn a_trial_sticks_to_its_share_of_the_entities() {
    let folder = tempfile::tempdir().unwrap();
    let loader = three(folder.path(), RuntimeOptions::default());
    let repository = loader.repository();
    repository.step("odd", Step::Promote(1), &author()).unwrap();
    repository.step("odd", Step::Canary(2, 5.0), &author()).unwrap();
    let bundle = loader.bundle().unwrap();
    let chosen: Vec<u64> = (0..20_000_u64).filter(|actor| version(&bundle, actor.wrapping_mul(0x9e37_79b9)) == (2, Role::Canary)).collect();
    assert!((900..1_100).contains(&chosen.len()), "{} of 20,000", chosen.len());
    assert!(chosen.iter().all(|actor| version(&bundle, actor.wrapping_mul(0x9e37_79b9)).0 == 2), "an entity changes sides");
    // Nobody known: the champion. A larger share holds everybody of the smaller one.
    assert_eq!(bundle.score(&vector([0.5; 4]), Lane(0)).parts[0].version, 1);
    repository.step("odd", Step::Canary(2, 50.0), &author()).unwrap();
    let wider = loader.bundle().unwrap();
    assert!(chosen.iter().all(|actor| version(&wider, actor.wrapping_mul(0x9e37_79b9)).0 == 2));
    let audit = repository.audit().unwrap();
    assert_eq!(audit.iter().map(|line| line.what.as_str()).collect::<Vec<_>>(), ["promote", "canary", "canary"]);
    assert_eq!((audit[2].who.as_str(), audit[2].version, audit[2].policy.as_ref().unwrap().revision), ("a test", Some(2), 3));
}

#[test]
fn a_trial_of_a_version_that_is_not_calibrated_answers_nobody_and_learns() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = three(folder.path(), RuntimeOptions::default());
    let loader = Loader::new(shipped.repository().clone(), index(), RuntimeOptions::default());
    let table = || conformal(&(0..500).map(|n| f64::from(n) / 1000.0).collect::<Vec<_>>()).unwrap();
    loader.repository().step("odd", Step::Promote(1), &author()).unwrap();
    // As `policy.toml` edited by hand, or a restart without a journal, has it.
    loader.repository().step("odd", Step::Canary(2, 100.0), &author()).unwrap();
    let bundle = loader.bundle().unwrap().with_calibration("odd", 1, table()).unwrap();
    assert_eq!(version(&bundle, 7), (1, Role::Champion), "points would be missing");
    assert_eq!(bundle.uncalibrated_rivals().collect::<Vec<_>>(), [(Arc::from("odd"), 2)]);
    let rivals = bundle.rivals(&[&vector([0.5; 4])], Lane(0), |_, _| false).remove(0);
    assert!(rivals[0].score.as_ref().is_ok_and(|score| !score.is_calibrated()), "{rivals:?}");
    let calibrated = bundle.with_calibration("odd", 2, table()).unwrap();
    assert_eq!((version(&calibrated, 7), calibrated.uncalibrated_rivals().count()), ((2, Role::Canary), 0));
}

#[test]
fn reasons_that_were_missing_are_missing_again() {
    let folder = tempfile::tempdir().unwrap();
    let loader = three(folder.path(), RuntimeOptions::default());
    loader.repository().step("odd", Step::Promote(1), &author()).unwrap();
    let (bundle, row) = (loader.bundle().unwrap(), vector([9.0, -9.0, 9.0, 0.5]));
    let scores = bundle.score(&row, Lane(0));
    let (reasons, absent) = bundle.explain(&row, &scores, &Asked::default(), &alarm);
    assert!(!reasons.is_empty() && absent.is_empty());
    let then = [Absent { model: Arc::from("odd"), version: 1, problem: "no answer within 50 ms".into() }];
    let again = bundle.explain(&row, &scores, &Asked { unexplained: &then, ..Asked::default() }, &alarm);
    assert_eq!(again, (Vec::new(), then.to_vec()));
}

#[test]
fn only_a_model_on_probation_is_compared_with_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let loader = three(folder.path(), RuntimeOptions::default());
    for version in [1, 2] {
        loader.repository().step("odd", Step::Promote(version), &author()).unwrap();
    }
    let bundle = loader.bundle().unwrap();
    assert_eq!(bundle.rivals(&[&vector([0.5; 4])], Lane(0), |_, model| model == "other")[0].len(), 0);
    let rivals = bundle.rivals(&[&vector([0.5; 4])], Lane(0), |_, model| model == "odd").remove(0);
    assert_eq!((rivals.len(), rivals[0].version, rivals[0].baseline), (1, 2, 1));
}

#[test]
fn the_previous_version_answers_for_one_that_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let loader = three(folder.path(), RuntimeOptions::default());
    for version in [1, 2] {
        loader.repository().step("odd", Step::Promote(version), &author()).unwrap();
    }
    let bundle = loader.bundle().unwrap();
    let absent = |version| Absent { model: Arc::from("odd"), version, problem: "no answer within 50 ms".into() };
    let silent = [absent(2)];
    let scores = bundle.score_as(&vector([0.5; 4]), &Asked { absent: &silent, ..Asked::default() });
    assert_eq!((scores.parts[0].version, scores.parts[0].role), (1, Role::Champion));
    assert_eq!(scores.degraded, ["model `odd` gave no score: no answer within 50 ms; version 1 answered instead"]);
    assert_eq!(scores.absent, silent);
    let both = [absent(1), absent(2)];
    let scores = bundle.score_as(&vector([0.5; 4]), &Asked { absent: &both, ..Asked::default() });
    assert!(scores.parts.is_empty() && scores.degraded.len() == 2, "{scores:?}");
    // A champion that cannot be loaded is replaced as well, from the start.
    std::fs::write(folder.path().join("odd/versions/2/model.bin"), b"broken").unwrap();
    let bundle = Loader::new(loader.repository().clone(), index(), loader.options().clone()).bundle().unwrap();
    let scores = bundle.score(&vector([0.5; 4]), Lane(0));
    assert_eq!((scores.parts[0].version, scores.degraded.len()), (1, 1), "{scores:?}");
}

#[test]
fn a_version_passes_through_its_states_and_leaves_memory() {
    let folder = tempfile::tempdir().unwrap();
    let loader = three(folder.path(), RuntimeOptions::default());
    let state = |version: u32| loader.statuses().into_iter().find(|status| status.version == version).map(|status| status.state);
    loader.repository().step("odd", Step::Promote(1), &author()).unwrap();
    let first = loader.bundle().unwrap();
    assert_eq!((state(1), state(2)), (Some(State::Champion), None));
    let policy = loader.repository().step("odd", Step::Shadow(2, true), &author()).unwrap();
    let second = loader.apply(&first, "odd", &loader.state_of("odd", policy).unwrap()).unwrap();
    loader.settle(&second);
    assert_eq!((state(1), state(2)), (Some(State::Champion), Some(State::Shadow)));
    let policy = loader.repository().step("odd", Step::Shadow(2, false), &author()).unwrap();
    let third = loader.apply(&second, "odd", &loader.state_of("odd", policy).unwrap()).unwrap();
    loader.settle(&third);
    assert_eq!(state(2), Some(State::Draining));
    drop(second);
    assert_eq!(state(2), Some(State::Unloaded));
    loader.verify("odd", 2).unwrap();
    std::fs::remove_file(folder.path().join("odd/versions/3/golden.parquet")).unwrap();
    assert!(loader.verify("odd", 3).is_err());
    assert_eq!(state(3), Some(State::Failed));
    // A removed version is forgotten once nobody holds it; one that plays a part is not removed.
    let policy = loader.repository().step("odd", Step::Shadow(2, true), &author()).unwrap();
    let held = loader.apply(&third, "odd", &loader.state_of("odd", policy).unwrap()).unwrap();
    loader.repository().step("odd", Step::Shadow(2, false), &author()).unwrap();
    loader.settle(&third);
    for (version, after) in [(2, Some(State::Draining)), (3, None)] {
        loader.remove("odd", version, &author()).unwrap();
        assert_eq!(state(version), after);
    }
    drop(held);
    assert_eq!(state(2), None);
    assert!(loader.remove("odd", 1, &author()).is_err());
    assert_eq!(state(1), Some(State::Champion));
}

#[test]
fn a_calibration_of_this_site_stays_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut loader = three(folder.path(), RuntimeOptions::default());
    loader = Loader::new(loader.repository().clone(), index(), RuntimeOptions::default());
    loader.repository().step("odd", Step::Promote(1), &author()).unwrap();
    loader.repository().step("odd", Step::Shadow(2, true), &author()).unwrap();
    let bundle = loader.bundle().unwrap();
    assert_eq!(bundle.is_calibrated("odd", 2), Some(false));
    let table = conformal(&(0..500).map(|n| f64::from(n) / 1000.0).collect::<Vec<_>>()).unwrap();
    let calibrated = bundle.with_calibration("odd", 2, table).unwrap();
    let policy = loader.repository().step("odd", Step::Promote(2), &author()).unwrap();
    let state = loader.state_of("odd", policy).unwrap();
    // Built beside a bundle that did not know the calibration yet, put in force in one that does.
    let built = loader.apply(&bundle, "odd", &state).unwrap();
    assert_eq!(built.is_calibrated("odd", 2), Some(false));
    assert_eq!(calibrated.adopting(&built, "odd").is_calibrated("odd", 2), Some(true));
    assert_eq!(ModelState::from_json(&state.to_json()).unwrap(), state);
}

#[test]
fn what_does_not_fit_into_memory_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let loader = three(folder.path(), RuntimeOptions { max_bytes: 200 << 10, ..RuntimeOptions::default() });
    let size = std::fs::metadata(folder.path().join("odd/versions/1/model.bin")).unwrap().len();
    loader.repository().step("odd", Step::Promote(1), &author()).unwrap();
    let tight = RuntimeOptions { max_bytes: size + size / 2, ..loader.options().clone() };
    let loader = Loader::new(loader.repository().clone(), index(), tight);
    let bundle = loader.bundle().unwrap();
    let policy = loader.repository().step("odd", Step::Shadow(2, true), &author()).unwrap();
    let refused = loader.apply(&bundle, "odd", &loader.state_of("odd", policy).unwrap()).err().unwrap();
    assert!(refused.to_string().contains("`models.max_mb`"), "{refused}");
    assert_eq!(bundle.models().collect::<Vec<_>>(), [("odd", 1)]);
}

#[test]
fn a_version_in_a_part_is_not_removed_and_others_are() {
    let folder = tempfile::tempdir().unwrap();
    let loader = three(folder.path(), RuntimeOptions::default());
    let repository = loader.repository();
    repository.step("odd", Step::Promote(1), &author()).unwrap();
    assert!(repository.remove("odd", 1, &author()).unwrap_err().to_string().contains("plays a part"));
    repository.remove("odd", 3, &author()).unwrap();
    assert_eq!(repository.versions("odd").unwrap(), [1, 2]);
    assert!(repository.remove("odd", 3, &author()).unwrap_err().to_string().contains("version 3"));
    assert!(repository.publish("inbox", draft(1)).is_err(), "the inbox is no model");
    let bytes = std::fs::read(folder.path().join("odd/versions/2/model.bin")).unwrap();
    assert_eq!(
        (repository.holding("odd", &bytes), repository.holding("odd", b"another"), repository.holding("none", &bytes)),
        (Some(2), None, None)
    );
    // What a killed process left behind is cleared by the next one.
    std::fs::create_dir_all(folder.path().join("odd/.staging")).unwrap();
    std::fs::write(folder.path().join("odd/.staging/model.bin"), b"half").unwrap();
    // The number of a removed version is not given again: what was learnt of that one is not this one's.
    assert_eq!(repository.publish("odd", draft(4)).unwrap(), 4);
    assert_eq!(loader.bundle().unwrap().models().collect::<Vec<_>>(), [("odd", 1)]);
}
