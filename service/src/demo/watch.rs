//! Verdicts as they fall: the proxy's log lines and the driver's exchanges enter, a few calm lines for people leave.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal as _;

use serde::Deserialize;
use tokio::time::Instant;

/// Lines of one kind (whom, which rule) that are shown.
const SHOWN: u32 = 2;
/// Lines in one second.
const A_SECOND: u32 = 4;

/// What the proxy logs of a verdict that is not `allow`.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    message: String,
    #[serde(default)]
    transaction: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    rule: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    risk: f64,
}

/// The stream that people read.
pub struct Watch {
    began: Instant,
    quiet: bool,
    colours: bool,
    verdicts: HashMap<String, Line>,
    awaited: HashMap<String, String>,
    shown: HashMap<(String, String), u32>,
    wrongly: BTreeMap<String, u64>,
    second: (u64, u32),
    held: u64,
}

impl Watch {
    /// A stream that begins now; a quiet one shows nothing.
    pub fn new(quiet: bool) -> Self {
        let colours = std::io::stdout().is_terminal();
        Self {
            began: Instant::now(),
            quiet,
            colours,
            verdicts: HashMap::new(),
            awaited: HashMap::new(),
            shown: HashMap::new(),
            wrongly: BTreeMap::new(),
            second: (0, 0),
            held: 0,
        }
    }

    /// Lines that were not shown, because others said the same.
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// Requests of customers that were stopped, by the rule that did it.
    pub const fn wrongly(&self) -> &BTreeMap<String, u64> {
        &self.wrongly
    }

    /// One line of the proxy's log.
    pub fn log(&mut self, text: &str) {
        let Ok(line) = serde_json::from_str::<Line>(text) else { return };
        if line.message != "verdict" {
            return;
        }
        match self.awaited.remove(&line.transaction) {
            Some(who) => self.show(&who, &line),
            None if self.verdicts.len() < 50_000 => {
                self.verdicts.insert(line.transaction.clone(), line);
            }
            None => {}
        }
    }

    /// `who` was stopped; `reference` is the transaction, where the answer named it.
    pub fn stopped(&mut self, who: &str, reference: Option<String>) {
        let Some(reference) = reference else { return };
        match self.verdicts.remove(&reference) {
            Some(line) => self.show(who, &line),
            None => {
                self.awaited.insert(reference, who.to_owned());
            }
        }
    }

    fn show(&mut self, who: &str, line: &Line) {
        let seconds = self.began.elapsed().as_secs_f64();
        let by = if line.rule.is_empty() { format!("risk {:.0}", line.risk) } else { line.rule.clone() };
        if who == "customer" {
            *self.wrongly.entry(by.clone()).or_default() += 1;
        }
        let shown = self.shown.entry((who.to_owned(), line.rule.clone())).or_default();
        *shown += 1;
        if self.second.0 != seconds as u64 {
            self.second = (seconds as u64, 0);
        }
        self.second.1 += 1;
        if self.quiet || *shown > SHOWN || self.second.1 > A_SECOND {
            self.held += 1;
            return;
        }
        let action = line.action.trim_start_matches("ACTION_").to_lowercase().replace('_', "-");
        let (colour, end) = match (self.colours, who == "customer") {
            (false, _) => ("", ""),
            (true, true) => ("\x1b[33m", "\x1b[0m"),
            (true, false) => ("\x1b[31m", "\x1b[0m"),
        };
        println!("{seconds:6.1}s  {colour}{action:<10}{end}  {who:<24} {by}: {}", line.reason);
    }
}
