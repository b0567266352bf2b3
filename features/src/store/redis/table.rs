//! Small tables that all replicas share: one versioned hash each, written by one script, polled by version.
//!
//! Rows enter and leave as bytes; what they mean is the caller's. A version grows with time and never repeats, so that a table which
//! Redis lost and a replica wrote again never looks unchanged.

use std::time::Duration;

use ::redis::{Cmd, RedisError, RedisResult, Value, cmd};
use tokio::time::timeout;

use super::RedisStore;

/// Writes rows of a table.
///
/// - `KEYS[1]`: the table's hash. Its field `version` is the table's; a row's field begins with `=`.
/// - `ARGV[1]`: seconds to live, renewed by every write.
/// - `ARGV[2]`, `ARGV[3]`, …: field and value of each row; an empty value removes the row.
///
/// Returns the new version: the server's clock in microseconds, or one more than before.
const WRITE: &str = "\
for at = 2, #ARGV, 2 do
  if ARGV[at + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[at]) else redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
end
local time = redis.call('TIME')
local version = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('HGET', KEYS[1], 'version')) or 0) + 1)
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', version))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return version";

/// A table lives this long after its last write: longer than any override may last without being looked at.
const LIVES: u64 = 10 * 366 * 86_400;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Redis did not answer, or not as expected.
#[derive(Debug, thiserror::Error)]
#[error("the shared table `{table}` cannot be reached: {reason}")]
pub struct TableError {
    /// Which.
    pub table: String,
    /// Why.
    pub reason: String,
}

/// A table as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its version; 0: there is none.
    pub version: u64,
    /// Its rows.
    pub rows: Vec<(String, Vec<u8>)>,
}

impl RedisStore {
    /// The version of a table; 0 when there is none.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn table_version(&self, table: &str) -> Result<u64, TableError> {
        let mut get = cmd("HGET");
        get.arg(self.table_key(table)).arg("version");
        let found: Option<u64> = self.ask_table(table, &get).await?;
        Ok(found.unwrap_or(0))
    }

    /// All rows of a table.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn table(&self, table: &str) -> Result<Table, TableError> {
        let mut get = cmd("HGETALL");
        get.arg(self.table_key(table));
        let fields: Vec<(String, Vec<u8>)> = self.ask_table(table, &get).await?;
        let mut found = Table::default();
        for (field, value) in fields {
            match field.strip_prefix('=') {
                Some(row) => found.rows.push((row.to_owned(), value)),
                None => found.version = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            }
        }
        Ok(found)
    }

    /// Writes rows, or removes those with an empty value; returns the new version.
    ///
    /// # Errors
    /// When Redis does not answer: the rows may be written or not, and may be written again.
    pub async fn write_table(&self, table: &str, rows: &[(String, Vec<u8>)]) -> Result<u64, TableError> {
        let mut write = cmd("EVAL");
        write.arg(WRITE).arg(1).arg(self.table_key(table)).arg(LIVES);
        for (row, value) in rows {
            write.arg(format!("={row}")).arg(value.as_slice());
        }
        self.ask_table(table, &write).await
    }

    fn table_key(&self, table: &str) -> String {
        format!("{}:{{{table}}}", self.shared.options.prefix)
    }

    async fn ask_table<T: ::redis::FromRedisValue>(&self, table: &str, command: &Cmd) -> Result<T, TableError> {
        let failed = |reason: String| TableError { table: table.to_owned(), reason };
        let answer: RedisResult<Value> = timeout(PATIENCE, self.shared.writes.command(&self.table_key(table), command))
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?;
        let parsed = answer.and_then(|answer| Ok(::redis::from_redis_value::<T>(answer)?));
        parsed.map_err(|error: RedisError| failed(error.to_string()))
    }
}
