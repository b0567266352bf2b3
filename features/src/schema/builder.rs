//! Puts a plan together: filters, values, members and accumulators, each kept once, with its tag.

use std::time::Duration;

use super::spec::Phase;
use crate::hash::definition;
use crate::kernel::plan::{Accumulator, AccumulatorId, AccumulatorKind, EntityPlan, FilterId, MemberId, Read, Scale, ValueId};

/// Most filters of a plan: bits of an event.
pub(super) const MAX_FILTERS: usize = 64;
/// Most values of a plan.
pub(super) const MAX_VALUES: usize = 16;
/// Most members of a plan.
pub(super) const MAX_MEMBERS: usize = 32;

/// A plan being built, with what the schema needs to make its events and to read its features.
pub(super) struct Builder {
    pub plan: EntityPlan,
    /// The schema's filter behind each bit.
    pub filters: Vec<usize>,
    /// Names of the values, and where each comes from.
    pub values: Vec<(String, Origin)>,
    /// The schema's member behind each place.
    pub members: Vec<usize>,
    /// Feature and factor of each read.
    pub reads: Vec<(usize, f64)>,
    /// Filters by text, for tags.
    sources: Vec<String>,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The number of that name.
    Number,
    /// The cell into which the schema's member falls.
    Cell(usize),
    /// The step from one member's cell to another's.
    Step(usize, usize),
}

/// What a plan has no more room for.
pub(super) struct Full {
    pub what: &'static str,
    pub limit: usize,
}

impl Builder {
    pub fn new(name: &str, ttl: Duration, max_bytes: usize) -> Self {
        let plan = EntityPlan {
            name: name.to_owned(),
            ttl,
            max_bytes,
            filters: Vec::new(),
            values: Vec::new(),
            members: Vec::new(),
            accumulators: Vec::new(),
            reads: Vec::new(),
        };
        Self { plan, filters: Vec::new(), values: Vec::new(), members: Vec::new(), reads: Vec::new(), sources: Vec::new() }
    }

    /// The bit of a filter of the schema, whose canonical text is `source`.
    pub fn filter(&mut self, filter: usize, phase: Phase, source: &str) -> Result<FilterId, Full> {
        if let Some(bit) = self.filters.iter().position(|known| *known == filter) {
            return Ok(bit as FilterId);
        }
        if self.filters.len() >= MAX_FILTERS {
            return Err(Full { what: "filters", limit: MAX_FILTERS });
        }
        self.filters.push(filter);
        let canonical = format!("{}|{source}", phase.name());
        self.plan.filters.push(definition(&format!("filter|1|{canonical}")));
        self.sources.push(canonical);
        Ok((self.filters.len() - 1) as FilterId)
    }

    /// The place of a value.
    pub fn value(&mut self, name: &str) -> Result<ValueId, Full> {
        self.value_of(name, Origin::Number)
    }

    /// The place of the cell into which a member falls.
    pub fn cell(&mut self, member: usize, name: &str) -> Result<ValueId, Full> {
        self.value_of(&format!("cell|{name}"), Origin::Cell(member))
    }

    /// The place of the step from one member's cell to another's.
    pub fn step(&mut self, members: (usize, usize), names: &str) -> Result<ValueId, Full> {
        self.value_of(&format!("step|{names}"), Origin::Step(members.0, members.1))
    }

    fn value_of(&mut self, name: &str, origin: Origin) -> Result<ValueId, Full> {
        if let Some(place) = self.values.iter().position(|(known, of)| known == name && *of == origin) {
            return Ok(place as ValueId);
        }
        if self.values.len() >= MAX_VALUES {
            return Err(Full { what: "values", limit: MAX_VALUES });
        }
        self.values.push((name.to_owned(), origin));
        self.plan.values.push(definition(&format!("value|1|{name}")));
        Ok((self.values.len() - 1) as ValueId)
    }

    /// The place of a member.
    pub fn member(&mut self, member: usize, name: &str) -> Result<MemberId, Full> {
        if let Some(place) = self.members.iter().position(|known| *known == member) {
            return Ok(place as MemberId);
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err(Full { what: "members", limit: MAX_MEMBERS });
        }
        self.members.push(member);
        self.plan.members.push(definition(&format!("member|1|{name}")));
        Ok((self.members.len() - 1) as MemberId)
    }

    pub fn count(&mut self, filter: FilterId, window: Duration) -> AccumulatorId {
        self.accumulator(("count", "", window.as_secs()), filter, AccumulatorKind::Count { filter, window })
    }

