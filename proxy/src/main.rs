//! `telltale-proxy`: flags and file in, a serving proxy out. Stops on SIGTERM or SIGINT after draining.

use std::process::ExitCode;

use clap::Parser as _;
use telltale_proxy::{Flags, Settings, start};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Bad usage or configuration (sysexits).
const USAGE: u8 = 64;
/// An address cannot be had, or saved state not read.
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let asked = !error.use_stderr();
            let _printed = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    if flags.check {
        return match Settings::load(&flags) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => fail(&error, USAGE),
        };
    }
    let filter = EnvFilter::try_from_env("TELLTALE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
    let settings = match Settings::load(&flags) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, USAGE),
    };
    // Signals, the door and the metrics; requests are served on threads of their own.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(settings)),
        Err(error) => fail(&error, UNAVAILABLE),
    }
}

async fn run(settings: Settings) -> ExitCode {
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return fail(&error, UNAVAILABLE),
    };
    let running = match start(settings).await {
        Ok(running) => running,
        Err(error) => return fail(&error, UNAVAILABLE),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await;
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "the last word of a program that cannot go on")]
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("telltale-proxy: {error}");
    ExitCode::from(code)
}
