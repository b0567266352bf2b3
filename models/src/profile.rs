//! What the rows of a model looked like: columns of numbers enter, counts in a few bins leave, and how far others are from them.
//!
//! A version brings the profile of its training window in `profile.json`; where it has none, the first rows of the site are taken. Nothing
//! here says what to do about a shift.

use serde::{Deserialize, Serialize};

use crate::repository::Manifest;

/// Parts that the values are cut into.
const TENTHS: usize = 10;
/// Most borders between bins: each tenth, and one below it.
const MOST_EDGES: usize = 2 * (TENTHS - 1);
/// Fewer rows than this say nothing: with 10 bins the index of 500 rows of the same distribution is about 0.02.
const FEW: u64 = 500;

/// Values in bins: bin `i` holds what is above edge `i-1` and not above edge `i`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bins {
    /// Borders, rising; at most 18.
    edges: Vec<f64>,
    /// Values in each bin, one more than there are edges.
    counts: Vec<u64>,
}

/// One input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The feature.
    pub name: String,
    /// Values that were there.
    pub bins: Bins,
    /// Rows without one.
    pub missing: u64,
}

/// `profile.json`: every input of a model in its order, and its raw score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Rows that were counted.
    pub rows: u64,
    /// The inputs.
    pub inputs: Vec<Column>,
    /// Raw scores of rows that the model did not learn: as many as its bins hold.
    pub score: Bins,
}

impl Bins {
    /// Bins of these values by the tenths of the finite ones; infinite ones are counted in the outer bins, NaN is left out. A value that fills
    /// two tenths or more has a bin of its own, else a feature that is nearly always 0 or always 1 would have nowhere to move.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut values, infinite): (Vec<f64>, Vec<f64>) =
            values.into_iter().filter(|value| !value.is_nan()).partition(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let quantile = |tenth: usize| values.get(values.len().saturating_sub(1) * tenth / TENTHS).copied();
        let quantiles: Vec<f64> = (1..TENTHS).filter_map(quantile).collect();
        let mut edges: Vec<f64> = Vec::with_capacity(MOST_EDGES);
        for pair in quantiles.windows(2) {
            if let [one, next] = pair
                && one == next
            {
                edges.extend([one.next_down(), *one]);
            }
        }
        edges.extend(quantiles);
        // Below the least number there is none.
        edges.retain(|edge| edge.is_finite());
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let mut bins = Self { counts: vec![0; edges.len() + 1], edges };
        for value in values.into_iter().chain(infinite) {
            let place = bins.place(value);
            if let Some(count) = bins.counts.get_mut(place) {
                *count += 1;
            }
        }
        bins
    }

    /// The bin of a value: 0 to the number of edges.
    pub fn place(&self, value: f64) -> usize {
        self.edges.partition_point(|edge| *edge < value)
    }

    /// How many values each bin holds.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many values all bins hold.
    pub fn rows(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn check(&self) -> Result<(), String> {
        let rising = self.edges.windows(2).all(|pair| pair.first() < pair.last());
        if !rising || self.edges.len() > MOST_EDGES || !self.edges.iter().all(|edge| edge.is_finite()) {
            return Err(format!("edges must be at most {MOST_EDGES} finite numbers, each above the one before"));
        }
        if self.counts.len() != self.edges.len() + 1 {
            return Err(format!("{} counts for {} edges; there must be one count more than edges", self.counts.len(), self.edges.len()));
        }
        Ok(())
    }
}

impl Column {
    /// A column of values; NaN is a missing one.
    pub fn of(name: &str, values: impl IntoIterator<Item = f64> + Clone) -> Self {
        let missing = values.clone().into_iter().filter(|value| value.is_nan()).count() as u64;
        Self { name: name.to_owned(), bins: Bins::of(values), missing }
    }

    /// The count of each bin, the missing values last.
    pub fn counts(&self) -> impl Iterator<Item = u64> + Clone {
        self.bins.counts.iter().copied().chain([self.missing])
    }

