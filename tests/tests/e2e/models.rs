//! Foreign models: the hostile corpus against a real server under load, workers that are killed, and what the containment prevents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use telltale_proto::v1::models_client::ModelsClient;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{ListModelsRequest, Model, ModelState, PromoteModelRequest};
use telltale_tests::process::built;
use telltale_tests::stand::{Scorer, connect, shipped_models};
use telltale_tests::traffic::Traffic;
use tonic::transport::Channel;

use crate::signatures;
use crate::stage::{score, within, write_figures};

/// A repository with the shipped forest alone, and the section that names it.
pub fn repository(folder: &Path) -> (PathBuf, String) {
    let root = folder.join("models");
    let from = shipped_models().unwrap().join("unusual");
    std::fs::create_dir_all(root.join("unusual/versions/1")).unwrap();
    std::fs::create_dir_all(root.join("inbox")).unwrap();
    std::fs::copy(from.join("policy.toml"), root.join("unusual/policy.toml")).unwrap();
    for entry in std::fs::read_dir(from.join("versions/1")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, root.join("unusual/versions/1").join(path.file_name().unwrap())).unwrap();
    }
    // A machine that is busy with other things must not look like a slow model.
    let section = format!("[models]\npath = {root:?}\ndeadline_ms = 400\n");
    (root, section)
}

/// The corpus, with the guard that must stop each file.
pub fn corpus(folder: &Path) -> BTreeMap<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hostile.py");
    let made = Command::new("python").arg(script).arg(folder).output().expect("python is missing: run `make setup-tests`");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap()
}

async fn models(scorer: &Scorer) -> ModelsClient<Channel> {
    ModelsClient::new(connect(scorer.admin))
}

pub async fn find(scorer: &Scorer, name: &str) -> Option<Model> {
    let listed = models(scorer).await.list_models(ListModelsRequest {}).await.unwrap().into_inner().models;
    listed.into_iter().find(|model| model.name == name)
}

/// Waits until the first version of a model is in shadow.
async fn in_shadow(scorer: &Scorer, name: &str) {
    within(Duration::from_secs(60), "the model in shadow", || async { find(scorer, name).await.is_some_and(|model| model.shadow == [1]) })
        .await;
}

/// Names in a folder; none when it is not there.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok).collect::<Vec<_>>()).unwrap_or_default();
    entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Calls at a steady pace while a condition holds; microseconds of each. A call that fails ends the test.
