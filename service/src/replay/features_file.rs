//! Feature rows as Parquet: what training reads.
//!
//! Columns: `transaction_id`, `time_us`, `label` (`benign`, `fraud`, `abuse` or null), `label_detail`, `entity.<type>` (hexadecimal
//! key or null), then one nullable double a feature in the schema's order; null stands for a missing value. The file's metadata
//! holds `telltale.schema` (digest) and `telltale.features` (JSON: name → definition hash, 16 hexadecimal digits). Labels come
//! later than their transactions, so rows are kept in a temporary file until the end and joined then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use telltale_features::domain::Label;
use telltale_features::schema::Schema;

use super::ReplayError;
use super::summary::label_name;
use crate::convert;
use crate::score::Scored;

/// Rows in one row group.
const GROUP: u64 = 32_768;

/// Gathers rows, then writes them.
pub struct FeaturesFile {
    path: PathBuf,
    file: File,
    spool: BufWriter<File>,
    rows: u64,
    schema: Arc<Schema>,
}

/// One row as it waits.
struct Row {
    id: String,
    time_us: i64,
    keys: Vec<Option<[u8; 16]>>,
    values: Vec<f64>,
}

impl FeaturesFile {
    /// Begins a file.
    ///
    /// # Errors
    /// When it or a temporary file beside it cannot be written.
    pub fn create(path: &Path, schema: &Arc<Schema>) -> Result<Self, ReplayError> {
        let file = File::create(path).map_err(ReplayError::write(path))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let spool = tempfile::tempfile_in(folder).map_err(ReplayError::write(path))?;
        let spool = BufWriter::with_capacity(1 << 20, spool);
        Ok(Self { path: path.to_path_buf(), file, spool, rows: 0, schema: Arc::clone(schema) })
    }

    /// Adds a transaction.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn add(&mut self, scored: &Scored) -> Result<(), ReplayError> {
        self.spool_row(scored).map_err(ReplayError::write(self.path.as_path()))
    }

    fn spool_row(&mut self, scored: &Scored) -> io::Result<()> {
        let id = scored.admitted.tx.id.as_bytes();
        self.spool.write_all(&u32::try_from(id.len()).unwrap_or_default().to_le_bytes())?;
        self.spool.write_all(id)?;
        self.spool.write_all(&scored.history.event_time.micros().to_le_bytes())?;
        for kind in 0..self.schema.entity_types().len() {
            let subject = scored.admitted.subjects.iter().find(|subject| subject.id.kind.index() == kind);
            self.spool.write_all(&[u8::from(subject.is_some())])?;
            self.spool.write_all(&subject.map_or([0; 16], |subject| subject.id.key.0))?;
        }
        for feature in 0..self.schema.features().len() {
            let value = scored.assessed.vector.values.get(feature).copied().unwrap_or(f64::NAN);
            self.spool.write_all(&value.to_le_bytes())?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Joins the labels and writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, labels: &HashMap<String, Label>) -> Result<(), ReplayError> {
        let path = self.path.clone();
        self.write(labels).map_err(ReplayError::write(path))
    }

    fn write(self, labels: &HashMap<String, Label>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut spool = self.spool.into_inner().map_err(io::IntoInnerError::into_error)?;
        spool.seek(SeekFrom::Start(0))?;
        let mut spool = BufReader::with_capacity(1 << 20, spool);
        let mut writer = SerializedFileWriter::new(self.file, columns(&self.schema)?, Arc::new(properties(&self.schema)?))?;
        let mut left = self.rows;
        while left > 0 {
            let count = left.min(GROUP);
            let rows = (0..count).map(|_| read_row(&mut spool, &self.schema)).collect::<io::Result<Vec<_>>>()?;
            write_group(writer.next_row_group()?, &rows, labels, &self.schema)?;
            left -= count;
        }
        writer.close()?;
        Ok(())
    }
}

fn properties(schema: &Schema) -> Result<WriterProperties, serde_json::Error> {
    let hashes: std::collections::BTreeMap<&str, String> =
        schema.features().iter().map(|feature| (feature.name.as_str(), format!("{:016x}", feature.hash))).collect();
    let metadata = vec![
        KeyValue::new("telltale.schema".to_owned(), schema.digest().to_owned()),
        KeyValue::new("telltale.features".to_owned(), serde_json::to_string(&hashes)?),
    ];
    Ok(WriterProperties::builder().set_compression(Compression::SNAPPY).set_key_value_metadata(Some(metadata)).build())
}

