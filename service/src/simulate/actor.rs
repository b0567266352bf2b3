//! What every inhabitant of the world is to the engine: something that wakes, sends one request, and hears the answer.

use std::net::IpAddr;
use std::sync::Arc;

use super::attack::Origin;
use super::http::{Request, Response};

/// One request on its way.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The request.
    pub request: Request,
    /// From where.
    pub address: IpAddr,
    /// Number of the actor's session.
    pub session: u32,
}

/// Who somebody is, for the truth file and the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nature {
    /// A person who shops or works here.
    Customer,
    /// A program that is welcome: a declared crawler, a partner's integration.
    Machine,
    /// An attacker, and of which campaign.
    Attacker(Arc<Origin>),
}

/// An inhabitant of the world. Times are microseconds since the epoch.
pub trait Actor: Send {
    /// When it wants to be called next; absent: it is done for good.
    fn wakes(&self) -> Option<i64>;
    /// Called at that time. Absent: it only made up its mind, and says anew when it wakes.
    fn send(&mut self, now: i64) -> Option<Sent>;
    /// The answer to what it sent last.
    fn hear(&mut self, now: i64, response: &Response);
    /// Brings its next step forward to `at` and scales its pauses by `factor`, for a live run that cannot wait.
    fn hurry(&mut self, at: i64, factor: f64);
    /// A short name that is its own: `customer-17`.
    fn name(&self) -> String;
    /// What it is.
    fn nature(&self) -> Nature;
    /// Whether it rests between sessions.
    fn resting(&self) -> bool {
        false
    }
}

/// Seconds as microseconds.
pub fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}
