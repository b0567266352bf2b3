//! Arguments of aggregations: windows, phases, statistics, numbers and filters, each checked where it is written.

use std::time::Duration;

use super::compile::Compiler;
use super::duration;
use super::names::closest;
use super::source::RawAggregation;
use super::spec::Phase;
use super::views::Context;
use crate::kernel::plan::GapStat;
use crate::yaml::{Text, line};

/// Windows with their text.
pub(super) type Windows<'a> = Vec<(&'a str, Duration)>;

/// The windows of an aggregation, with their text.
pub(super) fn windows<'a>(compiler: &mut Compiler, raw: &'a RawAggregation) -> Windows<'a> {
    let timeless = matches!(raw.aggregation.value.as_str(), "age" | "last" | "geo_velocity");
    if timeless != raw.windows.is_empty() {
        let kind = &raw.aggregation.value;
        let message =
            if timeless { format!("`{kind}` takes no `windows`") } else { format!("`{kind}` needs `windows`, such as `[10m, 24h]`") };
        compiler.problem(line(&raw.name), message);
    }
    raw.windows
        .iter()
        .filter_map(|text| Some((text.value.as_str(), compiler.checked(line(text), duration::window(&text.value))?)))
        .collect()
}

/// When the events of an aggregation come.
pub(super) fn phase(compiler: &mut Compiler, raw: &RawAggregation) -> Phase {
    match raw.phase.as_ref().map(|text| (text, text.value.as_str())) {
        // Labels come with labels.
        None if raw.aggregation.value == "label_rate" => Phase::Label,
        None | Some((_, "request")) => Phase::Request,
        Some((_, "outcome")) => Phase::Outcome,
        Some((_, "label")) => Phase::Label,
        Some((text, other)) => {
            compiler.problem(line(text), format!("`{other}` is no phase: allowed are `request`, `outcome`, `label`"));
            Phase::Request
        }
    }
}

/// The statistic of gaps.
pub(super) fn stat(compiler: &mut Compiler, raw: &RawAggregation) -> GapStat {
    match raw.stat.as_ref().map(|text| (text, text.value.as_str())) {
        None if raw.aggregation.value == "interarrival" => {
            compiler.problem(line(&raw.name), "`interarrival` needs `stat`: `geometric_mean` or `log_stddev`".to_owned());
            GapStat::GeometricMean
        }
        None | Some((_, "geometric_mean")) => GapStat::GeometricMean,
        Some((_, "log_stddev")) => GapStat::LogStddev,
        Some((text, other)) => {
            compiler.problem(line(text), format!("`{other}` is no statistic: allowed are `geometric_mean`, `log_stddev`"));
            GapStat::GeometricMean
        }
    }
}

/// A number that `key` names in the phase of the aggregation; a problem when there is none.
pub(super) fn number<'a>(compiler: &mut Compiler, context: &Context<'_>, of: Option<&'a Text>, key: &str) -> Option<&'a Text> {
    let Some(of) = of else {
        let message = format!("`{}` needs `{key}`: the name of a number", context.raw.aggregation.value);
        compiler.problem(line(&context.raw.name), message);
        return None;
    };
    if compiler.layout.number(&of.value, context.phase).is_none() {
        let message = match compiler.layout.number(&of.value, Phase::Request) {
            Some(_) => compiler.not_carried(&of.value, context.phase),
            None => compiler.unknown(&of.value, context.phase, &format!("can be summed: `{key}` must name a number")),
        };
        compiler.problem(line(of), message);
        return None;
    }
    Some(of)
}

/// Whether a `heavy_hitters` is about this event's member; a problem when it does not say which.
pub(super) fn own_share(compiler: &mut Compiler, raw: &RawAggregation) -> bool {
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

/// That there is no such aggregation.
pub(super) fn not_allowed(kind: &str, allowed: &[&str], place: &str) -> String {
    let list: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
    let hint = closest(kind, allowed.iter().copied()).map_or_else(String::new, |best| format!("; did you mean `{best}`?"));
    format!("`{kind}` is no aggregation {place}{hint} Allowed are {}", list.join(", "))
}
