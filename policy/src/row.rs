//! What rules may name beyond the schema: risk, models, threat levels, and how far an identity is to be trusted.

use telltale_features::entity::EntityType;
use telltale_features::expr::{Row, Scope};
use telltale_features::kernel::slots::{PROVED, PolicyState};
use telltale_features::schema::{RowBuffers, Schema};

use crate::levels::Levels;
use crate::policy::Situation;
use crate::risk::sureness;

/// The names that the policy adds to a schema's scope, in the order of a row.
// INVARIANT: `fill` appends in the order in which `new` declares.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extension {
    types: Vec<EntityType>,
    models: Vec<String>,
    operation: Option<usize>,
    method: Option<usize>,
}

impl Extension {
    /// Declares the names in `scope`; `models` are those that the rules mention.
    pub fn new(schema: &Schema, scope: &mut Scope, models: Vec<String>) -> Self {
        let text = |scope: &Scope, name: &str| scope.resolve(name).map(|(_, place)| usize::from(place));
        let (operation, method) = (text(scope, "http.operation"), text(scope, "http.method"));
        let types = schema.entity_types().iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
        scope.number("risk");
        scope.number("threat.propagated");
        for name in &types {
            scope.number(&format!("threat.{name}"));
        }
        for model in &models {
            scope.number(&format!("model.{model}"));
        }
        for name in &types {
            scope.flag(&format!("proved.{name}"));
        }
        for name in &types {
            scope.flag(&format!("verified.{name}"));
        }
        let types = (0..types.len()).filter_map(|at| u8::try_from(at).ok().map(EntityType)).collect();
        Self { types, models, operation, method }
    }

    /// A row for the whole scope, texts apart.
    pub fn fill(&self, situation: &Situation<'_>, state: &PolicyState, levels: &Levels) -> RowBuffers {
        let mut room = RowBuffers::default();
        situation.schema.fill(situation.fields, situation.vector, &mut room);
        let subjects = &situation.admitted.subjects;
        let now = situation.moment.now;
        let reached = self.types.iter().filter(|kind| levels.is_hostile_type(**kind) && subjects.of(**kind).is_some());
        let reached = reached.map(|kind| levels.propagated(state, subjects, *kind, (&room.numbers, now))).fold(0.0, f64::max);
        room.numbers.push(situation.combined.risk);
        room.numbers.push(reached);
        for kind in &self.types {
            room.numbers.push(if subjects.of(*kind).is_some() { levels.own(state, *kind, now) } else { f64::NAN });
        }
        for model in &self.models {
            let at = situation.scores.parts.iter().position(|part| part.model.as_ref() == model);
            // A model that does not count here says nothing to rules either.
            let at = at.filter(|at| situation.combined.muted.get(*at) != Some(&true));
            room.numbers.push(at.and_then(|at| situation.scores.parts.get(at)).map_or(f64::NAN, sureness));
        }
        room.flags.extend(self.types.iter().map(|kind| state.holds(*kind, PROVED, now)));
        room.flags.extend(self.types.iter().map(|kind| subjects.of(*kind).is_some_and(|subject| subject.verified)));
        room
    }

    /// Operation and method of a row.
    pub fn operation_and_method<'a>(&self, row: &Row<'a>) -> (&'a str, &'a str) {
        let text = |place: Option<usize>| place.and_then(|place| row.texts.get(place)).copied().unwrap_or_default();
        (text(self.operation), text(self.method))
    }
}

/// The models that rules mention as `model.<name>`.
pub(crate) fn mentioned_models<'a>(sources: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for rest in source.split("model.").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !name.is_empty() && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}
