//! What is kept and what is taken away, when something goes wrong in between.

use std::time::Duration;

use super::*;
use crate::server::{access::Caller, snapshots};
use crate::snapshot;

fn operator() -> Caller {
    Caller { name: "somebody".into(), role: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_begun_does_not_keep_the_next_one_from_being_taken() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { store: crate::config::StoreSection { snapshot_minutes: 0.0, ..Default::default() }, ..config(folder.path()) };
    let data = config.data.clone();
    let running = start(config.clone()).await;
    let mut scorer = client(&running).await;
    for number in 0..20 {
        score(&mut scorer, login(&format!("k{number}"), "192.0.2.7", "anna")).await.unwrap();
    }
    let taken = |running: &Running| {
        let (service, data) = (Arc::clone(running.service()), data.clone());
        tokio::task::spawn_blocking(move || snapshots::take(&service, &data))
    };
    let staged = snapshot::folder(&data).join(snapshot::STAGED);
    std::fs::create_dir_all(&staged).unwrap();
    assert!(!taken(&running).await.unwrap(), "its file cannot be created");
    // Meanwhile scoring goes on, and nothing is written aside for what was given up.
    score(&mut scorer, login("k20", "192.0.2.7", "anna")).await.unwrap();
    std::fs::remove_dir(&staged).unwrap();
    assert!(taken(&running).await.unwrap());
    running.stop().await.unwrap();
    std::fs::remove_dir_all(data.join("journal")).unwrap();
    let running = start(config).await;
    let kind = running.service().engine.schema.entity_type("address").unwrap();
    let address = running.service().engine.door.entity(kind, "192.0.2.7").unwrap();
    let state = running.service().engine.store.look(address).await;
    assert!(state.is_some(), "the second one holds everything");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgetting_that_nobody_waits_for_goes_on_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.scoring.deadline_ms = 300;
    let (data, running) = (config.data.clone(), start(config).await);
    let mut scorer = client(&running).await;
    for number in 0..3 {
        score(&mut scorer, login(&format!("f{number}"), "192.0.2.8", "anna")).await.unwrap();
    }
    let entity = Some(v1::Entity { r#type: "user".to_owned(), id: "anna".to_owned(), ..Default::default() });
    let request = v1::ForgetEntityRequest { entity, reason: "asked for it".to_owned() };
    let caller = operator();
    // The caller hangs up while calls that were under way are waited for.
    let asked = forget::change(running.service(), &caller, request);
    assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err());
    let done = data.join("forgotten.json");
    for _ in 0..500 {
        if done.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(std::fs::read_to_string(done).unwrap().contains("user/"), "it is noted once all of it is done");
    let kind = running.service().engine.schema.entity_type("user").unwrap();
    let user = running.service().engine.door.entity(kind, "anna").unwrap();
    assert!(running.service().engine.store.tombstone(user).is_some());
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_that_name_who_is_forgotten_go_and_the_reasons_of_others_lose_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.scoring.deadline_ms = 300;
    let (data, running) = (config.data.clone(), start(config).await);
    let (service, caller) = (running.service(), operator());
    for (path, reason) in [("/u/anna-karenina/{id}", "hers"), ("/u/{id}", "as Anna-Karenina wished")] {
        let template = Some(v1::Template { path: path.to_owned(), ..Default::default() });
        templates::add(service, &caller, v1::AddTemplateRequest { template, reason: reason.to_owned() }).unwrap();
    }
    let entity = Some(v1::Entity { r#type: "user".to_owned(), id: "anna-karenina".to_owned(), ..Default::default() });
    forget::change(service, &caller, v1::ForgetEntityRequest { entity, reason: String::new() }).await.unwrap();
    let left = service.templates.list();
    let left: Vec<_> = left.iter().map(|template| (template.path.as_str(), template.reason.as_str())).collect();
    assert_eq!((left, service.engine.in_force().templates.len()), (vec![("/u/{id}", "as [forgotten] wished")], 1));
    let saved = std::fs::read_to_string(data.join("templates.ndjson")).unwrap().to_lowercase();
    assert!(saved.contains("/u/{id}") && !saved.contains("karenina"), "{saved}");
    running.stop().await.unwrap();
}
