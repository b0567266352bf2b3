//! `telltale replay` on simulated traffic, with one thread and with two.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Failure, Row, size};
use crate::process::built;
use crate::stand::shipped_models;

/// Measures and returns the rows.
///
/// # Errors
/// When a command fails.
pub fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let customers = size("TELLTALE_BENCH_CUSTOMERS", 600);
    let traffic = folder.join("traffic.ndjson");
    let mut simulate = Command::new(built("telltale")?);
    simulate
        .args(["simulate", "--seed", "5", "--days", "3", "--customers", &customers.to_string(), "--attacks", "all", "--out"])
        .arg(&traffic);
    output(&mut simulate)?;
    let one = rate(&traffic, 1)?;
    let two = rate(&traffic, 2)?;
    Ok(vec![
        Row::new("replay of NDJSON, one thread", one, "tx/s"),
        Row::new("replay of NDJSON, two threads", two, "tx/s").beside("one thread", one),
    ])
}

fn rate(traffic: &Path, threads: usize) -> Result<f64, Failure> {
    let mut replay = Command::new(built("telltale")?);
    replay.arg("replay").arg(traffic).args(["--threads", &threads.to_string(), "--output", "json"]);
    if let Some(models) = shipped_models() {
        replay.arg("--models").arg(models).arg("--shipped-calibration");
    }
    let summary: Value = serde_json::from_slice(&output(&mut replay)?)?;
    summary.get("rate").and_then(Value::as_f64).ok_or_else(|| "the summary has no `rate`".into())
}

fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    Err(format!("{command:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr)).into())
}