async fn paced(client: &ScorerClient<Channel>, traffic: &mut Traffic, mut go_on: impl FnMut(usize) -> bool) -> Vec<u64> {
    let mut micros = Vec::new();
    while go_on(micros.len()) {
        let begun = tokio::time::Instant::now();
        score(client, traffic.next_transaction()).await.unwrap();
        micros.push(begun.elapsed().as_micros() as u64);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    micros
}

fn p99(mut micros: Vec<u64>) -> u64 {
    micros.sort_unstable();
    micros[micros.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_model_is_stopped_by_its_own_guard_and_no_call_fails() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("corpus");
    let mut expected = corpus(&files);
    expected.extend(signatures::corpus(&files));
    assert!(expected.len() >= 40 && expected.values().collect::<std::collections::BTreeSet<_>>().len() >= 12);
    let (root, section) = repository(folder.path());
    let scorer = Scorer::start(folder.path(), &format!("{section}{}", signatures::section())).unwrap();
    let inbox = root.join("inbox");
    let client = scorer.client().await;
    let mut traffic = Traffic::new(81, 50);
    paced(&client, &mut traffic, |calls| calls < 500).await;
    let (mut calm, mut dropped) = (Vec::new(), Vec::new());
    // More than once where the 99th percentiles are to be told apart, turn about: what else the machine does meanwhile falls on both alike.
    let rounds: usize = std::env::var("TELLTALE_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        for name in expected.keys() {
            // A signature before its file: a file without one is taken as it is.
            let beside = format!("{name}.sig");
            if files.join(&beside).exists() {
                std::fs::copy(files.join(&beside), inbox.join(&beside)).unwrap();
            }
            std::fs::copy(files.join(name), inbox.join(name)).unwrap();
        }
        let end = tokio::time::Instant::now() + Duration::from_secs(240);
        let under = paced(&client, &mut traffic, |_| {
            assert!(tokio::time::Instant::now() < end, "still there: {:?}", names(&inbox));
            names(&inbox).iter().any(|name| name.ends_with(".onnx"))
        })
        .await;
        let as_many = if rounds > 1 { under.len() } else { 1_000 };
        calm.extend(paced(&client, &mut traffic, |calls| calls < as_many).await);
        dropped.extend(under);
    }
    std::fs::copy(files.join("harmless.onnx"), inbox.join("harmless.onnx")).unwrap();
    let guards = expected.values().collect::<std::collections::BTreeSet<_>>().len();
    let (calls, calm, dropped) = (dropped.len(), p99(calm), p99(dropped));
    let figures = serde_json::json!({
        "files": expected.len(), "guards": guards, "calls": calls, "calm_p99_us": calm, "dropped_p99_us": dropped,
    });
    write_figures("hostile.json", &figures);
    let quarantine = root.join(".quarantine");
    let mut wrong = Vec::new();
    for (file, guard) in &expected {
        let stem = file.trim_end_matches(".onnx");
        let reasons = names(&quarantine).into_iter().filter(|name| name.ends_with(&format!("{stem}.reason.txt")));
        let reasons: Vec<String> = reasons.map(|name| std::fs::read_to_string(quarantine.join(name)).unwrap()).collect();
        let own = reasons.iter().filter(|text| text.starts_with(&format!("{guard}: "))).count();
        if own != reasons.len() || own != rounds {
            wrong.push(format!("{file}: {guard} expected {rounds} times, {reasons:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The harmless one is in shadow, its worker contained.
    within(Duration::from_secs(20), "the harmless model in shadow", || async {
        let found = find(&scorer, "harmless").await;
        found.is_some_and(|model| {
            model.shadow == [1] && model.versions[0].state() == ModelState::Shadow && model.versions[0].origin == "inbox"
        })
    })
    .await;
    score(&client, traffic.next_transaction()).await.unwrap();
}

/// Threads that leave no processor idle until they are dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let (busy, threads) = (Arc::new(AtomicBool::new(true)), std::thread::available_parallelism().map_or(2, usize::from));
        for _ in 0..2 * threads {
            let busy = Arc::clone(&busy);
            std::thread::spawn(move || while busy.load(Ordering::Relaxed) {});
        }
        Self(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_model_is_taken_on_a_machine_that_leaves_nothing_over() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("corpus");
    corpus(&files);
    let (root, section) = repository(folder.path());
    let scorer = Scorer::start(folder.path(), &section).unwrap();
    let busy = Busy::start();
    std::fs::copy(files.join("harmless.onnx"), root.join("inbox/mine.onnx")).unwrap();
    within(Duration::from_secs(60), "the file out of the inbox", || async { names(&root.join("inbox")).is_empty() }).await;
    drop(busy);
    assert_eq!(names(&root.join(".quarantine")), Vec::<String>::new());
    in_shadow(&scorer, "mine").await;
}

/// Processes whose parent that is.
fn children(parent: u32) -> Vec<i32> {
    let of = |name: String| {
        let stat = std::fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let found: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (found == parent).then(|| name.parse().ok()).flatten()
    };
    names(Path::new("/proc")).into_iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_cost_a_row_and_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("corpus");
    corpus(&files);
    let (root, section) = repository(folder.path());
    let scorer = Scorer::start(folder.path(), &section).unwrap();
    // Half a copy waits; it is taken once the rest is there.
    let bytes = std::fs::read(files.join("harmless.onnx")).unwrap();
    std::fs::write(root.join("inbox/mine.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(root.join("inbox/mine.onnx").is_file() && find(&scorer, "mine").await.is_none());
    std::fs::write(root.join("inbox/mine.onnx"), &bytes).unwrap();
    in_shadow(&scorer, "mine").await;
    let promote = PromoteModelRequest { model: "mine".to_owned(), version: 1, ..Default::default() };
    models(&scorer).await.promote_model(promote).await.unwrap();

    let client = scorer.client().await;
    let mut traffic = Traffic::new(82, 50);
    let answered = |verdict: &telltale_proto::v1::Verdict| verdict.models.iter().any(|model| model.model == "mine");
    assert!(answered(&score(&client, traffic.next_transaction()).await.unwrap()));
    let workers = children(scorer.process.id());
    assert!(workers.len() >= 2, "a worker and its spare: {workers:?}");
    for worker in workers {
        rustix::process::kill_process(rustix::process::Pid::from_raw(worker).unwrap(), rustix::process::Signal::KILL).unwrap();
    }
    // No call fails; what is missing is said, and the model answers again.
    let verdict = score(&client, traffic.next_transaction()).await.unwrap();
    assert!(answered(&verdict) || verdict.degraded.iter().any(|text| text.contains("`mine` gave no score")), "{:?}", verdict.degraded);
    let traffic = std::sync::Mutex::new(traffic);
    within(Duration::from_secs(60), "the model answers again", || {
        let (client, transaction) = (client.clone(), traffic.lock().unwrap().next_transaction());
        async move { answered(&score(&client, transaction).await.unwrap()) }
    })
    .await;
}

/// Runs a worker that tries something as soon as it is locked in; whether it could do it.
fn tries(what: &str, locked: bool) -> (bool, Option<i32>) {
    use std::os::unix::process::ExitStatusExt;
    let library = std::env::var("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH is not set: run `make test`");
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(built("telltale").unwrap());
    command.args(["model-worker", "--runtime", &library, "--memory-mb", "1024", "--probe", what]);
    if !locked {
        command.arg("--unlocked");
    }
    let status = command.current_dir(folder.path()).stdin(std::process::Stdio::null()).output().unwrap().status;
    (status.success(), status.signal())
}

#[test]
fn a_worker_can_do_nothing_but_score_and_without_its_guards_it_could() {
    for what in ["socket", "exec", "fork", "kill", "descriptor"] {
        assert_eq!(tries(what, true), (false, Some(rustix::process::Signal::SYS.as_raw())), "{what}");
    }
    for what in ["write", "read", "memory"] {
        assert_eq!(tries(what, true), (false, None), "{what}");
    }
    for what in ["socket", "exec", "fork", "kill", "descriptor", "write", "read", "memory"] {
        assert!(tries(what, false).0, "{what} does no harm without the guard, so the guard proves nothing");
    }
}

#[test]
fn a_worker_whose_model_computes_ends_when_its_scorer_is_killed() {
    let library = std::env::var("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH is not set: run `make test`");
    let folder = tempfile::tempdir().unwrap();
    // A shell in the place of the scorer: it starts the worker, says which one it is, and waits.
    let mut command = Command::new("sh");
    let script = r#""$0" model-worker --runtime "$1" --memory-mb 1024 --probe compute </dev/null >/dev/null 2>&1 & echo $!; wait"#;
    command.args(["-c", script]).arg(built("telltale").unwrap()).arg(&library);
    let mut parent = command.current_dir(folder.path()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(parent.stdout.take().unwrap()), &mut told).unwrap();
    let worker: u32 = told.trim().parse().unwrap();
    // One that ended and that nobody has waited for is listed as a zombie.
    let runs = || std::fs::read_to_string(format!("/proc/{worker}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    let computes = || std::fs::read_dir(format!("/proc/{worker}/task")).is_ok_and(|tasks| tasks.count() > 1);
    let soon = |what: &dyn Fn() -> bool| {
        (0..200).any(|_| {
            what() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }
        })
    };
    assert!(soon(&computes), "the worker does not begin");
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(runs(), "it ended although its parent is there");
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(soon(&|| !runs()), "the worker goes on without its parent");
}

#[test]
fn a_publish_killed_at_any_moment_leaves_a_whole_repository() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("corpus");
    corpus(&files);
    let (root, _) = repository(folder.path());
    let file = files.join("harmless.onnx");
    let publish = || {
        let mut command = Command::new(built("telltale").unwrap());
        command.args(["models", "publish", "mine"]).arg(&file).arg("--models").arg(&root).current_dir(folder.path());
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    let mut killed = 0;
    for step in 0..24_u64 {
        let mut child = publish().spawn().unwrap();
        // The moment of the kill is what this test varies.
        std::thread::sleep(Duration::from_millis(step * 12));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(killed > 3, "{killed} of 24 publishes were killed in the middle");
    assert!(publish().status().unwrap().success(), "the next publish clears what was left behind");
    let models = root.to_string_lossy().into_owned();
    let verify = |model: &str, version: &str| {
        let mut command = Command::new(built("telltale").unwrap());
        command.args(["models", "verify", model, version, "--models", &models]).current_dir(folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{model} {version}: {}", String::from_utf8_lossy(&output.stdout));
    };
    let versions = names(&root.join("mine/versions"));
    assert!(!versions.is_empty());
    versions.iter().for_each(|version| verify("mine", version));
    verify("unusual", "1");
}
