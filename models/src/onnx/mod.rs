//! ONNX models through ONNX Runtime: a float32 row enters, the model's number leaves. The only module that imports `ort`.
//!
//! One session a lane, one thread a session, no spinning: workers never share a session (193k/s against 70k/s behind a mutex). A row that
//! an action depends on is scored alone, so that live and replay run the same shape; batches serve reasons.

mod runtime;
#[cfg(test)]
mod tests;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorElementType, TensorRef, ValueType};
use parking_lot::Mutex;

use crate::repository::Output;
use crate::score::Lane;
use crate::{ModelError, RuntimeOptions};

/// A loaded ONNX model.
pub struct Onnx {
    // Held by one worker at a time by construction; the lock is there because `run` needs the session alone.
    lanes: Vec<Mutex<Session>>,
    width: usize,
    output: String,
    column: Option<usize>,
    /// Whether the model takes several rows at once.
    batches: bool,
}

impl Onnx {
    /// Loads a model with one session a lane and checks its shape against the manifest.
    ///
    /// # Errors
    /// [`ModelError::Runtime`] without ONNX Runtime, [`ModelError::Data`] when the model is broken or has another shape.
    pub fn load(bytes: &[u8], width: usize, output: &Output, options: &RuntimeOptions) -> Result<Self, ModelError> {
        let environment = runtime::environment(&options.library)?;
        let session = || -> Result<Session, ModelError> {
            let mut builder = configured(Session::builder(&environment).map_err(|error| ModelError::Runtime(error.to_string()))?)?;
            builder.commit_from_memory(bytes).map_err(|error| ModelError::Data(format!("ONNX Runtime refuses the model: {error}")))
        };
        let lanes = (0..options.lanes.max(1)).map(|_| session().map(Mutex::new)).collect::<Result<Vec<_>, _>>()?;
        let first = lanes.first().map(Mutex::lock).ok_or_else(|| ModelError::Data("no lane".to_string()))?;
        let batches = check_input(&first, width).map_err(ModelError::Data)?;
        let output_name = choose_output(&first, output.name.as_deref()).map_err(ModelError::Data)?;
        drop(first);
        Ok(Self { lanes, width, output: output_name, column: output.column, batches })
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

    /// The scores of one row with each of these inputs replaced in turn, in one run where the model allows it.
    ///
    /// # Errors
    /// What ONNX Runtime said.
    pub fn occlude(&self, row: &[f32], replacements: &[(usize, f32)], lane: Lane) -> Result<Vec<f64>, String> {
        let mut scores = Vec::with_capacity(replacements.len());
        let mut matrix = Vec::with_capacity(replacements.len() * row.len());
        for (input, value) in replacements {
            matrix.extend(row.iter().enumerate().map(|(at, own)| if at == *input { *value } else { *own }));
        }
        if self.batches && !replacements.is_empty() {
            self.run(&matrix, replacements.len(), lane, |score| scores.push(score))?;
        } else {
            matrix.chunks(self.width.max(1)).try_for_each(|row| self.run(row, 1, lane, |score| scores.push(score)))?;
        }
        Ok(scores)
    }

    fn run(&self, matrix: &[f32], rows: usize, lane: Lane, mut each: impl FnMut(f64)) -> Result<(), String> {
        let session = self.lanes.get(lane.0 % self.lanes.len().max(1)).ok_or("no lane")?;
        let tensor = TensorRef::from_array_view(([rows, self.width], matrix)).map_err(|error| error.to_string())?;
        let mut session = session.lock();
        let outputs = session.run(ort::inputs![tensor]).map_err(|error| error.to_string())?;
        let output = outputs.get(&self.output).ok_or("the output is gone")?;
        let (_, values) = output.try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
        if values.is_empty() || values.len() % rows != 0 {
            return Err(format!("{} numbers came out for {rows} rows", values.len()));
        }
        let columns = values.len() / rows;
        let column = self.column.unwrap_or(columns - 1);
        for row in values.chunks(columns) {
            each(f64::from(*row.get(column).ok_or_else(|| format!("the output has {columns} columns, not column {column}"))?));
        }
        Ok(())
    }
}

fn configured(builder: SessionBuilder) -> Result<SessionBuilder, ModelError> {
    let refused = |error: ort::Error<SessionBuilder>| ModelError::Runtime(format!("ONNX Runtime refuses a session option: {error}"));
    let builder = builder.with_optimization_level(GraphOptimizationLevel::Level3).map_err(refused)?;
    let builder = builder.with_intra_threads(1).map_err(refused)?.with_inter_threads(1).map_err(refused)?;
    builder.with_intra_op_spinning(false).map_err(refused)?.with_inter_op_spinning(false).map_err(refused)
}

/// Checks the one input; whether it takes several rows.
fn check_input(session: &Session, width: usize) -> Result<bool, String> {
    let [input] = session.inputs() else {
        return Err(format!("the model has {} inputs, allowed is one float32 matrix [rows, {width}]", session.inputs().len()));
    };
    match input.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => match &shape[..] {
            [rows, columns] if (*columns == -1 || usize::try_from(*columns) == Ok(width)) && (*rows == -1 || *rows == 1) => Ok(*rows == -1),
            other => Err(format!("input `{}` has the shape {other:?}, allowed is [rows, {width}]", input.name())),
        },
        other => Err(format!("input `{}` is {other}, allowed is one float32 matrix [rows, {width}]", input.name())),
    }
}

/// The output that is the score: the named one, or the last of float32.
fn choose_output(session: &Session, name: Option<&str>) -> Result<String, String> {
    let number = |kind: &ValueType| matches!(kind, ValueType::Tensor { ty: TensorElementType::Float32, .. });
    let wanted = |own: &str| name.is_none_or(|name| name == own);
    let found = session.outputs().iter().rev().find(|output| number(output.dtype()) && wanted(output.name()));
    found.map(|output| output.name().to_string()).ok_or_else(|| {
        let given: Vec<String> = session.outputs().iter().map(|output| format!("`{}` ({})", output.name(), output.dtype())).collect();
        let wanted = name.map_or("a float32 output".to_string(), |name| format!("a float32 output `{name}`"));
        format!("the model does not have {wanted}; its outputs are {} (export it without ZipMap)", given.join(", "))
    })
}
