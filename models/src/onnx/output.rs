//! From what a model gives to one number a row: probability, label with probability, ZipMap, decision score, reconstruction error.

use ort::session::Session;
use ort::value::{DynMapValueType, DynSequenceValueType, DynValue, TensorElementType, ValueType};

use crate::repository::{Form, Output};

/// How the output's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Float,
    Double,
    /// A sequence of maps from class to probability, as skl2onnx and onnxmltools end a classifier.
    Maps,
}

/// The output that is the score, and how.
#[derive(Clone, Debug)]
pub struct Reading {
    name: String,
    shape: Shape,
    column: Option<usize>,
    form: Form,
    negate: bool,
}

impl Reading {
    /// The named output, or the last that can be a score.
    ///
    /// # Errors
    /// What the model has instead, and what is allowed.
    pub fn choose(session: &Session, output: &Output) -> Result<Self, String> {
        let wanted = |own: &str| output.name.as_deref().is_none_or(|name| name == own);
        let found = session.outputs().iter().rev().filter(|given| wanted(given.name()));
        let found = found.filter_map(|given| Some((given.name(), shape(given.dtype())?))).next();
        let Some((name, shape)) = found else {
            let given: Vec<String> = session.outputs().iter().map(|output| format!("`{}` ({})", output.name(), output.dtype())).collect();
            let wanted =
                output.name.as_deref().map_or("a float or double output".to_string(), |name| format!("a float or double output `{name}`"));
            return Err(format!("the model does not have {wanted}; its outputs are {}", given.join(", ")));
        };
        let Output { column, form, negate, .. } = *output;
        Ok(Self { name: name.to_string(), shape, column, form, negate })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One number for each row; `inputs` is what went in, in rows of `width`.
    ///
    /// # Errors
    /// When the values do not fit the rows.
    pub fn read(&self, value: &DynValue, inputs: (&[f32], usize), mut each: impl FnMut(f64)) -> Result<(), String> {
        let said = |error: ort::Error| error.to_string();
        let mut sign = |score: f64| each(if self.negate { -score } else { score });
        match self.shape {
            Shape::Float => {
                let (_, values) = value.try_extract_tensor::<f32>().map_err(said)?;
                self.rows(values, |value| f64::from(*value), inputs, &mut sign)
            }
            Shape::Double => {
                let (_, values) = value.try_extract_tensor::<f64>().map_err(said)?;
                self.rows(values, |value| *value, inputs, &mut sign)
            }
            Shape::Maps => {
                let maps = value.view().downcast::<DynSequenceValueType>().map_err(said)?;
                let maps = maps.try_extract_sequence::<DynMapValueType>().map_err(said)?;
                for map in maps {
                    let mut pairs = map.try_extract_key_values::<i64, f32>().map_err(said)?;
                    pairs.sort_by_key(|(class, _)| *class);
                    let at = self.column.unwrap_or(pairs.len().saturating_sub(1));
                    let (_, probability) = pairs.get(at).ok_or_else(|| format!("a row has {} classes, not class {at}", pairs.len()))?;
                    sign(f64::from(*probability));
                }
                Ok(())
            }
        }
    }

    fn rows<T>(
        &self,
        values: &[T],
        number: impl Fn(&T) -> f64,
        (inputs, width): (&[f32], usize),
        each: &mut impl FnMut(f64),
    ) -> Result<(), String> {
        let rows = inputs.len() / width.max(1);
        if values.is_empty() || rows == 0 || !values.len().is_multiple_of(rows) {
            return Err(format!("{} numbers came out for {rows} rows", values.len()));
        }
        let columns = values.len() / rows;
        if self.form == Form::Reconstruction {
            if columns != width {
                return Err(format!("the output has {columns} columns, a reconstruction of {width} inputs has {width}"));
            }
            for (row, rebuilt) in inputs.chunks(width).zip(values.chunks(columns)) {
                let squares = row.iter().zip(rebuilt).map(|(own, rebuilt)| (f64::from(*own) - number(rebuilt)).powi(2));
                each(squares.sum::<f64>() / width as f64);
            }
            return Ok(());
        }
        let column = self.column.unwrap_or(columns - 1);
        for row in values.chunks(columns) {
            each(number(row.get(column).ok_or_else(|| format!("the output has {columns} columns, not column {column}"))?));
        }
        Ok(())
    }
}

fn shape(kind: &ValueType) -> Option<Shape> {
    match kind {
        ValueType::Tensor { ty: TensorElementType::Float32, .. } => Some(Shape::Float),
        ValueType::Tensor { ty: TensorElementType::Float64, .. } => Some(Shape::Double),
        ValueType::Sequence(of) => {
            matches!(**of, ValueType::Map { key: TensorElementType::Int64, value: TensorElementType::Float32 }).then_some(Shape::Maps)
        }
        _ => None,
    }
}
