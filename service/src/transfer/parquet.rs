//! Entity state as Parquet: what moves between stores and installations of one key.
//!
//! Columns: `entity_type`, `key` (32 hexadecimal digits), `blob` (the kernel's), `last` (sequence of the last change), `touched_us` (clock of
//! the last event), `proved` (sequence of the first proof of the mark that holds), `standing` (how much it was seen; 255 where the store does
//! not tell). The file's metadata says of which installation it is: see [`Origin`].

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

/// Rows in one row group.
const GROUP: usize = 16_384;
/// The version of this layout.
const VERSION: &str = "1";
const COLUMNS: [&str; 7] = ["entity_type", "key", "blob", "last", "touched_us", "proved", "standing"];

/// Of which installation the entities are, and up to where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Digest of the schema.
    pub schema: String,
    /// Number of the key.
    pub key_id: u32,
    /// Shows whether a key is the same.
    pub key_check: String,
    /// Everything up to this number is in it.
    pub sequence: u64,
    /// The clock at that number, microseconds since 1970.
    pub now_us: i64,
}

/// One entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of its type.
    pub kind: String,
    /// Its key.
    pub key: [u8; 16],
    /// The kernel's blob.
    pub blob: Vec<u8>,
    /// Sequence of its last change.
    pub last: u64,
    /// Clock of its last event, microseconds since 1970.
    pub touched_us: i64,
    /// Sequence of the first proof of its mark.
    pub proved: u64,
    /// How much it was seen.
    pub standing: u8,
}

/// Writes rows.
pub struct Writer {
    file: SerializedFileWriter<File>,
    rows: Vec<Row>,
}

impl Writer {
    /// Begins a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, origin: &Origin) -> ParquetResult<Self> {
        let text = |name: &str| {
            let column = Type::primitive_type_builder(name, Physical::BYTE_ARRAY).with_repetition(Repetition::REQUIRED);
            column.with_logical_type(Some(LogicalType::String)).build().map(Arc::new)
        };
        let plain =
            |name: &str, physical| Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED).build().map(Arc::new);
        let [kind, key, blob, numbers @ ..] = COLUMNS;
        let mut fields = vec![text(kind)?, text(key)?, plain(blob, Physical::BYTE_ARRAY)?];
        for name in numbers {
            fields.push(plain(name, Physical::INT64)?);
        }
        let schema = Type::group_type_builder("telltale_state").with_fields(fields).build()?;
        let pairs = [
            ("telltale.state", VERSION.to_owned()),
            ("telltale.schema", origin.schema.clone()),
            ("telltale.key_id", origin.key_id.to_string()),
            ("telltale.key_check", origin.key_check.clone()),
            ("telltale.sequence", origin.sequence.to_string()),
            ("telltale.now_us", origin.now_us.to_string()),
        ];
        let metadata = pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_key_value_metadata(Some(metadata)).build();
        let file = SerializedFileWriter::new(File::create(path)?, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { file, rows: Vec::with_capacity(GROUP) })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, row: Row) -> ParquetResult<()> {
        self.rows.push(row);
        if self.rows.len() >= GROUP { self.group() } else { Ok(()) }
    }

    fn group(&mut self) -> ParquetResult<()> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.file.next_row_group()?;
        let mut put = |values: &Column| {
            let Some(mut column) = group.next_column()? else { return Err(ParquetError::General("more values than columns".to_owned())) };
            match values {
                Column::Bytes(values) => column.typed::<ByteArrayType>().write_batch(values, None, None)?,
                Column::Numbers(values) => column.typed::<Int64Type>().write_batch(values, None, None)?,
            };
            column.close()
        };
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        put(&Column::Bytes(rows.iter().map(|row| row.kind.as_str().into()).collect()))?;
        put(&Column::Bytes(rows.iter().map(|row| crate::convert::hex(&row.key).as_str().into()).collect()))?;
        put(&Column::Bytes(rows.iter().map(|row| ByteArray::from(row.blob.clone())).collect()))?;
        put(&Column::Numbers(rows.iter().map(|row| number(row.last)).collect()))?;
        put(&Column::Numbers(rows.iter().map(|row| row.touched_us).collect()))?;
        put(&Column::Numbers(rows.iter().map(|row| number(row.proved)).collect()))?;
        put(&Column::Numbers(rows.iter().map(|row| row.standing.into()).collect()))?;
        group.close().map(drop)
    }

    /// Writes what is left and ends the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> ParquetResult<()> {
        if !self.rows.is_empty() {
            self.group()?;
        }
        self.file.close().map(drop)
    }
}

enum Column {
    Bytes(Vec<ByteArray>),
    Numbers(Vec<i64>),
}

/// Reads rows.
pub struct Reader {
    file: SerializedFileReader<File>,
    /// Of which installation they are.
    pub origin: Origin,
}

