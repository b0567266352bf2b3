//! Endpoint templates that are learned or added: in force at every scorer over one Redis, kept over a restart, and no matter to a replay.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;
use telltale_proto::v1::templates_client::TemplatesClient;
use telltale_proto::v1::{HttpResponse, ListTemplatesRequest, TemplateState, Transaction};
use telltale_tests::http::Http;
use telltale_tests::redis::Redis;
use telltale_tests::stand::{Scorer, connect};
use telltale_tests::traffic::Traffic;

use crate::shared_state::beside;
use crate::stage::{score, telltale, telltale_ok, within};

/// Rules that tell which route a path was given.
fn telling_policy(folder: &Path) -> String {
    telling(folder, &[("T-1", "/blog/{slug}"), ("T-2", "/blog/post-of-anna"), ("T-3", "/blog/{id}")])
}

fn telling(folder: &Path, routes: &[(&str, &str)]) -> String {
    let path = folder.join("telling.yaml");
    let rule = |(id, route): &(&str, &str)| {
        format!("  - {{id: {id}, name: Told, when: 'http.route == \"{route}\"', action: log, score: 1, reason: \"its route\"}}\n")
    };
    let rules: String = routes.iter().map(rule).collect();
    std::fs::write(&path, format!("version: 1\nmode: enforce\nrules:\n{rules}")).unwrap();
    format!("[policy]\npath = {path:?}\n")
}

fn get(traffic: &mut Traffic, client: u32, path: &str) -> Transaction {
    let mut transaction = traffic.of_client(client);
    let http = transaction.http.as_mut().unwrap();
    (http.method, http.path) = ("GET".to_owned(), path.to_owned());
    (http.body, http.body_size) = (Vec::new().into(), 0);
    transaction
}

/// The rule that says which route Anna's post has.
async fn route(scorer: &Scorer, traffic: &mut Traffic) -> String {
    let verdict = score(&scorer.client().await, get(traffic, 1, "/blog/post-of-anna")).await.unwrap();
    verdict.rules.first().map_or_else(String::new, |rule| rule.id.clone())
}

fn templates(scorer: &Scorer, arguments: &[&str]) -> String {
    let admin = scorer.admin.to_string();
    String::from_utf8(telltale_ok(&[&["templates"][..], arguments, &["--admin", &admin]].concat())).unwrap()
}

async fn listed(scorer: &Scorer) -> Vec<(String, TemplateState)> {
    let answer = TemplatesClient::new(connect(scorer.admin)).list_templates(ListTemplatesRequest {}).await.unwrap().into_inner();
    answer.templates.into_iter().map(|template| (template.path.clone(), template.state())).collect()
}

