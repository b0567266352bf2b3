//! Features made of two others: across entities, one subject's reading beside another's.
//!
//! Two features that stand before it enter, a quotient, a difference or a distance from the other's baseline leaves. It is worked out
//! when the vector is put together, from what the entities of the same transaction read: so it is as old as its parts are, and a replay
//! gives the same. Nothing is kept for it but, for a baseline, two more reads of a histogram that is there already.

use super::builder::Builder;
use super::compile::Compiler;
use super::names::closest;
use super::views::{Context, HIDDEN, Own, Views};
use crate::kernel::plan::Read;
use crate::yaml::{Text, line};

impl Views {
    /// `quotient`, `difference`, `zscore_against`.
    pub(super) fn derived(&mut self, compiler: &mut Compiler, builders: &mut [Builder], context: &Context<'_>) {
        let raw = context.raw;
        if raw.filter.is_some() || !raw.windows.is_empty() || raw.phase.is_some() || raw.stat.is_some() {
            let message = format!("`{}` takes `of` and `against`, each the name of a feature, and nothing else", raw.aggregation.value);
            compiler.problem(line(&raw.name), message);
            return;
        }
        let (Some(of), Some(against)) = (self.named(compiler, context, "of"), self.named(compiler, context, "against")) else { return };
        let own = match raw.aggregation.value.as_str() {
            "quotient" => Own::Quotient(of, against),
            "difference" => Own::Difference(of, against),
            _ => match self.baseline(builders, against) {
                Some((middle, spread)) => Own::Zscore { of, middle, spread },
                None => {
                    let message = "`zscore_against` needs `against`: a `zscore_self` feature, whose baseline is compared with".to_owned();
                    compiler.problem(raw.against.as_ref().map_or(0, line), message);
                    return;
                }
            },
        };
        let part = |at: usize| self.features.get(at).map(|spec| (spec.hash, spec.window)).unwrap_or_default();
        let ((of_hash, of_window), (against_hash, against_window)) = (part(of), part(against));
        let inputs = format!("{of_hash:016x},{against_hash:016x}");
        let context = Context { inputs: &inputs, ..*context };
        if let Some(feature) = self.feature(compiler, &context, of_window.max(against_window), "") {
            self.own.push((feature, own));
        }
    }

    /// The feature that `of` or `against` names: one that is declared already.
    fn named(&self, compiler: &mut Compiler, context: &Context<'_>, key: &str) -> Option<usize> {
        let raw = context.raw;
        let text: Option<&Text> = if key == "of" { raw.of.as_ref() } else { raw.against.as_ref() };
        let Some(text) = text else {
            let message = format!("`{}` needs `{key}`: the name of a feature, such as `user.requests_24h`", raw.aggregation.value);
            compiler.problem(line(&raw.name), message);
            return None;
        };
        let found = self.features.iter().position(|spec| spec.name == text.value);
        if found.is_none() {
            let near = closest(&text.value, self.features.iter().map(|spec| spec.name.as_str()));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            compiler.problem(line(text), format!("`{key}: {}` is no feature that is declared before this one{hint}", text.value));
        }
        found
    }

    /// Places of middle and spread of a `zscore_self` feature's baseline: reads that are in no vector.
    fn baseline(&mut self, builders: &mut [Builder], against: usize) -> Option<(usize, usize)> {
        for builder in builders {
            let place = builder.reads.iter().position(|(feature, _)| *feature == against);
            let Some(Read::Zscore(id)) = place.and_then(|place| builder.plan.reads.get(place).copied()) else { continue };
            let mut place = |wanted: Read| {
                let known = builder.plan.reads.iter().zip(&builder.reads).find(|(read, _)| **read == wanted);
                known.map(|(_, (place, _))| *place).unwrap_or_else(|| {
                    self.hidden += 1;
                    builder.read(wanted, HIDDEN + self.hidden - 1, 1.0);
                    HIDDEN + self.hidden - 1
                })
            };
            return Some((place(Read::Middle(id)), place(Read::Spread(id))));
        }
        None
    }
}
