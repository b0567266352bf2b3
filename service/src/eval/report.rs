//! The figures of an evaluation beside their bars: as rows for programs, as a table for people.

use serde::Serialize;

use crate::demo::tally::{AttackTally, GuestTally, Tally, harm_words};

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// How much; absent when it never came to be.
    pub value: Option<f64>,
    /// Of what.
    pub unit: String,
    /// What it is compared with.
    pub baseline: Option<String>,
    /// The baseline's own figure.
    pub baseline_value: Option<f64>,
    /// `value / baseline_value`.
    pub ratio: Option<f64>,
    /// What is asked of it.
    pub bar: Option<String>,
    /// Whether it is met; absent where nothing is asked.
    pub holds: Option<bool>,
}

/// The best threshold on one feature, in words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rival {
    /// `address.failed_logins_10m > 12`.
    pub words: String,
    /// Share of the attack's requests that it catches.
    pub catches: f64,
    /// Whether the attack is one that a threshold may find.
    pub allowed: bool,
}

fn figure(name: impl Into<String>, value: Option<f64>, unit: &str) -> Figure {
    Figure { name: name.into(), value, unit: unit.into(), baseline: None, baseline_value: None, ratio: None, bar: None, holds: None }
}

fn per_thousand(guests: &GuestTally) -> f64 {
    1_000.0 * guests.sessions_stopped as f64 / guests.sessions.max(1) as f64
}

/// All figures.
pub fn figures(tally: &Tally, rival: &dyn Fn(&str) -> Rival, least_sessions: u64) -> Vec<Figure> {
    let wrong = per_thousand(&tally.customers);
    let sessions = tally.customers.sessions;
    let mut rows = vec![
        Figure {
            bar: Some(format!("at least {least_sessions}")),
            holds: Some(sessions >= least_sessions),
            ..figure("customer sessions", Some(sessions as f64), "sessions")
        },
        Figure {
            bar: Some("at most 1".into()),
            holds: Some(wrong <= 1.0),
            ..figure("customer sessions wrongly enforced", Some(wrong), "per 1,000 sessions")
        },
        figure("days of crawlers and partners wrongly enforced", Some(per_thousand(&tally.machines)), "per 1,000 days"),
    ];
    for (name, attack) in &tally.attacks {
        rows.extend(attack_figures(name, attack, rival(name)));
    }
    rows
}

fn attack_figures(name: &str, attack: &AttackTally, rival: Rival) -> Vec<Figure> {
    let medium = name.ends_with("/medium");
    let first = attack.first_stopped_request.map(|request| request as f64);
    let mut rows = vec![
        figure(format!("{name}: requests"), Some(attack.requests as f64), "requests"),
        Figure {
            bar: medium.then(|| "enforced before its end".into()),
            holds: medium.then_some(first.is_some()),
            ..figure(format!("{name}: first enforced after"), first, "requests")
        },
        figure(format!("{name}: first enforced after"), attack.first_stopped_seconds, "seconds"),
        Figure {
            baseline: Some(format!("best single threshold: {}", rival.words)),
            baseline_value: Some(rival.catches),
            ratio: (rival.catches > 0.0).then(|| attack.share_stopped / rival.catches),
            ..figure(format!("{name}: share of requests enforced"), Some(attack.share_stopped), "share")
        },
        figure(format!("{name}: harm before, {}", harm_words(name)), Some(attack.harm_before as f64), "requests"),
    ];
    if medium && !rival.allowed {
        rows.push(Figure {
            bar: Some("less than 0.5".into()),
            holds: Some(rival.catches < 0.5),
            ..figure(format!("{name}: best single threshold catches"), Some(rival.catches), "share")
        });
    }
    rows
}

/// The table for people.
pub fn table(tally: &Tally, rival: &dyn Fn(&str) -> Rival, rows: &[Figure]) -> String {
    let (customers, machines) = (&tally.customers, &tally.machines);
    let mut lines = vec![
        format!(
            "customer sessions: {}, wrongly enforced {} ({:.2} per 1,000)",
            customers.sessions,
            customers.sessions_stopped,
            per_thousand(customers)
        ),
        format!("days of crawlers and partners: {}, wrongly enforced {}", machines.sessions, machines.sessions_stopped),
        format!(
            "\n{:<30} {:>8} {:>26} {:>9} {:>28}  {}",
            "attack", "requests", "first enforced", "enforced", "harm before", "best single threshold"
        ),
    ];
    for (name, attack) in &tally.attacks {
        let first = match (attack.first_stopped_request, attack.first_stopped_seconds) {
            (Some(request), Some(seconds)) => format!("request {request}, {seconds:.0} s"),
            _ => "never".into(),
        };
        let harm = format!("{} {}", attack.harm_before, harm_words(name));
        let rival = rival(name);
        let share = attack.share_stopped * 100.0;
        lines.push(format!(
            "{name:<30} {:>8} {first:>26} {share:>8.1}% {harm:>28}  {:>5.1}%  {}",
            attack.requests,
            rival.catches * 100.0,
            rival.words
        ));
    }
    let missed: Vec<String> = rows
        .iter()
        .filter(|row| row.holds == Some(false))
        .map(|row| {
            let value = row.value.map_or_else(|| "never".to_owned(), |value| format!("{value:.3}"));
            format!("  {}: {value} {}, asked is {}", row.name, row.unit, row.bar.as_deref().unwrap_or_default())
        })
        .collect();
    lines.push(if missed.is_empty() { "\nevery bar holds".into() } else { format!("\nbars missed:\n{}", missed.join("\n")) });
    lines.join("\n")
}
