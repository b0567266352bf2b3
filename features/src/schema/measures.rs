//! Aggregations of how values and members are spread: from their YAML form to accumulators and reads.
//!
//! Extremes, deviation, rank and z of a number; entropy, frequent members and steps between members; latest values, places, and rates
//! of labels that have had time to come.

use std::time::Duration;

use super::arguments::{Windows, bit, number};
use super::builder::{Builder, Full};
use super::compile::Compiler;
use super::duration;
use super::source::RawAggregation;
use super::spec::Phase;
use super::views::{Context, Views};
use crate::kernel::plan::{Read, Scale};
use crate::yaml::line;

/// Longest delay, in windows: a section of tiles reaches no further.
const LONGEST_DELAY: u32 = 9;

impl Views {
    /// `min`, `max`, `stddev`, `quantile_rank`, `zscore_self`.
    pub(super) fn spread(
        &mut self,
        compiler: &mut Compiler,
        builder: &mut Builder,
        context: &Context<'_>,
        windows: &Windows<'_>,
    ) -> Result<(), Full> {
        let raw = context.raw;
        let Some(of) = number(compiler, context, raw.of.as_ref(), "of") else { return Ok(()) };
        let Some(bit) = bit(compiler, builder, context, raw.filter.as_ref())? else { return Ok(()) };
        let value = builder.value(&of.value)?;
        for (text, window) in windows {
            let Some(feature) = self.feature(compiler, context, Some(*window), text) else { continue };
            let read = match raw.aggregation.value.as_str() {
                "min" => Read::Extreme(builder.extreme(bit, value, *window, false)),
                "max" => Read::Extreme(builder.extreme(bit, value, *window, true)),
                "stddev" => Read::Stddev(builder.moments(bit, value, *window)),
                "quantile_rank" => Read::QuantileRank(builder.histogram(bit, value, *window, Scale::Magnitudes)),
                _ => Read::Zscore(builder.histogram(bit, value, *window, Scale::Magnitudes)),
            };
            builder.read(read, feature, 1.0);
        }
        Ok(())
    }

    /// `entropy`, `heavy_hitters`, `transition_rarity`.
    pub(super) fn cells(
        &mut self,
        compiler: &mut Compiler,
        builder: &mut Builder,
        context: &Context<'_>,
        windows: &Windows<'_>,
    ) -> Result<(), Full> {
        let raw = context.raw;
        let Some(of) = &raw.of else {
            compiler.problem(line(&raw.name), format!("`{}` needs `of`: an entity type, a text or a number", raw.aggregation.value));
            return Ok(());
        };
        let Some(member) = compiler.member(of, context.phase) else { return Ok(()) };
        let after = match &raw.after {
            Some(after) => match compiler.member(after, context.phase) {
                Some(from) => Some((from, after)),
                None => return Ok(()),
            },
            None => None,
        };
        let Some(bit) = bit(compiler, builder, context, raw.filter.as_ref())? else { return Ok(()) };
        let own = own_share(compiler, raw);
        let cell = match after {
            Some((from, after)) => builder.step((from, member), &format!("{}|{}", after.value, of.value))?,
            None => builder.cell(member, &of.value)?,
        };
        for (text, window) in windows {
            let Some(feature) = self.feature(compiler, context, Some(*window), text) else { continue };
            let read = match raw.aggregation.value.as_str() {
                "entropy" => Read::Entropy(builder.histogram(bit, cell, *window, Scale::Cells)),
                "heavy_hitters" if own => Read::OwnShare(builder.histogram(bit, cell, *window, Scale::Cells)),
                "heavy_hitters" => Read::TopShare(builder.histogram(bit, cell, *window, Scale::Cells)),
                _ if after.is_some() => Read::StepRarity(builder.histogram(bit, cell, *window, Scale::Pairs)),
                _ => Read::TransitionRarity(builder.histogram(bit, cell, *window, Scale::Successions)),
            };
            builder.read(read, feature, 1.0);
        }
        Ok(())
    }

