//! What scored transactions and their outcomes teach: noted on the answer's way, looked at four times a second on a thread of low
//! priority.
//!
//! A note costs a copy of the path and wakes nobody; when there are too many they are dropped and counted. Only an answer that says the
//! path exists teaches: redirections and errors are given to any path that somebody makes up. An outcome that comes more than 16,384
//! transactions after its own, or to another replica, teaches nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use telltale_features::domain::{HttpResponse, Outcome};
use telltale_features::door::Admitted;
use telltale_features::hash::member;
use telltale_features::schema::Schema;

use super::learner::{Learner, Lesson, Options, Proposal};
use super::{Learning, learned};
use crate::config::EndpointsSection;
use crate::server::Service;
use crate::server::models::yield_to_scoring;

/// How often notes are looked at.
const EVERY: Duration = Duration::from_millis(250);
/// Notes that may wait.
const WAITING: usize = 16_384;
/// Transactions that may wait for their outcome.
const UNANSWERED: usize = 16_384;
/// Longest path that is looked at, bytes.
const PATH_BYTES: usize = 512;

/// Where notes are left.
pub struct Lessons {
    learning: Learning,
    notes: Mutex<Vec<Note>>,
    pupil: Mutex<Pupil>,
    taught: AtomicU64,
    dropped: AtomicU64,
}

enum Note {
    /// A transaction was scored.
    Asked(u64, Asked),
    /// It was answered as what exists is.
    Answered(u64),
}

struct Asked {
    service: String,
    method: String,
    path: String,
    /// The route that it was given.
    route: String,
    address: u64,
}

/// Who learns, and what it still waits for.
struct Pupil {
    learner: Learner,
    asked: HashMap<u64, Asked>,
    order: VecDeque<u64>,
}

impl Lessons {
    /// As configured.
    pub fn new(section: &EndpointsSection) -> Self {
        let options = Options { distinct: section.distinct, client_share: section.client_share };
        let pupil = Pupil { learner: Learner::new(options), asked: HashMap::new(), order: VecDeque::new() };
        Self {
            learning: Learning::parse(&section.learn),
            notes: Mutex::default(),
            pupil: Mutex::new(pupil),
            taught: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// What becomes of what is learned.
    pub const fn learning(&self) -> Learning {
        self.learning
    }

    /// Notes a scored transaction.
    pub fn asked(&self, admitted: &Admitted, schema: &Schema) {
        if self.learning == Learning::Off {
            return;
        }
        let Some(http) = admitted.tx.http.as_ref().filter(|http| http.path.len() <= PATH_BYTES) else { return };
        let address = schema.entity_type("address").and_then(|kind| admitted.subjects.of(kind));
        let asked = Asked {
            service: admitted.tx.service.clone(),
            method: http.method.clone(),
            path: http.path.clone(),
            route: admitted.route.clone(),
            address: address.map_or_else(|| member(&admitted.tx.source.ip), |subject| subject.id.key.low64()),
        };
        self.note(Note::Asked(member(&admitted.tx.id), asked));
    }

    /// Notes an outcome.
    pub fn answered(&self, outcome: &Outcome) {
        if self.learning != Learning::Off && outcome.response.as_ref().is_some_and(exists) {
            self.note(Note::Answered(member(&outcome.transaction_id)));
        }
    }

    fn note(&self, note: Note) {
        let mut notes = self.notes.lock();
        if notes.len() < WAITING {
            notes.push(note);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks at the notes and proposes what became clear; what is not taken is proposed again later.
    fn study(&self, schema: &Schema, mut propose: impl FnMut(&Proposal) -> bool) {
        let notes = std::mem::take(&mut *self.notes.lock());
        let mut pupil = self.pupil.lock();
        let mut taught = 0;
        for note in notes {
            let Some(lesson) = pupil.lesson(note, schema) else { continue };
            taught += 1;
            if let Some(proposal) = pupil.learner.learn(&lesson)
                && !propose(&proposal)
            {
                pupil.learner.propose_again(&proposal.template);
            }
        }
        // Last: who sees this number sees what came of the lessons.
        self.taught.fetch_add(taught, Ordering::Release);
    }

    /// For metrics: lessons since the start, and notes that were dropped.
    pub fn figures(&self) -> [(&'static str, u64); 2] {
        [("taught", self.taught.load(Ordering::Acquire)), ("dropped", self.dropped.load(Ordering::Relaxed))]
    }
}

impl Pupil {
    fn lesson(&mut self, note: Note, schema: &Schema) -> Option<Lesson> {
        match note {
            Note::Asked(id, asked) => {
                if self.asked.insert(id, asked).is_none() {
                    self.order.push_back(id);
                }
                if self.order.len() > UNANSWERED
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.asked.remove(&oldest);
                }
                None
            }
            Note::Answered(id) => {
                let Asked { service, method, path, route, address } = self.asked.remove(&id)?;
                // What the gateway or a template named needs no name.
                let shaped = schema.routes().learnable(&method, &path).filter(|shaped| *shaped == route)?;
                Some(Lesson { service, method, route: shaped, address })
            }
        }
    }
}

/// Whether an answer says that the path exists (RFC 9110, 15.3 and 15.4.5).
const fn exists(response: &HttpResponse) -> bool {
    matches!(response.status, 200..=299 | 304)
}

/// Starts the thread that learns, if anything is to be learned. It ends soon after the service begins to drain.
///
/// # Errors
/// When the system gives no thread.
pub fn start(service: &Arc<Service>) -> std::io::Result<()> {
    if service.templates.lessons.learning == Learning::Off {
        return Ok(());
    }
    let weak = Arc::downgrade(service);
    std::thread::Builder::new().name("templates".to_owned()).spawn(move || run(&weak))?;
    Ok(())
}

fn run(service: &Weak<Service>) {
    yield_to_scoring(10);
    loop {
        std::thread::sleep(EVERY);
        let Some(service) = service.upgrade() else { return };
        if *service.draining.borrow() {
            return;
        }
        let lessons = &service.templates.lessons;
        if !lessons.notes.lock().is_empty() {
            lessons.study(&service.engine.schema, |proposal| learned(&service, proposal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lessons_count_once_their_proposals_were_dealt_with_and_what_is_not_taken_comes_again() {
        let lessons = Lessons::new(&EndpointsSection { distinct: 10, ..EndpointsSection::default() });
        let schema = Schema::shipped();
        let ask = |number: u64| {
            let path = format!("/blog/post-{}", char::from(b'a' + (number % 25) as u8).to_string().repeat((number / 25) as usize + 1));
            let asked = Asked { service: String::new(), method: "GET".to_owned(), path: path.clone(), route: path, address: number % 40 };
            lessons.note(Note::Asked(number, asked));
            lessons.note(Note::Answered(number));
        };
        let taught = || lessons.figures()[0].1;
        let mut proposed = Vec::new();
        (0..200).for_each(ask);
        lessons.study(&schema, |proposal| {
            proposed.push(proposal.template.path.clone());
            assert_eq!(taught(), 0, "not before what came of it");
            proposed.len() == 3
        });
        assert_eq!((taught(), proposed), (200, vec!["/blog/{id}".to_owned(); 3]));
    }
}
