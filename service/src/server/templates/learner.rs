//! Learns endpoint templates: paths that were answered well enter, templates that stand for many of them leave.
//!
//! Pure and bounded: no clock, no I/O, no names of objects kept, only their hashes. Where one position below an equal beginning takes
//! more and more values, they are objects and not resources. Who wants to teach it lies must have them answered, from many addresses.

use std::collections::{BTreeMap, HashMap, HashSet};

use telltale_features::hash::member;
use telltale_features::schema::Template;

/// Beginnings of paths that are watched at once; beyond, those go that were not met for longest.
const POSITIONS: usize = 2_048;
/// Templates that gather evidence at once.
const CANDIDATES: usize = 512;
/// Values of one position that are kept, and times that any came from another address before it is judged, in thresholds: with fewer the
/// estimate of how many there are is off by too much.
const KEPT: usize = 4;
/// A value that takes more than this share of what came to its position is a resource of its own.
const DOMINATES: f64 = 0.2;
/// What stands for any value.
const VARIABLE: &str = "{id}";

/// When a position is variable.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Different values that must have been seen, and paths before a template is proposed.
    pub distinct: usize,
    /// Share of them that one client address may give.
    pub client_share: f64,
}

/// A path that was answered well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// Service.
    pub service: String,
    /// Method.
    pub method: String,
    /// Its route by the shape of its segments alone: what is not yet variable.
    pub route: String,
    /// Who asked, as a hash.
    pub address: u64,
}

/// A template that stands for many paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What is proposed.
    pub template: Template,
    /// Different paths that have it and are kept: of one address only its share counts.
    pub paths: usize,
    /// Addresses that were the first to ask for one of those.
    pub addresses: usize,
}

/// What was learned so far.
pub struct Learner {
    options: Options,
    positions: HashMap<u64, Position>,
    candidates: HashMap<u64, Candidate>,
    lessons: u64,
}

/// Different things, none of which one address alone has given too many of.
#[derive(Debug, Default)]
struct Evidence {
    values: HashMap<u64, Value>,
    /// How many of them each address was the first to give.
    given: BTreeMap<u64, usize>,
    /// Sum of the values' counts.
    total: u64,
    /// Values with a count of one.
    once: u64,
    /// Greatest count.
    most: u64,
}

#[derive(Debug)]
struct Value {
    /// Times that it came from another address than the time before.
    count: u64,
    last: u64,
    first: u64,
}

#[derive(Debug, Default)]
struct Position {
    evidence: Evidence,
    variable: bool,
    met: u64,
}

#[derive(Debug, Default)]
struct Candidate {
    evidence: Evidence,
    proposed: bool,
    met: u64,
}

impl Options {
    /// How many things one address may give.
    fn quota(&self) -> usize {
        ((self.distinct as f64 * self.client_share) as usize).max(1)
    }
}

impl Evidence {
    /// Notes a thing; false when the address has given enough.
    fn add(&mut self, value: u64, address: u64, options: &Options) -> bool {
        if let Some(known) = self.values.get_mut(&value) {
            // A client that asks again and again says no more than one that asks once.
            if known.last != address {
                self.once -= u64::from(known.count == 1);
                known.count += 1;
                self.total += 1;
                self.most = self.most.max(known.count);
            }
            known.last = address;
            return true;
        }
        let given = self.given.entry(address).or_default();
        if *given >= options.quota() {
            return false;
        }
        *given += 1;
        self.values.insert(value, Value { count: 1, last: address, first: address });
        self.total += 1;
        self.once += 1;
        self.most = self.most.max(1);
        if self.values.len() > options.distinct.saturating_mul(KEPT) {
            self.drop_rarest(value);
        }
        true
    }

    fn drop_rarest(&mut self, but: u64) {
        let rarest = self.values.iter().filter(|(value, _)| **value != but).min_by_key(|(value, known)| (known.count, **value));
        let Some((value, first, count)) = rarest.map(|(value, known)| (*value, known.first, known.count)) else { return };
        self.values.remove(&value);
        // The greatest count stays: one of the others has it, of which there are many.
        self.total -= count;
        self.once -= u64::from(count == 1);
        if let Some(given) = self.given.get_mut(&first) {
            *given -= 1;
            if *given == 0 {
                self.given.remove(&first);
            }
        }
    }