    /// The place of a value among [`Column::counts`]: a missing one has the last.
    pub fn place(&self, value: f64) -> usize {
        if value.is_nan() { self.bins.counts.len() } else { self.bins.place(value) }
    }
}

impl Profile {
    /// Reads `profile.json` of a version.
    ///
    /// # Errors
    /// What is wrong in it, and what is allowed.
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, String> {
        let profile: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let names = profile.inputs.iter().map(|column| &column.name);
        if !names.eq(manifest.inputs.iter().map(|input| &input.name)) {
            return Err("its inputs are not those of the manifest, in the same order".to_string());
        }
        for column in &profile.inputs {
            column.bins.check().map_err(|problem| format!("input `{}`: {problem}", column.name))?;
            let counted = column.bins.rows().saturating_add(column.missing);
            if counted != profile.rows {
                return Err(format!(
                    "input `{}`: {counted} values and missing ones of {} rows; there must be as many",
                    column.name, profile.rows
                ));
            }
        }
        profile.score.check().map_err(|problem| format!("score: {problem}"))?;
        Ok(profile)
    }

    /// As it is stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// Population stability index of two counts over the same bins (Siddiqi, Credit Risk Scorecards, 2006). An empty bin counts as half a row,
/// so that one row where there was none before is no infinite shift.
pub fn stability_index(then: impl Iterator<Item = u64> + Clone, now: impl Iterator<Item = u64> + Clone) -> f64 {
    let all = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0.0, |sum, count| sum + count as f64 + 0.5);
    let (rows_then, rows_now) = (all(&mut then.clone()), all(&mut now.clone()));
    let part = |(then, now): (u64, u64)| {
        let (then, now) = ((then as f64 + 0.5) / rows_then, (now as f64 + 0.5) / rows_now);
        (now - then) * (now / then).ln()
    };
    then.zip(now).map(part).sum()
}

/// A stability index in a word, by the bounds that are usual for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// Fewer than 500 rows on either side.
    TooFew,
    /// Below 0.1.
    Stable,
    /// Up to 0.25.
    Moderate,
    /// Above.
    Shifted,
}

