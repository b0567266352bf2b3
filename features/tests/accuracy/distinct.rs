//! Distinct counts from a hundred members to a hundred thousand.
//!
//! A size enters, one row a number of members leaves: the root of the mean squared relative error over many rounds.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_features::kernel::{EntityState, Layout};

use super::Size;
use super::plan::{ALL, Aggregation, Happened, plan};
use super::row::Row;

const WINDOW: i64 = 86_400;
const COUNTS: [u64; 8] = [100, 300, 600, 1_000, 1_500, 3_000, 10_000, 100_000];

/// A row a number of members: 5 % to a thousand, 8 % beyond.
pub fn rows(size: &Size) -> Vec<Row> {
    let (rounds, most) = size.distinct;
    let counts = COUNTS.into_iter().filter(|count| *count <= most);
    let row = |count: u64| {
        // A hundred thousand members take long; fewer rounds of them.
        let rounds = if count > 10_000 { rounds / 3 + 1 } else { rounds };
        let squares: f64 = (0..rounds).map(|round| error(count, round).powi(2)).sum();
        let limit = if count <= 1_000 { 5.0 } else { 8.0 };
        let value = 100.0 * (squares / rounds as f64).sqrt();
        Row { name: format!("distinct, {count} members in a sliding window: RMSE"), value, unit: "%", bar: Some(limit) }
    };
    counts.map(row).collect()
}

/// Relative error after a window and a half, every member once, so many of them in the window.
fn error(count: u64, round: u64) -> f64 {
    let layout = Layout::new(plan(Duration::from_secs(WINDOW as u64)));
    let mut rng = ChaCha8Rng::seed_from_u64(count * 1_000 + round);
    let mut state = EntityState::default();
    let mut read = f64::NAN;
    let place = ALL.iter().position(|(aggregation, _)| *aggregation == Aggregation::Distinct).unwrap_or_default();
    let mut reads = Vec::new();
    for step in 0..count + count / 2 {
        let time = 1_767_225_600_000_000 + (step as i64 * WINDOW * 1_000_000) / count as i64;
        let member = rng.random();
        let event = Happened { time, amount: 1.0, member, kind: 1, before: 1, some: false, labelled: false, place: (0.0, 0.0) }.event();
        if step + 1 < count + count / 2 {
            state.apply(&layout, &event);
        } else {
            reads.clear();
            state.observe(&layout, &event, &mut reads);
            read = reads.get(place).copied().unwrap_or(f64::NAN);
        }
    }
    read / count as f64 - 1.0
}
