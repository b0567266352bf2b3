//! Starts that cannot be, and models that cannot be used: the first end with a message, the second serve without the model.

use std::path::{Path, PathBuf};
use std::process::Command;

use telltale_tests::process::{built, free_address};
use telltale_tests::stand::{Scorer, shipped_models};
use telltale_tests::traffic::Traffic;

use crate::stage::{score, telltale};

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
async fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = Scorer::start(folder.path(), "").unwrap();
    score(&first.client().await, Traffic::new(61, 1).next_transaction()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut second = Scorer::launch(other.path(), "", first.addresses()).unwrap();
    assert!(!second.process.wait().unwrap());
    let said = second.process.last_words();
    assert!(said.contains(&first.scoring.to_string()) && said.contains("listen"), "{said}");
}

/// A copy of the shipped repository.
fn repository(folder: &Path) -> PathBuf {
    let to = folder.join("models");
    assert!(Command::new("cp").arg("-r").arg(shipped_models().unwrap()).arg(&to).status().unwrap().success());
    to
}

/// Changes a file of a version.
fn edit(version: &Path, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = version.join(file);
    std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
}

/// Cuts the model off and lets the manifest say so: only the runtime can find out.
fn truncate(version: &Path) {
    let before = blake3::hash(&std::fs::read(version.join("model.onnx")).unwrap()).to_hex().to_string();
    edit(version, "model.onnx", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    let after = blake3::hash(&std::fs::read(version.join("model.onnx")).unwrap()).to_hex().to_string();
    edit(version, "manifest.toml", |text| replaced(text, &before, &after));
}

fn replaced(text: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(from), "no `{from}` in\n{text}");
    text.replacen(from, to, 1).into_bytes()
}

type Break = fn(&Path);

