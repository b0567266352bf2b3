//! Flat Parquet files: golden rows and feature files enter column by column and leave the same way. No nested columns.
//!
//! Null and NaN are one thing here: a value without evidence.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, Repetition, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::ModelError;

/// Most rows that are read from one file: a bound on memory, far above what training needs.
const MAX_ROWS: i64 = 50_000_000;

/// A Parquet file that is read column by column.
pub struct Table {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    columns: BTreeMap<String, usize>,
    rows: usize,
}

impl Table {
    /// Opens a file and reads its description.
    ///
    /// # Errors
    /// [`ModelError::Io`] when it cannot be opened, [`ModelError::Invalid`] when it is no flat Parquet file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref().to_path_buf();
        let file = File::open(&path).map_err(ModelError::io("open", &path))?;
        let reader = SerializedFileReader::new(file).map_err(|error| ModelError::invalid(&path, format!("no Parquet file: {error}")))?;
        let meta = reader.metadata().file_metadata();
        if !(0..=MAX_ROWS).contains(&meta.num_rows()) {
            return Err(ModelError::invalid(&path, format!("{} rows, allowed are 0 to {MAX_ROWS}", meta.num_rows())));
        }
        let rows = usize::try_from(meta.num_rows()).unwrap_or(0);
        let mut columns = BTreeMap::new();
        for (index, column) in meta.schema_descr().columns().iter().enumerate() {
            if column.max_rep_level() > 0 || column.max_def_level() > 1 {
                return Err(ModelError::invalid(&path, format!("column `{}` is nested; only flat columns are allowed", column.name())));
            }
            columns.insert(column.name().to_string(), index);
        }
        Ok(Self { path, reader, columns, rows })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Names of the columns in order of name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// The value of a metadata key of the file.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let pairs = self.reader.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    /// A column of numbers; null is NaN.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] when the column is absent, broken or no number.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>, ModelError> {
        let mut out = Vec::with_capacity(self.rows);
        self.each_chunk(name, |chunk, rows| match chunk {
            ColumnReader::DoubleColumnReader(_) => fill::<DoubleType, _>(chunk, rows, &mut out, f64::NAN, |value| *value),
            ColumnReader::FloatColumnReader(_) => fill::<FloatType, _>(chunk, rows, &mut out, f64::NAN, |value| f64::from(*value)),
            ColumnReader::Int32ColumnReader(_) => fill::<Int32Type, _>(chunk, rows, &mut out, f64::NAN, |value| f64::from(*value)),
            _ => Err("is no column of numbers: allowed are double, float and int32".to_string()),
        })?;
        Ok(out)
    }

    /// A column of 64-bit integers; null is 0.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] when the column is absent, broken or no int64.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, ModelError> {
        let mut out = Vec::with_capacity(self.rows);
        self.each_chunk(name, |chunk, rows| match chunk {
            ColumnReader::Int64ColumnReader(_) => fill::<Int64Type, _>(chunk, rows, &mut out, 0, |value| *value),
            _ => Err("is no column of int64".to_string()),
        })?;
        Ok(out)
    }

    /// A column of text; null is the empty text.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] when the column is absent, broken or no UTF-8 text.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ModelError> {
        let mut out = Vec::with_capacity(self.rows);
        self.each_chunk(name, |chunk, rows| match chunk {
            ColumnReader::ByteArrayColumnReader(_) => {
                fill::<ByteArrayType, _>(chunk, rows, &mut out, String::new(), |value: &ByteArray| {
                    String::from_utf8_lossy(value.data()).into_owned()
                })
            }
            _ => Err("is no column of text".to_string()),
        })?;
        Ok(out)
    }

    fn each_chunk(&self, name: &str, mut read: impl FnMut(ColumnReader, usize) -> Result<(), String>) -> Result<(), ModelError> {
        let invalid = |problem: String| ModelError::invalid(&self.path, format!("column `{name}` {problem}"));
        let index = *self.columns.get(name).ok_or_else(|| invalid("is absent".to_string()))?;
        for group in 0..self.reader.num_row_groups() {
            let group = self.reader.get_row_group(group).map_err(|error| invalid(format!("is unreadable: {error}")))?;
            let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            let chunk = group.get_column_reader(index).map_err(|error| invalid(format!("is unreadable: {error}")))?;
            read(chunk, rows).map_err(invalid)?;
        }
        Ok(())
    }
}

