//! Replay: recorded or foreign input goes the same way as live traffic, at event time, on several cores.
//!
//! Files enter; verdicts, feature rows and a summary leave. The number of threads changes no result: what depends on order is
//! done in order, and batches are cut by what they hold, never by time.

pub mod access_log;
mod batch;
mod features_file;
mod foreign;
mod input;
mod lines;
mod own;
mod progress;
mod summary;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use telltale_features::store::History;

use crate::score::Engine;

pub use batch::Output;
pub use features_file::FeaturesFile;
pub use input::{Input, is_journal};
pub use lines::Format;
pub use progress::Progress;
pub use summary::Summary;

/// What to replay and how.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// A journal (folder or file), a file of lines, gzip or not, or `-` for standard input.
    pub input: PathBuf,
    /// What its lines are; ignored for a journal.
    pub format: Format,
    /// Refuse unknown fields and stop at the first malformed line.
    pub strict: bool,
    /// Threads.
    pub threads: usize,
    /// Where verdicts go, one canonical JSON a line.
    pub verdicts: Option<PathBuf>,
    /// Where feature rows go (Parquet).
    pub features: Option<PathBuf>,
    /// Whether progress is shown on a terminal.
    pub progress: bool,
    /// Whether verdicts of a journal are decided with what was in force then (false: with what is in force now).
    pub recorded_policy: bool,
}

/// Where a store stands already: only what comes later is applied to it.
#[derive(Debug, Default)]
pub struct Resume {
    /// Everything up to this number is in the store.
    pub sequence: u64,
    /// What transactions up to there had read that are decided later, by number.
    pub histories: HashMap<u64, History>,
    /// The journal file to begin with; what comes before it is not needed.
    pub first_file: u64,
}

/// Why a replay stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The input cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An output cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A malformed line under `--strict`.
    #[error("`{}`, line {line}: {message}", path.display())]
    Line {
        /// In which input.
        path: PathBuf,
        /// Line number, from 1; of a journal the number of the record.
        line: u64,
        /// What is wrong.
        message: String,
    },
}

impl ReplayError {
    fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    fn write<E: Into<Box<dyn std::error::Error + Send + Sync>>>(path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source: source.into() }
    }
}

/// Replays an input through the engine and writes what was asked for.
///
/// # Errors
/// When the input cannot be read, an output cannot be written, or a line is malformed under `--strict`.
pub fn replay(engine: &Arc<Engine>, options: &ReplayOptions) -> Result<Summary, ReplayError> {
    let mut outputs = Outputs::create(engine, options)?;
    let mut summary = feed(engine, options, &mut |output| outputs.take(output))?;
    outputs.finish(&mut summary)?;
    Ok(summary)
}

/// Feeds an input through the engine: every decided transaction goes to `take`, in decide order.
///
/// # Errors
/// As [`replay`].
pub fn feed(
    engine: &Arc<Engine>,
    options: &ReplayOptions,
    take: &mut dyn FnMut(Output) -> Result<(), ReplayError>,
) -> Result<Summary, ReplayError> {
    let journal = is_journal(&options.input);
    if !journal && options.input.extension().is_some_and(|extension| extension == "ttj") {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "it does not begin as a journal does");
        // A path that is absent is said to be absent.
        std::fs::metadata(&options.input).map_err(ReplayError::read(&options.input))?;
        return Err(ReplayError::read(&options.input)(source));
    }
    let mut summary =
        if journal { own::replay_journal(engine, (options, None), take)? } else { foreign::replay_lines(engine, options, take)? };
    summary.finish();
    Ok(summary)
}

/// Feeds a journal to an engine whose store stands somewhere in it already: what is in force and which sessions were opened is taken
/// from all of it, entities and decisions only from what came later.
///
/// # Errors
/// As [`replay`].
pub fn resume(
    engine: &Arc<Engine>,
    (options, resume): (&ReplayOptions, Resume),
    take: &mut dyn FnMut(Output) -> Result<(), ReplayError>,
) -> Result<Summary, ReplayError> {
    let mut summary = own::replay_journal(engine, (options, Some(resume)), take)?;
    summary.finish();
    Ok(summary)
}

/// The files that a replay writes.
struct Outputs {
    verdicts: Option<(PathBuf, std::io::BufWriter<std::fs::File>)>,
    features: Option<FeaturesFile>,
}

impl Outputs {
    fn create(engine: &Engine, options: &ReplayOptions) -> Result<Self, ReplayError> {
        let verdicts = match &options.verdicts {
            None => None,
            Some(path) => {
                let file = std::fs::File::create(path).map_err(ReplayError::write(path))?;
                Some((path.clone(), std::io::BufWriter::with_capacity(1 << 20, file)))
            }
        };
        let features = options.features.as_deref().map(|path| FeaturesFile::create(path, &engine.schema)).transpose()?;
        Ok(Self { verdicts, features })
    }

    fn take(&mut self, output: Output) -> Result<(), ReplayError> {
        if let (Some((path, file)), Some(line)) = (&mut self.verdicts, &output.line) {
            let written = std::io::Write::write_all(file, line.as_bytes());
            written.map_err(ReplayError::write(path.as_path()))?;
        }
        if let Some(features) = &mut self.features {
            features.add(&output.scored)?;
        }
        Ok(())
    }

    fn finish(self, summary: &mut Summary) -> Result<(), ReplayError> {
        if let Some((path, mut file)) = self.verdicts {
            std::io::Write::flush(&mut file).map_err(ReplayError::write(path))?;
        }
        if let Some(features) = self.features {
            features.finish(summary.labels())?;
        }
        Ok(())
    }
}
