//! Conditions as lists of tests: what a rule asks, laid out so that asking costs no call.
//!
//! A truth value enters as a tree of `&&`, `||` and leaves; steps leave, each a test and where to go on. Nearly every leaf of a rule
//! compares a number of the row with a literal: such a step is one comparison, where a closure would call closures.
//!
//! A leaf that faults counts as "no". For a whole condition that is what CEL says: a fault only matters where no other term
//! decides, and then the condition does not hold. Negations are leaves, so no fault is turned into a "yes".

use super::code::{BoolFn, Frame};
use super::fast::{Comparison, chain, slot_to_literal};

/// Code of a truth value.
pub(super) enum Truth {
    /// A number of the row beside a literal.
    Number { operator: Comparison, place: u16, literal: f64 },
    /// Anything else.
    Code(BoolFn),
    /// All of them.
    All(Vec<Truth>),
    /// Any of them.
    Any(Vec<Truth>),
}

impl Truth {
    /// As one closure: where the value is a part of something else.
    pub fn into_code(self) -> BoolFn {
        match self {
            Self::Number { operator, place, literal } => slot_to_literal(operator, place, literal),
            Self::Code(code) => code,
            Self::All(terms) => chain(terms.into_iter().map(Self::into_code).collect(), false),
            Self::Any(terms) => chain(terms.into_iter().map(Self::into_code).collect(), true),
        }
    }
}

/// Where a condition that holds, or does not hold, goes on: beyond every step.
const YES: u16 = u16::MAX;
const NO: u16 = u16::MAX - 1;

enum Test {
    Number { operator: Comparison, place: u16, literal: f64 },
    Code(BoolFn),
}

struct Step {
    test: Test,
    yes: u16,
    no: u16,
}

/// A condition ready to be asked.
// INVARIANT: a step leads to a later one or out, so that asking ends.
pub(super) struct Condition(Box<[Step]>);

impl Condition {
    pub fn new(truth: Truth) -> Self {
        let mut steps = Vec::new();
        if leaves(&truth) < usize::from(NO) {
            lay(truth, &mut steps, (YES, NO));
        } else {
            lay(Truth::Code(truth.into_code()), &mut steps, (YES, NO));
        }
        Self(steps.into())
    }

    /// Whether it holds for that row; faults count as "no".
    pub fn holds(&self, frame: &Frame<'_>) -> bool {
        let mut at = 0;
        while let Some(step) = self.0.get(usize::from(at)) {
            let holds = match &step.test {
                Test::Number { operator, place, literal } => operator.holds(frame.row.number(*place), *literal),
                Test::Code(code) => code(frame).unwrap_or(false),
            };
            at = if holds { step.yes } else { step.no };
        }
        at == YES
    }
}

fn leaves(truth: &Truth) -> usize {
    match truth {
        Truth::Number { .. } | Truth::Code(_) => 1,
        Truth::All(terms) | Truth::Any(terms) => terms.iter().map(leaves).sum(),
    }
}

/// Appends the steps of a truth value; its outcome goes on at `yes` or `no`.
fn lay(truth: Truth, steps: &mut Vec<Step>, (yes, no): (u16, u16)) {
    let (terms, decides) = match truth {
        Truth::Number { operator, place, literal } => {
            return steps.push(Step { test: Test::Number { operator, place, literal }, yes, no });
        }
        Truth::Code(code) => return steps.push(Step { test: Test::Code(code), yes, no }),
        Truth::All(terms) => (terms, false),
        Truth::Any(terms) => (terms, true),
    };
    let last = terms.len().saturating_sub(1);
    for (at, term) in terms.into_iter().enumerate() {
        // The next term begins behind all steps of this one; fewer than `NO` steps were counted before.
        let next = (steps.len() + leaves(&term)) as u16;
        let on = match (at == last, decides) {
            (true, _) => (yes, no),
            (false, true) => (yes, next),
            (false, false) => (next, no),
        };
        lay(term, steps, on);
    }
}
