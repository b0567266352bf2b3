//! Starts that cannot be, and models that cannot be used: the first end with a message, the second serve without the model.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use telltale_tests::http::Http;
use telltale_tests::process::{Process, built};
use telltale_tests::stand::{Addresses, Scorer};
use telltale_tests::traffic::Traffic;

use crate::stage::{score, telltale, within};

/// Bad usage or configuration (sysexits).
const USAGE: i32 = 64;

#[test]
fn bad_configurations_are_refused_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let unknown_key = write("unknown.toml", "[scoring]\nlissten = \"127.0.0.1:0\"\n");
    let bad_pack = write("pack.yaml", "version: 1\nrules:\n  - {id: A-1, nam: x, when: 'true', action: block, reason: r}\n");
    let bad_name =
        write("name.yaml", "version: 1\nrules:\n  - {id: A-1, name: x, when: 'address.requets_1m > 1', action: block, reason: r}\n");
    let bad_schema = write("schema.yaml", "entities:\n  - {name: address, form: [address]}\n");
    let absent = folder.path().join("absent.toml").to_str().unwrap().to_owned();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["serve", "--config", &unknown_key], &["unknown.toml", "lissten", "listen"]),
        (&["serve", "--config", &absent], &["absent.toml"]),
        (&["serve", "--policy", &bad_pack], &["pack.yaml", "3", "nam"]),
        (&["serve", "--policy", &bad_name], &["name.yaml", "3", "requets_1m", "requests_1m"]),
        (&["serve", "--schema", &bad_schema], &["schema.yaml", "form"]),
        (&["serve", "--mode", "loud"], &["loud", "monitor"]),
    ];
    let data = folder.path().join("data");
    for (arguments, parts) in cases {
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let all = [arguments, &["--data", data.to_str().unwrap()], &ports].concat();
        let output = telltale(&all);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: `{said}` lacks `{part}`");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_and_an_unusable_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = Scorer::start(folder.path(), "").unwrap();
    score(&first.client().await, Traffic::new(61, 1).next_transaction()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut second = Scorer::launch(other.path(), "", first.addresses()).unwrap();
    assert!(!second.process.wait().unwrap());
    let said = second.process.last_words();
    assert!(said.contains(&first.scoring.to_string()) && said.contains("listen"), "{said}");

    let blocked = tempfile::tempdir().unwrap();
    std::fs::write(blocked.path().join("data"), "a file where the folder should be").unwrap();
    let mut third = Scorer::launch(blocked.path(), "", Addresses::free().unwrap()).unwrap();
    assert!(!third.process.wait().unwrap());
    let said = third.process.last_words();
    assert!(said.contains(blocked.path().join("data").to_str().unwrap()), "{said}");
}

/// A copy of the repository that the models' own tests use.
fn repository(folder: &Path) -> PathBuf {
    let to = folder.join("models");
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fixtures/repository");
    assert!(Command::new("cp").args(["-r", from]).arg(&to).status().unwrap().success());
    to
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_model_leaves_the_rules() {
    type Break = fn(&Path);
    let cases: [(&str, Break, &str); 3] = [
        ("an absent file", |version| std::fs::remove_file(version.join("model.onnx")).unwrap(), ""),
        (
            "a truncated file",
            |version| {
                let bytes = std::fs::read(version.join("model.onnx")).unwrap();
                std::fs::write(version.join("model.onnx"), &bytes[..bytes.len() / 2]).unwrap();
            },
            "",
        ),
        ("no ONNX Runtime", |_| {}, "runtime = \"/nowhere/libonnxruntime.so\"\n"),
    ];
    for (what, break_it, more) in cases {
        let folder = tempfile::tempdir().unwrap();
        let models = repository(folder.path());
        break_it(&models.join("boosted/versions/1"));
        let mut scorer = Scorer::start(folder.path(), &format!("[models]\npath = {models:?}\n{more}")).unwrap();
        let verdict = score(&scorer.client().await, Traffic::new(62, 1).next_transaction()).await.unwrap();
        assert!(verdict.degraded.iter().any(|missing| missing.contains("boosted")), "{what}: {:?}", verdict.degraded);
        assert!(verdict.models.is_empty(), "{what}: {:?}", verdict.models);
        scorer.process.signal(rustix::process::Signal::TERM).unwrap();
        assert!(scorer.process.wait().unwrap(), "{what}: {}", scorer.process.last_words());
    }
}

/// No file of the scorer may grow beyond that, as on a full disk. The shell ignores the signal, so that writes fail instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_the_journal_not_the_scoring() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Scorer::launch(folder.path(), "", Addresses::free().unwrap()).unwrap();
    let (config, scoring, metrics) = (plain.config.clone(), plain.scoring, plain.metrics);
    drop(plain);
    let mut command = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" serve --config \"$1\"";
    command.arg0("bash").args(["-c", script]).arg(built("telltale").unwrap()).arg(config);
    let mut process = Process::start("limited", &mut command, folder.path()).unwrap();
    process.wait_for_ready(metrics).unwrap();
    let client = telltale_proto::v1::scorer_client::ScorerClient::connect(format!("http://{scoring}")).await.unwrap();
    let mut traffic = Traffic::new(63, 200);
    for _ in 0..3_000 {
        score(&client, traffic.next_transaction()).await.unwrap();
    }
    let http = Http::new(metrics);
    within(Duration::from_secs(10), "lost journal records are counted", || {
        let http = http.clone();
        async move {
            let text = http.send("GET", "/metrics", &[], "").await.unwrap().text();
            text.lines().any(|line| line.starts_with("telltale_journal{what=\"lost\"}") && !line.ends_with(" 0"))
        }
    })
    .await;
    score(&client, traffic.next_transaction()).await.unwrap();
    process.signal(rustix::process::Signal::TERM).unwrap();
    process.wait().unwrap();
    assert!(!process.last_words().contains("panicked"), "{}", process.last_words());
}
