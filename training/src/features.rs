//! Feature files: Parquet as `telltale replay --features` writes it enters, columns in order of time leave.

use std::collections::BTreeMap;
use std::path::Path;

use telltale_models::ModelError;
use telltale_models::table::Table;

/// Metadata of the file: JSON of feature name → definition hash.
const HASHES: &str = "telltale.features";

/// One feature's column.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Name of the feature.
    pub name: String,
    /// Its definition hash: 16 hexadecimal digits.
    pub hash: String,
    /// One value a row; NaN without evidence.
    pub values: Vec<f64>,
}

/// The rows of a feature file in order of time.
#[derive(Clone, Debug)]
pub struct Features {
    /// The columns in order of name.
    pub columns: Vec<Feature>,
    /// Label of each row: `benign`, `fraud`, `abuse` or empty.
    pub labels: Vec<String>,
    /// Transaction time of each row in microseconds.
    pub times: Vec<i64>,
    /// Digest of the schema.
    pub schema: String,
}

impl Features {
    /// Reads a feature file without the excluded features: names, or patterns with `*` at either end.
    ///
    /// # Errors
    /// [`ModelError`] when the file cannot be read or holds no features.
    pub fn read(path: &Path, exclude: &[String]) -> Result<Self, ModelError> {
        let table = Table::open(path)?;
        let hashes: BTreeMap<String, String> = serde_json::from_str(table.metadata(HASHES).unwrap_or("{}"))
            .map_err(|error| ModelError::invalid(path, format!("metadata `{HASHES}`: {error}")))?;
        let named = table.names().filter_map(|name| Some((name, hashes.get(name)?)));
        let kept: Vec<(&str, &String)> = named.filter(|(name, _)| !exclude.iter().any(|pattern| matches(pattern, name))).collect();
        if kept.is_empty() || table.rows() == 0 {
            let problem = "no row, or no column that the metadata `telltale.features` names: `telltale replay INPUT --features FILE` writes such files";
            return Err(ModelError::invalid(path, problem));
        }
        let times = table.integers("time_us")?;
        let mut order: Vec<usize> = (0..times.len()).collect();
        order.sort_by_key(|row| times.get(*row).copied());
        let labels = table.texts("label")?;
        let columns = kept.into_iter().map(|(name, hash)| {
            let values = table.numbers(name)?;
            Ok(Feature { name: name.to_string(), hash: hash.clone(), values: picked(&values, &order) })
        });
        Ok(Self {
            columns: columns.collect::<Result<_, ModelError>>()?,
            labels: picked(&labels, &order),
            times: picked(&times, &order),
            schema: table.metadata("telltale.schema").unwrap_or_default().to_string(),
        })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.times.len()
    }
}

fn picked<T: Clone>(values: &[T], order: &[usize]) -> Vec<T> {
    order.iter().filter_map(|row| values.get(*row).cloned()).collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), Some(_)) => name.contains(rest.strip_suffix('*').unwrap_or(rest)),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_at_either_end() {
        for (pattern, name, holds) in [
            ("user.age", "user.age", true),
            ("user.age", "user.age_days", false),
            ("user.*", "user.age_days", true),
            ("*_1h", "user.count_1h", true),
            ("*label_rate*", "address.label_rate_7d", true),
            ("*label_rate*", "address.requests_1m", false),
        ] {
            assert_eq!(matches(pattern, name), holds, "{pattern} {name}");
        }
    }
}