async fn gauge(scorer: &Scorer, state: &str) -> u64 {
    let text = Http::new(scorer.metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
    let line = format!("telltale_templates{{state=\"{state}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
}

/// Ends a scorer as a deployment does, and starts it again.
fn restarted(mut scorer: Scorer, folder: &Path, sections: &str) -> Scorer {
    let addresses = scorer.addresses();
    scorer.process.signal(Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    Scorer::start_at(folder, sections, addresses).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_added_template_holds_at_every_scorer_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (first_folder, second_folder) = (folder.path().join("first"), folder.path().join("second"));
    for folder in [&first_folder, &second_folder] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let store = format!("[store]\nkind = \"redis\"\nmax_mb = 64\n[store.redis]\naddresses = [\"{}\"]\n", redis.address);
    let sections = store + &telling_policy(folder.path());
    let first = Scorer::start(&first_folder, &sections).unwrap();
    let second = beside(&first, &second_folder, &sections);
    let mut traffic = Traffic::new(171, 5);
    assert_eq!((route(&first, &mut traffic).await, route(&second, &mut traffic).await), ("T-2".to_owned(), "T-2".to_owned()));

    let said = templates(&first, &["add", "/blog/{slug}", "--service", "shop", "--method", "get", "--reason", "a page a post"]);
    assert!(said.contains("in force") && said.contains("shop GET /blog/{slug}") && said.contains("a page a post"), "{said}");
    assert_eq!(route(&first, &mut traffic).await, "T-1", "what is answered holds");
    let asking = Mutex::new(Traffic::new(174, 5));
    within(Duration::from_secs(10), "in force at the second scorer", || async {
        let transaction = get(&mut asking.lock().unwrap(), 1, "/blog/post-of-anna");
        let verdict = score(&second.client().await, transaction).await.unwrap();
        verdict.rules.first().is_some_and(|rule| rule.id == "T-1")
    })
    .await;
    let second = restarted(second, &second_folder, &sections);
    assert_eq!(route(&second, &mut traffic).await, "T-1");
    assert_eq!((gauge(&second, "in_force").await, gauge(&second, "refused").await), (1, 0));

    // The second one takes it back; it stays refused everywhere.
    templates(&second, &["remove", "/blog/{slug}", "--service", "shop", "--method", "GET", "--reason", "each post is a page"]);
    assert_eq!(route(&second, &mut traffic).await, "T-2");
    within(Duration::from_secs(10), "out of force at the first scorer", || async {
        listed(&first).await == [("/blog/{slug}".to_owned(), TemplateState::Refused)]
    })
    .await;
    assert_eq!(route(&first, &mut traffic).await, "T-2");
    let first = restarted(first, &first_folder, &sections);
    assert_eq!((route(&first, &mut traffic).await, gauge(&first, "refused").await), ("T-2".to_owned(), 1));
    let audit = std::fs::read_to_string(first.data.join("audit.ndjson")).unwrap();
    assert!(audit.contains("shop GET /blog/{slug}") && audit.contains("a page a post"), "{audit}");
    for (arguments, part) in [(["add", "/blog"], "no variable"), (["add", "/blog/{id"], "neither")] {
        let admin = first.admin.to_string();
        let refused = telltale(&[&["templates"][..], &arguments, &["--admin", &admin]].concat());
        assert_eq!(refused.status.code(), Some(64));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(part), "{refused:?}");
    }
}

/// Posts that many people read, each answered as the service answers.
async fn read_posts(scorer: &Scorer, traffic: &mut Traffic, status: u32, posts: u32) {
    let client = scorer.client().await;
    for number in 0..posts {
        let mut transaction = get(traffic, number % 60, &format!("/blog/how-to-{}", word(number)));
        transaction.response = Some(HttpResponse { status, ..HttpResponse::default() });
        score(&client, transaction).await.unwrap();
    }
}

/// Letters only: the shape of the path does not tell.
fn word(number: u32) -> String {
    format!("{number:04}").bytes().map(|digit| char::from(b'a' + (digit - b'0'))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_traffic_shows_is_suggested_then_added_and_the_replay_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let sections = telling_policy(folder.path()) + "[store]\nsnapshot_minutes = 0.01\n";
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    let mut traffic = Traffic::new(172, 60);
    for status in [404, 302] {
        read_posts(&scorer, &mut traffic, status, 400).await;
    }
    assert!(taught(&scorer).await == 0 && listed(&scorer).await.is_empty(), "only what exists teaches");
    read_posts(&scorer, &mut traffic, 200, 400).await;
    within(Duration::from_secs(10), "a suggestion", || async {
        listed(&scorer).await == [("/blog/{id}".to_owned(), TemplateState::Suggested)]
    })
    .await;
    assert_eq!(route(&scorer, &mut traffic).await, "T-2", "a suggestion changes nothing");
    assert_eq!((gauge(&scorer, "in_force").await, gauge(&scorer, "suggested").await), (0, 1));
    templates(&scorer, &["add", "/blog/{id}", "--service", "shop", "--method", "GET"]);
    assert_eq!(route(&scorer, &mut traffic).await, "T-3");
    assert_eq!((gauge(&scorer, "in_force").await, gauge(&scorer, "suggested").await), (1, 0));
    read_posts(&scorer, &mut traffic, 200, 200).await;
    templates(&scorer, &["remove", "/blog/{id}", "--service", "shop", "--method", "GET"]);
    read_posts(&scorer, &mut traffic, 200, 100).await;
    templates(&scorer, &["add", "/blog/{id}", "--service", "shop", "--method", "GET"]);
    read_posts(&scorer, &mut traffic, 200, 100).await;
    // Killed, it comes back with what was in force.
    scorer.process.signal(Signal::KILL).unwrap();
    assert!(!scorer.process.wait().unwrap());
    let scorer = Scorer::start_at(folder.path(), &sections, scorer.addresses()).unwrap();
    assert_eq!(route(&scorer, &mut traffic).await, "T-3");
    read_posts(&scorer, &mut traffic, 200, 50).await;
    let scorer = restarted(scorer, folder.path(), &sections);
    assert_eq!(listed(&scorer).await, [("/blog/{id}".to_owned(), TemplateState::InForce)]);
    let data = scorer.data.clone();
    drop(scorer);
    for threads in ["1", "2"] {
        let [journal, config] = [data.join("journal"), folder.path().join("telltale.toml")];
        let [journal, config, key] = [&journal, &config, &data].map(|path| path.to_str().unwrap());
        let printed = telltale_ok(&["replay", journal, "--config", config, "--key-from", key, "--threads", threads, "--output", "json"]);
        let summary: serde_json::Value = serde_json::from_slice(&printed).unwrap();
        let count = |name: &str| summary["compared"][name].as_u64().unwrap();
        assert_eq!((count("different_vectors"), count("different_decisions"), count("orphans")), (0, 0, 0), "{summary}");
        // A killed scorer loses its last 100 ms.
        assert!(count("decisions") >= 1_500, "{summary}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn left_on_templates_come_into_force_by_themselves_and_refused_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let sections = telling(folder.path(), &[("T-3", "/blog/{id}")]) + "[endpoints]\nlearn = \"on\"\n";
    let scorer = Scorer::start(folder.path(), &sections).unwrap();
    let mut traffic = Traffic::new(173, 60);
    read_posts(&scorer, &mut traffic, 200, 400).await;
    within(Duration::from_secs(10), "in force", || async { listed(&scorer).await == [("/blog/{id}".to_owned(), TemplateState::InForce)] })
        .await;
    assert_eq!(route(&scorer, &mut traffic).await, "T-3");
    templates(&scorer, &["remove", "/blog/{id}", "--service", "shop", "--method", "GET"]);
    // Learned anew after a restart, it stays as the operator left it.
    let scorer = restarted(scorer, folder.path(), &sections);
    read_posts(&scorer, &mut traffic, 200, 400).await;
    within(Duration::from_secs(10), "all of it was looked at", || async { taught(&scorer).await >= 400 }).await;
    assert_eq!(listed(&scorer).await, [("/blog/{id}".to_owned(), TemplateState::Refused)]);
    assert_eq!(route(&scorer, &mut traffic).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn left_on_a_template_that_would_take_in_a_path_of_a_rule_is_only_suggested() {
    let folder = tempfile::tempdir().unwrap();
    let sections = telling_policy(folder.path()) + "[endpoints]\nlearn = \"on\"\n";
    let scorer = Scorer::start(folder.path(), &sections).unwrap();
    let mut traffic = Traffic::new(175, 60);
    read_posts(&scorer, &mut traffic, 200, 400).await;
    within(Duration::from_secs(10), "all of it was looked at", || async { taught(&scorer).await >= 400 }).await;
    assert_eq!(listed(&scorer).await, [("/blog/{id}".to_owned(), TemplateState::Suggested)]);
    assert_eq!(route(&scorer, &mut traffic).await, "T-2", "its rule goes on matching");
    let said = templates(&scorer, &["list"]);
    assert!(said.contains("names `/blog/") && said.contains("do not match any more"), "{said}");
    let said = templates(&scorer, &["add", "/blog/{id}", "--service", "shop", "--method", "GET"]);
    assert!(said.contains("do not match any more"), "{said}");
}

async fn taught(scorer: &Scorer) -> u64 {
    let text = Http::new(scorer.metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
    text.lines().find_map(|line| line.strip_prefix("telltale_template_lessons_total{what=\"taught\"} ")).unwrap().parse().unwrap()
}