fn columns(schema: &Schema) -> ParquetResult<TypePtr> {
    let text = |name: &str, repetition| {
        let column = Type::primitive_type_builder(name, Physical::BYTE_ARRAY);
        column.with_repetition(repetition).with_logical_type(Some(LogicalType::String)).build().map(Arc::new)
    };
    let plain =
        |name: &str, physical, repetition| Type::primitive_type_builder(name, physical).with_repetition(repetition).build().map(Arc::new);
    let mut fields = vec![
        text("transaction_id", Repetition::REQUIRED)?,
        plain("time_us", Physical::INT64, Repetition::REQUIRED)?,
        text("label", Repetition::OPTIONAL)?,
        text("label_detail", Repetition::OPTIONAL)?,
    ];
    for spec in schema.entity_types() {
        fields.push(text(&format!("entity.{}", spec.name), Repetition::OPTIONAL)?);
    }
    for feature in schema.features() {
        fields.push(plain(&feature.name, Physical::DOUBLE, Repetition::OPTIONAL)?);
    }
    Type::group_type_builder("telltale").with_fields(fields).build().map(Arc::new)
}

fn read_row(spool: &mut impl Read, schema: &Schema) -> io::Result<Row> {
    let mut length = [0; 4];
    spool.read_exact(&mut length)?;
    let mut id = vec![0; u32::from_le_bytes(length) as usize];
    spool.read_exact(&mut id)?;
    let mut eight = [0; 8];
    spool.read_exact(&mut eight)?;
    let time_us = i64::from_le_bytes(eight);
    let mut keys = Vec::with_capacity(schema.entity_types().len());
    for _ in schema.entity_types() {
        let (mut present, mut key) = ([0], [0; 16]);
        spool.read_exact(&mut present)?;
        spool.read_exact(&mut key)?;
        keys.push((present == [1]).then_some(key));
    }
    let mut values = Vec::with_capacity(schema.features().len());
    for _ in schema.features() {
        spool.read_exact(&mut eight)?;
        values.push(f64::from_le_bytes(eight));
    }
    Ok(Row { id: String::from_utf8_lossy(&id).into_owned(), time_us, keys, values })
}

fn write_group(
    mut group: SerializedRowGroupWriter<'_, File>,
    rows: &[Row],
    labels: &HashMap<String, Label>,
    schema: &Schema,
) -> ParquetResult<()> {
    let ids: Vec<ByteArray> = rows.iter().map(|row| row.id.as_str().into()).collect();
    put::<ByteArrayType>(&mut group, &ids, None)?;
    let times: Vec<i64> = rows.iter().map(|row| row.time_us).collect();
    put::<Int64Type>(&mut group, &times, None)?;
    put_texts(&mut group, rows.iter().map(|row| labels.get(&row.id).map(|label| label_name(label.kind).to_owned())))?;
    let detail = |row: &Row| labels.get(&row.id).map(|label| label.detail.clone()).filter(|detail| !detail.is_empty());
    put_texts(&mut group, rows.iter().map(detail))?;
    for kind in 0..schema.entity_types().len() {
        put_texts(&mut group, rows.iter().map(|row| row.keys.get(kind).copied().flatten().map(|key| convert::hex(&key))))?;
    }
    for feature in 0..schema.features().len() {
        let column = || rows.iter().map(|row| row.values.get(feature).copied().unwrap_or(f64::NAN));
        let levels: Vec<i16> = column().map(|value| i16::from(!value.is_nan())).collect();
        let present: Vec<f64> = column().filter(|value| !value.is_nan()).collect();
        put::<DoubleType>(&mut group, &present, Some(&levels))?;
    }
    group.close().map(|_| ())
}

fn put_texts(group: &mut SerializedRowGroupWriter<'_, File>, texts: impl Iterator<Item = Option<String>>) -> ParquetResult<()> {
    let texts: Vec<Option<String>> = texts.collect();
    let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
    let present: Vec<ByteArray> = texts.iter().flatten().map(|text| text.as_str().into()).collect();
    put::<ByteArrayType>(group, &present, Some(&levels))
}

fn put<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> ParquetResult<()> {
    let Some(mut column) = group.next_column()? else {
        return Err(parquet::errors::ParquetError::General("more values than columns".to_owned()));
    };
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}
