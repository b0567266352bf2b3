//! Aggregations of an entity: from their YAML form to accumulators, reads and features.
//!
//! One frame serves them all: what an aggregation is about (a number, a member, filters) is found or said to be wrong, its accumulator is
//! made for each window, and a read of it becomes a feature. An aggregation is then what it reads of which accumulator, and no more.

use std::time::Duration;

use super::arguments::{Windows, number, own_share, stat};
use super::builder::{Builder, Full};
use super::compile::{Compiler, canonical};
use super::duration;
use super::spec::Phase;
use super::views::{Context, Views};
use crate::kernel::plan::{FilterId, Read, Scale, ValueId};
use crate::yaml::{Text, line};

/// Longest delay, in windows: a section of tiles reaches no further.
const LONGEST_DELAY: u32 = 9;

/// Why an aggregation comes to nothing.
pub(super) enum Stop {
    /// The plan has no more room.
    Full(Full),
    /// What is wrong has been said.
    Said,
}

impl From<Full> for Stop {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

/// The frame of one aggregation.
pub(super) struct Frame<'a, 'c> {
    pub compiler: &'a mut Compiler,
    pub builder: &'a mut Builder,
    pub context: &'a Context<'c>,
    pub windows: &'a Windows<'c>,
}

impl<'c> Frame<'_, 'c> {
    fn wrong(&mut self, at: u32, message: String) -> Stop {
        self.compiler.problem(at, message);
        Stop::Said
    }

    /// The bit of a filter.
    fn bit(&mut self, text: Option<&Text>, phase: Phase) -> Result<FilterId, Stop> {
        let filter = self.compiler.filter(text, phase).ok_or(Stop::Said)?;
        let source = text.map_or_else(String::new, |text| canonical(&text.value));
        Ok(self.builder.filter(filter, phase, &source)?)
    }

    /// The bit of the aggregation's own `filter`.
    fn filter(&mut self) -> Result<FilterId, Stop> {
        self.bit(self.context.raw.filter.as_ref(), self.context.phase)
    }

    /// The number that a key names.
    fn number(&mut self, of: Option<&'c Text>, key: &str) -> Result<&'c Text, Stop> {
        number(self.compiler, self.context, of, key).ok_or(Stop::Said)
    }

    /// The filter, and the place of the number that `of` names.
    fn valued(&mut self) -> Result<(FilterId, ValueId), Stop> {
        let of = self.number(self.context.raw.of.as_ref(), "of")?;
        let bit = self.filter()?;
        Ok((bit, self.builder.value(&of.value)?))
    }

    /// The schema's member that `of` names, and its name.
    fn member(&mut self) -> Result<(usize, &'c Text), Stop> {
        let raw = self.context.raw;
        let Some(of) = &raw.of else {
            let message = format!("`{}` needs `of`: an entity type, a text or a number", raw.aggregation.value);
            return Err(self.wrong(line(&raw.name), message));
        };
        let member = self.compiler.member(of, self.context.phase).ok_or(Stop::Said)?;
        Ok((member, of))
    }

    /// A feature a window, each a read of what is made for it, times a factor.
    fn each(&mut self, views: &mut Views, mut read: impl FnMut(&mut Builder, Duration) -> (Read, f64)) {
        for (text, window) in self.windows {
            if let Some(feature) = views.feature(self.compiler, self.context, Some(*window), text) {
                let (read, factor) = read(self.builder, *window);
                self.builder.read(read, feature, factor);
            }
        }
    }

    /// One feature without a window.
    fn once(&mut self, views: &mut Views, read: impl FnOnce(&mut Builder) -> Read) {
        if let Some(feature) = views.feature(self.compiler, self.context, None, "") {
            let read = read(self.builder);
            self.builder.read(read, feature, 1.0);
        }
    }
}

impl Views {
    /// Makes the features of an aggregation of that kind.
    pub(super) fn made(&mut self, frame: &mut Frame<'_, '_>) -> Result<(), Stop> {
        let kind = frame.context.raw.aggregation.value.as_str();
        match kind {
            "last" if frame.context.raw.of.is_some() => {
                let (bit, value) = frame.valued()?;
                frame.once(self, |builder| Read::Last(builder.latest(bit, value)));
            }
            "age" | "last" => {
                let bit = frame.filter()?;
                let age = kind == "age";
                frame.once(self, |builder| if age { Read::Age(builder.seen(bit)) } else { Read::SinceLast(builder.seen(bit)) });
            }
            "min" | "max" | "stddev" | "quantile_rank" | "zscore_self" | "sum" => {
                let (bit, value) = frame.valued()?;
                frame.each(self, |builder, window| (spread(builder, kind, (bit, value), window), 1.0));
            }
            "label_rate" => self.label_rate(frame)?,
            "geo_velocity" => self.geo_velocity(frame)?,
            "entropy" | "heavy_hitters" | "transition_rarity" => self.cells(frame)?,
            "ratio" => self.ratio(frame)?,
            "mean" => self.mean(frame)?,
            "distinct" | "novelty" => self.membered(frame)?,
            "interarrival" => {
                let bit = frame.filter()?;
                let stat = stat(frame.compiler, frame.context.raw);
                frame.each(self, |builder, window| (Read::Interarrival { of: builder.interarrival(bit, window), stat }, 1.0));
            }
            _ => {
                let bit = frame.filter()?;
                // Neither takes one, but what is no statistic at all is said to be none.
                stat(frame.compiler, frame.context.raw);
                let factor = |window: Duration| if kind == "rate" { 1.0 / window.as_secs_f64() } else { 1.0 };
                frame.each(self, |builder, window| (Read::Count(builder.count(bit, window)), factor(window)));
            }
        }
        Ok(())
    }

