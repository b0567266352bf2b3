//! `make fuzz`: feeds mutated bytes to every parser for a bounded time and keeps the input of a finding.
//!
//! `fuzz [--seconds N] [--seed N] [--target NAME]`, or `fuzz --target NAME --input FILE` to reproduce one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use telltale_tests::fuzz::{self, Finding, Target};

const USAGE: &str = "usage: fuzz [--seconds N] [--seed N] [--target NAME] [--input FILE]";

struct Options {
    seconds: u64,
    seed: u64,
    target: Option<String>,
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    let targets: Vec<Target> =
        fuzz::all().into_iter().filter(|target| options.target.as_deref().is_none_or(|wanted| wanted == target.name)).collect();
    if targets.is_empty() {
        let names: Vec<&str> = fuzz::all().iter().map(|target| target.name).collect();
        eprintln!("no such target; allowed: {}", names.join(", "));
        return ExitCode::from(64);
    }
    // A finding is reported with its input; the backtrace of each caught panic would only bury it.
    std::panic::set_hook(Box::new(|_| {}));
    let mut found = false;
    for target in &targets {
        match examine(target, &options) {
            Ok(inputs) => println!("{:<10} {inputs:>9} inputs, no finding", target.name),
            Err(finding) => {
                found = true;
                report(&finding);
            }
        }
    }
    if found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn examine(target: &Target, options: &Options) -> Result<u64, Box<Finding>> {
    let Some(path) = &options.input else { return target.fuzz(options.seed, Duration::from_secs(options.seconds)) };
    let input = std::fs::read(path).map_err(|error| {
        let what = format!("{}: cannot be read: {error}", path.display());
        Box::new(Finding { target: target.name, input: Vec::new(), what })
    })?;
    target.check(&input).map_or(Ok(1), |finding| Err(Box::new(finding)))
}

fn report(finding: &Finding) {
    let path = Path::new("target/fuzz").join(format!("{}.input", finding.target));
    let kept = std::fs::create_dir_all("target/fuzz").and_then(|()| std::fs::write(&path, &finding.input));
    println!("{:<10} FINDING: {}", finding.target, finding.what);
    match kept {
        Ok(()) => println!("{:<10} reproduce: fuzz --target {} --input {}", "", finding.target, path.display()),
        Err(error) => println!("{:<10} the input could not be kept: {error}", ""),
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seconds: 30, seed: 1, target: None, input: None };
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("`{flag}` needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("`{flag} {value}`: a whole number is needed"));
        match flag.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            "--target" => options.target = Some(value),
            "--input" => options.input = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown flag `{flag}`")),
        }
    }
    Ok(options)
}
