//! The clock of the world: wakes actors in the order of time and hands them their answers. Never sends anything itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::actor::{Actor, Nature, Sent};
use super::http::Response;

/// A request whose time has come.
pub struct Due {
    /// When, microseconds since the epoch.
    pub at: i64,
    /// Whose: to be given back with the answer.
    pub actor: usize,
    /// What.
    pub sent: Sent,
}

/// Everybody, by the time of their next step. An actor whose request is unanswered is not among them.
pub struct Engine {
    actors: Vec<Box<dyn Actor>>,
    queue: BinaryHeap<Reverse<(i64, usize)>>,
}

impl Engine {
    /// An engine of these actors.
    pub fn new(actors: Vec<Box<dyn Actor>>) -> Self {
        let queue = actors.iter().enumerate().filter_map(|(index, actor)| actor.wakes().map(|at| Reverse((at, index)))).collect();
        Self { actors, queue }
    }

    /// When the next actor wakes.
    pub fn wakes(&self) -> Option<i64> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// The next request before `until`, in the order of time.
    pub fn next(&mut self, until: i64) -> Option<Due> {
        while self.wakes().is_some_and(|at| at < until) {
            let Reverse((at, index)) = self.queue.pop()?;
            let actor = self.actors.get_mut(index)?;
            match actor.send(at) {
                Some(sent) => return Some(Due { at, actor: index, sent }),
                None => self.requeue(index),
            }
        }
        None
    }

    /// Gives an actor the answer to its request.
    pub fn answer(&mut self, actor: usize, now: i64, response: &Response) {
        if let Some(listener) = self.actors.get_mut(actor) {
            listener.hear(now, response);
        }
        self.requeue(actor);
    }

    fn requeue(&mut self, index: usize) {
        if let Some(at) = self.actors.get(index).and_then(|actor| actor.wakes()) {
            self.queue.push(Reverse((at, index)));
        }
    }

    /// The name of an actor.
    pub fn name(&self, actor: usize) -> String {
        self.actors.get(actor).map(|actor| actor.name()).unwrap_or_default()
    }

    /// What an actor is.
    pub fn nature(&self, actor: usize) -> Nature {
        self.actors.get(actor).map_or(Nature::Machine, |actor| actor.nature())
    }

    /// Brings everybody nearer for a live run: `choose` says for each waiting actor when it steps next and how its pauses scale.
    pub fn gather(&mut self, mut choose: impl FnMut(&dyn Actor, i64) -> Option<(i64, f64)>) {
        let waiting = std::mem::take(&mut self.queue).into_sorted_vec();
        for Reverse((at, index)) in waiting.into_iter().rev() {
            if let Some(actor) = self.actors.get_mut(index)
                && let Some((at, factor)) = choose(actor.as_ref(), at)
            {
                actor.hurry(at, factor);
            }
            self.requeue(index);
        }
    }
}
