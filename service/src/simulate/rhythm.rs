//! When people shop: hours of the day, and flash sales. Enters a time, leaves the time of somebody's next session.

use super::actor::micros;
use super::dice::{Dice, mix};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// How much busier the half hour of a sale is.
const SALE_RUSH: f64 = 6.0;

/// Share of the busiest hour's traffic in each hour of the day (UTC).
const HOURS: [f64; 24] = [
    0.12, 0.08, 0.06, 0.05, 0.06, 0.12, 0.25, 0.42, 0.55, 0.62, 0.66, 0.72, 0.76, 0.70, 0.66, 0.68, 0.74, 0.82, 0.92, 1.00, 0.98, 0.80,
    0.50, 0.25,
];

/// The rhythm of one world.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Seed of the world: the sales depend on it.
    pub seed: u64,
}

impl Rhythm {
    /// How busy it is at `time`, as a share of the busiest ordinary hour.
    pub fn level(&self, time: i64) -> f64 {
        let hour = time.rem_euclid(DAY_US) / HOUR_US;
        let ordinary = HOURS.get(hour as usize).copied().unwrap_or(1.0);
        if self.sale(time) { ordinary * SALE_RUSH } else { ordinary }
    }

    /// Whether a sale is on: on some evenings, half an hour.
    pub fn sale(&self, time: i64) -> bool {
        let (day, within) = (time.div_euclid(DAY_US), time.rem_euclid(DAY_US));
        mix(self.seed, day as u64).is_multiple_of(6) && (18 * HOUR_US..18 * HOUR_US + HOUR_US / 2).contains(&within)
    }

    /// The time of the next session of somebody who comes `a_day` times a day on average (thinning of a Poisson process).
    pub fn next(&self, dice: &mut Dice, after: i64, a_day: f64) -> i64 {
        let mean: f64 = HOURS.iter().sum::<f64>() / 24.0;
        let step = 86_400.0 / (a_day.max(1e-4) / mean * SALE_RUSH);
        let mut time = after;
        loop {
            time += micros(dice.exponential(step)).max(1);
            if dice.chance(self.level(time) / SALE_RUSH) {
                return time;
            }
        }
    }
}
