//! ONNX models through ONNX Runtime: a float32 row enters, the model's number leaves. The only module that imports `ort`.
//!
//! One session a lane, one thread a session, no spinning: workers never share a session (193k/s against 70k/s behind a mutex). A row that
//! an action depends on is scored alone, so that live and replay run the same shape; batches serve reasons.

mod output;
mod runtime;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue, SessionOutputs};
use ort::value::{Tensor, TensorElementType, TensorRef, ValueType};
use parking_lot::Mutex;

use crate::repository::Output;
use crate::score::Lane;
use crate::{ModelError, RuntimeOptions};
use output::Reading;

/// Loads the ONNX Runtime library, so that a later load needs no file.
///
/// # Errors
/// [`ModelError::Runtime`] that says how to install it.
pub fn prepare(library: &Path) -> Result<(), ModelError> {
    runtime::environment(library).map(|_| ())
}

/// How the numbers of a row go in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// One float32 matrix: the usual way, without a copy.
    Matrix,
    /// One float64 matrix.
    DoubleMatrix,
    /// One input a feature, by name; true: float64.
    Columns(Vec<(String, bool)>),
}

/// A loaded ONNX model.
pub struct Onnx {
    // Held by one worker at a time by construction; the lock is there because `run` needs the session alone.
    lanes: Vec<Mutex<Session>>,
    width: usize,
    layout: Layout,
    reading: Reading,
    /// Whether the model takes several rows at once.
    batches: bool,
}

impl Onnx {
    /// Loads a model with one session a lane and checks its shape against the manifest.
    ///
    /// # Errors
    /// [`ModelError::Runtime`] without ONNX Runtime, [`ModelError::Data`] when the model is broken or has another shape.
    pub fn load(bytes: &[u8], inputs: &[String], output: &Output, options: &RuntimeOptions) -> Result<Self, ModelError> {
        Self::with_lanes(bytes, inputs, output, (&options.library, options.lanes))
    }

    /// The same with a single session: what a worker has.
    ///
    /// # Errors
    /// As [`Onnx::load`].
    pub fn of_one_lane(bytes: &[u8], inputs: &[String], output: &Output, library: &Path) -> Result<Self, ModelError> {
        Self::with_lanes(bytes, inputs, output, (library, 1))
    }

    fn with_lanes(bytes: &[u8], inputs: &[String], output: &Output, (library, lanes): (&Path, usize)) -> Result<Self, ModelError> {
        let environment = runtime::environment(library)?;
        let session = || -> Result<Session, ModelError> {
            let mut builder = configured(Session::builder(&environment).map_err(|error| ModelError::Runtime(error.to_string()))?)?;
            builder.commit_from_memory(bytes).map_err(|error| ModelError::Data(format!("ONNX Runtime refuses the model: {error}")))
        };
        let lanes = (0..lanes.max(1)).map(|_| session().map(Mutex::new)).collect::<Result<Vec<_>, _>>()?;
        let first = lanes.first().map(Mutex::lock).ok_or_else(|| ModelError::Data("no lane".to_string()))?;
        let (layout, batches) = layout(&first, inputs).map_err(ModelError::Data)?;
        let reading = Reading::choose(&first, output).map_err(ModelError::Data)?;
        drop(first);
        Ok(Self { lanes, width: inputs.len(), layout, reading, batches })
    }

    /// The score of one row.
    ///
    /// # Errors
    /// What ONNX Runtime said.
    pub fn score(&self, row: &[f32], lane: Lane) -> Result<f64, String> {
        let mut raw = f64::NAN;
        self.run(row, 1, lane, |score| raw = score)?;
        Ok(raw)
    }

    /// The scores of some rows, in one run where the model allows it.
    ///
    /// # Errors
    /// What ONNX Runtime said.
    pub fn scores(&self, matrix: &[f32], rows: usize, lane: Lane) -> Result<Vec<f64>, String> {
        let mut scores = Vec::with_capacity(rows);
        if matrix.len() != rows * self.width {
            return Err(format!("{} numbers are no {rows} rows of {}", matrix.len(), self.width));
        }
        if self.batches && rows > 1 {
            self.run(matrix, rows, lane, |score| scores.push(score))?;
        } else {
            matrix.chunks(self.width.max(1)).try_for_each(|row| self.run(row, 1, lane, |score| scores.push(score)))?;
        }
        Ok(scores)
    }