    pub fn sum(&mut self, filter: FilterId, value: ValueId, window: Duration) -> AccumulatorId {
        let name = self.name_of(value);
        self.accumulator(("sum", &name, window.as_secs()), filter, AccumulatorKind::Sum { filter, value, window })
    }

    fn name_of(&self, value: ValueId) -> String {
        self.values.get(usize::from(value)).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    pub fn extreme(&mut self, filter: FilterId, value: ValueId, window: Duration, greatest: bool) -> AccumulatorId {
        let (name, kind) = (self.name_of(value), AccumulatorKind::Extreme { filter, value, window, greatest });
        self.accumulator((if greatest { "max" } else { "min" }, &name, window.as_secs()), filter, kind)
    }

    pub fn moments(&mut self, filter: FilterId, value: ValueId, window: Duration) -> AccumulatorId {
        let name = self.name_of(value);
        self.accumulator(("moments", &name, window.as_secs()), filter, AccumulatorKind::Moments { filter, value, window })
    }

    pub fn latest(&mut self, filter: FilterId, value: ValueId) -> AccumulatorId {
        let name = self.name_of(value);
        self.accumulator(("latest", &name, 0), filter, AccumulatorKind::Latest { filter, value })
    }

    pub fn position(&mut self, filter: FilterId, latitude: ValueId, longitude: ValueId) -> AccumulatorId {
        let names = format!("{},{}", self.name_of(latitude), self.name_of(longitude));
        self.accumulator(("position", &names, 0), filter, AccumulatorKind::Position { filter, latitude, longitude })
    }

    pub fn histogram(&mut self, filter: FilterId, value: ValueId, window: Duration, scale: Scale) -> AccumulatorId {
        let name = self.name_of(value);
        let of = match scale {
            Scale::Cells => "cells",
            Scale::Magnitudes => "magnitudes",
            Scale::Successions => "successions",
            Scale::Pairs => "pairs",
        };
        self.accumulator((of, &name, window.as_secs()), filter, AccumulatorKind::Histogram { filter, value, window, scale })
    }

    pub fn matured(&mut self, filter: FilterId, window: Duration, delay: Duration) -> AccumulatorId {
        let of = delay.as_secs().to_string();
        self.accumulator(("matured", &of, window.as_secs()), filter, AccumulatorKind::Matured { filter, window, delay })
    }

    /// One section answers every window: the tag leaves the horizon out, so that a longer window keeps the history.
    pub fn distinct(&mut self, filter: FilterId, member: MemberId, name: &str, window: Duration) -> AccumulatorId {
        let id = self.accumulator(("distinct", name, 0), filter, AccumulatorKind::Distinct { filter, member, horizon: window });
        if let Some(Accumulator { kind: AccumulatorKind::Distinct { horizon, .. }, .. }) = self.plan.accumulators.get_mut(usize::from(id)) {
            *horizon = (*horizon).max(window);
        }
        id
    }

    /// Novelty has a section of its own, because its horizon is its meaning.
    pub fn novelty(&mut self, filter: FilterId, member: MemberId, name: &str, horizon: Duration) -> AccumulatorId {
        self.accumulator(("novelty", name, horizon.as_secs()), filter, AccumulatorKind::Distinct { filter, member, horizon })
    }

    pub fn interarrival(&mut self, filter: FilterId, window: Duration) -> AccumulatorId {
        self.accumulator(("interarrival", "", window.as_secs()), filter, AccumulatorKind::Interarrival { filter, window })
    }

    pub fn seen(&mut self, filter: FilterId) -> AccumulatorId {
        self.accumulator(("seen", "", 0), filter, AccumulatorKind::Seen { filter })
    }

    /// Adds a read for a feature.
    pub fn read(&mut self, read: Read, feature: usize, factor: f64) {
        self.plan.reads.push(read);
        self.reads.push((feature, factor));
    }

    /// `definition_of` is name, member or value, and window in seconds (0 where it is no part of the meaning).
    fn accumulator(&mut self, definition_of: (&str, &str, u64), filter: FilterId, kind: AccumulatorKind) -> AccumulatorId {
        let (name, of, seconds) = definition_of;
        let source = self.sources.get(usize::from(filter)).map_or("", String::as_str);
        let tag = definition(&format!("accumulator|1|{name}|{}|{source}|{of}|{seconds}", self.plan.name));
        let found = self.plan.accumulators.iter().position(|known| known.tag == tag);
        let index = found.unwrap_or_else(|| {
            self.plan.accumulators.push(Accumulator { tag, kind });
            self.plan.accumulators.len() - 1
        });
        AccumulatorId::try_from(index).unwrap_or(AccumulatorId::MAX)
    }
}