    /// Whether the values are open-ended: enough was seen, more values than the threshold, none of them dominant, and by the share of
    /// those met once (the coverage of a sample: Good, "The population frequencies of species", Biometrika 40, 1953) at least twice the
    /// threshold exist.
    fn is_open(&self, options: &Options) -> bool {
        let distinct = self.values.len();
        if distinct <= options.distinct {
            return false;
        }
        let (total, once) = (self.total as f64, self.once as f64);
        if total < options.distinct.saturating_mul(KEPT) as f64 {
            return false;
        }
        let covered = 1.0 - once / total;
        let dominant = self.most as f64 > DOMINATES * total;
        !dominant && distinct as f64 >= covered * (2 * options.distinct) as f64
    }
}

impl Learner {
    /// One that has learned nothing.
    pub fn new(options: Options) -> Self {
        Self { options, positions: HashMap::new(), candidates: HashMap::new(), lessons: 0 }
    }

    /// A proposal that was not taken is made again by a later lesson.
    pub fn propose_again(&mut self, template: &Template) {
        if let Some(candidate) = self.candidates.get_mut(&member(&template.id())) {
            candidate.proposed = false;
        }
    }

    /// Takes a lesson; a template that has become clear by it is proposed, once.
    pub fn learn(&mut self, lesson: &Lesson) -> Option<Proposal> {
        self.lessons += 1;
        let route = self.generalized(lesson)?;
        if route == lesson.route {
            return None;
        }
        let template = Template::new(&lesson.service, &lesson.method, &route).ok()?;
        let candidate = self.candidates.entry(member(&template.id())).or_default();
        candidate.met = self.lessons;
        candidate.evidence.add(member(&lesson.route), lesson.address, &self.options);
        let (paths, addresses) = (candidate.evidence.values.len(), candidate.evidence.given.len());
        let proposed = paths > self.options.distinct && !std::mem::replace(&mut candidate.proposed, true);
        make_room(&mut self.candidates, CANDIDATES, |candidate| candidate.met);
        proposed.then_some(Proposal { template, paths, addresses })
    }

    /// The route with what was learned to be variable; `None` when its address has given enough values at one of its positions.
    fn generalized(&mut self, lesson: &Lesson) -> Option<String> {
        let segments: Vec<&str> = lesson.route.split('/').skip(1).collect();
        let mut route = String::with_capacity(lesson.route.len());
        let beginning = format!("{}\0{}\0{}\0", lesson.service, lesson.method, segments.len());
        for segment in segments {
            let segment = if segment == VARIABLE {
                segment
            } else {
                let position = self.positions.entry(member(&format!("{beginning}{route}"))).or_default();
                position.met = self.lessons;
                if !position.variable {
                    if !position.evidence.add(member(segment), lesson.address, &self.options) {
                        return None;
                    }
                    position.variable = position.evidence.is_open(&self.options);
                    if position.variable {
                        position.evidence = Evidence::default();
                    }
                }
                if position.variable { VARIABLE } else { segment }
            };
            route.push('/');
            route.push_str(segment);
        }
        make_room(&mut self.positions, POSITIONS, |position| position.met);
        Some(route)
    }

    /// Positions and candidates that are watched.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.positions.len(), self.candidates.len())
    }
}

/// Gives up the quarter that was not met for longest when there are too many.
fn make_room<T>(all: &mut HashMap<u64, T>, most: usize, met: impl Fn(&T) -> u64) {
    if all.len() <= most {
        return;
    }
    let mut oldest: Vec<(u64, u64)> = all.iter().map(|(key, one)| (met(one), *key)).collect();
    oldest.sort_unstable();
    let gone: HashSet<u64> = oldest.into_iter().take(most / 4).map(|(_, key)| key).collect();
    all.retain(|key, _| !gone.contains(key));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_totals_are_those_of_the_values() {
        let options = Options { distinct: 10, client_share: 1.0 };
        let mut evidence = Evidence::default();
        for at in 0..3_000_u64 {
            // Few are asked for often, most once or twice, and more than are kept.
            let value = if at % 3 == 0 { at % 7 } else { at / 2 };
            evidence.add(value, at % 11, &options);
            let counts: Vec<u64> = evidence.values.values().map(|value| value.count).collect();
            let once = counts.iter().filter(|count| **count == 1).count() as u64;
            let expected = (counts.iter().sum::<u64>(), once, counts.iter().copied().max().unwrap_or_default());
            assert_eq!((evidence.total, evidence.once, evidence.most), expected, "after {at}");
        }
    }
}
