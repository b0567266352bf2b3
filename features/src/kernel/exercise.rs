//! A plan at work on made-up events: what an event of it takes, and how large a busy entity becomes.
//!
//! A plan enters, a busy entity's bytes leave. It reads no clock: who wants to know the time takes it around [`Exercise::step`].

use smallvec::SmallVec;

use super::plan::EntityPlan;
use super::{EntityState, Layout};
use crate::event::Event;
use crate::time::Timestamp;

/// 2026-01-01, microseconds.
const START: i64 = 1_767_225_600_000_000;
/// Seconds between two events, on average.
const GAP: u64 = 20;
/// Different members: more than an exact set holds.
const MEMBERS: u64 = 400;

/// One entity that is busy.
pub struct Exercise {
    layout: Layout,
    state: EntityState,
    events: u64,
    reads: SmallVec<[f64; 64]>,
}

impl Exercise {
    /// An entity without history under that plan.
    pub fn new(plan: EntityPlan) -> Self {
        Self { layout: Layout::new(plan), state: EntityState::default(), events: 0, reads: SmallVec::new() }
    }

    /// The next event, told apart from its being made.
    pub fn event(&mut self) -> Event {
        self.events += 1;
        let mut seed = self.events;
        let mut draw = || {
            seed = mixed(seed);
            seed
        };
        let plan = self.layout.plan();
        let second = self.events * GAP + draw() % GAP;
        // Every second filter passes; bit 0 is every event of the request phase.
        let filters = draw() | 1;
        let values = plan.values.iter().map(|_| (draw() % 80_000) as f64 / 8.0).collect();
        let members = plan.members.iter().map(|_| Some(mixed(draw() % MEMBERS))).collect();
        let time = Timestamp::from_micros(START.saturating_add((second as i64).saturating_mul(1_000_000)));
        Event { time, weight: 1, sign: 1, filters, values, members, proves: false }
    }

    /// Applies an event and reads every feature; their sum, so that nothing is left out.
    pub fn step(&mut self, event: &Event) -> f64 {
        self.reads.clear();
        self.state.observe(&self.layout, event, &mut self.reads);
        self.reads.iter().filter(|read| !read.is_nan()).sum()
    }

    /// Bytes in memory and as a blob.
    pub fn bytes(&self) -> (usize, usize) {
        (self.state.bytes(&self.layout), self.state.encode(&self.layout).len())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Schema, worst_case};

    /// What a busy entity of a shipped schema takes is within what the schema says that it may.
    #[test]
    fn busy_entities_stay_within_the_worst_case() {
        for plan in Schema::shipped().plans().iter().chain(Schema::payments().plans().iter()) {
            let mut exercise = Exercise::new(plan.clone());
            for _ in 0..4_000 {
                let event = exercise.event();
                exercise.step(&event);
            }
            let (memory, blob) = exercise.bytes();
            println!("{}: {memory} bytes in memory, {blob} as a blob, {} at most", plan.name, worst_case(plan));
            assert!(blob > 500 && blob <= worst_case(plan), "{}: {blob}", plan.name);
        }
    }
}
