//! Disks that take nothing: a folder that cannot be written, a journal on a full disk, and one on a disk that has room again.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use telltale_tests::http::Http;
use telltale_tests::process::{Process, built};
use telltale_tests::stand::{Addresses, Scorer};
use telltale_tests::traffic::Traffic;

use crate::stage::{score, telltale, telltale_ok, within};

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    // A file stands where the folder should be; a folder in which nobody, root neither, may make another.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), "a file where the folder should be").unwrap();
    for data in [folder.path().join("data"), PathBuf::from("/proc/telltale")] {
        let data = data.to_str().unwrap();
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let output = telltale(&[&["serve", "--data", data][..], &ports].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(data), "{said}");
    }
}

/// A number of the journal's, from the metrics.
async fn journalled(metrics: std::net::SocketAddr, what: &str) -> u64 {
    let text = Http::new(metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
    let start = format!("telltale_journal{{what=\"{what}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(start.as_str())).map_or(0, |value| value.parse::<f64>().unwrap() as u64)
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
    within(Duration::from_secs(10), "lost journal records are counted", || async move { journalled(metrics, "lost").await > 0 }).await;
    score(&client, traffic.next_transaction()).await.unwrap();
    process.signal(rustix::process::Signal::TERM).unwrap();
    process.wait().unwrap();
    assert!(!process.last_words().contains("panicked"), "{}", process.last_words());
}

/// A small file system in memory, unmounted when dropped; `None` where mounting is not allowed.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(at).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(at.to_path_buf()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a process that still ends may hold a file.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_goes_on_with_a_gap_once_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(&folder.path().join("data")) else {
        println!("no right to mount a small file system: only the limit of a file's size is tested here");
        return;
    };
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let client = scorer.client().await;
    let mut traffic = Traffic::new(66, 200);
    let mut answered = 0_u64;
    for _ in 0..100 {
        score(&client, traffic.next_transaction()).await.unwrap();
        answered += 1;
    }
    let filler = small.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    drop(file);
    while journalled(scorer.metrics, "lost").await == 0 {
        assert!(answered < 50_000, "nothing was lost on a full disk");
        for _ in 0..100 {
            score(&client, traffic.next_transaction()).await.unwrap();
            answered += 1;
        }
    }
    std::fs::remove_file(&filler).unwrap();
    for _ in 0..100 {
        score(&client, traffic.next_transaction()).await.unwrap();
        answered += 1;
    }
    let metrics = scorer.metrics;
    within(Duration::from_secs(10), "the gap is written", || async move { journalled(metrics, "gaps").await > 0 }).await;
    let gaps = journalled(metrics, "gaps").await;
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    let (journal, config) = (scorer.data.join("journal"), scorer.config.clone());
    let arguments = ["replay", journal.to_str().unwrap(), "--config", config.to_str().unwrap(), "--output", "json"];
    let summary: serde_json::Value = serde_json::from_slice(&telltale_ok(&arguments)).unwrap();
    let missing = summary["compared"]["missing"].as_u64().unwrap();
    let replayed = summary["transactions"].as_u64().unwrap();
    println!("full disk: {answered} scored, {replayed} replayed, {missing} numbers missing");
    assert!(missing > 0 && replayed > 0, "{summary:#}");
    // Either edge of a gap may part a transaction from its decision: then one of its two numbers is there.
    let lost = 2 * (answered - replayed);
    assert!((lost.saturating_sub(2 * gaps)..=lost).contains(&missing), "each lost transaction leaves two numbers, {lost}:\n{summary:#}");
    assert_eq!(summary["compared"]["damaged"].as_array().unwrap().len(), 0, "{summary:#}");
}
