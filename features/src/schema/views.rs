//! Feature views: aggregations become accumulators, reads and features.

use std::time::Duration;

use super::aggregations::{Frame, Stop};
use super::arguments::{not_allowed, phase, windows};
use super::builder::{Builder, Origin};
use super::bytes;
use super::compile::{Compiler, canonical, shown};
use super::duration;
use super::source::{RawAggregation, RawSchema, RawView};
use super::spec::{FeatureSpec, Phase};
use crate::entity::EntityType;
use crate::expr::NameKind;
use crate::hash::definition;
use crate::kernel::plan::EntityPlan;
use crate::yaml::{Text, line};

/// Raised when a change of this code changes what a feature means.
const SEMANTICS: u32 = 1;
/// Most features of a schema.
const MAX_FEATURES: usize = 1_000;

const HISTORY: [&str; 20] = [
    "count",
    "rate",
    "sum",
    "mean",
    "min",
    "max",
    "stddev",
    "distinct",
    "ratio",
    "novelty",
    "entropy",
    "heavy_hitters",
    "transition_rarity",
    "quantile_rank",
    "zscore_self",
    "interarrival",
    "age",
    "last",
    "label_rate",
    "geo_velocity",
];
const OWN: [&str; 6] = ["field", "holds", "lateness", "quotient", "difference", "zscore_against"];
/// From here on places are of reads that no vector shows; they follow on the features.
pub(super) const HIDDEN: usize = MAX_FEATURES;

/// What the views of a schema come to.
#[derive(Default)]
pub(super) struct Views {
    pub features: Vec<FeatureSpec>,
    pub plans: Vec<EntityPlan>,
    pub inputs: Vec<Inputs>,
    pub own: Vec<(usize, Own)>,
    /// How many reads no vector shows.
    pub hidden: usize,
}

/// What a plan takes from the schema for its events and gives back for the vector.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    /// The schema's filter behind each bit.
    pub filters: Vec<usize>,
    /// Where each value is found.
    pub values: Vec<Value>,
    /// The schema's member behind each place.
    pub members: Vec<usize>,
    /// Feature and factor of each read.
    pub reads: Vec<(usize, f64)>,
}

/// Where a value of an event is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number: its place in the rows of each phase.
    Number([Option<usize>; 3]),
    /// The cell into which the schema's member falls.
    Cell(usize),
    /// The step from one member's cell to another's.
    Step(usize, usize),
}

/// A feature of the transaction itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Number(usize),
    Flag(usize),
    Holds(usize),
    Lateness,
    /// One feature over another.
    Quotient(usize, usize),
    /// One feature less another.
    Difference(usize, usize),
    /// How far a feature lies from the middle of a baseline, in spreads.
    Zscore {
        of: usize,
        middle: usize,
        spread: usize,
    },
}

/// One aggregation on its way to features.
pub(super) struct Context<'a> {
    pub view: &'a str,
    pub version: u32,
    pub entity: Option<EntityType>,
    pub phase: Phase,
    pub raw: &'a RawAggregation,
    /// Hashes of the features that it is made of; empty for most.
    pub inputs: &'a str,
}

pub(super) fn compile(compiler: &mut Compiler, sources: &[(String, RawSchema)]) -> Views {
    let mut views = Views::default();
    let mut builders: Vec<Builder> = compiler.entities.iter().map(|spec| Builder::new(&spec.name, spec.ttl, spec.max_bytes)).collect();
    for (file, raw) in sources {
        compiler.file.clone_from(file);
        for view in &raw.feature_views {
            views.view(compiler, &mut builders, view);
        }
    }
    for builder in builders {
        let worst = bytes::worst_case(&builder.plan);
        if worst > builder.plan.max_bytes {
            compiler.problem(
                0,
                format!(
                    "entity `{}` may need {worst} bytes, and `max_bytes` allows {}: drop aggregations or windows, or raise it",
                    builder.plan.name, builder.plan.max_bytes
                ),
            );
        }
        let place = |name: &str| [Phase::Request, Phase::Outcome, Phase::Label].map(|phase| compiler.layout.number(name, phase));
        let values = builder.values.iter().map(|(name, origin)| match *origin {
            Origin::Number => Value::Number(place(name)),
            Origin::Cell(member) => Value::Cell(member),
            Origin::Step(from, to) => Value::Step(from, to),
        });
        let values = values.collect();
        views.inputs.push(Inputs {
            filters: builder.filters,
            values,
            members: builder.members,
            reads: builder.reads.into_iter().map(|(place, factor)| (views.placed(place), factor)).collect(),
        });
        views.plans.push(builder.plan);
    }
    for at in 0..views.own.len() {
        let Some((_, Own::Zscore { of, middle, spread })) = views.own.get(at).copied() else { continue };
        let own = Own::Zscore { of, middle: views.placed(middle), spread: views.placed(spread) };
        views.own.get_mut(at).into_iter().for_each(|(_, known)| *known = own);
    }
    views
}