/// What is done to the version `abuse:1`, and what must be said of it.
const BROKEN: &[(&str, Break, &[&str])] = &[
    ("an absent file", |version| std::fs::remove_file(version.join("model.onnx")).unwrap(), &["read", "model.onnx", "No such file"]),
    ("a damaged file", |version| edit(version, "model.onnx", |bytes| [bytes, vec![0]].concat()), &["model.onnx", "digest", "damaged"]),
    ("a truncated model", truncate, &["model.onnx", "abuse"]),
    (
        "a feature that means something else",
        |version| edit(version, "manifest.toml", |text| replaced(text, "hash = \"", "hash = \"0123456789abcdef\"\n# \"")),
        &["manifest.toml", "was trained with the definition 0123456789abcdef", "retrain"],
    ),
    (
        "a feature that nobody has",
        |version| edit(version, "manifest.toml", |text| replaced(text, "name = \"address.", "name = \"addres.")),
        &["manifest.toml", "input `addres.", "closest"],
    ),
    (
        "an unknown key",
        |version| edit(version, "manifest.toml", |text| [b"colour = \"red\"\n".to_vec(), text].concat()),
        &["manifest.toml", "colour", "expected"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_model_fails_alone_and_says_why() {
    for (what, break_it, parts) in BROKEN {
        let folder = tempfile::tempdir().unwrap();
        let models = repository(folder.path());
        break_it(&models.join("abuse/versions/1"));
        let verified = telltale(&["models", "verify", "--models", models.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(!verified.status.success(), "{what}: {said}");
        for part in *parts {
            assert!(said.contains(part), "{what}: `{said}` lacks `{part}`");
        }
        let mut scorer = Scorer::start(folder.path(), &format!("[models]\npath = {models:?}\n")).unwrap();
        let verdict = score(&scorer.client().await, Traffic::new(62, 1).next_transaction()).await.unwrap();
        assert!(verdict.degraded.iter().any(|missing| missing.contains("abuse")), "{what}: {:?}", verdict.degraded);
        let answered: Vec<&str> = verdict.models.iter().map(|model| model.model.as_str()).collect();
        assert_eq!(answered, ["unusual"], "{what}: one model fails alone");
        scorer.process.signal(rustix::process::Signal::TERM).unwrap();
        assert!(scorer.process.wait().unwrap(), "{what}: {}", scorer.process.last_words());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_runtime_native_models_and_rules_decide() {
    let folder = tempfile::tempdir().unwrap();
    let models = repository(folder.path());
    let sections = format!("[models]\npath = {models:?}\nruntime = \"/nowhere/libonnxruntime.so\"\n");
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    let verdict = score(&scorer.client().await, Traffic::new(64, 1).next_transaction()).await.unwrap();
    assert!(verdict.degraded.iter().any(|missing| missing.contains("abuse")), "{:?}", verdict.degraded);
    assert_eq!(verdict.models.iter().map(|model| model.model.as_str()).collect::<Vec<_>>(), ["unusual"]);
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    let said = scorer.process.last_words();
    assert!(said.contains("/nowhere/libonnxruntime.so"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_repository_rules_decide() {
    let folder = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let verdict = score(&scorer.client().await, Traffic::new(65, 1).next_transaction()).await.unwrap();
    assert!(verdict.models.is_empty() && verdict.degraded.iter().any(|missing| missing.contains("model")), "{:?}", verdict.degraded);
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
}

/// Starts of the proxy that cannot be: lines of its file, exit code, and what must be said.
const PROXY: &[(&str, i32, &[&str])] = &[
    ("listn = \"127.0.0.1:0\"\n", USAGE, &["proxy.toml", "listn", "listen"]),
    ("listen = \"nowhere\"\n", USAGE, &["listen", "nowhere"]),
    ("upstream = \"ftp://127.0.0.1:1\"\n", USAGE, &["upstream", "ftp", "http://"]),
    ("trusted_hops = [\"300.0.0.0/8\"]\n", USAGE, &["trusted_hops", "300.0.0.0/8"]),
    ("[scorer]\ndeadline_ms = 0\n", USAGE, &["deadline_ms", "0", "1 to 10"]),
    ("[scorer]\ntoken_file = \"/nowhere/token\"\n", USAGE, &["/nowhere/token"]),
];

#[test]
fn a_proxy_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("listen = \"{}\"\n", taken.local_addr().unwrap());
    let address = taken.local_addr().unwrap().to_string();
    let port: (&str, i32, &[&str]) = (&in_use, 69, &[&address, "in use"]);
    for (text, code, parts) in PROXY.iter().copied().chain([port]) {
        let config = folder.path().join("proxy.toml");
        std::fs::write(&config, text).unwrap();
        let output = Command::new(built("telltale-proxy").unwrap()).arg("--config").arg(&config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}: {said}");
        for part in parts {
            assert!(said.contains(part), "{text}: `{said}` lacks `{part}`");
        }
    }
    let flags = Command::new(built("telltale-proxy").unwrap()).args(["--lisen", &free_address().unwrap().to_string()]).output().unwrap();
    assert_eq!(flags.status.code(), Some(USAGE));
    assert!(String::from_utf8_lossy(&flags.stderr).contains("--listen"), "{}", String::from_utf8_lossy(&flags.stderr));
}

#[test]
fn bad_inputs_of_a_replay_are_named_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = r#"{"transaction":{"id":"a","time":"2026-10-05T08:00:00Z","source":{"ip":"192.0.2.1"},"http":{"method":"GET","path":"/"}}}"#;
    let lines = format!("{good}\n{{\"transaction\":\n\u{0}\u{1}\n{{\"nonsense\":1}}\n{}\n", good.replace("\"a\"", "\"b\""));
    let mixed = write("mixed.ndjson", lines.as_bytes());
    let packed = write("packed.ndjson.gz", b"\x1f\x8b\x08\x00 and then nothing that gzip knows");

    let summary = telltale(&["replay", &mixed, "--output", "json"]);
    assert!(summary.status.success(), "{}", String::from_utf8_lossy(&summary.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&summary.stdout).unwrap();
    assert_eq!(summary["transactions"], 2, "{summary:#}");
    let told: Vec<_> = summary["malformed_first"].as_array().unwrap().iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!((summary["malformed"].as_u64().unwrap() as usize, &told[..2]), (told.len(), &[2, 3][..]), "{summary:#}");

    let cases: [(&[&str], &[&str]); 4] = [
        (&["replay", &mixed, "--strict"], &["line 2", "transaction"]),
        (&["replay", "/nowhere/traffic.ndjson"], &["/nowhere/traffic.ndjson"]),
        (&["replay", &packed], &["packed.ndjson.gz"]),
        (&["replay", &mixed, "--format", "xml"], &["xml", "combined"]),
    ];
    for (arguments, parts) in cases {
        let output = telltale(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} went well: {}", String::from_utf8_lossy(&output.stdout));
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: `{said}` lacks `{part}`");
        }
    }
}