    fn run(&self, matrix: &[f32], rows: usize, lane: Lane, each: impl FnMut(f64)) -> Result<(), String> {
        let session = self.lanes.get(lane.0 % self.lanes.len().max(1)).ok_or("no lane")?;
        let mut session = session.lock();
        let said = |error: ort::Error| error.to_string();
        let outputs = match &self.layout {
            Layout::Matrix => {
                let tensor = TensorRef::from_array_view(([rows, self.width], matrix)).map_err(said)?;
                session.run(ort::inputs![tensor]).map_err(said)?
            }
            Layout::DoubleMatrix => {
                let doubles: Vec<f64> = matrix.iter().map(|value| f64::from(*value)).collect();
                let tensor = Tensor::from_array(([rows, self.width], doubles)).map_err(said)?;
                session.run(ort::inputs![tensor]).map_err(said)?
            }
            Layout::Columns(columns) => run_columns(&mut session, columns, (matrix, rows)).map_err(said)?,
        };
        let output = outputs.get(self.reading.name()).ok_or("the output is gone")?;
        self.reading.read(output, (matrix, self.width), each)
    }
}

/// One input a feature: each gets its column of the rows.
fn run_columns<'s>(
    session: &'s mut Session,
    columns: &[(String, bool)],
    (matrix, rows): (&[f32], usize),
) -> ort::Result<SessionOutputs<'s>> {
    let width = columns.len().max(1);
    let mut inputs: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(width);
    for (at, (name, double)) in columns.iter().enumerate() {
        let values = matrix.iter().skip(at).step_by(width).copied();
        let value = if *double {
            Tensor::from_array(([rows, 1], values.map(f64::from).collect::<Vec<_>>()))?.into_dyn()
        } else {
            Tensor::from_array(([rows, 1], values.collect::<Vec<_>>()))?.into_dyn()
        };
        inputs.push((name.clone(), value.into()));
    }
    session.run(inputs)
}

fn configured(builder: SessionBuilder) -> Result<SessionBuilder, ModelError> {
    let refused = |error: ort::Error<SessionBuilder>| ModelError::Runtime(format!("ONNX Runtime refuses a session option: {error}"));
    let builder = builder.with_optimization_level(GraphOptimizationLevel::Level3).map_err(refused)?;
    let builder = builder.with_intra_threads(1).map_err(refused)?.with_inter_threads(1).map_err(refused)?;
    builder.with_intra_op_spinning(false).map_err(refused)?.with_inter_op_spinning(false).map_err(refused)
}

/// How a row of these features goes in, and whether several rows go in at once.
fn layout(session: &Session, names: &[String]) -> Result<(Layout, bool), String> {
    let allowed = format!("allowed is one float or double matrix [rows, {}], or one input [rows, 1] a feature", names.len());
    if let [input] = session.inputs() {
        let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
            return Err(format!("input `{}` is {}, {allowed}", input.name(), input.dtype()));
        };
        let layout = match ty {
            TensorElementType::Float32 => Layout::Matrix,
            TensorElementType::Float64 => Layout::DoubleMatrix,
            other => return Err(format!("input `{}` is a tensor of {other}, {allowed}", input.name())),
        };
        return match &shape[..] {
            [rows, columns] if fits(*columns, names.len()) && fits(*rows, 1) => Ok((layout, *rows == -1)),
            other => Err(format!("input `{}` has the shape {other:?}, allowed is [rows, {}]", input.name(), names.len())),
        };
    }
    let (mut columns, mut batches) = (Vec::with_capacity(names.len()), true);
    for name in names {
        let input = session.inputs().iter().find(|input| input.name() == name || input.name() == exported(name));
        let input = input.ok_or_else(|| format!("the model has no input `{name}`; {allowed}"))?;
        let ValueType::Tensor { ty: ty @ (TensorElementType::Float32 | TensorElementType::Float64), shape, .. } = input.dtype() else {
            return Err(format!("input `{name}` is {}, {allowed}", input.dtype()));
        };
        match &shape[..] {
            [rows, columns] if fits(*columns, 1) && fits(*rows, 1) => batches &= *rows == -1,
            other => return Err(format!("input `{name}` has the shape {other:?}, allowed is [rows, 1]")),
        }
        columns.push((input.name().to_string(), *ty == TensorElementType::Float64));
    }
    match session.inputs().len() {
        all if all == columns.len() => Ok((Layout::Columns(columns), batches)),
        all => Err(format!("the model has {all} inputs, the manifest names {}; {allowed}", columns.len())),
    }
}

/// A feature's name as exporters write it: skl2onnx puts `_` for whatever is no letter, digit or `_`.
pub(crate) fn exported(feature: &str) -> String {
    feature.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

/// Whether a dimension is that, or any.
fn fits(dimension: i64, wanted: usize) -> bool {
    dimension == -1 || usize::try_from(dimension) == Ok(wanted)
}