impl Views {
    fn view(&mut self, compiler: &mut Compiler, builders: &mut [Builder], raw: &RawView) {
        compiler.well_named(&raw.name, "a view");
        let entity = match &raw.entity {
            None => None,
            Some(name) => match compiler.entity_type(name) {
                Some(kind) => Some(kind),
                None => return,
            },
        };
        if let (Some(ttl), Some(kind)) = (&raw.ttl, entity) {
            let parsed = duration::parse(&ttl.value);
            if let (Some(ttl), Some(builder)) = (compiler.checked(line(ttl), parsed), builders.get_mut(kind.index())) {
                builder.plan.ttl = builder.plan.ttl.max(ttl);
            }
        }
        if let Some(builder) = entity.and_then(|kind| builders.get_mut(kind.index())) {
            // Bit 0 of every plan is "any event of the request phase".
            if let Some(any) = compiler.filter_source("", 0, Phase::Request) {
                let _ = builder.filter(any, Phase::Request, "");
            }
        }
        for raw_aggregation in &raw.aggregations {
            let phase = phase(compiler, raw_aggregation);
            let context = Context { view: &raw.name.value, version: raw.version, entity, phase, raw: raw_aggregation, inputs: "" };
            compiler.well_named(&raw_aggregation.name, "an aggregation");
            for (key, given, takers) in [
                ("after", &raw_aggregation.after, &["transition_rarity"][..]),
                ("against", &raw_aggregation.against, &["quotient", "difference", "zscore_against"][..]),
            ] {
                if let Some(text) = given.as_ref().filter(|_| !takers.contains(&raw_aggregation.aggregation.value.as_str())) {
                    let message =
                        format!("`{}` takes no `{key}`: it belongs to `{}`", raw_aggregation.aggregation.value, takers.join("`, `"));
                    compiler.problem(line(text), message);
                }
            }
            match entity.and_then(|kind| builders.get_mut(kind.index())) {
                Some(builder) => self.aggregation(compiler, builder, &context),
                None if raw_aggregation.against.is_some() || OWN.iter().skip(3).any(|kind| raw_aggregation.aggregation.value == *kind) => {
                    self.derived(compiler, builders, &context);
                }
                None => self.own(compiler, &context),
            }
        }
    }

    /// A place among features and hidden reads.
    fn placed(&self, place: usize) -> usize {
        if place < HIDDEN { place } else { self.features.len() + place - HIDDEN }
    }

    fn own(&mut self, compiler: &mut Compiler, context: &Context<'_>) {
        let raw = context.raw;
        let own = match raw.aggregation.value.as_str() {
            "lateness" => Some(Own::Lateness),
            "field" => {
                let name = raw.of.as_ref();
                let found = name.and_then(|name| shown(&compiler.layout, &name.value));
                if found.is_none() {
                    let at = name.map_or_else(|| line(&raw.name), line);
                    let message = compiler.unknown(
                        name.map_or("", |name| &name.value),
                        Phase::Request,
                        "a `field` feature can show: `of` must name a number or a flag",
                    );
                    compiler.problem(at, message);
                }
                found.map(|(kind, place)| if kind == NameKind::Flag { Own::Flag(place) } else { Own::Number(place) })
            }
            "holds" => {
                if raw.filter.is_none() {
                    compiler.problem(line(&raw.name), "`holds` needs a `filter`".to_owned());
                }
                raw.filter.as_ref().and_then(|text| compiler.filter(Some(text), Phase::Request)).map(Own::Holds)
            }
            other => {
                let message = not_allowed(other, &OWN, "in a view without `entity`");
                compiler.problem(line(&raw.aggregation), message);
                None
            }
        };
        if let Some(own) = own
            && let Some(feature) = self.feature(compiler, context, None, "")
        {
            self.own.push((feature, own));
        }
    }

