//! `make bench`: runs the benches named (all without a name), prints one table and writes `target/bench/summary.json`.

use std::path::Path;
use std::process::ExitCode;

use telltale_tests::bench::{self, Failure, Row};

const ALL: [&str; 7] = ["core", "flood", "models", "grpc", "redis", "proxy", "replay"];

fn main() -> ExitCode {
    let named: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = named.iter().find(|name| !ALL.contains(&name.as_str())) {
        eprintln!("no bench is named `{unknown}`; allowed: {}", ALL.join(", "));
        return ExitCode::from(64);
    }
    let mut rows = Vec::new();
    let mut failed = false;
    for name in ALL.into_iter().filter(|name| named.is_empty() || named.iter().any(|wanted| wanted == name)) {
        eprintln!("bench: {name}");
        match measure(name) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                failed = true;
                eprintln!("bench {name} could not measure: {error}");
            }
        }
    }
    println!("{}", bench::table(&rows));
    if let Err(error) = bench::write(&rows, Path::new("target/bench/summary.json")) {
        eprintln!("target/bench/summary.json cannot be written: {error}");
        failed = true;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn measure(name: &str) -> Result<Vec<Row>, Failure> {
    let folder = Path::new("target/bench").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    // One thread: the load must not take the machine from what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match name {
        "core" => bench::core::run(&folder),
        "flood" => bench::flood::run(&folder),
        "models" => bench::models::run(&folder),
        "grpc" => runtime.block_on(bench::grpc::run(&folder)),
        "redis" => runtime.block_on(bench::redis::run(&folder)),
        "proxy" => runtime.block_on(bench::proxy::run(&folder)),
        _ => bench::replay::run(&folder),
    }
}