fn fill<T: DataType, V: Clone>(
    chunk: ColumnReader,
    rows: usize,
    out: &mut Vec<V>,
    absent: V,
    convert: impl Fn(&T::T) -> V,
) -> Result<(), String> {
    let mut reader: ColumnReaderImpl<T> = get_typed_column_reader(chunk);
    let mut left = rows;
    while left > 0 {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let (read, ..) =
            reader.read_records(left, Some(&mut levels), None, &mut values).map_err(|error| format!("is unreadable: {error}"))?;
        if read == 0 {
            return Err(format!("ends {left} rows early"));
        }
        if levels.is_empty() {
            out.extend(values.iter().map(&convert));
        } else {
            let mut values = values.iter();
            out.extend(
                levels.iter().map(|level| if *level == 0 { absent.clone() } else { values.next().map_or(absent.clone(), &convert) }),
            );
        }
        left = left.saturating_sub(read);
    }
    Ok(())
}

/// A column to be written.
pub enum Column<'a> {
    /// Numbers; NaN becomes null.
    Numbers(&'a [f64]),
    /// 64-bit integers.
    Integers(&'a [i64]),
    /// Text.
    Texts(&'a [String]),
}

/// Writes columns of equal length as one flat Parquet file with its metadata. The bytes depend on nothing else.
///
/// # Errors
/// [`ModelError::Io`] when the file cannot be made, [`ModelError::Invalid`] when the columns do not fit together.
pub fn write(path: &Path, columns: &[(&str, Column<'_>)], metadata: &[(String, String)]) -> Result<(), ModelError> {
    let refuse = |error: parquet::errors::ParquetError| ModelError::invalid(path, error.to_string());
    let fields = columns.iter().map(|(name, column)| field(name, column)).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
    let schema = Type::group_type_builder("rows").with_fields(fields).build().map_err(refuse)?;
    let pairs = metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("telltale".to_string())
        .set_key_value_metadata(Some(pairs))
        .build();
    let file = File::create(path).map_err(ModelError::io("create", path))?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(refuse)?;
    let mut group = writer.next_row_group().map_err(refuse)?;
    for (_, column) in columns {
        let Some(mut out) = group.next_column().map_err(refuse)? else { break };
        match column {
            Column::Numbers(values) => {
                let levels: Vec<i16> = values.iter().map(|value| i16::from(!value.is_nan())).collect();
                let present: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
                out.typed::<DoubleType>().write_batch(&present, Some(&levels), None).map_err(refuse)?;
            }
            Column::Integers(values) => {
                out.typed::<Int64Type>().write_batch(values, None, None).map_err(refuse)?;
            }
            Column::Texts(values) => {
                let values: Vec<ByteArray> = values.iter().map(|value| ByteArray::from(value.as_str())).collect();
                out.typed::<ByteArrayType>().write_batch(&values, None, None).map_err(refuse)?;
            }
        }
        out.close().map_err(refuse)?;
    }
    group.close().map_err(refuse)?;
    writer.close().map_err(refuse)?;
    Ok(())
}

fn field(name: &str, column: &Column<'_>) -> Result<Arc<Type>, parquet::errors::ParquetError> {
    use parquet::basic::LogicalType;
    let (physical, repetition, logical) = match column {
        Column::Numbers(_) => (Physical::DOUBLE, Repetition::OPTIONAL, None),
        Column::Integers(_) => (Physical::INT64, Repetition::REQUIRED, None),
        Column::Texts(_) => (Physical::BYTE_ARRAY, Repetition::REQUIRED, Some(LogicalType::String)),
    };
    let built = Type::primitive_type_builder(name, physical).with_repetition(repetition).with_logical_type(logical).build()?;
    Ok(Arc::new(built))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let texts = ["a".to_string(), String::new(), "fraud".to_string()];
        let metadata = [("telltale.schema".to_string(), "0123".to_string())];
        let numbers = [1.5, f64::NAN, -2.0];
        write(&path, &[("x", Column::Numbers(&numbers)), ("t", Column::Integers(&[7, 8, 9])), ("label", Column::Texts(&texts))], &metadata)
            .unwrap();
        let table = Table::open(&path).unwrap();
        assert_eq!(table.rows(), 3);
        assert_eq!(table.names().collect::<Vec<_>>(), ["label", "t", "x"]);
        assert_eq!(table.metadata("telltale.schema"), Some("0123"));
        let x = table.numbers("x").unwrap();
        assert!(x[0] == 1.5 && x[1].is_nan() && x[2] == -2.0);
        assert_eq!(table.integers("t").unwrap(), [7, 8, 9]);
        assert_eq!(table.texts("label").unwrap(), texts);
        assert!(table.numbers("y").unwrap_err().to_string().contains("column `y` is absent"));
        assert!(table.numbers("label").unwrap_err().to_string().contains("no column of numbers"));
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        std::fs::write(&path, b"PAR1 and nothing").unwrap();
        assert!(Table::open(&path).err().unwrap().to_string().contains("no Parquet file"));
    }
}