    fn ratio(&mut self, frame: &mut Frame<'_, '_>) -> Result<(), Stop> {
        let raw = frame.context.raw;
        if raw.part.is_none() || raw.filter.is_some() || raw.of.is_some() {
            let message =
                "`ratio` takes `part` and `whole`, each a filter (`whole` may be left out: every event), and neither `filter` nor `of`";
            return Err(frame.wrong(line(&raw.name), message.to_owned()));
        }
        let phase = frame.context.phase;
        let (part, whole) = (frame.bit(raw.part.as_ref(), phase)?, frame.bit(raw.whole.as_ref(), phase)?);
        frame.each(self, |builder, window| (Read::Ratio { part: builder.count(part, window), whole: builder.count(whole, window) }, 1.0));
        Ok(())
    }

    /// The sum over how many events have the number.
    fn mean(&mut self, frame: &mut Frame<'_, '_>) -> Result<(), Stop> {
        let raw = frame.context.raw;
        let (bit, value) = frame.valued()?;
        let Some(of) = &raw.of else { return Err(Stop::Said) };
        let filter = raw.filter.as_ref().map_or_else(String::new, |text| format!("({}) && ", canonical(&text.value)));
        // CEL's `has` wants a dot; a comparison with a missing number is false.
        let present = if of.value.contains('.') { format!("has({})", of.value) } else { format!("{0} == {0}", of.value) };
        let source = format!("{filter}{present}");
        let phase = frame.context.phase;
        let filter = frame.compiler.filter_source(&source, line(of), phase).ok_or(Stop::Said)?;
        let with_value = frame.builder.filter(filter, phase, &source)?;
        frame.each(self, |builder, window| {
            let sum = builder.sum(bit, value, window);
            (Read::Mean { sum, count: builder.count(with_value, window) }, 1.0)
        });
        Ok(())
    }

    fn membered(&mut self, frame: &mut Frame<'_, '_>) -> Result<(), Stop> {
        let raw = frame.context.raw;
        let (index, of) = frame.member()?;
        let bit = frame.filter()?;
        let member = frame.builder.member(index, &of.value)?;
        if raw.aggregation.value == "distinct" {
            frame.each(self, |builder, window| (Read::Distinct { of: builder.distinct(bit, member, &of.value, window), window }, 1.0));
            return Ok(());
        }
        let [(_, horizon)] = frame.windows.as_slice() else {
            let message = "`novelty` takes one window, its horizon, and keeps its plain name".to_owned();
            // Without any it has been said already that one is needed.
            return Err(if frame.windows.is_empty() { Stop::Said } else { frame.wrong(line(&raw.name), message) });
        };
        // The horizon of novelty is part of what it says: the name carries no window.
        if let Some(feature) = self.feature(frame.compiler, frame.context, Some(*horizon), "") {
            let novelty = frame.builder.novelty(bit, member, &of.value, *horizon);
            frame.builder.read(Read::Novelty(novelty), feature, 1.0);
        }
        Ok(())
    }

