//! Fuzzing: every parser of foreign bytes as a [`Target`] that must neither panic nor take long, whatever it is given.
//!
//! Bytes enter; nothing leaves but a panic, which is the finding. The same targets run for a while in `make fuzz` and for a moment,
//! with a fixed seed, in `make test`.

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use mutate::mutated;
pub use targets::all;

/// Longest time that one input may take: beyond it, a few such inputs a second would hold up a server.
const SLOW: Duration = Duration::from_secs(1);
/// Inputs that are kept as ground for further mutation.
const CORPUS: usize = 512;

/// What a target does with one input.
pub type Run = Box<dyn Fn(&[u8])>;

/// One parser under test.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Inputs that are right, or nearly: mutation starts from them.
    pub seeds: Vec<Vec<u8>>,
    /// Gives an input to the parser. Panics when an invariant does not hold.
    pub run: Run,
}

/// An input that a target could not bear.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The target.
    pub target: &'static str,
    /// What it was given.
    pub input: Vec<u8>,
    /// What happened.
    pub what: String,
}

impl Target {
    /// Gives one input to the target. `Some` is a finding.
    #[expect(clippy::disallowed_methods, reason = "a fuzzer measures its own time")]
    pub fn check(&self, input: &[u8]) -> Option<Finding> {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(input)));
        let took = began.elapsed();
        let what = match outcome {
            Err(panic) => Some(words(&*panic)),
            Ok(()) if took > SLOW => Some(format!("took {:.1} s for {} bytes", took.as_secs_f64(), input.len())),
            Ok(()) => None,
        };
        what.map(|what| Finding { target: self.name, input: input.to_vec(), what })
    }

    /// Mutates the seeds for that long. Ends at the first finding; else says how many inputs there were.
    ///
    /// # Errors
    /// The first finding.
    #[expect(clippy::disallowed_methods, reason = "a fuzzer measures its own time")]
    pub fn fuzz(&self, seed: u64, time: Duration) -> Result<u64, Box<Finding>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut corpus = self.seeds.clone();
        let began = Instant::now();
        let mut inputs = 0;
        for input in &self.seeds {
            inputs += 1;
            self.check(input).map_or(Ok(()), |finding| Err(Box::new(finding)))?;
        }
        while began.elapsed() < time {
            let input = mutated(&corpus, &mut rng);
            inputs += 1;
            self.check(&input).map_or(Ok(()), |finding| Err(Box::new(finding)))?;
            // Some mutants become ground for others, so that damage adds up.
            if inputs % 16 == 0 && input.len() < 1 << 16 {
                match corpus.len() {
                    CORPUS => corpus.truncate(self.seeds.len()),
                    _ => corpus.push(input),
                }
            }
        }
        Ok(inputs)
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".to_owned())
}