    fn aggregation(&mut self, compiler: &mut Compiler, builder: &mut Builder, context: &Context<'_>) {
        let raw = context.raw;
        let kind = raw.aggregation.value.as_str();
        if !HISTORY.contains(&kind) {
            let message = not_allowed(kind, &HISTORY, "in a view of an entity");
            compiler.problem(line(&raw.aggregation), message);
            return;
        }
        let windows = windows(compiler, raw);
        let mut frame = Frame { compiler, builder, context, windows: &windows };
        if let Err(Stop::Full(full)) = self.made(&mut frame) {
            let message = format!(
                "`{}.{}` is one too many: entity `{}` has room for {} {}",
                context.view, raw.name.value, builder.plan.name, full.limit, full.what
            );
            compiler.problem(line(&raw.name), message);
        }
    }

    /// Adds a feature; `None` when its name is taken.
    pub(super) fn feature(
        &mut self,
        compiler: &mut Compiler,
        context: &Context<'_>,
        window: Option<Duration>,
        text: &str,
    ) -> Option<usize> {
        let raw = context.raw;
        let suffix = if text.is_empty() { String::new() } else { format!("_{text}") };
        let name = format!("{}.{}{suffix}", context.view, raw.name.value);
        if self.features.iter().any(|known| known.name == name) {
            compiler.problem(line(&raw.name), format!("feature `{name}` is declared twice"));
            return None;
        }
        if self.features.len() >= MAX_FEATURES {
            compiler.problem(line(&raw.name), format!("feature `{name}` is one too many: at most {MAX_FEATURES} are allowed"));
            return None;
        }
        let of = match (&raw.of, &raw.latitude, &raw.longitude) {
            (None, Some(latitude), Some(longitude)) => format!("{},{}", latitude.value, longitude.value),
            (of, _, _) => of.as_ref().map_or_else(String::new, |of| of.value.clone()),
        };
        let of = match (&raw.after, &raw.against) {
            (Some(after), _) => format!("{}>{of}", after.value),
            (None, Some(against)) => format!("{of} : {}", against.value),
            (None, None) => of,
        };
        let written = |text: &Option<Text>| text.as_ref().map_or_else(String::new, |text| canonical(&text.value));
        let filter = match &raw.part {
            Some(part) => format!("{} : {}", canonical(&part.value), written(&raw.whole)),
            None => written(&raw.filter),
        };
        let entity = context.entity.and_then(|kind| compiler.entities.get(kind.index())).map_or("", |spec| spec.name.as_str());
        let seconds = window.map_or(0, |window| window.as_secs());
        let stat = raw.delay.as_ref().map_or_else(|| written(&raw.stat), |delay| format!("delay {}", delay.value));
        let kind = &raw.aggregation.value;
        let version = context.version;
        // What it is made of is told by their hashes: their names are no definition.
        let what = if context.inputs.is_empty() { &of } else { context.inputs };
        let hash =
            definition(&format!("feature|{SEMANTICS}|{version}|{kind}|{entity}|{}|{filter}|{what}|{stat}|{seconds}", context.phase.name()));
        let meaning = window.map_or_else(|| raw.meaning.clone(), |window| raw.meaning.replace("{window}", &duration::words(window)));
        self.features.push(FeatureSpec {
            name,
            hash,
            meaning,
            entity: context.entity,
            view: context.view.to_owned(),
            aggregation: kind.clone(),
            of,
            filter,
            stat,
            window,
            phase: context.phase,
        });
        Some(self.features.len() - 1)
    }
}