fn wrong(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no entity state of this version.
    pub fn open(path: &Path) -> ParquetResult<Self> {
        let file = SerializedFileReader::new(File::open(path)?)?;
        let metadata = file.metadata().file_metadata();
        let pairs = metadata.key_value_metadata().cloned().unwrap_or_default();
        let value = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
        match value("telltale.state").as_deref() {
            Some(VERSION) => {}
            Some(other) => return Err(wrong(format!("its state has version `{other}`, this version reads `{VERSION}`"))),
            None => return Err(wrong("it is no entity state; `telltale state export FILE` writes such files")),
        }
        let names: Vec<&str> = metadata.schema_descr().columns().iter().map(|column| column.name()).collect();
        if names != COLUMNS {
            return Err(wrong(format!("its columns are {}; allowed: {}", names.join(", "), COLUMNS.join(", "))));
        }
        let number = |key: &str| {
            let text = value(key).unwrap_or_default();
            text.parse::<i64>().map_err(|_| wrong(format!("its metadata `{key}` is `{text}`; allowed: a number")))
        };
        let origin = Origin {
            schema: value("telltale.schema").unwrap_or_default(),
            key_id: u32::try_from(number("telltale.key_id")?).map_err(|_| wrong("its metadata `telltale.key_id` is out of range"))?,
            key_check: value("telltale.key_check").unwrap_or_default(),
            sequence: u64::try_from(number("telltale.sequence")?).map_err(|_| wrong("its metadata `telltale.sequence` is negative"))?,
            now_us: number("telltale.now_us")?,
        };
        Ok(Self { file, origin })
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// How many groups of rows there are.
    pub fn groups(&self) -> usize {
        self.file.num_row_groups()
    }

    /// The rows of one group.
    ///
    /// # Errors
    /// When it cannot be read or holds what no state can have.
    pub fn group(&self, number: usize) -> ParquetResult<Vec<Row>> {
        let group = self.file.get_row_group(number)?;
        let count = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
        let bytes = |at| column::<ByteArrayType>(&*group, at, count);
        let numbers = |at| column::<Int64Type>(&*group, at, count);
        let (kinds, keys, blobs) = (bytes(0)?, bytes(1)?, bytes(2)?);
        let (lasts, touched, proved, standings) = (numbers(3)?, numbers(4)?, numbers(5)?, numbers(6)?);
        let texts = kinds.iter().zip(&keys).zip(blobs);
        let rest = lasts.into_iter().zip(touched).zip(proved.into_iter().zip(standings));
        let one = |(((kind, key), blob), ((last, touched_us), (proved, standing))): (((&ByteArray, &ByteArray), ByteArray), _)| {
            let hex = key.as_utf8()?;
            let number = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32);
            let key = number.ok_or_else(|| wrong(format!("a key is `{hex}`; allowed: 32 hexadecimal digits")))?.to_be_bytes();
            let positive = |value: i64| u64::try_from(value).map_err(|_| wrong(format!("a sequence is {value}; allowed: 0 and above")));
            let standing: i64 = standing;
            Ok(Row {
                kind: kind.as_utf8()?.to_owned(),
                key,
                blob: blob.data().to_vec(),
                last: positive(last)?,
                touched_us,
                proved: positive(proved)?,
                standing: u8::try_from(standing).map_err(|_| wrong(format!("a standing is {standing}; allowed: 0 to 255")))?,
            })
        };
        texts.zip(rest).map(one).collect()
    }
}

fn column<T: DataType>(group: &dyn RowGroupReader, at: usize, count: usize) -> ParquetResult<Vec<T::T>> {
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(at)?);
    let mut values = Vec::with_capacity(count);
    reader.read_records(count, None, None, &mut values)?;
    if values.len() == count { Ok(values) } else { Err(wrong(format!("column {at} has {} of {count} values", values.len()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_origin_come_back_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.parquet");
        let origin = Origin { schema: "s".to_owned(), key_id: 3, key_check: "k".to_owned(), sequence: 70_000, now_us: -5 };
        let row = |number: u64| Row {
            kind: if number.is_multiple_of(2) { "user" } else { "address" }.to_owned(),
            key: u128::from(number).to_be_bytes(),
            blob: number.to_le_bytes()[..usize::try_from(number % 9).unwrap()].to_vec(),
            last: number,
            touched_us: -number.cast_signed(),
            proved: number / 3,
            standing: u8::try_from(number % 256).unwrap(),
        };
        let mut writer = Writer::create(&path, &origin).unwrap();
        (0..GROUP as u64 + 7).for_each(|number| writer.add(row(number)).unwrap());
        writer.finish().unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!((reader.origin.clone(), reader.rows(), reader.groups()), (origin, GROUP as u64 + 7, 2));
        let rows: Vec<Row> = (0..2).flat_map(|group| reader.group(group).unwrap()).collect();
        assert!(rows.iter().zip(0..).all(|(found, number)| *found == row(number)));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(Reader::open(&path).is_err(), "truncated");
        std::fs::write(&path, b"no parquet").unwrap();
        assert!(Reader::open(&path).is_err());
    }
}