    /// `entropy`, `heavy_hitters`, `transition_rarity`.
    fn cells(&mut self, frame: &mut Frame<'_, '_>) -> Result<(), Stop> {
        let raw = frame.context.raw;
        let (member, of) = frame.member()?;
        let after = match &raw.after {
            Some(after) => Some((frame.compiler.member(after, frame.context.phase).ok_or(Stop::Said)?, after)),
            None => None,
        };
        let bit = frame.filter()?;
        let own = own_share(frame.compiler, raw);
        let cell = match after {
            Some((from, after)) => frame.builder.step((from, member), &format!("{}|{}", after.value, of.value))?,
            None => frame.builder.cell(member, &of.value)?,
        };
        let kind = raw.aggregation.value.as_str();
        frame.each(self, |builder, window| {
            let mut histogram = |scale| builder.histogram(bit, cell, window, scale);
            let read = match kind {
                "entropy" => Read::Entropy(histogram(Scale::Cells)),
                "heavy_hitters" if own => Read::OwnShare(histogram(Scale::Cells)),
                "heavy_hitters" => Read::TopShare(histogram(Scale::Cells)),
                _ if after.is_some() => Read::StepRarity(histogram(Scale::Pairs)),
                _ => Read::TransitionRarity(histogram(Scale::Successions)),
            };
            (read, 1.0)
        });
        Ok(())
    }

    fn geo_velocity(&mut self, frame: &mut Frame<'_, '_>) -> Result<(), Stop> {
        let raw = frame.context.raw;
        // Both are looked for, so that both can be said to be wrong.
        let (latitude, longitude) = (frame.number(raw.latitude.as_ref(), "latitude"), frame.number(raw.longitude.as_ref(), "longitude"));
        let (latitude, longitude) = (latitude?, longitude?);
        let bit = frame.filter()?;
        let (latitude, longitude) = (frame.builder.value(&latitude.value)?, frame.builder.value(&longitude.value)?);
        frame.once(self, |builder| Read::Speed(builder.position(bit, latitude, longitude)));
        Ok(())
    }

    fn label_rate(&mut self, frame: &mut Frame<'_, '_>) -> Result<(), Stop> {
        let raw = frame.context.raw;
        let delay = delay(frame)?;
        let (part, whole) = (frame.bit(raw.part.as_ref(), frame.context.phase)?, frame.bit(raw.whole.as_ref(), Phase::Request)?);
        frame.each(self, |builder, window| {
            (Read::LabelRate { part: builder.matured(part, window, delay), whole: builder.matured(whole, window, delay) }, 1.0)
        });
        Ok(())
    }
}

/// The read of a number's spread, or of its sum.
fn spread(builder: &mut Builder, kind: &str, (bit, value): (FilterId, ValueId), window: Duration) -> Read {
    match kind {
        "sum" => Read::Sum(builder.sum(bit, value, window)),
        "min" => Read::Extreme(builder.extreme(bit, value, window, false)),
        "max" => Read::Extreme(builder.extreme(bit, value, window, true)),
        "stddev" => Read::Stddev(builder.moments(bit, value, window)),
        "quantile_rank" => Read::QuantileRank(builder.histogram(bit, value, window, Scale::Magnitudes)),
        _ => Read::Zscore(builder.histogram(bit, value, window, Scale::Magnitudes)),
    }
}

/// The delay of a `label_rate`, with everything else that it must have.
fn delay(frame: &mut Frame<'_, '_>) -> Result<Duration, Stop> {
    let raw = frame.context.raw;
    if raw.part.is_none() || raw.filter.is_some() || raw.of.is_some() || frame.context.phase != Phase::Label {
        let message = "`label_rate` takes `part`, a filter of labels, `whole`, a filter of transactions (left out: every one), and `delay`; \
                       neither `filter` nor `of` nor `phase`";
        return Err(frame.wrong(line(&raw.name), message.to_owned()));
    }
    let Some(text) = &raw.delay else {
        return Err(frame.wrong(line(&raw.name), "`label_rate` needs `delay`: how long labels take to come, such as `7d`".to_owned()));
    };
    let delay = frame.compiler.checked(line(text), duration::parse(&text.value)).ok_or(Stop::Said)?;
    if let Some((short, _)) = frame.windows.iter().find(|(_, window)| delay > *window * LONGEST_DELAY) {
        let message = format!("`delay: {}` is more than {LONGEST_DELAY} times the window `{short}`", text.value);
        return Err(frame.wrong(line(text), message));
    }
    Ok(delay)
}
