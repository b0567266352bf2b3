//! A progress bar with rate and time left, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far a replay is.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar over that many bytes, or a counter where the size is not known. Nothing when standard error is no terminal.
    pub fn new(total: Option<u64>, shown: bool) -> Self {
        let bar = if !shown || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let template = match total {
                Some(_) => "{bar:40} {percent:>3} %  {msg}  {eta} left",
                None => "{spinner}  {msg}  {elapsed}",
            };
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        };
        Self { bar }
    }

    /// How many bytes were read and how many transactions decided.
    pub fn at(&self, bytes: u64, transactions: u64) {
        self.bar.set_position(bytes);
        let seconds = self.bar.elapsed().as_secs_f64().max(0.001);
        let rate = crate::verdict::grouped((transactions as f64 / seconds) as u64);
        self.bar.set_message(format!("{} transactions, {rate}/s", crate::verdict::grouped(transactions)));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