impl Shift {
    /// Of an index that was found on so many rows.
    pub fn of(index: f64, rows: u64) -> Self {
        match index {
            _ if rows < FEW => Self::TooFew,
            ..0.1 => Self::Stable,
            0.1..=0.25 => Self::Moderate,
            _ => Self::Shifted,
        }
    }

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooFew => "too few rows",
            Self::Stable => "stable",
            Self::Moderate => "moderate",
            Self::Shifted => "shifted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(bins: &Bins, values: impl Iterator<Item = f64>) -> Vec<u64> {
        let mut counts = vec![0; bins.counts.len()];
        values.for_each(|value| counts[bins.place(value)] += 1);
        counts
    }

    fn index(bins: &Bins, values: impl Iterator<Item = f64>) -> f64 {
        stability_index(bins.counts().iter().copied(), counts_of(bins, values).into_iter())
    }

    #[test]
    fn even_values_fall_into_even_tenths() {
        let bins = Bins::of((0..1_000).map(f64::from));
        assert_eq!(bins.edges.len(), 9);
        assert!(bins.counts.iter().all(|count| (99..=101).contains(count)), "{bins:?}");
        assert_eq!((bins.place(-1e300), bins.place(f64::INFINITY)), (0, 9));
        bins.check().unwrap();
    }

    #[test]
    fn the_index_is_the_books_and_finite_where_a_bin_is_empty() {
        // Shares 0.5 and 0.5 against 0.25 and 0.75: -0.25 ln 0.5 + 0.25 ln 1.5.
        let (then, now) = ([5_000_000_u64, 5_000_000], [2_500_000_u64, 7_500_000]);
        let index = stability_index(then.into_iter(), now.into_iter());
        assert!((index - 0.25 * 3.0_f64.ln()).abs() < 1e-6, "{index}");
        assert_eq!(stability_index(then.into_iter(), then.into_iter()), 0.0);
        assert!(stability_index([100_u64, 0].into_iter(), [0, 100].into_iter()).is_finite());
    }

    #[test]
    fn a_feature_that_is_nearly_always_the_same_can_still_shift() {
        let zeros = Bins::of((0..1_000).map(|at| if at % 100 == 0 { f64::from(at) } else { 0.0 }));
        assert!(index(&zeros, (0..1_000).map(|_| 0.0)) < 0.1);
        assert!(index(&zeros, (0..1_000).map(|_| 7.0)) > 0.25, "up from nothing");
        let ones = Bins::of((0..1_000).map(|_| 1.0));
        assert!(index(&ones, (0..1_000).map(|_| 1.0)) < 0.01);
        assert!(index(&ones, (0..1_000).map(|_| 0.0)) > 0.25, "down from what was always there: {ones:?}");
        assert!(index(&ones, (0..1_000).map(|_| 2.0)) > 0.25);
    }

    #[test]
    fn infinite_values_are_there_and_lie_outside() {
        let values = [f64::NEG_INFINITY, f64::INFINITY, f64::INFINITY, f64::NAN].into_iter().chain((0..100).map(f64::from));
        let column = Column::of("a", values);
        assert_eq!((column.missing, column.counts().sum::<u64>(), column.bins.edges.len()), (1, 104, 9));
        assert_eq!((column.bins.counts.first(), column.bins.counts.last()), (Some(&11), Some(&12)));
        assert_eq!(Bins::of([f64::INFINITY; 5]), Bins { edges: Vec::new(), counts: vec![5] });
        let least = Bins::of([f64::MIN; 5]);
        least.check().unwrap();
        assert_eq!(least.rows(), 5);
    }

    #[test]
    fn a_column_that_goes_missing_shifts() {
        let column = Column::of("a", (0..1_000).map(|at| if at % 10 == 0 { f64::NAN } else { f64::from(at) }));
        assert_eq!((column.missing, column.counts().sum::<u64>()), (100, 1_000));
        let mut now = vec![0_u64; column.counts().count()];
        now[column.place(f64::NAN)] = 1_000;
        assert!(stability_index(column.counts(), now.into_iter()) > 0.25);
    }

    #[test]
    fn a_version_brings_its_profile_and_fails_with_one_that_is_not_its_own() {
        use crate::repository::Draft;
        use crate::repository::tests::{NAMES, draft, index};
        use crate::{Loader, Repository, RuntimeOptions};
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::create(folder.path()).unwrap();
        let inputs: Vec<Column> = NAMES.iter().map(|name| Column::of(name, (0..100).map(|at| f64::from(at) / 7.0))).collect();
        let right = Profile { rows: 100, inputs: inputs.clone(), score: Bins::of((0..50).map(f64::from)) };
        let swapped = Profile { inputs: inputs.iter().rev().cloned().collect(), ..right.clone() };
        let mut falling = right.clone();
        falling.inputs[2].bins.edges.reverse();
        let mut short = right.clone();
        short.score.counts.pop();
        let mut few = right.clone();
        few.inputs[1].missing = 7;
        for profile in [&right, &swapped, &falling, &short, &few] {
            repository.publish("odd", Draft { profile: Some(profile.clone()), ..draft(1) }).unwrap();
        }
        let loader = Loader::new(repository, index(), RuntimeOptions::default());
        loader.verify("odd", 1).unwrap();
        let kept = std::fs::read(folder.path().join("odd/versions/1/profile.json")).unwrap();
        assert_eq!(Profile::parse(&kept, &loader.repository().manifest("odd", 1).unwrap()).unwrap(), right, "to the last bit");
        let parts = [
            (2, "not those of the manifest"),
            (3, "each above the one before"),
            (4, "one count more than edges"),
            (5, "107 values and missing ones of 100 rows"),
        ];
        for (version, part) in parts {
            let error = loader.verify("odd", version).unwrap_err().to_string();
            assert!(error.contains("profile.json") && error.contains(part), "{error}");
        }
        assert_eq!(loader.repository().site_profile("odd", 1).unwrap(), None);
        assert_eq!(loader.repository().store_site_profile("odd", 1, &right).unwrap(), right);
        let later = Profile { score: Bins::of((0..70).map(f64::from)), ..right.clone() };
        let kept = loader.repository().store_site_profile("odd", 1, &later).unwrap();
        assert_eq!((kept, loader.repository().site_profile("odd", 1).unwrap()), (right.clone(), Some(right)), "the first one stays");
    }

    #[test]
    fn words_have_the_usual_bounds() {
        let words: Vec<_> = [0.0, 0.0999, 0.1, 0.25, 0.2501, f64::INFINITY].map(|index| Shift::of(index, 500).name()).to_vec();
        assert_eq!(words, ["stable", "stable", "moderate", "moderate", "shifted", "shifted"]);
        assert_eq!(Shift::of(9.0, 499), Shift::TooFew);
    }
}
