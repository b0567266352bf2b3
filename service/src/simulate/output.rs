//! Writes a stream as lines: records to one file, the truth to another, with progress on a terminal.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};
use telltale_proto::v1::{Record, record::Kind};

use super::stream::{Item, Stream, Truth};
use super::wall::Stopwatch;
use crate::error::CommandError;

/// How much came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Transactions.
    pub transactions: u64,
    /// All records.
    pub records: u64,
}

/// Writes the whole stream to `out` (`-` is standard output) and the truth, if wanted, to `truth`.
pub fn write(mut stream: Stream, out: &Path, truth: Option<&Path>, span: (i64, i64)) -> Result<(), CommandError> {
    let progress = bar(span);
    let began = Stopwatch::start();
    let written = write_stream(&mut stream, out, truth, &|time| {
        progress.set_position(u64::try_from((time - span.0) / 1_000_000).unwrap_or_default())
    })?;
    progress.finish_and_clear();
    let rate = written.transactions as f64 / began.seconds().max(1e-9);
    eprintln!("wrote {} transactions, {} records in all, at {rate:.0} transactions a second", written.transactions, written.records);
    Ok(())
}

/// As [`write()`], telling `progress` the simulated time now and then; the stream stays the caller's.
pub fn write_stream(stream: &mut Stream, out: &Path, truth: Option<&Path>, progress: &dyn Fn(i64)) -> Result<Written, CommandError> {
    let mut truths = truth.map(open).transpose()?;
    let mut count = 0_u64;
    let mut failed = None;
    let written = write_records(stream, out, &mut |truth| {
        if count.is_multiple_of(4_096) {
            progress(truth.time);
        }
        count += 1;
        if let Some(truths) = truths.as_mut().filter(|_| failed.is_none()) {
            failed = line(truths, truth).err();
        }
    })?;
    let finished = truths.map_or(Ok(()), Sink::finish);
    match failed.map_or(finished, Err) {
        Ok(()) => Ok(written),
        Err(error) => Err(CommandError::failed(format!("cannot write the truth: {error}"))),
    }
}

/// Writes the records to `out` and hands the truth about each transaction to `learn`.
pub fn write_records(stream: &mut Stream, out: &Path, learn: &mut dyn FnMut(&Truth)) -> Result<Written, CommandError> {
    let mut records = open(out)?;
    let mut written = Written::default();
    let failed = |error: io::Error| CommandError::failed(format!("cannot write to `{}`: {error}", out.display()));
    for item in stream {
        match item {
            Item::Truth(truth) => learn(&truth),
            Item::Record(record) => {
                written.records += 1;
                written.transactions += u64::from(matches!(record.as_ref(), Record { kind: Some(Kind::Transaction(_)) }));
                line(&mut records, record.as_ref()).map_err(failed)?;
            }
        }
    }
    records.finish().map_err(failed)?;
    Ok(written)
}

fn line<T: serde::Serialize>(sink: &mut Sink, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *sink, value)?;
    sink.write_all(b"\n")
}

/// A file that may be compressed.
enum Sink {
    Plain(BufWriter<Box<dyn Write>>),
    Packed(BufWriter<GzEncoder<File>>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Packed(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Packed(file) => file.flush(),
        }
    }
}

impl Sink {
    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Packed(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?.finish().map(|_| ()),
        }
    }
}

fn open(path: &Path) -> Result<Sink, CommandError> {
    if path == Path::new("-") {
        return Ok(Sink::Plain(BufWriter::with_capacity(1 << 18, Box::new(io::stdout()))));
    }
    let file = File::create(path).map_err(|error| CommandError::failed(format!("cannot create `{}`: {error}", path.display())))?;
    Ok(match path.extension() {
        Some(extension) if extension == "gz" => Sink::Packed(BufWriter::with_capacity(1 << 18, GzEncoder::new(file, Compression::fast()))),
        _ => Sink::Plain(BufWriter::with_capacity(1 << 18, Box::new(file))),
    })
}

fn bar((start, end): (i64, i64)) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from((end - start) / 1_000_000).unwrap_or_default());
    if let Ok(style) = ProgressStyle::with_template("simulating {wide_bar} {percent}% {elapsed}, {eta} left") {
        bar.set_style(style);
    }
    bar
}