    /// `last` of a number.
    pub(super) fn latest(&mut self, compiler: &mut Compiler, builder: &mut Builder, context: &Context<'_>) -> Result<(), Full> {
        let Some(of) = number(compiler, context, context.raw.of.as_ref(), "of") else { return Ok(()) };
        let Some(bit) = bit(compiler, builder, context, context.raw.filter.as_ref())? else { return Ok(()) };
        let value = builder.value(&of.value)?;
        if let Some(feature) = self.feature(compiler, context, None, "") {
            let latest = builder.latest(bit, value);
            builder.read(Read::Last(latest), feature, 1.0);
        }
        Ok(())
    }

    /// `geo_velocity`.
    pub(super) fn geo_velocity(&mut self, compiler: &mut Compiler, builder: &mut Builder, context: &Context<'_>) -> Result<(), Full> {
        let raw = context.raw;
        let latitude = number(compiler, context, raw.latitude.as_ref(), "latitude");
        let longitude = number(compiler, context, raw.longitude.as_ref(), "longitude");
        let (Some(latitude), Some(longitude)) = (latitude, longitude) else { return Ok(()) };
        let Some(bit) = bit(compiler, builder, context, raw.filter.as_ref())? else { return Ok(()) };
        let (latitude, longitude) = (builder.value(&latitude.value)?, builder.value(&longitude.value)?);
        if let Some(feature) = self.feature(compiler, context, None, "") {
            let position = builder.position(bit, latitude, longitude);
            builder.read(Read::Speed(position), feature, 1.0);
        }
        Ok(())
    }

    /// `label_rate`.
    pub(super) fn label_rate(
        &mut self,
        compiler: &mut Compiler,
        builder: &mut Builder,
        context: &Context<'_>,
        windows: &Windows<'_>,
    ) -> Result<(), Full> {
        let raw = context.raw;
        let Some(delay) = delay(compiler, context, windows) else { return Ok(()) };
        let part = bit(compiler, builder, context, raw.part.as_ref())?;
        let request = Context { phase: Phase::Request, ..*context };
        let whole = bit(compiler, builder, &request, raw.whole.as_ref())?;
        let (Some(part), Some(whole)) = (part, whole) else { return Ok(()) };
        for (text, window) in windows {
            let Some(feature) = self.feature(compiler, context, Some(*window), text) else { continue };
            let read = Read::LabelRate { part: builder.matured(part, *window, delay), whole: builder.matured(whole, *window, delay) };
            builder.read(read, feature, 1.0);
        }
        Ok(())
    }
}

/// The delay of a `label_rate`, with everything else that it must have.
fn delay(compiler: &mut Compiler, context: &Context<'_>, windows: &Windows<'_>) -> Option<Duration> {
    let raw = context.raw;
    if raw.part.is_none() || raw.filter.is_some() || raw.of.is_some() || context.phase != Phase::Label {
        let message = "`label_rate` takes `part`, a filter of labels, `whole`, a filter of transactions (left out: every one), and `delay`; \
                       neither `filter` nor `of` nor `phase`";
        compiler.problem(line(&raw.name), message.to_owned());
        return None;
    }
    let Some(text) = &raw.delay else {
        compiler.problem(line(&raw.name), "`label_rate` needs `delay`: how long labels take to come, such as `7d`".to_owned());
        return None;
    };
    let delay = compiler.checked(line(text), duration::parse(&text.value))?;
    if let Some((short, _)) = windows.iter().find(|(_, window)| delay > *window * LONGEST_DELAY) {
        let message = format!("`delay: {}` is more than {LONGEST_DELAY} times the window `{short}`", text.value);
        compiler.problem(line(text), message);
        return None;
    }
    Some(delay)
}

/// Whether a `heavy_hitters` is about this event's member; a problem when it does not say which.
fn own_share(compiler: &mut Compiler, raw: &RawAggregation) -> bool {
    if raw.aggregation.value != "heavy_hitters" {
        return false;
    }
    match raw.stat.as_ref().map(|text| (text, text.value.as_str())) {
        Some((_, "own_share")) => true,
        Some((_, "top_share")) => false,
        Some((text, other)) => {
            compiler.problem(line(text), format!("`{other}` is no statistic: allowed are `top_share`, `own_share`"));
            false
        }
        None => {
            compiler.problem(line(&raw.name), "`heavy_hitters` needs `stat`: `top_share` or `own_share`".to_owned());
            false
        }
    }
}
