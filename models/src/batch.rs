//! Many rows at once, for whoever only watches or asks: rows enter, raw scores leave. What an action depends on never comes here: it is
//! scored one row at a time, live and in replay alike.

use telltale_features::vector::FeatureId;

use crate::Bundle;
use crate::score::Lane;
use crate::slot::Loaded;

/// A loaded version, asked by its name and number. It stays in memory as long as this lives.
#[derive(Clone)]
pub struct Served(Loaded);

impl Served {
    /// The features that it reads, in the manifest's order.
    pub fn inputs(&self) -> impl Iterator<Item = FeatureId> {
        self.0.model.inputs.iter().map(|input| input.feature)
    }

    /// The raw scores of rows of values in the order of [`Served::inputs`], row after row, in one run where the model allows it; NaN is a
    /// missing value and becomes what the manifest says. Of a row without a score, why.
    pub fn raws(&self, values: &[f64], lane: Lane) -> Vec<Result<f64, String>> {
        let model = &self.0.model;
        let rows = values.chunks(model.inputs.len().max(1));
        let count = rows.len();
        let matrix = rows.flat_map(|row| model.fill(row.iter().copied())).collect();
        match model.engine.raws(matrix, count, lane) {
            Ok(raws) => raws.into_iter().map(Ok).collect(),
            Err(problem) => vec![Err(problem); count],
        }
    }
}

impl Bundle {
    /// A version of a model that is loaded in any part; without a number the champion.
    pub fn served(&self, model: &str, version: Option<u32>) -> Option<Served> {
        let slot = self.slots().iter().find(|slot| &*slot.name == model)?;
        let loaded = match version {
            Some(version) => slot.loaded().find(|loaded| loaded.version == version),
            None => slot.champion.as_ref(),
        };
        loaded.cloned().map(Served)
    }
}
